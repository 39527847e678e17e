"""What a user asked for -> the task that it would make: its sources found, spooled and fingerprinted."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.counts import Counts
from upsert_cli.documents.chunking import require_splitter
from upsert_cli.documents.metadata import scope_of
from upsert_cli.embedding.catalog import find_entry
from upsert_cli.errors import FolderNotShared, ScopeNeeded
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task, TaskStatus, new_task_id, utc_now
from upsert_cli.load.options import LoadRequest
from upsert_cli.pipeline.preflight import check_first_rows
from upsert_cli.sources.addresses import is_address, source_name
from upsert_cli.sources.find import FoundFile, find_files
from upsert_cli.sources.remote import FilePath
from upsert_cli.sources.source import Source, fingerprint, spool
from upsert_cli.store.chroma.address import is_server, require_collection_name

FIRST_CONTACT = 60.0  # seconds for which sources are asked for again at most, before there is a task


class Draft:
    """The task that a request would make; nothing of it is in the journal until `create`."""

    def __init__(self, journal: Journal, request: LoadRequest, stdin: BinaryIO) -> None:
        self._journal = journal
        self._request = request
        self._stdin = stdin
        self._incoming: Path | None = None
        self.notes: list[str] = []
        """What the user should know about the sources."""

    def __enter__(self) -> Draft:
        require_collection_name(self._request.collection)
        if self._request.options.engine == "ray":
            _require_cluster_loadable(self._request)
        names = self._request.names
        if self._request.options.split:
            require_splitter()
        try:
            found = _found(names, self._request.options, report=self.notes.append)
            self._sources = [self._read_in(one) for one in found]
            _check_mapping(self._sources, self._request.options)
            self._options = self._scoped(self._request.options)
        except BaseException:
            self._discard()
            raise
        self.task = self._task(self._request.task_id or new_task_id(), self._sources)
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def _discard(self) -> None:
        if self._incoming is not None:
            shutil.rmtree(self._incoming, ignore_errors=True)

    def _read_in(self, found: FoundFile) -> Source:
        if not found.needs_spool:
            return fingerprint(found)
        if self._incoming is None:
            self._incoming = self._journal.incoming_folder()
        path = self._incoming / f"{len(list(self._incoming.iterdir()))}.{found.format}"
        if found.name == "-":
            spool(self._stdin, path, name=found.name)
        else:
            with found.path.open("rb") as stream:
                spool(stream, path, name=found.name)
        return fingerprint(replace(found, path=path))

    def _scoped(self, options: LoadOptions) -> LoadOptions:
        """Gives a load that deletes the scope of its sources, if it has none by name."""
        if not options.delete_missing or options.scope is not None:
            return options
        for source in self._sources:
            if source.spooled:
                raise ScopeNeeded(name=source.name)
        return replace(options, scope=scope_of(map(_absolute, self._request.names)))

    def create(self) -> Task:
        """Puts the task into the journal, and what was spooled into its folder.

        Raises:
            TaskExists: The id is taken.
        """
        task_id = self._request.task_id or new_task_id()
        if self._incoming is not None:
            kept = self._journal.adopt_spool(self._incoming, task_id)
            moved: dict[FilePath, Path] = {self._incoming / path.name: path for path in kept.iterdir()}
            self._sources = [replace(source, path=moved.get(source.path, source.path)) for source in self._sources]
            self._incoming = kept  # discarded like the folder before, if there is no task in the end
        task = self._journal.create(self._task(task_id, self._sources))
        self._incoming = None
        return task

    def _task(self, task_id: str, sources: Sequence[Source]) -> Task:
        request = self._request
        now = utc_now()
        return Task(
            id=task_id,
            status=TaskStatus.PENDING,
            created_at=now,
            updated_at=now,
            kind=request.kind,
            collection=request.collection,
            chroma=request.chroma,
            model=find_entry(request.model).name,
            sources=tuple(map(_absolute, request.names)),
            total=_total_of(sources),
            inputs=tuple(source.as_json() for source in sources),
            options=self._options,
            queued=request.enqueue,
        )


def _found(
    names: Sequence[str], options: LoadOptions, *, report: Callable[[str], object] = lambda _: None
) -> list[FoundFile]:
    # Nobody sees yet that the load waits, and an address may be misspelled.
    return find_files(names, given=options.format, retry_for=min(options.retry_for, FIRST_CONTACT), report=report)


def _total_of(sources: Sequence[Source]) -> int | None:
    totals = [source.total for source in sources if source.total is not None]
    return sum(totals) if len(totals) == len(sources) else None


def _require_cluster_loadable(request: LoadRequest) -> None:
    """Makes sure that several processes may load, before anything is read."""
    from upsert_cli.cluster.ray_workers import require_ray

    if not is_server(request.chroma):
        raise FolderNotShared(path=request.chroma)
    require_ray()


def _absolute(name: str) -> str:
    if is_address(name):
        return source_name(name)
    return name if name == "-" else str(Path(name).absolute())


def _check_mapping(sources: Sequence[Source], options: LoadOptions) -> None:
    check_first_rows(options.rows(sources), recipe=options.recipe(identity=""))


def read_anew(task: Task, sources: Sequence[Source]) -> dict[str, Any]:
    """Finds and fingerprints the sources of a task again, which starts from nothing."""
    options = task.options
    spooled = {_absolute(source.name): source for source in sources if source.spooled}
    # The addresses themselves, whose queries the names leave out.
    typed = {source.name: str(source.path) for source in sources if is_address(source.name)}
    names = [typed.get(name, name) for name in task.sources if name not in spooled]
    files = {file.path: file for file in _found(names, options)} if names else {}
    called = {source.path: source.name for source in sources}  # as it was typed, where that is known
    found: list[Source] = []
    for name in task.sources:  # in the order in which they were named, since the last one of an id wins
        if name in spooled:
            found.append(spooled[name])
        else:
            again = _found([typed.get(name, name)], options)
            mine = [file for file in again if files.pop(file.path, None) is not None]
            found += [fingerprint(replace(file, name=called.get(file.path, file.name))) for file in mine]
    _check_mapping(found, options)
    return {
        "inputs": tuple(source.as_json() for source in found),
        "total": _total_of(found),
        "rows": 0,
        "counts": Counts(),
        "converted": 0,
        "failed_items": (),
    }
