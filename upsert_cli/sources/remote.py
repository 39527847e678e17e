"""Files that are read over the network: their addresses, and their bytes from any position on, with retries."""

from __future__ import annotations

import abc
import glob
import hashlib
import io
import os
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias, TypeVar, cast
from urllib.parse import unquote_plus, urlsplit

from upsert_cli.retry import RETRY_FOR, call_with_retries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

OBJECT_SCHEMES = ("s3", "gs", "az")
WEB_SCHEMES = ("http", "https")
DIGEST_BYTES = 6  # of a query; a collision between the queries of one file is practically impossible
BLOCK = 1 << 20  # bytes requested at once, as many as the Parquet reader takes of a column

# An object's name, or a glob, may hold a question mark; what looks like `?name=value` is a signature that was pasted.
_QUERY_OF_OBJECT = re.compile(r"\?[\w.~%$-]+=")

_QUERY_IN_NAME = re.compile(rf"#query-[0-9a-f]{{{2 * DIGEST_BYTES}}}$")

# Parameters that S3 and Google Cloud Storage reserve for signatures, in lower case.
_SIGNATURE_PREFIXES = ("x-amz-", "x-goog-")

# Other signatures: a parameter that each of them has, and the parameters that come with it.
_SIGNATURES = {
    "sig": frozenset(  # a shared access signature of Azure
        re.findall(r"\w+", "sig sv se st sp sr ss srt si spr sip sdd ses skoid sktid skt ske sks skv saoid suoid scid")
    ),
    "Key-Pair-Id": frozenset(["Key-Pair-Id", "Policy", "Signature", "Expires", "Hash-Algorithm"]),  # CloudFront
    "AWSAccessKeyId": frozenset(["AWSAccessKeyId", "Signature", "Expires"]),  # the older one of S3
    "GoogleAccessId": frozenset(["GoogleAccessId", "Signature", "Expires"]),  # the older one of Google
}


def is_address(name: str) -> bool:
    """Tell whether a name is an address and not a path."""
    return "://" in name and scheme_of(name).isalnum()


def scheme_of(address: str) -> str:
    """Return the scheme of an address, in lower case."""
    return address.partition("://")[0].lower()


def shown(address: str) -> str:
    """Return an address for messages, without a password or a query, which may be secret."""
    scheme, _, rest = _divided(address)[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def source_name(address: str) -> str:
    """Return the name of the source at an address: it shows no query, but differs if the query does.

    Parameters that only sign an address are ignored, so an address that is signed again is the same source.
    """
    query = _divided(address)[1]
    if scheme_of(address) not in OBJECT_SCHEMES:
        query = _without_signature(query)
    if not query:
        return shown(address)
    digest = hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()
    return f"{shown(address)}#query-{digest}"


def file_name(name: str) -> str:
    """Return the name that a copy of a file on this machine would have, by the name of the source at its address."""
    return _QUERY_IN_NAME.sub("", name).rpartition("/")[2]


def _divided(address: str) -> tuple[str, str]:
    """Return what comes before the query, and the query."""
    if scheme_of(address) in OBJECT_SCHEMES:
        found = _QUERY_OF_OBJECT.search(address)
        return (address, "") if found is None else (address[: found.start()], address[found.start() + 1 :])
    path, _, query = address.partition("#")[0].partition("?")
    return path, query


def _without_signature(query: str) -> str:
    parameters = [(unquote_plus(parameter.partition("=")[0]), parameter) for parameter in query.split("&")]
    names = {name for name, _ in parameters}
    signing = {name for mark, signature in _SIGNATURES.items() if mark in names for name in signature}
    return "&".join(
        parameter
        for name, parameter in parameters
        if name not in signing and not name.lower().startswith(_SIGNATURE_PREFIXES)
    )


def why_refused(address: str) -> str | None:
    """Return why nothing is read from an address, or None."""
    known = (*OBJECT_SCHEMES, *WEB_SCHEMES)
    if scheme_of(address) not in known:
        return f"it begins with none of {', '.join(f'{scheme}://' for scheme in known)}"
    try:
        address.encode()
        parts = urlsplit(address)
        host = parts.netloc if scheme_of(address) in OBJECT_SCHEMES else parts.hostname
        _ = parts.port if scheme_of(address) in WEB_SCHEMES else None
    except UnicodeEncodeError:
        return "it holds bytes that are not UTF-8; write each of them as % and two hexadecimal digits"
    except ValueError as error:
        return str(error)
    if "@" in parts.netloc:
        return "a password in it would be kept in the task's record; leave it out"
    if scheme_of(address) in OBJECT_SCHEMES and glob.has_magic(address.split("/")[2]):
        return "the name of a bucket cannot be a pattern"
    return None if host else "it names no host or bucket"


# -- files --------------------------------------------------------------------------------------------------------

_T = TypeVar("_T")


class TransientError(OSError):
    """Raised for a failure that another try may overcome, such as a broken connection or a busy server."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is read over the network; has the methods of `pathlib.Path` that readers need."""

    address: str
    """Such as `s3://bucket/folder/a.jsonl`."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to repeat a request that fails, in seconds."""

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:  # noqa: ARG002
        """Open the file at its first byte; raise OSError if it cannot be reached, does not exist or is forbidden."""
        return cast("BinaryIO", io.BufferedReader(self._connect(), max(BLOCK, buffering)))

    def info(self) -> FileInfo:
        """Ask for the current description of the file; raise OSError like `open`."""
        with closing(self._connect()) as file:
            return file.info

    def _connect(self) -> RemoteStream:
        def connect() -> RemoteStream:
            # Imported here, since HTTP and object stores take longer to load than all formats.
            if scheme_of(self.address) in WEB_SCHEMES:
                from upsert_cli.sources.http_file import HttpFile

                return HttpFile(self.address, retry_for=self.retry_for)
            from upsert_cli.sources.object_stores import ObjectFile

            return ObjectFile(self.address, retry_for=self.retry_for)

        return retry_transient(connect, seconds=self.retry_for)


FilePath: TypeAlias = Path | RemoteFile
"""A file to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A server's description of a file."""

    size: int | None
    """Bytes; None if the server does not say."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 if the server does not say."""

    etag: str | None
    """Changes with the content; in the server's own form."""

    coding: str = "identity"
    """The compression in which a web server sends the file."""


class RemoteStream(io.RawIOBase):
    """An open file on a server, from which Python and pyarrow read as from any file."""

    def __init__(self, info: FileInfo, *, retry_for: float) -> None:
        """Begin at the first byte; `retry_for` is how long to repeat a request that fails, in seconds."""
        self.info = info
        self._retry_for = retry_for
        self._position = 0

    @abc.abstractmethod
    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; no bytes only at the end.

        Raises:
            TransientError: Another try may succeed.
            OSError: It would not.
        """

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; raise OSError for one from the end of a file whose size is not known."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            if self.info.size is None:
                raise OSError("its server does not say how long it is")
            offset += self.info.size
        self._position = offset
        return offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the next bytes into a buffer, and return their number."""
        into = memoryview(buffer).cast("B")
        data = retry_transient(lambda: self.read_at(self._position, len(into)), seconds=self._retry_for)
        into[: len(data)] = data
        self._position += len(data)
        return len(data)


def retry_transient(call: Callable[[], _T], *, seconds: float) -> _T:
    """Call, and repeat the call for some time while it raises `TransientError`."""
    return call_with_retries(call, is_passing=lambda error: isinstance(error, TransientError), seconds=seconds)
