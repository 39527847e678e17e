"""Values -> about how much memory they take up, by which batches are bounded."""

from __future__ import annotations

from upsert_cli.documents.document import Document

NUMBER_SIZE = 36  # bytes of a number in the list that it was read as, and as 32 bits


def document_size(document: Document) -> int:
    """Returns about how many bytes a document takes up."""
    own = 0 if document.vector is None else NUMBER_SIZE * len(document.vector)
    return len(document.text) + size_of(document.metadata) + own


def size_of(value: object) -> int:
    """Returns the characters of all strings in a value; what else it holds is small beside them."""
    if isinstance(value, dict):
        value = [*value.values()]
    if not isinstance(value, list):
        return len(value) if isinstance(value, str | bytes) else 0
    size = 0
    for inner in value:
        kind = type(inner)  # told apart here, since this is asked of every value of every row
        if kind is str or kind is bytes:
            size += len(inner)
        elif kind is dict or kind is list:
            size += size_of(inner)
    return size
