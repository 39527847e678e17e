"""The command line: a module for each command, their options, what they show, and the one error boundary."""
