"""A request to a Chroma server -> its answer, however often it takes to get one, or an error that says what to do.

chromadb's own session waits for ever, tries once and hides what the server said. This one takes its place inside of
chromadb's client. Whatever we ask for may be asked for again: a write is an upsert by id.

The only module that imports httpx.
"""

from __future__ import annotations

import email.utils
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx

from upsert_cli.errors import ServerFailing, ServerUnreachable, TokenRefused, UpsertCliError
from upsert_cli.stream.chroma.access import Access
from upsert_cli.stream.chroma.patience import patiently

CONNECT_SECONDS = 5.0  # seconds to be let in; a host that does not answer at all is a wrong address
FIRST_SECONDS = 5.0  # seconds in which a server that was never reached may come up
LONGEST_ANSWER = 60.0  # seconds for an answer; a server writes 500 rows in one to four
SHORTEST_ANSWER = 5.0  # seconds for an answer where patience is short
ANSWERS = 5  # that many may be awaited in vain before patience ends
TELL_SECONDS = 5.0  # seconds between two words about a server that keeps failing
DETAIL_CHARACTERS = 300  # characters of what a server said

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOCKED_OUT = {401, 403, 407}
_TOO_LARGE = 413
_SENSELESS = 400
_OVER_QUOTA = 422  # also what cannot be read at all; one of the rows is to blame

Told = Callable[[str], None]


class Unacceptable(ValueError):
    """Raised when the server will not take a request for what is in it: fewer or other rows may pass."""


class _Failed(Exception):
    """Raised when a request may work a moment later."""

    def __init__(self, reason: str, *, pause: float = 0.0, answered: bool = True) -> None:
        super().__init__(reason)
        self.pause = pause
        self.answered = answered


class Session(httpx.Client):
    """Keeps connections to one server; certificates and proxies are the user's, by the usual variables."""

    def __init__(self, url: str, access: Access, *, retry_for: float, told: Told) -> None:
        """Connects to nothing yet.

        Args:
            url: Of the server, for messages.
            access: The headers that let us in.
            retry_for: Seconds for which a request that fails is made again.
            told: Hears of each pause before a further try.
        """
        answer = min(LONGEST_ANSWER, max(SHORTEST_ANSWER, retry_for / ANSWERS))
        super().__init__(
            headers={"Content-Type": "application/json"} | access.headers,
            timeout=httpx.Timeout(answer, connect=CONNECT_SECONDS, pool=None),
        )
        self._url = url
        self._access = access
        self._retry_for = retry_for
        self._told = told
        self._reached = False
        self._next_word = 0.0

    def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:
        """Makes a request until it is answered.

        Raises:
            Unacceptable: It is too large, or makes no sense to the server.
            TokenRefused: The server wants another token.
            ServerUnreachable: There is no server at this address.
            ServerFailing: The server did not recover in time.
        """
        began = time.monotonic()
        try:
            return patiently(
                lambda: self._try(method, url, options),
                is_passing=lambda error: self._is_passing(error, time.monotonic() - began),
                seconds=self._retry_for,
                asked_pause=lambda error: getattr(error, "pause", 0.0),
                told=self._tell,
            )
        except _Failed as error:
            raise self._given_up(error, time.monotonic() - began) from error

    def _try(self, method: str, url: httpx.URL | str, options: dict[str, Any]) -> httpx.Response:
        try:
            answer = super().request(method, url, **options)
        except httpx.TransportError as error:
            raise self._not_answered(error) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(url=self._url, reason=self._words(str(error))) from error
        self._reached = True
        status = answer.status_code
        if status in _PASSING:
            said = self._words(_said(answer))
            raise _Failed(f"{status} {answer.reason_phrase}{said and f', {said}'}", pause=_asked_pause(answer))
        if status in _LOCKED_OUT:
            raise TokenRefused(url=self._url, status=status)
        if status == _TOO_LARGE:
            raise Unacceptable("the server says that the request is too large (413)")
        # Chroma's own client understands a 400 in Chroma's words.
        if status == _OVER_QUOTA or (status == _SENSELESS and not _is_chromas(answer)):
            raise Unacceptable(f"the server answers {status}: {self._words(_said(answer))}")
        return answer

    def _not_answered(self, error: httpx.TransportError) -> Exception:
        reason = self._words(str(error)) or type(error).__name__
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError) or _is_for_good(error):
            return ServerUnreachable(url=self._url, reason=reason)
        if isinstance(error, httpx.TimeoutException):
            reason = f"no answer in time ({reason})"
        return _Failed(reason, answered=False)

    def _is_passing(self, error: BaseException, seconds: float) -> bool:
        if not isinstance(error, _Failed):
            return False
        # What never answered is more likely a wrong address than a server that is being started.
        return error.answered or self._reached or seconds < FIRST_SECONDS

    def _tell(self, error: BaseException, pause: float) -> None:
        if time.monotonic() >= self._next_word:
            self._next_word = time.monotonic() + TELL_SECONDS
            self._told(f"{self._url}: {error}; trying again in {pause:.1f} s")

    def _given_up(self, error: _Failed, seconds: float) -> UpsertCliError:
        if not self._reached:
            return ServerUnreachable(url=self._url, reason=str(error))
        return ServerFailing(url=self._url, reason=str(error), seconds=seconds, pause=error.pause)

    def _words(self, said: str) -> str:
        """Returns what was said as one line of plain text without secrets."""
        text = self._access.hide(" ".join(said.split()))
        return text if len(text) <= DETAIL_CHARACTERS else f"{text[: DETAIL_CHARACTERS - 3]}..."


def _said(answer: httpx.Response) -> str:
    """Returns the message in an answer, or the answer where it has none; a page for a browser says nothing."""
    with suppress(ValueError):
        body = answer.json()
        if isinstance(body, dict):
            return str(body.get("message") or body.get("error") or answer.text)
    return "" if answer.text.lstrip().startswith("<") else answer.text


def _is_chromas(answer: httpx.Response) -> bool:
    """Tells whether an answer is an error as Chroma words it."""
    try:
        body = json.loads(answer.content)
    except ValueError:
        return False
    return isinstance(body, dict) and {"error", "message"} <= body.keys()


def _asked_pause(answer: httpx.Response) -> float:
    """Returns the seconds of a Retry-After header, which has them or a date."""
    value = answer.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


def _is_for_good(error: BaseException) -> bool:
    """Tells whether a connection fails for what the next one fails for as well: a certificate, an unknown name."""
    return any(
        isinstance(cause, ssl.SSLError) or (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
