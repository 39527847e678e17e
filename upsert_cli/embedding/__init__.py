"""Turns text into vectors, and finds the model that does it."""
