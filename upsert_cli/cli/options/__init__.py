"""Declares the options of all commands, and gets their values: typed, from variables, from settings files."""
