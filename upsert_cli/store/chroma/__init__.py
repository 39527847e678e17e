"""Implements a store in Chroma: a local folder or a server."""
