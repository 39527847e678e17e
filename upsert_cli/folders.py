"""The user's folders, where the system keeps them."""

from __future__ import annotations

from pathlib import Path

_APP = "upsert-cli"


def state_folder() -> Path:
    """Returns where the journal is if none is named; it need not exist yet."""
    import platformdirs  # 5 ms, which those who name their folders need not wait for

    return Path(platformdirs.user_state_dir(_APP, appauthor=False))


def user_config_folder() -> Path:
    """Returns where the user's own settings are; it need not exist."""
    import platformdirs

    return Path(platformdirs.user_config_dir(_APP, appauthor=False))


def user_cache_folder() -> Path:
    """Returns where what can be fetched again is kept; it need not exist yet."""
    import platformdirs

    return Path(platformdirs.user_cache_dir(_APP, appauthor=False))
