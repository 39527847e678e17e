"""A store in a child process: each call is a message to it.

Chroma's engine holds the interpreter's lock during a write, which may take seconds, and a damaged index can end it in a
segmentation fault. In a child process it works while texts are embedded, and its death is an error message.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.context import RunContext
from upsert_cli.documents.hashing import is_same
from upsert_cli.store.base import Comparison, RecordRef, Store, Verdict, WriteBatch
from upsert_cli.store.child import Start
from upsert_cli.store.child_process import TRIES, ChildProcess, ProcessDied
from upsert_cli.store.locate import location_of
from upsert_cli.store.location import Location
from upsert_cli.store.target import Target

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CALL_ROWS = 512  # rows a call, which nothing interrupts: 3.6 s of CPU where all replace others, else 1.3 s
TRIES_ALONE = 2  # tries of one row before it is blamed; one death might have another cause
MAX_DEATHS = 32  # of processes in one write; a deadly row is found after 13, and beyond this no row is to blame
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the process at an early end; CI systems grant 7.5 s in all


def _in_child(
    method: Callable[Concatenate[Store, P], R], *, tries: int = TRIES, reads_index: bool = False
) -> Callable[Concatenate[StoreProcess, P], R]:
    """Return a method that calls a method of the store in the child; see `base.Store`.

    Args:
        method: The method of the store.
        tries: How many processes may die of a call.
        reads_index: Whether their death means that the index is damaged.
    """

    def call(self: StoreProcess, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return cast("R", self.ask(method.__name__, *args, tries=tries, **kwargs))
        except ProcessDied as death:
            if reads_index:
                raise death.while_reading() from death
            raise

    return call


class StoreProcess(ChildProcess):
    """A `Store` in a child process; as a context manager it is closed in the end, or abandoned after an error.

    Calls that read the index raise `TargetDamaged` if they end the process.
    """

    may_have_chunks = _in_child(Store.may_have_chunks)
    fetch = _in_child(Store.fetch)
    members = _in_child(Store.members)
    vectors = _in_child(Store.vectors, tries=TRIES_ALONE, reads_index=True)
    check = _in_child(Store.check, tries=TRIES_ALONE, reads_index=True)
    query = _in_child(Store.query, tries=TRIES_ALONE, reads_index=True)
    rename = _in_child(Store.rename, tries=1)
    drop = _in_child(Store.drop, tries=1)  # a second try would not find it any more
    _compare = _in_child(Store.compare)
    _find_stale_chunks = _in_child(Store.find_stale_chunks)
    _delete = _in_child(Store.delete)

    def __init__(
        self,
        target: Target,
        *,
        task_id: str | None = None,
        verbose: bool = False,
        lease_timeout: float = 0.0,
        context: RunContext | None = None,
        location: Location | None = None,
    ) -> None:
        """Start the process and return at once; `opened` waits for it.

        Args:
            target: The collection to open.
            task_id: The task, for messages to those who wait for the lease.
            verbose: Whether the process may write to standard error.
            lease_timeout: Seconds to wait for another holder of the lease.
            context: Checked in the waits of the main thread; receives messages about retries.
            location: The location of the target, if it is already known.
        """
        location = location or location_of(target)
        start = Start(target=target, location=location, task_id=task_id, lease_timeout=lease_timeout)
        super().__init__(start, verbose=verbose, context=context or RunContext())
        self._has_chunks: bool | None = None  # None: not yet known
        self._closed = False

    def helper(self) -> StoreProcess:
        """Start another writer to a server's collection, while this process has it open and holds the lease."""
        target = replace(self._start.target, as_found=True, beside_others=True, rows=None)
        return StoreProcess(target, task_id=self._start.task_id, verbose=self._verbose, context=self._context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()
            self.await_end(LAST_WRITE_SECONDS)

    def compare(self, ids: list[str], hashes: list[str], *, with_keys: bool = False) -> Comparison:
        """Compare documents with their records; the child is asked only about records that may have changed.

        With `with_keys` it is asked about all records, and returns the metadata keys of unchanged ones too.
        """
        wanted = dict(zip(ids, hashes, strict=True))
        if with_keys or len(wanted) < len(ids):
            return self._compare(ids, hashes)
        changed = {one: had for one, had in self._changed_hashes(wanted).items() if not is_same(had, wanted[one])}
        if len(changed) == len(ids):
            return self._compare(ids, hashes)
        verdicts = [Verdict.UNCHANGED] * len(ids)
        if not changed:
            return Comparison(verdicts=verdicts)
        rest = [row for row, one in enumerate(ids) if one in changed]
        answer = self._compare([ids[row] for row in rest], [hashes[row] for row in rest])
        for row, verdict in zip(rest, answer.verdicts, strict=True):
            verdicts[row] = verdict
        return Comparison(verdicts=verdicts, stored_keys={rest[at]: keys for at, keys in answer.stored_keys.items()})

    def _changed_hashes(self, hashes: Mapping[str, str]) -> Mapping[str, str]:
        """Read the hashes in this process, while the child has the lease and is idle; see `Location.changed_hashes`."""
        with self._working("compare"):
            self._await_opened()
            has_lease = self._is_empty is not None
            return self._start.location.changed_hashes(hashes) if has_lease else dict.fromkeys(hashes, "")

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Return the records that are no longer part of their items; a collection without chunks is not searched."""
        if any(chunks.values()):
            self._has_chunks = True
        elif self._has_chunks is None:
            self._has_chunks = self.may_have_chunks()
        return self._find_stale_chunks(chunks, average=average) if self._has_chunks else {}

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves, `CALL_ROWS` at a time.

        A row that ends the process is found by bisecting, and is refused too. The context is checked between two calls;
        if it raises, the rest is not written.
        """
        refused: list[tuple[str, str]] = []
        most_deaths = self.deaths + MAX_DEATHS

        def may_blame_a_row(error: BaseException) -> bool:
            return isinstance(error, ProcessDied) and self.deaths < most_deaths

        for part in self._parts(range(len(batch.ids))):
            write = functools.partial(self._write, batch, refused, whole=len(part))
            deadly = failing_rows(part, write, is_data_fault=may_blame_a_row)
            refused += [
                (batch.ids[row], f"the process that writes it ends by {death.how}")
                for row, death in deadly
                if isinstance(death, ProcessDied)
            ]
        return refused

    def _write(self, batch: WriteBatch, refused: list[tuple[str, str]], rows: Sequence[int], *, whole: int) -> None:
        """Write some rows in one call, and add those that are refused; `whole` is the size of the first call."""
        tries = TRIES if len(rows) == whole else TRIES_ALONE if len(rows) == 1 else 1
        refused += self.ask("write", batch.take(rows), tries=tries)

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed, `CALL_ROWS` at a time; the context is checked between two calls."""
        return [one for part in self._parts(members) for one in self._delete(part)]

    def close(self) -> None:
        """Flush the index, and wait for the process to end: the folder is then free."""
        if not self._closed:
            self.ask("close")
            self._closed = True
            self.await_end()

    def _parts(self, rows: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yield the rows `CALL_ROWS` at a time, and check the context in between."""
        for start in range(0, len(rows), CALL_ROWS):
            if start:
                self._context.check()
            yield rows[start : start + CALL_ROWS]


@contextmanager
def open_as_found(
    target: Target, *, context: RunContext, task_id: str | None = None, location: Location | None = None
) -> Iterator[StoreProcess]:
    """Yield an existing collection, which is closed at the end; warn if a write upgrades its folder."""
    with StoreProcess(target, task_id=task_id, context=context, location=location) as store:
        if not target.reads_only and (warning := store.opened().upgrade) is not None:
            context.warning(warning)
        yield store
