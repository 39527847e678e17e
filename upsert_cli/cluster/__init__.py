"""Runs a load on several machines with Ray."""
