"""Folders that another version of Chroma wrote: an older one is upgraded, a newer one is refused.

Chroma upgrades a folder as soon as it opens it, and the older version cannot open it from then on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.errors import Refusal
from upsert_cli.packages import install_command
from upsert_cli.store.chroma.database import KNOWN_MIGRATIONS, applied_migrations, is_older, reading, writing
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.stamp import check_model
from upsert_cli.store.target import Target

if TYPE_CHECKING:
    from chromadb.api.client import Client

    from upsert_cli.store.chroma.local import LocalFolder

_FIRST_VERSIONS = (("metadb", 5, "1.0"), ("sysdb", 10, "1.3"), ("metadb", 6, "1.5"))
"""The versions of Chroma that brought some migrations; measured with 0.6.3, 1.0.0, 1.2.2, 1.3.0, 1.4.1 and 1.5.0."""

# Versions before 1.0 queued a missing document as null, which today's engine does not survive. The tables have such a
# record already. Only the index is still to take it from the queue, and needs no document.
_NULL_DOCUMENTS = (
    """UPDATE embeddings_queue SET metadata = json_remove(metadata, '$."chroma:document"') """
    """WHERE metadata LIKE '%"chroma:document": null%' AND json_type(metadata, '$."chroma:document"') = 'null'"""
)


def connect_upgraded(folder: LocalFolder, target: Target) -> tuple[Client, str | None]:
    """Open a folder with Chroma, and return the client, and a warning if Chroma upgraded the folder.

    Args:
        folder: The folder, which may be a temporary copy.
        target: The target that a message names.

    Raises:
        Refusal: A newer version of Chroma wrote the folder, or another model made a collection of an older version.
    """
    from upsert_cli.store.chroma.client import connect_folder

    warning = _prepare_upgrade(folder, target)
    with understood(target):
        if warning is not None:
            # A client that upgrades a folder may still read the older tables, and panics in 3 of 100 cases.
            connect_folder(str(folder.path)).close()
        return connect_folder(str(folder.path)), warning


def _prepare_upgrade(folder: LocalFolder, target: Target) -> str | None:
    """Return the warning that Chroma will upgrade a folder; None if it will not."""
    found = migrations_of(folder.path)
    if _is_newer(found, KNOWN_MIGRATIONS):
        _require_known(found, target)
    if not is_older(found):
        return None
    if target.model.name and (info := folder.describe()) is not None:
        check_model(target, info)
    with writing(folder.path) as database:
        database.execute(_NULL_DOCUMENTS)
    upgrades = "would upgrade" if folder.is_copy else "upgrades"
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
