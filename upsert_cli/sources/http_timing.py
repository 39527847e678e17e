"""HTTP connections whose responses are read until a deadline; the timeout of a socket is for each read alone."""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any, cast
from urllib.request import HTTPHandler, HTTPSHandler, Request

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer


class TimedHandler(HTTPHandler, HTTPSHandler):
    """A handler of `urllib` whose timeout is for all headers of a response together."""

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        """Request an address over HTTP."""
        return self.do_open(_timed(http.client.HTTPConnection), request)

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        """Request an address over HTTPS."""
        return self.do_open(_timed(http.client.HTTPSConnection), request)


def set_deadline(response: http.client.HTTPResponse, moment: float) -> None:
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
