"""An address -> the files that it stands for; a file at the other end of a network, as readers open it."""

from __future__ import annotations

import fnmatch
import glob
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, TypeAlias

from upsert_cli.errors import BadAddress
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import WEB_SCHEMES, scheme_of, shown, why_refused
from upsert_cli.sources.listing import ICEBERG_FOLDER, Listing, is_data, is_named, refuse_table
from upsert_cli.sources.object_stores import ObjectFile, is_object, names_below
from upsert_cli.sources.ranges import Facts, Ranges, ranged_file, steadily


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is read over the network; the part of `pathlib.Path` that readers need."""

    address: str
    """Such as `s3://bucket/folder/a.jsonl`."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to repeat a request that fails, in seconds."""

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:  # noqa: ARG002
        """Opens it at its first byte.

        Raises:
            OSError: It cannot be reached, is not there, or is not ours to read.
        """
        return ranged_file(self._connect(), retry_for=self.retry_for, buffering=buffering)

    def facts(self) -> Facts:
        """Asks what it is like now.

        Raises:
            OSError: As for `open`.
        """
        with closing(self._connect()) as ranges:
            return ranges.facts

    def _connect(self) -> Ranges:
        return steadily(self._opened, seconds=self.retry_for)

    def _opened(self) -> Ranges:
        if scheme_of(self.address) not in WEB_SCHEMES:
            return ObjectFile(self.address, retry_for=self.retry_for)
        from upsert_cli.sources.web import WebFile  # late: its HTTP is more to load than all formats are

        return WebFile(self.address, retry_for=self.retry_for)


Place: TypeAlias = Path | RemoteFile
"""Where a file is."""


def remote_files(address: str, listing: Listing, *, retry_for: float) -> Iterator[RemoteFile]:
    """Yield the files that an address stands for: a file, or in an object store also a folder or a glob; sorted.

    Args:
        address: A file, a folder or a glob.
        listing: Takes note of what is passed over.
        retry_for: How long to repeat a request that fails, in seconds.

    Raises:
        BadAddress: It is none that we can read.
        OSError: The store cannot be reached.
    """
    if (reason := why_refused(address)) is not None:
        raise BadAddress(name=shown(address), reason=reason)
    if scheme_of(address) in WEB_SCHEMES or steadily(lambda: is_object(address), seconds=retry_for):
        yield RemoteFile(address, retry_for)
        return
    parts = address.rstrip("/").split("/")
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    found = steadily(lambda: list(names_below("/".join(parts[:fixed]))), seconds=retry_for)
    if fixed == len(parts) or "**" in parts:
        _refuse_tables(shown(address), [name.split("/")[fixed:] for name in found])
    for name in found:
        if fixed == len(parts) or _matches(name.split("/"), parts):
            below = name.split("/")[fixed:]
            if _is_meant(below, parts[fixed:]):
                listing.add_partitions(PurePosixPath(*below[:-1]))
                yield RemoteFile(name, retry_for)
            else:
                listing.skip(PurePosixPath(name))


def _is_meant(path: list[str], patterns: list[str]) -> bool:
    """Tell whether each part of a path is data, or is named by a glob as what it is."""
    return all(
        is_data(part, is_folder=place < len(path)) or any(is_named(part, pattern) for pattern in patterns)
        for place, part in enumerate(path, start=1)
    )


def _refuse_tables(name: str, paths: list[list[str]]) -> None:
    """Check that no folder is that of a table; the paths are of the files below it."""
    refuse_table(name, (folder for path in paths for folder in path[:-1]))
    metadata = (path[-1] for path in paths if path[-2:-1] == [ICEBERG_FOLDER])
    refuse_table(name, (), metadata=metadata)


def _matches(name: list[str], pattern: list[str]) -> bool:
    """Tells whether a name is one that a glob stands for; `**` is any number of folders, none included."""
    if not pattern or not name:
        return not pattern and not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:] or ["*"]) for skipped in range(len(name)))
    return fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])
