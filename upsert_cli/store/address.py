"""Targets as users type them: a folder, a server's address, or the cloud. Each target has one canonical spelling.

A task keeps that spelling, so a restart goes to the same target. The spelling holds no password and no token:
credentials come from the environment or from files, never from a flag, which the process list would show.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from upsert_cli.errors import UsageFault
from upsert_cli.paths import expanded
from upsert_cli.redaction import in_message, remember

CLOUD = "cloud"
CLOUD_URL = "https://api.trychroma.com"
CLOUD_DOMAIN = ".trychroma.com"
CLOUD_ROWS = 300  # records in one write, and in one answer; a quota of Chroma Cloud
DEFAULT_TENANT = "default_tenant"
DEFAULT_DATABASE = "default_database"
PARTS = 2  # parts of an address's path: tenant and database

OF_TARGET, OF_SOURCE = "UPSERT_CLI_CHROMA", "UPSERT_CLI_SOURCE_CHROMA"
"""How the names of the variables with the credentials for a server begin."""

TOKEN, HEADERS = "_TOKEN", "_HEADERS"  # how these names end
CLOUD_TOKEN = "CHROMA_API_KEY"  # noqa: S105  # a name
FILE = "_FILE"  # ends the name of the variable that names a file instead
SECRET_VARIABLES = tuple(
    name + ending
    for name in (OF_TARGET + TOKEN, OF_TARGET + HEADERS, OF_SOURCE + TOKEN, OF_SOURCE + HEADERS, CLOUD_TOKEN)
    for ending in ("", FILE)
)

_IS_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Names that are unlikely for a folder: a host with a port, an address that lacks a slash or its scheme, or `localhost`.
_LOOKS_LIKE_SERVER = re.compile(
    r"(?P<scheme>https?):?/*(?<=[:/])(?P<rest>[^/].*)"
    r"|(?:[^/\s]*@)?(?P<host>\[[\da-f:.%]+\]|[^\s/:@\[\]]*):(?P<port>\d{1,5})(?:[/?#].*)?"
    r"|(?P<bare>localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[\da-f:.%]+\]|[\da-f:]*::[\da-f:.]*)/?",
    re.IGNORECASE,
)
_HTTPS_PORTS = {"443", "8443"}
_CHROMA_PORT = "8000"
_COLLECTION_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9]")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The address of a server, and one of its databases."""

    url: str
    """Scheme, host and port: `http://localhost:8000`."""

    tenant: str | None = None
    """None if the server knows the tenant of the token, as the cloud does."""

    database: str | None = None

    is_cloud: bool = False
    """Whether the quotas and the token of Chroma Cloud apply."""

    def __str__(self) -> str:
        is_default = not self.is_cloud and (self.tenant, self.database) == (DEFAULT_TENANT, DEFAULT_DATABASE)
        if self.tenant is None or self.database is None or is_default:
            return self.url
        return f"{self.url}/{quote(self.tenant, safe='')}/{quote(self.database, safe='')}"


@dataclass(frozen=True, slots=True)
class Access:
    """The headers with credentials for a server."""

    headers: dict[str, str] = field(default_factory=dict, repr=False)

    sources: tuple[str, ...] = ()
    """The variables and files that hold the credentials: `UPSERT_CLI_CHROMA_TOKEN_FILE (/run/secrets/token)`."""

    wanted: str = OF_TARGET + TOKEN
    """The variable that may hold the token."""


def is_server(chroma: str) -> bool:
    """Return whether a canonical target is a server's."""
    return _IS_URL.match(chroma) is not None


def names_folder(typed: str, *, below: Path = Path()) -> bool:
    """Return whether a typed target is a folder; a name that looks like a server counts if such a folder exists."""
    if typed == CLOUD or is_server(typed):
        return False
    return _LOOKS_LIKE_SERVER.fullmatch(typed) is None or (below / typed).is_dir()


def canonical_target(typed: str) -> str:
    """Return the one spelling of a typed target: an absolute path, or a server's address with its defaults.

    Raises:
        UsageFault: The address is not valid, or lacks a scheme and no folder has that name.
    """
    if typed == CLOUD or is_server(typed):
        return str(address_of(_cloud_url() if typed == CLOUD else typed))
    if not names_folder(typed):
        raise _ambiguous(typed)
    return str(expanded(Path(typed)).absolute())


def _ambiguous(typed: str) -> UsageFault:
    """Return the error that names both spellings, without a password or query that the address has."""
    shown = re.split(r"[?#]", typed, maxsplit=1)[0]
    found = _LOOKS_LIKE_SERVER.fullmatch(shown)
    parts = {name: value or "" for name, value in found.groupdict().items()} if found is not None else {}
    at = shown.rpartition("@")[2]
    if scheme := parts.get("scheme"):
        server = f"{scheme.lower()}://{parts['rest'].rpartition('@')[2]}"
    elif bare := parts.get("bare"):
        server = f"http://{bare if bare[0] == '[' or ':' not in bare else f'[{bare}]'}:{_CHROMA_PORT}"
    else:
        host = at if parts.get("host") else f"localhost{at}"
        server = f"{'https' if parts.get('port') in _HTTPS_PORTS else 'http'}://{host.rstrip('/')}"
    return UsageFault(
        message=f"{at} is neither a server's address nor a folder that exists; write {server} for the server, or "
        f"./{at} for a new folder of that name"
    )


def _bad_address(reason: str) -> UsageFault:
    """Return the error for a text that cannot be a target; the reason must not quote a password."""
    return UsageFault(
        message=f"--chroma takes a folder, `cloud`, or a server such as http://localhost:8000 or "
        f"https://host/tenant/database; {reason} (tokens come from UPSERT_CLI_CHROMA_TOKEN)"
    )


def address_of(text: str) -> Address:
    """Parse a server's address; tenant and database may come from the environment.

    Raises:
        UsageFault: The address is not valid.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _bad_address(str(error)) from error
    if parts.username is not None or parts.password is not None:
        raise _bad_address("it has a user or password in it, which would be kept and shown")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise _bad_address(f"{in_message(text)!r} has no host, or begins with neither http:// nor https://")
    if parts.query or parts.fragment:
        before = re.split("[?#]", text, maxsplit=1)[0]
        raise _bad_address(f"a query or a fragment follows {before!r}; leave it out")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    url = f"{parts.scheme}://{host}" + ("" if port in (None, _PORTS[parts.scheme]) else f":{port}")
    is_cloud = parts.hostname.endswith(CLOUD_DOMAIN) or url == _cloud_url()
    tenant, database = _names_in(parts.path, text, is_cloud=is_cloud)
    return Address(url=url, tenant=tenant, database=database, is_cloud=is_cloud)


def _names_in(path: str, text: str, *, is_cloud: bool) -> Sequence[str | None]:
    """Return tenant and database from the path of an address, or from the environment."""
    names = [unquote(part) for part in path.split("/") if part]
    if len(names) not in (0, PARTS) or any("/" in name or not name.isprintable() for name in names):
        raise _bad_address(f"the path of {in_message(text)!r} is not a tenant and a database")
    # The variables of Chroma's own tools are for its cloud, not for other servers.
    return names or [
        os.environ.get(f"UPSERT_CLI_{name}") or (os.environ.get(name) or None if is_cloud else default)
        for name, default in (("CHROMA_TENANT", DEFAULT_TENANT), ("CHROMA_DATABASE", DEFAULT_DATABASE))
    ]


def _cloud_url() -> str:
    """Return the address of the cloud, which differs by region."""
    return os.environ.get("UPSERT_CLI_CHROMA_CLOUD_URL", "").rstrip("/") or CLOUD_URL


# -- credentials -------------------------------------------------------------------------------------------------------


def secrets_in_environment() -> tuple[str, ...]:
    """Return the names of the environment variables with credentials that are set."""
    return tuple(name for name in SECRET_VARIABLES if os.environ.get(name))


def source_credentials(chroma: str, target: str | None) -> str:
    """Return how the names of the variables with the credentials for a source begin.

    The variables of the target serve only if none are set for the source, and only for the same server.
    """
    own = any(name.startswith(OF_SOURCE) for name in secrets_in_environment())
    is_other = target is not None and is_server(target) and _origin(target) != _origin(chroma)
    return OF_SOURCE if own or is_other else OF_TARGET


def _origin(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc


def access_to(address: Address, variables: str = OF_TARGET) -> Access:
    """Return the headers for a server, from the variables whose names begin with `variables`.

    Raises:
        UsageFault: A file cannot be read, or a value is not valid in a header.
    """
    headers: dict[str, str] = {}
    sources: list[str] = []
    # The key of the cloud must not be sent to another server.
    names = (variables + TOKEN, CLOUD_TOKEN) if address.is_cloud else (variables + TOKEN,)
    if (given := next(filter(None, map(_given, names)), None)) is not None:
        text, source = given
        headers["X-Chroma-Token"] = token = _sound(text.strip(), source)
        if not address.is_cloud:
            headers["Authorization"] = f"Bearer {token}"
        sources.append(source)
    if (given := _given(variables + HEADERS)) is not None:
        text, source = given
        for line in filter(str.strip, text.splitlines()):
            name, colon, value = line.partition(":")
            if not colon:
                raise _unusable(source, "a line of it is not of the form `Name: value`")
            headers[_sound(name.strip(), source)] = _sound(value.strip(), source)
        sources.append(source)
    remember(headers.values())
    return Access(headers, tuple(sources), variables + TOKEN)


def _given(name: str) -> tuple[str, str] | None:
    """Return the value of a variable or the content of the file for it, and a name of that source for messages."""
    if value := os.environ.get(name):
        return value, name
    path = os.environ.get(name + FILE)
    if not path:
        return None
    source = f"{name}{FILE} ({path})"
    try:
        return expanded(Path(path)).read_text("utf-8-sig"), source
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(source, getattr(error, "strerror", None) or "it is not text") from error


def _unusable(source: str, reason: str) -> UsageFault:
    return UsageFault(message=f"{source} cannot be used: {reason}")


def _sound(value: str, source: str) -> str:
    """Return a part of a header if it is valid; the error for an invalid one does not quote it."""
    if not value or not value.isascii() or not value.isprintable():
        raise _unusable(source, "it is empty, or has characters that no header can have")
    return value


# -- names -------------------------------------------------------------------------------------------------------------


def require_collection_name(name: str) -> None:
    """Check a collection's name by the rule of chromadb 1.5; servers may be stricter.

    Raises:
        UsageFault: Chroma would not accept the name.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        characters = "3 to 512 of the characters a-z, A-Z, 0-9, dot, hyphen and underscore"
        raise bad_name(name, reason=f"a name has {characters}, and begins and ends with a letter or digit")


def bad_name(name: str, *, reason: str) -> UsageFault:
    """Return the error for a name that Chroma does not accept."""
    return UsageFault(message=f"{name!r} cannot be the name of a collection: {reason}; choose another name")


def remedy_for_name(chroma: str) -> str:
    """Return the remedy for the name of a collection that a target does not have."""
    from upsert_cli.store.folder import DATABASE_NAME

    if is_server(chroma) or (Path(chroma) / DATABASE_NAME).exists():
        return f"`upsert-cli collections list --chroma {shlex.quote(chroma)}` lists those that are there"
    return "no Chroma is in that folder, so name another one"
