"""The commands that install packages which are not there."""

from __future__ import annotations

import importlib.util
import shlex
import sys


def is_installed(module: str) -> bool:
    """Check that a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def install_command(*requirements: str) -> str:
    """Return a command that installs packages for this Python; environments that uv makes have no pip."""
    program = [sys.executable, "-m", "pip", "install"]
    if not is_installed("pip"):
        program = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*program, *requirements])
