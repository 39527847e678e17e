"""GET requests for files, with limits on time and on where a redirect may lead.

A response is read until a deadline, since the timeout of a socket is for each read alone.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.error import URLError
from urllib.parse import quote, urljoin
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from upsert_cli import __version__
from upsert_cli.sources.addresses import WEB_SCHEMES, scheme_of, shown_address, why_refused
from upsert_cli.sources.remote_stream import TransientError, retry_transient

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

MAX_REDIRECTS = 10  # more than any file needs that is in use
OK, PARTIAL, NOT_SATISFIABLE = 200, 206, 416
PIECE = 256 << 10  # bytes read at once
_RESERVED = "%/:?#[]@!$&'()*+,;=~"  # characters of an address that are sent unchanged; others are encoded
_ANSWERS = frozenset([OK, PARTIAL, NOT_SATISFIABLE])
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_TRANSIENT = frozenset([408, 425, 429, 500, 502, 503, 504])
_GONE = frozenset([404, 410])


class _TimedHandler(HTTPHandler, HTTPSHandler):
    """A handler of `urllib` whose timeout is for all headers of a response together."""

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        """Request an address over HTTP."""
        return self.do_open(_timed(http.client.HTTPConnection), request)

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        """Request an address over HTTPS."""
        return self.do_open(_timed(http.client.HTTPSConnection), request)


def _set_deadline(response: http.client.HTTPResponse, moment: float) -> None:
    """Set the end of the time for reading a response of a `TimedHandler`, in monotonic seconds."""
    cast("_TimedStream", response.fp.raw).deadline = moment


def _timed(kind: type[http.client.HTTPConnection]) -> Any:
    """Return a function that makes connections with timed responses."""

    def connection_to(host: str, **options: Any) -> http.client.HTTPConnection:
        connection = kind(host, **options)
        connection.response_class = cast("Any", _timed_response)
        return connection

    return connection_to


def _timed_response(connection: socket.socket, **options: Any) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection, **options)
    response.fp.close()
    response.fp = io.BufferedReader(_TimedStream(connection))
    return response


class _TimedStream(io.RawIOBase):
    """The bytes that arrive at a socket before a deadline."""

    def __init__(self, connection: socket.socket) -> None:
        """Begin with the socket's own timeout as the time for the headers."""
        self._connection = connection
        self._raw = connection.makefile("rb", buffering=0)
        self.deadline = time.monotonic() + (connection.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def get(address: str, *, wanted: str | None, seconds: float) -> http.client.HTTPResponse:
    """Request a file or a range of its bytes, and follow redirects; return a response with status 200, 206 or 416.

    Args:
        address: Where the file is.
        wanted: The value of the header `Range`, if any.
        seconds: How long to wait for a connection, and then for all headers of a response.

    Raises:
        TransientError: The server cannot be reached, is busy, or does not answer in time.
        FileNotFoundError: The server has no such file.
        OSError: The server does not allow reading the file, or redirects to an address that is not read.
    """
    target = quote(address, safe=_RESERVED)
    for _ in range(MAX_REDIRECTS + 1):
        response = _response(target, wanted, seconds)
        if response.status in _ANSWERS:
            if response.headers.get("Transfer-Encoding", "identity").strip().lower() in ("chunked", "identity"):
                return response
            response.close()
            raise OSError("its server answers in an unknown transfer encoding")
        with response:
            if response.status not in _REDIRECTS:
                raise _fault(response)
            target = _redirected(target, response.headers.get("Location"))
    route = f"from {shown_address(address)} to {shown_address(target)}"
    raise OSError(f"it redirects more than {MAX_REDIRECTS} times, at last {route}")


def _response(address: str, wanted: str | None, seconds: float) -> http.client.HTTPResponse:
    """Return the response to one request, without following a redirect."""
    headers = {"User-Agent": f"upsert-cli/{__version__}", "Accept-Encoding": "identity"}
    if wanted is not None:
        headers["Range"] = wanted
    # An opener with all usual handlers would follow redirects to ftp, and from https to http.
    opener = OpenerDirector()
    opener.add_handler(ProxyHandler())
    opener.add_handler(_TimedHandler())
    with _translated(f"its server does not answer within {seconds:g} s"):
        request = Request(address, headers=headers)  # noqa: S310  # http or https, see `why_refused`
        return cast("http.client.HTTPResponse", opener.open(request, timeout=seconds))


def _redirected(address: str, location: str | None) -> str:
    """Return the address that a redirect leads to; raise OSError if it may not be followed."""
    if location is None:
        raise OSError(f"{shown_address(address)} redirects to nowhere")
    # http.client reads headers as Latin-1, in which every byte is kept.
    try:
        target = urljoin(address, quote(location.strip(), safe=_RESERVED, encoding="iso-8859-1"))
    except ValueError as error:  # as for half an address of IPv6
        raise OSError(f"{shown_address(address)} redirects to something that is no address") from error
    was, now = scheme_of(address), scheme_of(target)
    reason = None
    if now != was and (was, now) != WEB_SCHEMES:
        reason = f"from there only {'http:// and ' if was == 'http' else ''}https:// is followed"
    elif why_refused(target) is not None:
        reason = "that address has a password in it or names no host"
    if reason is not None:
        raise OSError(f"{shown_address(address)} redirects to {shown_address(target)}; {reason}")
    return target


def _fault(response: http.client.HTTPResponse) -> OSError:
    status = response.status
    kind = TransientError if status in _TRANSIENT else FileNotFoundError if status in _GONE else OSError
    return kind(f"the server answers {status} {response.reason}")


def read_piece(response: http.client.HTTPResponse, size: int, *, until: float) -> bytes:
    """Return up to `size` bytes of the body of a response; no bytes at its end, as far as the connection shows it.

    Args:
        response: From `get`.
        size: The most bytes.
        until: How long to wait for a byte, in monotonic seconds.

    Raises:
        TransientError: The connection broke off, or no byte arrived in time.
    """
    _set_deadline(response, until)
    with _translated("its server sends too few bytes a second"):
        # The response itself would stop at its Content-Length and hide bytes after it.
        return response.read1(size) if response.chunked else response.fp.read1(size)


def get_whole(address: str, *, most: int, seconds: float) -> bytes:
    """Return a file of at most `most` bytes by one request, since some servers generate a page for each request.

    `seconds` limits the wait for an answer, the wait for more bytes, and the time for repeating a failed request.

    Raises:
        ValueError: The address may not be read; the message names the addresses that may.
        FileNotFoundError: The server has no such file.
        OSError: The server cannot be reached, does not allow reading the file, or sends another number of bytes.
    """
    if scheme_of(address) not in WEB_SCHEMES or why_refused(address) is not None:
        # Without the address, since it may hold a password.
        raise ValueError("an http:// or https:// address with a host and without a password")
    return retry_transient(lambda: _body(address, most=most, seconds=seconds), seconds=seconds)


def _body(address: str, *, most: int, seconds: float) -> bytes:
    with get(address, wanted=None, seconds=seconds) as response:
        if response.status != OK:
            raise OSError(f"the server answers {response.status}")
        length = response.length  # of its header; None without one
        content = bytearray()
        while length is None or len(content) < length:  # a further read would wait while the connection stays open
            if not (piece := read_piece(response, PIECE, until=time.monotonic() + seconds)):
                break
            content += piece
            if len(content) > most:
                raise OSError(f"the server sends more than {most >> 20} MiB")
    if length not in (None, len(content)):
        raise TransientError(f"the connection broke off after {len(content):,} of {length:,} bytes")
    return bytes(content)


@contextmanager
def _translated(late: str) -> Iterator[None]:
    """Raise errors of the standard library as `TransientError` or OSError; `late` is the text for a timeout."""
    try:
        yield
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise TransientError("the server cannot be reached in time") from error
        is_certificate = isinstance(error.reason, ValueError)  # `ssl.SSLCertVerificationError` is both kinds of error
        if isinstance(error.reason, OSError) and not is_certificate:
            raise TransientError(f"the server cannot be reached ({error.reason})") from error
        raise OSError(f"the server cannot be asked ({error.reason})") from error
    except TimeoutError as error:
        raise TransientError(late) from error
    except (http.client.InvalidURL, http.client.UnknownProtocol, ValueError) as error:
        raise OSError(f"the server cannot be asked ({type(error).__name__})") from error
    except (http.client.HTTPException, OSError) as error:
        raise TransientError(f"the connection broke off ({str(error) or type(error).__name__})") from error
