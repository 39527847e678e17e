"""The command line: a module for each command, and the one error boundary; `options` and `display` are below them."""
