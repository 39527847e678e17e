"""One request to a server and its whole answer, within limits of time and size; the only module that imports httpx."""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from upsert_cli.redaction import without_secrets

CONNECT_SECONDS = 5.0  # seconds to connect; a host that does not answer at all is a wrong address
LARGEST_ANSWER = 256 << 20  # bytes, as sent and unpacked; a thousand records with vectors and long texts have 50 MiB
_ENCODINGS = {"", "identity", "gzip", "deflate"}  # others may unpack one chunk to gigabytes


class NoAnswer(Exception):
    """Raised when a request is not answered, or the answer breaks off."""

    def __init__(self, reason: str, *, is_permanent: bool = False) -> None:
        """Take the reason, and whether the next request would fail for the same one."""
        super().__init__(reason)
        self.is_permanent = is_permanent


class UnreadableAnswer(Exception):
    """Raised when an answer is larger than any of Chroma's, or compressed in a way that it does not use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAnswer:
    """A server's answer."""

    method: str
    path: str
    status: int
    reason: str
    """The phrase that came with the status."""

    headers: Mapping[str, str]
    content: bytes

    @property
    def is_good(self) -> bool:
        """Whether the status says that the request was carried out."""
        return self.status in (httpx.codes.OK, httpx.codes.CREATED)

    def as_response(self) -> httpx.Response:
        """Return the answer as chromadb expects it; the text of an error holds no secret."""
        content = self.content
        if not self.is_good:
            content = without_secrets(content.decode(errors="replace")).encode(errors="replace")
        return httpx.Response(
            self.status,
            headers={"Content-Type": "application/json"},
            content=content,
            request=httpx.Request(self.method, "http://server" + self.path),
        )


class Connections:
    """The connections to one server; certificates and proxies come from the usual variables."""

    def __init__(self, headers: Mapping[str, str], *, silence: float) -> None:
        """Connect to nothing yet.

        Args:
            headers: Sent with each request.
            silence: Seconds to wait for the next bytes of an answer.
        """
        self._client = httpx.Client(
            headers={"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"} | dict(headers),
            timeout=httpx.Timeout(silence, connect=CONNECT_SECONDS, pool=None),
        )
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each request."""
        return self._client.headers

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def exchange(self, method: str, url: str, *, seconds: float, **options: Any) -> ServerAnswer:
        """Send a request and return its answer, whatever its status.

        Args:
            method: Of HTTP.
            url: Absolute.
            seconds: For the whole of it: connecting, sending, headers and body.
            options: As httpx takes them.

        Raises:
            NoAnswer: The server cannot be reached, or does not answer in time.
            UnreadableAnswer: Chroma does not send such an answer.
        """
        begun = False  # whether any of the answer is there
        with self._deadline(seconds) as expired:
            try:
                with self._client.stream(method, url, extensions={"trace": self._watch}, **options) as response:
                    begun = True
                    answer = _answer(response, _content(response))
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                if not expired.is_set():
                    raise _fault(error) from error
        # A body without a length ends with its connection, so a deadline may also look like a complete answer.
        if expired.is_set():
            raise NoAnswer(f"its answer {'does not end' if begun else 'does not come'} within {seconds:.0f} s")
        return answer

    def _watch(self, _: str, info: Mapping[str, Any]) -> None:
        """Remember each connection that is made: httpx has a timeout for each read, but none for the whole."""
        get_extra_info = getattr(info.get("return_value"), "get_extra_info", None)
        if get_extra_info is not None:
            self._sockets.add(get_extra_info("socket"))

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Shut all connections down once the time is over, which ends any read, and set the event."""
        expired = threading.Event()
        lock = threading.Lock()

        def expire() -> None:
            with lock:
                if done:
                    return
                expired.set()
                for each in list(self._sockets):
                    with suppress(OSError):  # it is closed already
                        socket.socket.shutdown(each, socket.SHUT_RDWR)

        done = False
        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            with lock:
                done = True
            timer.cancel()


def _content(response: httpx.Response) -> bytes:
    """Read the body of an answer, unpacked.

    Raises:
        UnreadableAnswer: It is larger than any of Chroma's, or packed in another way.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise UnreadableAnswer(f"it is packed as {encoding}, which was not asked for")
    too_large = UnreadableAnswer(f"it is larger than {LARGEST_ANSWER >> 20} MiB")
    with suppress(ValueError):
        if int(response.headers.get("Content-Length", "0")) > LARGEST_ANSWER:
            raise too_large
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST_ANSWER or response.num_bytes_downloaded > LARGEST_ANSWER:
            raise too_large
    return bytes(content)


def _answer(response: httpx.Response, content: bytes) -> ServerAnswer:
    return ServerAnswer(
        method=response.request.method,
        path=response.request.url.path,
        status=response.status_code,
        reason=response.reason_phrase,
        headers=response.headers,
        content=content,
    )


def _fault(error: Exception) -> Exception:
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, httpx.DecodingError):
        return UnreadableAnswer(f"it cannot be unpacked ({reason})")
    if isinstance(error, httpx.TimeoutException):
        return NoAnswer(f"no answer in time ({reason})")
    unusable = httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.InvalidURL
    return NoAnswer(reason, is_permanent=isinstance(error, unusable) or _is_for_good(error))


def _is_for_good(error: BaseException) -> bool:
    """Tell whether the next connection fails for the same reason: a certificate, an unknown name."""
    return any(
        (isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError))
        or (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
