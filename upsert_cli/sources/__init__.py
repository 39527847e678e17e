"""Reads what the user names, item by item, from any position on."""
