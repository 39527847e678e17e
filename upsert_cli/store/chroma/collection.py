"""An open collection: created as loads need it, or taken over and given back unchanged."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from upsert_cli.errors import UpsertCliError
from upsert_cli.retry import call_with_retries
from upsert_cli.store.address import bad_name
from upsert_cli.store.chroma.cosine_vectors import to_be_returned
from upsert_cli.store.chroma.faults import is_of_kind, is_passing, reason, understood
from upsert_cli.store.chroma.index_files import IndexFiles, damaged
from upsert_cli.store.chroma.read_back import check_vectors
from upsert_cli.store.chroma.stamp import check_model, contradicts, info_of, stamp
from upsert_cli.store.target import Opened, Target

if TYPE_CHECKING:
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

    from upsert_cli.locks import Lease
    from upsert_cli.store.chroma.local import LocalFolder
    from upsert_cli.store.chroma.server import Server

    ChromaLocation: TypeAlias = LocalFolder | Server

P = ParamSpec("P")
R = TypeVar("R")

LOAD_THRESHOLD = 10_000  # rows; the fewer flushes, the fewer moments in which kill -9 finds the index half written
READERS_THRESHOLD = 1_000_000_000  # rows; set for other readers during a load, so that none of them flushes
CHROMA_THRESHOLD = 1_000  # rows; Chroma's default, for a collection that a load left without its own
LEAST_THRESHOLD = 256  # rows; the index takes rows in by the hundred, and a flush after fewer gains nothing
DEFAULT_SPACE = "cosine"  # of the collections that we create
REWRITTEN_ROWS = 500  # rows a call
RETRY_SECONDS = 30.0  # seconds that a lock on the database may last
# Characters that may be queued for the index: the engine reads all of them again at each write, which costs 6 ms and
# more than 1 MB of memory for each MB (measured with rows of 7 MB). A flush writes the whole index, of 1.7 KB a row.
QUEUE_SIZE = 32 << 20
QUEUE_SIZE_A_ROW = 1 << 10

# Another program may keep the database locked for a while.
retrying_locks = functools.partial(call_with_retries, is_passing=is_passing, seconds=RETRY_SECONDS)


class OpenCollection:
    """A collection and the client it came from; only one process at a time may have a folder's."""

    def __init__(
        self,
        target: Target,
        location: ChromaLocation,
        client: Client,
        *,
        unclean: bool = False,
        lease: Lease | None = None,
    ) -> None:
        """Open the collection through a connected client, or create it; see `Location.open`."""
        self._target = target
        self._location = location
        self._client = client
        self._lease = lease
        self._index = location.index
        self._threshold: int | None = None  # rows; None for another kind of index
        self._load_threshold = LOAD_THRESHOLD
        self._final_threshold: int | None = None
        self._changes = self._queued = 0  # rows written since the last flush, and characters of their strings
        self._had_index = True  # whether the index was written before this load, or its first flush was checked
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
            self._count = 0 if state is None else state.records
            return Opened(created=False, count=self._count, warnings=(), unclean=unclean)
        model = self._chroma.get_model()
        configuration: Any = model["configuration_json"] or {}
        info = info_of(target.collection, model["dimension"], model["metadata"] or {}, configuration)
        self._space = info.space
        warnings = check_model(target, info) if target.model.name else ()
        if self._index is not None and not (target.beside_others or target.reads_only):
            hnsw = configuration.get("hnsw") or {}
            own = None if contradicts(hnsw, model["metadata"] or {}) else hnsw.get("sync_threshold")
            self._raise_threshold(self._index, own, ours=info.stamp is not None, created=created)
        # A read, and before any write: the first read of a client makes the engine forget which of the queued rows its
        # index has, and with rows queued by then the next write would put all of them in again, at some 6 ms each.
        self._count = retrying_locks(self._chroma.count)
        if not target.as_found:
            ours = info.stamp is not None
            check_vectors(target, self._chroma, count=self._count, ours=ours, suspicious=unclean)
        names = info.named_model is not None
        return Opened(created=created, count=self._count, warnings=warnings, unclean=unclean, names_model=names)

    def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call Chroma, wait for locks, and word its errors for users."""
        with understood(self._target):
            return retrying_locks(functools.partial(call, *args, **kwargs))

    def _wrote(self, rows: int, characters: int) -> None:
        """Keep the queue in bounds and readers away from it; called after each write.

        A process that merely reads loads the index with the stored threshold, adds the queued rows to it and, if they
        are enough, writes the files while we do. Our engine has read its own threshold by then. `characters` are those
        of all strings of the rows.
        """
        self._set_threshold(READERS_THRESHOLD)
        self._changes += rows
        self._queued += characters
        if self._changes >= self._load_threshold:
            self._check_first_index()
        if self._queued > max(QUEUE_SIZE, QUEUE_SIZE_A_ROW * (self._count + self._changes)):
            self.flush()

    def flush(self) -> None:
        """Write all that is queued into the index files, so that the next reader opens at once.

        The engine flushes after a number of queued changes, so it gets changes that change nothing: 0.3 s of CPU at
        most, and next to none where the threshold equals the rows of the load. Opening the collection again with a
        lower threshold would put all queued rows into the index again, at up to 7 ms a row, and readers would see it.
        """
        if self._index is None:
            return
        self._index.require_space()
        try:
            self._queue_changes(self._index)
            self._count += self._changes  # at most: some may have replaced others
            self._queued = self._changes = 0
            self._check_first_index()
        finally:
            # When the disk fills up during a flush, the engine writes a part without an error.
            self._index.require_space()
            self._index.check(self._target)

    def _check_first_index(self) -> None:
        """Check that a reader did not disturb the first flush, once after it."""
        if not self._had_index and self._index is not None and self._index.was_written():
            self._had_index = True
            if self._index.is_overwritten():
                self._write_again(self._index)

    def _write_again(self, index: IndexFiles) -> None:
        """Make the engine write all of the index, over the one of a reader.

        A program that reads a collection before its index was ever written makes one that is empty. If that happens
        during the first flush, its files replace or cut ours (measured with 1.5.9). The engine has all vectors in its
        memory and writes those that changed, so each one is replaced by itself.
        """
        import numpy as np

        index.require_space()
        for start in range(0, self._count + self._changes, REWRITTEN_ROWS):
            found = self._call(self._chroma.get, limit=REWRITTEN_ROWS, offset=start, include=["embeddings"])
            if found["ids"]:
                vectors = np.asarray(found["embeddings"], dtype=np.float32)
                vectors = to_be_returned(vectors) if self._space == DEFAULT_SPACE else vectors
                self._call(self._chroma.update, ids=found["ids"], embeddings=vectors)
                self._changes += len(found["ids"])
        self._queue_changes(index)
        self._queued = self._changes = 0
        if index.is_overwritten():
            raise damaged(self._target, "another program wrote its index over the one of this load")

    def _queue_changes(self, index: IndexFiles) -> None:
        missing = self._load_threshold - self._changes % self._load_threshold
        # The second time for the whole of the threshold, where the engine counts in another way than we do.
        for rows in (missing, self._load_threshold):
            for start in range(0, rows, self._max_batch):
                if self._threshold is None or index.is_flushed() is not False:
                    return
                numbers = range(start, min(start + self._max_batch, rows))
                ids = [f"upsert-cli-flush-{number}" for number in numbers]
                unchanged: Any = [None] * len(ids)
                self._call(self._chroma.update, ids=ids, metadatas=unchanged)

    def _close_after_error(self) -> None:
        """Close it, and leave the first error the one that counts."""
        with suppress(UpsertCliError):
            self.abandon()

    def close(self) -> None:
        """Flush the index and close the collection."""
        try:
            if self._unflushed:
                self.flush()
        except BaseException:
            self._close_after_error()
            raise
        self.abandon()

    def abandon(self) -> None:
        """Restore the collection's threshold and close the client."""
        try:
            if self._final_threshold is not None:
                self._set_threshold(self._final_threshold)
                self._owe(None)
        finally:
            self._client.close()

    def _owe(self, threshold: int | None) -> None:
        if self._lease is not None:
            with understood(self._target):  # the disk of the lock file is full
                self._lease.owe(self._target.collection, threshold)

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
        hnsw: Any = {"space": self._target.space or DEFAULT_SPACE} | (
            {} if self._location.in_cloud else {"sync_threshold": LOAD_THRESHOLD}
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

    def _raise_threshold(self, index: IndexFiles, own: object, *, ours: bool, created: bool) -> None:
        """Set the threshold for the load, and remember the one to restore.

        It is the rows of the load, if they are few: the last of them then flushes all. Only while nothing is queued: a
        reader that sees the threshold before our first write must not have to flush.
        """
        # A repair may begin with an index that lacks rows.
        self._had_index = self._target.as_found or index.was_written()
        if not isinstance(own, int):
            return
        self._threshold = own
        owed = None if self._lease is None else self._lease.holder.owed.get(self._target.collection)
        theirs = owed or (CHROMA_THRESHOLD if own == READERS_THRESHOLD else own)
        self._final_threshold = LOAD_THRESHOLD if ours else theirs
        if self._final_threshold != LOAD_THRESHOLD:
            self._owe(self._final_threshold)
        if self._target.rows is not None and (created or index.is_flushed()):
            self._load_threshold = min(LOAD_THRESHOLD, max(LEAST_THRESHOLD, self._target.rows))
        self._set_threshold(self._load_threshold)

    def _set_threshold(self, threshold: int) -> None:
        if threshold == self._threshold or self._threshold is None:
            return
        # Once it is changed, chromadb builds the stored embedding function again, which may need a package or a key.
        with suppress(ValueError):
            self._call(self._chroma.modify, configuration={"hnsw": {"sync_threshold": threshold}})
        self._threshold = threshold
