"""A Chroma server as the location of a collection: it looks after its own files, and others may use it too."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from upsert_cli.errors import NotChromasAnswer, Refusal, TargetInUse, UpsertCliError
from upsert_cli.locks import Holder
from upsert_cli.packages import lean_imports
from upsert_cli.store.address import Access, Address, CredentialNames, access_to, address_of
from upsert_cli.store.base import Opened, Target
from upsert_cli.store.chroma.faults import server_fails, understood
from upsert_cli.store.chroma.stamp import info_of
from upsert_cli.store.folder import FOLDER_MODE, os_fault
from upsert_cli.store.location import CollectionInfo, CollectionState, Ledger, Location

if TYPE_CHECKING:
    import httpx

    from upsert_cli.store.chroma.http_session import HttpSession
    from upsert_cli.store.chroma.records import ChromaStore

MAJOR_VERSION = "1"  # of Chroma; earlier versions have other paths and other answers
DIGEST_CHARACTERS = 32  # of the name of a lease; enough that no two collections share one
LISTED = 100  # collections a request
CLOUD_ROWS = 300  # records in one write, and in one answer; a quota of Chroma Cloud
_NO_COLLECTION = "00000000-0000-0000-0000-000000000000"  # an id that Chroma gives to none
_GONE = 404
_NO_NAME = 400  # the status for a name that no tenant or database can have


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(Location):
    """A server; each of its collections has a lease of its own, for the loads with the same journal."""

    address: Address
    collection: str
    leases: Path
    """Absolute; only loads with the same journal see the leases there."""

    access: Access
    retry_for: float
    """Seconds."""

    @classmethod
    def at(cls, chroma: str, collection: str, *, leases: Path, retry_for: float, names: CredentialNames) -> Server:
        """Return the server at an address, with the credentials that the environment has for it."""
        address = address_of(chroma)
        access = access_to(address, names)
        return cls(address=address, collection=collection, leases=leases, access=access, retry_for=retry_for)

    @property
    def in_cloud(self) -> bool:
        """Whether the quotas of Chroma Cloud apply; another server only limits the size of a request."""
        return self.address.is_cloud

    @property
    def most_rows(self) -> int:
        """Records in one write, and in one answer."""
        return CLOUD_ROWS if self.in_cloud else sys.maxsize

    def describe(self) -> CollectionInfo | None:
        """Ask the server for the collection."""
        with self._session() as session:
            answer = session.request("GET", f"{self._collections(session)}/{quote(self.collection, safe='')}")
            return None if answer.status_code == _GONE else _info(self._value(answer))

    def state(self) -> CollectionState | None:
        """Ask the server for the collection and its number of records; only some servers count the changes."""
        with self._session() as session:
            path = self._collections(session)
            answer = session.request("GET", f"{path}/{quote(self.collection, safe='')}")
            if answer.status_code == _GONE:
                return None
            found = self._value(answer)
            count = self._value(session.request("GET", f"{path}/{found['id']}/count"))
        changes = sum(int(found.get(name) or 0) for name in ("version", "log_position"))
        return CollectionState(str(found["id"]), changes, int(count))

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Ask the server for all collections, and for the number of records in each."""
        found: list[tuple[CollectionInfo, int]] = []
        with self._session() as session:
            path, start = self._collections(session), 0
            while part := self._value(session.request("GET", path, params={"limit": LISTED, "offset": start})):
                start += len(part)
                for one in part:
                    count = session.request("GET", f"{path}/{one['id']}/count")
                    if count.status_code != _GONE:  # it was deleted since
                        found.append((_info(one), int(self._value(count))))
        return sorted(found, key=lambda one: one[0].name)

    def enter(self) -> None:
        """Create the folder of the leases, and change to it."""
        try:
            self.leases.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            os.chdir(self.leases)  # chromadb reads the .env file of the working folder when it is imported
        except OSError as error:
            raise os_fault(self.leases, error, option="--journal") from error

    def lease_path(self) -> Path:
        """Return a file in the journal's folder."""
        digest = hashlib.sha256(f"{self.address}\n{self.collection}".encode(errors="surrogatepass")).hexdigest()
        return self.leases / f"{digest[:DIGEST_CHARACTERS]}.lease"

    def in_use(self, holder: Holder) -> TargetInUse:
        """Name the collection; the others of the server are free."""
        return TargetInUse(path=str(self.address), collection=self.collection, holder=str(holder))

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,  # noqa: ARG002  # how we ended says nothing about a server
        ledger: Ledger | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> tuple[ChromaStore, Opened]:
        """Check that it is a server that we can talk to, and open the collection."""
        from upsert_cli.store.chroma.client import connect_server
        from upsert_cli.store.chroma.records import ChromaStore

        with understood(target):
            session = self._session(notify)
            tenant, database = self._database(session)
            if target.keeps_lists:
                self._require_lists(session)
            client = connect_server(session, self.address.url, tenant=tenant, database=database)
        store = ChromaStore(target, self, client, ledger=ledger)
        return store, store.opened

    def require_lists(self) -> None:
        """Ask the server."""
        with self._session() as session:
            self._require_lists(session)

    # -- asking ---------------------------------------------------------------------------------------------------

    def _session(self, notify: Callable[[str], None] = lambda _: None) -> HttpSession:
        with lean_imports():
            from upsert_cli.store.chroma.http_session import HttpSession

        return HttpSession(self.address.url, self.access, retry_for=self.retry_for, notify=notify)

    def _path(self, *parts: str) -> str:
        return "/".join((self.address.url, "api", "v2", *(quote(part, safe="") for part in parts)))

    def _collections(self, session: HttpSession) -> str:
        tenant, database = self._database(session)
        return self._path("tenants", tenant, "databases", database, "collections")

    def _database(self, session: HttpSession) -> tuple[str, str]:
        """Return tenant and database, after checking that they exist and that it is a Chroma server of version 1."""
        self._check_version(session)
        tenant, database = self.address.tenant, self.address.database
        if tenant is None or database is None:
            identity = self._value(session.request("GET", self._path("auth", "identity")))
            databases = [name for name in identity.get("databases") or [] if name != "*"]
            tenant = tenant or identity.get("tenant")
            database = database or (databases[0] if len(databases) == 1 else None)
            if not tenant or not database:
                raise UpsertCliError(
                    message=f"{self.address.url} does not say for which database the token is; name it as "
                    f"--chroma {self.address.url}/TENANT/DATABASE, or in CHROMA_TENANT and CHROMA_DATABASE"
                )
        answer = session.request("GET", self._path("tenants", tenant, "databases", database))
        if answer.status_code in (_GONE, _NO_NAME):
            raise UpsertCliError(
                message=f"{self.address.url} has no database {database} of a tenant {tenant}; create it there, or name "
                f"another as --chroma {self.address.url}/TENANT/DATABASE"
            )
        self._value(answer)
        return tenant, database

    def _check_version(self, session: HttpSession) -> None:
        if self.address.is_cloud:
            return  # it is always the newest
        found = ""
        for version in ("v2", "v1"):
            path = f"/api/{version}/version"
            try:
                answer = session.request("GET", self.address.url + path)
            except NotChromasAnswer as error:
                found = found or f"something else ({error.found} is its answer to {error.request})"
                continue
            if answer.is_success and isinstance(answer.json(), str):
                if answer.json().partition(".")[0] == MAJOR_VERSION:
                    return
                found = f"a Chroma of version {answer.json()}"
                break
            found = found or f"something else ({answer.status_code} is its answer to {path})"
        raise UpsertCliError(
            message=f"{self.address.url} is {found}, and a Chroma server of version 1 is needed; check the address"
        )

    def _require_lists(self, session: HttpSession) -> None:
        """Check that the server stores lists, by an upsert into a collection that cannot exist.

        A server reads the whole request before it looks for the collection, and the version that it reports is the same
        for all of them.
        """
        from upsert_cli.store.chroma.http_session import Unacceptable

        if self.in_cloud:
            return  # it is always the newest
        probe = {"ids": ["probe"], "embeddings": [[0.5]], "metadatas": [{"probe": ["list"]}]}
        try:
            session.request("POST", f"{self._collections(session)}/{_NO_COLLECTION}/upsert", json=probe)
        except Unacceptable as error:
            raise Refusal(
                message=f"{self.address.url}: this server does not store lists, and nothing was written; leave out "
                f"--keep-lists, or upgrade the server to Chroma 1.5"
            ) from error

    def _value(self, answer: httpx.Response) -> Any:
        """Return the value of an answer.

        Raises:
            UpsertCliError: It is an error that Chroma reports.
        """
        if answer.is_success:
            return answer.json()
        reason = f"{answer.status_code}, {answer.json()['message']}"
        raise server_fails(self.address.url, self.collection, reason)


def _info(found: dict[str, Any]) -> CollectionInfo:
    configurations = (found.get("configuration_json") or {}, found.get("schema") or {})
    return info_of(str(found.get("name")), found.get("dimension"), found.get("metadata") or {}, *configurations)
