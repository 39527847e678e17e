"""A load, from what is typed to the end of its task: the only place where the stream and the journal meet."""
