"""Servers for tests of remote sources: a web server that can misbehave, and moto's S3."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import quote
from urllib.request import Request, urlopen

CHUNK = 16 << 10  # bytes sent at once
POLL = 0.02  # how often a server looks for the end of its test, in seconds


@dataclass
class WebServer:
    """A web server of files in memory, and how it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    """By path, such as `/a.jsonl`; a path with a query is for that query alone."""

    address: str = ""
    ranges: bool = True
    etags: bool = True
    sized: bool = True

    break_after: int | None = None
    """Bytes of an answer after which the connection is cut, as long as `breaks` is not used up."""

    breaks: int = 0
    busy: int = 0
    """Answers of 503 that are still to be given."""

    pause: float = 0.0
    """Seconds between two chunks."""

    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and range of each request."""

    sent: int = 0
    """Bytes of bodies."""


class _Handler(BaseHTTPRequestHandler):
    behaviour: WebServer

    def do_GET(self) -> None:  # the name that the standard library calls
        web = self.behaviour
        wanted = self.headers.get("Range")
        path = self.path.partition("?")[0]
        web.asked.append((path, wanted))
        if web.busy:
            web.busy -= 1
            self.send_error(503)
            return
        content = web.files.get(self.path, web.files.get(path))
        if content is None:
            self.send_error(404)
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "") if web.ranges else None
        body = content
        if match:
            body = content[int(match[1]) : int(match[2]) + 1 if match[2] else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {match[1]}-{int(match[1]) + len(body) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if web.sized:
            self.send_header("Content-Length", str(len(body)))
        if web.etags:
            self.send_header("ETag", f'"{hash(content)}"')
        self.end_headers()
        self._send(body)

    def _send(self, body: bytes) -> None:
        web = self.behaviour
        for start in range(0, len(body), CHUNK):
            if web.break_after is not None and web.breaks and start >= web.break_after:
                web.breaks -= 1
                self.close_connection = True
                return
            try:
                self.wfile.write(body[start : start + CHUNK])
            except OSError:  # the reader has enough
                return
            web.sent += len(body[start : start + CHUNK])
            time.sleep(web.pause)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Run a web server on this machine."""
    web = WebServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"behaviour": web}))
    web.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Bucket:
    """A bucket of moto's S3."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, key: str, content: bytes = b"") -> None:
        """Store an object; without a key, makes the bucket."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, "
            "SignedHeaders=host, Signature=test",
        }
        address = f"{self.endpoint}/bucket/{quote(key)}".rstrip("/")
        request = Request(address, data=content, method="PUT", headers=headers)  # noqa: S310  # our own server
        urlopen(request).close()  # noqa: S310  # as above


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Run an S3 server with one bucket, `bucket`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    made = Bucket(f"http://{host}:{port}")
    try:
        made.put("")
        yield made
    finally:
        server.stop()


Respond = Callable[[str | None], Iterable[bytes]]
"""Returns the pieces of a whole answer, headers included, to a request for a range or for the whole file."""


@contextmanager
def raw_server(respond: Respond, *, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server that sends exactly the given bytes; yield its address."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            head = ""
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                head += line.decode()
            wanted = re.search(r"^Range: (\S+)", head, re.IGNORECASE | re.MULTILINE)
            with suppress(OSError):  # the reader has enough
                for piece in respond(wanted and wanted[1]):
                    self.wfile.write(piece)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def answer(status: int, body: bytes = b"", **headers: str | int) -> bytes:
    """Return the bytes of an answer; an underscore in a header's name becomes a hyphen."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
