"""Files of one JSON value a line: append-only, and cut back on resume to the length in the checkpoint."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from upsert_cli.atomic import make_folder, open_private, replacing, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.file_access import reading_from, writing_to

_T = TypeVar("_T")
_SURROGATE = re.compile("[\ud800-\udfff]")
# In JSON text: an escaped backslash, a pair of surrogates, or (as group 1) a lone surrogate. Compiled when used.
_ESCAPED_SURROGATE = r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})"


class JsonLines:
    """A file that is open for appending; it is made when the first value is written."""

    def __init__(self, path: Path, descriptor: int | None, length: int) -> None:
        """Take over a descriptor; use `open_at` or `rewriting`."""
        self._path = path
        self._descriptor = descriptor
        self._length = length

    @classmethod
    def open_at(cls, path: Path, length: int) -> Self:
        """Open a file after its first `length` bytes, and drop the others."""
        with writing_to(path):
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                return cls(path, None, 0)
            length = min(length, os.fstat(descriptor).st_size)  # never fill up lost bytes with zeros
            os.ftruncate(descriptor, length)
            return cls(path, descriptor, length)

    @classmethod
    @contextmanager
    def rewriting(cls, path: Path) -> Iterator[Self]:
        """Yield an empty file that replaces `path`, durably, unless the block raises."""
        with ExitStack() as stack:  # so that errors of the block are not taken for those of the file
            with writing_to(path):
                make_folder(path.parent)
                descriptor = stack.enter_context(replacing(path, durable=True))
            yield cls(path, descriptor, 0)
            with writing_to(path):
                stack.close()

    def append(self, values: Iterable[Any]) -> int:
        """Add values and return the length of the file in bytes, which belongs in the checkpoint."""
        content = "".join(f"{self.line_of(value)}\n" for value in values).encode("ascii")
        if content:
            with writing_to(self._path):
                self._write(content)
            self._length += len(content)
        return self._length

    @staticmethod
    def line_of(value: Any) -> str:
        """Return a value as a line of the file, in ASCII."""
        return valid_json(value)

    def close(self) -> None:
        """Close the file; its content survives a power failure from then on."""
        if self._descriptor is None:
            return
        with writing_to(self._path):
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, content: bytes) -> None:
        if self._descriptor is None:
            make_folder(self._path.parent)
            self._descriptor = open_private(self._path, os.O_RDWR | os.O_CREAT)
        # Always at the length that is known to be good, over the rest of an incomplete write.
        os.lseek(self._descriptor, self._length, os.SEEK_SET)
        write_all(self._descriptor, content)


def read_json_lines(
    path: Path, parse: Callable[[Any], _T | None], *, length: int | None = None
) -> Iterator[tuple[_T, int]]:
    """Yield the values of a file, each with the bytes that its line takes; nothing if the file is missing.

    Args:
        path: The file.
        parse: Makes the result of a JSON value; None if the value has the wrong shape.
        length: Bytes to read at most, as the checkpoint says; None: all.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    try:
        with reading_from(path):
            descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        lines = _whole_lines(file, os.fstat(descriptor).st_size if length is None else length)
        for number, line in enumerate(lines, 1):
            try:
                value = parse(json.loads(line.decode("ascii")))  # as bytes, zeros would be taken for UTF-32
            except (ValueError, RecursionError) as error:
                raise JournalDamaged(path=str(path), reason=f"line {number} is not JSON: {error}") from error
            if value is None:
                raise JournalDamaged(path=str(path), reason=f"line {number} is not a record of this file")
            yield value, len(line)


def file_size(path: Path) -> int:
    """Return the length of a file in bytes; 0 if it is missing."""
    try:
        with reading_from(path):
            return path.lstat().st_size
    except FileNotFoundError:
        return 0


def valid_text(text: str) -> str:
    """Return text that every encoder takes: lone surrogates become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def valid_json(value: object) -> str:
    """Return JSON on one line of ASCII, in which lone surrogates became U+FFFD."""
    text = json.dumps(value, allow_nan=False)
    # On the text rather than the value, so that the depth of a value costs no recursion of ours.
    if r"\ud" not in text:
        return text
    return re.sub(_ESCAPED_SURROGATE, lambda match: r"\ufffd" if match[1] else match[0], text)


def _whole_lines(lines: Iterable[bytes], length: int) -> Iterator[bytes]:
    for line in lines:
        length -= len(line)
        if length < 0 or not line.endswith(b"\n"):
            return  # beyond the checkpoint, or just being written
        yield line
