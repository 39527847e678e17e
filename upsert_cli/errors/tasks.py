"""What ends or refuses a task."""

from __future__ import annotations

import signal
from collections.abc import Mapping

from upsert_cli.errors.base import Refusal, UpsertCliError, UsageFault

# -- stopping ----------------------------------------------------------------------------------------------------------


class Canceled(UpsertCliError):
    """Raised when somebody asked for the running task to be canceled."""

    exit_code = 5
    task_id: str

    def __str__(self) -> str:
        return f"task {self.task_id} was canceled; `upsert-cli restart {self.task_id}` continues it"


class Interrupted(UpsertCliError):
    """Raised when a signal stopped the task; what was written is checkpointed."""

    task_id: str
    signal_number: int
    done: bool = False
    """The signal came when there was nothing left to stop."""

    queued: bool = False
    """The task goes back to the queue, where any worker goes on with it."""

    def __str__(self) -> str:
        name = signal.Signals(self.signal_number).name
        if self.done:
            return f"task {self.task_id} is done; {name} came too late to stop it"
        if self.queued:
            return f"task {self.task_id} was stopped by {name} and is pending; the next `upsert-cli work` continues it"
        return f"task {self.task_id} was stopped by {name}; `upsert-cli restart {self.task_id}` continues it"


class RunnersDied(UpsertCliError):
    """Raised when one worker after the other died of a queued task, and it did not advance by a row."""

    task_id: str
    deaths: int

    def __str__(self) -> str:
        return (
            f"{self.deaths} workers died while they ran task {self.task_id}, and no row more was loaded, so it is not "
            f"tried again; `upsert-cli restart {self.task_id} -v` shows what happens (is there enough memory?)"
        )


# -- running a task ----------------------------------------------------------------------------------------------------


class TaskConflict(Refusal):
    """Raised when a task id is used again for another load."""

    task_id: str
    what: str
    """What differs: an option, or the name of a source."""

    had: str
    asked: str

    def __str__(self) -> str:
        return (
            f"task {self.task_id} stands for another load ({self.what}: {self.had}, now {self.asked}); "
            f"choose another --task-id, or see `upsert-cli info {self.task_id}`"
        )


class StoppedMidway(UpsertCliError):
    """Raised when the target is refused to a task that had already written to it."""

    task_id: str
    reason: str

    def __str__(self) -> str:
        return (
            f"after a part of the rows: {self.reason}; what was written is checkpointed, "
            f"`upsert-cli restart {self.task_id}` continues it"
        )


class SourceCutShort(UpsertCliError):
    """Raised when a source lost rows while it was being read, so that not all of them can have been loaded."""

    task_id: str
    name: str
    how: str

    def __str__(self) -> str:
        return (
            f"{self.name} became shorter while it was being read ({self.how}), so rows may be missing; once it is "
            f"whole, load it with `upsert-cli restart {self.task_id} --from-start`"
        )


class TooManyFailures(UpsertCliError):
    """Raised when more items were rejected than `--max-failures` allows."""

    task_id: str
    failed: int
    read: int
    limit: str

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.read} items were rejected, more than --max-failures {self.limit}; "
            f"`upsert-cli info {self.task_id} --failed` shows them; once they are mended, "
            f"`upsert-cli restart {self.task_id} --from-start` reads all again; "
            f"`upsert-cli restart {self.task_id} --max-failures 100%` continues without them"
        )


class ScopeNeeded(UsageFault):
    """Raised when records are to be deleted by what a stream no longer holds, and nothing says which records."""

    name: str
    """Of the stream, `-` for standard input."""

    def __str__(self) -> str:
        name = "standard input" if self.name == "-" else self.name
        return (
            f"{name} has no name by which a later load would know the records of this one; --scope NAME gives them "
            f"one, such as --scope articles"
        )


class TooManyToDelete(Refusal):
    """Raised when more records would be deleted than `--max-delete` allows, before anything is written."""

    task_id: str | None
    """None in a dry run, which has no task to restart."""

    collection: str
    scope: str
    missing: int
    held: int
    limit: str

    def __str__(self) -> str:
        return (
            f"{self.missing:,} of the {self.held:,} records of the scope {self.scope} in the collection "
            f"{self.collection} are not in the sources any more, more than --max-delete {self.limit} allows, so "
            f"nothing was written; --dry-run --max-delete 100% names the first of them, and if all is as it should "
            f"be, {self._remedy()}"
        )

    def _remedy(self) -> str:
        if self.task_id is None:
            return f"--max-delete {self.missing} allows it"
        return f"`upsert-cli restart {self.task_id} --max-delete {self.missing}` deletes them"


class NothingToKeep(Refusal):
    """Raised when all records of a scope would be deleted since the sources hold no item at all."""

    collection: str
    scope: str
    held: int

    def __str__(self) -> str:
        return (
            f"the sources hold no item, and all {self.held:,} records of the scope {self.scope} in the collection "
            f"{self.collection} would be deleted, which is never done; look at the sources, or load without "
            f"--delete-missing"
        )


class SourceMovedOn(UpsertCliError):
    """Raised when a source changed while it was loaded, so that nothing can be said to be missing in it."""

    task_id: str
    name: str
    how: str

    def __str__(self) -> str:
        return (
            f"{self.name} changed while it was being read ({self.how}), so nothing was deleted; "
            f"`upsert-cli restart {self.task_id} --from-start` reads it again"
        )


class CountsDoNotReconcile(UpsertCliError):
    """Raised when the tool's own sums do not add up, which must never be called done."""

    task_id: str
    counts: Mapping[str, int]

    def __str__(self) -> str:
        return (
            f"the counts of task {self.task_id} do not add up ({dict(self.counts)}); this is a bug, please report it, "
            f"and load again with `upsert-cli restart {self.task_id} --from-start`"
        )
