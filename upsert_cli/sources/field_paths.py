"""Fields of nested objects, by dotted paths such as `author.name`; a key that contains the dots comes first."""

from __future__ import annotations

from typing import Any


def field_at(values: dict[str, Any], path: str, default: object = None) -> object:
    """Return the field that a dotted path leads to, or `default`."""
    if path in values:
        return values[path]
    found: object = values
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    return found


def without_field(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return values without the field at a path, and without the objects that this empties."""
    if path in values:  # nearly always
        others = values.copy()
        del others[path]
        return others
    return _without(values, path.split("."))


def _without(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    name, *inner_names = names
    if name not in values:
        return values
    inner = values[name]
    if inner_names:
        left = _without(inner, inner_names) if isinstance(inner, dict) else inner
        if left is inner:
            return values
        if left:
            return values | {name: left}
    return {key: value for key, value in values.items() if key != name}


def with_field(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return values with another value in the field at a path, which exists."""
    return _with(values, [path] if path in values else path.split("."), value)


def _with(values: dict[str, Any], names: list[str], value: object) -> dict[str, Any]:
    name, *inner_names = names
    return values | {name: _with(values[name], inner_names, value) if inner_names else value}
