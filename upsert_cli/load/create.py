"""A request becomes a draft of its task: sources are found, spooled and fingerprinted, and their first rows checked.

The draft becomes a new task. If there is a task of the requested id, the draft is compared with that task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from upsert_cli.documents.metadata import scope_of
from upsert_cli.errors import TaskNotFound, UsageFault
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import new_task_id
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.spool import Incoming
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.load.inputs import (
    absolute_name,
    check_first_inputs,
    fields_of,
    find_inputs,
    notes_on_chunks,
    open_inputs,
    refuse_target_as_source,
    spooled,
)
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.vectors import name_of_model, require_computable, with_usual_prefixes
from upsert_cli.sources.formats import STDIN
from upsert_cli.sources.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The task that a request would make, which is not in the journal before `create`."""

    task: Task
    notes: Sequence[str]
    """Messages for the user about the sources, such as skipped files."""

    journal: Journal
    request: LoadRequest
    sources: Sequence[Source]
    incoming: Incoming
    """The folder with the copies of streams."""

    def create(self) -> Task:
        """Put the task into the journal, and make the copies of streams its spool.

        Raises:
            TaskExists: The id is taken.
        """
        task_id = self.request.task_id or new_task_id()
        spool = self.journal.files(task_id).spool
        sources = [
            replace(each, path=spool / Path(str(each.path)).name) if each.spooled else each for each in self.sources
        ]
        now = utc_now()
        task = replace(self.task, id=task_id, created_at=now, updated_at=now, **fields_of(sources))
        return self.journal.create(task, incoming=self.incoming.path)


@contextmanager
def drafted(journal: Journal, request: LoadRequest, stdin: BinaryIO) -> Iterator[Draft]:
    """Yield the draft of a request, and remove its copies of streams unless the task is created.

    Raises:
        UsageFault: A source does not exist, or its first rows do not fit the options.
        Refusal: Ray is not installed or cannot load into the target, or this machine does not compute in bf16.
    """
    options = request.options
    request.require_target()
    require_computable(request.model, options)
    notes: list[str] = []
    found = find_inputs(request.names, options, chroma=request.chroma, report=notes.append)
    refuse_target_as_source(found, chroma=request.chroma, collection=request.collection)
    with Incoming(journal.layout) as incoming:
        sources = open_inputs(spooled(found, incoming.folder, stdin=stdin, limit=options.limit), limit=options.limit)
        notes += notes_on_chunks(sources)
        model = name_of_model(request.model, options, sources)
        if (note := check_first_inputs(sources, options, model=model)) is not None:
            notes.append(note)
        options = _with_scope(_with_prefixes(journal, request, model), request.names, sources)
        task = Task(
            id=request.task_id or new_task_id(),
            status=TaskStatus.PENDING,
            created_at=utc_now(),
            updated_at=utc_now(),
            kind=request.kind,
            collection=request.collection,
            chroma=request.chroma,
            model=model,
            sources=tuple(map(absolute_name, request.names)),
            options=options,
            queued=request.enqueue,
            **fields_of(sources),
        )
        yield Draft(task=task, notes=notes, journal=journal, request=request, sources=sources, incoming=incoming)


def _with_prefixes(journal: Journal, request: LoadRequest, model: str) -> LoadOptions:
    """Return the options with the prefixes of an existing task of this id, or else those that the model asks for.

    A task of an older version has no prefixes, and has to stay the same load.
    """
    options = request.options
    if request.task_id is not None:
        with suppress(TaskNotFound):
            options = options.with_prefixes(journal.find(request.task_id).options.prefixes)
    return with_usual_prefixes(options, model)


def _with_scope(options: LoadOptions, names: Sequence[str], sources: Sequence[Source]) -> LoadOptions:
    """Return the options with a scope derived from the sources, if `--delete-missing` is given without a scope."""
    if not options.delete_missing or options.scope is not None:
        return options
    for source in sources:
        if source.spooled:
            name = "standard input" if source.name == STDIN else source.name
            raise UsageFault(
                message=f"{name} has no name by which a later load would know the records of this one; --scope "
                f"NAME gives them one, such as --scope articles"
            )
    return replace(options, scope=scope_of(map(absolute_name, names)))
