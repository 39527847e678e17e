"""Chunks -> the item that they were split from, where that is certain.

Chunks that were made with an overlap repeat the end of the one before, and nothing stored tells how much. So texts are
joined only where no chunk begins as the one before ends: they had no overlap there. The hash of a chunk tells whether
another one follows, unless an early version of this tool wrote it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from upsert_cli.documents.chunking import AVERAGE_NUMBER, CHUNK_KEY, OBJECT_KEY
from upsert_cli.documents.hashing import HASH_KEY, exact, is_last_chunk


class JoinedItem(NamedTuple):
    """An item whose chunks were joined."""

    text: str
    metadata: dict[str, Any]
    """Of its chunks, without the keys that tell them apart."""


def joined(chunks: Iterable[tuple[int, str | None, Mapping[str, Any]]]) -> JoinedItem | None:
    """Return the item of some chunks, in any order, or None if one is missing or the text is not certain.

    Args:
        chunks: The number, the text and the metadata of each chunk of an item; its average does not count.
    """
    ordered = sorted((each for each in chunks if each[0] != AVERAGE_NUMBER), key=lambda each: each[0])
    texts = [text for _, text, _ in ordered if text]
    if not texts or [number for number, _, _ in ordered] != list(range(len(texts))):
        return None
    *inner, end = (is_last_chunk(metadata.get(HASH_KEY)) for _, _, metadata in ordered)
    if any(inner) or end is False:  # the rest is missing, or left over from a longer text
        return None
    first, *others = (_common(metadata) for _, _, metadata in ordered)
    if any(other != first for other in others) or any(itertools.starmap(_may_overlap, itertools.pairwise(texts))):
        return None
    return JoinedItem("".join(texts), first)


def _common(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in exact(metadata).items() if key not in (HASH_KEY, OBJECT_KEY, CHUNK_KEY)}


def _may_overlap(before: str, after: str) -> bool:
    """Tell whether a text begins as the one before it ends."""
    start = before.find(after[0], max(0, len(before) - len(after)))
    while start >= 0:
        if after.startswith(before[start:]):
            return True
        start = before.find(after[0], start + 1)
    return False
