"""Requests to a Chroma server, retried until Chroma answers or an error can say what to do.

chromadb's own session waits forever, tries once, hides the server's message, and takes any answer for Chroma's. This
one replaces it inside chromadb's client. Every request may be repeated: a write is an upsert by id.
"""

from __future__ import annotations

import email.utils
import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import NotChromasAnswer, UpsertCliError
from upsert_cli.redaction import remember
from upsert_cli.retry import call_with_retries
from upsert_cli.store.chroma.address import Access
from upsert_cli.store.chroma.answers import NotChromas, error_of, message_in
from upsert_cli.store.chroma.exchange import Connections, RequestFailed
from upsert_cli.store.chroma.faults import short_line

if TYPE_CHECKING:
    import httpx

FIRST_SECONDS = 5.0  # seconds in which a server that was never reached may come up
LONGEST_SILENCE = 60.0  # seconds to wait for an answer to begin or go on; a server writes 500 rows in one to four
SHORTEST_SILENCE = 5.0  # seconds of the same where patience is short
SILENCES = 5  # that many fit into the time for which a request is tried again
TRIES = 2  # that many fit into the same time, if the whole of an answer never comes
FOREIGN_SECONDS = 30.0  # seconds until a gateway that answers instead of Chroma is taken to stay there
TELL_SECONDS = 5.0  # seconds between two messages about a server that keeps failing
SMALLEST_LIMIT = 64 << 10  # bytes; no server or gateway calls less than that too large

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


class HttpSession(Connections):
    """Requests to one server, in the interface that chromadb's client expects."""

    def __init__(self, url: str, access: Access, *, retry_for: float, notify: Callable[[str], None]) -> None:
        """Connect to nothing yet.

        Args:
            url: Of the server, for messages.
            access: The headers with credentials.
            retry_for: How long to keep retrying a failed request, in seconds.
            notify: Called with a message before a pause.
        """
        remember(access.headers.values())  # this process may be another than the one that read them
        self._silence = min(LONGEST_SILENCE, max(SHORTEST_SILENCE, retry_for / SILENCES))
        super().__init__(access.headers, silence=self._silence)
        self._url = url
        self._access = access
        self._retry_for = retry_for
        self._notify = notify
        self._reached = False
        self._recognized = False  # whether an answer of Chroma's has come
        self._next_message = 0.0

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Make a request until Chroma answers; an error that it reports is an answer as well.

        Raises:
            Unacceptable: It is too large, or makes no sense to the server.
            NotChromasAnswer: What answers is not Chroma.
            UpsertCliError: There is no server at this address, it wants another token, or it did not recover in time.
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
        answer = self.exchange(method, url, seconds=seconds, **options)
        self._reached = True
        status = answer.status_code
        if status in _PASSING:
            said = message_in(answer)
            reason = f"{status} {answer.reason_phrase}{said and f', {said}'}"
            raise RequestFailed(reason, pause=_asked_pause(answer), answered=True)
        if status == _PROXY_REFUSES:
            raise self._proxy_refuses()
        if status in _LOCKED_OUT:
            raise self._locked_out(status)
        is_large = len(answer.request.content) >= SMALLEST_LIMIT or answer.content.startswith(_TOO_LARGE_WORDS)
        if status == _TOO_LARGE and is_large:
            raise Unacceptable("the server says that the request is too large (413)")
        reported = error_of(answer)
        self._recognized = True
        if status in _UNPROCESSABLE and reported is not None and reported[0] in _DATA_ERRORS:
            raise Unacceptable(f"the server answers {status}: {short_line(reported[1])}")
        return answer

    def _is_passing(self, error: BaseException, seconds: float) -> bool:
        if isinstance(error, NotChromas):
            # An address that never answered as Chroma does is wrong; a gateway may answer while Chroma restarts.
            return self._recognized and error.may_pass and seconds < FOREIGN_SECONDS
        if not isinstance(error, RequestFailed) or error.is_permanent or _is_refused_by_proxy(error):
            return False
        # An address that never answered is more likely wrong than a server that is starting.
        return error.answered or self._reached or seconds < FIRST_SECONDS

    def _tell(self, error: BaseException, pause: float) -> None:
        if time.monotonic() >= self._next_message:
            self._next_message = time.monotonic() + TELL_SECONDS
            self._notify(f"{self._url}: {short_line(str(error))}; trying again in {pause:.1f} s")

    def _given_up(self, error: RequestFailed, seconds: float) -> UpsertCliError:
        reason = short_line(str(error))
        if _is_refused_by_proxy(error):
            return self._proxy_refuses()
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
        if self._access.sources:
            return UpsertCliError(
                message=f"{self._url} refuses access ({status}) with the credentials of "
                f"{' and '.join(self._access.sources)}; check that they are right for this server"
            )
        return UpsertCliError(
            message=f"{self._url} refuses access ({status}); UPSERT_CLI_CHROMA_TOKEN, or the file that "
            f"UPSERT_CLI_CHROMA_TOKEN_FILE names, has to hold a token for it (for the cloud also CHROMA_API_KEY)"
        )

    def _proxy_refuses(self) -> UpsertCliError:
        proxies = sorted(name for name, value in os.environ.items() if name.upper() in _PROXIES and value)
        return UpsertCliError(
            message=f"the proxy on the way to {self._url} refuses access (407); check the user and password in "
            f"{' or '.join(proxies) or 'HTTPS_PROXY'}, or name the host in NO_PROXY"
        )


def _is_refused_by_proxy(error: RequestFailed) -> bool:
    return str(error).startswith(str(_PROXY_REFUSES))


def _asked_pause(answer: httpx.Response) -> float:
    """Return the seconds of a Retry-After header, which has them or a date."""
    value = answer.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
