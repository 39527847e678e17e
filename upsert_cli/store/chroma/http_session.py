"""Requests to a Chroma server, retried until Chroma answers or an error can say what to do.

chromadb's own session waits forever, tries once, hides the server's message, and takes any answer for Chroma's. This
one replaces it inside chromadb's client. Every request may be repeated: a write is an upsert by id. No other module
imports httpx.
"""

from __future__ import annotations

import email.utils
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from upsert_cli.errors import NotChromasAnswer, UpsertCliError
from upsert_cli.packages import lean_imports
from upsert_cli.redaction import remember, without_secrets
from upsert_cli.retry import call_with_retries
from upsert_cli.store.address import Access
from upsert_cli.store.chroma.answers import NotChromas, message_in, value_of
from upsert_cli.store.chroma.faults import lacks_vector, short_line

with lean_imports():
    import httpx

CONNECT_SECONDS = 5.0  # seconds to connect; a host that does not answer at all is a wrong address
LARGEST_ANSWER = 256 << 20  # bytes, as sent and unpacked; a thousand records with vectors and long texts have 50 MiB
FIRST_SECONDS = 5.0  # seconds in which a server that was never reached may come up
LONGEST_SILENCE = 60.0  # seconds to wait for an answer to begin or go on; a server writes 500 rows in one to four
SHORTEST_SILENCE = 5.0  # seconds of the same where patience is short
SILENCES = 5  # that many fit into the time for which a request is tried again
TRIES = 2  # that many fit into the same time, if the whole of an answer never comes
FOREIGN_SECONDS = 30.0  # seconds until a gateway that answers instead of Chroma is taken to stay there
TELL_SECONDS = 5.0  # seconds between two messages about a server that keeps failing
SMALLEST_LIMIT = 64 << 10  # bytes; no server or gateway calls less than that too large

_ENCODINGS = {"", "identity", "gzip", "deflate"}  # others may unpack one chunk to gigabytes
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOCKED_OUT = {401, 403}
_PROXY_REFUSES = 407
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
_TOO_LARGE = 413
_TOO_LARGE_WORDS = b"Payload too large"  # Chroma's own, in no format
# Too large, over a quota, or of a type that this version of Chroma does not know; in these words of Chroma's.
_UNPROCESSABLE = {_TOO_LARGE, 422}
_DATA_ERRORS = {"ChromaError", "InvalidArgumentError", "QuotaError", "BatchSizeExceededError"}


class Unacceptable(ValueError):
    """Raised when the server refuses a request because of its content: fewer or other rows may pass."""


class RequestFailed(Exception):
    """Raised when a request is not answered, its answer breaks off, or reports something that may pass."""

    def __init__(self, reason: str, *, pause: float = 0.0, is_permanent: bool = False) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds for which the server asks to be left alone
        self.is_permanent = is_permanent  # whether the next request would fail for the same reason


class HttpSession:
    """Requests to one server, in the interface that chromadb's client expects."""

    def __init__(self, url: str, access: Access, *, retry_for: float, notify: Callable[[str], None]) -> None:
        """Connect to nothing yet; `notify` is called with a message before a pause."""
        remember(access.headers.values())  # this process may be another than the one that read them
        self._silence = min(LONGEST_SILENCE, max(SHORTEST_SILENCE, retry_for / SILENCES))
        self._client = httpx.Client(
            headers={"Content-Type": "application/json", "Accept-Encoding": "gzip, deflate"} | access.headers,
            timeout=httpx.Timeout(self._silence, connect=CONNECT_SECONDS, pool=None),
        )
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._url = url
        self._access = access
        self._retry_for = retry_for
        self._notify = notify
        self._reached = False
        self._recognized = False  # whether an answer of Chroma's has come
        self._next_message = 0.0

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each request."""
        return self._client.headers

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Make a request until Chroma answers; an error that it reports is an answer as well.

        The extension `value` of the answer is its value: `error` and `message` of an error.

        Raises:
            Unacceptable: It is too large, or makes no sense to the server.
            UpsertCliError: There is no Chroma at this address, it wants another token, or it did not recover in time.
        """
        began = time.monotonic()
        try:
            return call_with_retries(
                lambda: self._try(method.upper(), str(url), time.monotonic() - began, options),
                is_passing=lambda error: self._is_passing(error, time.monotonic() - began),
                seconds=self._retry_for,
                asked_pause=lambda error: getattr(error, "pause", 0.0),
                before_pause=self._tell,
            )
        except RequestFailed as error:
            raise self._given_up(error, time.monotonic() - began) from error
        except NotChromas as error:
            request = f"{method.upper()} {str(url).removeprefix(self._url).partition('?')[0]}"
            raise NotChromasAnswer(url=self._url, request=request, found=short_line(str(error))) from error

    def _try(self, method: str, url: str, elapsed: float, options: dict[str, Any]) -> httpx.Response:
        """Return the answer if it is Chroma's, and no sign of something that passes."""
        # Some slow answers and long ones end, so the limit for the whole of one try is not the silence.
        whole = max(self._silence, self._retry_for / TRIES) if self._recognized else self._silence
        seconds = max(SHORTEST_SILENCE, min(whole, self._retry_for - elapsed))
        answer = self._exchange(method, url, seconds=seconds, **options)
        self._reached = True
        status = answer.status_code
        said = message_in(answer) if status in _PASSING else ""
        if status in _PASSING and not lacks_vector(said):  # no vector comes back by itself
            raise RequestFailed(f"{status} {answer.reason_phrase}{said and f', {said}'}", pause=_asked_pause(answer))
        if status == _PROXY_REFUSES:
            raise RequestFailed(str(status), is_permanent=True)
        if status in _LOCKED_OUT:
            raise self._locked_out(status)
        is_large = len(answer.request.content) >= SMALLEST_LIMIT or answer.content.startswith(_TOO_LARGE_WORDS)
        if status == _TOO_LARGE and is_large:
            raise Unacceptable("the server says that the request is too large (413)")
        answer.extensions["value"] = value = value_of(answer)
        self._recognized = True
        if status in _UNPROCESSABLE and value["error"] in _DATA_ERRORS:
            raise Unacceptable(f"the server answers {status}: {short_line(value['message'])}")
        return answer

    def _exchange(self, method: str, url: str, *, seconds: float, **options: Any) -> httpx.Response:
        """Send a request and return its answer, read to the end within a time; the text of an error holds no secret.

        Raises:
            RequestFailed: The server cannot be reached, or does not answer in time.
            NotChromas: The answer is larger than any of Chroma's, or compressed in a way that it does not use.
        """
        begun = False  # whether any of the answer is there
        expired = threading.Event()
        timer = threading.Timer(seconds, self._hang_up, [expired])
        timer.daemon = True
        timer.start()
        try:
            with self._client.stream(method, url, extensions={"trace": self._watch}, **options) as response:
                begun = True
                answer = _read(response)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            if not expired.is_set():
                raise _fault(error) from error
        finally:
            timer.cancel()
        # A body without a length ends with its connection, so a deadline may also look like a complete answer.
        if expired.is_set():
            raise RequestFailed(f"its answer {'does not end' if begun else 'does not come'} within {seconds:.0f} s")
        return answer

    def _watch(self, _: str, info: Mapping[str, Any]) -> None:
        """Remember each connection that is made: httpx has a timeout for each read, but none for the whole."""
        get_extra_info = getattr(info.get("return_value"), "get_extra_info", None)
        if get_extra_info is not None:
            self._sockets.add(get_extra_info("socket"))

    def _hang_up(self, expired: threading.Event) -> None:
        """Shut all connections down, which ends any read."""
        expired.set()
        for each in list(self._sockets):
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def _is_passing(self, error: BaseException, seconds: float) -> bool:
        if isinstance(error, NotChromas):
            # An address that never answered as Chroma does is wrong; a gateway may answer while Chroma restarts.
            return self._recognized and error.may_pass and seconds < FOREIGN_SECONDS
        # An address that never answered is more likely wrong than a server that is starting.
        is_there = self._reached or seconds < FIRST_SECONDS
        return is_there and isinstance(error, RequestFailed) and not error.is_permanent

    def _tell(self, error: BaseException, pause: float) -> None:
        if time.monotonic() >= self._next_message:
            self._next_message = time.monotonic() + TELL_SECONDS
            self._notify(f"{self._url}: {short_line(str(error))}; trying again in {pause:.1f} s")

    def _given_up(self, error: RequestFailed, seconds: float) -> UpsertCliError:
        reason = short_line(str(error))
        if reason.startswith(str(_PROXY_REFUSES)):
            proxies = sorted(name for name, value in os.environ.items() if name.upper() in _PROXIES and value)
            return UpsertCliError(
                message=f"the proxy on the way to {self._url} refuses access (407); check the user and password in "
                f"{' or '.join(proxies) or 'HTTPS_PROXY'}, or name the host in NO_PROXY"
            )
        if error.is_permanent or not self._reached:
            return UpsertCliError(
                message=f"{self._url} cannot be reached: {reason}; check that the address is right (`chroma run` "
                f"listens at port 8000), that a server runs there, and which proxies and certificates the environment "
                f"names"
            )
        wish = f", and asks to be left alone for {error.pause:.0f} s" if error.pause else ""
        return UpsertCliError(
            message=f"{self._url} has failed for {seconds:.0f} s: {reason}{wish}; everything that it confirmed is "
            f"checkpointed, so restart the task once it has recovered, or allow more time with --retry-for"
        )

    def _locked_out(self, status: int) -> UpsertCliError:
        wanted = self._access.wanted
        remedy = (
            f"; {wanted}, or the file that {wanted}_FILE names, has to hold a token for it (for the cloud also "
            f"CHROMA_API_KEY)"
        )
        if self._access.sources:
            remedy = f" with the credentials of {' and '.join(self._access.sources)}; check that they are right for it"
        return UpsertCliError(message=f"{self._url} refuses access ({status}){remedy}")


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
    unusable = unusable or reason.startswith(str(_PROXY_REFUSES))
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


def _asked_pause(answer: httpx.Response) -> float:
    """Return the seconds of a Retry-After header, which has them or a date."""
    value = answer.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
