"""Text files that users write for the tool: UTF-8 in every locale, with or without a byte-order mark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ENCODING = "utf-8-sig"  # editors on Windows write the mark


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return path.read_text(ENCODING)


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the values in a TOML file.

    Raises:
        ValueError: It is not UTF-8, or not TOML.
    """
    import tomllib  # 4 ms, only for users who have such a file

    return tomllib.loads(content.decode(ENCODING))
