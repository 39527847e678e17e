"""Commits: count the rows of a written batch, append its rejects, and save the checkpoint."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from upsert_cli.context import Progress, RunContext
from upsert_cli.counts import NOTHING_IGNORED, Converted, Counts, Outcome
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.progress import Checkpoint
from upsert_cli.journal.rejects import (
    JsonLines,
    count_rejects,
    file_size,
    read_rejects,
    rejects_lost,
    rewrite_rejects,
)
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.sources.item import START, Position
from upsert_cli.sources.rows import Rows

PERCENT_ROWS = 100  # rows before `--max-failures N%` is checked; a percentage of fewer rows means little


class Committer:
    """The commits of one attempt at a task; a batch is committed only after the store has acknowledged it."""

    def __init__(self, claim: Claim, task: Task, context: RunContext) -> None:
        """Continue at the checkpoint of the last attempt; `context` gets a new progress, and later the rejects."""
        self.checkpoint = claim.checkpoint() or Checkpoint(position=START.as_json())
        self._claim = claim
        self.context = context
        self.task = task
        self._options = task.options
        self.files = claim.files
        self._order = {source["name"]: index for index, source in enumerate(task.inputs)}
        self._ignored = NOTHING_IGNORED
        self._rejects: JsonLines  # while it is open
        self._rows_at_start = self.checkpoint.rows
        self._began = time.monotonic()
        context.progress = Progress(total=self.total(), began=self._began - task.load_seconds)
        context.progress.continue_after(self.rows, self.checkpoint.counts)

    @property
    def is_retry(self) -> bool:
        """Whether this attempt reads only the rejected rows of the attempt before."""
        return self.checkpoint.retried is not None

    @property
    def has_advanced(self) -> bool:
        """Whether this attempt has committed a row."""
        return self.checkpoint.rows > self._rows_at_start

    @property
    def has_list(self) -> bool:
        """Whether the list of records to delete is complete."""
        missing = self.checkpoint.missing
        return missing is not None and (missing == 0 or self.files.missing.exists())

    @property
    def rows(self) -> int:
        """The number of committed rows: in a retry, of the rejects; otherwise, of all rows."""
        return self.checkpoint.rows if self.checkpoint.retried is None else self.checkpoint.retried

    def total(self) -> int | None:
        """Return the number of rows to commit, or None if unknown."""
        return count_rejects(self.files.retry) if self.is_retry else self.task.total

    def left(self) -> int | None:
        """Return the number of rows left to commit, or None if unknown."""
        total = self.total()
        return None if total is None else max(0, total - self.rows)

    def rows_left(self, rows: Rows) -> Rows:
        """Return the rows of the task after the checkpoint; in a retry, only the rejects that are left to retry.

        Raises:
            UpsertCliError: The retry file is gone.
        """
        rows = rows.after(Position.from_json(self.checkpoint.position))
        if not self.is_retry:
            return rows
        if not self.files.retry.exists():
            raise rejects_lost(self.task.id, self.checkpoint.counts.failed)
        left = itertools.islice(self.rejects_to_retry(), self.checkpoint.retried, None)
        return replace(rows, only=((record["source"], record["row"]) for record in left))

    def rejects_to_retry(self) -> Iterator[dict[str, Any]]:
        """Yield the records of all rejects that this attempt retries, including committed ones."""
        return read_rejects(self.files.retry)

    @contextmanager
    def open_rejects(self) -> Iterator[None]:
        """Open the rejects file at the checkpoint; later rejects are dropped, since their rows are read again."""
        with JsonLines.open_at(self.files.rejects, self.checkpoint.rejects_bytes) as self._rejects:
            yield

    def commit(self, done: Outcome, *, after: Position = START) -> None:
        """Append the rejects of written rows, then save their checkpoint, and count both in the progress.

        Args:
            done: The outcome of the next batch, or of a unit whose receipt is saved.
            after: The position at which to continue; the start if receipts tell which units are done.
        """
        # In the order of their rows, in which a retry reads them.
        records = sorted(done.rejects, key=lambda record: (self._order[record["source"]], record["row"]))
        checkpoint = replace(
            self.checkpoint,
            position=after.as_json(),
            converted=self.checkpoint.converted + done.converted,
            rejects_bytes=self._rejects.append(records),
            **self._advanced(done.counts),
        )
        self._save(checkpoint)
        self._ignored += done.ignored
        progress = self.context.progress
        progress.written += done.counts.inserted + done.counts.updated
        progress.committed += done.counts.read
        progress.counts = checkpoint.counts
        if records:
            self.context.rejected(records)

    def listed(self, missing: int) -> None:
        """Commit the list of records to delete, given its length."""
        self._save(replace(self.checkpoint, missing=missing, unlisted=0))

    def deleted(self, records: int, *, changed: int) -> None:
        """Commit the deletion of the next records on the list; `changed` of them were kept."""
        before = self.checkpoint
        counts = before.counts + Counts(deleted=records - changed)
        self._save(replace(before, unlisted=before.unlisted + records, counts=counts))

    def _save(self, checkpoint: Checkpoint) -> None:
        checkpoint = replace(checkpoint, seconds=self._seconds())
        self._claim.save(checkpoint)
        self.checkpoint = checkpoint

    def _seconds(self) -> float:
        return round(self.task.load_seconds + time.monotonic() - self._began, 3)

    def restore(self, counts: Counts, converted: Converted, rejects: Iterable[list[dict[str, Any]]]) -> None:
        """Rebuild the checkpoint and the rejects file from receipts, which may be ahead of both after a crash."""
        before = self.checkpoint
        self._save(
            replace(
                before,
                position=START.as_json(),
                rows=counts.read,
                counts=replace(counts, deleted=before.counts.deleted),
                converted=converted,
                rejects_bytes=rewrite_rejects(self.files.rejects, rejects),
            )
        )

    def _advanced(self, counts: Counts) -> dict[str, Any]:
        """Return the fields of the checkpoint that count rows, with the counts of more rows added."""
        before, rows = self.checkpoint, counts.read
        if before.retried is None:
            return {"rows": before.rows + rows, "counts": before.counts + counts}
        # The rows of a retry are counted as read and failed already; their new outcome replaces that.
        again = replace(counts, read=0, failed=counts.failed - rows)
        return {"rows": before.rows, "counts": before.counts + again, "retried": before.retried + rows}

    def check_failures(self, *, least_rows: int = PERCENT_ROWS) -> None:
        """Check that no more rows were rejected than the user allows.

        Raises:
            UpsertCliError: More items were rejected than `--max-failures` allows.
        """
        counts = self.checkpoint.counts
        if self._options.exceeds_max_failures(counts.failed, counts.read, from_row=least_rows):
            restart = f"`upsert-cli restart {self.task.id}"
            raise UpsertCliError(
                message=f"{counts.failed} of {counts.read} items were rejected, more than --max-failures "
                f"{self._options.max_failures}; `upsert-cli info {self.task.id} --failed` shows them; after you fix "
                f"them, {restart} --from-start` reads all rows again; {restart} --max-failures 100%` continues without "
                f"them"
            )

    def check_complete(self) -> None:
        """Check, before a task is done, that every row read has exactly one outcome.

        Raises:
            UpsertCliError: The counts do not add up, or the rejects file lacks rejects that they count.
        """
        counts = self.checkpoint.counts
        if not counts.reconciles():
            raise UpsertCliError(
                message=f"the counts of task {self.task.id} do not add up ({counts.as_json()}); this is a bug, please "
                f"report it, and load again with `upsert-cli restart {self.task.id} --from-start`"
            )
        if file_size(self.files.rejects) != self.checkpoint.rejects_bytes or (
            count_rejects(self.files.rejects) != counts.failed
        ):
            raise rejects_lost(self.task.id, counts.failed)

    def warn_of_ignored(self) -> None:
        """Warn of fields of the committed rows that are not stored."""
        if (warning := self._ignored.warning()) is not None:
            self.context.warning(warning)

    def finish(self, status: TaskStatus, **fields: object) -> Task:
        """Record the end of the attempt, with the seconds that each stage was busy, and return the task."""
        seconds = {name: round(spent, 3) for name, spent in sorted(self.context.progress.seconds.items())}
        seconds["total"] = round(time.monotonic() - self._began, 3)
        checkpoint = replace(self.checkpoint, seconds=self._seconds())
        return self._claim.finish(status, checkpoint=checkpoint, begun=self.task, seconds=seconds, **fields)
