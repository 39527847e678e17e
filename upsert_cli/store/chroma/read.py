"""Records as they are stored, read back with their vectors: that is what exposes a damaged index.

Chroma counts and lists records from its database and never notices that their vectors are gone; asked for a vector that
the index lacks, it fails for all that are asked for together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, stored_fault
from upsert_cli.documents.metadata import SCOPE_KEY
from upsert_cli.errors import BadFilter
from upsert_cli.store.base import Block, QueryHit, RecordRef, RecordRefPage, Stored, Target
from upsert_cli.store.chroma.faults import is_data_fault, reason
from upsert_cli.store.chroma.index_check import SAME_DISTANCE

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from upsert_cli.store.base import Vectors

FETCH_ROWS = 1_000  # rows a call; `get` takes some 5,000 ids at most
ODD_FACTOR = 100.0  # from the usual length on either side; no model's vectors differ so much, garbage mostly does
_NO_VECTOR = "the index has no vector of it"


class _Lost(Exception):
    """Raised when fewer vectors came back than were asked for."""


def read_block(target: Target, chroma: Collection, *, start: int, rows: int, every: int, identity: str | None) -> Block:
    """Reads a run of records back, and tells what is wrong with each.

    Args:
        target: Tells the dimension.
        chroma: Open.
        start: Records before the first one.
        rows: How many.
        every: Each so many records, counted from the collection's first, one has to find itself by a query.
        identity: The model's, which is part of the hashes; None if the records have none.
    """
    records = fetch(chroma, None, start=start, rows=rows)
    vectors = _vectors(chroma, [record.id for record in records])
    unreadable: dict[str, str] = _odd_lengths(vectors) if identity is not None else {}
    different: dict[str, str] = {}
    for record in records:
        if (fault := _vector_fault(vectors.get(record.id), target.dimension)) is not None:
            unreadable[record.id] = fault
        elif record.id in unreadable:
            continue
        elif record.text is None and identity is not None:
            different[record.id] = "it has no document"  # so its vector could not be made again: leave the index alone
        elif identity is not None and (fault := stored_fault(record.text or "", record.metadata, identity)) is not None:
            different[record.id] = fault
    first = -start % every
    sample = [record.id for record in records[first::every] if record.id not in unreadable]
    return Block(
        rows=len(records),
        unreadable=unreadable,
        different=different,
        unreachable=_unreachable(chroma, {one: vectors[one] for one in sample}),
        asked=len(sample),
    )


def fetch(chroma: Collection, ids: Sequence[str] | None, *, start: int, rows: int) -> list[Stored]:
    """Returns the documents and metadata of `ids`, or of `rows` records from `start` on."""
    if ids is None:
        read = chroma.get(limit=rows, offset=start, include=["documents", "metadatas"])
    else:
        read = chroma.get(ids=list(ids), include=["documents", "metadatas"])
    columns = zip(read["ids"], read["documents"] or [], read["metadatas"] or [], strict=True)
    return [Stored(one, text, dict(metadata or {})) for one, text, metadata in columns]


def members_of(chroma: Collection, scope: str, *, start: int, rows: int) -> RecordRefPage:
    """Returns the records of a scope among `rows` records from `start` on."""
    read = chroma.get(limit=rows, offset=start, include=["metadatas"])
    stored = zip(read["ids"], read["metadatas"] or [], strict=True)
    # Sorted out here: a filter of Chroma's would be worked out anew over all records for every run of them.
    of_scope = ((one, its) for one, its in stored if dict(its or {}).get(SCOPE_KEY) == scope)
    return RecordRefPage(
        rows=len(read["ids"]), members=[RecordRef(one, str(its.get(HASH_KEY))) for one, its in of_scope]
    )


def nearest(chroma: Collection, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
    """Returns the records nearest to a vector, the nearest first.

    Args:
        chroma: Open.
        vector: Float32, `(1, dimension)`, of the collection's dimension.
        rows: How many at most.
        where: A filter of Chroma's; None: all records.

    Raises:
        BadFilter: Chroma does not understand the filter.
    """
    try:
        found = chroma.query(
            query_embeddings=vector, n_results=rows, where=where, include=["documents", "metadatas", "distances"]
        )
    except Exception as error:
        if where is None or not is_data_fault(error):
            raise
        raise BadFilter(given=where, reason=reason(error).rstrip(".")) from error
    # One answer for each vector that was asked for.
    return [
        QueryHit(one, float(distance), text, dict(metadata or {}))
        for one, distance, text, metadata in zip(
            found["ids"][0],
            (found["distances"] or [[]])[0],
            (found["documents"] or [[]])[0],
            (found["metadatas"] or [[]])[0],
            strict=True,
        )
    ]


def _vectors(chroma: Collection, ids: Sequence[str]) -> dict[str, Vectors]:
    """Returns the vectors that the index has; those that it lacks are found by halving."""
    found: dict[str, Vectors] = {}

    def read(part: Sequence[str]) -> None:
        import numpy as np

        got = chroma.get(ids=list(part), include=["embeddings"])
        vectors = got["embeddings"]
        if vectors is None or len(vectors) != len(part):
            raise _Lost
        found.update(zip(got["ids"], (np.asarray(vector, dtype=np.float32) for vector in vectors), strict=True))

    failing_rows(ids, read, is_data_fault=_is_lost)
    return found


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, _Lost | TypeError) or "finding id" in str(error)


def _vector_fault(vector: Any, dimension: int) -> str | None:
    import numpy as np

    if vector is None:
        return _NO_VECTOR
    if vector.shape != (dimension,):
        return f"its vector has {vector.size} numbers, not {dimension}"
    if not np.isfinite(vector).all():
        return "its vector has a number that is not finite"
    return None if vector.any() else "its vector is all zeros"


def _odd_lengths(vectors: dict[str, Vectors]) -> dict[str, str]:
    """Returns those that are far longer or shorter than others of one model: a cosine alone would not show it."""
    import numpy as np

    lengths = {one: float(np.linalg.norm(vector.astype(np.float64))) for one, vector in vectors.items()}
    usual = float(np.median([*lengths.values()])) if lengths else 0.0
    return {
        one: f"its vector has the length {length:.3g}, and {usual:.3g} is usual"
        for one, length in lengths.items()
        if not usual / ODD_FACTOR <= length <= usual * ODD_FACTOR
    }


def _unreachable(chroma: Collection, sample: dict[str, Vectors]) -> dict[str, str]:
    """Returns those whose own vector finds nothing as near as itself."""
    import numpy as np

    space = (chroma.configuration_json.get("hnsw") or {}).get("space")
    if not sample or space == "ip":
        return {}  # by the inner product a vector need not be nearest to itself
    vectors = np.stack(list(sample.values()))
    found = chroma.query(query_embeddings=vectors, n_results=1, include=["distances"])["distances"] or []
    nearest = np.array([distances[0] if distances else np.inf for distances in found])
    lost = ~(nearest <= SAME_DISTANCE * np.maximum(1.0, np.linalg.norm(vectors, axis=1) ** 2))
    return {
        one: f"a query by its own vector finds nothing nearer than {distance:.3g}"
        for one, distance, is_lost in zip(sample, nearest, lost, strict=True)
        if is_lost
    }
