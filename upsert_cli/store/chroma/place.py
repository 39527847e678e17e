"""Where a collection is, and what that place needs before, during and after a load: a folder, or a server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from upsert_cli.errors import TargetInUse
from upsert_cli.locks import Holder
from upsert_cli.retry import RETRY_FOR
from upsert_cli.store.base import CollectionInfo, Target
from upsert_cli.store.chroma.address import address_of, is_server
from upsert_cli.store.chroma.credentials import access_to
from upsert_cli.store.chroma.local import LocalFolder
from upsert_cli.store.chroma.quotas import Quotas
from upsert_cli.store.chroma.server import Server

if TYPE_CHECKING:
    from chromadb.api.client import Client


class Place(Protocol):
    """What is asked of every place; one that does not need something does nothing."""

    @property
    def is_shared(self) -> bool:
        """Whether a server is between us and the data, so that files and settings are not ours to look after."""

    @property
    def quotas(self) -> Quotas:
        """What is taken at most."""

    def holder(self) -> Holder | None:
        """Returns which upsert-cli has the collection at this moment, or None; takes and makes nothing."""

    def reading_flushes(self) -> bool:
        """Tells whether merely reading the collection would write to it, so that no load must be at it meanwhile."""

    def described(self) -> tuple[str, int | None, dict[str, Any], str] | None:
        """Returns what a collection says of itself, without Chroma's library; None where there is none of that name.

        Returns:
            Its id, its dimension (None while it is empty), its metadata, and the name of its embedding function or "".
        """

    def listed(self) -> list[CollectionInfo]:
        """Returns all collections that are there, by their names, without Chroma's library."""

    # -- in the writer's process, in this order -------------------------------------------------------------------

    def enter(self) -> None:
        """Makes what is missing of the place, and a folder without a .env file the working one."""

    def lease_path(self) -> Path:
        """Returns the file that keeps other loads out as long as it is locked; `enter` has made its folder."""

    def in_use(self, holder: Holder) -> TargetInUse:
        """Returns the error that says who has it."""

    def probe(self) -> None:
        """Makes sure that no other program writes at this moment."""

    def require_alone(self, *, parent: int = 0) -> None:
        """Make sure that no other program has the files open, so that none can write an older index over ours.

        The `parent` of a writer's process is no other program: it may look into the database.
        """

    def readable_copy(self) -> AbstractContextManager[Place] | None:
        """Return a copy of what cannot be written, to be read and then removed; None where no copy is needed."""

    def check(self, target: Target, *, suspicious: bool) -> None:
        """Makes sure that Chroma can open what is there; see `soundness.check_files`."""

    def check_rows(self, target: Target) -> None:
        """Make sure that the index has every record that it should; see `soundness.check_rows`."""

    def connect(self, told: Callable[[str], None]) -> Client:
        """Connects to Chroma; `told` hears of what is tried again."""

    def configuration(self, sync_threshold: int) -> dict[str, Any]:
        """Returns how a collection is made; `sync_threshold` in rows."""

    def require_space(self, rows: int) -> None:
        """Makes sure that there is room for so many more rows."""

    def is_flushed(self, collection_id: str) -> bool | None:
        """Tells whether the index files hold all records; None where that cannot be told, or is not ours to see to."""

    # -- without a writer -----------------------------------------------------------------------------------------

    def take_poison(self, target: Target) -> list[str]:
        """Takes out of Chroma's queue what blocks it for good, and returns the ids."""

    def put_index_aside(self, target: Target) -> list[str]:
        """Moves a damaged index away, and returns the new names of its folders."""


def place_at(chroma: str, collection: str, *, leases: Path, retry_for: float = RETRY_FOR) -> Place:
    """Returns the place of a collection.

    Args:
        chroma: As `address.place_named` spells it.
        collection: Its name.
        leases: The folder for what keeps loads into one collection of a server apart.
        retry_for: Seconds for which a request that a server fails on is made again.

    Raises:
        BadServerAddress: It cannot be one.
        BadAccess: What lets us in cannot be read.
    """
    if not is_server(chroma):
        return LocalFolder(path=Path(chroma), collection=collection)
    address = address_of(chroma)
    return Server(address=address, collection=collection, leases=leases, access=access_to(address), retry_for=retry_for)


def place_of(target: Target) -> Place:
    """Returns the place of what is to be loaded into."""
    return place_at(target.path, target.collection, leases=Path(target.leases), retry_for=target.retry_for)
