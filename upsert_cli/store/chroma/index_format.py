"""The files of a vector index as hnswlib and Chroma write them: are they whole, and which records do they hold?"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Set
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from upsert_cli.store.folder import INDEX_NAMES

GLANCE_LINKS = 100_000  # rows; to follow the links of more takes longer than a glance may
# hnswlib's header, version 1: version, two offsets, rows, bytes a row, and more that is not read
_HEADER = struct.Struct("<iQQQQ")
_HEADER_BYTES = 100
_LENGTH = struct.Struct("<I")


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
