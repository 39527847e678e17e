"""An address -> the files that it stands for; a file at the other end of a network, as readers open it."""

from __future__ import annotations

import fnmatch
import glob
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias
from urllib.parse import urlsplit

from upsert_cli.errors import BadAddress
from upsert_cli.stream.sources.objects import SCHEMES, ObjectFile, is_object, names_below
from upsert_cli.stream.sources.ranged import Facts, Ranges, ranged_file, steadily

WEB_SCHEMES = ("http", "https")
KNOWN_SCHEMES = (*SCHEMES, *WEB_SCHEMES)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is read over the network; the part of `pathlib.Path` that readers need."""

    address: str
    """Such as `s3://bucket/folder/a.jsonl`."""

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:  # noqa: ARG002
        """Opens it at its first byte.

        Raises:
            OSError: It cannot be reached, is not there, or is not ours to read.
        """
        return ranged_file(self._connect(), buffering=buffering)

    def facts(self) -> Facts:
        """Asks what it is like now.

        Raises:
            OSError: As for `open`.
        """
        with closing(self._connect()) as ranges:
            return ranges.facts

    def _connect(self) -> Ranges:
        from upsert_cli.stream.sources.web import WebFile  # late: its HTTP is more to load than all formats are

        kind: Callable[[str], Ranges] = WebFile if _scheme(self.address) in WEB_SCHEMES else ObjectFile
        return steadily(kind, self.address)


Place: TypeAlias = Path | RemoteFile
"""Where a file is."""


def is_address(name: str) -> bool:
    """Tells whether a name is an address and not a path."""
    return "://" in name and _scheme(name).isalnum()


def shown(address: str) -> str:
    """Returns an address for messages, without what may be a secret in it."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    if _scheme(address) in WEB_SCHEMES:
        path = path.partition("?")[0]  # such as the signature of an address that is open for an hour
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def remote_files(address: str) -> Iterator[RemoteFile]:
    """Yields the files that an address stands for: a file, or in an object store also a folder or a glob; sorted.

    Raises:
        BadAddress: It is none that we can read.
        OSError: The store cannot be reached.
    """
    _check(address)
    if _scheme(address) in WEB_SCHEMES or steadily(is_object, address):
        yield RemoteFile(address)
        return
    parts = address.split("/")
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    for name in steadily(lambda: list(names_below("/".join(parts[:fixed])))):
        if fixed == len(parts) or _matches(name.split("/"), parts):
            yield RemoteFile(name)


def _matches(name: list[str], pattern: list[str]) -> bool:
    """Tells whether a name is one that a glob stands for; `**` is any number of folders, none included."""
    if not pattern or not name:
        return not pattern and not name
    if pattern[0] == "**":
        return any(_matches(name[skipped:], pattern[1:] or ["*"]) for skipped in range(len(name)))
    return fnmatch.fnmatchcase(name[0], pattern[0]) and _matches(name[1:], pattern[1:])


def _check(address: str) -> None:
    parts = urlsplit(address)
    if _scheme(address) not in KNOWN_SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in KNOWN_SCHEMES)
        raise BadAddress(name=shown(address), reason=f"it begins with none of {known}")
    if "@" in parts.netloc:
        raise BadAddress(
            name=shown(address), reason="a password in it would be kept in the task's record; leave it out"
        )
    if not parts.netloc:
        raise BadAddress(name=shown(address), reason="it names no host or bucket")


def _scheme(address: str) -> str:
    return address.partition("://")[0].lower()
