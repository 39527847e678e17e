"""The user's folders for state, settings and caches. A user may have no home folder, as in many containers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from upsert_cli.errors import UpsertCliError, UsageFault

_APP = "upsert-cli"
_SUPPORT = "~/Library/Application Support"
_BASES = {
    "STATE": _SUPPORT if sys.platform == "darwin" else "~/.local/state",
    "CONFIG": _SUPPORT if sys.platform == "darwin" else "~/.config",
    "CACHE": "~/Library/Caches" if sys.platform == "darwin" else "~/.cache",
}
"""The folders where no variable names them; not by platformdirs, whose import would be a tenth of `list`'s start."""

_NOWHERE = "/nonexistent"  # the home that Debian gives to users without one, which cannot be created
_NO_HOME = "set HOME, or name the folders: --journal DIR, and UPSERT_CLI_MODEL_CACHE for the models"


def provide_home() -> None:
    """Set HOME where it is missing or empty: some libraries cannot be imported without it, or take the root folder."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        if not _has_home():
            os.environ["HOME"] = _NOWHERE


def state_folder() -> Path | None:
    """Return the default folder of the journal, which may not exist yet; None without a home folder."""
    return _user_folder("STATE")


def user_config_folder() -> Path | None:
    """Return the folder of the user's settings, which may not exist; None without a home folder."""
    return _user_folder("CONFIG")


def user_cache_folder() -> Path | None:
    """Return the folder of files that can be fetched again, which may not exist yet; None without a home folder."""
    return _user_folder("CACHE")


def expanded(path: Path) -> Path:
    """Return a path whose leading `~` or `~user` is replaced by the home folder.

    Raises:
        UpsertCliError: The user has no home folder.
        UsageFault: The path names a user who does not exist.
    """
    if path.parts[:1] == ("~",) and not _has_home():
        raise no_home(str(path))
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageFault(message=f"{path}: there is no user {path.parts[0][1:]}; name the folder in full") from error


def no_home(what: str) -> UpsertCliError:
    """Return the error for files that belong in the home folder of a user without one."""
    return UpsertCliError(message=f"there is no home folder for {what}: {_NO_HOME}")


def _user_folder(kind: str) -> Path | None:
    """Return this tool's folder of a kind by the XDG base directory specification, which ignores relative paths."""
    given = os.environ.get(f"XDG_{kind}_HOME", "")
    if os.path.isabs(given):  # noqa: PTH117  # as below
        return Path(given, _APP)
    return Path(os.path.expanduser(_BASES[kind]), _APP) if _has_home() else None  # noqa: PTH111  # as below


def _has_home() -> bool:
    return os.path.expanduser("~") not in ("~", _NOWHERE)  # noqa: PTH111  # Path.expanduser raises without a home
