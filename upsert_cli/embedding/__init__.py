"""Turns text into vectors, and finds the model that does it."""

from upsert_cli.embedding.embedder import load

__all__ = ["load"]
