"""Every error that a user can cause, as a tree, each with its exit code.

    UpsertCliError            1   the tool could not work, or the task failed
    ├── UsageFault            2   the command line is wrong
    ├── Refusal               4   nothing was written, on purpose
    ├── Canceled              5   another process canceled the task
    └── Interrupted     128 + n   a signal stopped the task, after a checkpoint

    ItemError                 -   one item cannot be loaded; it is rejected and its neighbours go on

The text of an error is one line: what happened, where, and what to do next. Code raises one of the kinds with a
`message`; an error gets a class only if some code catches it. The core raises errors, and the error boundary of the
command line turns them into messages and exit codes.
"""

from __future__ import annotations

import enum
import shlex
import signal
from typing import Any, dataclass_transform

# -- kinds -------------------------------------------------------------------------------------------------------------

SOME_REJECTED = 3  # the exit code of a task that is done although items were rejected; not an error, so no class


@dataclass_transform(kw_only_default=True, eq_default=False)
class UpsertCliError(Exception):
    """The root of all errors that the user can correct; any other exception that escapes is a bug.

    The annotated names of a class are its fields, given by keyword as in a dataclass. A real dataclass would compile
    code for each class whenever a command starts.
    """

    exit_code = 1
    message: str = ""
    """What happened, where, and what to do next, in one line."""

    sentence = ""
    """The message of a class with further fields, whose values replace their names in braces."""

    def __init__(self, **data: Any) -> None:
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, UpsertCliError)]
        known = {name for kind in kinds for name in kind.__annotations__}
        missing = {name for name in known if not hasattr(type(self), name)} - set(data)
        if wrong := sorted(missing | (set(data) - known)):
            raise TypeError(f"{type(self).__name__} has the fields {sorted(known)}; missing or unknown: {wrong}")
        super().__init__()
        vars(self).update(data)

    def __str__(self) -> str:
        return self.message or self.sentence.format_map(vars(self))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Some errors cross a pipe, and exceptions with keyword-only fields cannot be pickled otherwise.
        return _restore, (type(self), vars(self))


def _restore(kind: type[UpsertCliError], data: dict[str, Any]) -> UpsertCliError:
    error = kind.__new__(kind)
    vars(error).update(data)
    return error


class UsageFault(UpsertCliError):
    """Raised when the command line is wrong."""

    exit_code = 2


class Refusal(UpsertCliError):
    """Raised when the tool writes nothing, on purpose."""

    exit_code = 4


def reason_of(error: BaseException) -> str:
    """Return the reason of an error on one line; a system's error loses its number: `No space left on device`."""
    words = error.strerror if isinstance(error, OSError) else None
    return words or " ".join(str(error).split()) or type(error).__name__


class Stage(enum.StrEnum):
    """The stage at which an item was rejected; the `failure_stage` of a reject."""

    READING = "on_reading"
    DOWNLOADING = "on_downloading"
    SPLITTING = "on_splitting"
    INFERENCE = "on_inference"
    UPSERT = "on_upsert"
    OTHER = "other"


class ItemError(Exception):
    """Raised when one item cannot be loaded, and only that item."""

    def __init__(self, detail: str, *, stage: Stage = Stage.READING) -> None:
        """Take the reason in one line, such as `payload.text is empty`."""
        super().__init__(detail)
        self.detail = detail
        self.stage = stage


# -- tasks -------------------------------------------------------------------------------------------------------------


class Canceled(UpsertCliError):
    """Raised when another process canceled the running task."""

    exit_code = 5
    task_id: str

    sentence = "task {task_id} was canceled; `upsert-cli restart {task_id}` continues it"


class Interrupted(UpsertCliError):
    """Raised when a signal stopped the task, after the written batches were committed."""

    task_id: str
    signal_number: int
    done: bool = False
    """The signal arrived after the end of the load."""

    queued: bool = False
    """The task returns to the queue, and any worker continues it."""

    @property
    def signal_name(self) -> str:
        """The name of the signal, such as `SIGTERM`."""
        return signal.Signals(self.signal_number).name

    def __str__(self) -> str:
        if self.done:
            return f"task {self.task_id} is done; {self.signal_name} came too late to stop it"
        stopped = f"task {self.task_id} was stopped by {self.signal_name}"
        if self.queued:
            return f"{stopped} and is pending; the next `upsert-cli work` continues it"
        return f"{stopped}; `upsert-cli restart {self.task_id}` continues it"


# -- the journal and output --------------------------------------------------------------------------------------------


class TaskNotFound(UpsertCliError):
    """Raised when the journal has no task with an id."""

    task_id: str
    journal: str
    """Folder of the journal that was searched."""

    unreadable: int = 0
    """Number of damaged files that could not be searched."""

    def __str__(self) -> str:
        if self.unreadable:
            return (
                f"there is no task {self.task_id!r} in the readable part of {self.journal}; `upsert-cli journal check` "
                f"lists its damaged files ({self.unreadable})"
            )
        return f"there is no task {self.task_id!r} in {self.journal}; `upsert-cli list` shows all tasks"


class TaskExists(Refusal):
    """Raised when the id of a new task is taken."""

    task_id: str

    sentence = "there is a task {task_id} already; see `upsert-cli info {task_id}`, or choose another id"


class TaskRunning(Refusal):
    """Raised when a task that another process runs is claimed."""

    task_id: str
    holder: object
    """The process that runs the task, as `pid 4242 on host since ...`."""

    sentence = "task {task_id} is being run by {holder}; wait for it, or stop it with `upsert-cli cancel {task_id}`"


class WrongStatus(UpsertCliError):
    """Raised when the status of a task does not allow an operation."""

    task_id: str
    status: str
    wanted: tuple[str, ...]
    """The statuses that allow the operation."""

    def __str__(self) -> str:
        return (
            f"task {self.task_id} is {self.status}, not {' or '.join(self.wanted)}, so nothing was changed; "
            f"`upsert-cli info {self.task_id}` shows it"
        )


class JournalUnwritable(UpsertCliError):
    """Raised when the journal cannot be written, and keeps its earlier content."""

    path: str
    reason: str
    """The message of the system, such as `No space left on device`."""

    sentence = (
        "the journal cannot be written: {path}: {reason}; make room or give access, "
        "or choose another folder with --journal"
    )


class JournalUnreadable(UpsertCliError):
    """Raised when a file of the journal exists but cannot be read."""

    path: str
    reason: str

    sentence = (
        "the journal cannot be read: {path}: {reason}; give this user access, or choose another folder with --journal"
    )


class JournalDamaged(UpsertCliError):
    """Raised when a file of the journal is damaged and has no intact copy."""

    path: str
    reason: str

    sentence = "the journal file {path} is damaged ({reason}); `upsert-cli journal check` lists the damage"


class LocksUnsupported(UpsertCliError):
    """Raised when the file system has no locks that the kernel frees when their holder dies."""

    path: str

    sentence = (
        "{path} cannot be locked, and without a lock two loads would destroy each other's work; "
        "use a local disk on Linux or macOS (--journal names the journal's folder)"
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
        name = "standard input" if self.name == "-" else self.name
        where = f"{name} cannot be read beyond row {self.row}" if self.row else f"{name} cannot be read"
        if self.remedy is not None:
            return f"{where}: {self.reason}; {self.remedy}"
        if self.name == "-":
            return f"{where} ({self.reason}); correct the data that is piped in, then load again"
        remedy = "check that it can be reached" if "://" in self.name else "repair the file"
        return f"{where} ({self.reason}); {remedy} or leave it out, then load again"


# -- collections -------------------------------------------------------------------------------------------------------


def repair_command(collection: str, path: str) -> str:
    """Return the command that repairs a collection."""
    return f"upsert-cli verify --repair --collection {shlex.quote(collection)} --chroma {shlex.quote(path)}"


class TargetInUse(Refusal):
    """Raised when another upsert-cli holds the lease of the folder, or of the collection on a server."""

    path: str
    holder: str
    """The process that holds the lease, as `pid 4242 on host since ...`."""

    collection: str = ""
    """The collection on a server; empty for a folder, whose lease covers all collections."""

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
    """The program, as `pid 4242 (python3)`; empty if not known."""

    def __str__(self) -> str:
        return (
            f"another program is writing to {self.path}{self.program and f': {self.program}'}; two writers destroy the "
            f"index: stop it, or let it end, then try again"
        )


class TargetDamaged(UpsertCliError):
    """Raised when a collection's index cannot be read or lacks records."""

    path: str
    collection: str
    detail: str
    lacks_vectors: bool = False
    """The index can be opened, but lacks so many vectors that reading the collection was given up."""

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} is damaged ({self.detail}); its documents survive: "
            f"`{repair_command(self.collection, self.path)}` repairs it"
        )


class NotChromasAnswer(UpsertCliError):
    """Raised when an answer does not come from Chroma, so that a write may not have happened."""

    url: str
    request: str
    """The method and the path."""

    found: str
    """A description of the answer, such as `200 OK with a page for a browser`."""

    may_pass: bool = False
    """Whether Chroma may answer the same request a moment later."""

    sentence = (
        "{url}: the answer to {request} is not Chroma's ({found}); check the address, and "
        "whether a proxy, gateway or login page answers in its place, then try again"
    )


# -- models and embedding ----------------------------------------------------------------------------------------------


class ModelUnavailable(UpsertCliError):
    """Raised when one origin cannot provide a model, so that the next one is tried."""

    reason: str
    missing: tuple[str, ...] = ()
    """Packages to install, such as `onnx>=1.18`."""

    sentence = "{reason}"
