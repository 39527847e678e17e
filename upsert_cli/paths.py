"""The user's folders, where the system keeps them; a user may have no home folder, as in many containers."""

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
"""The user's folders where no variable names them; not by platformdirs, whose import is a tenth of `list`'s start."""

_NOWHERE = "/nonexistent"  # the home that Debian gives to users without one; nothing can be made there
_NO_HOME = "set HOME, or name the folders: --journal DIR, and UPSERT_CLI_MODEL_CACHE for the models"


def provide_home() -> None:
    """Give the libraries a usable HOME: some cannot be imported without one, and an empty one means the root folder."""
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)
        if not _has_home():
            os.environ["HOME"] = _NOWHERE


def state_folder() -> Path | None:
    """Return the default folder of the journal, which need not exist yet; None without a home folder."""
    return _user_folder("STATE")


def user_config_folder() -> Path | None:
    """Return the folder of the user's own settings, which need not exist; None without a home folder."""
    return _user_folder("CONFIG")


def user_cache_folder() -> Path | None:
    """Return the folder of files that can be fetched again, which need not exist yet; None without a home folder."""
    return _user_folder("CACHE")


def expanded(path: Path) -> Path:
    """Return a path with the home folder in place of a `~` at its start.

    Raises:
        UpsertCliError: There is no home folder.
        UsageFault: The path begins with the name of a user who does not exist.
    """
    if path.parts[:1] == ("~",) and not _has_home():
        raise no_home(str(path))
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UsageFault(message=f"{path}: there is no user {path.parts[0][1:]}; name the folder in full") from error


def no_home(what: str) -> UpsertCliError:
    """Return the error for something that is kept in the home folder of a user who has none."""
    return UpsertCliError(message=f"there is no home folder for {what}: {_NO_HOME}")


def _user_folder(kind: str) -> Path | None:
    """Return our folder of a kind by the XDG base directory specification, which ignores relative paths."""
    given = os.environ.get(f"XDG_{kind}_HOME", "")
    base = given if os.path.isabs(given) else os.path.expanduser(_BASES[kind])  # noqa: PTH111, PTH117  # see _has_home
    return None if base.startswith("~") or (base.startswith(_NOWHERE) and not _has_home()) else Path(base, _APP)


def _has_home() -> bool:
    return os.path.expanduser("~") not in ("~", _NOWHERE)  # noqa: PTH111  # Path raises without a home
