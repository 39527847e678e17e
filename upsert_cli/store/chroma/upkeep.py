"""The care that a local Chroma needs: nobody else at its files, enough disk space, a sound index.

Chroma opens a folder only where it can write to it, although it writes nothing while it only reads; so a read-only
folder is copied.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.errors import Refusal, TargetBusy
from upsert_cli.store.base import Target
from upsert_cli.store.chroma import database, index_repair
from upsert_cli.store.chroma.database import DATABASE_NAME, flushed_segments
from upsert_cli.store.chroma.index_check import check_files
from upsert_cli.store.chroma.openers import Opener, find_openers
from upsert_cli.store.folder import LEASE_NAME, RESERVE_BYTES, disk_full, os_fault, require_space

if TYPE_CHECKING:
    from upsert_cli.store.chroma.local import LocalFolder

COPIES = 3  # copies before a folder that keeps changing is reported as busy
SHOWN_OPENERS = 3  # processes that a message names

_Stamp = tuple[Path, int, int]  # file, bytes, time of the last change


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderUpkeep:
    """The care for one collection in a folder."""

    path: Path
    collection: str

    def probe(self) -> None:
        """Check for a foreign writer, for whom Chroma would wait for a quarter of an hour."""
        try:
            database.probe_writer(self.path)
        except TargetBusy as error:
            raise TargetBusy(path=str(self.path), program=_named(find_openers(self.path, patience=0.0))) from error

    def require_alone(self, *, parent: int = 0) -> None:
        """Look for processes that have the files open, and for a writer that cannot be seen."""
        openers = [opener for opener in find_openers(self.path) if opener.pid != parent]
        self.probe()
        if openers:
            raise Refusal(
                message=f"{self.path} is open in {_named(openers)}, which may write its older index over what is "
                f"loaded; nothing was written: stop it, then try again, or, if it is a Chroma server, load through it "
                f"with --chroma http://HOST:PORT"
            )

    def reading_flushes(self) -> bool:
        """Ask the database how much is queued for the index."""
        return database.reading_flushes(self.path, self.collection)

    def take_poison(self) -> list[str]:
        """Remove the rows from the database's queue."""
        return index_repair.take_poison(self.path, self.collection, self.require_alone)

    def put_index_aside(self) -> list[str]:
        """Rename the folders of the index."""
        return index_repair.put_index_aside(self.path, self.collection, self.require_alone)

    def require_space(self, rows: int) -> None:
        """Check that the disk has room for more rows and a reserve.

        Raises:
            UpsertCliError: It does not.
        """
        require_space(self.path, rows=rows)

    def check(self, target: Target, *, suspicious: bool) -> None:
        """Check the disk space and the index files; see `index_check.check_files`."""
        self.require_space(0)
        check_files(target, self.path, suspicious=suspicious)

    def is_flushed(self) -> bool | None:
        """Tell whether the index files hold all records; None where that cannot be told."""
        return database.is_flushed(self.path, self.collection)

    # -- a copy of a read-only folder -------------------------------------------------------------------------------

    def readable_copy(self) -> AbstractContextManager[LocalFolder] | None:
        """Copy the database and the index, if anything that Chroma or a lease has to write is read-only."""
        return self._copied() if self._is_read_only() else None

    def _is_read_only(self) -> bool:
        lease, files = self.path / LEASE_NAME, self._files()
        needed = {self.path, *files, *(file.parent for file in files), *([lease] if lease.exists() else [])}
        return bool(files) and not all(os.access(path, os.W_OK) for path in needed)

    @contextmanager
    def _copied(self) -> Iterator[LocalFolder]:
        """Copy into a temporary folder, change to it, and remove it in the end.

        Raises:
            TargetBusy: Another program kept writing to it.
            UpsertCliError: The temporary folder has no room for it, or a file cannot be read.
        """
        from upsert_cli.store.chroma.local import LocalFolder

        with tempfile.TemporaryDirectory(prefix="upsert-cli-", ignore_cleanup_errors=True) as name:
            copy = Path(name)
            for _ in range(COPIES):
                before = self._stamps()
                self._copy_to(copy, before)
                if self._stamps() == before:
                    break
            else:
                raise TargetBusy(path=str(self.path))
            os.chdir(copy)  # see `LocalFolder.enter`
            try:
                yield LocalFolder(path=copy, collection=self.collection)
            finally:
                os.chdir(self.path)  # the copy can be removed then

    def _files(self) -> list[Path]:
        path = self.path / DATABASE_NAME
        if not path.exists():
            return []
        segments = (self.path / segment for segment in flushed_segments(self.path, self.collection))
        return [path, *(file for segment in segments if segment.is_dir() for file in sorted(segment.iterdir()))]

    def _stamps(self) -> list[_Stamp]:
        stats = [(file, file.stat()) for file in self._files()]
        return [(file, status.st_size, status.st_mtime_ns) for file, status in stats]

    def _copy_to(self, copy: Path, stamps: list[_Stamp]) -> None:
        needed = sum(size for _, size, _ in stamps) + RESERVE_BYTES
        free = shutil.disk_usage(copy).free
        if free < needed:
            raise disk_full(copy.parent, free=free, needed=needed)
        try:
            for file, _, _ in stamps:
                to = copy / file.relative_to(self.path)
                to.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, to)  # not its mode, which may be that of a read-only file
        except OSError as error:
            raise os_fault(self.path, error) from error


def _named(openers: list[Opener]) -> str:
    return ", ".join(map(str, openers[:SHOWN_OPENERS]))
