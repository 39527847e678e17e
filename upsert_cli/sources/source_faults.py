"""Errors for sources that cannot be found or read, with the way to load them."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path

from upsert_cli.errors import Refusal, SourceUnreadable, UpsertCliError, UsageFault, reason_of
from upsert_cli.sources.addresses import file_name, is_address
from upsert_cli.sources.formats import GZIP, KNOWN_SUFFIXES, STDIN, ZSTD, Unsuitable, head_of, kind_of_file

_COMPRESSED = {".gz": GZIP, ".zst": ZSTD}


def not_found(name: str) -> UsageFault:
    """Return the error for a name that stands for nothing."""
    return UsageFault(message=f"{name} does not exist; name a file, a folder or a glob, or `-` for standard input")


def unknown_format(name: str, *, path: Path | None = None) -> UsageFault:
    """Return the error for a file with an unknown suffix, and with a known kind if its path is given."""
    message = _by_kind(name, path) if path is not None else None
    if message is not None:
        return UsageFault(message=message)
    hint = "; `jq -c '.[]'` converts a JSON array to JSONL" if name.lower().endswith(".json") else ""
    return UsageFault(
        message=f"{name} has none of the suffixes {', '.join(KNOWN_SUFFIXES)}; "
        f"--format says what it is, such as --format jsonl{hint}"
    )


def _by_kind(name: str, path: Path) -> str | None:
    """Return the message about a file whose first bytes show its kind; None for text or an unreadable file."""
    head = b""
    with suppress(OSError):  # the missing suffix is the first thing to correct
        head = head_of(path)
    ending = path.suffix.lower()
    if ending in _COMPRESSED and head.startswith(_COMPRESSED[ending]):
        return (
            f"{name} has no suffix that tells the format in it; --format says what it is, such as "
            f"--format jsonl{ending}"
        )
    if (found := kind_of_file(head)) is None:
        return None
    kind, remedy = found
    remedy = remedy.replace("FILE", _quoted(str(path)))
    return f"{name} has no suffix that tells its format; it is {kind}; {remedy}"


def source_changed(name: str, change: str, *, task_id: str | None = None) -> Refusal:
    """Return the error for a source that changed since a checkpoint, which is not valid for it any more.

    Args:
        name: The name of the source.
        change: Such as `size 120 -> 180 bytes`.
        task_id: The task, if the reader of the file knows it.
    """
    again = "with --from-start a restart" if task_id is None else f"`upsert-cli restart {task_id} --from-start`"
    return Refusal(
        message=f"{name} changed since the task was last run ({change}), so its checkpoint is no longer valid; "
        f"{again} reads it again"
    )


def source_gone(name: str, reason: str) -> Refusal:
    """Return the error for a source that a restart cannot open any more."""
    return Refusal(message=f"{name} cannot be read any more ({reason}); put it back unchanged, then try again")


def unreadable(name: str, format_name: str, error: OSError, *, row: int = 0) -> SourceUnreadable:
    """Return the error for a source that cannot be read beyond a row."""
    remedy = _remedy(name, format_name, error) if isinstance(error, Unsuitable) else None
    return SourceUnreadable(name=name, reason=reason_of(error), row=row, remedy=remedy)


def not_loadable(name: str, format_name: str, error: OSError) -> UpsertCliError:
    """Return the error for a source of which nothing can be read, before there is a task."""
    if isinstance(error, Unsuitable) and error.is_usage:
        where = "standard input" if name == STDIN else name
        return UsageFault(message=f"{where} cannot be loaded unchanged: {error}; {_remedy(name, format_name, error)}")
    return unreadable(name, format_name, error)


def _remedy(name: str, format_name: str, error: Unsuitable) -> str:
    """Return the remedy with the names of a file on this machine, after the steps that put it there."""
    form, dot, ending = format_name.partition(".")
    steps = []
    if re.search("FILE|PACKED", error.remedy):
        if is_address(name):
            name = file_name(name)
            steps.append("download it")
        elif name == STDIN:
            name = "FILE"
            steps.append("save it to a file")
    unpacked = name
    if dot and "FILE" in error.remedy:
        unpacked = name[: -len(ending) - 1] if name.lower().endswith(f".{ending}") else name
        steps.append("unpack it")
    # In one step, since the name of a file may hold these words.
    words = {"FILE": _quoted(unpacked), "PACKED": _quoted(name), "FORMAT": form}
    remedy = re.sub("|".join(words), lambda found: words[found[0]], error.remedy)
    return f"{' and '.join(steps)}, then {remedy}" if steps else remedy


def _quoted(name: str) -> str:
    """Return the name of a file for the shell, in a form that no command takes for an option."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
