"""Text files that a user writes for the tool: UTF-8 in every locale, with or without a byte-order mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENCODING = "utf-8-sig"  # editors on Windows begin a file with the mark


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return path.read_text(ENCODING)


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the values of a file of TOML.

    Raises:
        ValueError: It is not UTF-8, or not TOML.
    """
    import tomllib  # 4 ms, which those without such a file need not wait for

    return tomllib.loads(content.decode(ENCODING))
