"""An open collection: created as loads need it, or taken over and given back unchanged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from upsert_cli.errors import UpsertCliError
from upsert_cli.store.address import bad_name
from upsert_cli.store.chroma.configuration import contradicts, info_of
from upsert_cli.store.chroma.faults import ask, is_of_kind, reason, retrying_locks, understood
from upsert_cli.store.chroma.index_queue import LOAD_THRESHOLD, IndexQueue
from upsert_cli.store.chroma.read_back import check_vectors
from upsert_cli.store.stamp import check_model, stamp
from upsert_cli.store.target import COSINE, CollectionInfo, Opened, Target

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

    from upsert_cli.leases import Lease
    from upsert_cli.store.chroma.index_files import IndexFiles
    from upsert_cli.store.location import Location

P = ParamSpec("P")
R = TypeVar("R")


class OpenCollection:
    """A collection and the client it came from; only one process at a time may have a folder's."""

    def __init__(
        self,
        target: Target,
        location: Location,
        client: Client,
        *,
        index: IndexFiles | None,
        in_cloud: bool = False,
        unclean: bool = False,
        lease: Lease | None = None,
    ) -> None:
        """Open the collection through a connected client, or create it; see `Location.open`.

        Args:
            target: The collection to open.
            location: The place of the collection.
            client: A client for that place.
            index: The index files in a folder; None for a server, which has the index to itself.
            in_cloud: Whether the quotas of Chroma Cloud apply.
            unclean: Whether the last writer may have ended within a write.
            lease: Keeps the threshold that has to be restored, if the load changes it.
        """
        self._target = target
        self._location = location
        self._client = client
        self._index = index
        self._in_cloud = in_cloud
        self._lease = lease
        self._queue: IndexQueue | None = None  # None for a server, and where nothing is written
        self._unflushed = unclean  # whether rows may be queued that the index files lack
        try:
            with understood(target):
                self._max_batch = client.get_max_batch_size()
                self.opened = self._open(unclean=unclean)
        except BaseException:
            self._close_after_error()
            raise

    def _open(self, *, unclean: bool) -> Opened:
        target = self._target
        created = not target.as_found and retrying_locks(self._create_if_missing)
        self._chroma = self._get(target.collection)
        if target.as_a_whole:  # Chroma cannot count where the index is damaged
            state = self._location.state()
            count = 0 if state is None else state.records
            return Opened(created=False, count=count, warnings=(), unclean=unclean)
        model = self._chroma.get_model()
        configuration: Any = model["configuration_json"] or {}
        metadata = model["metadata"] or {}
        info = info_of(target.collection, model["dimension"], metadata, configuration)
        self._is_cosine = info.space == COSINE
        warnings = check_model(target, info) if target.model.name else ()
        if not (target.beside_others or target.reads_only):
            self._queue = self._queue_of(info)
        if self._queue is not None:
            hnsw = configuration.get("hnsw") or {}
            own = None if contradicts(hnsw, metadata) else hnsw.get("sync_threshold")
            self._queue.raise_threshold(own, created=created)
        # A read, and before any write: the first read of a client makes the engine forget which of the queued rows its
        # index has, and with rows queued by then the next write would put all of them in again, at some 6 ms each.
        count = retrying_locks(self._chroma.count)
        if self._queue is not None:
            self._queue.records = count
        if not target.as_found:
            ours = info.stamp is not None
            check_vectors(target, self._chroma, count=count, ours=ours, suspicious=unclean)
        names = info.named_model is not None
        return Opened(created=created, count=count, warnings=warnings, unclean=unclean, names_model=names)

    def _queue_of(self, info: CollectionInfo) -> IndexQueue | None:
        if self._index is None:
            return None
        return IndexQueue(self._target, self._index, self._chroma, info, lease=self._lease, max_batch=self._max_batch)

    def _get(self, name: str) -> Collection:
        return self._call(self._client.get_collection, name, embedding_function=None)

    def _create_if_missing(self) -> bool:
        try:
            self._client.get_collection(self._target.collection, embedding_function=None)
        except Exception as error:
            if not is_of_kind(error, "NotFoundError"):
                raise
        else:
            return False
        # The cloud has another kind of index, which needs no flushing.
        hnsw: Any = {"space": self._target.space or COSINE} | (
            {} if self._in_cloud else {"sync_threshold": LOAD_THRESHOLD}
        )
        # Chroma's own default function where ours gives the same vectors: then any client can query by text.
        function: dict[str, Any] = {} if self._target.model.is_chromas_default else {"embedding_function": None}
        try:
            # Another load may create it at this moment; the model that created it is checked after this.
            self._client.get_or_create_collection(
                self._target.collection,
                configuration={"hnsw": hnsw},
                metadata=stamp(self._target),
                **function,
            )
        except Exception as error:
            if not is_of_kind(error, "InvalidArgumentError"):
                raise
            text = reason(error).removeprefix("Validation error: name: ")
            raise bad_name(self._target.collection, reason=text) from error
        return True

    def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return ask(self._target, call, *args, **kwargs)

    def close(self) -> None:
        """Flush the index and close the collection."""
        try:
            if self._unflushed and self._queue is not None:
                self._queue.flush()
        except BaseException:
            self._close_after_error()
            raise
        self.abandon()

    def abandon(self) -> None:
        """Restore the collection's threshold and close the client."""
        try:
            if self._queue is not None:
                self._queue.restore_threshold()
        finally:
            self._client.close()

    def _close_after_error(self) -> None:
        """Close the collection, and leave the first error the one that counts."""
        with suppress(UpsertCliError):
            self.abandon()
