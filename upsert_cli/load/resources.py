"""The resources of a load: its sources, its collection, the origin of its vectors, its recipe, and its store."""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path

from upsert_cli.context import RunContext
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.embedder import Loader
from upsert_cli.embedding.identity import Model, ModelIdentity, OwnVectors
from upsert_cli.errors import Refusal, TargetInUse, UpsertCliError
from upsert_cli.journal.task import Task
from upsert_cli.load.task_sources import sources_of
from upsert_cli.load.vectors import (
    load_embedder,
    origin_of_vectors,
    origin_on_this_machine,
    origin_without_files,
    recipe_of,
)
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source
from upsert_cli.store.locate import location_at
from upsert_cli.store.location import ENDING_SECONDS, Location
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.target import Target


class Resources:
    """The resources of a task's load; each is found or made at its first use."""

    def __init__(
        self,
        task: Task,
        *,
        leases: Path,
        context: RunContext | None = None,
        found: ModelIdentity | None = None,
        machine: str = "",
    ) -> None:
        """Find nothing yet.

        Args:
            task: The task, which need not be in the journal.
            leases: The folder for the leases on collections of servers.
            context: Checked while something is fetched or opened; receives the messages about that.
            found: The origin of the vectors that another process has found, and this machine has to have, too.
            machine: The name of this machine, for the error if its origin differs.
        """
        self.task = task
        self._leases = leases
        self._context = context or RunContext()
        self._found, self._machine = found, machine
        self._read_at: dict[int, tuple[int, int]] = {}

    @cached_property
    def sources(self) -> list[Source]:
        """The sources that the task reads."""
        return sources_of(self.task)

    @property
    def rows(self) -> Rows:
        """All rows of the sources."""
        return self.task.options.rows(self.sources)

    @cached_property
    def location(self) -> Location:
        """The location of the collection.

        Raises:
            UsageFault: The address is not valid, or the credentials cannot be read.
        """
        task = self.task
        return location_at(task.chroma, task.collection, leases=self._leases, retry_for=task.options.retry_for)

    @cached_property
    def model(self) -> Model | OwnVectors:
        """The model, which may have to be fetched, or the vectors of the items, with the collection's dimension."""
        task = self.task
        if self._found is not None:
            return origin_on_this_machine(self._found, task.options, machine=self._machine)
        return origin_of_vectors(task.model, task.options, self.sources, self.location, context=self._context)

    @property
    def origin(self) -> ModelIdentity:
        """The origin of the vectors, without paths, for a process on another machine."""
        return self.model if isinstance(self.model, OwnVectors) else self.model.identity

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe of the documents; see `recipe_of`."""
        return recipe_of(self.task.options, self.model)

    def recipe_without_model(self) -> Recipe:
        """Return the recipe for a model that is not on this machine, or for the vectors of the items."""
        return recipe_of(self.task.options, origin_without_files(self.task.model, self.task.options, self.sources))

    @cached_property
    def loader(self) -> Loader:
        """The loader of the model, which loads it for the first text to embed."""
        return Loader(self._context.progress.busy("loading")(lambda: load_embedder(self.model, self.task.options)))

    def load_model(self) -> None:
        """Load the model now, unless the items bring their vectors."""
        if isinstance(self.model, Model):
            self.loader.embedder()

    def in_use(self) -> TargetInUse | None:
        """Return the error if another process holds the target, or None if it is free.

        It is free, too, if the holder is a dead runner with a write in flight, for which the load waits.
        """
        holder = self.location.holder()
        if holder is None or holder.task_id == self.task.id or holder.is_orphan():
            return None
        return self.location.in_use(holder)

    def require_collection(self, *, rows: int) -> None:
        """Check that the collection in a folder is still there after `rows` committed rows.

        A server is asked for the collection when it is opened.

        Raises:
            Refusal: The collection was deleted or renamed.
        """
        if rows and not self.location.is_shared and self.location.describe() is None:
            raise self.collection_deleted(rows=rows)

    def collection_deleted(self, *, rows: int) -> Refusal:
        """Return the error for a task that cannot continue after its committed rows, since their records are gone."""
        task = self.task
        return Refusal(
            message=f"the collection {task.collection} is not in {task.chroma} any more, although task {task.id} has "
            f"committed {rows:,} rows to it: it was deleted or renamed; "
            f"`upsert-cli restart {task.id} --from-start` loads all rows again"
        )

    def check_unchanged(self) -> None:
        """Check that a checkpoint is still valid for the sources.

        Raises:
            Refusal: A source has changed, or is gone.
        """
        for source in self.sources:
            source.check_unchanged(task_id=self.task.id)

    def check_source(self, index: int) -> None:
        """Check that a source is unchanged; later checks are quick while its file has the same size and mtime."""
        source = self.sources[index]
        touched = _touched(source)
        if touched is None or self._read_at.get(index) != touched:
            source.check_unchanged(task_id=self.task.id)
        if touched is not None:
            self._read_at[index] = touched

    def check_read(self) -> None:
        """Check after the load that no source was rewritten; warn of rows that were appended.

        Raises:
            UpsertCliError: A file was rewritten.
        """
        for source in self.sources:
            if (change := source.change()) is None:
                continue
            if source.was_rewritten():
                raise UpsertCliError(
                    message=f"{source.name} changed while it was being read ({change}), so rows may be missing; once "
                    f"it is whole, load it with `upsert-cli restart {self.task.id} --from-start`"
                )
            self._context.warning(f"{source.name} changed while it was being read ({change}); load it again")

    def start_store(self, *, rows: int | None = None, wait_until: float = 0.0) -> StoreProcess:
        """Start the process that writes to the collection.

        Args:
            rows: The number of rows left to load; None if unknown.
            wait_until: Monotonic seconds until which to wait for another task that has the folder.
        """
        task = self.task
        holder = self.location.holder()
        is_other = holder is not None and holder.task_id not in (None, task.id)
        # The last write of this task's dead runner is always waited for; that of another task, when the lease is taken.
        least = ENDING_SECONDS if task.attempt > 1 and not is_other else 0.0
        seconds = max(least, wait_until - time.monotonic())
        if holder is not None and seconds > 0.0:
            self._context.info(f"waiting for {task.chroma}, which is in use by {holder}")
        return self._start(self._target(rows=rows), verbose=task.options.verbose, lease_timeout=seconds)

    def start_reader(self) -> StoreProcess | None:
        """Start a process that only reads the collection; return None if there is no collection."""
        if self.task.options.keep_lists:
            self.location.require_lists()
        return None if self.location.describe() is None else self._start(self._target(reads_only=True))

    def _target(self, *, rows: int | None = None, reads_only: bool = False) -> Target:
        kept = self.model if isinstance(self.model, OwnVectors) else None
        return Target(
            path=self.task.chroma,
            collection=self.task.collection,
            model=self.model.identity,
            space=None if kept is None else kept.space,
            function=None if kept is None else kept.function,
            as_found=reads_only,
            reads_only=reads_only,
            keeps_lists=self.task.options.keep_lists,
            rows=rows,
            leases=str(self._leases),
            retry_for=self.task.options.retry_for,
        )

    def _start(self, target: Target, *, verbose: bool = False, lease_timeout: float = 0.0) -> StoreProcess:
        return StoreProcess(
            target,
            task_id=self.task.id,
            verbose=verbose,
            lease_timeout=lease_timeout,
            context=self._context,
            location=self.location,
        )


def _touched(source: Source) -> tuple[int, int] | None:
    """Return the size and the mtime of a local file; None if it is gone, or for another kind of source."""
    if not isinstance(source.path, Path):
        return None
    try:
        status = source.path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
