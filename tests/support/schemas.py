"""Makes each published schema whole by itself: the schemas that it refers to are copied into its `$defs`.

    python -m tests.support.schemas

rewrites all of them after one was changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import upsert_cli

FOLDER = Path(upsert_cli.__file__).parent / "schema"
REFERENCE = "#/$defs/"


def read_schema(name: str) -> dict[str, Any]:
    """Return a published schema."""
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return value


def whole(name: str) -> dict[str, Any]:
    """Return a schema with fresh copies of all schemas that it refers to, directly or through others."""
    schema = read_schema(name)
    schema.pop("$defs", None)
    found: dict[str, Any] = {}
    left = _named(schema)
    while left:
        used = left.pop()
        if used not in found:
            found[used] = _part(used)
            left |= _named(found[used])
    return schema | ({"$defs": dict(sorted(found.items()))} if found else {})


def _part(name: str) -> dict[str, Any]:
    return {key: value for key, value in read_schema(name).items() if key not in ("$schema", "$defs")}


def _named(value: Any) -> set[str]:
    """Return the schemas that a value refers to."""
    if isinstance(value, list):
        return set().union(*map(_named, value))
    if not isinstance(value, dict):
        return set()
    own = {value["$ref"].removeprefix(REFERENCE)} if isinstance(value.get("$ref"), str) else set()
    return own.union(*map(_named, value.values()))


def text_of(schema: dict[str, Any]) -> str:
    """Return the content of a schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for path in sorted(FOLDER.glob("*.json")):
        path.write_text(text_of(whole(path.stem)), encoding="utf-8")
