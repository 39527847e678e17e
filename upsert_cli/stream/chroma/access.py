"""What a server wants to see before it lets anybody in: tokens and headers, from the environment or from files.

Never from a flag, which the process list would show; and kept out of the journal, since nothing here is part of a task.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from upsert_cli.errors import BadAccess
from upsert_cli.folders import expanded
from upsert_cli.redaction import MASK
from upsert_cli.stream.chroma.address import Address
from upsert_cli.text_files import read_text

TOKEN = "UPSERT_CLI_CHROMA_TOKEN"  # noqa: S105  # a name
CLOUD_TOKEN = "CHROMA_API_KEY"  # noqa: S105
HEADERS = "UPSERT_CLI_CHROMA_HEADERS"
FILE = "_FILE"  # ends the name of the variable that names a file instead
SHORTEST = 4  # characters of a header's value that is masked; shorter ones are found in too many words


@dataclass(frozen=True, slots=True)
class Access:
    """The headers that let a request in."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def hide(self, text: str) -> str:
        """Returns what a server or a library said, without what it was let in by."""
        for value in self.headers.values():
            for secret in (value, value.rpartition(" ")[2]):
                if len(secret) >= SHORTEST:
                    text = text.replace(secret, MASK)
        return text


def access_to(address: Address) -> Access:
    """Collects the headers for a server.

    Raises:
        BadAccess: A file of them cannot be read, or its content is no header.
    """
    headers: dict[str, str] = {}
    if token := _token(address):
        headers["X-Chroma-Token"] = token
        if not address.is_cloud:
            headers["Authorization"] = f"Bearer {token}"
    for line in _value(HEADERS).splitlines():
        name, colon, value = line.partition(":")
        if line.strip():
            headers[_sound(name.strip(), HEADERS) if colon else _no_header()] = _sound(value.strip(), HEADERS)
    return Access(headers)


def _token(address: Address) -> str:
    # The key of the cloud is for the cloud: another server has no business with it.
    names = (TOKEN, CLOUD_TOKEN) if address.is_cloud else (TOKEN,)
    return next((_sound(token, name) for name in names if (token := _value(name).strip())), "")


def _value(name: str) -> str:
    if value := os.environ.get(name):
        return value
    path = os.environ.get(name + FILE)
    if not path:
        return ""
    try:
        return read_text(expanded(Path(path)))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise BadAccess(variable=name + FILE, reason=f"{path}: {reason}") from error


def _sound(value: str, variable: str) -> str:
    """Returns a part of a header, or fails without quoting it."""
    if not value or not value.isascii() or not value.isprintable():
        raise BadAccess(variable=variable, reason="it is empty, or has characters that no header can have")
    return value


def _no_header() -> str:
    raise BadAccess(variable=HEADERS, reason="a line of it is not of the form `Name: value`")
