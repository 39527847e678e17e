"""The tasks that were run, in files that no crash leaves unreadable."""
