"""A request -> a new task: its sources are found, spooled and fingerprinted, and their first rows checked."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.counts import Converted, Counts
from upsert_cli.documents.chunking import require_splitter
from upsert_cli.documents.metadata import scope_of
from upsert_cli.embedding.catalog import NO_PREFIXES
from upsert_cli.embedding.models import full_name, prefixes_of
from upsert_cli.errors import Refusal, TaskNotFound, UsageFault
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.spool import adopt_spool, incoming_folder
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.load.inputs import (
    check_first_inputs,
    find_inputs,
    notes_on_chunks,
    open_again,
    open_inputs,
    refuse_target_as_source,
)
from upsert_cli.load.kept_vectors import kept_vectors
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import require_computable
from upsert_cli.missing_packages import install_command, is_installed
from upsert_cli.sources.find import FoundFile
from upsert_cli.sources.remote import is_address, source_name
from upsert_cli.sources.source import Source
from upsert_cli.sources.source_path import SourcePath, is_collection
from upsert_cli.store.address import is_server, require_collection_name
from upsert_cli.store.collection_source import collection_named

ID_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 characters that all look different
ID_SUFFIX = 4  # characters; a million ids a second, and `Journal.create` refuses one that is taken


class Draft:
    """The task that a request would make; nothing of it is in the journal before `create`."""

    def __init__(self, journal: Journal, request: LoadRequest, stdin: BinaryIO) -> None:
        """Read nothing yet; use `drafted`, which also removes the copies of streams."""
        self._journal = journal
        self._request = request
        self._stdin = stdin
        self._incoming: Path | None = None
        """The folder with the copies of streams, if there are any."""

        self.notes: list[str] = []
        """Messages for the user about the sources, such as skipped files."""

    def read(self) -> None:
        """Find, spool and fingerprint the sources, and check their first rows."""
        request = self._request
        found = find_inputs(request.names, request.options, chroma=request.chroma, report=self.notes.append)
        refuse_target_as_source(found, chroma=request.chroma, collection=request.collection)
        self._sources = open_inputs(
            found, limit=request.options.limit, spool_folder=self._spool_folder, stdin=self._stdin
        )
        self.notes += notes_on_chunks(self._sources)
        model = self._model()
        if (note := check_first_inputs(self._sources, request.options, model=model)) is not None:
            self.notes.append(note)
        now = utc_now()
        self.task = Task(
            id=request.task_id or new_task_id(),
            status=TaskStatus.PENDING,
            created_at=now,
            updated_at=now,
            kind=request.kind,
            collection=request.collection,
            chroma=request.chroma,
            model=model,
            sources=tuple(map(_absolute, request.names)),
            options=self._with_scope(self._with_prefixes(request.options, model)),
            queued=request.enqueue,
            **_inputs(self._sources),
        )

    def create(self) -> Task:
        """Put the task into the journal, and the copies of streams into its spool.

        Raises:
            TaskExists: The id is taken.
        """
        task_id = self._request.task_id or new_task_id()
        if self._incoming is not None:
            kept = adopt_spool(self._journal, self._incoming, task_id)
            moved: dict[SourcePath, Path] = {self._incoming / path.name: path for path in kept.iterdir()}
            self._sources = [replace(each, path=moved.get(each.path, each.path)) for each in self._sources]
            self._incoming = kept  # discarded like the folder before, if there is no task in the end
        now = utc_now()
        task = replace(self.task, id=task_id, created_at=now, updated_at=now, **_inputs(self._sources))
        task = self._journal.create(task)
        self._incoming = None
        return task

    def discard(self) -> None:
        """Remove the copies of streams, unless a task has them."""
        if self._incoming is not None:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _model(self) -> str:
        """Return the name of the model: the one that is asked for, or that of vectors that are kept."""
        if self._request.options.keep_vectors:
            return kept_vectors(self._sources).name
        return full_name(self._request.model, given=self._request.options.given_model)

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
        return replace(options, scope=scope_of(map(_absolute, self._request.names)))


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
    draft = Draft(journal, request, stdin)
    try:
        draft.read()
        yield draft
    finally:
        draft.discard()


def new_task_id(now: datetime | None = None) -> str:
    """Return an id that sorts by time and that a person can read aloud: `20261123-210312-k3f9`."""
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    suffix = "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_SUFFIX))
    return f"{moment:%Y%m%d-%H%M%S}-{suffix}"


def read_again(task: Task, sources: Sequence[Source]) -> dict[str, Any]:
    """Return the changes to a task that starts from nothing: its sources as they are now, and no counts.

    Of `sources`, which are the old ones, the spooled are used again.
    """
    spooled = {_absolute(source.name): source for source in sources if source.spooled}
    # The addresses themselves, whose queries the names leave out.
    typed = {source.name: str(source.path) for source in sources if is_address(source.name)}
    names = [typed.get(name, name) for name in task.sources if name not in spooled]
    found_now = find_inputs(names, task.options, chroma=task.chroma) if names else []
    files = {file.path: file for file in found_now}
    shown = {source.path: source.name for source in sources}  # in the spelling that was typed, where that is known

    def in_order() -> Iterator[FoundFile]:
        for name in task.sources:  # in the order in which they were named, since the last row of an id wins
            if name in spooled:
                yield spooled[name]
                continue
            for file in find_inputs([typed.get(name, name)], task.options, chroma=task.chroma):
                # A stream that was not spooled is after the limit, and cannot be read now.
                if files.pop(file.path, None) is not None and not file.spooled:
                    yield replace(file, name=shown.get(file.path, file.name))

    found = open_again(in_order(), limit=task.options.limit)
    check_first_inputs(found, task.options, model=task.model)
    next_attempt = task.attempt + (task.started_at is not None)
    nothing_yet = {"rows": 0, "counts": Counts(), "converted": Converted(), "failed_items": ()}
    return _inputs(found) | nothing_yet | {"first_attempt": next_attempt, "load_seconds": 0.0}


def _inputs(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the fields of a task that describe its sources."""
    totals = [source.total for source in sources if source.total is not None]
    return {
        "inputs": tuple(source.as_json() for source in sources),
        "total": sum(totals) if len(totals) == len(sources) else None,
    }


def _absolute(name: str) -> str:
    if is_collection(name):
        return str(collection_named(name))
    if is_address(name):
        return source_name(name)
    return name if name == "-" else str(Path(name).absolute())


def _require_ray(chroma: str) -> None:
    """Check before anything is read that several processes can load into a target."""
    if not is_server(chroma):
        raise Refusal(
            message=f"--engine ray loads by several processes, and one alone may write Chroma's folder {chroma}; "
            f"serve it by `chroma run --path {shlex.quote(chroma)}` and load into --chroma http://HOST:8000"
        )
    if not is_installed("ray"):
        raise Refusal(message=f"--engine ray needs Ray, which is not installed; `{install_command('ray>=2.50')}`")
