"""S3, Google Cloud Storage and Azure: the names of objects, and their bytes from any position on."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from upsert_cli.sources.addresses import scheme_of
from upsert_cli.sources.object_store_options import azure_options, gs_options, s3_options
from upsert_cli.sources.remote_stream import FileInfo, RemoteStream, TransientError, retry_transient

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

SHORTEST_CALL = 60.0  # seconds, however short the time for retries is; a block of 1 MiB then needs 17 KiB a second
LISTING_SECONDS = 1_800.0  # seconds for all names below a folder; a million of them take some minutes
STEP = 0.05  # how often the waiting main thread checks for signals, in seconds

_PASSING = re.compile(
    r"curlCode|NETWORK_CONNECTION|SLOW_DOWN|THROTTL|timed? ?out|HTTP status 5\d\d|UNAVAILABLE|CURL error"
)
_WITHOUT_ACCESS = {  # by phrases of the stores' clients for missing or refused credentials
    "OAuth2 access token": "Google Cloud gives no access: set GOOGLE_APPLICATION_CREDENTIALS to a valid key file",
    "DefaultAzureCredential": "Azure gives no access: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_T = TypeVar("_T")


class ObjectFile(RemoteStream):
    """An open object of an object store."""

    def __init__(self, address: str, *, retry_for: float) -> None:
        """Request a description of the object.

        Raises:
            TransientError: The store cannot be reached, or is busy.
            OSError: The store does not allow reading the object.
        """
        self._seconds = max(SHORTEST_CALL, retry_for)
        self._file, info = _interruptibly(lambda: _opened(address), seconds=self._seconds)
        super().__init__(info, retry_for=retry_for)

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on."""
        wanted = min(size, max(0, (self.info.size or 0) - position))
        data = _interruptibly(lambda: bytes(self._file.read_at(wanted, position)), seconds=self._seconds)
        if wanted and not data:
            raise TransientError("the store sends less than the object holds")
        return data


# -- requests -----------------------------------------------------------------------------------------------------


def is_object(address: str, *, retry_for: float) -> bool:
    """Check whether an address is the exact name of an object; raise OSError if the store cannot be asked."""
    info: pyarrow.fs.FileInfo = _ask(
        address, lambda system, path: system.get_file_info(path), seconds=SHORTEST_CALL, retry_for=retry_for
    )
    return bool(info.is_file)


def objects_below(address: str, *, retry_for: float) -> list[list[str]]:
    """Return the names of all objects below an address, each divided at its slashes.

    Raises:
        FileNotFoundError: No name begins with this address.
        OSError: The store cannot be asked.
    """
    infos = _ask(address, _infos_below, seconds=LISTING_SECONDS, retry_for=retry_for)
    depth = address.count("/") - 1  # parts of the address, from the bucket on
    return [info.path.split("/")[depth:] for info in infos if info.is_file]


def _ask(address: str, question: Callable[[pyarrow.fs.FileSystem, str], _T], *, seconds: float, retry_for: float) -> _T:
    """Return the answer of a store to a question, which is a function of the store and of the path in it.

    Args:
        address: In the store.
        question: May be asked several times.
        seconds: Time limit of each try.
        retry_for: How long to repeat a request that fails, in seconds.
    """
    return retry_transient(
        lambda: _interruptibly(lambda: question(*_system(address)), seconds=seconds), seconds=retry_for
    )


def _infos_below(system: pyarrow.fs.FileSystem, path: str) -> list[pyarrow.fs.FileInfo]:
    import pyarrow.fs

    infos: list[pyarrow.fs.FileInfo] = system.get_file_info(pyarrow.fs.FileSelector(path.rstrip("/"), recursive=True))
    return infos


def _opened(address: str) -> tuple[pa.NativeFile, FileInfo]:
    system, path = _system(address)
    file: pa.NativeFile = system.open_input_file(path)
    info = system.get_file_info(path)
    tags = {_text(key).lower(): _text(value) for key, value in (file.metadata() or {}).items()}
    return file, FileInfo(size=int(file.size()), mtime_ns=info.mtime_ns or 0, etag=tags.get("etag"))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _interruptibly(call: Callable[[], _T], *, seconds: float) -> _T:
    """Return the result of a call in a thread that is abandoned at a signal or when the time is over.

    The store's client lets no signal through to the main thread, and its own time limits are for each packet.
    """
    answer: Future[_T] = Future()

    def ask() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001  # is raised in the waiting thread
            answer.set_exception(error)

    threading.Thread(target=ask, name="store", daemon=True).start()
    until = time.monotonic() + seconds
    while not answer.done():
        if time.monotonic() >= until:
            raise OSError(f"the store does not answer within {seconds:g} s")
        with suppress(TimeoutError):
            answer.exception(STEP)
    with _translated():
        return answer.result()


def _system(address: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the store of an address, opened by the credentials in the environment, and the path in the store."""
    import pyarrow.fs

    scheme, path = scheme_of(address), address.partition("://")[2]
    if scheme == "s3":
        options = s3_options(os.environ)
        region = options.pop("region", None) or pyarrow.fs.resolve_s3_region(path.partition("/")[0])
        return pyarrow.fs.S3FileSystem(region=region, **options), path
    if scheme == "gs":
        return pyarrow.fs.GcsFileSystem(**gs_options(os.environ)), path
    return pyarrow.fs.AzureFileSystem(**azure_options(os.environ)), path


@contextmanager
def _translated() -> Iterator[None]:
    """Raise errors of the store's library as `TransientError` if another try may succeed, or as OSError."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: pyarrow refuses its arguments
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError("there is no such object") from error
        reason = _shortened(" ".join(str(error).split()))
        raise (TransientError if _PASSING.search(reason) else OSError)(reason) from error


def _shortened(reason: str) -> str:
    """Return an error of a store's client without the list of the tries before it."""
    for phrase, meaning in _WITHOUT_ACCESS.items():
        if phrase in reason:
            return meaning
    return reason.removeprefix("Unknown error: ").partition(" error_info={")[0]
