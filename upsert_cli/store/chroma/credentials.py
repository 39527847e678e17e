"""The credentials for a server: tokens and headers, from the environment or from files.

Never from a flag, which the process list would show. The journal has none of them, since they are not part of a task.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from upsert_cli.errors import UsageFault
from upsert_cli.paths import expanded
from upsert_cli.redaction import remember
from upsert_cli.store.chroma.address import Address

TOKEN = "UPSERT_CLI_CHROMA_TOKEN"  # noqa: S105  # a name
CLOUD_TOKEN = "CHROMA_API_KEY"  # noqa: S105
HEADERS = "UPSERT_CLI_CHROMA_HEADERS"
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
FILE = "_FILE"  # ends the name of the variable that names a file instead
SECRET_VARIABLES = tuple(name + ending for name in (TOKEN, CLOUD_TOKEN, HEADERS) for ending in ("", FILE))


@dataclass(frozen=True, slots=True)
class Access:
    """The headers with credentials."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)

    sources: tuple[str, ...] = ()
    """Where they come from: `UPSERT_CLI_CHROMA_TOKEN_FILE (/run/secrets/token)`."""


@dataclass(frozen=True, slots=True)
class _Given:
    """The content of a variable, or of the file that it names."""

    text: str = field(repr=False)
    source: str
    """The variable that was used, with its file if it names one."""


def access_to(address: Address) -> Access:
    """Return the headers for a server.

    Raises:
        UsageFault: A file cannot be read, or a value is not valid in a header.
    """
    headers: dict[str, str] = {}
    sources: list[str] = []
    # The key of the cloud must not be sent to another server.
    names = (TOKEN, CLOUD_TOKEN) if address.is_cloud else (TOKEN,)
    if (given := next(filter(None, map(_given, names)), None)) is not None:
        token = _sound(given.text.strip(), given)
        headers["X-Chroma-Token"] = token
        if not address.is_cloud:
            headers["Authorization"] = f"Bearer {token}"
        sources.append(given.source)
    if (given := _given(HEADERS)) is not None:
        headers |= _headers_in(given)
        sources.append(given.source)
    remember(headers.values())
    return Access(headers, tuple(sources))


def proxy_variables() -> tuple[str, ...]:
    """Return the names of the variables that name a proxy."""
    return tuple(sorted(name for name, value in os.environ.items() if name.upper() in PROXIES and value))


def _headers_in(given: _Given) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in filter(str.strip, given.text.splitlines()):
        name, colon, value = line.partition(":")
        if not colon:
            raise _unusable(given.source, "a line of it is not of the form `Name: value`")
        headers[_sound(name.strip(), given)] = _sound(value.strip(), given)
    return headers


def _given(name: str) -> _Given | None:
    """Return the content of a variable, or of the file that its counterpart names; None if neither is set."""
    if value := os.environ.get(name):
        return _Given(value, name)
    path = os.environ.get(name + FILE)
    if not path:
        return None
    source = f"{name}{FILE} ({path})"
    try:
        return _Given(expanded(Path(path)).read_text("utf-8-sig"), source)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise _unusable(source, reason) from error


def _unusable(source: str, reason: str) -> UsageFault:
    return UsageFault(message=f"{source} cannot be used: {reason}")


def _sound(value: str, given: _Given) -> str:
    """Return a part of a header, or fail without quoting it."""
    if not value or not value.isascii() or not value.isprintable():
        raise _unusable(given.source, "it is empty, or has characters that no header can have")
    return value
