"""Whether a collection's vector index holds what it should, as far as a glance can tell.

Chroma counts and lists records from its database, and never notices that their vectors are gone. A full look is what
`verify` is for; this one is taken at every opening, so it costs milliseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.errors import TargetDamaged
from upsert_cli.store.base import Target
from upsert_cli.store.chroma.database import flushed_segments, indexed_ids
from upsert_cli.store.chroma.index_ids import saved_ids

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

GLANCE_ROWS = 16  # rows read back from either end of the collection after a clean end
SUSPICIOUS_ROWS = 512  # rows read back from the newest after an unclean end: at least the last write
QUERIES = 8  # of those rows, how many have to find themselves
GLANCE_LINKS = 100_000  # rows; to follow the links of more takes longer than a glance may
SAME_DISTANCE = 1e-3  # of a vector to itself, where rounding alone gives some 1e-6
# hnswlib's header, version 1: version, two offsets, rows, bytes a row, and more that is not looked at
_HEADER = struct.Struct("<iQQQQ")
_HEADER_BYTES = 100
_LENGTH = struct.Struct("<I")
_FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")


def check_files(target: Target, folder: Path, *, suspicious: bool = False) -> None:
    """Makes sure that the files of the index are there and long enough, before Chroma maps them into memory.

    Args:
        target: The collection; all of its links are followed where it is to be looked at as it was found.
        folder: Where its files are.
        suspicious: Whether to follow them in any case, however long that takes.

    Raises:
        TargetDamaged: One is missing or was cut; Chroma would end in a segmentation fault sooner or later.
    """
    for segment in flushed_segments(folder, target.collection):
        if (fault := _files_fault(folder / segment, thorough=suspicious or target.as_found)) is not None:
            raise _damaged(target, fault)


def _files_fault(folder: Path, *, thorough: bool) -> str | None:
    sizes = {name: _size(folder / name) for name in _FILES}
    for name, size in sizes.items():
        if not size:
            return f"{folder.name}/{name} is {'missing' if size is None else 'empty'}"
    header = (folder / "header.bin").read_bytes()
    version, _, _, rows, row_bytes = _HEADER.unpack(header.ljust(_HEADER.size, b"\0")[: _HEADER.size])
    if version != 1:
        # Zeros where a version should be are damage; any other version is one that we do not know.
        return None if header.strip(b"\0") else f"{folder.name}/header.bin is blank"
    least = {"header.bin": _HEADER_BYTES, "data_level0.bin": rows * row_bytes, "length.bin": 4 * rows}
    least["link_lists.bin"] = 4 * rows
    if thorough or rows <= GLANCE_LINKS:
        least["link_lists.bin"] = _links_end(folder / "link_lists.bin", rows)
    return next((f"{folder.name}/{name} was cut" for name in least if (sizes[name] or 0) < least[name]), None)


def _links_end(path: Path, rows: int) -> int:
    """Returns where the links of the last row end: each has their length in bytes before them, often 0.

    Links that are cut off are read as none, without an error, and queries go astray that pass there.
    """
    content = path.read_bytes()
    place = 0
    for _ in range(rows):
        if place + _LENGTH.size > len(content):
            return place + _LENGTH.size
        place += _LENGTH.size + _LENGTH.unpack_from(content, place)[0]
    return place


def check_rows(target: Target, folder: Path) -> None:
    """Make sure that the index is not older than the records, wherever the rows are that it lacks.

    A program that has an older index in memory writes it over a newer one, and Chroma goes on with what it finds.

    Args:
        target: The collection.
        folder: Where its files are.

    Raises:
        TargetDamaged: The index lacks records.
    """
    for segment, ids in indexed_ids(folder, target.collection):
        if missing := _missing_rows(folder / segment, ids):
            raise _damaged(target, f"its index is older than its records and lacks {missing:,} of {len(ids):,}")


def _missing_rows(folder: Path, ids: Set[str]) -> int:
    """Return how many records an index lacks; 0 for files that are not as this version of Chroma writes them."""
    try:
        version, _, _, rows, _ = _HEADER.unpack((folder / "header.bin").read_bytes()[: _HEADER.size])
        saved = saved_ids(folder / "index_metadata.pickle")
    except (OSError, struct.error):
        return 0  # what is missing or cut is found by `check_files`, and beside a writer it is not damage
    if version != 1:
        return 0
    # The index counts rows that were deleted too, so its own number alone would hide as many that were lost.
    return max(len(ids) - int(rows), 0 if saved is None else len(ids - saved))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def check_vectors(target: Target, collection: Collection, *, count: int, ours: bool, suspicious: bool) -> None:
    """Reads vectors back and lets a few of them find themselves.

    Args:
        target: For the message.
        collection: Open.
        count: Records in it.
        ours: Whether all of them were written by this tool, which writes no vector of zeros.
        suspicious: Whether to look at more, since the last writer did not end in order.

    Raises:
        TargetDamaged: Vectors are missing, or the index does not find them.
    """
    newest = min(SUSPICIOUS_ROWS if suspicious else GLANCE_ROWS, count)
    for start, rows in ((0, min(GLANCE_ROWS, count)), (count - newest, newest)):
        if rows and (fault := _vectors_fault(collection, start, rows, ours=ours)) is not None:
            raise _damaged(target, fault)


def _vectors_fault(collection: Collection, start: int, rows: int, *, ours: bool) -> str | None:
    import numpy as np

    read = collection.get(limit=rows, offset=start, include=["embeddings"])
    vectors = np.asarray(read["embeddings"], dtype=np.float32)
    where = f"of the {rows} records from number {start + 1} on,"
    if vectors.shape[0] != rows or not np.isfinite(vectors).all():
        return f"{where} {vectors.shape[0]} have a vector"
    lengths = np.linalg.norm(vectors, axis=1)
    zeros = int((lengths == 0).sum())
    if zeros == rows or (ours and zeros):
        return f"{where} {zeros} have a vector of zeros"
    space = (collection.configuration_json.get("hnsw") or {}).get("space")
    if space == "ip":
        return None  # by the inner product a vector need not be nearest to itself
    asked = slice(None, None, -(-rows // QUERIES))
    found = collection.query(query_embeddings=vectors[asked], n_results=1, include=["distances"])["distances"] or []
    nearest = np.array([distances[0] if distances else np.inf for distances in found])
    lost = int((nearest > SAME_DISTANCE * np.maximum(1.0, lengths[asked] ** 2)).sum())
    # The index is an approximate one: a row that cannot be reached is no damage yet, many are.
    return f"{where} {lost} of {nearest.size} are not found by their own vector" if 2 * lost > nearest.size else None


def _damaged(target: Target, detail: str) -> TargetDamaged:
    return TargetDamaged(path=target.path, collection=target.collection, detail=detail)
