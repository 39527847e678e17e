"""A file on a web server: its description, and its bytes from any position on, checked against every response."""

from __future__ import annotations

import email.utils
import re
from contextlib import closing, suppress

from upsert_cli.sources.http_get import HttpResponse, get
from upsert_cli.sources.remote import FileInfo, TransientError

LONGEST_WAIT = 30.0  # seconds for the headers of a response, and for bytes; longer than a slow disk takes
SHORTEST_WAIT = 1.0  # seconds, however short the time for retries is
DISCARDED = 1 << 20  # bytes read at once on the way to a position, if a server knows no ranges

_PARTIAL, _NOT_SATISFIABLE = 206, 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)", re.IGNORECASE | re.ASCII)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)
_NUMBER = re.compile(r"\d+", re.ASCII)
_COMPRESSED = ("gzip", "x-gzip", "zstd")  # encodings in which a file may be stored; its suffix or --format names them


class HttpFile:
    """An open file on a web server; implements `RangeReader`. Read from start to end, it takes one response."""

    def __init__(self, address: str, *, retry_for: float) -> None:
        """Request a description of the file.

        Raises:
            TransientError: The server cannot be reached, or is busy.
            OSError: The server does not allow reading the file.
        """
        self._address = address
        self._seconds = min(LONGEST_WAIT, max(SHORTEST_WAIT, retry_for))
        self._response: _Content | None = None
        self.info, self._coding = self._request_info()

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; no bytes only at the end."""
        if self.info.size is not None and position >= self.info.size:
            return b""
        try:
            response = self._response_at(position)
            if response is None:
                return b""
            data = response.read(size, seconds=self._seconds)
            if response.is_read:
                self.close()
        except OSError:
            self.close()
            raise
        return data

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _request_info(self) -> tuple[FileInfo, str]:
        # One byte costs nothing, and only the total of its range tells the length of a generated file. An empty file
        # has no such byte, and some servers do not say the total.
        for wanted in ("bytes=0-0", None):
            with closing(get(self._address, wanted=wanted, seconds=self._seconds)) as response:
                if response.status == _NOT_SATISFIABLE:
                    if _EMPTY.fullmatch(response.header("Content-Range") or ""):
                        return FileInfo(size=0, mtime_ns=_modified(response), etag=response.header("ETag")), ""
                    continue
                content = _Content(response, begin=0, is_range=wanted is not None)
                if content.total is not None or response.status != _PARTIAL:
                    return FileInfo(size=content.total, mtime_ns=content.mtime_ns, etag=content.etag), content.coding
        raise OSError("its server answers 416 to a request for the whole file")

    def _response_at(self, position: int) -> _Content | None:
        """Return a response that is at a position, or None if the file turns out to end there."""
        if self._response is not None and self._response.position == position:
            return self._response
        self.close()
        wanted = f"bytes={position}-" if position else None
        response = get(self._address, wanted=wanted, seconds=self._seconds)
        try:
            if response.status == _NOT_SATISFIABLE:
                if self.info.size is None and response.header("Content-Range") == f"bytes */{position}":
                    response.close()
                    return None
                raise OSError(f"its server answers 416 to a request for bytes from {position} on")
            content = _Content(response, begin=position, is_range=wanted is not None)
            content.check(self.info, coding=self._coding)
            while content.position < position:  # the server knows no ranges, and begins at the start
                if not content.read(min(DISCARDED, position - content.position), seconds=self._seconds):
                    raise TransientError("the connection broke off")
        except BaseException:
            response.close()
            raise
        self._response = content
        return content


class _Content:
    """The bytes of a response, from a position of the file up to where the server says."""

    def __init__(self, response: HttpResponse, *, begin: int, is_range: bool) -> None:
        """Check that a response holds the bytes that were requested.

        Args:
            response: With status 200 or 206.
            begin: The first byte that was asked for.
            is_range: Whether a range was asked for, and not the whole file.

        Raises:
            OSError: It does not.
        """
        self._response = response
        self.etag = response.header("ETag")
        self.mtime_ns = _modified(response)
        self.coding = _coding(response)
        length = _length(response)
        self.position, self._end, self.total = 0, length, length
        if response.status == _PARTIAL:
            if not is_range:
                raise OSError("its server answers with a range of the file where the whole file was asked for")
            self.position, self._end, self.total = _range(response, begin)
            if length not in (None, self._end - self.position):
                raise OSError("its server answers with a range and a Content-Length that contradict each other")

    @property
    def is_read(self) -> bool:
        """Tell whether nothing more can be read from this response."""
        return self._response.is_broken or self.position == self._end

    def check(self, info: FileInfo, *, coding: str) -> None:
        """Check that the response is of the same file as the first one.

        Raises:
            OSError: It is not.
        """
        if (self.etag, self.mtime_ns, self.coding) != (info.etag, info.mtime_ns, coding):
            raise OSError("it changed while it was being read")
        is_partial = self._response.status == _PARTIAL
        if self.total != info.size and (is_partial or None not in (self.total, info.size)):
            raise OSError("it changed while it was being read (its length is different)")
        if self._end is None:
            self._end = info.size

    def read(self, size: int, *, seconds: float) -> bytes:
        """Return up to `size` bytes; no bytes only at an end that the server did not announce.

        Raises:
            TransientError: The connection broke off, or is too slow.
            OSError: More bytes arrive than the server said.
        """
        left = size if self._end is None else min(size, self._end - self.position)
        data = self._response.read(left, is_announced=self._end is not None, seconds=seconds)
        self.position += len(data)
        if self.position == self._end and not self._response.has_ended():
            raise OSError(f"its server sends more than the {self._end} bytes that it says")
        return data

    def close(self) -> None:
        self._response.close()


def _range(response: HttpResponse, begin: int) -> tuple[int, int, int | None]:
    """Return the begin and the end of a partial response, and the length of the file, None if the server does not know.

    Raises:
        OSError: They are missing, or are not those of the range that was asked for.
    """
    if (response.header("Content-Type") or "").lower().startswith("multipart/"):
        raise OSError("its server answers with several ranges where one was asked for")
    value = response.header("Content-Range")
    found = _CONTENT_RANGE.fullmatch(value or "")
    if found is None:
        raise OSError(f"its server answers with a range and does not say which (Content-Range: {value or 'none'})")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first != begin or last < first or (total is not None and last >= total):
        raise OSError(f"its server answers with the wrong range ({value} where bytes from {begin} on were asked for)")
    return first, last + 1, total


def _length(response: HttpResponse) -> int | None:
    """Return the bytes of the response's body, None if the server does not say."""
    value = response.header("Content-Length")
    if value is None or response.is_chunked:
        return None
    if not _NUMBER.fullmatch(value):
        raise OSError(f"its server answers with a Content-Length of {value}")
    return int(value)


def _coding(response: HttpResponse) -> str:
    coding = (response.header("Content-Encoding") or "identity").lower()
    if coding not in ("identity", *_COMPRESSED):
        raise OSError(f"its server sends it with Content-Encoding {coding}, which was not asked for")
    return coding


def _modified(response: HttpResponse) -> int:
    with suppress(TypeError, ValueError):
        moment = email.utils.parsedate_to_datetime(response.header("Last-Modified") or "")
        return int(moment.timestamp()) * 1_000_000_000
    return 0
