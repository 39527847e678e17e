"""Settings from TOML files, each with its file and its table.

The keys are the names of options. Options of every command stand at the top of a file, and each command has a table:
`[run]`, `[categories.run]`. A profile, `[profile.NAME]`, has the same keys and tables, and beats the rest of the files
when it is chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from upsert_cli.errors import UsageFault, reason_of
from upsert_cli.paths import expanded, user_config_folder
from upsert_cli.text import nearest

PROJECT_FILE = "upsert-cli.toml"  # in the current folder
USER_FILE = "config.toml"  # in the user's configuration folder
PROFILES = "profile"  # the table whose tables are the profiles, by name

Table = Mapping[str, Any]


class Setting(NamedTuple):
    """A value from a file."""

    value: Any
    key: str
    file: Path
    location: str
    """The table and the file, as `[run] of upsert-cli.toml`."""

    def must_be(self, needed: str) -> UsageFault:
        """Return the error for a value of the wrong kind; `needed` names the right one, such as `true or false`."""
        return UsageFault(message=f"`{self.key}` in {self.location} has to be {needed}")


class _Layer(NamedTuple):
    """A file, or a profile in it."""

    file: Path
    prefix: tuple[str, ...]
    """`("profile", NAME)` for a profile, empty for the file."""

    top: Table

    def table(self, path: Sequence[str]) -> Table:
        """Return a table of the layer; empty if the layer lacks it."""
        table = self.top
        for name in path:
            inner = table.get(name)
            if not isinstance(inner, Mapping):
                return {}  # a setting and a command may share a name: `journal = "..."`, `[journal.check]`
            table = inner
        return table

    def location(self, path: Sequence[str]) -> str:
        """Return the name of a table with its file, such as `[run] of upsert-cli.toml`."""
        name = ".".join((*self.prefix, *path))
        return f"[{name}] of {self.file}" if name else str(self.file)


class Configuration:
    """The settings of all files in use, the strongest file first."""

    def __init__(self, contents: Mapping[Path, Table], profile: str | None = None) -> None:
        """Divide the files into layers.

        Args:
            contents: The parsed files, the strongest first.
            profile: The name of the chosen profile.

        Raises:
            UsageFault: No file has the profile.
        """
        self.files = tuple(contents)
        self._base = [_Layer(file, (), top) for file, top in contents.items()]
        self._profiles = [
            _Layer(layer.file, (PROFILES, name), layer.table((PROFILES, name)))
            for layer in self._base
            for name in layer.table((PROFILES,))
        ]
        chosen = [layer for layer in self._profiles if layer.prefix[1] == profile]
        if profile is not None and not chosen:
            raise self._unknown_profile(profile)
        self._layers = [*chosen, *self._base]

    def find(self, tables: Sequence[tuple[str, ...]], key: str) -> Setting | None:
        """Return the strongest value of a setting: profiles beat files, and earlier tables beat later ones."""
        for layer in self._layers:
            for path in tables:
                for spelled, value in layer.table(path).items():
                    if dashed(spelled) == key and not isinstance(value, Mapping):
                        return Setting(value=value, key=spelled, file=layer.file, location=layer.location(path))
        return None

    def check(self, path: tuple[str, ...], *, settings: Collection[str], tables: Collection[str] = ()) -> None:
        """Check the keys of a table, in the files and in all their profiles.

        Args:
            path: The table; empty for the top of a file.
            settings: The keys that may have a value.
            tables: The keys that may be tables.

        Raises:
            UsageFault: A key is unknown, occurs in two spellings, or is a table in place of a value, or the reverse.
        """
        for layer in (*self._base, *self._profiles):
            is_top_of_file = not path and not layer.prefix
            known_tables = {*tables, PROFILES} if is_top_of_file else {*tables}
            location = layer.location(path)
            spellings: dict[str, str] = {}
            for key, value in layer.table(path).items():
                if (other := spellings.setdefault(dashed(key), key)) != key:
                    raise UsageFault(message=f"`{other}` and `{key}` in {location} are one setting; leave one out")
                if dashed(key) not in {*settings, *known_tables}:
                    raise _unknown_setting(key, location, known={*settings, *known_tables})
                if isinstance(value, Mapping) and key not in known_tables:
                    raise UsageFault(message=f"`{key}` in {location} has to be a value, not a table")
                if not isinstance(value, Mapping) and dashed(key) not in settings:
                    raise UsageFault(message=f"`{key}` in {location} has to be a table, such as [{key}]")

    def _unknown_profile(self, profile: str) -> UsageFault:
        if not self.files:
            return UsageFault(
                message=f"there is no settings file, so there is no profile {profile!r}; --config names the file"
            )
        meant = _did_you_mean(profile, {layer.prefix[1] for layer in self._profiles})
        files = " or ".join(map(str, self.files))
        return UsageFault(message=f"no profile {profile!r} in {files}{meant} [profile.{profile}] would define it")


def read_configuration(given: Path | None, profile: str | None) -> Configuration:
    """Read the given file, or else the files of the current folder and of the user.

    Raises:
        UsageFault: A file cannot be read or is not TOML, others could change a file that the user did not name, or no
            file has the profile.
    """
    if given is not None:
        path = expanded(given).absolute()
        return Configuration({path: _read(path, found=False)}, profile)
    folder = user_config_folder()
    paths = [Path.cwd() / PROJECT_FILE, *([] if folder is None else [folder / USER_FILE])]
    return Configuration({path: _read(path, found=True) for path in paths if os.path.lexists(path)}, profile)


def parse_toml(content: bytes) -> dict[str, Any]:
    """Return the values in a TOML file, which may begin with a byte-order mark.

    Raises:
        ValueError: The content is not UTF-8, or not TOML.
    """
    import tomllib  # 4 ms, only for users who have such a file

    return tomllib.loads(content.decode("utf-8-sig"))


def dashed(key: str) -> str:
    """Return a key in the spelling of its option: `text-field` for `text_field`."""
    return key.replace("_", "-")


def split_list(text: str) -> list[str]:
    r"""Return the values of a comma-separated list; `\,` is a comma within a value."""
    return [part.replace("\\,", ",").strip() for part in re.split(r"(?<!\\),", text)]


def _read(path: Path, *, found: bool) -> Table:
    try:
        with path.open("rb") as file:
            if found:
                _refuse_untrusted(path, file.fileno())
            return parse_toml(file.read())
    except (OSError, ValueError) as error:
        raise UsageFault(
            message=f"{path} cannot be read ({reason_of(error)}); it has to be TOML, or name another file with --config"
        ) from error


def _refuse_untrusted(path: Path, descriptor: int) -> None:
    """Refuse a file that the user did not name and that another user could change to redirect loads."""
    if not hasattr(os, "geteuid"):
        return
    mine = (os.geteuid(), 0)
    file = os.fstat(descriptor)
    is_foreign = path.lstat().st_uid not in mine or file.st_uid not in mine
    if is_foreign or file.st_mode & 0o002:
        reason = "it belongs to another user" if is_foreign else "everybody may write to it"
        raise UsageFault(
            message=f"{path} is not used because {reason}; make it yours (`chown`, `chmod go-w`), name it with "
            f"--config if you trust it, or use no settings file with --config /dev/null"
        )


def _unknown_setting(key: str, location: str, *, known: Collection[str]) -> UsageFault:
    listing = "`upsert-cli config show --config /dev/null`"  # without the file that has the error
    return UsageFault(
        message=f"`{key}` in {location} is not a setting{_did_you_mean(dashed(key), known)} {listing} lists them all"
    )


def _did_you_mean(word: str, known: Collection[str]) -> str:
    """Return a question that names the most similar known word, or a semicolon if none is similar."""
    meant = nearest(word, known)
    return f", did you mean `{meant}`?" if meant else ";"
