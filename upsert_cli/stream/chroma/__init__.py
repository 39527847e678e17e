"""Everything that knows Chroma: its records, its process, its files, and what its errors mean."""
