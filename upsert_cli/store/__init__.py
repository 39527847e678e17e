"""Keeps records: the interface of a store, and Chroma behind it in a process of its own."""
