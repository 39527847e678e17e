"""An item becomes a document: its text, its metadata, and what the next load compares."""
