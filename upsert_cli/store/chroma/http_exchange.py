"""One request to a Chroma server and its answer, bounded in time and in size; the only module that imports httpx."""

from __future__ import annotations

import email.utils
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from upsert_cli.packages import lean_imports
from upsert_cli.redaction import without_secrets
from upsert_cli.store.chroma.answers import not_chromas

with lean_imports():
    import httpx

CONNECT_SECONDS = 5.0  # seconds to connect; a host that does not answer at all is a wrong address
LARGEST_ANSWER = 256 << 20  # bytes, as sent and unpacked; a thousand records with vectors and long texts have 50 MiB
PROXY_REFUSES = 407  # the status of a proxy that wants other credentials
_ENCODINGS = {"", "identity", "gzip", "deflate"}  # others may unpack one chunk to gigabytes


class RequestFailed(Exception):
    """Raised when a request is not answered, its answer breaks off, or reports something that may pass."""

    def __init__(self, reason: str, *, pause: float = 0.0, is_permanent: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause
        """Seconds for which the server asks to be left alone."""

        self.is_permanent = is_permanent
        """Whether the next request would fail for the same reason."""


class HttpExchange:
    """Connections to a server, each request of which ends within a time.

    httpx has a timeout for each read, but none for a whole answer. So every connection is remembered, and all of them
    are shut down when the time of a request is over.
    """

    def __init__(self, headers: Mapping[str, str], *, silence: float) -> None:
        """Connect to nothing yet; `silence` is how long to wait for the next byte of an answer, in seconds."""
        self._client = httpx.Client(
            headers={"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate", **headers},
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

    def send(self, method: str, url: str, *, seconds: float, **options: Any) -> httpx.Response:
        """Send a request and return its answer, read to the end within a time; the text of an error holds no secret.

        Raises:
            RequestFailed: The server cannot be reached, or does not answer in time.
            NotChromasAnswer: The answer is larger than any of Chroma's, or compressed in a way that it does not use.
        """
        begun = False  # whether the headers of the answer have come
        expired = threading.Event()
        timer = threading.Timer(seconds, self._hang_up, [expired])
        timer.daemon = True
        timer.start()
        try:
            with self._client.stream(method, url, extensions={"trace": self._remember}, **options) as response:
                begun = True
                answer = _unpacked(response)
        except httpx.DecodingError as error:
            if not expired.is_set():
                raise not_chromas(error.request, f"it cannot be unpacked ({_reason(error)})") from error
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            if not expired.is_set():
                raise _failure(error) from error
        finally:
            timer.cancel()
        # A body without a length ends with its connection, so a deadline may also look like a complete answer.
        if expired.is_set():
            raise RequestFailed(f"its answer {'does not end' if begun else 'does not come'} within {seconds:.0f} s")
        return answer

    def _remember(self, _: str, info: Mapping[str, Any]) -> None:
        """Remember a connection that was made; httpx calls this with each of its steps."""
        get_extra_info = getattr(info.get("return_value"), "get_extra_info", None)
        if get_extra_info is not None:
            self._sockets.add(get_extra_info("socket"))

    def _hang_up(self, expired: threading.Event) -> None:
        """Shut all connections down, which ends any read."""
        expired.set()
        for each in list(self._sockets):
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(each, socket.SHUT_RDWR)


def _unpacked(response: httpx.Response) -> httpx.Response:
    """Return an answer with its whole body, unpacked; an error without secrets."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _ENCODINGS:
        raise not_chromas(response.request, f"it is packed as {encoding}, which was not asked for")
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if max(len(content), response.num_bytes_downloaded) > LARGEST_ANSWER:
            raise not_chromas(response.request, f"it is larger than {LARGEST_ANSWER >> 20} MiB")
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


def asked_pause(answer: httpx.Response) -> float:
    """Return the pause that a Retry-After header asks for, in seconds; the header has seconds or a date."""
    value = answer.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _failure(error: Exception) -> RequestFailed:
    """Return the failure of a request that got no answer."""
    reason = _reason(error)
    if isinstance(error, httpx.TimeoutException):
        return RequestFailed(f"no answer in time ({reason})")
    is_permanent = (
        isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.InvalidURL)
        or reason.startswith(str(PROXY_REFUSES))
        or _fails_each_time(error)
    )
    return RequestFailed(reason, is_permanent=is_permanent)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _fails_each_time(error: BaseException | None) -> bool:
    """Return whether a connection failed for a lasting reason: a certificate, or an unknown name."""
    if error is None:
        return False
    return (
        (isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError))
        or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME)
        or _fails_each_time(error.__cause__ or error.__context__)
    )
