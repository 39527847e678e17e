"""Requests to a Chroma server, repeated until Chroma answers or an error can name the remedy.

chromadb's own session waits forever, tries once, hides the server's message, and takes any answer for Chroma's. This
one replaces it inside chromadb's client. Every request may be repeated, since a write is an upsert by id.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import NotChromasAnswer, UpsertCliError
from upsert_cli.limits import library_fault
from upsert_cli.redaction import remember
from upsert_cli.retry import call_with_retries
from upsert_cli.store.address import Access
from upsert_cli.store.chroma.answers import message_in, value_of
from upsert_cli.store.chroma.faults import lacks_vector, short_line
from upsert_cli.store.chroma.http_exchange import PROXY_REFUSES, HttpExchange, RequestFailed, asked_pause

if TYPE_CHECKING:
    import httpx

FIRST_SECONDS = 5.0  # seconds in which a server that was never reached may come up
LONGEST_SILENCE = 60.0  # seconds to wait for an answer to begin or go on; a server writes 500 rows in one to four
SHORTEST_SILENCE = 5.0  # the same in seconds where --retry-for is short
SILENCES = 5  # silences that fit into the time for which a request is repeated
TRIES = 2  # tries that fit into the same time, if an answer never ends
FOREIGN_SECONDS = 30.0  # seconds until a gateway that answers instead of Chroma is taken to stay there
MESSAGE_SECONDS = 5.0  # seconds between two messages about a server that keeps failing
SMALLEST_LIMIT = 64 << 10  # bytes; no server or gateway calls less than that too large

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOCKED_OUT = {401, 403}
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
_TOO_LARGE = 413
_TOO_LARGE_WORDS = b"Payload too large"  # Chroma's own, in no format
# Too large, over a quota, or of a type that this version of Chroma does not know; in these words of Chroma's.
_UNPROCESSABLE = {_TOO_LARGE, 422}
_DATA_ERRORS = {"ChromaError", "InvalidArgumentError", "QuotaError", "BatchSizeExceededError"}


class Unacceptable(ValueError):
    """Raised when the server refuses a request because of its content: fewer or other rows may pass."""


class HttpSession:
    """Requests to one server, in the interface that chromadb's client expects."""

    def __init__(self, url: str, access: Access, *, retry_for: float, notify: Callable[[str], None]) -> None:
        """Connect to nothing yet; `notify` is called with a message before a pause.

        Raises:
            UpsertCliError: The environment names a proxy or certificates that cannot be used.
        """
        remember(access.headers.values())  # this process may be another than the one that read them
        self._silence = min(LONGEST_SILENCE, max(SHORTEST_SILENCE, retry_for / SILENCES))
        try:
            self._exchange = HttpExchange(access.headers, silence=self._silence)
        except (OSError, ValueError, ImportError) as error:
            remedy = "check the proxy and certificates in the environment, such as HTTPS_PROXY and SSL_CERT_FILE"
            raise library_fault(error, problem=f"no connection to {url} can be made", remedy=remedy) from error
        self._url = url
        self._access = access
        self._retry_for = retry_for
        self._notify = notify
        self._reached = False  # whether any answer has come
        self._recognized = False  # whether an answer of Chroma's has come
        self._next_message = 0.0  # monotonic time

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of each request."""
        return self._exchange.headers

    def close(self) -> None:
        """Close all connections."""
        self._exchange.close()

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Make a request until Chroma answers; an error that it reports is an answer as well.

        The extension `value` of the answer is its value: `error` and `message` of an error.

        Raises:
            Unacceptable: The request is too large, or makes no sense to the server.
            NotChromasAnswer: Something else answers at this address.
            UpsertCliError: There is no server, it wants another token, or it did not recover in time.
        """
        began = time.monotonic()
        try:
            return call_with_retries(
                lambda: self._try(method.upper(), str(url), time.monotonic() - began, options),
                is_passing=lambda error: self._is_passing(error, time.monotonic() - began),
                seconds=self._retry_for,
                asked_pause=lambda error: getattr(error, "pause", 0.0),
                before_pause=self._announce,
            )
        except RequestFailed as error:
            raise self._given_up(error, time.monotonic() - began) from error

    def _try(self, method: str, url: str, elapsed: float, options: dict[str, Any]) -> httpx.Response:
        """Return the answer if it is Chroma's, and no sign of something that passes."""
        # A long answer may take longer in all than the silence between two of its bytes.
        whole = max(self._silence, self._retry_for / TRIES) if self._recognized else self._silence
        seconds = max(SHORTEST_SILENCE, min(whole, self._retry_for - elapsed))
        answer = self._exchange.send(method, url, seconds=seconds, **options)
        self._reached = True
        status = answer.status_code
        message = message_in(answer) if status in _PASSING else ""
        if status in _PASSING and not lacks_vector(message):  # no vector comes back by itself
            reason = f"{status} {answer.reason_phrase}{message and f', {message}'}"
            raise RequestFailed(reason, pause=asked_pause(answer))
        if status == PROXY_REFUSES:
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

    def _is_passing(self, error: BaseException, seconds: float) -> bool:
        """Return whether the same request may be answered by Chroma later, `seconds` after the first try."""
        if isinstance(error, NotChromasAnswer):
            # An address where Chroma never answered is wrong; a gateway may answer while Chroma restarts.
            return self._recognized and error.may_pass and seconds < FOREIGN_SECONDS
        # An address that never answered is more likely wrong than a server that is starting.
        is_there = self._reached or seconds < FIRST_SECONDS
        return is_there and isinstance(error, RequestFailed) and not error.is_permanent

    def _announce(self, error: BaseException, pause: float) -> None:
        if time.monotonic() >= self._next_message:
            self._next_message = time.monotonic() + MESSAGE_SECONDS
            reason = error.found if isinstance(error, NotChromasAnswer) else short_line(str(error))
            self._notify(f"{self._url}: {reason}; trying again in {pause:.1f} s")

    def _given_up(self, error: RequestFailed, seconds: float) -> UpsertCliError:
        reason = short_line(str(error))
        if reason.startswith(str(PROXY_REFUSES)):
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
