"""Keeps tasks and their states in TinyDB files."""
