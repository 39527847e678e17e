"""A collection to verify, repair or query, with the model that made its vectors and the tasks that loaded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import NO_MODEL, embeds, parse_steps
from upsert_cli.embedding.identity import Model, ModelIdentity, OwnVectors
from upsert_cli.embedding.models import find_entry, find_model
from upsert_cli.errors import Refusal, UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.sources.rows import Rows
from upsert_cli.store.locate import location_at, location_of, no_collection
from upsert_cli.store.location import Location
from upsert_cli.store.target import UNNAMED, CollectionInfo, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A collection to verify, repair or query; see also `expected`, which adds the rows of a task."""

    journal: Journal
    target: Target

    identity: str | None
    """The identity of the model in the records' hashes; None if the collection names no model."""

    options: LoadOptions
    """The options of the task, or of the command line."""

    task: Task | None = None
    rows: Rows | None = None
    """The rows of the task's sources; None without a task."""

    named: ModelIdentity | None = None
    """The model that the user names for a collection of vectors that its items brought."""

    @classmethod
    def of_collection(
        cls, journal: Journal, chroma: str, collection: str, options: LoadOptions, *, model: str | None = None
    ) -> Subject:
        """Return a collection by its own description.

        Args:
            journal: The journal with the leases on collections of servers.
            chroma: The target in the spelling of `canonical_target`.
            collection: The name of the collection.
            options: The folder of the model, and whether to use the network.
            model: The model that made the vectors, for a collection that does not name it.

        Raises:
            Refusal: The collection names another model.
            UpsertCliError: The collection does not exist.
        """
        info, target = describe_collection(journal, chroma, collection, options)
        identity = None if info.stamp is None else target.model.hashed
        subject = cls(journal=journal, target=target, identity=identity, options=options)
        if model is None or not embeds(model):
            return subject
        named = _named_model(target, model, options)
        if embeds(target.model.name):
            return replace(subject, target=replace(target, model=named))
        return replace(subject, named=named)  # in the store, these stay the vectors of items

    @property
    def task_id(self) -> str | None:
        """The id of the task, if there is one."""
        return None if self.task is None else self.task.id

    def location(self) -> Location:
        """Return the location of the collection."""
        return location_of(self.target)

    def loaded_by(self) -> str | None:
        """Return the id of the newest task that brought the vectors of its items; None if a model made them."""
        if embeds(self.target.model.name):
            return None
        name = self.target.collection
        newest = newest_loads(self.journal, self.target.path, {name: NO_MODEL}).get(name)
        return None if newest is None else newest.id

    # -- the model -----------------------------------------------------------------------------------------------------

    def vectors(self) -> Model | OwnVectors:
        """Return the origin from which the collection's vectors can be made again: its model, or its items.

        Raises:
            Refusal: The items brought their vectors, and no task with their sources is named; see also `model`.
        """
        target, options = self.target, self.options
        # Vectors that a task keeps can be copied again without the files of their model.
        are_kept = options.keep_vectors and bool(target.model.pooling) and options.given_model is None
        if embeds(target.model.name) and not are_kept:
            return self.model()
        if self.rows is None:
            raise Refusal(
                message=f"the vectors of the collection {target.collection} in {target.path} came with its items, and "
                f"only their sources have them: `upsert-cli verify --repair {self.loaded_by() or 'TASK_ID'}` reads "
                f"those of a task again, and `upsert-cli list` shows the tasks"
            )
        return OwnVectors(dimension=target.model.dimension)

    def check_given_model(self) -> None:
        """Check the weights in the folder that the user names for the model.

        Raises:
            Refusal: The weights differ from those that made the collection.
        """
        given = self.options.given_model
        if given is not None and given.path.is_dir() and self.target.model.weights is not None:
            self.model()

    def model(self, *, context: RunContext | None = None) -> Model:
        """Return the model that made the collection's vectors.

        Raises:
            Refusal: The collection names no model, or the model on this machine has other weights or another pooling.
        """
        target, options = self.target, self.options
        if not target.model.name:
            raise Refusal(
                message=f"the collection {target.collection} in {target.path} does not say which model made its "
                f"vectors, so no vector was made; load it again into a collection of this tool's own"
            )
        made_by = self.named or target.model
        if made_by.pooling and options.pooling is None:
            pooling, normalized = parse_steps(made_by.pooling)
            options = replace(options, pooling=pooling, no_normalize=not normalized)
        found = find_model(
            made_by.name,
            given=options.given_model,
            prefixes=made_by.prefixes,
            offline=options.offline,
            context=context,
        )
        differences = {part: (had, asked) for part, had, asked in made_by.differences(found)}
        if "pooling" in differences:
            had, asked = differences["pooling"]
            raise Refusal(
                message=f"the vectors of the collection {target.collection} in {target.path} were made with the "
                f"pooling {had}, not {asked}; leave --pooling and --no-normalize out"
            )
        if "weights" in differences:
            raise Refusal(
                message=f"the weights of {found.name} in {found.folder} differ from those that made the collection "
                f"{target.collection} in {target.path}; give --model-path the folder with those weights"
            )
        return found


def _named_model(target: Target, name: str, options: LoadOptions) -> ModelIdentity:
    """Return the identity of the model that the user names for a collection.

    Raises:
        Refusal: The collection names another model.
    """
    known, entry = target.model, find_entry(name, given=options.given_model)
    if not known.name or not embeds(known.name):
        return replace(known, name=entry.name, prefixes=entry.prefixes)
    if known.name.lower() != entry.name.lower():
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} was made with the model {known.name}, not "
            f"{entry.name}; leave --model out, or name another --collection"
        )
    return known


def describe_collection(
    journal: Journal, chroma: str, collection: str, options: LoadOptions, *, loaded_by: Task | None = None
) -> tuple[CollectionInfo, Target]:
    """Return the description of a collection, and the target to read every record with its vector.

    Raises:
        UpsertCliError: The collection does not exist; the message differs if a task has loaded it.
    """
    leases = journal.layout.servers
    info = location_at(chroma, collection, leases=leases).describe()
    if info is None and loaded_by is not None:
        raise UpsertCliError(
            message=f"the collection {collection} is not in {chroma} any more, although task {loaded_by.id} loaded "
            f"{loaded_by.rows:,} rows into it: it was deleted or renamed; "
            f"`upsert-cli restart {loaded_by.id} --from-start` loads them again"
        )
    if info is None:
        raise no_collection(chroma, collection)
    model = info.model or UNNAMED
    return info, Target(
        path=chroma,
        collection=collection,
        model=replace(model, dimension=model.dimension or info.dimension or 0),
        as_found=True,
        examined=True,
        leases=str(leases),
        retry_for=options.retry_for,
    )


def newest_loads(journal: Journal, chroma: str, models: Mapping[str, str | None]) -> dict[str, Task]:
    """Return the newest task that loaded each collection of a target; the journal is read no further than needed.

    `models` has the model that each collection names. A task with another model filled an earlier collection of the
    same name.
    """
    found: dict[str, Task] = {}
    tasks = journal.newest_first()
    while len(found) < len(models) and (task := next(tasks, None)) is not None:
        name = task.collection
        if task.chroma != chroma or name not in models or name in found or not _has_written(task):
            continue
        if (models[name] or task.model).lower() == task.model.lower():
            found[name] = task
    return found


def other_load(journal: Journal, task: Task) -> Task | None:
    """Return a task that loaded a task's collection from other sources: the next older one, or else the newest."""
    target = (task.chroma, task.collection)
    same_target = [each for each in journal.newest_first() if (each.chroma, each.collection) == target]
    ids = [each.id for each in same_target]
    first_older = ids.index(task.id) + 1 if task.id in ids else 0
    for load in (*same_target[first_older:], *same_target[:first_older]):
        if load.sources != task.sources and _has_written(load):
            return load
    return None


def repair_by_task(task: Task) -> str:
    """Return the command that loads the missing rows of a task, and corrects wrong ones if the task is done."""
    return f"upsert-cli {'verify --repair' if task.status is TaskStatus.DONE else 'restart'} {task.id}"


def _has_written(task: Task) -> bool:
    """Check that a task may have written records."""
    return task.started_at is not None and task.status is not TaskStatus.REFUSED
