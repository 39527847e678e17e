"""Damage to the files that go with a task, its checkpoint and its rejects, and how it can be repaired.

Bytes after a checkpoint are never judged: a kill leaves anything there, and the next attempt cuts it off.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from upsert_cli.atomic import move_aside
from upsert_cli.errors import JournalDamaged, TaskNotFound
from upsert_cli.journal.files import writing_to
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import TaskFiles
from upsert_cli.journal.progress import Checkpoint, read_checkpoint
from upsert_cli.journal.rejects import JsonLines, file_size, rejects_extent
from upsert_cli.journal.segments import Record
from upsert_cli.journal.task import Task, TaskStatus

LOOKS = 3  # at a task whose files seem damaged; a task that advances is looked at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file of the journal; for a file of a task, also how to repair it without a loss."""

    path: Path
    reason: str

    settled: bool = False
    """Whether the file was moved aside, and its whole tasks are back in the journal."""

    task_id: str = ""
    """The task that the file belongs to; empty for other files."""

    cut_to: int | None = None
    """The length in bytes to which the file can be cut without a loss."""

    is_useless: bool = False
    """Whether the file can be moved aside without a loss."""

    @property
    def is_repairable(self) -> bool:
        """Whether `repair` can do something."""
        return self.cut_to is not None or self.is_useless

    def repair(self) -> str:
        """Repair the file, and return a line that says how; only the holder of the task's claim may call this."""
        with writing_to(self.path):
            if self.is_useless:
                return f"{self.path} was moved to {move_aside(self.path).name}: {self.reason}"
            length = self.path.stat().st_size
            JsonLines.open_at(self.path, self.cut_to or 0).close()
        return f"{self.path} was cut from {length} to {self.cut_to} bytes: {self.reason}"


def damage_of_task(journal: Journal, record: Record) -> Damage | None:
    """Return the damage to a task's files, if any; judge them again if the task advances at this moment.

    A task that was just removed has no damage.

    Raises:
        ValueError: The record is not that of a task.
    """
    damage: Damage | None = None
    for _ in range(LOOKS):
        task = Task.from_record(record)
        files = journal.files(task.id)
        checkpoint = read_checkpoint(files.progress)
        if (damage := _judge(task, files, checkpoint)) is None:
            break
        before = record
        try:
            record = journal.table.find(task.id)
        except TaskNotFound:
            return None  # its files may be removed at this moment, too
        if record == before and read_checkpoint(files.progress) == checkpoint:
            break
    return damage


def _judge(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Damage | None:
    """Return the damage to a task's files, if any; a done task needs no checkpoint."""
    if task.status is TaskStatus.DONE:
        return _judge_rejects(task, files, None)
    if checkpoint is not None:
        return _judge_rejects(task, files, checkpoint)
    if files.progress.exists():
        reason = f"it is torn; the next attempt, such as `upsert-cli restart {task.id}`, reads all rows again"
        return Damage(task_id=task.id, path=files.progress, reason=reason, is_useless=True)
    return None


def _judge_rejects(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Damage | None:
    """Return the damage to the rejects that are counted: in the rejects file and, in a retry, those that wait."""
    counted, length, retried = task.counts.failed, None, None
    if checkpoint is not None:
        counted, length, retried = checkpoint.counts.failed, checkpoint.rejects_bytes, checkpoint.retried
    if retried is None and counted and not files.rejects.exists() and files.retry.exists():
        retried, length = 0, 0  # a crash came after the file was renamed, before a checkpoint was saved
    try:
        path, (count, size) = files.rejects, rejects_extent(files.rejects, length=length)
        expected = file_size(path) if length is None else length
        if retried is not None and size == expected:
            path, (waiting, size) = files.retry, rejects_extent(files.retry)
            count, expected = count + waiting - retried, file_size(path)
    except JournalDamaged as error:
        return _lost(task, Path(error.path), error.reason)
    if count != counted:
        return _lost(task, path, f"it holds {count} whole reject{'s' * (count != 1)} of {counted}")
    if size == expected:
        return None
    reason = f"after its {count} rejects it ends in {expected - size} bytes that are torn"
    if checkpoint is None:
        return Damage(task_id=task.id, path=path, reason=reason, cut_to=size)
    return _lost(task, path, reason)


def _lost(task: Task, path: Path, reason: str) -> Damage:
    remedy = f"`upsert-cli restart {task.id} --from-start` loads all rows again"
    return Damage(task_id=task.id, path=path, reason=f"{reason}; {remedy}")
