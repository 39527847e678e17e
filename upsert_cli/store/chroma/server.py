"""A Chroma server as the place of a collection: it looks after its own files, and others may be at it meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from upsert_cli.errors import (
    CollectionInUse,
    DatabaseNotFound,
    NotAChromaServer,
    NotChromasAnswer,
    ServerRefuses,
    TargetInUse,
    TargetUnusable,
)
from upsert_cli.lean_imports import lean_imports
from upsert_cli.locks import Holder, Lease
from upsert_cli.redaction import without_secrets
from upsert_cli.store.base import CollectionInfo, Target
from upsert_cli.store.chroma.address import Address
from upsert_cli.store.chroma.answers import message_in
from upsert_cli.store.chroma.client import connect_server
from upsert_cli.store.chroma.credentials import Access
from upsert_cli.store.chroma.folder import FOLDER_MODE
from upsert_cli.store.chroma.quotas import CLOUD_QUOTAS, NO_QUOTAS, Quotas
from upsert_cli.store.chroma.stamp import function_in

if TYPE_CHECKING:
    from chromadb.api.client import Client

    from upsert_cli.store.chroma.http_session import HttpSession, Reply

MAJOR_VERSION = "1"  # of Chroma; what came before has other paths, and other answers
DIGEST_CHARACTERS = 32  # of the name of a lease; enough that no two collections share one
LISTED = 100  # collections a request
_GONE = 404
_NO_NAME = 400  # what no tenant and no database can be called


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """See `place.Place`."""

    is_shared: ClassVar[bool] = True

    address: Address
    collection: str
    leases: Path
    """Absolute; what happens there is seen by loads with the same journal alone."""

    access: Access
    retry_for: float
    """Seconds."""

    @property
    def quotas(self) -> Quotas:
        """Are those of the cloud; another server has none of its own but for the size of a request."""
        return CLOUD_QUOTAS if self.address.is_cloud else NO_QUOTAS

    def holder(self) -> Holder | None:
        """Returns who has the collection, of those with the same journal."""
        try:
            return Lease.peek(self.lease_path())
        except OSError:
            return None  # whoever takes the lease finds out why, and says so

    def reading_flushes(self) -> bool:
        """Is the server's own business."""
        return False

    def described(self) -> tuple[str, int | None, dict[str, Any], str] | None:
        """Asks the server for the collection."""
        with self._session(lambda _: None) as session:
            tenant, database = self._database(session)
            path = self._path("tenants", tenant, "databases", database, "collections", self.collection)
            reply = session.ask("GET", path)
            if reply.answer.status == _GONE:
                return None
            found = self._good(reply)
        function = function_in(found.get("configuration_json") or {}, found.get("schema") or {})
        return str(found.get("id")), found.get("dimension"), found.get("metadata") or {}, function

    def listed(self) -> list[CollectionInfo]:
        """Asks the server for all collections, and for the records of each."""
        found: list[CollectionInfo] = []
        with self._session(lambda _: None) as session:
            tenant, database = self._database(session)
            place = self._path("tenants", tenant, "databases", database, "collections")
            while True:
                part = self._good(session.ask("GET", place, params={"limit": LISTED, "offset": len(found)}))
                for one in part:
                    count = session.ask("GET", f"{place}/{one['id']}/count")
                    if count.answer.status != _GONE:  # it was deleted since
                        found.append(_listed(one, self._good(count)))
                if len(part) < LISTED:
                    return sorted(found, key=lambda one: one.name)

    def enter(self) -> None:
        """Makes the folder of the leases and moves into it."""
        try:
            self.leases.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            os.chdir(self.leases)  # chromadb reads the .env file of the working folder when it is imported
        except OSError as error:
            raise TargetUnusable(
                path=str(error.filename or self.leases),
                reason=error.strerror or type(error).__name__,
                remedy="give this user access, or choose another folder with --journal",
            ) from error

    def lease_path(self) -> Path:
        """Returns a file in the journal's folder."""
        digest = hashlib.sha256(f"{self.address}\n{self.collection}".encode(errors="surrogatepass")).hexdigest()
        return self.leases / f"{digest[:DIGEST_CHARACTERS]}.lease"

    def in_use(self, holder: Holder) -> TargetInUse:
        """Names the collection; the others of the server are free."""
        return CollectionInUse(path=str(self.address), collection=self.collection, holder=str(holder))

    def probe(self) -> None:
        """Is the server's own business."""

    def require_alone(self, *, parent: int = 0) -> None:
        """Is the server's own business."""

    def readable_copy(self) -> None:
        """Is never needed: a server reads its own files."""

    def check(self, target: Target, *, suspicious: bool) -> None:
        """Is the server's own business."""

    def check_rows(self, target: Target) -> None:
        """Is the server's own business."""

    def connect(self, told: Callable[[str], None]) -> Client:
        """Makes sure that it is a server that we can talk to, and connects."""
        session = self._session(told)
        tenant, database = self._database(session)
        return connect_server(session, self.address.url, tenant=tenant, database=database)

    def configuration(self, sync_threshold: int) -> dict[str, Any]:
        """Returns cosine; the cloud has an index of another kind, which needs no flushing."""
        hnsw = {"space": "cosine"} | ({} if self.address.is_cloud else {"sync_threshold": sync_threshold})
        return {"hnsw": hnsw}

    def require_space(self, rows: int) -> None:
        """Is the server's own business."""

    def is_flushed(self, collection_id: str) -> bool | None:  # noqa: ARG002
        """Is the server's own business."""
        return None

    def take_poison(self, target: Target) -> list[str]:  # noqa: ARG002
        """Is the server's own business."""
        return []

    def put_index_aside(self, target: Target) -> list[str]:  # noqa: ARG002
        """Is the server's own business; records that are written again get into its index again."""
        return []

    # -- asking ---------------------------------------------------------------------------------------------------

    def _session(self, told: Callable[[str], None]) -> HttpSession:
        with lean_imports():
            from upsert_cli.store.chroma.http_session import HttpSession

        return HttpSession(self.address.url, self.access, retry_for=self.retry_for, told=told)

    def _path(self, *parts: str) -> str:
        return "/".join((self.address.url, "api", "v2", *(quote(part, safe="") for part in parts)))

    def _database(self, session: HttpSession) -> tuple[str, str]:
        """Returns tenant and database, once it is known that they are there and that the server is one of ours."""
        self._check_version(session)
        tenant, database = self.address.tenant, self.address.database
        if tenant is None or database is None:
            identity = self._good(session.ask("GET", self._path("auth", "identity")))
            databases = [name for name in identity.get("databases") or [] if name != "*"]
            tenant = tenant or identity.get("tenant")
            database = database or (databases[0] if len(databases) == 1 else None)
            if not tenant or not database:
                raise DatabaseNotFound(url=self.address.url, tenant=None, database=None)
        reply = session.ask("GET", self._path("tenants", tenant, "databases", database))
        if reply.answer.status in (_GONE, _NO_NAME):
            raise DatabaseNotFound(url=self.address.url, tenant=tenant, database=database)
        self._good(reply)
        return tenant, database

    def _check_version(self, session: HttpSession) -> None:
        if self.address.is_cloud:
            return  # it is always the newest
        found = ""
        for path in (self._path("version"), f"{self.address.url}/api/v1/version"):
            try:
                reply = session.ask("GET", path)
            except NotChromasAnswer as error:
                found = found or f"something else ({error.found} is its answer to {error.request})"
                continue
            if reply.answer.is_good and isinstance(reply.value, str):
                if reply.value.partition(".")[0] == MAJOR_VERSION:
                    return
                found = f"a Chroma of version {reply.value}"
                break
            found = found or f"something else ({reply.answer.status} is its answer to {reply.answer.path})"
        raise NotAChromaServer(url=self.address.url, found=found)

    def _good(self, reply: Reply) -> Any:
        """Return the value of an answer, or fail with the error that Chroma reports.

        Raises:
            ServerRefuses: The answer is an error.
        """
        if reply.answer.is_good:
            return reply.value
        reason = without_secrets(f"{reply.answer.status}, {message_in(reply.answer)}")
        raise ServerRefuses(url=self.address.url, collection=self.collection, reason=reason)


def _listed(found: dict[str, Any], records: int) -> CollectionInfo:
    return CollectionInfo(
        name=str(found.get("name")),
        records=records,
        dimension=found.get("dimension"),
        metadata=found.get("metadata") or {},
        function=function_in(found.get("configuration_json") or {}, found.get("schema") or {}),
    )
