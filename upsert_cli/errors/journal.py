"""What is wrong with the journal, a lease, or where output goes."""

from __future__ import annotations

from upsert_cli.errors.base import Refusal, UpsertCliError, UsageFault

NAMED_CANDIDATES = 10  # ids in the message about an ambiguous one

# -- the journal -------------------------------------------------------------------------------------------------------


class InvalidTaskId(UsageFault):
    """Raised when a task id has characters that no task id can have."""

    task_id: str

    def __str__(self) -> str:
        return (
            f"{self.task_id!r} cannot be a task id: use 1 to 128 letters, digits, dots, hyphens and underscores, "
            f"the first a letter or a digit"
        )


class TaskNotFound(UpsertCliError):
    """Raised when the journal has no task of that id."""

    task_id: str
    journal: str
    """Folder of the journal that was searched."""

    unreadable: int = 0
    """Files of the journal that could not be searched, being damaged."""

    def __str__(self) -> str:
        if self.unreadable:
            return (
                f"there is no task {self.task_id!r} in what can be read of {self.journal}; `upsert-cli journal check` "
                f"lists its damaged files ({self.unreadable})"
            )
        return f"there is no task {self.task_id!r} in {self.journal}; `upsert-cli list` shows those that there are"


class AmbiguousTaskId(UsageFault):
    """Raised when what was typed is the beginning of several ids."""

    prefix: str
    candidates: tuple[str, ...]
    """The newest first."""

    def __str__(self) -> str:
        named, more = self.candidates[:NAMED_CANDIDATES], len(self.candidates) - NAMED_CANDIDATES
        others = f" and {more:,} more" if more > 0 else ""
        return (
            f"{self.prefix!r} is the beginning of {len(self.candidates):,} task ids: {', '.join(named)}{others}; "
            f"type more of the id, or `latest` for the newest task"
        )


class TaskExists(Refusal):
    """Raised when a task is created under an id that is taken."""

    task_id: str

    def __str__(self) -> str:
        return f"there is a task {self.task_id} already; see `upsert-cli info {self.task_id}`, or choose another id"


class TaskRunning(Refusal):
    """Raised when a task is claimed that another process runs."""

    task_id: str
    holder: object
    """Who runs it, in words: `pid 4242 on host since ...`."""

    def __str__(self) -> str:
        return (
            f"task {self.task_id} is being run by {self.holder}; wait for it, "
            f"or stop it with `upsert-cli cancel {self.task_id}`"
        )


class RowsLeft(Refusal):
    """Raised when just the rejects of a task are to be retried, but it has rows that were never read."""

    task_id: str
    status: str
    is_at_limit: bool = False
    """So many rows were rejected that a restart with the same `--max-failures` would fail again."""

    def __str__(self) -> str:
        limit = " --max-failures 100%" if self.is_at_limit else ""
        return (
            f"task {self.task_id} is {self.status} and has rows that were not read yet; "
            f"let `upsert-cli restart {self.task_id}{limit}` read them first, then retry the rejects"
        )


class RejectsLost(UpsertCliError):
    """Raised when the rejects file of a task does not hold all that its counts speak of."""

    task_id: str
    failed: int

    def __str__(self) -> str:
        return (
            f"the rejects file of task {self.task_id} does not hold its {self.failed} rejected items; "
            f"load all rows again with `upsert-cli restart {self.task_id} --from-start`"
        )


class WrongStatus(UpsertCliError):
    """Raised when a task is not, or no longer, in a state that allows what was asked."""

    task_id: str
    status: str
    wanted: tuple[str, ...]
    """The states that would have allowed it."""

    def __str__(self) -> str:
        return (
            f"task {self.task_id} is {self.status}, not {' or '.join(self.wanted)}, so nothing was changed; "
            f"`upsert-cli info {self.task_id}` shows it"
        )


class JournalUnwritable(UpsertCliError):
    """Raised when the journal cannot be written; what was in it before is whole."""

    path: str
    reason: str
    """What the system says, such as `No space left on device`."""

    def __str__(self) -> str:
        return (
            f"the journal cannot be written: {self.path}: {self.reason}; make room or give access, "
            f"or choose another folder with --journal"
        )


class JournalUnreadable(UpsertCliError):
    """Raised when a file of the journal is there but may not or cannot be read."""

    path: str
    reason: str

    def __str__(self) -> str:
        return (
            f"the journal cannot be read: {self.path}: {self.reason}; give this user access, "
            f"or choose another folder with --journal"
        )


class JournalDamaged(UpsertCliError):
    """Raised when a file of the journal does not hold what it should, and there is no good copy of it."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the journal file {self.path} is damaged ({self.reason}); `upsert-cli journal check` lists what is lost"


class MetricsNotWritten(UpsertCliError):
    """Raised when the file of metrics cannot be written; the load itself is not touched by that."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"the metrics in {self.path} were not written, so they do not tell of this load: {self.reason}"


class JournalBusy(UpsertCliError):
    """Raised when another process keeps a lock of the journal that is meant to be held for milliseconds."""

    path: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"another process has kept {self.path} locked for {self.seconds:.0f} seconds; "
            f"look for an upsert-cli that is suspended or hangs, then try again"
        )


class JournalTooNew(UpsertCliError):
    """Raised when the journal was written by a version of this tool that is newer than this one."""

    path: str
    found: int
    known: int

    def __str__(self) -> str:
        return (
            f"the journal in {self.path} has format {self.found}, this version knows up to {self.known}; "
            f"upgrade upsert-cli, or choose another folder with --journal"
        )


# -- leases ------------------------------------------------------------------------------------------------------------


class LocksUnsupported(UpsertCliError):
    """Raised when the system or the file system has no locks that end with their holder."""

    path: str

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be locked, and without a lock two loads would destroy each other's work; "
            f"use a local disk on Linux or macOS"
        )


# -- output ------------------------------------------------------------------------------------------------------------


class StdoutUnwritable(UpsertCliError):
    """Raised when what was asked for cannot be printed."""

    reason: str

    def __str__(self) -> str:
        return f"standard output cannot be written ({self.reason}); redirect it to a file or a pipe, then try again"


class PageUnwritable(UpsertCliError):
    """Raised when the page of a task cannot be written where it was asked for."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} cannot be written ({self.reason}); make room or access, or name another with --html"
