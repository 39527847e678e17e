"""Fields of `LoadOptions` with their options of the command line, and the bounds of their values."""

from __future__ import annotations

from dataclasses import field
from typing import Any

MAX_BATCH = 5_000  # rows; Chroma's own limit is slightly higher, and batches above 1,024 gain nothing
MAX_THREADS = 256
MAX_LIMIT = 10**15  # rows; no file has as many, and every counter of rows can hold it
MAX_WORKERS = 10_000
MAX_GPUS = 1_024.0
MAX_TOKEN_BUDGET = 1 << 20
MAX_WRITERS = 10  # Chroma Cloud allows 10 concurrent writes to a collection
MAX_RETRY_FOR = 7 * 86_400  # seconds; a week
MIN_CHUNK_TOKENS = 8  # tokens; models put two or more around each text, and a character may have several


def option(text: str, default: Any = None, *, maps: bool = False, decides: bool = False, **shown: Any) -> Any:
    """Return a field with all that the command line needs for its option.

    Args:
        text: The help, which also describes the field.
        default: The field's default.
        maps: Whether the option maps rows that are not in item form, so that a file of --map may hold it.
        decides: Whether the stored records depend on the option, as on each that maps; others only say how to load.
        shown: `choices`; `within`, the least and the most value; `multiple` for a list; `folder` for a path; `metavar`,
            which is N in a range; `usually`, the default in words, for an option whose default is None.
    """
    return field(default=default, metadata={"help": text, "maps": maps, "decides": maps or decides, **shown})


def flag(name: str) -> str:
    """Return the command-line option that sets a field."""
    return "--text-field" if name == "text_fields" else f"--{name.replace('_', '-')}"
