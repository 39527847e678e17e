"""The meaning of Chroma's errors: a faulty row, an error that passes, or a fault that the user has to fix."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from upsert_cli.errors import TargetDamaged, UpsertCliError
from upsert_cli.limits import SET_CLOCK, limit_reached
from upsert_cli.redaction import without_secrets
from upsert_cli.retry import call_with_retries
from upsert_cli.store.address import is_server
from upsert_cli.store.folder import unusable, why_full
from upsert_cli.store.target import Target

P = ParamSpec("P")
R = TypeVar("R")

RETRY_SECONDS = 30.0  # seconds that another program may keep the database locked
DETAIL_CHARACTERS = 300  # characters of a reason; some of Chroma's messages repeat a whole value

_DATA_FAULTS = {"DuplicateIDError", "InvalidArgumentError", "InvalidDimensionException", "BatchSizeExceededError"}
# The same classes of error mean a damaged collection when they come from reading the queue.
_COLLECTION_WORDS = ("compaction", "compactor", "executing plan", "expecting embedding with dimension")
_LOCK_WORDS = ("database is locked", "database table is locked", "database is busy")
_SPACE_WORDS = ("disk is full", "no space left on device", "disk quota exceeded")
_REMEDIES = (
    (_LOCK_WORDS, "stop the other program that writes to it, then restart the task"),
    (
        ("readonly database", "read-only file system", "permission denied", "unable to open database file"),
        "give this user access, or choose another folder with --chroma",
    ),
    (("disk i/o error", "input/output error"), "check the disk, then restart the task"),
    (
        ("inconsistent hash", "inconsistent version", "unapplied migrations"),
        "use the version of chromadb that wrote it, or load its records elsewhere: `upsert-cli help rescue`",
    ),
    (("before unix epoch",), f"the clock of this machine is before 1970: {SET_CLOCK}"),
)


def is_data_fault(error: BaseException) -> bool:
    """Return whether a call failed because of one of its rows, or of their number."""
    if not isinstance(error, ValueError | TypeError | OverflowError) and type(error).__name__ not in _DATA_FAULTS:
        return False
    return not _speaks_of(error, _COLLECTION_WORDS)


def is_of_kind(error: BaseException, *names: str) -> bool:
    """Return whether an error is of one of Chroma's classes, by name: importing them takes long, or is impossible."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


def is_passing(error: BaseException) -> bool:
    """Return whether the same call may work a moment later."""
    return _speaks_of(error, _LOCK_WORDS)


retrying_locks = functools.partial(call_with_retries, is_passing=is_passing, seconds=RETRY_SECONDS)


def lacks_vector(error: object) -> bool:
    """Return whether an error or its message means that the index lacks a vector, which fails a whole request."""
    return "finding id" in str(error)


def reason(error: BaseException) -> str:
    """Return an error's message as one short line without secrets."""
    return short_line(str(error).removesuffix(" in upsert.").removesuffix(" in update.") or type(error).__name__)


def short_line(text: str) -> str:
    """Return a text as one short line without secrets, which are masked before the line is cut."""
    line = " ".join(without_secrets(text).split())
    return line if len(line) <= DETAIL_CHARACTERS else f"{line[: DETAIL_CHARACTERS - 3]}..."


def string_fault(what: str, value: Any) -> str | None:
    """Return one line of reason why a value cannot be stored as text; None if it can."""
    if not isinstance(value, str):
        return f"{what} is of type {type(value).__name__}, not a string"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"{what} has half a surrogate pair at character {error.start + 1}"
    return None


def meaning(error: BaseException, target: Target) -> UpsertCliError | None:
    """Return an error with a remedy for an error of Chroma's; None if it is a bug."""
    if isinstance(error, UpsertCliError):
        return error
    if (limit := limit_reached(error, by_words=True)) is not None:
        return limit
    if is_of_kind(error, "NotFoundError"):
        remedy = "load it again: restart its task with --from-start"
        return unusable(target.path, reason=f"the collection {target.collection} is gone", remedy=remedy)
    return _of_a_server(error, target) if is_server(target.path) else _of_a_folder(error, target)


@contextmanager
def understood(target: Target) -> Iterator[None]:
    """Turn Chroma's errors that no row has caused into errors with a remedy."""
    try:
        yield
    except BaseException as error:
        known = meaning(error, target)
        if known is None or known is error:
            raise
        raise known from error


def ask(target: Target, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call Chroma, wait for locks on a folder's database, and turn errors into errors with a remedy."""
    with understood(target):
        return retrying_locks(functools.partial(call, *args, **kwargs))


def _of_a_server(error: BaseException, target: Target) -> UpsertCliError | None:
    # chromadb raises a bare Exception with the server's words for an answer that it does not know. In a write,
    # `Unacceptable` blames a row and was caught before.
    if is_of_kind(error, "ChromaError", "Unacceptable") or type(error) is Exception:
        return server_fails(target.path, target.collection, reason(error))
    if isinstance(error, ValueError | TypeError | LookupError | AttributeError) and _is_raised_by_chromadb(error):
        found = f"its description of the collection cannot be used, {type(error).__name__}: {reason(error)}"
        return server_fails(target.path, target.collection, found)
    return None


def server_fails(url: str, collection: str, reason: str) -> UpsertCliError:
    """Return the error for a failure of a server that no row has caused and that does not pass."""
    where = f" on the collection {collection}" if collection else ""
    return UpsertCliError(
        message=f"{url} fails{where} ({reason}); its own log says more. Once the server is repaired, try again"
    )


def _is_raised_by_chromadb(error: BaseException) -> bool:
    """Return whether chromadb raised an error, which uses the answers of a server unchecked."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("chromadb.")


def _of_a_folder(error: BaseException, target: Target) -> UpsertCliError | None:
    if _speaks_of(error, _SPACE_WORDS):
        return why_full(Path(target.path))
    for words, remedy in _REMEDIES:
        if _speaks_of(error, words):
            return unusable(target.path, reason=reason(error), remedy=remedy)
    # Errors of the engine. A panic of its Rust code is a BaseException of a class that cannot be imported.
    if is_of_kind(error, "ChromaError", "PanicException"):
        return TargetDamaged(path=target.path, collection=target.collection, detail=reason(error))
    return None


def _speaks_of(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)
