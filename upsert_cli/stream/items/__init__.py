"""A file becomes items, row by row, from any position on."""
