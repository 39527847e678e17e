"""Files of settings in TOML -> the value of each setting, and the file and table that it comes from.

The keys are the options' names. At the top are those that every command takes, and each command has a table of its
own: `[run]`, `[categories.run]`. `[profile.NAME]` holds the same once more, and beats the rest where it is chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upsert_cli.errors import BadSetting, ConfigUnreadable, ConfigUntrusted, UnknownProfile, UnknownSetting
from upsert_cli.paths import expanded, user_config_folder
from upsert_cli.text_files import parse_toml

PROJECT_FILE = "upsert-cli.toml"  # in the folder in which a command is typed
USER_FILE = "config.toml"  # in the user's configuration folder
PROFILES = "profile"  # the table of tables that are chosen by name

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value that a file gives."""

    value: Any
    file: Path
    table: str
    """Its name, such as `run` or `profile.nightly.run`; empty at the top of the file."""

    key: str

    @property
    def place(self) -> str:
        """Where it stands, in words."""
        return _place(self.file, self.table)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    file: Path
    prefix: tuple[str, ...]
    top: Table


class Configuration:
    """The settings of all files that count, the strongest first."""

    def __init__(self, contents: Mapping[Path, Table], profile: str | None = None) -> None:
        """Takes the files' contents, the strongest file first.

        Raises:
            UnknownProfile: No file has the profile.
        """
        self.files = tuple(contents)
        self._base = [_Layer(file=file, prefix=(), top=top) for file, top in contents.items()]
        self._layers = self._base
        self._profiles = [
            _Layer(file=layer.file, prefix=(PROFILES, name), top=_table(layer, (PROFILES, name)))
            for layer in self._base
            for name in _table(layer, (PROFILES,))
        ]
        if profile is not None:
            chosen = [layer for layer in self._profiles if layer.prefix[1] == profile]
            if not chosen:
                known = sorted({layer.prefix[1] for layer in self._profiles})
                raise UnknownProfile(name=profile, nearest=_nearest(profile, known), files=tuple(map(str, contents)))
            self._layers = [*chosen, *self._base]

    def find(self, tables: Sequence[tuple[str, ...]], key: str) -> Setting | None:
        """Returns a setting; of tables in which it may stand the first counts more, and a profile more than all."""
        for layer in self._layers:
            for path in tables:
                for spelled, value in _table(layer, path).items():
                    if dashed(spelled) == key and not isinstance(value, Mapping):
                        name = ".".join((*layer.prefix, *path))
                        return Setting(value=value, file=layer.file, table=name, key=spelled)
        return None

    def check(self, path: tuple[str, ...], *, settings: Collection[str], tables: Collection[str] = ()) -> None:
        """Makes sure that a table, in the files and in all their profiles, has no keys but those.

        Args:
            path: The table; empty for the top of a file.
            settings: The keys of values that it may have.
            tables: The keys of tables that it may have.

        Raises:
            UnknownSetting: It has another key.
            BadSetting: It has a value for a table, or a table for a value.
        """
        for layer in (*self._base, *self._profiles):
            inner = {*tables, PROFILES} if not path and not layer.prefix else set(tables)
            where = _place(layer.file, ".".join((*layer.prefix, *path)))
            for key, value in _table(layer, path).items():
                if dashed(key) not in {*settings, *inner}:
                    known = {*settings, *inner}
                    raise UnknownSetting(key=key, where=where, nearest=_nearest(dashed(key), known))
                if isinstance(value, Mapping) and key not in inner:
                    raise BadSetting(key=key, where=where, needed="a value, not a table")
                if not isinstance(value, Mapping) and dashed(key) not in settings:
                    raise BadSetting(key=key, where=where, needed=f"a table, such as [{key}]")


def read_configuration(given: Path | None, profile: str | None) -> Configuration:
    """Reads the files that count: the one that is given, or else that of the folder and that of the user.

    Raises:
        ConfigUnreadable: A file cannot be read, or is not TOML.
        ConfigUntrusted: A file that nobody named belongs to somebody else, or others may write to it.
        UnknownProfile: No file has the profile.
    """
    if given is not None:
        files = [(expanded(given).absolute(), False)]
    else:
        folder = user_config_folder()
        names = [Path.cwd() / PROJECT_FILE, *([] if folder is None else [folder / USER_FILE])]
        files = [(path, True) for path in names if _is_there(path)]
    return Configuration({path: _read(path, found=found) for path, found in files}, profile)


def dashed(key: str) -> str:
    """Returns a key as its option is spelled; `text_field` is taken for `text-field`."""
    return key.replace("_", "-")


def split_list(text: str) -> list[str]:
    r"""Return the values of a list that commas divide; `\,` is a comma within a value."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", text)]


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:  # also where this user may not look, as in the home of another one
        return False
    return True


def _read(path: Path, *, found: bool) -> Table:
    try:
        with path.open("rb") as file:
            if found:
                _check_trust(path, file.fileno())
            return parse_toml(file.read())
    except (OSError, ValueError) as error:  # also what is not UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise ConfigUnreadable(path=str(path), reason=reason) from error


def _check_trust(path: Path, descriptor: int) -> None:
    """Refuses a file that was found, not named, and by which somebody else could decide what is loaded where."""
    if not hasattr(os, "geteuid"):
        return
    mine = (os.geteuid(), 0)
    file = os.fstat(descriptor)
    if path.lstat().st_uid not in mine or file.st_uid not in mine:
        raise ConfigUntrusted(path=str(path), reason="it belongs to another user")
    if file.st_mode & 0o002:
        raise ConfigUntrusted(path=str(path), reason="everybody may write to it")


def _table(layer: _Layer, path: Sequence[str]) -> Table:
    table: Table = layer.top
    for name in path:
        inner = table.get(name)
        if not isinstance(inner, Mapping):
            return {}  # a setting and a command may have one name: `journal = "..."`, `[journal.check]`
        table = inner
    return table


def _place(file: Path, table: str) -> str:
    return f"[{table}] of {file}" if table else str(file)


def _nearest(word: str, known: Collection[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)), None)
