"""A glance at a collection's vector index at every opening; `verify` reads all of it."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import TargetDamaged
from upsert_cli.store.base import Target
from upsert_cli.store.chroma.database import find_entry, reading
from upsert_cli.store.folder import INDEX_NAMES

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from upsert_cli.store.base import Vectors

GLANCE_ROWS = 16  # rows read back from either end of the collection after a clean end
SUSPICIOUS_ROWS = 512  # rows read back from the newest after an unclean end: at least the last write
QUERIES = 8  # of those rows, how many have to find themselves
GLANCE_LINKS = 100_000  # rows; to follow the links of more takes longer than a glance may
SAME_DISTANCE = 1e-3  # of a vector to itself, where rounding alone gives some 1e-6
# hnswlib's header, version 1: version, two offsets, rows, bytes a row, and more that is not looked at
_HEADER = struct.Struct("<iQQQQ")
_HEADER_BYTES = 100
_LENGTH = struct.Struct("<I")
_INDEXED = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND seq_id <= ?"


# -- the files ---------------------------------------------------------------------------------------------------------


def check_files(target: Target, folder: Path, *, suspicious: bool = False) -> None:
    """Check that the files of the index exist and are long enough, before Chroma maps them into memory.

    All links are followed, however long that takes, where something is suspicious or the collection is taken as found.

    Raises:
        TargetDamaged: One is missing or was cut; Chroma would end in a segmentation fault sooner or later.
    """
    with reading(folder) as database:
        entry = find_entry(database, target.collection)
    if entry is None or entry.written_index is None:
        return
    if (fault := _files_fault(folder / entry.written_index, thorough=suspicious or target.as_found)) is not None:
        raise _damaged(target, fault)


def _files_fault(folder: Path, *, thorough: bool) -> str | None:
    sizes: dict[str, int] = {}
    for name in INDEX_NAMES:
        try:
            sizes[name] = (folder / name).stat().st_size
        except OSError:
            return f"{folder.name}/{name} is missing"
        if not sizes[name]:
            return f"{folder.name}/{name} is empty"
    header = (folder / "header.bin").read_bytes()
    version, _, _, rows, row_bytes = _HEADER.unpack(header.ljust(_HEADER.size, b"\0")[: _HEADER.size])
    if version != 1:
        # Zeros instead of a version are damage; any other version is one that we do not know.
        return None if header.strip(b"\0") else f"{folder.name}/header.bin is blank"
    least = {"header.bin": _HEADER_BYTES, "data_level0.bin": rows * row_bytes, "length.bin": 4 * rows}
    least["link_lists.bin"] = 4 * rows
    if thorough or rows <= GLANCE_LINKS:
        least["link_lists.bin"] = _links_end(folder / "link_lists.bin", rows)
    return next((f"{folder.name}/{name} was cut" for name in least if sizes[name] < least[name]), None)


def _links_end(path: Path, rows: int) -> int:
    """Return where the links of the last row end: before each row's links is their length in bytes, often 0.

    Links that were cut off are read as none, without an error, and queries that pass there go astray.
    """
    content = path.read_bytes()
    offset = 0
    for _ in range(rows):
        if offset + _LENGTH.size > len(content):
            return offset + _LENGTH.size
        offset += _LENGTH.size + _LENGTH.unpack_from(content, offset)[0]
    return offset


# -- their rows --------------------------------------------------------------------------------------------------------


def check_rows(target: Target, folder: Path) -> None:
    """Check that the index is not older than the records, wherever the rows are that it lacks.

    A program that has an older index in memory writes it over a newer one, and Chroma continues with that.

    Raises:
        TargetDamaged: The index lacks records.
    """
    index, ids = _indexed_records(folder, target.collection)
    if missing := _missing_rows(index, ids):
        raise _damaged(target, f"its index is older than its records and lacks {missing:,} of {len(ids):,}")


def _missing_rows(folder: Path, ids: Set[str]) -> int:
    """Return how many records an index lacks; 0 for files that are not as this version of Chroma writes them."""
    if (rows := _indexed_rows(folder)) is None:
        return 0
    try:
        saved = saved_ids(folder / "index_metadata.pickle")
    except OSError:
        return 0
    # The index counts rows that were deleted too, so its own number alone would hide as many that were lost.
    return max(len(ids) - rows, 0 if saved is None else len(ids - saved))


def is_overwritten(folder: Path, collection: str) -> bool:
    """Tell whether the files of an index that was just written are those of another one, or were cut."""
    index, ids = _indexed_records(folder, collection)
    rows = _indexed_rows(index)
    return rows is not None and (rows < len(ids) or _files_fault(index, thorough=False) is not None)


def _indexed_records(folder: Path, collection: str) -> tuple[Path, Set[str]]:
    """Return the folder of an index, and the ids of the records that did not change after its files were written.

    The files may have others too. No ids are known where the records' tables are behind the files, since a missing row
    may have been deleted.
    """
    with reading(folder) as database:
        entry = find_entry(database, collection)
        if entry is None or entry.written_index is None or (entry.indexed or 0) > (entry.applied or 0):
            return folder, set()
        ids = {str(one) for (one,) in database.execute(_INDEXED, (entry.records, entry.indexed))}
        return folder / entry.written_index, ids


def _indexed_rows(folder: Path) -> int | None:
    """Return the number of rows in an index, deleted ones included; None if this version of Chroma did not write it.

    `check_files` finds missing and cut files, which are no damage while a writer is at work.
    """
    try:
        version, _, _, rows, _ = _HEADER.unpack((folder / "header.bin").read_bytes()[: _HEADER.size])
    except (OSError, struct.error):
        return None
    return int(rows) if version == 1 else None


class _Plain:
    """An object of any class: its fields, and nothing of its code."""


class _Unpickler(pickle.Unpickler):
    """Builds plain data; a class or function that a file names is never looked up."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return _Plain


def saved_ids(path: Path) -> Set[str] | None:
    """Return the ids of the records in an index; None if the file is not as a known version of Chroma writes it.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        try:
            saved = _Unpickler(file).load()
        except OSError:
            raise
        except Exception:  # noqa: BLE001  # damaged pickles raise errors of any kind
            return None
    fields = saved if isinstance(saved, dict) else getattr(saved, "__dict__", {})
    labels = fields.get("id_to_label")
    return labels.keys() if isinstance(labels, dict) else None


# -- the vectors -------------------------------------------------------------------------------------------------------


def check_vectors(target: Target, collection: Collection, *, count: int, ours: bool, suspicious: bool) -> None:
    """Read vectors back, more of them if something is suspicious, and query by a few of them.

    Where all records are `ours`, a vector of zeros is damage, since this tool writes none.

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
    zeros = int((~vectors.any(axis=1)).sum())
    if zeros == rows or (ours and zeros):
        return f"{where} {zeros} have a vector of zeros"
    asked = vectors[:: -(-rows // QUERIES)]
    lost = sum(distance is not None for distance in lost_vectors(collection, asked))
    # The index is an approximate one: a row that cannot be reached is no damage yet, many are.
    return f"{where} {lost} of {len(asked)} are not found by their own vector" if 2 * lost > len(asked) else None


def lost_vectors(collection: Collection, vectors: Sequence[Vectors] | Vectors) -> list[float | None]:
    """Return, for each vector, the distance of the nearest record if that is too far to be its own, else None."""
    import numpy as np

    configuration = collection.configuration_json.get("hnsw") or {}
    space = (collection.metadata or {}).get("hnsw:space", configuration.get("space"))  # versions before 1.0, later ones
    if not len(vectors) or space == "ip":
        return [None] * len(vectors)  # by the inner product a vector need not be nearest to itself
    vectors = np.stack(list(vectors))
    found = collection.query(query_embeddings=vectors, n_results=1, include=["distances"])["distances"] or []
    nearest = np.array([distances[0] if distances else np.inf for distances in found])
    lost = ~(nearest <= SAME_DISTANCE * np.maximum(1.0, np.linalg.norm(vectors, axis=1) ** 2))
    return [float(distance) if is_lost else None for distance, is_lost in zip(nearest, lost, strict=True)]


def _damaged(target: Target, detail: str) -> TargetDamaged:
    return TargetDamaged(path=target.path, collection=target.collection, detail=detail)
