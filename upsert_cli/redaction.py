"""What a library or a system says -> the same without the passwords and tokens that it was given.

Tokens come from the environment, and addresses there may hold passwords; error texts quote both.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import unquote

MASK = "***"
SHORTEST = 6  # characters; what is shorter is found in too many words to be hidden

_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]+@")
_IS_SECRET = re.compile(r"TOKEN(?!IZ|S)|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Returns `text` with passwords in addresses, and what the environment holds as a token or password, masked."""
    text = _IN_ADDRESS.sub(f"{MASK}@", text)
    for secret in _secrets():
        text = text.replace(secret, MASK)
    return text


def _secrets() -> Iterator[str]:
    for name, value in os.environ.items():
        found = [value] if _IS_SECRET.search(name) else _passwords(value) if "://" in value else []
        yield from (secret for secret in found if len(secret) >= SHORTEST)


def _passwords(value: str) -> Iterator[str]:
    """Yields the passwords in addresses, as they stand there and as libraries spell them once they took them apart."""
    for match in _IN_ADDRESS.finditer(value):
        user, _, password = match.group()[:-1].partition(":")
        yield from (password, unquote(password), f"{user}:{password}")
