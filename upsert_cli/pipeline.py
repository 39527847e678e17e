"""Runs one task: joins the stages of the stream, writes the journal, honours signals and cancel.

For every window, and in this order: read, compare, embed, write; then rejects, then the checkpoint. The journal may lag
behind the collection, never lead it, and repeating a window changes nothing, so a crash anywhere is harmless.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from upsert_cli import __version__
from upsert_cli.errors import (
    Canceled,
    CountsDoNotReconcile,
    Interrupted,
    JournalDamaged,
    Refusal,
    RejectsLost,
    SourceCutShort,
    Stage,
    StoppedMidway,
    TooManyFailures,
    UpsertCliError,
    WrongStatus,
)
from upsert_cli.journal.journal import Claim, Journal
from upsert_cli.journal.leases import Checkpoint
from upsert_cli.journal.rejects import RejectsFile
from upsert_cli.journal.tasks import FAILED_ITEMS, Counts, Task, TaskStatus, utc_now
from upsert_cli.models import DEFAULT_MODEL, Model, find_model
from upsert_cli.redaction import without_secrets
from upsert_cli.request import Options
from upsert_cli.stopping import Stopping
from upsert_cli.stream.ahead import run_ahead
from upsert_cli.stream.documents import Recipe
from upsert_cli.stream.embedder import FastEmbedder, usable_threads
from upsert_cli.stream.folder import holder_of
from upsert_cli.stream.items import START, Position, Reject
from upsert_cli.stream.plans import InFlight, compare_windows
from upsert_cli.stream.rows import Target, Verdict
from upsert_cli.stream.sources import Source
from upsert_cli.stream.vectors import Embedded, embed_windows
from upsert_cli.stream.windows import Pace, Window, read_windows
from upsert_cli.stream.writer import Writer

RUN_AHEAD = 2  # windows that wait between two stages; bounds memory, and more gains nothing
PULSE_SECONDS = 0.1  # seconds between two looks at the progress
LEASE_SECONDS = 15.0  # seconds that a restart waits for its own dead runner's last write (design: at most one write)
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the writer at an early end; CI systems grant 7.5 s in all
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


def run_task(journal: Journal, claim: Claim, task: Task, *, observer: Observer, wait_until: float = -math.inf) -> Task:
    """Runs a task from its checkpoint to its end and returns it as it is then.

    Args:
        journal: Where the task is kept.
        claim: The right to run it.
        task: A pending one.
        observer: Told how it goes.
        wait_until: Monotonic seconds at which waiting for another task that has the target's folder ends in a refusal.

    Raises:
        Interrupted: A signal stopped it; what was written is checkpointed.
        Canceled: Another process asked for it.
        UpsertCliError: It failed or was refused; the task's record says so as well.
    """
    try:
        task = journal.change(
            task.id,
            TaskStatus.PROCESSING,
            expect=(TaskStatus.PENDING,),
            started_at=utc_now(),
            detail=None,
            failed_items=(),
        )
    except WrongStatus as error:
        if error.status == TaskStatus.CANCELED:  # in the moment before it was begun
            raise Canceled(task_id=task.id) from error
        raise
    stopping = Stopping(task.id, cancel_requested=claim.cancel_requested, kill=observer.killed)
    with stopping.signals():
        attempt = _Attempt(journal, claim, task, observer, stopping, wait_until=wait_until)
        try:
            observer.started(task)
            attempt.run()
            task = attempt.finish(TaskStatus.DONE, None)
        except BaseException as error:
            reason = attempt.reason_of(error)
            attempt.finish_after(reason)
            if reason is error:
                raise
            raise reason from error
        if isinstance(stopping.reason, Interrupted):
            # It came too late to stop anything, but who sent it wants this process to die by it.
            raise Interrupted(task_id=task.id, signal_number=stopping.reason.signal_number, done=True)
    return task


class _Attempt:
    """One attempt at a task: what it has settled so far, and the way there."""

    def __init__(
        self,
        journal: Journal,
        claim: Claim,
        task: Task,
        observer: Observer,
        stopping: Stopping,
        *,
        wait_until: float,
    ) -> None:
        self._claim = claim
        self._task = task
        self._observer = observer
        self._stopping = stopping
        self._wait_until = wait_until
        self._options = Options.from_json(task.options)
        self._checkpoint = claim.checkpoint() or Checkpoint.at_start(START.as_json())
        self._rejects_path = journal.rejects_path(task.id)
        self._retry_path = journal.retry_path(task.id)
        self._sources = [Source.from_json(value) for value in task.inputs]
        self._places = {source.name: place for place, source in enumerate(self._sources)}
        done = self._checkpoint.rows if self._checkpoint.retried is None else self._checkpoint.retried
        total = task.total if self._checkpoint.retried is None else RejectsFile.count(self._retry_path)
        self._progress = Progress(total=total, read=done, embedded=done, written=done, counts=self._checkpoint.counts)
        self._pace = Pace(self._options.batch_size)
        self._ending = threading.Event()
        self._in_flight = InFlight()
        self._writing = False
        self._next_pulse = 0.0
        self._rows_at_start = self._checkpoint.rows
        self._announced = False

    def run(self) -> None:
        """Loads everything from the checkpoint on."""
        if self._checkpoint.retried is not None and not self._retry_path.exists():
            raise RejectsLost(task_id=self._task.id, failed=self._checkpoint.counts.failed)
        for source in self._sources:
            source.check_unchanged()
        model = self._find_model()
        with abandoned_on_error(self._start_writer(model)) as writer:
            opened = writer.opened()
            for warning in opened.warnings:
                self._observer.noted(warning)
            self._progress.stage = "loading"
            with (
                RejectsFile.open_at(self._rejects_path, self._checkpoint.rejects_bytes) as rejects,
                closing(self._stream(model, writer)) as stream,
            ):
                for embedded in stream:
                    self._settle(embedded, writer, rejects)
            self._progress.stage = "flushing"
            self._writing = True
            writer.close()
        self._check_failures(settled=0)
        for source in self._sources:
            if (change := source.change()) is not None:
                if source.is_shorter():
                    raise SourceCutShort(name=source.name, how=change, task_id=self._task.id)
                self._observer.noted(f"{source.name} changed while it was being read ({change}); load it again")
        if not self._checkpoint.counts.reconciles():
            raise CountsDoNotReconcile(task_id=self._task.id, counts=self._checkpoint.counts.as_json())

    def finish(self, status: TaskStatus, detail: str | None) -> Task:
        """Writes how the attempt ended into the task's record."""
        return self._claim.finish(
            status, detail=detail, failed_items=self._first_rejects(), checkpoint=self._checkpoint
        )

    def reason_of(self, error: BaseException) -> BaseException:
        """Returns what the user should hear: a wish to stop explains whatever fails because of it."""
        if isinstance(self._stopping.reason, Interrupted):
            return self._stopping.reason
        if isinstance(error, Refusal) and self._checkpoint.rows > self._rows_at_start:
            return StoppedMidway(task_id=self._task.id, reason=str(error))
        return error

    def finish_after(self, error: BaseException) -> None:
        """Writes why the attempt ended into the task's record; where that fails too, the first error is what counts."""
        status = TaskStatus.FAILED
        if isinstance(error, Canceled):
            status = TaskStatus.CANCELED
        elif isinstance(error, Refusal):
            status = TaskStatus.REFUSED
        known = isinstance(error, UpsertCliError)
        try:
            detail = str(error) if known else f"unexpected {type(error).__name__}: {error}"
            self.finish(status, without_secrets(detail))
        except UpsertCliError as also:
            self._observer.noted(f"the end of the task could not be written down: {also}")

    def _first_rejects(self) -> tuple[dict[str, Any], ...]:
        found: list[dict[str, Any]] = []
        try:
            found.extend(
                RejectsFile.read(self._rejects_path, limit=FAILED_ITEMS, length=self._checkpoint.rejects_bytes)
            )
        except JournalDamaged as error:
            self._observer.noted(str(error))
        return tuple(found)

    def _find_model(self) -> Model:
        """Finds the model in a thread, since a fetch may take minutes and signals have to be seen."""

        def finding() -> Iterator[Model]:
            yield find_model(
                self._task.model,
                folder=self._options.model_folder,
                offline=self._options.offline,
                report=self._observer.told,
            )

        with closing(run_ahead(finding(), depth=1, ending=threading.Event(), wait=self._wait)) as found:
            return next(found)

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
            lease_timeout=self._lease_seconds(),
            wait=self._wait,
        )

    def _lease_seconds(self) -> float:
        """Returns how long the writer waits for the folder: for this task's own dead runner in any case."""
        holder = holder_of(Path(self._task.chroma))
        is_other = holder is not None and holder.task_id not in (None, self._task.id)
        least = LEASE_SECONDS if self._task.attempt > 1 and not is_other else 0.0
        seconds = max(least, self._wait_until - time.monotonic())
        if holder is not None and seconds > 0.0:
            self._observer.told(f"waiting for {self._task.chroma}, which is in use by {holder}")
        return seconds

    def _stream(self, model: Model, writer: Writer) -> Generator[Embedded, None, None]:
        recipe = Recipe(text_fields=self._options.text_fields, identity=model.identity)
        start = Position.from_json(self._checkpoint.position)
        windows = read_windows(
            self._sources,
            start=start,
            id_field=self._options.id_field,
            recipe=recipe,
            pace=self._pace,
            only=self._rows_to_retry(),
        )
        ahead = run_ahead(self._counted_in(windows), depth=RUN_AHEAD, ending=self._ending)
        plans = run_ahead(
            compare_windows(ahead, writer, in_flight=self._in_flight, force=self._options.force, ending=self._ending),
            depth=RUN_AHEAD,
            ending=self._ending,
        )
        embedded = embed_windows(
            plans,
            load=lambda: FastEmbedder(model.name, model.folder, dimension=model.dimension, max_tokens=model.max_tokens),
            threads=self._options.threads or usable_threads(),
            ending=self._ending,
            clock=time.monotonic,
        )
        return run_ahead(self._counted_on(embedded), depth=1, ending=self._ending, wait=self._wait)

    def _rows_to_retry(self) -> Iterator[tuple[str, int]] | None:
        """Returns source and row of the rejects that are still to be retried, or None to read every row."""
        if self._checkpoint.retried is None:
            return None
        rejects = RejectsFile.read(self._retry_path, limit=None, length=None)
        left = itertools.islice(rejects, self._checkpoint.retried, None)
        return ((record["source"], record["row"]) for record in left)

    def _counted_in(self, windows: Iterator[Window]) -> Iterator[Window]:
        for window in windows:
            self._progress.read += window.read
            yield window

    def _counted_on(self, windows: Iterator[Embedded]) -> Iterator[Embedded]:
        for embedded in windows:
            self._progress.embedded += embedded.window.read
            yield embedded

    # -- settling a window ----------------------------------------------------------------------------------------

    def _settle(self, embedded: Embedded, writer: Writer, rejects: RejectsFile) -> None:
        self._stopping.check()  # what is not yet being written is dropped
        began = time.monotonic()
        refused = self._write(embedded, writer)
        window = embedded.window
        failed = [*window.rejects, *embedded.rejects, *refused]
        # In the order of the rows, by which a retry finds them again.
        failed.sort(key=lambda reject: (self._places[reject.source], reject.row))
        records = [reject.as_json() for reject in failed]
        outcome = _outcome(embedded, refused)
        self._checkpoint = Checkpoint(
            position=window.after.as_json(),
            converted=self._checkpoint.converted + outcome.converted,
            rejects_bytes=rejects.append(records),
            **self._settled(window.read, outcome.counts),
        )
        self._claim.save(self._checkpoint)
        self._in_flight.leave(window.number)
        self._pace.settled(window.read, max(embedded.seconds, time.monotonic() - began))
        self._progress.written += window.read
        self._progress.counts = self._checkpoint.counts
        if records:
            self._observer.rejected(records)
        self._observer.progressed(self._progress)
        if self._checkpoint.retried is None:  # a retry begins with all failures that there were
            self._check_failures()

    def _settled(self, rows: int, counts: Counts) -> dict[str, Any]:
        before = self._checkpoint
        if before.retried is None:
            return {"rows": before.rows + rows, "counts": before.counts + counts}
        # These rows were read and counted as failed before; what has become of them takes the place of that.
        again = replace(counts, read=0, failed=counts.failed - rows)
        return {"rows": before.rows, "counts": before.counts + again, "retried": before.retried + rows}

    def _write(self, embedded: Embedded, writer: Writer) -> list[Reject]:
        upserts, updates = embedded.upserts(), embedded.updates()
        if not upserts.ids and not updates.ids:
            return []
        self._writing = True  # a write in flight ends before anything else does
        try:
            refused = dict(writer.write(upserts, updates))
        finally:
            self._writing = False
        return [
            Reject.of(document.item, stage=Stage.UPSERT, detail=refused[document.id])
            for document in embedded.window.documents
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
        if isinstance(self._stopping.reason, Interrupted) and not self._announced:
            self._announced = True
            self._observer.told("stopping after what is being written; a second signal ends it at once")
        if time.monotonic() >= self._next_pulse:
            self._next_pulse = time.monotonic() + PULSE_SECONDS
            self._observer.progressed(self._progress)
        if not self._writing:
            self._stopping.check()


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


@contextmanager
def abandoned_on_error(writer: Writer) -> Iterator[Writer]:
    """Hangs up on the writer's process when anything goes wrong."""
    try:
        yield writer
    except BaseException:
        writer.abandon()
        writer.await_end(LAST_WRITE_SECONDS)
        raise
