"""Runs one load: creates or opens a task, runs its stages, commits and stops."""
