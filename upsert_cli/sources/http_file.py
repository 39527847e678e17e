"""A file on a web server: its description, and its bytes from any position on, checked against every response."""

from __future__ import annotations

import email.utils
import re
import time
from contextlib import closing, suppress
from dataclasses import replace
from http.client import HTTPResponse

from upsert_cli.sources.http_get import NOT_SATISFIABLE, PARTIAL, PIECE, get, read_piece
from upsert_cli.sources.remote_stream import FileInfo, RemoteStream, TransientError

SHOWN_VALUE = 60  # characters of a header in a message

_DIGITS = r"\d{1,18}"  # of a number of bytes; Python refuses to read one of thousands of digits
_CONTENT_RANGE = re.compile(rf"bytes ({_DIGITS})-({_DIGITS})/({_DIGITS}|\*)", re.IGNORECASE | re.ASCII)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)
_NUMBER = re.compile(_DIGITS, re.ASCII)
_COMPRESSED = ("gzip", "x-gzip", "zstd")  # encodings in which a file may be stored; its suffix or --format names them
LONGEST_WAIT = 30.0  # seconds for the headers of a response, and for bytes; longer than a slow disk takes
SHORTEST_WAIT = 1.0  # seconds, however short the time for retries is
LOWEST_RATE = 64  # bytes a second; below any link in use, above a server that sends single bytes to hold a request
SOON = 1.0  # seconds after which the bytes that have arrived are returned
DISCARDED = 1 << 20  # bytes read at once on the way to a position, if a server does not support ranges
EXCESS_SECONDS = 1.0  # how long to wait for bytes after the last one, if a server keeps the connection open


class HttpFile(RemoteStream):
    """An open file on a web server. Reading it from start to end takes one response."""

    def __init__(self, address: str, *, retry_for: float) -> None:
        """Request a description of the file.

        Raises:
            TransientError: The server cannot be reached, or is busy.
            OSError: The server does not allow reading the file.
        """
        self._address = address
        self._seconds = min(LONGEST_WAIT, max(SHORTEST_WAIT, retry_for))
        self._response: _Response | None = None
        super().__init__(self._request_info(), retry_for=retry_for)

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on."""
        if self.info.size is not None and position >= self.info.size:
            return b""
        try:
            if self._response is None or self._response.position != position:
                self._disconnect()
                self._response = self._request(position)
            if self._response.is_beyond_end:
                return b""
            data = self._response.read(size)
        except OSError:
            self._disconnect()
            raise
        if self._response.is_read:
            self._disconnect()
        return data

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _request_info(self) -> FileInfo:
        # One byte costs nothing, and only the total of its range gives the length of a generated file. An empty file
        # has no such byte, and some servers leave out the total, so the next request is for the whole file.
        for wanted in ("bytes=0-0", None):
            with closing(_Response(self._address, begin=0, wanted=wanted, seconds=self._seconds)) as response:
                if response.is_beyond_end:
                    if response.is_empty_file:
                        return replace(response.info, size=0)
                elif response.info.size is not None or not response.is_partial:
                    return response.info
        raise OSError("its server answers 416 to a request for the whole file")

    def _request(self, position: int) -> _Response:
        """Request the bytes from a position on."""
        wanted = f"bytes={position}-" if position else None
        response = _Response(self._address, begin=position, wanted=wanted, seconds=self._seconds)
        try:
            if response.is_beyond_end:
                if self.info.size is None and response.ends_at(position):
                    return response
                raise OSError(f"its server answers 416 to a request for bytes from {position} on")
            response.check_same_file(self.info)
            while response.position < position:  # the server does not support ranges, and begins at the start
                if not response.read(min(DISCARDED, position - response.position)):
                    raise TransientError("the connection broke off")
        except OSError:
            response.close()
            raise
        return response


class _Response:
    """A response with bytes of a file, from a position on, as far as the server announces them."""

    def __init__(self, address: str, *, begin: int, wanted: str | None, seconds: float) -> None:
        """Request a file, and check that the response holds the requested bytes.

        Args:
            address: Where the file is.
            begin: The first byte.
            wanted: The value of the header `Range`; None for the whole file.
            seconds: The time for the headers, and for as many bytes as `LOWEST_RATE` makes of this time.

        Raises:
            OSError: The response does not hold them.
        """
        self._requested_at: float | None = time.monotonic()
        self._seconds = seconds
        self._response = get(address, wanted=wanted, seconds=seconds)
        self._is_broken = False
        self.is_partial = self._response.status == PARTIAL
        self.is_beyond_end = self._response.status == NOT_SATISFIABLE
        try:
            self.position, self._end, total = self._announced(begin, wanted)
            self.info = _file_info(self._response, size=total)
        except OSError:
            self.close()
            raise

    def _announced(self, begin: int, wanted: str | None) -> tuple[int, int | None, int | None]:
        """Return the begin and the end of the bytes in the body, and the length of the file, as far as known."""
        length = _length_of(self._response)
        if not self.is_partial:
            return 0, length, length
        if wanted is None:
            raise OSError("its server answers with a range of the file where the whole file was asked for")
        position, end, total = _range_of(self._response, begin)
        if length not in (None, end - position):
            raise OSError("its server answers with a range and a Content-Length that contradict each other")
        return position, end, total

    @property
    def is_empty_file(self) -> bool:
        """Check whether the server refuses the range because the file has no bytes."""
        return _is_empty_file(self._response)

    def ends_at(self, position: int) -> bool:
        """Check whether the server refuses the range because the file ends at a position."""
        return _header(self._response, "Content-Range") == f"bytes */{position}"

    def check_same_file(self, info: FileInfo) -> None:
        """Check that this response and the first one are of the same file.

        Raises:
            OSError: The file has changed.
        """
        if replace(self.info, size=info.size) != info:
            raise OSError("it changed while it was being read")
        if self.info.size != info.size and (self.is_partial or None not in (self.info.size, info.size)):
            raise OSError("it changed while it was being read (its length is different)")
        if self._end is None:
            self._end = info.size

    @property
    def is_read(self) -> bool:
        """Check whether nothing more can be read from this response."""
        return self._is_broken or self.position == self._end

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes: fewer if the server is slow, the connection breaks, or the body ends.

        Raises:
            TransientError: The connection broke off, or is too slow.
            OSError: More bytes arrive than the server announced.
        """
        left = size if self._end is None else min(size, self._end - self.position)
        now = time.monotonic()
        # The wait for the headers counts as a part of the first read.
        began, self._requested_at = self._requested_at or now, None
        data = bytearray()
        try:
            while len(data) < left and (len(data) < LOWEST_RATE * self._seconds or time.monotonic() - now < SOON):
                piece = read_piece(self._response, min(PIECE, left - len(data)), until=now + self._seconds)
                if not piece and self._end is not None:
                    raise TransientError("the connection broke off")
                if not piece:
                    break
                data += piece
        except TransientError:
            self._is_broken = True
            # Bytes that arrived before a break count, unless they were so few that every try would bring as few.
            if len(data) < max(1.0, LOWEST_RATE * (time.monotonic() - began)):
                raise
        self.position += len(data)
        if self.position == self._end and not self._has_ended():
            raise OSError(f"its server sends more than the {self._end} bytes that it says")
        return bytes(data)

    def _has_ended(self) -> bool:
        """Check whether the server sends nothing after all bytes that it announced."""
        # The body is complete, so a connection that breaks off now does no harm.
        with suppress(OSError):
            return not read_piece(self._response, 1, until=time.monotonic() + EXCESS_SECONDS)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


# -- headers ---------------------------------------------------------------------------------------------------------


def _header(response: HTTPResponse, name: str) -> str | None:
    """Return the value of a header, or None without one.

    Raises:
        OSError: The header occurs with different values.
    """
    values = {value.strip() for value in response.headers.get_all(name) or ()}
    if len(values) > 1:
        raise OSError(f"its server answers with several values of {name}")
    return next(iter(values), None)


def _file_info(response: HTTPResponse, *, size: int | None) -> FileInfo:
    """Return the description of a file of the given size.

    Raises:
        OSError: The server compresses the file for the transfer, or its headers contradict each other.
    """
    coding = (_header(response, "Content-Encoding") or "identity").lower()
    if coding not in ("identity", *_COMPRESSED):
        raise OSError(f"its server sends it with Content-Encoding {coding}, which was not asked for")
    return FileInfo(size=size, mtime_ns=_modified(response), etag=_header(response, "ETag"), coding=coding)


def _length_of(response: HTTPResponse) -> int | None:
    """Return the bytes of the body, or None if the server does not state them.

    Raises:
        OSError: The header is not a number.
    """
    value = _header(response, "Content-Length")
    if value is None or response.chunked:
        return None
    if not _NUMBER.fullmatch(value):
        raise OSError(f"its server answers with a Content-Length of {value[:SHOWN_VALUE]}")
    return int(value)


def _range_of(response: HTTPResponse, begin: int) -> tuple[int, int, int | None]:
    """Return the begin and the end of a partial response, and the length of the file if the server states it.

    Raises:
        OSError: The range is missing, or does not begin at `begin`.
    """
    if (_header(response, "Content-Type") or "").lower().startswith("multipart/"):
        raise OSError("its server answers with several ranges where one was asked for")
    value = _header(response, "Content-Range") or "none"
    found = _CONTENT_RANGE.fullmatch(value)
    if found is None:
        shown = value[:SHOWN_VALUE]
        raise OSError(f"its server answers with a range and does not say which (Content-Range: {shown})")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first != begin or last < first or (total is not None and last >= total):
        raise OSError(f"its server answers with the wrong range ({value} where bytes from {begin} on were asked for)")
    return first, last + 1, total


def _is_empty_file(response: HTTPResponse) -> bool:
    """Check whether a server refuses a range because the file has no bytes."""
    return _EMPTY.fullmatch(_header(response, "Content-Range") or "") is not None


def _modified(response: HTTPResponse) -> int:
    """Return the time of the last change in nanoseconds since 1970, or 0 if the server does not state it."""
    with suppress(TypeError, ValueError, OverflowError):
        moment = email.utils.parsedate_to_datetime(_header(response, "Last-Modified") or "")
        return int(moment.timestamp()) * 1_000_000_000
    return 0
