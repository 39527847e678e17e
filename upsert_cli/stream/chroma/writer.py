"""The parent's end of the writer's process: asks it, and deals with its death.

Chroma's engine holds the interpreter's lock for the whole of a write, may take seconds, and can end in a segmentation
fault on a damaged index. In a process of its own it overlaps with embedding, and its death is an error message.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from upsert_cli.errors import LocksUnsupported, TargetDamaged, UpsertCliError, WriterDied
from upsert_cli.stream.chroma import child
from upsert_cli.stream.chroma.place import place_of
from upsert_cli.stream.chroma.process import POLL_SECONDS, Died, Process
from upsert_cli.stream.chroma.requests import (
    Close,
    Compare,
    Delete,
    Fetch,
    FindLeftovers,
    Members,
    Query,
    ReadBack,
    Request,
    Write,
)
from upsert_cli.stream.chroma.rows import (
    Block,
    Comparison,
    Hit,
    Leased,
    Member,
    MembersPage,
    Opened,
    Rows,
    Stored,
    Target,
)
from upsert_cli.stream.isolation import failing_rows

if TYPE_CHECKING:
    from upsert_cli.stream.chroma.rows import Vectors

CALL_ROWS = 512  # rows a request, which nothing interrupts: 3.6 s of CPU where all replace others, else 1.3 s
TRIES = 3  # tries of one call; a process that dies is started again in between
TRIES_ALONE = 2  # tries of one row before it is blamed; one death might be by another hand
MAX_DEATHS = 32  # in one write; a row that kills is found after 13, and beyond this no row is to blame
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the process at an early end; CI systems grant 7.5 s in all
_CRASHES = {-getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")}


class WriterAbandoned(Exception):
    """Raised by calls on a writer that was given up."""


class Writer:
    """A collection that is open for writing in another process.

    Calls may come from several threads; one at a time is carried out. A call that waits on the main thread calls the
    `wait` hook meanwhile. If the hook raises while an answer is due, the writer is abandoned: what is being written or
    flushed is finished, but nobody learns of it.
    """

    def __init__(
        self, start: child.Start, *, verbose: bool, wait: Callable[[], None], told: Callable[[str], None]
    ) -> None:
        """Starts nothing yet; use `start`."""
        self._start = start
        self._told = told
        self._verbose = verbose
        self._wait = wait
        self._turn = threading.Lock()  # held by the caller whose request is being carried out
        self._state = threading.Lock()  # held for moments, since `abandon` does not wait for its turn
        self._abandoned = False
        self._process: Process | None = None
        self._leased: Leased | None = None
        self._opened: Opened | None = None
        self._deaths = 0
        self._failed_starts = 0  # deaths, one after the other, before the collection was open
        self.seconds = {"comparing": 0.0, "writing": 0.0}
        """Wall seconds that the process was busy with calls of a kind; callers' waiting for their turn is none."""

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Hangs up on the process where anything went wrong."""
        if kind is not None:
            self.abandon()
            self.await_end(LAST_WRITE_SECONDS)

    @classmethod
    def start(
        cls,
        target: Target,
        *,
        task_id: str | None = None,
        rows: int | None = None,
        verbose: bool = False,
        lease_timeout: float = 0.0,
        wait: Callable[[], None] = lambda: None,
        told: Callable[[str], None] = lambda _: None,
        serve: child.Serve = child.serve,
    ) -> Writer:
        """Starts the process and returns at once; `opened` waits for it.

        Args:
            target: What to open.
            task_id: Told to others who want the folder.
            rows: How many are going to be written at most; None: not known.
            verbose: Whether the process may write to standard error.
            lease_timeout: Seconds to wait for another holder of the folder.
            wait: Called every `POLL_SECONDS` or so while the main thread waits; may raise to give up.
            told: Hears, in the thread of the caller, what is tried again.
            serve: What the process does; a function that can be imported.

        Raises:
            LocksUnsupported: The system cannot keep signals and other writers away.
        """
        if not hasattr(signal, "pthread_sigmask"):
            raise LocksUnsupported(path=target.path)
        start = child.Start(
            target=target,
            place=place_of(target),
            task_id=task_id,
            rows=rows,
            lease_timeout=lease_timeout,
            serve=serve,
        )
        writer = cls(start, verbose=verbose, wait=wait, told=told)
        writer._spawn()
        return writer

    def helper(self, *, told: Callable[[str], None]) -> Writer:
        """Starts another writer to the same collection on a server; this one is open, has the lease and outlives it."""
        target = replace(self._start.target, as_found=True, beside_others=True)
        return Writer.start(target, task_id=self._start.task_id, verbose=self._verbose, wait=self._wait, told=told)

    @property
    def pid(self) -> int | None:
        """The process that writes now, if there is one."""
        return self._process.pid if self._process is not None else None

    def leased(self) -> Leased:
        """Waits until the folder is this writer's alone; to open the collection then takes a moment more.

        Raises:
            TargetInUse: Another upsert-cli has the folder.
            TargetBusy: Another program writes to it.
            UpsertCliError: Whatever else keeps the process from getting so far.
        """
        with self._my_turn():
            return self._lease()

    def opened(self) -> Opened:
        """Waits until the collection is open, and tells what it is like.

        Raises:
            TargetInUse: Another upsert-cli has the folder.
            TargetBusy: Another program writes to it.
            TargetDamaged: The index cannot be read, or reading it ends the process.
            UpsertCliError: Whatever else keeps Chroma from opening it.
        """
        with self._my_turn():
            return self._open()

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Tells what has to be done about each document; see `Records.compare`."""
        with self._my_turn(), self._last_death(), self._timed("comparing"):
            comparison: Comparison = self._ask(Compare(ids=ids, hashes=hashes, keys=keys), tries=TRIES)
            return comparison

    def write(
        self, upserts: Rows, updates: Rows, *, between: Callable[[], None] = lambda: None
    ) -> list[tuple[str, str]]:
        """Writes all rows but those that are at fault themselves, as `Records.write` does.

        A row that ends the process is found by halving, and is at fault as well.

        Args:
            upserts: Records that are new or whose text changed.
            updates: Records of which only the metadata changed.
            between: Called after each `CALL_ROWS` rows but the last; may raise to leave the others unwritten.
        """
        updates = replace(updates, texts=[])
        places = range(len(upserts.ids) + len(updates.ids))
        refused: list[tuple[str, str]] = []
        with self._my_turn(), self._last_death(), self._timed("writing"):
            for start in range(0, len(places), CALL_ROWS):
                if start:
                    between()
                refused += self._write_part(_part_of(upserts, updates, places[start : start + CALL_ROWS]))
        return refused

    def _write_part(self, rows: Write) -> list[tuple[str, str]]:
        ids = [*rows.upserts.ids, *rows.updates.ids]
        refused: list[tuple[str, str]] = []

        def write(part: Sequence[int]) -> None:
            tries = TRIES if len(part) == len(ids) else TRIES_ALONE if len(part) == 1 else 1
            refused.extend(self._ask(_part_of(rows.upserts, rows.updates, part), tries=tries))

        self._deaths = 0
        failing = failing_rows(range(len(ids)), write, is_data_fault=self._may_blame_a_row)
        refused += [(ids[place], f"the process that writes it ends by {death}") for place, death in failing]
        return refused

    def leftovers(self, parts: Mapping[str, int], *, average: bool) -> dict[str, list[Member]]:
        """Returns the records that some items have no longer; see `Records.leftovers`."""
        with self._my_turn(), self._last_death(), self._timed("comparing"):
            found: dict[str, list[Member]] = self._ask(FindLeftovers(parts=parts, average=average), tries=TRIES)
            return found

    def read_back(self, *, start: int, rows: int, every: int, identity: str | None) -> Block:
        """Tells what is wrong with a run of records; see `Records.read_back`.

        Raises:
            TargetDamaged: Reading them ends the process, or the index cannot be read at all.
        """
        return cast("Block", self._read(ReadBack(start=start, rows=rows, every=every, identity=identity)))

    def fetch(self, ids: list[str] | None = None, *, start: int = 0, rows: int = 0) -> list[Stored]:
        """Returns documents and metadata; see `Records.fetch`."""
        with self._my_turn(), self._last_death():
            stored: list[Stored] = self._ask(Fetch(ids=ids, start=start, rows=rows), tries=TRIES)
            return stored

    def members(self, scope: str, *, start: int, rows: int) -> MembersPage:
        """Returns the records of a scope among a run of records; see `Records.members`."""
        with self._my_turn(), self._last_death():
            page: MembersPage = self._ask(Members(scope=scope, start=start, rows=rows), tries=TRIES)
            return page

    def delete(self, members: Sequence[Member]) -> list[str]:
        """Deletes at most `CALL_ROWS` records, and returns the ids of those that changed; see `Records.delete`."""
        with self._my_turn(), self._last_death():
            changed: list[str] = self._ask(Delete(members=list(members)), tries=TRIES)
            return changed

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[Hit]:
        """Returns the records nearest to a vector; see `Records.query`."""
        return cast("list[Hit]", self._read(Query(vector=vector, rows=rows, where=where)))

    def _read(self, request: Request) -> Any:
        """Carries out a request that reads the index.

        Raises:
            TargetDamaged: It ends the process.
        """
        with self._my_turn(), self._last_death():
            try:
                return self._ask(request, tries=TRIES_ALONE)
            except Died as death:
                raise self._cannot_open(death) from death

    def close(self) -> None:
        """Flushes the index, and waits for the process to end: the folder is free then."""
        with self._my_turn(), self._last_death():
            self._ask(Close(), tries=TRIES)
            if self._process is not None:
                with suppress(subprocess.TimeoutExpired):  # the folder is free already
                    self._process.join(self._look_around)

    def abandon(self) -> None:
        """Hangs up, without waiting: the process finishes the write in flight, does not flush, and ends."""
        with self._state:
            self._abandoned = True
            if self._process is not None:
                self._process.hang_up()

    def await_end(self, seconds: float) -> None:
        """Waits a while for an abandoned process, so that the folder is free for whoever comes next."""
        if self._process is not None:
            self._process.await_end(seconds)

    # -- the process ----------------------------------------------------------------------------------------------

    def _ask(self, request: Request, *, tries: int) -> Any:
        """Carries out a request in a process that is started again, up to a number of tries, when it dies.

        Raises:
            Died: It died each time.
        """
        left = tries
        while True:
            left -= 1
            self._open()
            try:
                return self._answer(lambda process: process.ask(request, self._look_around))
            except Died:
                self._deaths += 1
                if not left:
                    raise

    def _lease(self) -> Leased:
        while self._leased is None:
            self._begin()
        return self._leased

    def _open(self) -> Opened:
        while self._opened is None:
            self._begin()
        return self._opened

    def _begin(self) -> None:
        """Takes what the process says next of its beginning: that it has the lease, or that the collection is open."""
        try:
            said = self._answer(lambda process: process.receive(self._look_around))
        except Died as death:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                self._failed_starts = 0
                raise self._cannot_open(death) from death
            return
        if isinstance(said, Leased):
            self._leased = said
        else:
            self._opened = said
            self._failed_starts = 0

    def _answer(self, get: Callable[[Process], child.Answer]) -> Any:
        process = self._process or self._spawn()
        if self._abandoned:
            raise WriterAbandoned
        try:
            answer = get(process)
        except Died as death:
            self._process = self._leased = self._opened = None
            if self._abandoned:
                raise WriterAbandoned from death
            raise
        except BaseException:
            self.abandon()  # an answer may still come, and nobody would know to which request
            raise
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _spawn(self) -> Process:
        with self._state:
            if self._abandoned:
                raise WriterAbandoned
            self._process = Process(self._start, verbose=self._verbose, told=self._told)
            return self._process

    def _look_around(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._wait()

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        while not self._turn.acquire(timeout=POLL_SECONDS):
            self._look_around()
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[kind] += time.monotonic() - began

    # -- its death ------------------------------------------------------------------------------------------------

    def _may_blame_a_row(self, error: BaseException) -> bool:
        return isinstance(error, Died) and self._deaths < MAX_DEATHS

    @contextmanager
    def _last_death(self) -> Iterator[None]:
        try:
            yield
        except Died as death:
            raise self._died(death) from death

    def _cannot_open(self, death: Died) -> UpsertCliError:
        if death.status not in _CRASHES:
            return self._died(death)
        target = self._start.target
        return TargetDamaged(
            path=target.path, collection=target.collection, detail=f"reading it ends the process by {death}"
        )

    def _died(self, death: Died) -> WriterDied:
        target = self._start.target
        return WriterDied(path=target.path, collection=target.collection, how=str(death))


def _part_of(upserts: Rows, updates: Rows, places: Sequence[int]) -> Write:
    """Returns the request for some rows, counted through both."""
    border = len(upserts.ids)
    if len(places) == border + len(updates.ids):
        return Write(upserts=upserts, updates=updates)
    return Write(
        upserts=upserts.take([place for place in places if place < border]),
        updates=updates.take([place - border for place in places if place >= border]),
    )
