"""A Chroma server as the location of a collection, which others may use at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from upsert_cli.errors import TargetInUse
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.address import Access, Address, access_to, address_of
from upsert_cli.store.base import Record
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.folder import enter_folder
from upsert_cli.store.location import Location
from upsert_cli.store.target import CollectionInfo, CollectionState, Opened, Target

if TYPE_CHECKING:
    from upsert_cli.store.chroma.records import ChromaStore
    from upsert_cli.store.chroma.server_database import ServerDatabase

DIGEST_CHARACTERS = 32  # of the name of a lease; enough that no two collections share one


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Location):
    """A server, with a lease for each collection that loads with the same journal share."""

    index: ClassVar[None] = None  # the server takes care of its files

    address: Address
    collection: str
    leases: Path
    """An absolute path in the journal."""

    access: Access
    retry_for: float
    """How long to keep retrying failed requests, in seconds."""

    @classmethod
    def at(cls, chroma: str, collection: str, *, leases: Path, retry_for: float, variables: str) -> Server:
        """Return the server at an address, with the credentials that the environment has for it."""
        address = address_of(chroma)
        access = access_to(address, variables)
        return cls(address=address, collection=collection, leases=leases, access=access, retry_for=retry_for)

    @property
    def in_cloud(self) -> bool:
        """Whether the quotas of Chroma Cloud apply; other servers only limit the size of a request."""
        return self.address.is_cloud

    def describe(self) -> CollectionInfo | None:
        """Ask the server for the collection."""
        with self._asking() as database:
            found = database.collection(self.collection)
        return None if found is None else database.info(found)

    def state(self) -> CollectionState | None:
        """Ask the server for the collection and its number of records; some servers also count the changes."""
        with self._asking() as database:
            if (found := database.collection(self.collection)) is None or (count := database.count(found)) is None:
                return None
        changes = sum(int(found.get(name) or 0) for name in ("version", "log_position"))
        return CollectionState(str(found["id"]), changes, count)

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Ask the server for all collections, and for the number of records in each."""
        with self._asking() as database:
            counted = [(database.info(found), database.count(found)) for found in database.collections()]
        listed = [(info, count) for info, count in counted if count is not None]  # the others are gone by now
        return sorted(listed, key=lambda listing: listing[0].name)

    def has_chunks(self) -> bool:
        """Ask the server, if this tool made the collection."""
        with self._asking() as database:
            found = database.collection(self.collection)
            return found is not None and database.info(found).stamp is not None and database.has_chunks(found)

    @contextmanager
    def fetching(self, *, with_vectors: bool) -> Iterator[Callable[..., list[Record]]]:
        """Yield a function that asks the server for a page, in one request."""
        with self._asking() as database:
            if (found := database.collection(self.collection)) is None:
                raise FileNotFoundError(f"there is no collection {self.collection} in {self.address}")
            yield lambda **asked: database.fetch(found, with_vectors=with_vectors, **asked)

    def enter(self) -> None:
        """Enter the folder of the leases."""
        enter_folder(self.leases, option="--journal")

    def lease_path(self) -> Path:
        """Return a file in the journal's folder."""
        digest = hashlib.sha256(f"{self.address}\n{self.collection}".encode(errors="surrogatepass")).hexdigest()
        return self.leases / f"{digest[:DIGEST_CHARACTERS]}.lease"

    def in_use(self, holder: Holder) -> TargetInUse:
        """Return the error for the collection; the others of the server are free."""
        return TargetInUse(path=str(self.address), collection=self.collection, holder=str(holder))

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,  # noqa: ARG002  # a server outlives its writers
        lease: Lease | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> tuple[ChromaStore, Opened]:
        """Check the server's version and database, and open the collection."""
        from upsert_cli.store.chroma.client import connect_server
        from upsert_cli.store.chroma.records import ChromaStore

        with understood(target):
            database = self._asking(notify)
            if target.keeps_lists:
                database.require_lists()
            client = connect_server(database.session, self.address.url, tenant=database.tenant, database=database.name)
        store = ChromaStore(target, self, client, index=None, in_cloud=self.in_cloud, lease=lease)
        return store, store.opened

    def require_lists(self) -> None:
        """Ask the server."""
        with self._asking() as database:
            database.require_lists()

    def _asking(self, notify: Callable[[str], None] = lambda _: None) -> ServerDatabase:
        from upsert_cli.store.chroma.server_database import ServerDatabase

        return ServerDatabase(self.address, self.access, retry_for=self.retry_for, notify=notify)
