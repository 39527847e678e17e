"""Targets as users type them: a folder, a server's address, or the cloud; each has one canonical spelling.

A task keeps that spelling, so that a restart goes to the same target; it holds no password and no token.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from upsert_cli.errors import UsageFault
from upsert_cli.paths import expanded
from upsert_cli.redaction import in_message

CLOUD = "cloud"
CLOUD_URL = "https://api.trychroma.com"
CLOUD_DOMAIN = ".trychroma.com"
DEFAULT_TENANT = "default_tenant"
DEFAULT_DATABASE = "default_database"
PARTS = 2  # parts of an address's path: tenant and database

_IS_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Names that are unlikely for a folder: a host with a port, an address without a slash or its scheme, this machine.
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
    """None if the server tells which one the token is for, as the cloud does."""

    database: str | None = None

    is_cloud: bool = False
    """Whether the quotas and the token of Chroma Cloud apply."""

    @property
    def is_default(self) -> bool:
        """Whether it is the database that every server has."""
        return (self.tenant, self.database) == (DEFAULT_TENANT, DEFAULT_DATABASE)

    def __str__(self) -> str:
        if self.tenant is None or self.database is None or (self.is_default and not self.is_cloud):
            return self.url
        return f"{self.url}/{quote(self.tenant, safe='')}/{quote(self.database, safe='')}"


def is_server(chroma: str) -> bool:
    """Tell whether a canonical target is a server's."""
    return _IS_URL.match(chroma) is not None


def names_folder(typed: str, *, below: Path = Path()) -> bool:
    """Tell whether a typed target is a folder; one that looks like a server is a folder if that exists."""
    if typed == CLOUD or is_server(typed):
        return False
    return _LOOKS_LIKE_SERVER.fullmatch(typed) is None or (below / typed).is_dir()


def canonical_target(typed: str) -> str:
    """Return the one spelling of a typed target: an absolute path, or a server's address with its defaults.

    Raises:
        UsageFault: It is not a valid address, or looks like one without a scheme and no folder has that name.
    """
    if typed != CLOUD and not is_server(typed):
        if not names_folder(typed):
            raise _ambiguous(typed)
        return str(expanded(Path(typed)).absolute())
    return str(address_of(_cloud_url() if typed == CLOUD else typed))


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
    """Return the error for what cannot be a target; the reason must not quote a password."""
    return UsageFault(
        message=f"--chroma takes a folder, `cloud`, or a server such as http://localhost:8000 or "
        f"https://host/tenant/database; {reason} (tokens come from UPSERT_CLI_CHROMA_TOKEN)"
    )


def address_of(text: str) -> Address:
    """Parse a server's address; tenant and database may come from the environment.

    Raises:
        UsageFault: It is not valid.
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
    tenant, database = _names_in(parts.path, text) or _names_from_environment(is_cloud=is_cloud)
    return Address(url=url, tenant=tenant, database=database, is_cloud=is_cloud)


def _names_in(path: str, text: str) -> tuple[str, str] | None:
    names = [unquote(part) for part in path.strip("/").split("/") if part]
    if not names:
        return None
    if len(names) != PARTS or any("/" in name or not name.isprintable() for name in names):
        raise _bad_address(f"the path of {in_message(text)!r} is not a tenant and a database")
    return names[0], names[1]


def _names_from_environment(*, is_cloud: bool) -> tuple[str | None, str | None]:
    found = [_variable(name, is_cloud=is_cloud) for name in ("CHROMA_TENANT", "CHROMA_DATABASE")]
    defaults = (None, None) if is_cloud else (DEFAULT_TENANT, DEFAULT_DATABASE)
    return found[0] or defaults[0], found[1] or defaults[1]


def _variable(name: str, *, is_cloud: bool) -> str | None:
    # The variables of Chroma's own tools are for its cloud, not for other servers.
    return os.environ.get(f"UPSERT_CLI_{name}") or (os.environ.get(name) if is_cloud else None)


def _cloud_url() -> str:
    """Return the address of the cloud: some of its regions have their own."""
    return os.environ.get("UPSERT_CLI_CHROMA_CLOUD_URL", "").rstrip("/") or CLOUD_URL


def require_collection_name(name: str) -> None:
    """Check that Chroma accepts a collection's name, by the rule of chromadb 1.5; servers may be stricter.

    Raises:
        UsageFault: It does not.
    """
    if not _COLLECTION_NAME.fullmatch(name):
        reason = "3 to 512 of a-z, A-Z, 0-9, dot, hyphen and underscore, a letter or digit at both ends"
        raise bad_name(name, reason=f"{reason}, make a name")


def bad_name(name: str, *, reason: str) -> UsageFault:
    """Return the error for a name that Chroma does not accept."""
    return UsageFault(
        message=f"{name!r} cannot be the name of a collection: {reason}; choose another with --collection"
    )
