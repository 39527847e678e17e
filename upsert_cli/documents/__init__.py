"""Turns an item into documents: text, metadata, vectors, chunks and their hashes."""
