"""A Chroma server as the place of a collection: it looks after its own files, and others may be at it meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from upsert_cli.errors import CollectionInUse, DatabaseNotFound, NotAChromaServer, TargetInUse, TargetUnusable
from upsert_cli.lean_imports import lean_imports
from upsert_cli.leases import Holder, Lease
from upsert_cli.stream.chroma.access import Access
from upsert_cli.stream.chroma.address import Address
from upsert_cli.stream.chroma.client import connect_server
from upsert_cli.stream.chroma.folder import FOLDER_MODE
from upsert_cli.stream.chroma.quotas import CLOUD_QUOTAS, NO_QUOTAS, Quotas
from upsert_cli.stream.chroma.rows import Listed, Target
from upsert_cli.stream.chroma.stamp import function_in

if TYPE_CHECKING:
    import httpx
    from chromadb.api.client import Client

    from upsert_cli.stream.chroma.session import Session

MAJOR_VERSION = "1"  # of Chroma; what came before has other paths, and other answers
DIGEST_CHARACTERS = 32  # of the name of a lease; enough that no two collections share one
LISTED = 100  # collections a request
_GONE = 404
_NO_NAME = 400  # what no tenant and no database can be called
_OK = 200


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
            answer = session.request(
                "GET", self._path("tenants", tenant, "databases", database, "collections", self.collection)
            )
            if answer.status_code == _GONE:
                return None
            found = _object(answer) or self._not_chroma(answer)
        function = function_in(found.get("configuration_json") or {}, found.get("schema") or {})
        return str(found.get("id")), found.get("dimension"), found.get("metadata") or {}, function

    def listed(self) -> list[Listed]:
        """Asks the server for all collections, and for the records of each."""
        found: list[Listed] = []
        with self._session(lambda _: None) as session:
            tenant, database = self._database(session)
            place = self._path("tenants", tenant, "databases", database, "collections")
            while True:
                answer = session.request("GET", f"{place}?limit={LISTED}&offset={len(found)}")
                part = _json(answer)
                if not isinstance(part, list):
                    self._not_chroma(answer)
                for one in part:
                    count = session.request("GET", f"{place}/{one['id']}/count")
                    records = _json(count)
                    found.append(_listed(one, records if isinstance(records, int) else self._not_chroma(count)))
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

    def check(self, target: Target, *, suspicious: bool) -> None:
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

    def _session(self, told: Callable[[str], None]) -> Session:
        with lean_imports():
            from upsert_cli.stream.chroma.session import Session

        return Session(self.address.url, self.access, retry_for=self.retry_for, told=told)

    def _path(self, *parts: str) -> str:
        return "/".join((self.address.url, "api", "v2", *(quote(part, safe="") for part in parts)))

    def _database(self, session: Session) -> tuple[str, str]:
        """Returns tenant and database, once it is known that they are there and that the server is one of ours."""
        self._check_version(session)
        tenant, database = self.address.tenant, self.address.database
        if tenant is None or database is None:
            answer = session.request("GET", self._path("auth", "identity"))
            identity = _object(answer) or self._not_chroma(answer)
            databases = [name for name in identity.get("databases") or [] if name != "*"]
            tenant = tenant or identity.get("tenant")
            database = database or (databases[0] if len(databases) == 1 else None)
            if not tenant or not database:
                raise DatabaseNotFound(url=self.address.url, tenant=None, database=None)
        answer = session.request("GET", self._path("tenants", tenant, "databases", database))
        if answer.status_code in (_GONE, _NO_NAME):
            raise DatabaseNotFound(url=self.address.url, tenant=tenant, database=database)
        if _object(answer) is None:
            self._not_chroma(answer)
        return tenant, database

    def _check_version(self, session: Session) -> None:
        if self.address.is_cloud:
            return  # it is always the newest
        answer = session.request("GET", self._path("version"))
        version = _json(answer)
        if not isinstance(version, str):
            version = _json(session.request("GET", f"{self.address.url}/api/v1/version"))
        if not isinstance(version, str):
            self._not_chroma(answer)
        elif version.partition(".")[0] != MAJOR_VERSION:
            raise NotAChromaServer(url=self.address.url, found=f"a Chroma of version {version}")

    def _not_chroma(self, answer: httpx.Response) -> Any:
        found = f"something else (it answers {answer.status_code} to {answer.request.method} {answer.request.url.path})"
        raise NotAChromaServer(url=self.address.url, found=found)


def _listed(found: dict[str, Any], records: int) -> Listed:
    return Listed(
        name=str(found.get("name")),
        records=records,
        dimension=found.get("dimension"),
        metadata=found.get("metadata") or {},
        function=function_in(found.get("configuration_json") or {}, found.get("schema") or {}),
    )


def _object(answer: httpx.Response) -> dict[str, Any] | None:
    value = _json(answer)
    return value if isinstance(value, dict) else None


def _json(answer: httpx.Response) -> Any:
    """Returns what a server answered, if it answered well and in JSON."""
    with suppress(ValueError):
        return answer.json() if answer.status_code == _OK else None
    return None
