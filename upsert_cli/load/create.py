"""A request -> a new task: its sources are found, spooled and fingerprinted, and their first rows checked.

The id of a request may also be that of a task, which has to be the same load.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.documents.document import require_splitter
from upsert_cli.documents.metadata import scope_of
from upsert_cli.embedding.catalog import NO_PREFIXES
from upsert_cli.embedding.models import full_name, prefixes_of
from upsert_cli.errors import Refusal, TaskNotFound, UsageFault
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions, flag
from upsert_cli.journal.spool import adopt_spool, incoming_folder
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
from upsert_cli.load.resources import kept_vectors, require_computable, sources_of
from upsert_cli.packages import install_command, is_installed
from upsert_cli.sources.remote import is_address
from upsert_cli.sources.source import Source
from upsert_cli.store.address import is_server, require_collection_name

ID_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 characters that all look different
ID_SUFFIX = 4  # characters; a million ids a second, and `Journal.create` refuses one that is taken


class Draft:
    """The task that a request would make; nothing of it is in the journal before `create`."""

    task: Task
    """Once its sources are read."""

    def __init__(self, journal: Journal, request: LoadRequest) -> None:
        """Read nothing yet; use `drafted`, which also removes the copies of streams."""
        self._journal = journal
        self._request = request
        self._incoming: Path | None = None
        """The folder with the copies of streams, if there are any."""

        self.notes: list[str] = []
        """Messages for the user about the sources, such as skipped files."""

    def read(self, stdin: BinaryIO) -> None:
        """Find, spool and fingerprint the sources, and check their first rows."""
        request, options = self._request, self._request.options
        found = find_inputs(request.names, options, chroma=request.chroma, report=self.notes.append)
        refuse_target_as_source(found, chroma=request.chroma, collection=request.collection)
        files = spooled(found, self._spool_folder, stdin=stdin, limit=options.limit)
        self._sources = open_inputs(files, limit=options.limit)
        self.notes += notes_on_chunks(self._sources)
        kept = kept_vectors(self._sources) if options.keep_vectors else None
        model = full_name(request.model, given=options.given_model) if kept is None else kept.name
        if (note := check_first_inputs(self._sources, options, model=model)) is not None:
            self.notes.append(note)
        self.task = Task(
            id=request.task_id or new_task_id(),
            status=TaskStatus.PENDING,
            created_at=utc_now(),
            updated_at=utc_now(),
            kind=request.kind,
            collection=request.collection,
            chroma=request.chroma,
            model=model,
            sources=tuple(map(absolute_name, request.names)),
            options=self._with_scope(self._with_prefixes(options, model)),
            queued=request.enqueue,
            **fields_of(self._sources),
        )

    def create(self) -> Task:
        """Put the task into the journal, and the copies of streams into its spool.

        Raises:
            TaskExists: The id is taken.
        """
        task_id = self._request.task_id or new_task_id()
        if self._incoming is not None:
            # Discarded like the folder before, if there is no task in the end.
            folder = self._incoming = adopt_spool(self._journal, self._incoming, task_id)
            self._sources = [
                replace(each, path=folder / Path(str(each.path)).name) if each.spooled else each
                for each in self._sources
            ]
        now = utc_now()
        task = replace(self.task, id=task_id, created_at=now, updated_at=now, **fields_of(self._sources))
        task = self._journal.create(task)
        self._incoming = None
        return task

    def discard(self) -> None:
        """Remove the copies of streams, unless a task has them."""
        if self._incoming is not None:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _spool_folder(self) -> Path:
        if self._incoming is None:
            self._incoming = incoming_folder(self._journal)
        return self._incoming

    def _with_prefixes(self, options: LoadOptions, model: str) -> LoadOptions:
        """Return the options with the prefixes of the task, if there is one already, or those that the model asks for.

        A task of an older version has none, and stays the same load.
        """
        if self._request.task_id is not None:
            with suppress(TaskNotFound):
                options = options.with_prefixes(self._journal.find(self._request.task_id).options.prefixes)
        return options.with_prefixes(
            NO_PREFIXES if options.keep_vectors else prefixes_of(model, given=options.given_model)
        )

    def _with_scope(self, options: LoadOptions) -> LoadOptions:
        """Return the options with the scope of the sources, if records are to be deleted and none is named."""
        if not options.delete_missing or options.scope is not None:
            return options
        for source in self._sources:
            if source.spooled:
                name = "standard input" if source.name == "-" else source.name
                raise UsageFault(
                    message=f"{name} has no name by which a later load would know the records of this one; --scope "
                    f"NAME gives them one, such as --scope articles"
                )
        return replace(options, scope=scope_of(map(absolute_name, self._request.names)))


@contextmanager
def drafted(journal: Journal, request: LoadRequest, stdin: BinaryIO) -> Iterator[Draft]:
    """Yield the draft of a request, and remove its copies of streams unless the task is created.

    Raises:
        UsageFault: A source does not exist, or its first rows do not fit the options.
        Refusal: Ray is not installed, or cannot load into the target; or this machine does not compute in bf16.
    """
    require_collection_name(request.collection)
    if request.options.engine == "ray":
        _require_ray(request.chroma)
    if request.options.split:
        require_splitter()
    require_computable(request.model, request.options)
    draft = Draft(journal, request)
    try:
        draft.read(stdin)
        yield draft
    finally:
        draft.discard()


def new_task_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time and that a person can read aloud: `20261123-210312-k3f9`."""
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    suffix = "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_SUFFIX))
    return f"{moment:%Y%m%d-%H%M%S}-{suffix}"


def _require_ray(chroma: str) -> None:
    """Check before anything is read that several processes can load into a target."""
    if not is_server(chroma):
        raise Refusal(
            message=f"--engine ray loads by several processes, and one alone may write Chroma's folder {chroma}; "
            f"serve it by `chroma run --path {shlex.quote(chroma)}` and load into --chroma http://HOST:8000"
        )
    if not is_installed("ray"):
        raise Refusal(message=f"--engine ray needs Ray, which is not installed; `{install_command('ray>=2.50')}`")


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
