"""Reads a collection: verifies and repairs it, queries it, lists collections."""
