"""Shows things on the terminal and in pipes: messages, tables, progress, events, and how a load ended."""
