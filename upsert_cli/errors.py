"""Every error that a user can cause, as a tree, each with its exit code.

    UpsertCliError            1   the tool could not work, or the task failed
    ├── UsageFault            2   what was typed cannot be meant
    ├── Refusal               4   nothing was written, and on purpose
    ├── Canceled              5   somebody else stopped the task
    └── Interrupted     128 + n   a signal stopped the task, after a checkpoint

    ItemError                 -   one item cannot be loaded; it is rejected and its neighbours go on

An error is named for the situation, carries its data, and its text is one line: what happened, where, and what to do
next. The core raises; only the command line's error boundary turns an error into a message and an exit code.
"""

from __future__ import annotations

import enum
import shlex
import signal
from typing import Any, dataclass_transform

# -- kinds -------------------------------------------------------------------------------------------------------------

SOME_REJECTED = 3  # exit code of a task that is done, but not with every item; no error, so no class


@dataclass_transform(kw_only_default=True, eq_default=False)
class Situation(Exception):
    """What can be raised with data: the annotated names of a kind are its fields, given by name, as in a dataclass.

    Not made by `dataclass` itself, which compiles code for each of some ninety kinds whenever a command starts.
    """

    def __init__(self, **data: Any) -> None:
        known = {name for kind in type(self).__mro__ if issubclass(kind, Situation) for name in kind.__annotations__}
        missing = {name for name in known if not hasattr(type(self), name)} - set(data)
        if wrong := sorted(missing | (set(data) - known)):
            raise TypeError(f"{type(self).__name__} has the fields {sorted(known)}; missing or unknown: {wrong}")
        super().__init__()
        vars(self).update(data)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only fields do not survive pickling by themselves, and some cross the writer's pipe.
        return _restore, (type(self), vars(self))


def _restore(kind: type[Situation], data: dict[str, Any]) -> Situation:
    error = kind.__new__(kind)
    vars(error).update(data)
    return error


class UpsertCliError(Situation):
    """Root of all errors that the user can fix; anything else that escapes is a bug.

    Raise a kind with `message=` where nobody catches the error; a class of its own is for those that somebody catches.
    """

    exit_code = 1
    message: str = ""
    """What happened, where, and what to do next, in one line."""

    def __str__(self) -> str:
        return self.message


class UsageFault(UpsertCliError):
    """Root of the errors in what was typed."""

    exit_code = 2


class Refusal(UpsertCliError):
    """Root of the cases in which the tool writes nothing, on purpose."""

    exit_code = 4


class Stage(enum.StrEnum):
    """Where on its way an item was lost; the `failure_stage` of a reject."""

    READING = "on_reading"
    DOWNLOADING = "on_downloading"
    SPLITTING = "on_splitting"
    INFERENCE = "on_inference"
    UPSERT = "on_upsert"
    OTHER = "other"


class ItemError(Situation):
    """Raised when one item cannot be loaded, and only that one."""

    stage: Stage = Stage.READING
    detail: str
    """One line of reason, such as `payload.text is empty`."""

    def __str__(self) -> str:
        return self.detail


# -- tasks -------------------------------------------------------------------------------------------------------------


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


# -- the journal and output --------------------------------------------------------------------------------------------


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


class LocksUnsupported(UpsertCliError):
    """Raised when the system or the file system has no locks that end with their holder."""

    path: str

    def __str__(self) -> str:
        return (
            f"{self.path} cannot be locked, and without a lock two loads would destroy each other's work; "
            f"use a local disk on Linux or macOS (--journal names the journal's folder)"
        )


# -- sources -----------------------------------------------------------------------------------------------------------


class SourceUnreadable(UpsertCliError):
    """Raised when a source cannot be opened or cannot be read to its end."""

    name: str
    reason: str
    row: int = 0
    """The last row that could be read."""

    remedy: str | None = None
    """How to load the file if it is sound, or None if it is damaged."""

    def __str__(self) -> str:
        if self.name == "-":
            return f"standard input cannot be read ({self.reason}); pipe data into it, or name a file"
        where = f"{self.name} cannot be read beyond row {self.row}" if self.row else f"{self.name} cannot be read"
        if self.remedy is not None:
            return f"{where}: {self.reason}; {self.remedy}"
        remedy = "check that it can be reached" if "://" in self.name else "repair the file"
        return f"{where} ({self.reason}); {remedy} or leave it out, then load again"


class SourceChanged(Refusal):
    """Raised when a source changed since a checkpoint, so that the checkpoint is not valid for it."""

    name: str
    how: str
    """Such as `size 120 -> 180 bytes`."""

    task_id: str | None = None
    """None if the reader of the file does not know the task."""

    is_gone: bool = False
    """It cannot be read at all."""

    def __str__(self) -> str:
        if self.is_gone:
            return f"{self.name} cannot be read any more ({self.how}); put it back as it was, then try again"
        again = "with --from-start a restart"
        if self.task_id is not None:
            again = f"`upsert-cli restart {self.task_id} --from-start`"
        return (
            f"{self.name} changed since the task was last run ({self.how}), so its checkpoint is no longer valid; "
            f"{again} reads it again"
        )


# -- collections that are read -----------------------------------------------------------------------------------------


def repair_command(collection: str, path: str) -> str:
    """Return the command that repairs a collection."""
    return f"upsert-cli verify --repair --collection {shlex.quote(collection)} --chroma {shlex.quote(path)}"


# -- collections that are written --------------------------------------------------------------------------------------


class TargetInUse(Refusal):
    """Raised when another upsert-cli has the folder, or the collection on a server."""

    path: str
    holder: str
    """Who has it, in words: `pid 4242 on host since ...`."""

    collection: str = ""
    """On a server, where a lease covers one collection."""

    def __str__(self) -> str:
        if self.collection:
            return (
                f"the collection {self.collection} of {self.path} is in use by {self.holder}; wait for it to end, "
                f"or choose another --collection"
            )
        return (
            f"{self.path} is in use by {self.holder}; wait for it to end, "
            f"or choose another folder with --chroma (two writers would destroy the index)"
        )


class TargetBusy(Refusal):
    """Raised when another program is writing to the folder."""

    path: str
    program: str = ""
    """Which, where that can be seen: `pid 4242 (python3)`."""

    def __str__(self) -> str:
        return (
            f"another program is writing to {self.path}{self.program and f': {self.program}'}; two writers destroy the "
            f"index: stop it, or let it end, then try again"
        )


class TargetDamaged(UpsertCliError):
    """Raised when a collection's index cannot be read, or does not hold what it should."""

    path: str
    collection: str
    detail: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} is damaged ({self.detail}); its documents survive: "
            f"`{repair_command(self.collection, self.path)}` mends it"
        )


# -- servers -----------------------------------------------------------------------------------------------------------


class NotChromasAnswer(UpsertCliError):
    """Raised when what answers a request, or stands in between, is not Chroma: nothing is known to be written."""

    url: str
    request: str
    """Method and path."""

    found: str
    """What the answer is, such as `200 OK with a page for a browser`."""

    def __str__(self) -> str:
        return (
            f"{self.url}: the answer to {self.request} is not Chroma's ({self.found}); see whether the address is "
            f"right and whether a proxy, gateway or login page answers in its place, then try again"
        )


# -- models and embedding ----------------------------------------------------------------------------------------------


class ModelUnavailable(UpsertCliError):
    """Raised when one source of models cannot provide a model; the next one is asked."""

    reason: str

    def __str__(self) -> str:
        return self.reason
