"""Whether what is asked for under a task's id is the load that the task stands for."""

from __future__ import annotations

from typing import Any

from upsert_cli.errors import TaskConflict
from upsert_cli.journal.load_options import RESULT_FIELDS
from upsert_cli.journal.task import Task
from upsert_cli.load.options import describe_options
from upsert_cli.sources.addresses import is_address
from upsert_cli.sources.source import Source


def refuse_other_load(task: Task, draft: Task) -> None:
    """Compares what a task stands for with what is asked for under its id.

    Raises:
        TaskConflict: It is another load.
    """
    for what in ("kind", "collection", "chroma", "model", "sources"):
        was, now = getattr(task, what), getattr(draft, what)
        if was != now:
            raise TaskConflict(task_id=task.id, what=what, had=describe_options(was), asked=describe_options(now))
    had, asked = task.options, draft.options
    if names := had.differing(asked):
        raise TaskConflict(
            task_id=task.id,
            what=" and ".join(RESULT_FIELDS[name] for name in names),
            had=" and ".join(describe_options(getattr(had, name)) for name in names),
            asked=" and ".join(describe_options(getattr(asked, name)) for name in names),
        )
    before = {_identity(source): source for source in map(Source.from_json, task.inputs)}
    for source in map(Source.from_json, draft.inputs):
        known = before.pop(_identity(source), None)
        change = "it is new" if known is None else source.fingerprint.changed_from(known.fingerprint)
        if change is not None:
            raise TaskConflict(task_id=task.id, what=source.name, had="other content", asked=change)
    for name in before:
        raise TaskConflict(task_id=task.id, what=name, had="this file", asked="it is gone")


def signed_again(task: Task, draft: Task) -> tuple[dict[str, Any], ...]:
    """Return the sources of a task with the addresses of a draft of the same load, whose signatures are fresh."""
    given = {source["name"]: source["path"] for source in draft.inputs if is_address(source["path"])}
    return tuple(source | {"path": given.get(source["name"], source["path"])} for source in task.inputs)


def _identity(source: Source) -> str:
    # Not the name, which depends on the folder from which it was typed; a spooled file has a path of its own each time.
    # The address of a remote file may be signed again each time; its name ignores the signature.
    return source.name if source.spooled or is_address(source.name) else str(source.path)
