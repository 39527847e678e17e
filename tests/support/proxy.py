"""A proxy before a real Chroma server that does to some requests what networks, gateways and clouds do to them."""

from __future__ import annotations

import http.client
import http.server
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

_RESET = struct.pack("ii", 1, 0)  # lets `close` send a reset


DRIP_SECONDS = 0.05  # seconds between two drops of an answer that does not end
WRITES = ("/upsert", "/update")


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request that came in."""

    number: int
    """Counts all requests, from 1."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def is_write(self) -> bool:
        """Whether it writes records."""
        return self.path.endswith(WRITES)

    @property
    def ids(self) -> list[str]:
        """The ids of the records that it writes or asks for."""
        ids: list[str] = json.loads(self.body).get("ids") or [] if self.body else []
        return ids


@dataclass(frozen=True, kw_only=True)
class Fault:
    """The fault that the proxy makes of a request."""

    status: int | None = None
    """Answered with this instead of being passed on."""

    message: str = "a fault of the proxy"
    body: bytes | None = None
    """In place of Chroma's way to say `message`."""

    headers: dict[str, str] = field(default_factory=dict)
    passed_on: bool = False
    """The server gets the request all the same, and its answer is lost."""

    reset: bool = False
    """The connection is reset."""

    stall: float = 0.0
    """Seconds of silence before the answer."""

    drips: Literal["", "headers", "body"] = ""
    """What of the answer goes on without end, a few bytes at a time."""


Plan = Callable[[Call], Fault | None]


class Proxy:
    """A proxy with its own port that keeps all requests."""

    def __init__(self, port: int) -> None:
        """`port` is the server's; it may change."""
        self.server_port = port
        self.plan: Plan = lambda _: None
        self.calls: list[Call] = []
        self.faults = 0
        self.most_writes = 0
        """That were under way at the same time."""

        self._writes = 0
        self._lock = threading.Lock()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve while it is entered."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()

    @property
    def writes(self) -> list[Call]:
        """The calls that write records."""
        return [call for call in self.calls if call.is_write]

    @property
    def writing(self) -> int:
        """Return the number of writes in progress."""
        return self._writes

    def take(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Fault | None:
        """Record a request, and return the fault to make of it."""
        with self._lock:
            call = Call(number=len(self.calls) + 1, method=method, path=path, headers=headers, body=body)
            self.calls.append(call)
            fault = self.plan(call)
            self.faults += fault is not None
            self._writes += call.is_write
            self.most_writes = max(self.most_writes, self._writes)
            return fault

    def answered(self, path: str) -> None:
        """Record that a request is over."""
        with self._lock:
            self._writes -= path.endswith(WRITES)


def _handler(proxy: Proxy) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.take(self.command, self.path, dict(self.headers), body) or Fault()
            try:
                self._answer(fault, body)
            finally:
                proxy.answered(self.path)

        def _answer(self, fault: Fault, body: bytes) -> None:
            if fault.stall:
                time.sleep(fault.stall)
            if fault.drips:
                self._drip(fault.drips)
                return
            answer = (fault.status, fault.headers, _words(fault)) if fault.status else None
            if answer is None or fault.passed_on:
                asked = None if fault.reset and not fault.passed_on else self._ask_the_server(body)
                answer = answer or asked
            if fault.reset or answer is None:
                self._hang_up()
                return
            status, headers, content = answer
            with suppress(OSError):  # a client that waited long enough
                self.send_response(status or 500)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def _ask_the_server(self, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
            connection = http.client.HTTPConnection("127.0.0.1", proxy.server_port, timeout=60)
            try:
                connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                return answer.status, {"Content-Type": "application/json"}, answer.read()
            except (OSError, http.client.HTTPException):
                return None
            finally:
                connection.close()

        def _drip(self, what: str) -> None:
            self.close_connection = True
            with suppress(OSError):  # until the reader goes away
                self.wfile.write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n{" if what == "body" else b""))
                for number in itertools.count():
                    self.wfile.write(b" " if what == "body" else f"X-{number % 50}: a\r\n".encode())
                    time.sleep(DRIP_SECONDS)

        def _hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self.connection.close()

        do_GET = do_POST = do_PUT = do_DELETE = _pass_on

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

        def finish(self) -> None:
            with suppress(OSError, ValueError):  # after a reset
                super().finish()

    return Handler


def _words(fault: Fault) -> bytes:
    return (
        fault.body
        if fault.body is not None
        else json.dumps({"error": "ChromaError", "message": fault.message}).encode()
    )
