"""The text of an item whose `item_info` names a file, read only from below one folder.

A file of items may come from anybody, so its paths are never trusted: each part of a path is opened relative to the
folder before it, and never through a symbolic link, so no path leads out of the folder.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.values import as_utf8

REFERENCE_FIELDS = ("file_path", "url")
MAX_REFERENCE = 8 << 20  # bytes; the limit of any text
SHOWN_PATH = 200  # characters of a path in a message

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking, since a pipe without a writer would block the load for ever.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def reference_of(info: Mapping[str, Any] | None) -> str | None:
    """Return the path of the file that holds the text of an item, by its `item_info`; None if it names no file.

    Raises:
        ItemError: The path is bytes that are not UTF-8.
    """
    field = reference_field(info)
    return None if info is None or field is None else str(as_utf8(info[field], f"item_info.{field}"))


def reference_field(info: Mapping[str, Any] | None) -> str | None:
    """Return the field of `item_info` that names the file with the text of an item, or None."""
    for field in REFERENCE_FIELDS:
        path = info.get(field) if info is not None else None
        if isinstance(path, str | bytes) and path:
            return field
    return None


def read_reference(root: Path, path: str) -> str:
    """Return the text of a file below `root`.

    Args:
        root: The folder of `--refs-root`, which may itself be a link.
        path: Relative to `root`, separated by `/`.

    Raises:
        ItemError: The path leads elsewhere, or the file is missing, empty, too large or not UTF-8.
    """
    with _opened(root, _parts(path), path) as file:
        content = _content(file, path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _fault(path, f"is not UTF-8: byte 0x{content[error.start]:02x} at byte {error.start + 1}") from error
    if not text or text.isspace():
        raise _fault(path, "is empty")
    return text


def _parts(path: str) -> list[str]:
    """Return the names that a path consists of; raise ItemError if it may lead out of the folder."""
    if "\0" in path:
        raise _fault(path, "holds a NUL character")
    if _SCHEME.match(path):
        raise _fault(path, "is an address; only files below --refs-root are read")
    if path.startswith("/"):
        raise _fault(path, "is absolute; it has to be relative to --refs-root")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise _fault(path, "leads out of --refs-root" if parts else "names no file")
    return parts


def _opened(root: Path, parts: list[str], path: str) -> BinaryIO:
    """Open a file part by part; the path itself is for messages."""
    folder = -1
    try:
        folder = os.open(root, _FOLDER_FLAGS & ~os.O_NOFOLLOW)
        for part in parts[:-1]:
            below = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
            os.close(folder)
            folder = below
        return open(parts[-1], "rb", opener=lambda name, _: os.open(name, _FILE_FLAGS, dir_fd=folder))
    except (OSError, UnicodeEncodeError) as error:
        raise _fault(path, _why(error)) from error
    finally:
        if folder >= 0:
            os.close(folder)


def _content(file: BinaryIO, path: str) -> bytes:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        raise _fault(path, "is not a regular file")
    try:
        content = file.read(MAX_REFERENCE + 1)
    except OSError as error:
        raise _fault(path, _why(error)) from error
    if len(content) > MAX_REFERENCE:
        raise _fault(path, f"is larger than {MAX_REFERENCE >> 20} MiB")
    return content


def _why(error: OSError | UnicodeEncodeError) -> str:
    """Return the problem with a path that could not be opened, after the path in a message."""
    if isinstance(error, UnicodeEncodeError):
        return "is not a name that the file system allows"
    match error.errno:
        case errno.ELOOP | errno.EMLINK:
            return "leads through a symbolic link, which is not followed"
        case errno.ENOTDIR:
            return "leads through a symbolic link or a file, which is not followed"
        case errno.ENOENT:
            return "is not there"
        case errno.EISDIR:
            return "is not a regular file"
    return f"cannot be read: {error.strerror}"


def _fault(path: str, problem: str) -> ItemError:
    return ItemError(stage=Stage.DOWNLOADING, detail=f"the text's file {path[:SHOWN_PATH]!r} {problem}")
