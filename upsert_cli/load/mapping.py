"""How a file that is not in our form is read: what the options and a file of `--map` say, made one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upsert_cli.errors import BadMapping
from upsert_cli.journal.load_options import MAPPING
from upsert_cli.settings import split_list
from upsert_cli.sources.suffixes import SUFFIXES
from upsert_cli.text_files import parse_toml

_KEYS = {("text-field" if name == "text_fields" else name.replace("_", "-")): name for name in MAPPING}
"""The names in a file of `--map`, which are those of the options: `text-field` -> `text_fields`."""

_LISTS = ("text_fields", "metadata_fields")
INSTEAD = {"text_fields": "template", "template": "text_fields", "id_field": "id_from", "id_from": "id_field"}
"""Options of which one stands for the other."""


def read_mapping(map_file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of `Options` that are about mapping.

    Args:
        map_file: TOML.
        given: What was said by options and their environment variables, which beats the file; None where nothing was.

    Raises:
        BadMapping: The file or a value is not understood, or two of them contradict each other.
        BadTemplate: The template is not understood.
    """
    own = {name: value for name, value in given.items() if value not in (None, ())}
    if own.get("id_field") and own.get("id_from"):
        raise BadMapping(where="--id-field and --id-from", reason="the id comes from one of them; give only that")
    known = {} if map_file is None else _from_file(map_file)
    for name in own:
        known.pop(INSTEAD.get(name, ""), None)
    known |= own
    known |= {name: _paths(MAPPING[name], own[name]) for name in _LISTS if name in own}
    if (template := known.get("template")) is not None:
        from upsert_cli.documents.text_fields import parse_template  # with the readers of items, which a Tab is not for

        parse_template(template)
    return known


def _from_file(path: Path) -> dict[str, Any]:
    where = f"--map {path}"
    try:
        values = parse_toml(path.read_bytes())
    except (OSError, ValueError) as error:  # also what is not UTF-8
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
        raise BadMapping(where=where, reason=f"it cannot be read ({reason}); it has to be TOML") from error
    found = {}
    for key, value in values.items():
        if (name := _KEYS.get(key.replace("_", "-"))) is None:
            raise BadMapping(where=where, reason=f"`{key}` is unknown; known are {', '.join(_KEYS)}")
        found[name] = _checked(where, key, name, value)
    if "id_field" in found and "id_from" in found:
        raise BadMapping(where=where, reason="id-field and id-from: the id comes from one of them; keep only that")
    return found


def _checked(where: str, key: str, name: str, value: object) -> Any:
    if name in _LISTS:
        listed = split_list(value) if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
            raise BadMapping(where=where, reason=f"`{key}` has to be a text or a list of texts")
        return _paths(f"{where}: `{key}`", listed)
    if name == "keep_lists":
        if not isinstance(value, bool):
            raise BadMapping(where=where, reason=f"`{key}` has to be true or false")
        return value
    if not isinstance(value, str) or not value:
        raise BadMapping(where=where, reason=f"`{key}` has to be a text")
    choices = {"id_from": ("row", "hash"), "format": tuple(SUFFIXES)}.get(name)
    if choices and value not in choices:
        raise BadMapping(where=where, reason=f"`{key}` has to be one of {', '.join(choices)}")
    return value


def _paths(where: str, paths: Sequence[str]) -> tuple[str, ...]:
    stripped = tuple(dict.fromkeys(path.strip() for path in paths))
    if not stripped or "" in stripped:
        raise BadMapping(where=where, reason="a field's name is empty")
    return stripped
