"""Embedded batches become settled ones: what was written is counted, rejects are appended, the checkpoint is saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from upsert_cli.counts import Counts
from upsert_cli.errors import JournalDamaged, JournalUnreadable, UpsertCliError
from upsert_cli.journal.checkpoint import Checkpoint
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.receipts import Receipt, Total
from upsert_cli.journal.rejects import FAILED_ITEMS, RejectsFile, known_rejects, rejects_lost
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.pipeline.outcomes import BatchOutcome
from upsert_cli.pipeline.retry_rejects import Rejected
from upsert_cli.sources.item import START

PERCENT_ROWS = 100  # rows before `--max-failures N%` is looked at; before that a percentage says little


class Committer:
    """What one attempt at a task has settled so far; the journal learns of a batch only once Chroma has it."""

    def __init__(self, claim: Claim, task: Task) -> None:
        """Goes on where the last attempt left off."""
        self.checkpoint = claim.checkpoint() or Checkpoint(position=START.as_json())
        self._claim = claim
        self._task = task
        self._options = task.options
        self._files = claim.files
        self.missing_path = claim.files.missing
        self._places = {source["name"]: place for place, source in enumerate(task.inputs)}
        self._rows_at_start = self.checkpoint.rows

    @property
    def is_retry(self) -> bool:
        """Tells whether this attempt reads the rejected rows of the one before alone."""
        return self.checkpoint.retried is not None

    @property
    def has_advanced(self) -> bool:
        """Tells whether this attempt has settled a row."""
        return self.checkpoint.rows > self._rows_at_start

    @property
    def has_list(self) -> bool:
        """Tells whether it is known what is to be deleted in the end."""
        missing = self.checkpoint.missing
        return missing is not None and (missing == 0 or self.missing_path.exists())

    @property
    def rows(self) -> int:
        """Returns the rows of this reading that are settled."""
        return self.checkpoint.rows if self.checkpoint.retried is None else self.checkpoint.retried

    def total(self) -> int | None:
        """Returns the rows that there are to settle, where that is known."""
        return RejectsFile.count(self._files.retry) if self.is_retry else self._task.total

    def left(self) -> int | None:
        """Returns the rows that are still to be settled, where that is known."""
        total = self.total()
        return None if total is None else max(0, total - self.rows)

    def rows_to_retry(self) -> Iterator[tuple[str, int]] | None:
        """Returns source and row of the rejects that are still to be retried, or None to read every row.

        Raises:
            UpsertCliError: They are not there any more.
        """
        if self.checkpoint.retried is None:
            return None
        if not self._files.retry.exists():
            raise rejects_lost(self._task.id, self.checkpoint.counts.failed)
        rejects = RejectsFile.read(self._files.retry)
        left = itertools.islice(rejects, self.checkpoint.retried, None)
        return ((record["source"], record["row"]) for record in left)

    def rejects_to_retry(self) -> Iterator[Rejected]:
        """Yields all rejects that this attempt retries, also those that are settled already."""
        return map(Rejected.from_json, RejectsFile.read(self._files.retry))

    def open_rejects(self) -> RejectsFile:
        """Opens the rejects file at the checkpoint; what lies beyond is from rows that are read again."""
        return RejectsFile.open_at(self._files.rejects, self.checkpoint.rejects_bytes)

    def commit(self, outcome: BatchOutcome, rejects: RejectsFile) -> list[dict[str, Any]]:
        """Append the rejects of a written batch, then save its checkpoint.

        Returns:
            The batch's records in the rejects file.
        """
        # In the order of the rows, by which a retry finds them again.
        failed = sorted(outcome.rejects, key=lambda reject: (self._places[reject.source], reject.row))
        records = [reject.as_json() for reject in failed]
        checkpoint = replace(
            self.checkpoint,
            position=outcome.batch.after.as_json(),
            converted=self.checkpoint.converted + outcome.converted,
            rejects_bytes=rejects.append(records),
            **self._advanced(outcome.batch.read, outcome.counts),
        )
        self._save(checkpoint)
        return records

    def listed(self, missing: int) -> None:
        """Checkpoints that the list of records to delete has so many of them."""
        self._save(replace(self.checkpoint, missing=missing, unlisted=0))

    def deleted(self, settled: int, *, changed: int) -> None:
        """Checkpoints that so many more records of the list are settled, of which some changed and were left."""
        before = self.checkpoint
        counts = before.counts + Counts(deleted=settled - changed)
        self._save(replace(before, unlisted=before.unlisted + settled, counts=counts))

    def _save(self, checkpoint: Checkpoint) -> None:
        self._claim.save(checkpoint)
        self.checkpoint = checkpoint

    def go_on_from(self, total: Total, rejects: Iterable[list[dict[str, Any]]]) -> None:
        """Makes checkpoint and rejects what the receipts of units say, which are ahead of both after a crash.

        Args:
            total: The sum of the receipts.
            rejects: All of theirs, in the order of their rows.
        """
        RejectsFile.rewrite(self._files.rejects, rejects)
        self._save_units(total.counts, total.converted, total.rejects_bytes)

    def commit_unit(self, receipt: Receipt, rejects: RejectsFile) -> None:
        """Checkpoints a unit whose receipt is kept."""
        before = self.checkpoint
        length = rejects.append(receipt.rejects)
        self._save_units(before.counts + receipt.counts, before.converted + receipt.converted, length)

    def _save_units(self, counts: Counts, converted: int, rejects_bytes: int) -> None:
        before = self.checkpoint
        self._save(
            replace(
                before,
                position=START.as_json(),  # where to go on is for the receipts to say
                rows=counts.read,
                counts=replace(counts, deleted=before.counts.deleted),
                converted=converted,
                rejects_bytes=rejects_bytes,
            )
        )

    def _advanced(self, rows: int, counts: Counts) -> dict[str, Any]:
        before = self.checkpoint
        if before.retried is None:
            return {"rows": before.rows + rows, "counts": before.counts + counts}
        # These rows were read and counted as failed before; what has become of them takes the place of that.
        again = replace(counts, read=0, failed=counts.failed - rows)
        return {"rows": before.rows, "counts": before.counts + again, "retried": before.retried + rows}

    def check_failures(self, *, settled: int = PERCENT_ROWS) -> None:
        """Ends a load that rejects more than the user allows.

        Raises:
            UpsertCliError: More items were rejected than `--max-failures` allows.
        """
        counts = self.checkpoint.counts
        if self._options.exceeds_max_failures(counts.failed, counts.read, from_row=settled):
            restart = f"`upsert-cli restart {self._task.id}"
            raise UpsertCliError(
                message=f"{counts.failed} of {counts.read} items were rejected, more than --max-failures "
                f"{self._options.max_failures}; `upsert-cli info {self._task.id} --failed` shows them; after you fix "
                f"them, {restart} --from-start` reads all rows again; {restart} --max-failures 100%` continues without "
                f"them"
            )

    def check_complete(self) -> None:
        """Makes sure, before a task is called done, that every row read ended as exactly one thing.

        Raises:
            UpsertCliError: The counts do not add up, or the rejects file does not hold the rejects that they count.
        """
        counts = self.checkpoint.counts
        if not counts.reconciles():
            raise UpsertCliError(
                message=f"the counts of task {self._task.id} do not add up ({counts.as_json()}); this is a bug, please "
                f"report it, and load again with `upsert-cli restart {self._task.id} --from-start`"
            )
        if RejectsFile.size(self._files.rejects) != self.checkpoint.rejects_bytes or (
            RejectsFile.count(self._files.rejects) != counts.failed
        ):
            raise rejects_lost(self._task.id, counts.failed)

    def finish(
        self, status: TaskStatus, detail: str | None, *, seconds: dict[str, float], stopped_by: str | None = None
    ) -> Task:
        """Writes how the attempt ended into the task's record."""
        return self._claim.finish(
            status,
            detail=detail,
            failed_items=self._first_rejects(),
            checkpoint=self.checkpoint,
            seconds=seconds,
            stopped_by=stopped_by,
            begun=self._task,
        )

    def _first_rejects(self) -> tuple[dict[str, Any], ...]:
        try:
            # By what is known here: the journal may have lost the task's record, and gets it back only by `finish`.
            known = known_rejects(self._files, checkpoint=self.checkpoint, count=self.checkpoint.counts.failed)
            return tuple(itertools.islice(known, FAILED_ITEMS))
        except (JournalDamaged, JournalUnreadable):
            return ()  # `check_complete` and `journal check` say so; the record must not be lost for it
