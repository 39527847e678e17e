"""One request to a server and its whole answer, within limits of time and size; the only module that imports httpx."""

from __future__ import annotations

import socket
import ssl
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

import httpx

from upsert_cli.redaction import without_secrets
from upsert_cli.store.chroma.answers import NotChromas

CONNECT_SECONDS = 5.0  # seconds to connect; a host that does not answer at all is a wrong address
LARGEST_ANSWER = 256 << 20  # bytes, as sent and unpacked; a thousand records with vectors and long texts have 50 MiB
_ENCODINGS = {"", "identity", "gzip", "deflate"}  # others may unpack one chunk to gigabytes


class RequestFailed(Exception):
    """Raised when a request is not answered, its answer breaks off, or reports something that may pass."""

    def __init__(self, reason: str, *, pause: float = 0.0, answered: bool = False, is_permanent: bool = False) -> None:
        """Take the reason.

        Args:
            reason: One line.
            pause: Seconds that the server asks to be left alone for.
            answered: Whether the server answered.
            is_permanent: Whether the next request would fail for the same reason.
        """
        super().__init__(reason)
        self.pause = pause
        self.answered = answered
        self.is_permanent = is_permanent


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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exchange(self, method: str, url: str, *, seconds: float, **options: Any) -> httpx.Response:
        """Send a request and return its answer, read to the end; the text of an error holds no secret.

        Args:
            method: Of HTTP.
            url: Absolute.
            seconds: For the whole of it: connecting, sending, headers and body.
            options: As httpx takes them.

        Raises:
            RequestFailed: The server cannot be reached, or does not answer in time.
            NotChromas: The answer is larger than any of Chroma's, or compressed in a way that it does not use.
        """
        begun = False  # whether any of the answer is there
        with self._deadline(seconds) as expired:
            try:
                with self._client.stream(method, url, extensions={"trace": self._watch}, **options) as response:
                    begun = True
                    answer = _read(response)
            except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
                if not expired.is_set():
                    raise _fault(error) from error
            # A body without a length ends with its connection, so a deadline may also look like a complete answer.
            if expired.is_set():
                raise RequestFailed(f"its answer {'does not end' if begun else 'does not come'} within {seconds:.0f} s")
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

        def expire() -> None:
            expired.set()
            for each in list(self._sockets):
                with suppress(OSError):  # it is closed already
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()


def _read(response: httpx.Response) -> httpx.Response:
    """Return an answer with its body, unpacked."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise NotChromas(f"it is packed as {encoding}, which was not asked for", may_pass=False)
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if max(len(content), response.num_bytes_downloaded) > LARGEST_ANSWER:
            raise NotChromas(f"it is larger than {LARGEST_ANSWER >> 20} MiB", may_pass=False)
    if not response.is_success:
        content = bytearray(without_secrets(content.decode(errors="replace")).encode(errors="replace"))
    kept = {name: value for name, value in response.headers.items() if name in ("location", "retry-after")}
    return httpx.Response(
        response.status_code,
        headers={"Content-Type": "application/json"} | kept,
        content=bytes(content),
        request=response.request,
        extensions={"reason_phrase": response.reason_phrase.encode()},
    )


def _fault(error: Exception) -> Exception:
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.DecodingError):
        return NotChromas(f"it cannot be unpacked ({reason})", may_pass=False)
    if isinstance(error, httpx.TimeoutException):
        return RequestFailed(f"no answer in time ({reason})")
    unusable = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.InvalidURL)
    return RequestFailed(reason, is_permanent=unusable or _is_for_good(error))


def _is_for_good(error: BaseException | None) -> bool:
    """Tell whether the next connection fails for the same reason: a certificate, an unknown name."""
    if error is None:
        return False
    return (
        (isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError))
        or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME)
        or _is_for_good(error.__cause__ or error.__context__)
    )
