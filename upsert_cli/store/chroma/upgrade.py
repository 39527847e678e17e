"""Folders that another version of Chroma wrote: an older one is upgraded, a newer one is refused.

Chroma upgrades a folder as soon as it opens it, and the older version cannot open it from then on. It opens a
folder only where it can write to it, even to read. So such a folder is read from a temporary copy.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.errors import Refusal, TargetBusy
from upsert_cli.packages import install_command
from upsert_cli.store.chroma.database import KNOWN_MIGRATIONS, applied_migrations, describe, is_older, reading, writing
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.chroma.index_files import IndexFiles
from upsert_cli.store.folder import DATABASE_NAME, LEASE_NAME, RESERVE_BYTES, disk_full, os_fault
from upsert_cli.store.stamp import check_model
from upsert_cli.store.target import Target

if TYPE_CHECKING:
    from chromadb.api.client import Client

_FIRST_VERSIONS = (("metadb", 5, "1.0"), ("sysdb", 10, "1.3"), ("metadb", 6, "1.5"))
"""The versions of Chroma that brought some migrations; measured with 0.6.3, 1.0.0, 1.2.2, 1.3.0, 1.4.1 and 1.5.0."""

# Versions before 1.0 queued a missing document as null, which today's engine does not survive. The tables have such a
# record already. Only the index is still to take it from the queue, and needs no document.
_NULL_DOCUMENTS = (
    """UPDATE embeddings_queue SET metadata = json_remove(metadata, '$."chroma:document"') """
    """WHERE metadata LIKE '%"chroma:document": null%' AND json_type(metadata, '$."chroma:document"') = 'null'"""
)
COPIES = 3  # copies before a folder that keeps changing is reported as busy


def connect_upgraded(folder: Path, target: Target, *, is_copy: bool) -> tuple[Client, str | None]:
    """Open a folder with Chroma, and return the client, and a warning if Chroma upgraded the folder.

    Args:
        folder: The folder to open.
        target: The target, whose folder a message names.
        is_copy: Whether the folder is a temporary copy of the target's.

    Raises:
        Refusal: A newer version of Chroma wrote the folder, or another model made a collection of an older version.
    """
    from upsert_cli.store.chroma.client import connect_folder

    warning = _prepare_upgrade(folder, target, is_copy=is_copy)
    with understood(target):
        if warning is not None:
            # A client that upgrades a folder may still read the older tables, and panics in 3 of 100 cases.
            connect_folder(str(folder)).close()
        return connect_folder(str(folder)), warning


def _prepare_upgrade(folder: Path, target: Target, *, is_copy: bool) -> str | None:
    """Return the warning that Chroma will upgrade a folder; None if it will not."""
    found = migrations_of(folder)
    if _is_newer(found, KNOWN_MIGRATIONS):
        _require_known(found, target)
    if not is_older(found):
        return None
    if target.model.name:
        with reading(folder) as database:
            info = describe(database, target.collection)
        if info is not None:
            check_model(target, info)
    with writing(folder) as database:
        database.execute(_NULL_DOCUMENTS)
    upgrades = "would upgrade" if is_copy else "upgrades"
    return (
        f"{version_before(found)} wrote {target.path}; a load {upgrades} it to the present one, and older "
        f"versions cannot open it afterwards"
    )


def migrations_of(folder: Path) -> dict[str, int]:
    """Return the last migration of each kind that the database of a folder has."""
    with reading(folder) as database:
        return applied_migrations(database)


def _is_newer(found: Mapping[str, int], known: Mapping[str, int]) -> bool:
    """Return whether a database has migrations that are not among the known ones."""
    return any(last > known.get(kind, 0) for kind, last in found.items())


def version_before(found: Mapping[str, int]) -> str:
    """Return a phrase for the version of Chroma that wrote an older database, as far as its migrations show."""
    first = (version for kind, number, version in _FIRST_VERSIONS if found.get(kind, 0) < number)
    return f"a version of Chroma before {next(first, '1.5')}"


def _require_known(found: Mapping[str, int], target: Target) -> None:
    """Check that the installed Chroma knows the migrations: those that it applies to a new folder."""
    from upsert_cli.store.chroma.client import connect_folder

    with tempfile.TemporaryDirectory(prefix="upsert-cli-") as empty:
        connect_folder(empty).close()
        if not _is_newer(found, migrations_of(Path(empty))):
            return
    raise Refusal(
        message=f"a newer version of Chroma than the installed one wrote {target.path}, and nothing was written; "
        f"upgrade it with `{install_command('--upgrade', 'chromadb')}`, or choose another folder with --chroma"
    )


def readable_copy(index: IndexFiles, notify: Callable[[str], None]) -> AbstractContextManager[Path] | None:
    """Return a copy of database and index if Chroma would upgrade them, or may not write to one of its files."""
    folder, files = index.folder, _files(index)
    lease = folder / LEASE_NAME
    if is_older(found := migrations_of(folder)):
        size = sum(size for size, _ in files.values())
        notify(f"reading a temporary copy of {-(-size >> 20)} MiB, since {version_before(found)} wrote {folder}")
        return _copied(index)
    needed = {folder, *files, *(file.parent for file in files), *([lease] if lease.exists() else [])}
    is_read_only = bool(files) and not all(os.access(path, os.W_OK) for path in needed)
    return _copied(index) if is_read_only else None


@contextmanager
def _copied(index: IndexFiles) -> Iterator[Path]:
    """Copy a folder into a temporary one, change to the copy, and remove it in the end.

    Raises:
        TargetBusy: Another program kept writing to the folder.
        UpsertCliError: The temporary folder has no room for it, or a file cannot be read.
    """
    folder = index.folder
    with tempfile.TemporaryDirectory(prefix="upsert-cli-", ignore_cleanup_errors=True) as name:
        copy = Path(name)
        for _ in range(COPIES):
            before = _files(index)
            _copy(folder, before, copy)
            if _files(index) == before:
                break
        else:
            raise TargetBusy(path=str(folder))
        os.chdir(copy)  # see `enter_folder`
        try:
            yield copy
        finally:
            os.chdir(folder)  # out of the copy, which is removed next


def _files(index: IndexFiles) -> dict[Path, tuple[int, int]]:
    """Return the files of database and index, each with its size in bytes and the time of its last change."""
    path = index.path()
    in_index = path.iterdir() if path is not None and path.is_dir() else ()
    stats = {file: file.stat() for file in (index.folder / DATABASE_NAME, *in_index) if file.exists()}
    return {file: (status.st_size, status.st_mtime_ns) for file, status in stats.items()}


def _copy(folder: Path, files: Mapping[Path, tuple[int, int]], copy: Path) -> None:
    needed = sum(size for size, _ in files.values()) + RESERVE_BYTES
    free = shutil.disk_usage(copy).free
    if free < needed:
        raise disk_full(copy.parent, free=free, needed=needed)
    try:
        for file in files:
            to = copy / file.relative_to(folder)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, to)  # not its mode, which may be that of a read-only file
    except OSError as error:
        raise os_fault(folder, error) from error
