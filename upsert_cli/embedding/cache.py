"""The folder of models: each one is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from upsert_cli.atomic import sync
from upsert_cli.owned_folders import Leftover, is_owned, own, unowned
from upsert_cli.paths import expanded, no_home, user_cache_folder

CACHE_VARIABLE = "UPSERT_CLI_MODEL_CACHE"
STAGING_PREFIX = ".fetch-"
PLACE_PREFIX = "models--"
PARTIAL_SUFFIX = ".incomplete"  # of a file that the hub's client has not yet read to its end
HUB_FOLDER = "hub"  # in the cache; laid out by the hub's client
_NOT_TAKEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # which no network says
STALE_SECONDS = 24 * 3600  # no fetch takes that long; what is older was left by one that was killed


def cache_folder() -> Path:
    """Return where models are kept, which need not exist yet: never the temporary folder, which is emptied.

    Raises:
        UpsertCliError: None is named, and there is no home folder.
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


def is_cached(name: str, files: Collection[str]) -> bool:
    """Tell whether the cache has a model."""
    return _known_cache_folder() is not None and not missing_files(place_of(name), files)


def is_in_cache(folder: Path) -> bool:
    """Tell whether a folder is one that we made in the cache, and not one that the user keeps, there or elsewhere."""
    cache = _known_cache_folder()
    if cache is None or not folder.resolve().is_relative_to(cache.resolve()):
        return False
    top = folder.resolve().relative_to(cache.resolve()).parts[:1]
    return top == (HUB_FOLDER,) or bool(top and top[0].startswith(PLACE_PREFIX))


def place_of(name: str) -> Path:
    """Returns where the model `name` is, or would be: a folder, or a link to one that the hub's client keeps."""
    return cache_folder() / (PLACE_PREFIX + name.replace("/", "--"))


def missing_files(folder: Path, files: Collection[str]) -> list[str]:
    """Returns those of `files` that `folder` lacks or that are empty there."""
    return [name for name in files if not _has_content(folder / name)]


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


@contextlib.contextmanager
def staging() -> Iterator[Path]:
    """Gives a folder to make a model in, on the file system of the cache; it is gone afterwards, whatever happens."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    _sweep(cache)
    with tempfile.TemporaryDirectory(prefix=STAGING_PREFIX, dir=cache, ignore_cleanup_errors=True) as folder:
        owned = own(Path(folder))
        try:
            yield Path(folder)
        finally:
            os.close(owned)


@contextlib.contextmanager
def downloading() -> Iterator[Path]:
    """Give the folder of the hub's client, and own it together with the other processes that download into it."""
    folder = cache_folder() / HUB_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    owned = own(folder, shared=True)
    try:
        yield folder
    finally:
        os.close(owned)


def leftovers() -> list[Leftover]:
    """Return what killed processes have left of models that they fetched."""
    cache = _known_cache_folder()
    if cache is None or not cache.is_dir():
        return []
    staged = unowned(folder for folder in sorted(cache.glob(f"{STAGING_PREFIX}*")))
    hub = cache / HUB_FOLDER
    partial = [] if is_owned(hub) else sorted(hub.rglob(f"*{PARTIAL_SUFFIX}"))
    return [*staged, *map(Leftover.at, partial)]


def _sweep(cache: Path) -> None:
    for left in cache.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS and not is_owned(left):
                shutil.rmtree(left, ignore_errors=True)


def publish(made: Path, place: Path, *, files: Collection[str]) -> None:
    """Puts a model that was made in a staging folder in its place.

    Where another fetch was faster, its model stays and `made` is left to the staging folder's end.

    Args:
        made: A folder, or a link that is relative to `place`.
        place: As `place_of` says.
        files: What makes the model complete.
    """
    if not made.is_symlink():
        for path in (*made.iterdir(), made):
            sync(path)
    try:
        made.rename(place)
    except OSError:
        if not os.path.lexists(place):
            raise
        if not missing_files(place, files):
            return
        place.rename(made.with_name("damaged"))
        made.rename(place)
    sync(place.parent)


def why_not_kept(error: BaseException) -> str | None:
    """Returns why the disk did not take what a place gave, in the system's words; None where that was not the fault.

    The hub's client and pip write by themselves: one raises what the system raised, the other prints it.
    """
    cause = error.__cause__.errno if isinstance(error.__cause__, OSError) else None
    words = {number: os.strerror(number) for number in _NOT_TAKEN}
    return next((said for number, said in words.items() if number == cause or said in str(error)), None)
