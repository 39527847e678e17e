"""Loads items into a Chroma vector collection in batches, as tasks that lose no row."""

from __future__ import annotations

__version__ = "0.1.0"
