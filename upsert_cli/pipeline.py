"""Runs one task: joins the stages of the stream, writes the journal, honours signals and cancel.

For every window, and in this order: read, compare, embed, write; then rejects, then the checkpoint. The journal may lag
behind the collection, never lead it, and repeating a window changes nothing, so a crash anywhere is harmless.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from upsert_cli import __version__
from upsert_cli.errors import Canceled, CountsDoNotReconcile, Refusal, Stage, TooManyFailures, UpsertCliError
from upsert_cli.journal.journal import Claim, Journal
from upsert_cli.journal.leases import Checkpoint
from upsert_cli.journal.rejects import RejectsFile
from upsert_cli.journal.tasks import FAILED_ITEMS, Counts, Task, TaskStatus, utc_now
from upsert_cli.models import DEFAULT_MODEL, Model, find_model
from upsert_cli.request import Options
from upsert_cli.stopping import Stopping
from upsert_cli.stream.ahead import run_ahead
from upsert_cli.stream.documents import Recipe
from upsert_cli.stream.items import START, Position, Reject
from upsert_cli.stream.records import Comparison, Rows, Target, Verdict
from upsert_cli.stream.sources import Source
from upsert_cli.stream.vectors import Embedded, FastEmbedder, Plan, embed_windows, usable_threads
from upsert_cli.stream.windows import Pace, Window, read_windows
from upsert_cli.stream.writer import Writer

if TYPE_CHECKING:
    from upsert_cli.stream.vectors import Vectors

RUN_AHEAD = 2  # windows that wait between two stages; bounds memory, and more gains nothing
PULSE_SECONDS = 0.1  # seconds between two looks at the progress
LEASE_SECONDS = 15.0  # seconds that a restart waits for its own dead runner's last write (design: at most one write)
PERCENT_ROWS = 100  # rows before `--max-failures N%` is looked at; before that a percentage says little


@dataclass(slots=True)
class Progress:
    """How far a task is; read by the display while the stages count."""

    total: int | None
    read: int = 0
    embedded: int = 0
    written: int = 0
    counts: Counts = field(default_factory=Counts)
    stage: str = "starting"


class Observer(Protocol):
    """Who wants to know what a running task does; called by the main thread only."""

    def started(self, task: Task) -> None:
        """The task is being processed from now on."""

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second has passed, or a window was settled."""

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Items went into the rejects file."""

    def told(self, message: str) -> None:
        """A step that takes long begins."""

    def noted(self, message: str) -> None:
        """Something that the user should know although the work goes on."""

    def killed(self) -> None:
        """A second signal: the process ends at once. Called inside a signal handler."""


def run_task(journal: Journal, claim: Claim, task: Task, *, observer: Observer) -> Task:
    """Runs a task from its checkpoint to its end and returns it as it is then.

    Raises:
        Interrupted: A signal stopped it; what was written is checkpointed.
        Canceled: Another process asked for it.
        UpsertCliError: It failed or was refused; the task's record says so as well.
    """
    task = journal.change(
        task.id,
        TaskStatus.PROCESSING,
        expect=(TaskStatus.PENDING,),
        started_at=utc_now(),
        detail=None,
        failed_items=(),
    )
    observer.started(task)
    stopping = Stopping(task.id, cancel_requested=claim.cancel_requested, kill=observer.killed)
    attempt = _Attempt(journal, claim, task, observer, stopping)
    try:
        with stopping.signals():
            attempt.run()
            # Inside, so that a signal cannot come between the last row and the word that the task is done.
            return attempt.finish(TaskStatus.DONE, None)
    except Canceled as error:
        attempt.finish(TaskStatus.CANCELED, str(error))
        raise
    except Refusal as error:
        attempt.finish(TaskStatus.REFUSED, str(error))
        raise
    except UpsertCliError as error:
        attempt.finish(TaskStatus.FAILED, str(error))
        raise
    except BaseException as error:
        attempt.finish(TaskStatus.FAILED, f"unexpected {type(error).__name__}: {error}")
        raise


class _Attempt:
    """One attempt at a task: what it has settled so far, and the way there."""

    def __init__(self, journal: Journal, claim: Claim, task: Task, observer: Observer, stopping: Stopping) -> None:
        self._claim = claim
        self._task = task
        self._observer = observer
        self._stopping = stopping
        self._options = Options.from_json(task.options)
        self._checkpoint = claim.checkpoint() or Checkpoint.at_start(START.as_json())
        self._rejects_path = journal.rejects_path(task.id)
        self._progress = Progress(
            total=task.total,
            read=self._checkpoint.rows,
            embedded=self._checkpoint.rows,
            written=self._checkpoint.rows,
            counts=self._checkpoint.counts,
        )
        self._pace = Pace(self._options.batch_size)
        self._ending = threading.Event()
        self._in_flight = _InFlight()
        self._writing = False
        self._next_pulse = 0.0

    def run(self) -> None:
        """Loads everything from the checkpoint on."""
        sources = [Source.from_json(value) for value in self._task.inputs]
        for source in sources:
            source.check_unchanged()
        model = find_model(
            self._task.model,
            folder=self._options.model_folder,
            offline=self._options.offline,
            report=self._observer.told,
        )
        with abandoned_on_error(self._start_writer(model)) as writer:
            opened = writer.opened()
            for warning in opened.warnings:
                self._observer.noted(warning)
            self._progress.stage = "loading"
            with (
                RejectsFile.open_at(self._rejects_path, self._checkpoint.rejects_bytes) as rejects,
                closing(self._stream(sources, model, writer)) as stream,
            ):
                for embedded in stream:
                    self._settle(embedded, writer, rejects)
            self._progress.stage = "flushing"
            self._writing = True
            writer.close()
        self._check_failures(settled=0)
        for source in sources:
            if (change := source.change()) is not None:
                self._observer.noted(f"{source.name} changed while it was being read ({change}); load it again")
        if not self._checkpoint.counts.reconciles():
            raise CountsDoNotReconcile(task_id=self._task.id, counts=self._checkpoint.counts.as_json())

    def finish(self, status: TaskStatus, detail: str | None) -> Task:
        """Writes how the attempt ended into the task's record."""
        failed = tuple(RejectsFile.read(self._rejects_path, limit=FAILED_ITEMS, length=self._checkpoint.rejects_bytes))
        return self._claim.finish(status, detail=detail, failed_items=failed, checkpoint=self._checkpoint)

    # -- the stages -----------------------------------------------------------------------------------------------

    def _start_writer(self, model: Model) -> Writer:
        target = Target(
            path=self._task.chroma,
            collection=self._task.collection,
            model=model.name,
            dimension=model.dimension,
            max_tokens=model.max_tokens,
            tool_version=__version__,
            default_model=model.name == DEFAULT_MODEL,
        )
        return Writer.start(
            target,
            task_id=self._task.id,
            verbose=self._options.verbose,
            lease_timeout=LEASE_SECONDS if self._task.attempt > 1 else 0.0,
            wait=self._wait,
        )

    def _stream(self, sources: Sequence[Source], model: Model, writer: Writer) -> Generator[Embedded, None, None]:
        recipe = Recipe(text_fields=self._options.text_fields, identity=model.identity)
        start = Position.from_json(self._checkpoint.position)
        windows = read_windows(sources, start=start, id_field=self._options.id_field, recipe=recipe, pace=self._pace)
        ahead = run_ahead(self._counted_in(windows), depth=RUN_AHEAD, ending=self._ending)
        plans = run_ahead(self._compare(ahead, writer), depth=RUN_AHEAD, ending=self._ending)
        embedded = embed_windows(
            plans,
            load=lambda: FastEmbedder(model.name, model.folder, dimension=model.dimension, max_tokens=model.max_tokens),
            threads=self._options.threads or usable_threads(),
            ending=self._ending,
            clock=time.monotonic,
        )
        return run_ahead(self._counted_on(embedded), depth=1, ending=self._ending, wait=self._wait)

    def _counted_in(self, windows: Iterator[Window]) -> Iterator[Window]:
        for window in windows:
            self._progress.read += window.read
            yield window

    def _counted_on(self, windows: Iterator[Embedded]) -> Iterator[Embedded]:
        for embedded in windows:
            self._progress.embedded += embedded.window.read
            yield embedded

    def _compare(self, windows: Iterator[Window], writer: Writer) -> Iterator[Plan]:
        for window in windows:
            ids = [document.id for document in window.documents]
            # An id that is still on its way to the collection would be compared with what it is about to replace.
            if not self._in_flight.enter(window.number, ids, self._ending):
                return
            comparison = writer.compare(
                ids,
                [document.upsert_hash for document in window.documents],
                [tuple(document.metadata) for document in window.documents],
            )
            yield Plan(window=window, comparison=forced(comparison) if self._options.force else comparison)

    # -- settling a window ----------------------------------------------------------------------------------------

    def _settle(self, embedded: Embedded, writer: Writer, rejects: RejectsFile) -> None:
        self._stopping.check()  # what is not yet being written is dropped
        began = time.monotonic()
        refused = self._write(embedded, writer)
        window = embedded.window
        failed = [*window.rejects, *embedded.rejects, *refused]
        records = [reject.as_json() for reject in sorted(failed, key=lambda reject: reject.row)]
        outcome = _outcome(embedded, refused)
        self._checkpoint = Checkpoint(
            position=window.after.as_json(),
            rows=self._checkpoint.rows + window.read,
            counts=self._checkpoint.counts + outcome.counts,
            converted=self._checkpoint.converted + outcome.converted,
            rejects_bytes=rejects.append(records),
        )
        self._claim.save(self._checkpoint)
        self._in_flight.leave(window.number)
        self._pace.settled(window.read, max(embedded.seconds, time.monotonic() - began))
        self._progress.written = self._checkpoint.rows
        self._progress.counts = self._checkpoint.counts
        if records:
            self._observer.rejected(records)
        self._observer.progressed(self._progress)
        self._check_failures()

    def _write(self, embedded: Embedded, writer: Writer) -> list[Reject]:
        documents = embedded.window.documents
        updates = [row for row, verdict in enumerate(embedded.comparison.verdicts) if verdict is Verdict.METADATA]
        if not embedded.rows and not updates:
            return []
        self._writing = True  # a write in flight ends before anything else does
        try:
            refused = dict(
                writer.write(
                    rows_of(embedded, embedded.rows, vectors=embedded.vectors),
                    rows_of(embedded, updates, vectors=None),
                )
            )
        finally:
            self._writing = False
        return [
            Reject.of(document.item, stage=Stage.UPSERT, detail=refused[document.id])
            for document in documents
            if document.id in refused
        ]

    def _check_failures(self, *, settled: int = PERCENT_ROWS) -> None:
        counts = self._checkpoint.counts
        if self._options.exceeds_max_failures(counts.failed, counts.read, settled=settled):
            raise TooManyFailures(
                task_id=self._task.id, failed=counts.failed, read=counts.read, limit=str(self._options.max_failures)
            )

    # -- waiting --------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Is called in all waits of the main thread; ends them when the task should stop and nothing is in flight."""
        if time.monotonic() >= self._next_pulse:
            self._next_pulse = time.monotonic() + PULSE_SECONDS
            self._observer.progressed(self._progress)
        if not self._writing:
            self._stopping.check()


class _InFlight:
    """The ids of the windows between their comparison and their checkpoint."""

    def __init__(self) -> None:
        self._ids: dict[int, frozenset[str]] = {}
        self._changed = threading.Condition()

    def enter(self, number: int, ids: Sequence[str], ending: threading.Event) -> bool:
        """Waits until no window in flight shares an id, then adds this one; False when the stream ends instead."""
        entering = frozenset(ids)
        with self._changed:
            while not ending.is_set():
                if all(entering.isdisjoint(other) for other in self._ids.values()):
                    self._ids[number] = entering
                    return True
                self._changed.wait(PULSE_SECONDS)
        return False

    def leave(self, number: int) -> None:
        with self._changed:
            del self._ids[number]
            self._changed.notify_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of one window."""

    counts: Counts
    converted: int


def _outcome(embedded: Embedded, refused: Sequence[Reject]) -> _Outcome:
    window = embedded.window
    lost = {reject.object_id for reject in (*embedded.rejects, *refused)}
    kept = [
        (document, verdict)
        for document, verdict in zip(window.documents, embedded.comparison.verdicts, strict=True)
        if document.id not in lost
    ]
    verdicts = [verdict for _, verdict in kept]
    inserted, unchanged = verdicts.count(Verdict.NEW), verdicts.count(Verdict.UNCHANGED)
    return _Outcome(
        counts=Counts(
            read=window.read,
            inserted=inserted,
            updated=len(kept) - inserted - unchanged,
            unchanged=unchanged,
            duplicate=window.duplicate,
            failed=len(window.rejects) + len(embedded.rejects) + len(refused),
            truncated=embedded.truncated,
        ),
        converted=sum(document.converted for document, verdict in kept if verdict is not Verdict.UNCHANGED),
    )


def forced(comparison: Comparison) -> Comparison:
    """Returns a comparison by which everything is written again."""
    verdicts = [Verdict.NEW if verdict is Verdict.NEW else Verdict.TEXT for verdict in comparison.verdicts]
    return replace(comparison, verdicts=verdicts)


def rows_of(embedded: Embedded, places: Sequence[int], *, vectors: Vectors | None) -> Rows:
    """Returns some of a window's documents as they are written."""
    documents = [embedded.window.documents[place] for place in places]
    stale = [embedded.comparison.stale_keys[place] for place in places]
    return Rows(
        ids=[document.id for document in documents],
        texts=[document.text for document in documents],
        # Chroma merges metadata; a value of None takes a key away that the item no longer has.
        metadatas=[document.metadata | dict.fromkeys(keys) for document, keys in zip(documents, stale, strict=True)],
        vectors=vectors,
    )


@contextmanager
def abandoned_on_error(writer: Writer) -> Iterator[Writer]:
    """Hangs up on the writer's process when anything goes wrong."""
    try:
        yield writer
    except BaseException:
        writer.abandon()
        raise
