"""Masks the values of known secrets in everything that is printed, stored or reported.

Credentials come from variables and files, and addresses may hold passwords. Libraries quote them in errors, and servers
send them back, sometimes encoded, so each value is masked in every form that it may take.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
SHORTEST = 6  # characters of a secret; shorter values occur in ordinary words
SHORTEST_USER = 16  # characters of a user name without a password that counts as a token
REASON_CHARACTERS = 500  # of an error's text in a message; onnxruntime may repeat whole inputs
LARGEST_FILE = 1 << 16  # bytes of a file with credentials

HEADERS = (
    "UPSERT_CLI_CHROMA_HEADERS",
    "UPSERT_CLI_CHROMA_HEADERS_FILE",
    "UPSERT_CLI_SOURCE_CHROMA_HEADERS",
    "UPSERT_CLI_SOURCE_CHROMA_HEADERS_FILE",
)
_FILES = {"GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"}
_DEFAULT_FILES = (
    "~/.aws/credentials",
    "~/.config/gcloud/application_default_credentials.json",
    "~/.cache/huggingface/token",
    "~/.ray/auth_token",
)

# Compiled by `re` at their first use, since that takes 2 ms, and most commands print no message.
_IN_ADDRESS = r"(?<=://)[^\s/@:]*:[^\s/]+@"
_USER = r"(?<=://)([^\s/@:]+)@"
_QUERY = (
    r"(?i)(?P<address>(?<![\w.+-])(?:"
    r"(?!s3:|gs:|az:)[a-z][a-z0-9+.-]*://[^\s?#\"'<>]*(?=\?|#[\w.~%$-]+=)"
    # A question mark in an object's name or a glob begins a query only if a name and a value follow. The same goes for
    # text that looks like an address with a misspelled or missing scheme.
    r"|(?:[a-z0-9]+:/+|[\w-]+(?:\.[\w-]+)+(?::\d+)?/|[\w-]+:\d+/)[^\s?\"'<>]*(?=\?[\w.~%$-]+=)"
    r"))[?#](?:[^\s\"'<>]|'(?=[^\s\"'<>),;:]))+(?<![),.;:])"
)
_SENSITIVE = (
    r"(?i)TOKEN(?!IZ|S|_BUDGET)|SECRET|PASSW|_P(WD|ASS)$|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY|_KEY$|CONNECTION_STRING"
    r"|(^|_)SAS(_|$)|SIGNATURE|^SIG$|ACCOUNTKEY"
)
_NAMES_FILE = r"(?i)_(FILE|PATH)$"
_PAIR = r"([\w-]+)=([^;&\s]+)"
_SETTING = r"\s*[\"']?([\w-]+)[\"']?\s*[=:]\s*(.+?)\s*"
_BASIC = r"(?i)Basic\s+([A-Za-z0-9+/=_-]+)"

_remembered: set[str] = set()


def remember(values: Iterable[str]) -> None:
    """Mask the values of headers from now on, and the credentials in them."""
    for value in values:
        _remembered.update(_of_header(value))


def without_secrets(text: str) -> str:
    """Return a text in which passwords in addresses and the values of known secrets are masked."""
    pattern = _pattern(frozenset(secret for secret in _secrets() if len(secret) >= SHORTEST))
    text = re.sub(_IN_ADDRESS, f"{MASK}@", text)
    return text if pattern is None else pattern.sub(MASK, text)


@functools.lru_cache(maxsize=4)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
    if not forms:
        return None
    # The longest first, so that nothing remains of a secret that begins with another secret.
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form))))


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret in plain text and in the forms that libraries, servers and logs write."""
    import base64
    import html

    for text in {secret, unquote(secret), " ".join(secret.split())}:
        yield text
        for quoted in (quote(text), quote(text, safe=""), quote_plus(text)):
            yield quoted
            yield re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), quoted)
        escaped = json.dumps(text)[1:-1]
        yield from (escaped, json.dumps(text, ensure_ascii=False)[1:-1], escaped.replace("/", "\\/"))
        yield json.dumps(escaped)[1:-1]
        yield from (repr(text)[1:-1], html.escape(text))
        content = text.encode(errors="surrogateescape")
        yield repr(content)[2:-1]
        for encoded in (base64.b64encode(content), base64.urlsafe_b64encode(content)):
            yield encoded.decode().rstrip("=")


def in_message(text: str) -> str:
    """Return a text without secrets, and without the queries of addresses, which may hold unknown secrets."""
    return re.sub(_QUERY, r"\g<address>", without_secrets(text))


def error_line(error: BaseException, *, with_class: bool = False) -> str:
    """Return the message of an error on one line, masked and then shortened; without a message, its class."""
    name = type(error).__name__
    text = f"{name}: {error}" if with_class else str(error).strip() or name
    return " ".join(in_message(text).split())[:REASON_CHARACTERS]


def _secrets() -> Iterator[str]:
    yield from _remembered
    secrets, files = _of_environment(tuple(os.environ.items()))
    yield from secrets
    for path, has_headers in files:
        yield from _of_file(path, has_headers=has_headers)


@functools.lru_cache(maxsize=2)
def _of_environment(variables: tuple[tuple[str, str], ...]) -> tuple[frozenset[str], frozenset[tuple[Path, bool]]]:
    """Return the secrets in variables, and the files with other secrets, each with whether it holds headers."""
    found: set[str] = set()
    files = {(path, name in HEADERS) for name, path in variables if _is_file(name)}
    for name, value in variables:
        if _is_file(name):
            continue
        if name in HEADERS:
            found.update(_of_headers(value))
        elif re.search(_SENSITIVE, name):
            found.update(_of_text(value))
        if "://" in value:
            found.update(_of_address(value))
    files |= {(path, False) for path in _DEFAULT_FILES}
    # Not by `Path.expanduser`, which raises without a home.
    usable = frozenset((Path(os.path.expanduser(path)), has_headers) for path, has_headers in files)  # noqa: PTH111
    return frozenset(found), usable


def _is_file(name: str) -> bool:
    """Check whether a variable names a file with a secret."""
    return name in _FILES or bool(re.search(_NAMES_FILE, name) and (re.search(_SENSITIVE, name) or name in HEADERS))


def _of_text(value: str) -> Iterator[str]:
    """Yield a value, each of its lines, and the secrets in a connection string or a query."""
    lines = [line.strip() for line in value.splitlines()]
    yield from {value.strip(), *lines}
    yield from _of_pairs(value)


def _of_pairs(value: str) -> Iterator[str]:
    yield from (found for key, found in re.findall(_PAIR, value) if re.search(_SENSITIVE, key))


def _of_address(value: str) -> Iterator[str]:
    """Yield the passwords in addresses, as written and as libraries send them."""
    for match in re.finditer(_IN_ADDRESS, value):
        user, _, password = match.group()[:-1].partition(":")
        yield from (password, f"{user}:{password}", f"{unquote(user)}:{unquote(password)}")
    yield from (user for user in re.findall(_USER, value) if len(user) >= SHORTEST_USER)
    yield from _of_pairs(value.partition("?")[2])


def _of_headers(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from _of_header(line.partition(":")[2].strip())


def _of_header(value: str) -> Iterator[str]:
    """Yield the value of a header, the credentials after its scheme, and the decoded credentials."""
    found = {value, value.rpartition(" ")[2]}
    import base64

    if basic := re.fullmatch(_BASIC, value):
        with suppress(ValueError):  # of base64 as well as of UTF-8
            decoded = base64.b64decode(basic[1], altchars=b"-_").decode()
            found |= {decoded, decoded.partition(":")[2]}
    yield from found


def _of_file(file: Path, *, has_headers: bool) -> tuple[str, ...]:
    """Return the secrets in a file; empty for an unreadable file, which its user reports."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return ()
    return _content_of(file, status.st_mtime_ns, status.st_size, has_headers=has_headers)


@functools.lru_cache(maxsize=16)  # by the time of the last change too
def _content_of(file: Path, _mtime_ns: int, size: int, *, has_headers: bool) -> tuple[str, ...]:
    if not file.is_file() or size > LARGEST_FILE:
        return ()
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ()
    return tuple(_of_headers(text) if has_headers else _of_settings(text))


def _of_settings(text: str) -> Iterator[str]:
    """Yield the secrets in a file of settings, or the whole content of another file."""
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            yield from _of_object(value)
            return
    pairs = [found.groups() for line in text.splitlines() if (found := re.fullmatch(_SETTING, line))]
    secrets = [value for key, value in pairs if re.search(_SENSITIVE, key)]
    yield from secrets or _of_text(text)


def _of_object(value: dict[str, Any]) -> Iterator[str]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _of_object(inner)
        elif isinstance(inner, str) and re.search(_SENSITIVE, key) and "://" not in inner:
            yield from _of_text(inner)
