"""The resources of a task: its sources, its collection, its model, the recipe of its documents, and its writer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from upsert_cli import __version__, embedding
from upsert_cli.context import RunContext
from upsert_cli.documents.document import Splitter
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding import require_precision
from upsert_cli.embedding.catalog import NO_MODEL, embeds
from upsert_cli.embedding.embedder import Embedder
from upsert_cli.embedding.fastembed import load_tokenizer
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, Model, ModelIdentity, OwnVectors
from upsert_cli.embedding.models import find_model, identity_if_known
from upsert_cli.errors import Refusal, TargetInUse, UsageFault
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task
from upsert_cli.load.inputs import collections_for
from upsert_cli.pipeline.prefetch import prefetch
from upsert_cli.pipeline.preflight import first_dimension
from upsert_cli.sources.source import Source
from upsert_cli.store.base import Target
from upsert_cli.store.collection_source import StoredCollection
from upsert_cli.store.location import ENDING_SECONDS, CollectionInfo, Location
from upsert_cli.store.locations import location_at, location_of
from upsert_cli.store.process import StoreProcess

_UNKNOWN = ModelIdentity(name=NO_MODEL, dimension=0, max_tokens=0)


def model_of(name: str, options: LoadOptions, *, context: RunContext | None = None) -> Model:
    """Find a model as the options of a load say; see `find_model`."""
    return find_model(
        name, given=options.given_model, prefixes=options.prefixes, offline=options.offline, context=context
    )


def require_computable(model: str, options: LoadOptions) -> None:
    """Check that a model can be computed in the precision of a load; see `require_precision`."""
    here = options.engine == "local"
    require_precision(options.precision, model, given=options.given_model, here=here)


def load_embedder(model: Model | OwnVectors, options: LoadOptions) -> Embedder:
    """Load a model as the options of a load say; see `embedding.load`."""
    threads = options.effort.threads
    return embedding.load(model, device=options.device, precision=options.precision, threads=threads)


def own_vectors(options: LoadOptions, sources: Sequence[Source]) -> OwnVectors:
    """Return the vectors that the items of some sources bring into a new collection: the first sets the dimension."""
    unknown = OwnVectors(dimension=0)
    recipe = options.recipe(unknown.name, identity=unknown.hashed)
    return replace(unknown, dimension=first_dimension(options.rows(sources), recipe=recipe))


def kept_vectors(sources: Sequence[Source]) -> OwnVectors:
    """Return the vectors of the collections among some sources, with the model that the collections name.

    Raises:
        UsageFault: They are of different models, dimensions or distances, or none of the sources is a collection.
    """
    described = [(source, source.path.describe()) for source in sources if isinstance(source.path, StoredCollection)]
    if not described:
        raise UsageFault(message="--keep-vectors goes with a collection as a source, chroma:TARGET#COLLECTION")
    (name, first), *others = ((source.name, _vectors_of(info)) for source, info in described)
    for other_name, other in others:
        if other != first:
            raise UsageFault(
                message=f"--keep-vectors: {name} holds {_described(first)}, and {other_name} {_described(other)}; "
                f"load them into different collections"
            )
    return first


def _vectors_of(info: CollectionInfo) -> OwnVectors:
    model = info.stamp or (_UNKNOWN if info.named_model is None else CHROMAS_DEFAULT)
    model = replace(model, dimension=info.dimension or model.dimension)
    is_named = info.stamp is not None or info.default_function
    return OwnVectors.of(model, space=info.space or None, function=None if is_named else info.function)


def _described(vectors: OwnVectors) -> str:
    model = vectors.function or ("an unknown model" if vectors.name == NO_MODEL else vectors.name)
    return f"vectors of {model} with {vectors.dimension} numbers and the distance {vectors.space}"


def sources_of(task: Task) -> list[Source]:
    """Return the sources that a task reads."""
    return stored_sources(task.inputs, task.options, chroma=task.chroma)


def stored_sources(inputs: Iterable[dict[str, Any]], options: LoadOptions, *, chroma: str) -> list[Source]:
    """Return the sources of a load into `chroma` that a journal holds as plain data."""
    collection_at = collections_for(options, chroma=chroma)
    return [Source.from_json(value, collection_at=collection_at, retry_for=options.retry_for) for value in inputs]


def location_of_task(journal: Journal, task: Task) -> Location:
    """Return the location of a task's collection."""
    retry_for = task.options.retry_for
    return location_at(task.chroma, task.collection, leases=journal.layout.servers, retry_for=retry_for)


def in_use(journal: Journal, task: Task) -> TargetInUse | None:
    """Return the error if another process holds a task's target; the load waits for the last write of a dead one."""
    location = location_of_task(journal, task)
    holder = location.holder()
    return None if holder is None or holder.task_id == task.id or holder.is_orphan() else location.in_use(holder)


def collection_deleted(task: Task, *, rows: int) -> Refusal:
    """Return the error for a task that cannot continue after its committed rows, since their records are gone."""
    return Refusal(
        message=f"the collection {task.collection} is not in {task.chroma} any more, although task {task.id} has "
        f"committed {rows:,} rows to it: it was deleted or renamed; "
        f"`upsert-cli restart {task.id} --from-start` loads all rows again"
    )


def recipe_of(options: LoadOptions, model: Model | OwnVectors) -> Recipe:
    """Return the recipe that makes documents of items; texts are split with the tokenizer of the model.

    Raises:
        Refusal: A chunk is to have more tokens than the model reads, or none after its prefix.
    """
    recipe = options.recipe(model.name, identity=model.hashed, dimension=model.dimension)
    if not options.split or isinstance(model, OwnVectors):
        return recipe
    tokens = options.max_tokens or model.max_tokens
    if tokens > model.max_tokens:
        raise Refusal(
            message=f"--max-tokens {tokens}: {model.name} reads at most {model.max_tokens} tokens; give that, or less"
        )
    prefix = model.prefixes.passage
    splitter = Splitter(load_tokenizer(model), max_tokens=tokens, overlap=options.overlap, prefix=prefix)
    return replace(recipe, splitter=splitter, average=options.average)


def recipe_without_model(name: str, options: LoadOptions, sources: Sequence[Source]) -> Recipe:
    """Return the recipe for a model that is not on this machine, or for the vectors of the items."""
    if options.keep_vectors:
        return recipe_of(options, kept_vectors(sources))
    if not embeds(name):
        return recipe_of(options, own_vectors(options, sources))
    known = identity_if_known(name, options.prefixes)
    return options.recipe(name, identity="" if known is None else known.hashed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """All that a load of a task uses besides its sources: the origin of its vectors, and its collection."""

    task: Task
    model: Model | OwnVectors
    """Its model, or the vectors of its items, with the dimension of the collection."""

    leases: Path
    """The folder for the leases on collections of servers."""

    @classmethod
    def find(cls, journal: Journal, task: Task, *, context: RunContext) -> Resources:
        """Find the resources of a task; its model may have to be fetched."""
        model = _origin_of_vectors(journal, task, context=context)
        return cls(task=task, model=model, leases=journal.layout.servers)

    @classmethod
    def find_in_thread(cls, journal: Journal, task: Task, *, context: RunContext) -> Resources:
        """Call `find` in a thread, since a fetch may take minutes and signals have to be seen."""

        def find() -> Iterator[Resources]:
            yield cls.find(journal, task, context=context)

        with closing(prefetch(find(), stopping=threading.Event(), wait=context.check)) as found:
            return next(found)

    def recipe(self) -> Recipe:
        """Return the recipe of the documents; see `recipe_of`."""
        return recipe_of(self.task.options, self.model)

    def load_model(self) -> Embedder:
        """Load the model; see `load_embedder`."""
        return load_embedder(self.model, self.task.options)

    def target(self) -> Target:
        """Return the collection to write to."""
        return Target(
            path=self.task.chroma,
            collection=self.task.collection,
            model=self.model.identity,
            space=self.model.space if isinstance(self.model, OwnVectors) else None,
            function=self.model.function if isinstance(self.model, OwnVectors) else None,
            tool_version=__version__,
            keeps_lists=self.task.options.keep_lists,
            leases=str(self.leases),
            retry_for=self.task.options.retry_for,
        )

    def start_store(self, *, rows: int | None, wait_until: float, context: RunContext) -> StoreProcess:
        """Start the process that writes to the collection.

        Args:
            rows: Number of rows left to load; None if unknown.
            wait_until: Monotonic seconds at which waiting for another task that has the folder ends.
            context: Checked in the waits of the main thread.
        """
        task, target = self.task, self.target()
        location = location_of(target)
        holder = location.holder()
        is_other = holder is not None and holder.task_id not in (None, task.id)
        # A dead runner of this task is always waited for; one of another task is seen when the lease is taken.
        least = ENDING_SECONDS if task.attempt > 1 and not is_other else 0.0
        seconds = max(least, wait_until - time.monotonic())
        if holder is not None and seconds > 0.0:
            context.info(f"waiting for {task.chroma}, which is in use by {holder}")
        return StoreProcess(
            replace(target, rows=rows),
            task_id=task.id,
            verbose=task.options.verbose,
            lease_timeout=seconds,
            context=context,
            location=location,
        )


def _origin_of_vectors(journal: Journal, task: Task, *, context: RunContext) -> Model | OwnVectors:
    """Return the model of a task, or the vectors of its items, with the dimension of the collection."""
    if task.options.keep_vectors:
        return kept_vectors(sources_of(task))
    model = model_of(task.model, task.options, context=context) if embeds(task.model) else None
    if model is not None and not model.pooling:
        return model
    info = location_of_task(journal, task).describe()
    if model is not None:
        # The name is part of each record's hash, so it stays as the collection spells it.
        made_by = None if info is None else info.stamp
        if made_by is not None and made_by.name.lower() == model.name.lower():
            return replace(model, name=made_by.name)
        return model
    if info is not None and info.dimension is not None:
        return OwnVectors(dimension=info.dimension)
    return own_vectors(task.options, sources_of(task))
