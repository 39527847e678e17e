"""The one door to the stores: a target that the user types leads to a location, and a location opens a store.

Chroma is the only implementation. Another one is a package next to `chroma/` and a line in `location_at`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.retry import RETRY_FOR
from upsert_cli.store.address import OF_TARGET, CredentialNames, is_server
from upsert_cli.store.base import Target
from upsert_cli.store.folder import DATABASE_NAME

if TYPE_CHECKING:
    from upsert_cli.store.location import Location


def location_at(
    chroma: str, collection: str, *, leases: Path, retry_for: float = RETRY_FOR, names: CredentialNames = OF_TARGET
) -> Location:
    """Return the location of a collection.

    Args:
        chroma: As `canonical_target` spells it.
        collection: Its name.
        leases: The folder for the leases on collections of servers.
        retry_for: How long to keep retrying failed server requests, in seconds.
        names: The variables with the credentials for a server.

    Raises:
        UsageFault: The address is not valid, or the credentials cannot be read.
    """
    if is_server(chroma):
        from upsert_cli.store.chroma.server import Server

        return Server.at(chroma, collection, leases=leases, retry_for=retry_for, names=names)
    from upsert_cli.store.chroma.local import LocalFolder

    return LocalFolder(path=Path(chroma), collection=collection)


def location_of(target: Target) -> Location:
    """Return the location of a target."""
    return location_at(target.path, target.collection, leases=Path(target.leases), retry_for=target.retry_for)


def remedy_for_name(chroma: str) -> str:
    """Return what to do about the name of a collection that a target does not have."""
    if is_server(chroma) or (Path(chroma) / DATABASE_NAME).exists():
        return f"`upsert-cli collections list --chroma {shlex.quote(chroma)}` lists those that are there"
    return "no Chroma is in that folder, so name another one"
