"""The rows that Chroma queues for the index of a folder, and the threshold at which its engine writes the index files.

A process that only reads a collection loads the index with the stored threshold and adds the queued rows to it. If
these are enough, it writes the files, even while a load does. So during a load the stored threshold is too high for any
reader. The engine of the load has read its own threshold by then.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upsert_cli.store.chroma.cosine_vectors import to_be_returned
from upsert_cli.store.chroma.faults import ask, understood
from upsert_cli.store.chroma.index_files import IndexFiles, damaged
from upsert_cli.store.target import COSINE, CollectionInfo, Target

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

    from upsert_cli.leases import Lease

LOAD_THRESHOLD = 10_000  # rows; the fewer flushes, the fewer moments in which kill -9 finds the index half written
READERS_THRESHOLD = 1_000_000_000  # rows; stored during a load, so that no reader flushes
CHROMA_THRESHOLD = 1_000  # rows; Chroma's default, for a collection that a load left without its own
LEAST_THRESHOLD = 256  # rows; the index takes rows in by the hundred, and a flush after fewer gains nothing
REWRITTEN_ROWS = 500  # rows a call
# Characters that may be queued for the index: the engine reads all of them again at each write, which costs 6 ms and
# more than 1 MB of memory for each MB (measured with rows of 7 MB). A flush writes the whole index, of 1.7 KB a row.
QUEUE_SIZE = 32 << 20
QUEUE_SIZE_A_ROW = 1 << 10


class IndexQueue:
    """The queue of one collection; only one process at a time may write to it."""

    def __init__(
        self,
        target: Target,
        index: IndexFiles,
        chroma: Collection,
        info: CollectionInfo,
        *,
        lease: Lease | None,
        max_batch: int,
    ) -> None:
        """Change nothing yet; the lease records the threshold to restore, and `max_batch` is the most rows a call."""
        self._target = target
        self._index = index
        self._chroma = chroma
        self._info = info
        self._lease = lease
        self._max_batch = max_batch
        self._threshold: int | None = None  # the stored one in rows; None where it must not be changed
        self._load_threshold = LOAD_THRESHOLD  # that of the engine in this process
        self._final_threshold: int | None = None
        self._rows = self._characters = 0  # written since the last flush, and the characters of their strings
        # A repair may begin with an index that lacks rows.
        self._had_index = target.as_found or index.was_written()  # or its first flush was checked
        self.records = 0
        """Records of the collection at the last flush, or more."""

    def raise_threshold(self, own: object, *, created: bool) -> None:
        """Set the threshold for the load, and remember the one to restore.

        The threshold is the rows of the load, if they are few: the last of them then flushes all. That is so only while
        nothing is queued, since a reader that sees the threshold before our first write must not have to flush.

        Args:
            own: The threshold that the collection has; not a number for another kind of index.
            created: Whether this load created the collection.
        """
        if not isinstance(own, int):
            return
        self._threshold = own
        owed = None if self._lease is None else self._lease.holder.owed.get(self._target.collection)
        theirs = owed or (CHROMA_THRESHOLD if own == READERS_THRESHOLD else own)
        self._final_threshold = LOAD_THRESHOLD if self._info.stamp is not None else theirs
        if self._final_threshold != LOAD_THRESHOLD:
            self._owe(self._final_threshold)
        if self._target.rows is not None and (created or self._index.is_flushed()):
            self._load_threshold = min(LOAD_THRESHOLD, max(LEAST_THRESHOLD, self._target.rows))
        self._set_threshold(self._load_threshold)

    def restore_threshold(self) -> None:
        """Give the collection its own threshold back."""
        if self._final_threshold is not None:
            self._set_threshold(self._final_threshold)
            self._owe(None)

    def wrote(self, rows: int, characters: int) -> None:
        """Keep readers away from the queue, and the queue in bounds; called after each write.

        `characters` are those of all strings of the rows.
        """
        self._set_threshold(READERS_THRESHOLD)
        self._rows += rows
        self._characters += characters
        if self._rows >= self._load_threshold:
            self._check_first_flush()
        if self._characters > max(QUEUE_SIZE, QUEUE_SIZE_A_ROW * (self.records + self._rows)):
            self.flush()

    def flush(self) -> None:
        """Write all that is queued into the index files, so that the next reader opens at once.

        The engine flushes after a number of queued changes, so it gets changes that change nothing: 0.3 s of CPU at
        most, and next to none where the threshold equals the rows of the load. Opening the collection again with a
        lower threshold would put all queued rows into the index again, at up to 7 ms a row, and readers would see it.
        """
        self._index.require_space()
        try:
            self._queue_changes()
            self.records += self._rows  # at most: some may have replaced others
            self._rows = self._characters = 0
            self._check_first_flush()
        finally:
            # When the disk fills up during a flush, the engine writes a part without an error.
            self._index.require_space()
            self._index.check(self._target)

    def _queue_changes(self) -> None:
        """Queue changes that change nothing, until the engine flushes."""
        missing = self._load_threshold - self._rows % self._load_threshold
        # The second time for the whole of the threshold, where the engine counts in another way than we do.
        for rows in (missing, self._load_threshold):
            for start in range(0, rows, self._max_batch):
                if self._threshold is None or self._index.is_flushed() is not False:
                    return
                numbers = range(start, min(start + self._max_batch, rows))
                ids = [f"upsert-cli-flush-{number}" for number in numbers]
                unchanged: Any = [None] * len(ids)
                ask(self._target, self._chroma.update, ids=ids, metadatas=unchanged)

    def _check_first_flush(self) -> None:
        """Check that a reader did not disturb the first flush, once after it."""
        if not self._had_index and self._index.was_written():
            self._had_index = True
            if self._index.is_overwritten():
                self._write_again()

    def _write_again(self) -> None:
        """Make the engine write all of the index, over that of a reader.

        A program that reads a collection before its index was ever written makes an empty one. If that happens during
        the first flush, its files replace or cut ours (measured with 1.5.9). The engine has all vectors in its memory
        and writes those that changed, so each vector is replaced by itself.
        """
        import numpy as np

        self._index.require_space()
        for start in range(0, self.records + self._rows, REWRITTEN_ROWS):
            found = ask(self._target, self._chroma.get, limit=REWRITTEN_ROWS, offset=start, include=["embeddings"])
            if found["ids"]:
                vectors = np.asarray(found["embeddings"], dtype=np.float32)
                vectors = to_be_returned(vectors) if self._info.space == COSINE else vectors
                ask(self._target, self._chroma.update, ids=found["ids"], embeddings=vectors)
                self._rows += len(found["ids"])
        self._queue_changes()
        self._rows = self._characters = 0
        if self._index.is_overwritten():
            raise damaged(self._target, "another program wrote its index over the one of this load")

    def _set_threshold(self, threshold: int) -> None:
        if threshold == self._threshold or self._threshold is None:
            return
        # Once it is changed, chromadb builds the stored embedding function again, which may need a package or a key.
        with suppress(ValueError):
            ask(self._target, self._chroma.modify, configuration={"hnsw": {"sync_threshold": threshold}})
        self._threshold = threshold

    def _owe(self, threshold: int | None) -> None:
        if self._lease is not None:
            with understood(self._target):  # the disk of the lock file may be full
                self._lease.owe({self._target.collection: threshold})
