"""The folder of fetched models, each of which is complete or absent."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from upsert_cli.atomic import sync
from upsert_cli.errors import reason_of
from upsert_cli.owned_folders import Leftover, is_owned, own, owned_folder, unowned
from upsert_cli.paths import expanded, no_home, user_cache_folder

CACHE_VARIABLE = "UPSERT_CLI_MODEL_CACHE"
STAGING_PREFIX = ".fetch-"
MODEL_PREFIX = "models--"
PARTIAL_SUFFIX = ".incomplete"  # of a file that the hub's client has not downloaded completely
HUB_FOLDER = "hub"  # in the cache; laid out by the hub's client
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no network reports these


def cache_folder() -> Path:
    """Return the folder of models, which may not exist yet.

    Raises:
        UpsertCliError: The variable names no folder, and the user has no home folder.
    """
    folder = _known_cache_folder()
    if folder is None:
        raise no_home("the models")
    return folder


def _known_cache_folder() -> Path | None:
    if given := os.environ.get(CACHE_VARIABLE):
        return expanded(Path(given)).absolute()
    folder = user_cache_folder()
    return None if folder is None else folder / "models"


def cached_model(name: str) -> Path:
    """Return the path of a model in the cache: a folder, a link to a folder of the hub's client, or nothing yet."""
    return cache_folder() / (MODEL_PREFIX + name.replace("/", "--"))


def is_cached(name: str, files: Collection[str]) -> bool:
    """Check that the cache has all files of a model."""
    return _known_cache_folder() is not None and not missing_files(cached_model(name), files)


def missing_files(folder: Path, files: Collection[str]) -> list[str]:
    """Return the names of files that a folder lacks or that are empty."""
    return [name for name in files if not ((path := folder / name).is_file() and path.stat().st_size > 0)]


@contextlib.contextmanager
def staging() -> Iterator[Path]:
    """Yield a temporary folder on the cache's file system, to make a model in."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    with owned_folder(STAGING_PREFIX, parent=cache) as folder:
        yield folder


@contextlib.contextmanager
def downloading() -> Iterator[Path]:
    """Yield the folder of the hub's client, which other processes may download into at the same time."""
    folder = cache_folder() / HUB_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = own(folder, shared=True)
    try:
        yield folder
    finally:
        os.close(descriptor)


def leftovers() -> list[Leftover]:
    """Return the unfinished files that killed processes left in the cache."""
    cache = _known_cache_folder()
    if cache is None or not cache.is_dir():
        return []
    staged = unowned(sorted(cache.glob(f"{STAGING_PREFIX}*")))
    hub = cache / HUB_FOLDER
    partial = [] if is_owned(hub) else sorted(hub.rglob(f"*{PARTIAL_SUFFIX}"))
    return [*staged, *map(Leftover.at, partial)]


def publish(made: Path, target: Path, *, files: Collection[str]) -> None:
    """Move a model from a staging folder to its path in the cache.

    If another process was faster, its model stays.

    Args:
        made: A folder, or a link relative to the parent of `target`.
        target: The path by `cached_model`.
        files: The names of all files of a complete model.
    """
    if not made.is_symlink():
        for path in (*made.iterdir(), made):
            sync(path)
    try:
        made.rename(target)
    except OSError:
        if not os.path.lexists(target):
            raise
        if not missing_files(target, files):
            return
        target.rename(made.with_name("damaged"))
        made.rename(target)
    sync(target.parent)


def disk_fault(error: BaseException) -> str | None:
    """Return the system's reason why the disk did not take a model; None if the fetch failed for another reason.

    The hub's client and pip write files themselves: the client raises the system's error, and pip prints it.
    """
    if isinstance(error, OSError):  # errors of the network come as ModelUnavailable
        return reason_of(error)
    cause = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    for number in _DISK_ERRORS:
        if number == cause or os.strerror(number) in str(error):
            return os.strerror(number)
    return None
