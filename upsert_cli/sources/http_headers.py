"""Headers of a web server's response that describe a file and the bytes of it that follow, checked."""

from __future__ import annotations

import email.utils
import re
from contextlib import suppress
from http.client import HTTPResponse

from upsert_cli.sources.remote_stream import FileInfo

SHOWN_VALUE = 60  # characters of a header in a message

_DIGITS = r"\d{1,18}"  # of a number of bytes; Python refuses to read one of thousands of digits
_CONTENT_RANGE = re.compile(rf"bytes ({_DIGITS})-({_DIGITS})/({_DIGITS}|\*)", re.IGNORECASE | re.ASCII)
_EMPTY = re.compile(r"bytes \*/0", re.IGNORECASE)
_NUMBER = re.compile(_DIGITS, re.ASCII)
_COMPRESSED = ("gzip", "x-gzip", "zstd")  # encodings in which a file may be stored; its suffix or --format names them


def header(response: HTTPResponse, name: str) -> str | None:
    """Return the value of a header, or None without one.

    Raises:
        OSError: The header occurs with different values.
    """
    values = {value.strip() for value in response.headers.get_all(name) or ()}
    if len(values) > 1:
        raise OSError(f"its server answers with several values of {name}")
    return next(iter(values), None)


def file_info(response: HTTPResponse, *, size: int | None) -> FileInfo:
    """Return the description of a file of the given size.

    Raises:
        OSError: The server compresses the file for the transfer, or its headers contradict each other.
    """
    coding = (header(response, "Content-Encoding") or "identity").lower()
    if coding not in ("identity", *_COMPRESSED):
        raise OSError(f"its server sends it with Content-Encoding {coding}, which was not asked for")
    return FileInfo(size=size, mtime_ns=_modified(response), etag=header(response, "ETag"), coding=coding)


def length_of(response: HTTPResponse) -> int | None:
    """Return the bytes of the body, or None if the server does not state them.

    Raises:
        OSError: The header is not a number.
    """
    value = header(response, "Content-Length")
    if value is None or response.chunked:
        return None
    if not _NUMBER.fullmatch(value):
        raise OSError(f"its server answers with a Content-Length of {value[:SHOWN_VALUE]}")
    return int(value)


def range_of(response: HTTPResponse, begin: int) -> tuple[int, int, int | None]:
    """Return the begin and the end of a partial response, and the length of the file if the server states it.

    Raises:
        OSError: The range is missing, or does not begin at `begin`.
    """
    if (header(response, "Content-Type") or "").lower().startswith("multipart/"):
        raise OSError("its server answers with several ranges where one was asked for")
    value = header(response, "Content-Range") or "none"
    found = _CONTENT_RANGE.fullmatch(value)
    if found is None:
        shown = value[:SHOWN_VALUE]
        raise OSError(f"its server answers with a range and does not say which (Content-Range: {shown})")
    first, last = int(found[1]), int(found[2])
    total = None if found[3] == "*" else int(found[3])
    if first != begin or last < first or (total is not None and last >= total):
        raise OSError(f"its server answers with the wrong range ({value} where bytes from {begin} on were asked for)")
    return first, last + 1, total


def is_empty_file(response: HTTPResponse) -> bool:
    """Check whether a server refuses a range because the file has no bytes."""
    return _EMPTY.fullmatch(header(response, "Content-Range") or "") is not None


def _modified(response: HTTPResponse) -> int:
    """Return the time of the last change in nanoseconds since 1970, or 0 if the server does not state it."""
    with suppress(TypeError, ValueError, OverflowError):
        moment = email.utils.parsedate_to_datetime(header(response, "Last-Modified") or "")
        return int(moment.timestamp()) * 1_000_000_000
    return 0
