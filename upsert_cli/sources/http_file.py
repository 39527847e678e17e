"""A file on a web server: its description, and its bytes from any position on, checked against every response."""

from __future__ import annotations

import email.utils
import re
import time
from contextlib import closing, suppress
from dataclasses import replace

from upsert_cli.sources.http_get import NOT_SATISFIABLE, PARTIAL, get, read_piece
from upsert_cli.sources.remote_stream import FileInfo, RemoteStream, TransientError

LONGEST_WAIT = 30.0  # seconds for the headers of a response, and for bytes; longer than a slow disk takes
SHORTEST_WAIT = 1.0  # seconds, however short the time for retries is
LOWEST_RATE = 64  # bytes a second; below any link in use, above a server that sends single bytes to hold a request
SOON = 1.0  # seconds after which the bytes that have arrived are returned
PIECE = 256 << 10  # bytes read at once
DISCARDED = 1 << 20  # bytes read at once on the way to a position, if a server knows no ranges
SHOWN_VALUE = 60  # characters of a header in a message
EXCESS_SECONDS = 1.0  # how long to wait for bytes after the last one, if a server keeps the connection open

_DIGITS = r"\d{1,18}"  # of a number of bytes; Python refuses to read one of thousands of digits
_CONTENT_RANGE = re.compile(rf"bytes ({_DIGITS})-({_DIGITS})/({_DIGITS}|\*)", re.IGNORECASE | re.ASCII)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)
_NUMBER = re.compile(_DIGITS, re.ASCII)
_COMPRESSED = ("gzip", "x-gzip", "zstd")  # encodings in which a file may be stored; its suffix or --format names them


class HttpFile(RemoteStream):
    """An open file on a web server. Read from start to end, it takes one response."""

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
        # One byte costs nothing, and only the total of its range tells the length of a generated file. An empty file
        # has no such byte, and some servers do not say the total.
        for wanted in ("bytes=0-0", None):
            with closing(_Response(self._address, begin=0, wanted=wanted, seconds=self._seconds)) as response:
                if not response.is_beyond_end:
                    if response.info.size is not None or not response.is_partial:
                        return response.info
                elif _EMPTY.fullmatch(response.header("Content-Range") or ""):
                    return replace(response.info, size=0)
        raise OSError("its server answers 416 to a request for the whole file")

    def _request(self, position: int) -> _Response:
        """Request the bytes from a position on."""
        wanted = f"bytes={position}-" if position else None
        response = _Response(self._address, begin=position, wanted=wanted, seconds=self._seconds)
        try:
            if response.is_beyond_end:
                if self.info.size is None and response.header("Content-Range") == f"bytes */{position}":
                    return response
                raise OSError(f"its server answers 416 to a request for bytes from {position} on")
            response.check_same_file(self.info)
            while response.position < position:  # the server knows no ranges, and begins at the start
                if not response.read(min(DISCARDED, position - response.position)):
                    raise TransientError("the connection broke off")
        except OSError:
            response.close()
            raise
        return response


class _Response:
    """A response with bytes of a file, from a position up to where the server says."""

    def __init__(self, address: str, *, begin: int, wanted: str | None, seconds: float) -> None:
        """Ask for a file, and check that the response holds the bytes that were requested.

        The server has the given seconds for the headers, and for as many bytes as `LOWEST_RATE` makes of this time.

        Raises:
            OSError: The server does not send them.
        """
        self._began: float | None = time.monotonic()
        self._seconds = seconds
        self._response = get(address, wanted=wanted, seconds=seconds)
        self._is_broken = False
        self.is_partial = self._response.status == PARTIAL
        self.is_beyond_end = self._response.status == NOT_SATISFIABLE
        self.position = 0
        try:
            self._end = self._length()
            total = self._end
            if self.is_partial:
                if wanted is None:
                    raise OSError("its server answers with a range of the file where the whole file was asked for")
                self.position, end, total = self._range(begin)
                if self._end not in (None, end - self.position):
                    raise OSError("its server answers with a range and a Content-Length that contradict each other")
                self._end = end
            self.info = FileInfo(size=total, mtime_ns=self._modified(), etag=self.header("ETag"), coding=self._coding())
        except OSError:
            self.close()
            raise

    def check_same_file(self, info: FileInfo) -> None:
        """Check that the response is of the same file as the first one.

        Raises:
            OSError: It is not.
        """
        if replace(self.info, size=info.size) != info:
            raise OSError("it changed while it was being read")
        if self.info.size != info.size and (self.is_partial or None not in (self.info.size, info.size)):
            raise OSError("it changed while it was being read (its length is different)")
        if self._end is None:
            self._end = info.size

    @property
    def is_read(self) -> bool:
        """Tell whether nothing more can be read from this response."""
        return self._is_broken or self.position == self._end

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes: fewer if the server is slow, the connection breaks, or the body ends.

        Raises:
            TransientError: The connection broke off, or is too slow.
            OSError: More bytes arrive than the server said.
        """
        left = size if self._end is None else min(size, self._end - self.position)
        now = time.monotonic()
        began, self._began = self._began or now, None
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
        """Tell whether the server sends nothing more after all bytes that it announced."""
        # The body is complete, so a connection that breaks off here is as good as one that is closed.
        with suppress(OSError):
            return not read_piece(self._response, 1, until=time.monotonic() + EXCESS_SECONDS)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._response.close()

    # -- headers --------------------------------------------------------------------------------------------------

    def header(self, name: str) -> str | None:
        """Return the value of a header, or None without one.

        Raises:
            OSError: It occurs with different values.
        """
        values = {value.strip() for value in self._response.headers.get_all(name) or ()}
        if len(values) > 1:
            raise OSError(f"its server answers with several values of {name}")
        return next(iter(values), None)

    def _range(self, begin: int) -> tuple[int, int, int | None]:
        """Return the begin and the end of a partial response, and the length of the file if the server knows it.

        Raises:
            OSError: They are missing, or are not those of the range that was asked for.
        """
        if (self.header("Content-Type") or "").lower().startswith("multipart/"):
            raise OSError("its server answers with several ranges where one was asked for")
        value = self.header("Content-Range") or "none"
        found = _CONTENT_RANGE.fullmatch(value)
        if found is None:
            shown = value[:SHOWN_VALUE]
            raise OSError(f"its server answers with a range and does not say which (Content-Range: {shown})")
        first, last = int(found[1]), int(found[2])
        total = None if found[3] == "*" else int(found[3])
        if first != begin or last < first or (total is not None and last >= total):
            raise OSError(
                f"its server answers with the wrong range ({value} where bytes from {begin} on were asked for)"
            )
        return first, last + 1, total

    def _length(self) -> int | None:
        """Return the bytes of the body, None if the server does not say."""
        value = self.header("Content-Length")
        if value is None or self._response.chunked:
            return None
        if not _NUMBER.fullmatch(value):
            raise OSError(f"its server answers with a Content-Length of {value[:SHOWN_VALUE]}")
        return int(value)

    def _coding(self) -> str:
        coding = (self.header("Content-Encoding") or "identity").lower()
        if coding not in ("identity", *_COMPRESSED):
            raise OSError(f"its server sends it with Content-Encoding {coding}, which was not asked for")
        return coding

    def _modified(self) -> int:
        with suppress(TypeError, ValueError, OverflowError):
            moment = email.utils.parsedate_to_datetime(self.header("Last-Modified") or "")
            return int(moment.timestamp()) * 1_000_000_000
        return 0
