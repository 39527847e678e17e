"""The sources of a task: as its record has them, as they are now, and in comparison with those of a new request."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from upsert_cli.errors import Refusal
from upsert_cli.journal.option_field import flag
from upsert_cli.journal.task import Task
from upsert_cli.load.inputs import check_first_inputs, collections_for, fields_of, find_inputs, open_inputs
from upsert_cli.sources.addresses import is_address
from upsert_cli.sources.formats import STDIN
from upsert_cli.sources.source import FoundFile, Source


def sources_of(task: Task) -> list[Source]:
    """Return the sources that a task reads."""
    collection_at = collections_for(task.options, chroma=task.chroma)
    retry_for = task.options.retry_for
    return [Source.from_json(value, collection_at=collection_at, retry_for=retry_for) for value in task.inputs]


def read_again(task: Task, sources: Sequence[Source]) -> dict[str, Any]:
    """Return the fields of a task whose sources are found again; `sources` are those of its last attempt.

    The copies of streams are used again.
    """
    addresses = {source.name: str(source.path) for source in sources if is_address(source.name)}  # with their queries
    typed_names = {source.path: source.name for source in sources}
    names = [*dict.fromkeys(task.sources)]
    copies = {name: copy for name in names if (copy := _copy_of(name, sources)) is not None}

    def find(names: Iterable[str]) -> list[FoundFile]:
        left = [addresses.get(name, name) for name in names if name not in copies]
        files = find_inputs(left, task.options, chroma=task.chroma) if left else []
        # A stream without a copy is after the limit, and cannot be read now.
        return [replace(file, name=typed_names.get(file.path, file.name)) for file in files if not file.spooled]

    files = find(names)
    for index, name in reversed([*enumerate(names)]):
        if name in copies:  # in the order of the names, since the last row of an id wins
            files_before = len(find(names[:index]))
            files.insert(files_before, copies[name])
    found = open_inputs(files, limit=task.options.limit)
    check_first_inputs(found, task.options, model=task.model)
    return fields_of(found)


def _copy_of(absolute: str, sources: Sequence[Source]) -> Source | None:
    """Return the copy of the stream with an absolute name, if there is one.

    Sources have the names that the user typed, perhaps in another working folder. The name of a folder, a glob or an
    address may end with the name of a stream, but belongs to no stream.
    """
    if (same := next((source for source in sources if source.name == absolute), None)) is not None:
        return same if same.spooled else None
    is_glob = glob.has_magic(absolute) and not os.path.lexists(absolute)
    if is_glob or is_address(absolute) or Path(absolute).is_dir():
        return None
    files = (source for source in sources if source.name != STDIN)
    matching = (source for source in files if absolute.endswith(f"{os.sep}{Path(source.name)}"))
    best = max(matching, key=lambda source: len(source.name), default=None)
    return best if best is not None and best.spooled else None


def refuse_other_load(task: Task, draft: Task) -> None:
    """Check that a reused task id refers to the same load.

    Raises:
        Refusal: The id refers to another load.
    """
    for what in ("kind", "collection", "chroma", "model", "sources"):
        had, asked = getattr(task, what), getattr(draft, what)
        if had != asked and not (what == "model" and had.lower() == asked.lower()):
            raise _conflict(task, what, _shown(had), _shown(asked))
    if names := task.options.differing(draft.options):
        had, asked = (" and ".join(_shown(getattr(each.options, name)) for name in names) for each in (task, draft))
        raise _conflict(task, " and ".join(map(flag, names)), had, asked)
    before = {_identity(source): source for source in sources_of(task)}
    for source in sources_of(draft):
        known = before.pop(_identity(source), None)
        change = "it is new" if known is None else source.fingerprint.changed_from(known.fingerprint)
        if change is not None:
            raise _conflict(task, source.name, "other content", change)
    for name in before:
        raise _conflict(task, name, "this file", "it is gone")


def _conflict(task: Task, what: str, had: str, asked: str) -> Refusal:
    """Return the error for a task id that refers to another load; `what` is an option or the name of a source."""
    return Refusal(
        message=f"task {task.id} stands for another load ({what}: {had}, now {asked}); "
        f"choose another --task-id, or see `upsert-cli info {task.id}`"
    )


def _shown(value: str | int | tuple[str, ...] | dict[str, Any] | None) -> str:
    """Return the value of an option as a user would give it."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if value is None or value is False:
        return "not given"
    if value == "":
        return "''"
    return "given" if value is True else ", ".join(value) if isinstance(value, tuple) else str(value)


def _identity(source: Source) -> str:
    """Return the text that identifies a source in every request for the same load."""
    # The path of a file, since its name depends on the working folder. The name of a stream, whose copy has another
    # path each time, and of a remote file, whose address may have another signature each time.
    return source.name if source.spooled or is_address(source.name) else str(source.path)


def signed_again(task: Task, draft: Task) -> tuple[dict[str, Any], ...]:
    """Return the inputs of a task with the addresses of a draft of the same load, which have fresh signatures."""
    given = {source["name"]: source["path"] for source in draft.inputs if is_address(source["path"])}
    return tuple(source | {"path": given.get(source["name"], source["path"])} for source in task.inputs)
