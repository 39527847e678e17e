"""A database of a Chroma server, read by plain requests: its collections, and their records page by page.

Chroma's library is needed only to write, to query and to filter; its import takes as long as many pages.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from upsert_cli.bisect import failing_rows
from upsert_cli.errors import NotChromasAnswer, Refusal, UpsertCliError
from upsert_cli.store.address import CLOUD_ROWS, Access, Address, remedy_for_name
from upsert_cli.store.base import Record
from upsert_cli.store.chroma.answers import GOOD
from upsert_cli.store.chroma.configuration import info_of
from upsert_cli.store.chroma.faults import lacks_vector, server_fails
from upsert_cli.store.chroma.http_session import HttpSession, Unacceptable
from upsert_cli.store.folder import unusable
from upsert_cli.store.target import CollectionInfo

MAJOR_VERSION = "1"  # of Chroma; earlier versions have other paths and other answers
ANSWER_NUMBERS = 1 << 19  # numbers of all vectors in an answer: 10 MB of JSON, and 17 MB of memory once it is parsed
LISTED = 100  # collections a request
_GONE = 404
_NO_COLLECTION = "00000000-0000-0000-0000-000000000000"  # an id that no collection has
_UNACCEPTABLE = 422  # stands for every answer that raises `Unacceptable`
_INVALID_NAME = 400  # the status for a name that no tenant or database can have


class ServerDatabase(AbstractContextManager["ServerDatabase", None]):
    """One database of a server, and the session to it."""

    def __init__(self, address: Address, access: Access, *, retry_for: float, notify: Callable[[str], None]) -> None:
        """Check that a Chroma server of version 1 answers and has the database.

        Args:
            address: The server; tenant and database may be None if the server knows those of the token.
            access: The credentials.
            retry_for: How long to keep retrying failed requests, in seconds.
            notify: Called with a message about a retry.
        """
        self.session = HttpSession(address.url, access, retry_for=retry_for, notify=notify)
        self._address = address
        try:
            self._check_version()
            self.tenant, self.name = self._found()
        except BaseException:
            self.session.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def collection(self, name: str) -> dict[str, Any] | None:
        """Return the server's description of a collection; None if it is missing."""
        status, found = self._ask("GET", name)
        return None if status == _GONE else dict(self._value(status, found, name))

    def collections(self) -> Iterator[dict[str, Any]]:
        """Yield the descriptions of all collections."""
        start = 0
        while part := self._value(*self._ask("GET", params={"limit": LISTED, "offset": start})):
            start += len(part)
            yield from part

    def count(self, found: dict[str, Any]) -> int | None:
        """Return the number of records of a described collection; None if it was deleted by now."""
        status, count = self._ask("GET", str(found["id"]), "count")
        return None if status == _GONE else int(self._value(status, count, found["name"]))

    def fetch(
        self,
        found: dict[str, Any],
        *,
        start: int,
        rows: int,
        where: dict[str, Any] | None = None,
        with_vectors: bool = False,
    ) -> list[Record]:
        """Return at most `rows` records of a described collection; see `Store.fetch`.

        A record has no vector if the server's index lacks it.
        """
        include = ["documents", "metadatas"]
        most = min(rows, CLOUD_ROWS) if self._address.is_cloud else rows
        if with_vectors:
            include.append("embeddings")
            most = max(1, min(most, ANSWER_NUMBERS // (found.get("dimension") or 1)))
        asked = {"limit": most, "offset": start, "where": where, "include": include}
        if (read := self._got(found, asked)) is None:
            records = self.fetch(found, start=start, rows=most, where=where)
            known = self._vectors(found, [record.id for record in records])
            return [record._replace(vector=known.get(record.id)) for record in records]
        vectors = read["embeddings"] if with_vectors else [None] * len(read["ids"])
        columns = zip(read["ids"], read["documents"], read["metadatas"], vectors, strict=True)
        return [
            Record(one, text, metadata or {}, vector=None if vector is None else array("f", vector))
            for one, text, metadata, vector in columns
        ]

    def _got(self, found: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a request for records; None if the index lacks one of the requested vectors."""
        status, read = self._ask("POST", str(found["id"]), "get", json=asked)
        if "embeddings" in asked["include"] and status not in GOOD and lacks_vector(read["message"]):
            return None
        if status == _GONE:
            remedy = remedy_for_name(str(self._address))
            raise unusable(self._address.url, reason=f"the collection {found['name']} is gone", remedy=remedy)
        return dict(self._value(status, read, found["name"]))

    def _vectors(self, found: dict[str, Any], ids: Sequence[str]) -> dict[str, array[float]]:
        """Return the vectors of records, without those that the index lacks, which are found by bisecting."""
        vectors: dict[str, array[float]] = {}

        def read(part: Sequence[str]) -> None:
            if (got := self._got(found, {"ids": part, "include": ["embeddings"]})) is None:
                raise LookupError
            columns = zip(got["ids"], got["embeddings"], strict=True)
            vectors.update((one, array("f", vector)) for one, vector in columns if vector is not None)

        failing_rows(ids, read, is_data_fault=lambda error: type(error) is LookupError)
        return vectors

    @staticmethod
    def info(found: dict[str, Any]) -> CollectionInfo:
        """Return our description of a collection from the server's."""
        configurations = (found.get("configuration_json") or {}, found.get("schema") or {})
        return info_of(str(found["name"]), found.get("dimension"), found.get("metadata") or {}, *configurations)

    def has_chunks(self, found: dict[str, Any]) -> bool:
        """Return whether a collection may have chunks."""
        from upsert_cli.store.chroma.queries import FIRST_CHUNKS  # imported late: it takes longer than most requests

        return bool(self.fetch(found, start=0, rows=1, where=FIRST_CHUNKS))

    def require_lists(self) -> None:
        """Check that the server stores lists, by an upsert into a collection that cannot exist.

        A server parses the whole request before it searches for the collection. Its version does not help: all servers
        report the same.
        """
        if self._address.is_cloud:
            return  # the cloud always has the newest version
        probe = {"ids": ["probe"], "embeddings": [[0.5]], "metadatas": [{"probe": ["list"]}]}
        status, _ = self._ask("POST", _NO_COLLECTION, "upsert", json=probe)
        if status == _UNACCEPTABLE:
            raise Refusal(
                message=f"{self._address.url}: this server does not store lists, and nothing was written; leave out "
                f"--keep-lists, or upgrade the server to Chroma 1.5"
            )

    # -- asking --------------------------------------------------------------------------------------------------------

    def _ask(self, method: str, *parts: str, **options: Any) -> tuple[int, Any]:
        """Ask about collections; see `_request`."""
        return self._request(method, "tenants", self.tenant, "databases", self.name, "collections", *parts, **options)

    def _request(self, method: str, *parts: str, version: str = "v2", **options: Any) -> tuple[int, Any]:
        """Return the status of an answer and its value, with `error` and `message` for an error."""
        path = "/".join(quote(part, safe="") for part in ("api", version, *parts))
        try:
            answer = self.session.request(method, f"{self._address.url}/{path}", **options)
        except Unacceptable as error:
            return _UNACCEPTABLE, {"error": type(error).__name__, "message": str(error)}
        return answer.status_code, answer.extensions["value"]

    def _value(self, status: int, value: Any, collection: str = "") -> Any:
        """Return the value of a good answer.

        Raises:
            UpsertCliError: The answer is an error that Chroma reports.
        """
        if status in GOOD:
            return value
        reason = value["message"] if status == _UNACCEPTABLE else f"{status}, {value['message']}"
        raise server_fails(self._address.url, collection, reason)

    def _found(self) -> tuple[str, str]:
        """Return tenant and database, after checking that they exist."""
        url, tenant, database = self._address.url, self._address.tenant, self._address.database
        if tenant is None or database is None:
            identity = self._value(*self._request("GET", "auth", "identity"))
            databases = [name for name in identity.get("databases") or [] if name != "*"]
            tenant = tenant or identity.get("tenant")
            database = database or (databases[0] if len(databases) == 1 else None)
            if not tenant or not database:
                raise UpsertCliError(
                    message=f"{url} does not say for which database the token is; name it as "
                    f"--chroma {url}/TENANT/DATABASE, or in CHROMA_TENANT and CHROMA_DATABASE"
                )
        status, found = self._request("GET", "tenants", tenant, "databases", database)
        if status in (_GONE, _INVALID_NAME):
            raise UpsertCliError(
                message=f"{url} has no database {database} of a tenant {tenant}; create it there, or name "
                f"another as --chroma {url}/TENANT/DATABASE"
            )
        self._value(status, found)
        return tenant, database

    def _check_version(self) -> None:
        if self._address.is_cloud:
            return  # the cloud always has the newest version
        found = ""
        for version in ("v2", "v1"):
            try:
                status, number = self._request("GET", "version", version=version)
            except NotChromasAnswer as error:
                found = found or f"something else ({error.found} is its answer to {error.request})"
                continue
            if status in GOOD and isinstance(number, str):
                if number.partition(".")[0] == MAJOR_VERSION:
                    return
                found = f"a Chroma of version {number}"
                break
            found = found or f"something else ({status} is its answer to /api/{version}/version)"
        raise UpsertCliError(
            message=f"{self._address.url} is {found}, and a Chroma server of version 1 is needed; check the address"
        )
