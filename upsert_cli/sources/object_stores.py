"""An object of S3, Google Cloud Storage or Azure: what there is, what it is like, and its bytes from any place on."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from upsert_cli.sources.ranges import Facts, Unsteady
from upsert_cli.sources.store_access import azure_options, gs_options, s3_options

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

SHORTEST_CALL = 60.0  # seconds that a call may take, however short the time for retries is; of 1 MiB, 17 KiB a second
LISTING_SECONDS = 1_800.0  # seconds for all names below a folder; a million of them take some minutes
STEP = 0.05  # seconds between two looks of a waiting main thread at signals

_PASSING = re.compile(
    r"curlCode|NETWORK_CONNECTION|SLOW_DOWN|THROTTL|timed? ?out|HTTP status 5\d\d|UNAVAILABLE|CURL error"
)
_WITHOUT_ACCESS = {  # what the stores' clients say where they have no credentials, or none that is accepted
    "OAuth2 access token": "Google Cloud gives no access: set GOOGLE_APPLICATION_CREDENTIALS to a valid key file",
    "DefaultAzureCredential": "Azure gives no access: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_T = TypeVar("_T")


class ObjectFile:
    """An open object."""

    def __init__(self, address: str, *, retry_for: float) -> None:
        """Ask for the facts about the object.

        Raises:
            Unsteady: The store cannot be reached, or is busy.
            OSError: It does not give the object away.
        """
        self._seconds = max(SHORTEST_CALL, retry_for)
        self._file, self.facts = _interruptibly(lambda: _opened(address), seconds=self._seconds)

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; none only at the end."""
        wanted = min(size, max(0, (self.facts.size or 0) - position))
        data = _interruptibly(lambda: bytes(self._file.read_at(wanted, position)), seconds=self._seconds)
        if wanted and not data:
            raise Unsteady("the store sends less than the object holds")
        return data

    def close(self) -> None:
        """Lets go of the object."""
        self._file.close()


def names_below(address: str) -> Iterator[str]:
    """Yields the addresses of all objects below a folder, sorted.

    Raises:
        Unsteady: The store cannot be reached, or is busy.
        OSError: There is no such folder.
    """
    import pyarrow.fs

    def find() -> list[pyarrow.fs.FileInfo]:
        system, path = _system(address)
        found: list[pyarrow.fs.FileInfo] = system.get_file_info(
            pyarrow.fs.FileSelector(path.rstrip("/"), recursive=True)
        )
        return found

    scheme = urlsplit(address).scheme
    found = _interruptibly(find, seconds=LISTING_SECONDS)
    yield from sorted(f"{scheme}://{info.path}" for info in found if info.type == pyarrow.fs.FileType.File)


def is_object(address: str) -> bool:
    """Tells whether there is an object of that very name."""
    import pyarrow.fs

    def look() -> pyarrow.fs.FileInfo:
        system, path = _system(address)
        return system.get_file_info(path)

    return bool(_interruptibly(look, seconds=SHORTEST_CALL).type == pyarrow.fs.FileType.File)


def _opened(address: str) -> tuple[pa.NativeFile, Facts]:
    system, path = _system(address)
    file: pa.NativeFile = system.open_input_file(path)
    info = system.get_file_info(path)
    tags = {_text(key).lower(): _text(value) for key, value in (file.metadata() or {}).items()}
    return file, Facts(size=int(file.size()), mtime_ns=info.mtime_ns or 0, etag=tags.get("etag"))


def _interruptibly(call: Callable[[], _T], *, seconds: float) -> _T:
    """Make a call in a thread that is left behind at a signal or when the time is over.

    The store's client lets no signal through to the main thread, and its own time limits are for each packet.
    """
    asked: Future[_T] = Future()

    def ask() -> None:
        try:
            with _understood():
                asked.set_result(call())
        except BaseException as error:  # noqa: BLE001  # is raised where it was asked for
            asked.set_exception(error)

    threading.Thread(target=ask, name="store", daemon=True).start()
    until = time.monotonic() + seconds
    while not asked.done():
        if time.monotonic() >= until:
            raise OSError(f"the store does not answer within {seconds:g} s")
        with suppress(TimeoutError):
            asked.exception(STEP)
    return asked.result()


def _system(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns the store of an address, and the path in it; who may read it, the environment says."""
    import pyarrow.fs

    scheme, _, path = address.partition("://")
    if scheme == "s3":
        options = s3_options(os.environ)
        region = options.pop("region", None) or pyarrow.fs.resolve_s3_region(path.partition("/")[0])
        return pyarrow.fs.S3FileSystem(region=region, **options), path
    if scheme == "gs":
        return pyarrow.fs.GcsFileSystem(**gs_options(os.environ)), path
    return pyarrow.fs.AzureFileSystem(**azure_options(os.environ)), path


@contextmanager
def _understood() -> Iterator[None]:
    """Tells faults that may pass from those that do not, by the words of the store's library."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:  # the second is what pyarrow says of its arguments
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError("there is no such object") from error
        reason = _in_short(" ".join(str(error).split()))
        raise (Unsteady if _PASSING.search(reason) else OSError)(reason) from error


def _in_short(reason: str) -> str:
    """Return what an error of a store's client says, without its history."""
    for phrase, meaning in _WITHOUT_ACCESS.items():
        if phrase in reason:
            return meaning
    return reason.removeprefix("Unknown error: ").partition(" error_info={")[0]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
