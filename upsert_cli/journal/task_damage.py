"""Tasks -> what is damaged in the files that go with them: checkpoints, rejects, and rejects that are being retried.

What lies beyond a checkpoint is never judged: a kill leaves anything there, and the next attempt cuts it off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from upsert_cli.atomic import move_aside
from upsert_cli.errors import JournalDamaged, TaskRunning
from upsert_cli.journal.checkpoint import Checkpoint, read_checkpoint
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.layout import Layout
from upsert_cli.journal.rejects import RejectsFile
from upsert_cli.journal.segments import Damage
from upsert_cli.journal.state_files import writing_to
from upsert_cli.journal.storage import Record
from upsert_cli.journal.task import Task, TaskStatus, valid_task_id
from upsert_cli.journal.task_table import TaskTable

LOOKS = 3  # at a task whose files seem damaged; more than one only if it moved on meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDamage:
    """A damaged file of a task, and what can be done about it without a loss."""

    task_id: str
    damage: Damage

    cut_to: int | None = None
    """Bytes at the file's beginning that are all it should hold."""

    is_useless: bool = False
    """Nothing in it is of use any more."""

    @property
    def is_mendable(self) -> bool:
        """Tells whether `mend` can do something."""
        return self.cut_to is not None or self.is_useless

    def mend(self) -> str:
        """Does what can be done, and says that in one line; only who has the claim of the task may call this."""
        path = self.damage.path
        with writing_to(path):
            if self.is_useless:
                return f"{path} was moved to {move_aside(path).name}: {self.damage.reason}"
            length = path.stat().st_size
            RejectsFile.open_at(path, self.cut_to or 0).close()
        return f"{path} was cut from {length} to {self.cut_to} bytes: {self.damage.reason}"


def damaged_task_files(layout: Layout, *task_ids: str) -> Iterator[TaskDamage]:
    """Yields the damaged files of some tasks, or of all, and opens only files that hold something.

    Raises:
        JournalUnreadable: A file is there but cannot be read.
    """
    # What is said about damaged segments is said by those who look for that.
    with closing(TaskTable(layout.folder, warn=lambda _: None)) as history:
        records = map(history.find, task_ids) if task_ids else history.newest_first()
        names = layout.names_of_task_files()
        for record in records:
            # A record that makes no sense tells nothing of its files, and is named by those who list it.
            with suppress(ValueError):
                if _has_files(names, record):
                    yield from _settled_judgement(layout, record, history)


def mended_task_files(layout: Layout, *, claim: Callable[[str], Claim]) -> Iterator[str]:
    """Does what can be done about damaged files of tasks, and yields a line for each; tells what cannot be mended."""
    for found in damaged_task_files(layout):
        try:
            yield _mended(layout, found, claim) or f"{found.damage.path}: {found.damage.reason}"
        except TaskRunning as error:
            yield str(error)


def _mended(layout: Layout, found: TaskDamage, claim: Callable[[str], Claim]) -> str | None:
    if not found.is_mendable:
        return None
    with claim(found.task_id):  # nobody moves on meanwhile, so it is looked at once more
        return next((again.mend() for again in damaged_task_files(layout, found.task_id) if again.is_mendable), None)


def _has_files(names: frozenset[str], record: Record) -> bool:
    """Tells cheaply whether there is something to judge; most tasks of a long history have no files."""
    task_id, counts = record.get("id"), record.get("counts")
    if not isinstance(task_id, str) or not valid_task_id(task_id):
        return False  # what can be no id names no file
    counted = isinstance(counts, dict) and bool(counts.get("failed"))
    return counted or f"{task_id}.jsonl" in names or f"{task_id}.progress" in names


def _settled_judgement(layout: Layout, record: Record, history: TaskTable) -> list[TaskDamage]:
    found: list[TaskDamage] = []
    for _ in range(LOOKS):
        task = Task.from_record(record)
        checkpoint = read_checkpoint(layout.progress(task.id))
        if not (found := list(_judge(layout, task, checkpoint))):
            break
        before, record = record, history.find(task.id)
        if record == before and read_checkpoint(layout.progress(task.id)) == checkpoint:
            break
    return found


def _judge(layout: Layout, task: Task, checkpoint: Checkpoint | None) -> Iterator[TaskDamage]:
    if task.status is TaskStatus.DONE:
        yield from _judge_rejects(layout, task, None)
    elif checkpoint is not None:
        yield from _judge_rejects(layout, task, checkpoint)
    elif (path := layout.progress(task.id)).exists():
        reason = f"it is torn; the next attempt, such as `upsert-cli restart {task.id}`, reads all rows again"
        yield TaskDamage(task_id=task.id, damage=Damage(path=path, reason=reason), is_useless=True)


def _judge_rejects(layout: Layout, task: Task, checkpoint: Checkpoint | None) -> Iterator[TaskDamage]:
    failed, retry = layout.rejects(task.id), layout.retry(task.id)
    counted = task.counts.failed if checkpoint is None else checkpoint.counts.failed
    length = None if checkpoint is None else checkpoint.rejects_bytes
    waits_from = None if checkpoint is None else checkpoint.retried
    if waits_from is None and counted and not failed.exists() and retry.exists():
        waits_from, length = 0, 0  # the files were renamed, and then came a crash
    try:
        count, size = RejectsFile.extent(failed, length=length)
        path, expected = failed, _size(failed) if length is None else length
        if waits_from is not None and size == expected:
            waiting, size = RejectsFile.extent(retry)
            count, path, expected = count + waiting - waits_from, retry, _size(retry)
    except JournalDamaged as error:
        yield _lost(task, Path(error.path), error.reason)
        return
    if count != counted:
        yield _lost(task, path, f"it holds {count} whole reject{'s' * (count != 1)} of {counted}")
    elif size != expected:
        reason = f"behind its {count} rejects it ends in {expected - size} bytes that are torn"
        cut_to = size if checkpoint is None else None
        found = TaskDamage(task_id=task.id, damage=Damage(path=path, reason=reason), cut_to=cut_to)
        yield found if found.is_mendable else _lost(task, path, reason)


def _lost(task: Task, path: Path, reason: str) -> TaskDamage:
    remedy = f"`upsert-cli restart {task.id} --from-start` loads all rows again"
    return TaskDamage(task_id=task.id, damage=Damage(path=path, reason=f"{reason}; {remedy}"))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
