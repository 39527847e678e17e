"""Reads a collection: verifies and repairs it, queries and exports it, lists collections."""
