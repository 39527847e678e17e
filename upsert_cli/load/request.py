"""The load that a user requests, with its mapping of foreign rows from options and a file of `--map`, and its task."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upsert_cli.errors import Refusal, UsageFault, reason_of
from upsert_cli.journal.load_options import MAPPING, OPTIONS, LoadOptions
from upsert_cli.journal.option_field import flag
from upsert_cli.packages import install_command, is_installed
from upsert_cli.settings import parse_toml, split_list
from upsert_cli.store.address import is_server, require_collection_name

if TYPE_CHECKING:
    from upsert_cli.journal.claims import Claim
    from upsert_cli.journal.task import Task

Kind = Literal["default", "categories"]
IfRunning = Literal["refuse", "wait", "skip"]

_KEYS = {flag(name).removeprefix("--"): name for name in MAPPING}
"""The fields by the keys of a file of `--map`, which are the names of the options: `text-field` -> `text_fields`."""

_LISTS = tuple(name for name in MAPPING if OPTIONS[name].metadata.get("multiple"))
INSTEAD = {"text_fields": "template", "template": "text_fields", "id_field": "id_from", "id_from": "id_field"}
"""Pairs of options that replace each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A load as a user requests it."""

    kind: Kind
    names: tuple[str, ...]
    """Sources as typed; `-` is standard input."""

    chroma: str
    """The target, as `canonical_target` spells it."""

    collection: str
    model: str
    options: LoadOptions
    task_id: str | None = None
    enqueue: bool = False
    """Leave the task to `upsert-cli work`."""

    def require_target(self) -> None:
        """Check the name of the collection, and that the engine can load into the target, before anything is read.

        Raises:
            UsageFault: No collection can have this name.
            Refusal: Ray is not installed, or the target is a folder, which only one process may write.
        """
        require_collection_name(self.collection)
        if self.options.engine != "ray":
            return
        if not is_server(self.chroma):
            raise Refusal(
                message=f"--engine ray loads by several processes, and one alone may write Chroma's folder "
                f"{self.chroma}; serve it by `chroma run --path {shlex.quote(self.chroma)}` and load into --chroma "
                f"http://HOST:8000"
            )
        if not is_installed("ray"):
            raise Refusal(message=f"--engine ray needs Ray, which is not installed; `{install_command('ray>=2.50')}`")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedTask:
    """The task of a request, with the claim to run it if there is work to do."""

    task: Task | None
    """None if no task was created, since another task has the target's folder."""

    claim: Claim | None = None
    """The claim, which this process has; None if there is no work to do here."""

    queued: bool = False
    """Whether the task is pending, and `upsert-cli work` runs it."""

    created: bool = False
    """Whether the task is new."""

    skipped: str | None = None
    """The reason why there is no work although the task is not done."""

    ran: bool = False
    """Whether this process has run the task to its end."""

    @property
    def exit_code(self) -> int:
        """The exit code if this process does no more with the task; 0 if another process will run it."""
        return 0 if self.task is None or self.queued or self.skipped is not None else self.task.exit_code


def read_mapping(map_file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `LoadOptions` that map foreign rows.

    Args:
        map_file: A TOML file.
        given: The values of options and environment variables, which beat the file; None for each that is not given.

    Raises:
        UsageFault: The file or a value is invalid, or two of them contradict each other.
    """
    options = {name: value for name, value in given.items() if value not in (None, ())}
    if options.get("id_field") and options.get("id_from"):
        raise _invalid("--id-field and --id-from", "the id comes from one of them; give only that")
    mapping = {} if map_file is None else _from_file(map_file)
    for name in options:
        mapping.pop(INSTEAD.get(name, ""), None)
    mapping |= options
    mapping |= {name: _paths(flag(name), options[name]) for name in _LISTS if name in options}
    if (template := mapping.get("template")) is not None:
        from upsert_cli.documents.recipe import parse_template  # late: shell completion must not load the readers

        parse_template(template)
    return mapping


def _from_file(path: Path) -> dict[str, Any]:
    where = f"--map {path}"
    try:
        values = parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:  # also a file that is not UTF-8
        raise _invalid(where, f"it cannot be read ({reason_of(error)}); it has to be TOML") from error
    found = {}
    for key, value in values.items():
        if (name := _KEYS.get(key.replace("_", "-"))) is None:
            raise _invalid(where, f"`{key}` is unknown; known are {', '.join(_KEYS)}")
        found[name] = _checked(where, key, name, value)
    if "id_field" in found and "id_from" in found:
        raise _invalid(where, "id-field and id-from: the id comes from one of them; keep only that")
    return found


def _checked(where: str, key: str, name: str, value: object) -> Any:
    """Return the value of a key as the field `name` takes it."""
    if name in _LISTS:
        listed = split_list(value) if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            raise _invalid(where, f"`{key}` has to be a text or a list of texts")
        return _paths(f"{where}: `{key}`", listed)
    if OPTIONS[name].default is False:
        if not isinstance(value, bool):
            raise _invalid(where, f"`{key}` has to be true or false")
        return value
    if not isinstance(value, str) or not value:
        raise _invalid(where, f"`{key}` has to be a text")
    if value not in (choices := OPTIONS[name].metadata.get("choices", (value,))):
        raise _invalid(where, f"`{key}` has to be one of {', '.join(choices)}")
    return value


def _paths(where: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Return the different paths of fields, without the spaces around them."""
    stripped = tuple(dict.fromkeys(path.strip() for path in paths))
    if not stripped or "" in stripped:
        raise _invalid(where, "a field's name is empty")
    return stripped


def _invalid(where: str, reason: str) -> UsageFault:
    """Return the error for a key of a file of `--map`, or for an option."""
    return UsageFault(message=f"{where}: {reason}")
