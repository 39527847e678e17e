"""Benchmarks: `python -m tests.bench` measures the scorecard's rows and prints what was reached."""
