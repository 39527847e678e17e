"""Checks of stored vectors: a glance at every opening, and all of them, with the hashes, for `verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, has_own_vector, stored_fault
from upsert_cli.store.base import CheckedRecords, Record
from upsert_cli.store.chroma.faults import lacks_vector
from upsert_cli.store.chroma.index_files import damaged
from upsert_cli.store.target import Target

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from upsert_cli.store.base import Vectors

GLANCE_ROWS = 16  # rows to read from either end of the collection after a clean end
SUSPICIOUS_ROWS = 512  # newest rows to read after an unclean end: at least the last write
QUERIES = 8  # of these rows that are looked for by their own vectors
SAME_DISTANCE = 1e-3  # at most from a vector to itself; rounding alone gives some 1e-6
ODD_FACTOR = 100.0  # times longer or shorter than usual; the vectors of one model never are, garbage mostly is


# -- at every opening --------------------------------------------------------------------------------------------------


def check_vectors(target: Target, collection: Collection, *, count: int, ours: bool, suspicious: bool) -> None:
    """Read the oldest and the newest vectors, and query by a few of them.

    Args:
        target: The target that a message names.
        collection: The open collection.
        count: The number of its records.
        ours: Whether this tool made the collection, so that a vector of zeros is damage.
        suspicious: Whether to read more vectors, since the last writer died.

    Raises:
        TargetDamaged: Vectors are missing, or the index does not find them.
    """
    newest = min(SUSPICIOUS_ROWS if suspicious else GLANCE_ROWS, count)
    for start, rows in ((0, min(GLANCE_ROWS, count)), (count - newest, newest)):
        if rows and (fault := _vectors_fault(collection, start, rows, ours=ours)) is not None:
            raise damaged(target, fault)


def _vectors_fault(collection: Collection, start: int, rows: int, *, ours: bool) -> str | None:
    import numpy as np

    read = collection.get(limit=rows, offset=start, include=["embeddings"])
    vectors = np.asarray(read["embeddings"], dtype=np.float32)
    where = f"of the {rows} records from number {start + 1} on,"
    if vectors.shape[0] != rows or not np.isfinite(vectors).all():
        return f"{where} {vectors.shape[0]} have a vector"
    zeros = int((~vectors.any(axis=1)).sum())
    if zeros == rows or (ours and zeros):
        return f"{where} {zeros} have a vector of zeros"
    asked = vectors[:: -(-rows // QUERIES)]
    lost = sum(distance is not None for distance in lost_vectors(collection, asked))
    # The index is approximate: a few rows that it does not find are no damage.
    return f"{where} {lost} of {len(asked)} are not found by their own vector" if 2 * lost > len(asked) else None


def lost_vectors(collection: Collection, vectors: Sequence[Vectors] | Vectors) -> list[float | None]:
    """Return, for each vector, the distance of the nearest record if that cannot be its own record, else None."""
    import numpy as np

    configuration = collection.configuration_json.get("hnsw") or {}
    space = (collection.metadata or {}).get("hnsw:space", configuration.get("space"))  # versions before 1.0, later ones
    if not len(vectors) or space == "ip":
        return [None] * len(vectors)  # by the inner product, another vector may be nearer
    vectors = np.stack(list(vectors))
    found = collection.query(query_embeddings=vectors, n_results=1, include=["distances"])["distances"] or []
    nearest = np.array([distances[0] if distances else np.inf for distances in found])
    lost = ~(nearest <= SAME_DISTANCE * np.maximum(1.0, np.linalg.norm(vectors, axis=1) ** 2))
    return [float(distance) if is_lost else None for distance, is_lost in zip(nearest, lost, strict=True)]


# -- all of them -------------------------------------------------------------------------------------------------------


def checked(
    chroma: Collection, records: Sequence[Record], *, start: int, every: int, dimension: int, identity: str | None
) -> CheckedRecords:
    """Return the faults of some records.

    Args:
        chroma: The open collection.
        records: The records from number `start` on.
        start: The number of the first record.
        every: Each record whose number is divisible by it is also looked for by a query.
        dimension: The length that each vector has to have.
        identity: That of the model, which is part of the hashes; None if the records have no hashes.
    """
    vectors = stored_vectors(chroma, [record.id for record in records])
    unreadable = _unreadable(records, vectors, dimension)
    different: dict[str, str] = {}
    if identity is not None:
        # A vector that came with its item may have any length.
        embedded = [record.id for record in records if not has_own_vector(record.metadata.get(HASH_KEY))]
        unreadable = _odd_lengths({one: vectors[one] for one in embedded if one in vectors}) | unreadable
        different = _different([record for record in records if record.id not in unreadable], identity)
    sample = [record.id for record in records[-start % every :: every] if record.id not in unreadable]
    return CheckedRecords(
        rows=len(records),
        unreadable=unreadable,
        different=different,
        unreachable=_unreachable(chroma, {one: vectors[one] for one in sample}),
        asked=len(sample),
    )


def _unreadable(records: Sequence[Record], vectors: Mapping[str, Vectors], dimension: int) -> dict[str, str]:
    """Return the fault of each record without a valid vector."""
    faults = ((record.id, _vector_fault(vectors.get(record.id), dimension)) for record in records)
    return {identifier: fault for identifier, fault in faults if fault is not None}


def _different(records: Sequence[Record], identity: str) -> dict[str, str]:
    """Return the fault of each record whose content does not fit its hash."""
    faults = ((record.id, _content_fault(record, identity)) for record in records)
    return {identifier: fault for identifier, fault in faults if fault is not None}


def _unreachable(chroma: Collection, vectors: Mapping[str, Vectors]) -> dict[str, str]:
    """Return the fault of each record that a query by its own vector does not find."""
    lost = lost_vectors(chroma, list(vectors.values()))
    return {
        one: f"a query by its own vector finds nothing nearer than {distance:.3g}"
        for one, distance in zip(vectors, lost, strict=True)
        if distance is not None
    }


def _content_fault(record: Record, identity: str) -> str | None:
    if record.text is None and not has_own_vector(record.metadata.get(HASH_KEY)):
        return "it has no document"
    return stored_fault(record.text or "", record.metadata, identity)


def stored_vectors(chroma: Collection, ids: Sequence[str]) -> dict[str, Vectors]:
    """Return the vectors of records, without those that the index lacks, which are found by bisecting."""
    found: dict[str, Vectors] = {}

    def read(part: Sequence[str]) -> None:
        import numpy as np

        got = chroma.get(ids=list(part), include=["embeddings"])
        vectors = got["embeddings"]
        if vectors is None or len(vectors) != len(part):
            raise LookupError("fewer vectors came back than were asked for")
        found.update(zip(got["ids"], (np.asarray(vector, dtype=np.float32) for vector in vectors), strict=True))

    def is_lost(error: BaseException) -> bool:
        return type(error) in (LookupError, TypeError) or lacks_vector(error)

    failing_rows(ids, read, is_data_fault=is_lost)
    return found


def _vector_fault(vector: Any, dimension: int) -> str | None:
    import numpy as np

    if vector is None:
        return "the index has no vector of it"
    if vector.shape != (dimension,):
        return f"its vector has {vector.size} numbers, not {dimension}"
    if not np.isfinite(vector).all():
        return "its vector has a number that is not finite"
    return None if vector.any() else "its vector is all zeros"


def _odd_lengths(vectors: dict[str, Vectors]) -> dict[str, str]:
    """Return the fault of each vector that is far longer or shorter than usual, which no cosine distance shows."""
    import numpy as np

    lengths = {one: float(np.linalg.norm(vector.astype(np.float64))) for one, vector in vectors.items()}
    usual = float(np.median([*lengths.values()])) if lengths else 0.0
    return {
        one: f"its vector has the length {length:.3g}, and {usual:.3g} is usual"
        for one, length in lengths.items()
        if not usual / ODD_FACTOR <= length <= usual * ODD_FACTOR
    }
