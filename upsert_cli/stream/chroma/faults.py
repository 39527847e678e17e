"""What is wrong with a row before Chroma sees it, and what Chroma means by an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upsert_cli.errors import ServerRefuses, TargetDamaged, TargetUnusable, UpsertCliError
from upsert_cli.stream.chroma.address import is_server
from upsert_cli.stream.chroma.folder import why_full
from upsert_cli.stream.chroma.rows import Target

# Some rows are not rejected but queued, and then fail at every later call on the collection, for good. The engine's
# limits are 5,460 keys, some 6,000 values in all lists of a row, and 32,766 keys taken away; ours are far below.
MAX_KEYS = 1_000
MAX_LIST_VALUES = 1_000
MAX_REMOVED_KEYS = 10_000
INT64 = range(-(2**63), 2**63)  # Chroma turns larger integers into floats, in silence
KEY_CHARACTERS = 60  # characters of a key in a reason
DETAIL_CHARACTERS = 300  # characters of a reason; some of Chroma's repeat the whole value

_DATA_FAULTS = {"DuplicateIDError", "InvalidArgumentError", "InvalidDimensionException", "BatchSizeExceededError"}
# The same classes of error mean a damaged collection when they come from reading what was queued.
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
        "use the version of chromadb that wrote it",
    ),
)


def row_fault(identifier: Any, text: Any, metadata: Any) -> str | None:
    """Returns why Chroma would reject a row, be poisoned by it or change it in silence, in one line; None if good.

    Args:
        identifier: The id.
        text: The document; it may be empty.
        metadata: Keys and values; a value of None takes the key away.
    """
    return (
        string_fault("the id", identifier)
        or (None if identifier else "the id is empty")
        or string_fault("the text", text)
        or _metadata_fault(metadata)
    )


def string_fault(what: str, value: Any) -> str | None:
    """Returns why something cannot be stored as text, in one line; None if it can."""
    if not isinstance(value, str):
        return f"{what} is of type {type(value).__name__}, not a string"
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"{what} has half a surrogate pair at character {error.start + 1}"
    return None


def _metadata_fault(metadata: Any) -> str | None:
    if not isinstance(metadata, Mapping) or not metadata:
        return "the metadata is empty" if isinstance(metadata, Mapping) else "the metadata is not an object"
    removed = sum(value is None for value in metadata.values())
    if len(metadata) - removed > MAX_KEYS:
        return f"the metadata has {len(metadata) - removed} keys, and {MAX_KEYS} are the limit"
    if removed > MAX_REMOVED_KEYS:
        return f"{removed} metadata keys are to be removed, and {MAX_REMOVED_KEYS} are the limit"
    listed = 0
    for key, value in metadata.items():
        if fault := _key_fault(key) or _value_fault(key, value):
            return fault
        listed += len(value) if isinstance(value, list) else 0
    if listed > MAX_LIST_VALUES:
        return f"the lists in the metadata have {listed} values, and {MAX_LIST_VALUES} are the limit"
    return None


def _key_fault(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"a metadata key is of type {type(key).__name__}, not a string"
    if not key or key[0] in "#$" or key.startswith("chroma:"):
        return f"the metadata key {_short(key)} is reserved by Chroma" if key else "a metadata key is empty"
    return string_fault("a metadata key", key)


def _value_fault(key: str, value: Any) -> str | None:
    if isinstance(value, list):
        if not value:
            return f"metadata {_short(key)} is an empty list"
        if len({type(part) for part in value}) > 1 or not isinstance(value[0], str | int | float):
            return f"metadata {_short(key)} is a list of other than strings, numbers or booleans of one kind"
        return next((fault for part in value if (fault := _scalar_fault(key, part))), None)
    return None if value is None else _scalar_fault(key, value)


def _scalar_fault(key: str, value: Any) -> str | None:
    if isinstance(value, str):
        return string_fault(f"metadata {_short(key)}", value)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"metadata {_short(key)} is {value}, not a finite number"
    if isinstance(value, int):
        return None if value in INT64 else f"metadata {_short(key)} does not fit into 64 bits"
    return f"metadata {_short(key)} is of type {type(value).__name__}, which Chroma does not store"


def _short(key: str) -> str:
    return repr(key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}...")


def is_data_fault(error: BaseException) -> bool:
    """Tells whether a call failed for one of its rows, or for their number."""
    if not isinstance(error, ValueError | TypeError | OverflowError) and type(error).__name__ not in _DATA_FAULTS:
        return False
    return not _speaks_of(error, _COLLECTION_WORDS)


def is_missing(error: BaseException) -> bool:
    """Tells whether there is no collection of that name."""
    return "NotFoundError" in _kinds(error)


def is_bad_argument(error: BaseException) -> bool:
    """Tells whether Chroma does not accept what it was given."""
    return "InvalidArgumentError" in _kinds(error)


def is_passing(error: BaseException) -> bool:
    """Tells whether the same call may work a moment later."""
    return _speaks_of(error, _LOCK_WORDS)


def reason(error: BaseException) -> str:
    """Returns an error's message as one line of plain text."""
    text = " ".join(str(error).split()) or type(error).__name__
    for call in (" in upsert.", " in update."):
        text = text.removesuffix(call)
    return text if len(text) <= DETAIL_CHARACTERS else f"{text[: DETAIL_CHARACTERS - 3]}..."


def meaning(error: BaseException, target: Target) -> UpsertCliError | None:
    """Returns what a user can do about an error of Chroma that is no row's fault; None if it is a bug."""
    if isinstance(error, UpsertCliError):
        return error
    if is_missing(error):
        remedy = "load it anew: `upsert-cli restart TASK_ID --from-start`"
        return TargetUnusable(path=target.path, reason=f"the collection {target.collection} is gone", remedy=remedy)
    return _of_a_server(error, target) if is_server(target.path) else _of_a_folder(error, target)


def _of_a_server(error: BaseException, target: Target) -> UpsertCliError | None:
    # chromadb raises a bare Exception with the server's words for an answer that it does not know; the session says
    # that a request is unacceptable, which here is no row's fault.
    if _kinds(error) & {"ChromaError", "Unacceptable"} or type(error) is Exception:
        return ServerRefuses(url=target.path, collection=target.collection, reason=reason(error))
    return None


def _of_a_folder(error: BaseException, target: Target) -> UpsertCliError | None:
    if _speaks_of(error, _SPACE_WORDS):
        return why_full(Path(target.path))
    for words, remedy in _REMEDIES:
        if _speaks_of(error, words):
            return TargetUnusable(path=target.path, reason=reason(error), remedy=remedy)
    # The engine's own errors; a panic of its Rust code is a BaseException, and not of a class that can be imported.
    if _kinds(error) & {"ChromaError", "PanicException"}:
        return TargetDamaged(path=target.path, collection=target.collection, detail=reason(error))
    return None


def _kinds(error: BaseException) -> set[str]:
    """Returns the names of an error's classes: Chroma's cannot be imported without Chroma, or not at all."""
    return {kind.__name__ for kind in type(error).__mro__}


def _speaks_of(error: BaseException, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word in text for word in words)
