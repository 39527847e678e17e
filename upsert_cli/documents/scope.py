"""Which loads a record belongs to, and so which of them may delete it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SCOPE_KEY = "upsert_scope"
DIGEST_BYTES = 8  # of the names of sources; two sets of sources with the same scope are unheard of


def scope_of(sources: Iterable[str]) -> str:
    """Returns the scope of a load that names none: the same for the same sources, in any order, on any day.

    Args:
        sources: Absolute names of files, folders and globs, as the task has them.
    """
    names = "\0".join(sorted(set(sources))).encode("utf-8", "surrogatepass")
    return f"sources-{hashlib.blake2b(names, digest_size=DIGEST_BYTES).hexdigest()}"
