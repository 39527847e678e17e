"""What is to be verified: a collection as it describes itself, and the sources of a task where one is given."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from upsert_cli import __version__
from upsert_cli.documents.document import Recipe
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.models import Model, identity_of
from upsert_cli.errors import CollectionNotFound, ModelUnknown, Refusal, Stage
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import TaskStatus
from upsert_cli.load.resources import model_of, recipe_of, sources_of
from upsert_cli.pipeline.batches import Batch, read_batches
from upsert_cli.pipeline.pace import MAX_ROWS, Pace
from upsert_cli.sources.source import Source
from upsert_cli.store.base import CollectionInfo, Target
from upsert_cli.store.locations import location_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is to be verified, and what is needed to mend it."""

    target: Target

    identity: str | None
    """The model's, which is part of the records' hashes; None where the collection does not tell."""

    options: LoadOptions
    """Of the task, or as far as they were given."""

    task_id: str | None = None
    is_unfinished: bool = False
    """The task did not come to its end, so a restart loads what is missing."""

    sources: tuple[Source, ...] = ()

    refused: frozenset[tuple[str, int]] = frozenset()
    """Source and row of the items that the model or Chroma refused, and which are not stored for that reason."""

    @classmethod
    def of_collection(cls, journal: Journal, chroma: str, collection: str, options: LoadOptions) -> Subject:
        """Returns a collection as it describes itself; `chroma` is as `locations.canonical_target` spells it.

        Raises:
            CollectionNotFound: It is not there.
        """
        info = _described(journal, chroma, collection)
        return cls._stamped(
            journal=journal,
            chroma=chroma,
            collection=collection,
            model=model_named(info) or "",
            dimension=info.dimension if info.stamped_dimension is None else info.stamped_dimension,
            max_tokens=info.max_tokens,
            is_stamped=info.model is not None,
            options=options,
        )

    @classmethod
    def of_task(cls, journal: Journal, task_id: str) -> Subject:
        """Returns a task's collection, its sources, and which of their rows are not to be expected.

        Raises:
            TaskNotFound: There is no such task.
            Refusal: A source is not what it was when the task was last run, so nothing can be compared with it.
            CollectionNotFound: The collection is not there.
        """
        task = journal.find(task_id)
        options = task.options
        sources = tuple(sources_of(task))
        for source in sources:
            if (how := source.change()) is not None:
                target = f"--collection {shlex.quote(task.collection)} --chroma {shlex.quote(task.chroma)}"
                raise Refusal(
                    message=f"{source.name} changed since task {task_id} was last run ({how}), so its rows cannot be "
                    f"compared with the collection; `upsert-cli verify {target}` checks what is stored without them"
                )
        info = _described(journal, task.chroma, task.collection)
        dimension, max_tokens = info.stamped_dimension, info.max_tokens
        if info.model is None:  # made by others: the hashes are those of the task's model
            model = model_of(task.model, options)
            dimension, max_tokens = model.dimension, model.max_tokens
        # Those that are found once a row is read; a row that ends its process is of the stage `other`.
        late = {Stage.SPLITTING.value, Stage.INFERENCE.value, Stage.UPSERT.value, Stage.OTHER.value}
        rejects = journal.rejects(task_id)
        refused = frozenset((one["source"], one["row"]) for one in rejects if one["failure_stage"] in late)
        return cls._stamped(
            journal=journal,
            chroma=task.chroma,
            collection=task.collection,
            model=task.model,
            dimension=dimension,
            max_tokens=max_tokens,
            is_stamped=True,
            options=options,
            task_id=task_id,
            is_unfinished=task.status is not TaskStatus.DONE,
            sources=sources,
            refused=refused,
        )

    @classmethod
    def _stamped(
        cls,
        *,
        journal: Journal,
        chroma: str,
        collection: str,
        model: str,
        dimension: int | None,
        max_tokens: int | None,
        is_stamped: bool,
        options: LoadOptions,
        **of_task: Any,
    ) -> Subject:
        dimension, max_tokens = dimension or 0, max_tokens or 0
        target = Target(
            path=chroma,
            collection=collection,
            model=model,
            dimension=dimension,
            max_tokens=max_tokens,
            tool_version=__version__,
            default_model=model == DEFAULT_MODEL,
            as_found=True,
            examined=True,
            leases=str(journal.layout.servers),
            retry_for=options.retry_for,
        )
        identity = identity_of(model, dimension, max_tokens) if is_stamped else None
        return cls(target=target, identity=identity, options=options, **of_task)

    def batches(self) -> Iterator[Batch]:
        """Yields the items of the sources as they have to be in the collection, if no later one has their id.

        Raises:
            SourceUnreadable: A file broke off or cannot be read any further.
        """
        rows = replace(self.options.rows(self.sources), refused=self.refused)
        return read_batches(rows, recipe=self._recipe(), pace=Pace(MAX_ROWS))

    def _recipe(self) -> Recipe:
        """Returns how documents were made of the items of the sources."""
        if self.options.split:
            return recipe_of(self.options, self.model())
        return self.options.recipe(identity=self.identity or "", dimension=self.target.dimension)

    def model(self, *, report: Callable[[str], None] | None = None) -> Model:
        """Returns the model that the collection's vectors are of; tells `report` of what takes long.

        Raises:
            ModelUnknown: It does not say.
        """
        if not self.target.model:
            raise ModelUnknown(path=self.target.path, collection=self.target.collection)
        return model_of(self.target.model, self.options, report=report)


def model_named(info: CollectionInfo) -> str | None:
    """Return the model that a collection names, by our stamp or by its embedding function; None if it names none."""
    return info.model or (DEFAULT_MODEL if info.default_function else None)


def _described(journal: Journal, chroma: str, collection: str) -> CollectionInfo:
    known = location_at(chroma, collection, leases=journal.layout.servers).describe()
    if known is None:
        raise CollectionNotFound(path=chroma, collection=collection)
    return known
