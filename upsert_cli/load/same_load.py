"""One id, one load: the check that a reused task id refers to the same load."""

from __future__ import annotations

import json
from typing import Any

from upsert_cli.errors import Refusal
from upsert_cli.journal.load_options import flag
from upsert_cli.journal.task import Task
from upsert_cli.load.resources import sources_of
from upsert_cli.sources.remote import is_address
from upsert_cli.sources.source import Source


def refuse_other_load(task: Task, draft: Task) -> None:
    """Check that a reused task id refers to the same load.

    Raises:
        Refusal: It refers to another one.
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
    # Not the name, which depends on the folder from which it was typed; a spooled file has a path of its own each time.
    # The address of a remote file may be signed again each time; its name ignores the signature.
    return source.name if source.spooled or is_address(source.name) else str(source.path)
