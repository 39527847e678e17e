"""A file on a web server: its facts, and its bytes from any position on, taken only from answers that hold them."""

from __future__ import annotations

import email.utils
import re
from contextlib import closing, suppress

from upsert_cli.sources.http_get import HttpAnswer, get
from upsert_cli.sources.remote import Facts, Unsteady

LONGEST_WAIT = 30.0  # seconds for the headers of an answer, and for bytes; longer than a slow disk takes
SHORTEST_WAIT = 1.0  # seconds, however short the time for retries is
DISCARDED = 1 << 20  # bytes read at once on the way to a position, if a server knows no ranges

_PARTIAL, _NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE | re.ASCII)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)
_NUMBER = re.compile(r"\d+", re.ASCII)
_COMPRESSED = ("gzip", "x-gzip", "zstd")  # encodings in which a file may be stored; its suffix or --format names them


class HttpFile:
    """An open file on a web server; implements `RangeReader`. Read from start to end, it takes one answer."""

    def __init__(self, address: str, *, retry_for: float) -> None:
        """Ask for the facts about the file.

        Raises:
            Unsteady: The server cannot be reached, or is busy.
            OSError: The server does not allow reading the file.
        """
        self._address = address
        self._seconds = min(LONGEST_WAIT, max(SHORTEST_WAIT, retry_for))
        self._answer: _Content | None = None
        self.facts, self._coding = self._asked_facts()

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; no bytes only at the end."""
        if self.facts.size is not None and position >= self.facts.size:
            return b""
        try:
            answer = self._answer_at(position)
            if answer is None:
                return b""
            data = answer.read(size, seconds=self._seconds)
            if answer.is_read:
                self.close()
        except OSError:
            self.close()
            raise
        return data

    def close(self) -> None:
        """Close the connection."""
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _asked_facts(self) -> tuple[Facts, str]:
        # One byte costs nothing, and only the total of its range tells the length of a generated file. An empty file
        # has no such byte, and some servers do not say the total.
        for wanted in ("bytes=0-0", None):
            with closing(get(self._address, wanted=wanted, seconds=self._seconds)) as answer:
                if answer.status == _NOT_SATISFIABLE:
                    if _EMPTY.fullmatch(answer.header("Content-Range") or ""):
                        return Facts(size=0, mtime_ns=_modified(answer), etag=answer.header("ETag")), ""
                    continue
                content = _Content(answer, begin=0, is_range=wanted is not None)
                if content.total is not None or answer.status != _PARTIAL:
                    return Facts(size=content.total, mtime_ns=content.mtime_ns, etag=content.etag), content.coding
        raise OSError("its server answers 416 to a request for the whole file")

    def _answer_at(self, position: int) -> _Content | None:
        """Return an answer that is at a position, or None if the file turns out to end there."""
        if self._answer is not None and self._answer.position == position:
            return self._answer
        self.close()
        wanted = f"bytes={position}-" if position else None
        answer = get(self._address, wanted=wanted, seconds=self._seconds)
        try:
            if answer.status == _NOT_SATISFIABLE:
                if self.facts.size is None and answer.header("Content-Range") == f"bytes */{position}":
                    answer.close()
                    return None
                raise OSError(f"its server answers 416 to a request for bytes from {position} on")
            content = _Content(answer, begin=position, is_range=wanted is not None)
            content.check(self.facts, coding=self._coding)
            while content.position < position:  # the server knows no ranges, and begins at the start
                if not content.read(min(DISCARDED, position - content.position), seconds=self._seconds):
                    raise Unsteady("the connection broke off")
        except BaseException:
            answer.close()
            raise
        self._answer = content
        return content


class _Content:
    """The bytes of an answer, from a position of the file up to where the server says."""

    def __init__(self, answer: HttpAnswer, *, begin: int, is_range: bool) -> None:
        """Check that an answer holds the bytes that were requested.

        Args:
            answer: With status 200 or 206.
            begin: The first byte that was asked for.
            is_range: Whether a range was asked for, and not the whole file.

        Raises:
            OSError: It does not.
        """
        self._answer = answer
        self.etag = answer.header("ETag")
        self.mtime_ns = _modified(answer)
        self.coding = _coding(answer)
        length = _length(answer)
        self.position, self._end, self.total = 0, length, length
        if answer.status == _PARTIAL:
            if not is_range:
                raise OSError("its server answers with a range of the file where the whole file was asked for")
            self.position, self._end, self.total = _range(answer, begin)
            if length not in (None, self._end - self.position):
                raise OSError("its server answers with a range and a Content-Length that contradict each other")

    @property
    def is_read(self) -> bool:
        """Tell whether nothing more can be read from this answer."""
        return self._answer.is_broken or self.position == self._end

    def check(self, facts: Facts, *, coding: str) -> None:
        """Check that the answer is of the same file as the first one.

        Raises:
            OSError: It is not.
        """
        if (self.etag, self.mtime_ns, self.coding) != (facts.etag, facts.mtime_ns, coding):
            raise OSError("it changed while it was being read")
        is_partial = self._answer.status == _PARTIAL
        if self.total != facts.size and (is_partial or None not in (self.total, facts.size)):
            raise OSError("it changed while it was being read (its length is different)")
        if self._end is None:
            self._end = facts.size

    def read(self, size: int, *, seconds: float) -> bytes:
        """Return up to `size` bytes; no bytes only at an end that the server did not announce.

        Raises:
            Unsteady: The connection broke off, or is too slow.
            OSError: More bytes arrive than the server said.
        """
        left = size if self._end is None else min(size, self._end - self.position)
        data = self._answer.read(left, is_announced=self._end is not None, seconds=seconds)
        self.position += len(data)
        if self.position == self._end and not self._answer.has_ended():
            raise OSError(f"its server sends more than the {self._end} bytes that it says")
        return data

    def close(self) -> None:
        self._answer.close()


def _range(answer: HttpAnswer, begin: int) -> tuple[int, int, int | None]:
    """Return the begin and the end of a partial answer, and the length of the file, None if the server does not know.

    Raises:
        OSError: They are missing, or are not those of the range that was asked for.
    """
    if (answer.header("Content-Type") or "").lower().startswith("multipart/"):
        raise OSError("its server answers with several ranges where one was asked for")
    value = answer.header("Content-Range")
    found = _CONTENT_RANGE.fullmatch(value or "")
    if found is None:
        raise OSError(f"its server answers with a range and does not say which (Content-Range: {value or 'none'})")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first != begin or last < first or (total is not None and last >= total):
        raise OSError(f"its server answers with the wrong range ({value} where bytes from {begin} on were asked for)")
    return first, last + 1, total


def _length(answer: HttpAnswer) -> int | None:
    """Return the bytes of the answer's body, None if the server does not say."""
    value = answer.header("Content-Length")
    if value is None or answer.is_chunked:
        return None
    if not _NUMBER.fullmatch(value):
        raise OSError(f"its server answers with a Content-Length of {value}")
    return int(value)


def _coding(answer: HttpAnswer) -> str:
    coding = (answer.header("Content-Encoding") or "identity").lower()
    if coding not in ("identity", *_COMPRESSED):
        raise OSError(f"its server sends it with Content-Encoding {coding}, which was not asked for")
    return coding


def _modified(answer: HttpAnswer) -> int:
    with suppress(TypeError, ValueError):
        moment = email.utils.parsedate_to_datetime(answer.header("Last-Modified") or "")
        return int(moment.timestamp()) * 1_000_000_000
    return 0
