"""The one door to the implementations of a store: another one is a package next to `chroma/`, and a line here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from upsert_cli.errors import UpsertCliError
from upsert_cli.retry import RETRY_FOR
from upsert_cli.store.address import OF_TARGET, is_server, remedy_for_name
from upsert_cli.store.location import Location
from upsert_cli.store.target import Target
from upsert_cli.text import nearest


def location_at(
    chroma: str, collection: str, *, leases: Path, retry_for: float = RETRY_FOR, variables: str = OF_TARGET
) -> Location:
    """Return the location of a collection.

    Args:
        chroma: A folder or an address, as `canonical_target` spells it.
        collection: The name of the collection.
        leases: The folder for the leases on collections of servers.
        retry_for: How long to keep retrying failed server requests, in seconds.
        variables: How the names of the variables with the credentials for a server begin.

    Raises:
        UsageFault: The address is not valid, or the credentials cannot be read.
    """
    if is_server(chroma):
        from upsert_cli.store.chroma.server import Server

        return Server.at(chroma, collection, leases=leases, retry_for=retry_for, variables=variables)
    from upsert_cli.store.chroma.local import LocalFolder

    return LocalFolder(path=Path(chroma), collection=collection)


def location_of(target: Target) -> Location:
    """Return the location of a target."""
    return location_at(target.path, target.collection, leases=Path(target.leases), retry_for=target.retry_for)


def no_collection(chroma: str, name: str, *, known: Iterable[str] = (), undone: str = "") -> UpsertCliError:
    """Return the error for a collection that does not exist.

    Args:
        chroma: The target.
        name: The name of the collection.
        known: The names of the target's collections, if the error is to suggest one.
        undone: The work that was not done, such as `deleted`.
    """
    close = nearest(name, known)
    question = "" if close is None else f" did you mean {close}?"
    nothing = f", so nothing was {undone}" if undone else ""
    return UpsertCliError(
        message=f"there is no collection {name} in {chroma}{nothing};{question} {remedy_for_name(chroma)}"
    )
