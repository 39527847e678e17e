"""A file of a web server: what it is like, and its bytes from any place on."""

from __future__ import annotations

import email.utils
import http.client
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from upsert_cli import __version__
from upsert_cli.stream.sources.ranged import Facts, Unsteady

if TYPE_CHECKING:
    from http.client import HTTPResponse

TIMEOUT = 20.0  # seconds without a byte; longer than a slow disk takes, shorter than a person waits
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
PASSING = frozenset([408, 425, 429, 500, 502, 503, 504])
DISCARDED = 1 << 20  # bytes read at once on the way to a place, where a server knows no ranges

_AS_TYPED = "%/:?#[]@!$&'()*+,;=~"  # characters of an address that mean something; others are encoded
_CONTENT_RANGE = re.compile(r"bytes \d+-\d+/(\d+|\*)")


class WebFile:
    """An open file of a web server; read in a row, one answer gives all of it."""

    def __init__(self, address: str) -> None:
        """Asks what the file is like.

        Raises:
            Unsteady: The server cannot be reached, or is busy.
            OSError: It does not give the file away.
        """
        self._address = quote(address, safe=_AS_TYPED)
        self._response: HTTPResponse | None = None
        self._position = 0
        with closing(self._ask("bytes=0-0")) as response:
            self.facts = _facts(response)

    def read_at(self, position: int, size: int) -> bytes:
        """Returns up to `size` bytes from a place on; none only at the end."""
        if self.facts.size is not None and position >= self.facts.size:
            return b""
        try:
            response = self._response_at(position)
            with _understood():
                data = response.read(size)
            if not data and self.facts.size is not None:
                raise Unsteady("the connection broke off")
        except OSError:
            self.close()
            raise
        self._position += len(data)
        return data

    def close(self) -> None:
        """Lets go of the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _response_at(self, position: int) -> HTTPResponse:
        if self._response is not None and self._position == position:
            return self._response
        self.close()
        response = self._ask(f"bytes={position}-") if position else self._ask(None)
        if _facts(response) != self.facts:
            response.close()
            raise OSError("it changed while it was being read")
        self._response, self._position = response, 0
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            self._position = position
        while self._position < position:  # the server knows no ranges, and begins at the start
            with _understood():
                passed = len(response.read(min(DISCARDED, position - self._position)))
            if not passed:
                raise Unsteady("the connection broke off")
            self._position += passed
        return response

    def _ask(self, wanted: str | None) -> HTTPResponse:
        from urllib.request import Request, urlopen

        headers = {"User-Agent": f"upsert-cli/{__version__}", "Accept-Encoding": "identity"}
        if wanted is not None:
            headers["Range"] = wanted
        with _understood():
            response: HTTPResponse = urlopen(Request(self._address, headers=headers), timeout=TIMEOUT)  # noqa: S310
        return response


def _facts(response: HTTPResponse) -> Facts:
    size: int | None = None
    if response.status == HTTPStatus.PARTIAL_CONTENT:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        size = int(found[1]) if found and found[1] != "*" else None
    elif (length := response.headers.get("Content-Length", "")).isdecimal():
        size = int(length)
    modified = 0
    with suppress(TypeError, ValueError):
        modified = int(email.utils.parsedate_to_datetime(response.headers["Last-Modified"]).timestamp()) * 1_000_000_000
    return Facts(size=size, mtime_ns=modified, etag=response.headers.get("ETag"))


@contextmanager
def _understood() -> Iterator[None]:
    """Turns what the standard library raises into faults that pass and those that do not."""
    from urllib.error import HTTPError, URLError

    try:
        yield
    except HTTPError as error:
        error.close()
        kind = Unsteady if error.code in PASSING else FileNotFoundError if error.code in _GONE else OSError
        raise kind(f"the server answers {error.code} {error.reason}") from error
    except URLError as error:
        if isinstance(error.reason, OSError) and not _is_certificate(error.reason):
            raise Unsteady(f"the server cannot be reached ({error.reason})") from error
        raise OSError(f"the server cannot be asked ({error.reason})") from error
    except http.client.InvalidURL as error:
        raise OSError(f"it is no address ({error})") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise Unsteady(f"the connection broke off ({str(error) or type(error).__name__})") from error


def _is_certificate(error: OSError) -> bool:
    import ssl

    return isinstance(error, ssl.SSLCertVerificationError)
