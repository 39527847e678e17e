"""The store of records: its interface, and Chroma, which runs in a child process."""
