"""Masks the secrets that this process was given, by their values, in whatever is printed, stored or reported.

Credentials come from variables and files, and addresses may hold passwords. Libraries quote them in errors, and servers
send them back, also encoded. So the values are looked for, in the forms in which they travel, whatever quotes them.
"""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
SHORTEST = 6  # characters; shorter values are found in too many words
SHORTEST_USER = 16  # characters of a user without a password that is taken to be a token
REASON_CHARACTERS = 500  # of an error's message in ours; onnxruntime's may repeat whole inputs
LARGEST_FILE = 1 << 16  # bytes of a file with credentials

HEADERS = ("UPSERT_CLI_CHROMA_HEADERS", "UPSERT_CLI_CHROMA_HEADERS_FILE")
_FILES = {"GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"}
_DEFAULT_FILES = (
    "~/.aws/credentials",
    "~/.config/gcloud/application_default_credentials.json",
    "~/.cache/huggingface/token",
    "~/.ray/auth_token",
)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:]*:[^\s/]+@")
_USER = re.compile(r"(?<=://)([^\s/@:]+)@")
_QUERY = re.compile(
    r"(?P<address>(?<![\w.+-])(?:"
    r"(?!s3:|gs:|az:)[a-z][a-z0-9+.-]*://[^\s?#\"'<>]*(?=\?|#[\w.~%$-]+=)"
    # In an object's name or a glob, a question mark begins no query unless a name and a value follow; neither does it
    # elsewhere, unless what comes before looks like an address whose scheme was misspelled or left out.
    r"|(?:[a-z0-9]+:/+|[\w-]+(?:\.[\w-]+)+(?::\d+)?/|[\w-]+:\d+/)[^\s?\"'<>]*(?=\?[\w.~%$-]+=)"
    r"))[?#](?:[^\s\"'<>]|'(?=[^\s\"'<>),;:]))+(?<![),.;:])",
    re.IGNORECASE,
)
_IS_SECRET = re.compile(
    r"TOKEN(?!IZ|S|_BUDGET)|SECRET|PASSW|_P(WD|ASS)$|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY|_KEY$|CONNECTION_STRING"
    r"|(^|_)SAS(_|$)|SIGNATURE|^SIG$|ACCOUNTKEY",
    re.IGNORECASE,
)
_NAMES_FILE = re.compile(r"_(FILE|PATH)$", re.IGNORECASE)
_PAIR = re.compile(r"([\w-]+)=([^;&\s]+)")
_SETTING = re.compile(r"\s*[\"']?([\w-]+)[\"']?\s*[=:]\s*(.+?)\s*")
_BASIC = re.compile(r"Basic\s+([A-Za-z0-9+/=_-]+)", re.IGNORECASE)

_remembered: set[str] = set()


def remember(values: Iterable[str]) -> None:
    """Mask these values from now on, wherever they were read from."""
    for value in values:
        _remembered.update(_of_header(value))


def without_secrets(text: str) -> str:
    """Return `text` with the passwords in addresses and the values of all known secrets masked."""
    pattern = _pattern(frozenset(_secrets()))
    text = _IN_ADDRESS.sub(f"{MASK}@", text)
    return text if pattern is None else pattern.sub(MASK, text)


@functools.lru_cache(maxsize=4)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST}
    if not forms:
        return None
    # The longest first, so that nothing is left of a secret that begins like another one.
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=lambda form: (-len(form), form))))


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as libraries, servers and logs write it."""
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
    """Return `text` for a message: without secrets, and without the queries of addresses, which may hold others."""
    return _QUERY.sub(r"\g<address>", without_secrets(text))


def error_line(error: BaseException) -> str:
    """Return an error's class and message on one line, masked as in a message before it is shortened."""
    return " ".join(in_message(f"{type(error).__name__}: {error}").split())[:REASON_CHARACTERS]


def _secrets() -> Iterator[str]:
    yield from _remembered
    secrets, files = _of_environment(tuple(os.environ.items()))
    yield from secrets
    for path, has_headers in files:
        yield from _of_file(path, has_headers=has_headers)


@functools.lru_cache(maxsize=2)
def _of_environment(variables: tuple[tuple[str, str], ...]) -> tuple[frozenset[str], frozenset[tuple[Path, bool]]]:
    """Return the secrets in variables, and the files that hold others, each with whether it has headers."""
    found: set[str] = set()
    files = {(path, name in HEADERS) for name, path in variables if _is_file(name)}
    for name, value in variables:
        if _is_file(name):
            continue
        if name in HEADERS:
            found.update(_of_headers(value))
        elif _IS_SECRET.search(name):
            found.update(_of_text(value))
        if "://" in value:
            found.update(_of_address(value))
    files |= {(path, False) for path in _DEFAULT_FILES}
    usable = frozenset((_expanded(path), has_headers) for path, has_headers in files)
    return frozenset(secret for secret in found if len(secret) >= SHORTEST), usable


def _is_file(name: str) -> bool:
    """Tell whether a variable names a file with a secret, which is no secret itself."""
    return name in _FILES or bool(_NAMES_FILE.search(name) and (_IS_SECRET.search(name) or name in HEADERS))


def _expanded(path: str) -> Path:
    with suppress(RuntimeError):  # there is no home
        return Path(path).expanduser()
    return Path(path)


def _of_text(value: str) -> Iterator[str]:
    """Yield a value, each of its lines, and what is secret of a connection string or a query."""
    lines = [line.strip() for line in value.splitlines()]
    yield from {value.strip(), *lines}
    yield from _of_pairs(value)


def _of_pairs(value: str) -> Iterator[str]:
    yield from (found for key, found in _PAIR.findall(value) if _IS_SECRET.search(key))


def _of_address(value: str) -> Iterator[str]:
    """Yield the passwords in addresses, as they stand there and as libraries send them."""
    for match in _IN_ADDRESS.finditer(value):
        user, _, password = match.group()[:-1].partition(":")
        yield from (password, f"{user}:{password}", f"{unquote(user)}:{unquote(password)}")
    yield from (user for user in _USER.findall(value) if len(user) >= SHORTEST_USER)
    yield from _of_pairs(value.partition("?")[2])


def _of_headers(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield from _of_header(line.partition(":")[2].strip())


def _of_header(value: str) -> Iterator[str]:
    """Yield the value of a header, the credentials after its scheme, and what they encode."""
    found = {value, value.rpartition(" ")[2]}
    if basic := _BASIC.fullmatch(value):
        with suppress(binascii.Error, UnicodeDecodeError):
            decoded = base64.b64decode(basic[1], altchars=b"-_").decode()
            found |= {decoded, decoded.partition(":")[2]}
    yield from (secret for secret in found if len(secret) >= SHORTEST)


def _of_file(file: Path, *, has_headers: bool) -> tuple[str, ...]:
    """Return what is secret of a file; nothing if it cannot be read, which is for its reader to report."""
    try:
        status = file.stat()
    except (OSError, ValueError):
        return ()
    return _content_of(file, status.st_mtime_ns, status.st_size, has_headers=has_headers)


@functools.lru_cache(maxsize=16)
def _content_of(file: Path, _: int, size: int, *, has_headers: bool) -> tuple[str, ...]:
    if not file.is_file() or size > LARGEST_FILE:
        return ()
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return ()
    found = _of_headers(text) if has_headers else _of_settings(text)
    return tuple(secret for secret in found if len(secret) >= SHORTEST)


def _of_settings(text: str) -> Iterator[str]:
    """Yield what is secret of a file of settings, or the whole of a file that has nothing but a secret."""
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            yield from _of_object(value)
            return
    pairs = [found.groups() for line in text.splitlines() if (found := _SETTING.fullmatch(line))]
    secret = [value for key, value in pairs if _IS_SECRET.search(key)]
    yield from secret or _of_text(text)


def _of_object(value: dict[str, Any]) -> Iterator[str]:
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _of_object(each)
        elif isinstance(each, str) and _IS_SECRET.search(key) and "://" not in each:
            yield from _of_text(each)
