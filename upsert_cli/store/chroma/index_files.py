"""The vector index of a collection in a folder, examined without Chroma: files as hnswlib and Chroma write them."""

from __future__ import annotations

import json
import pickle
import struct
import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from upsert_cli.errors import TargetDamaged, UpsertCliError
from upsert_cli.store.chroma.configuration import stored_values
from upsert_cli.store.chroma.database import CollectionEntry, find_entry, reading, writing
from upsert_cli.store.folder import INDEX_NAMES, require_space
from upsert_cli.store.target import Target

# Values that the engine can read from its queue in one statement: six variables each, of 32,766 that sqlite allows.
QUEUE_KEYS = 5_460
QUEUE_REMOVED = 32_766
_INDEXED = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND seq_id <= ?"
_IN_QUEUE = "FROM embeddings_queue WHERE topic LIKE '%/' || ? AND seq_id > ?"
GLANCE_LINKS = 100_000  # rows; to follow the links of more takes longer than a glance may
# hnswlib's header, version 1: version, two offsets, rows, bytes a row, and more that is not read
_HEADER = struct.Struct("<iQQQQ")
_HEADER_BYTES = 100
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class IndexFiles:
    """The index of a collection, as the database and the files show it."""

    folder: Path
    """The folder of the database."""

    collection: str

    def require_space(self, rows: int = 0) -> None:
        """Check that the disk has room for more rows and a reserve."""
        require_space(self.folder, rows=rows)

    def entry(self) -> CollectionEntry | None:
        """Return the entry of the collection in the database; None if it does not exist."""
        with reading(self.folder) as database:
            return find_entry(database, self.collection)

    def path(self) -> Path | None:
        """Return the folder of the files, which Chroma does not delete with the collection."""
        entry = self.entry()
        return None if entry is None or entry.vectors is None else self.folder / entry.vectors

    def was_written(self) -> bool:
        """Return whether the files were ever written."""
        return (entry := self.entry()) is not None and entry.written_index is not None

    def is_flushed(self) -> bool | None:
        """Return whether the files hold all records; None if it is not known."""
        with suppress(UpsertCliError):  # the database is locked, or cannot be read
            return None if (entry := self.entry()) is None else entry.is_flushed
        return None

    def reading_flushes(self) -> bool:
        """Return whether so much is queued that Chroma would write the files even if it only reads."""
        with reading(self.folder) as database:
            if (entry := find_entry(database, self.collection)) is None or entry.vectors is None:
                return False
            (queued,) = database.execute(f"SELECT COUNT(*) {_IN_QUEUE}", (entry.id, entry.indexed or 0)).fetchone()
        return bool(queued >= min(stored_values("sync_threshold", *entry.configurations), default=0))

    def check(self, target: Target, *, suspicious: bool = False) -> None:
        """Check that the files exist and are long enough, before Chroma maps them into memory.

        All links of a large index are followed only if the last writer died, or for a collection taken as found, since
        that takes long.

        Raises:
            TargetDamaged: A file is missing or was cut; Chroma would end in a segmentation fault sooner or later.
        """
        entry = self.entry()
        if entry is None or entry.written_index is None:
            return
        fault = files_fault(self.folder / entry.written_index, thorough=suspicious or target.as_found)
        if fault is not None:
            raise damaged(target, fault)

    def check_rows(self, target: Target) -> None:
        """Check that the index is not older than the records.

        A program that has an older index in memory writes it over a newer one, and Chroma continues with the older one.

        Raises:
            TargetDamaged: The index lacks records.
        """
        path, ids = self._indexed()
        if missing := missing_rows(path, ids):
            raise damaged(target, f"its index is older than its records and lacks {missing:,} of {len(ids):,}")

    def is_overwritten(self) -> bool:
        """Return whether files that were just written belong to another index, or were cut."""
        path, ids = self._indexed()
        rows = row_count(path)
        return rows is not None and (rows < len(ids) or files_fault(path, thorough=False) is not None)

    def _indexed(self) -> tuple[Path, Set[str]]:
        """Return the folder of the files, and the ids of all records that the files must have.

        There are no such ids if the tables lack changes that the files have, since a row that the tables have may be
        deleted in the files.
        """
        with reading(self.folder) as database:
            entry = find_entry(database, self.collection)
            if entry is None or entry.written_index is None or (entry.indexed or 0) > (entry.applied or 0):
                return self.folder, set()
            ids = {str(one) for (one,) in database.execute(_INDEXED, (entry.records, entry.indexed))}
            return self.folder / entry.written_index, ids

    # -- repair, under the lease ---------------------------------------------------------------------------------------

    def take_poison(self) -> list[str]:
        """Remove the rows from the queue that the engine can never apply, and return their ids.

        Such a row was never stored, so no record is lost.
        """
        with writing(self.folder) as database:
            if (entry := find_entry(database, self.collection)) is None or entry.records is None:
                return []
            query = f"SELECT seq_id, id, metadata {_IN_QUEUE}"
            queued = database.execute(query, (entry.id, entry.applied or 0)).fetchall()
            poison = [(number, str(one)) for number, one, metadata in queued if _is_poison(metadata)]
            database.executemany("DELETE FROM embeddings_queue WHERE seq_id = ?", [(number,) for number, _ in poison])
        return [one for _, one in poison]

    def put_aside(self) -> list[str]:
        """Rename the folder of the files, and return its new name; nothing is deleted."""
        with writing(self.folder) as database:
            if (entry := find_entry(database, self.collection)) is None or entry.vectors is None:
                return []
            index = self.folder / entry.vectors
            aside = index.with_name(f"{index.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            if is_there := index.exists():
                index.rename(aside)
            # Like an index that was never flushed: queued rows are read again, and its files are not missed.
            database.execute("DELETE FROM main.max_seq_id WHERE segment_id = ?", (entry.vectors,))
        return [aside.name] if is_there else []


def damaged(target: Target, detail: str) -> TargetDamaged:
    """Return the error for a damaged index."""
    return TargetDamaged(path=target.path, collection=target.collection, detail=detail)


def _is_poison(metadata: str | None) -> bool:
    values = json.loads(metadata) if metadata else None
    if not isinstance(values, dict):
        return False
    lists = [value for value in values.values() if isinstance(value, list)]
    removed = sum(value is None for value in values.values())
    return (
        any(part is None for value in lists for part in value)  # how the queue stores a number that is not finite
        or len(values) - removed > QUEUE_KEYS
        or sum(map(len, lists)) > QUEUE_KEYS
        or removed > QUEUE_REMOVED
    )


def files_fault(folder: Path, *, thorough: bool) -> str | None:
    """Return the fault of the files in one line, or None: one is missing, or shorter than its rows need.

    Unless `thorough`, only the links of up to `GLANCE_LINKS` rows are followed.
    """
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
        # Zeros in place of a version are damage; the files of an unknown version are not judged.
        return None if header.strip(b"\0") else f"{folder.name}/header.bin is blank"
    least = {"header.bin": _HEADER_BYTES, "data_level0.bin": rows * row_bytes, "length.bin": 4 * rows}
    least["link_lists.bin"] = 4 * rows
    if thorough or rows <= GLANCE_LINKS:
        least["link_lists.bin"] = _links_end(folder / "link_lists.bin", rows)
    return next((f"{folder.name}/{name} was cut" for name in least if sizes[name] < least[name]), None)


def _links_end(path: Path, rows: int) -> int:
    """Return where the links of the last row end; the links of each row follow their length in bytes, often 0.

    hnswlib reads links that were cut off as missing, without an error, and queries go astray there.
    """
    content = path.read_bytes()
    offset = 0
    for _ in range(rows):
        if offset + _LENGTH.size > len(content):
            return offset + _LENGTH.size
        offset += _LENGTH.size + _LENGTH.unpack_from(content, offset)[0]
    return offset


def missing_rows(folder: Path, ids: Set[str]) -> int:
    """Return how many records an index lacks; 0 for files of an unknown form."""
    if (rows := row_count(folder)) is None:
        return 0
    try:
        saved = saved_ids(folder / "index_metadata.pickle")
    except OSError:
        return 0
    # The number of rows includes deleted ones, so it alone could hide as many lost rows.
    return max(len(ids) - rows, 0 if saved is None else len(ids - saved))


def row_count(folder: Path) -> int | None:
    """Return the number of rows in an index, deleted ones included; None if its files have an unknown form.

    A missing or cut file is unknown too: a writer may be at work, and `files_fault` finds real damage.
    """
    try:
        version, _, _, rows, _ = _HEADER.unpack((folder / "header.bin").read_bytes()[: _HEADER.size])
    except (OSError, struct.error):
        return None
    return int(rows) if version == 1 else None


class _Unpickler(pickle.Unpickler):
    """An unpickler that makes plain objects with fields, and never imports a class or function that a file names."""

    def find_class(self, module: str, name: str) -> Any:  # noqa: ARG002
        return SimpleNamespace


def saved_ids(path: Path) -> Set[str] | None:
    """Return the ids of the records in an index; None if its file has an unknown form.

    Raises:
        OSError: The file cannot be read.
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
