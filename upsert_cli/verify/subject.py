"""The expected content of a collection: by its own description, and by the sources of a task that loaded it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace

from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import NO_MODEL, embeds, parse_steps
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, Model, ModelIdentity, OwnVectors
from upsert_cli.embedding.models import find_entry, find_model
from upsert_cli.errors import Refusal, Stage, UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task
from upsert_cli.load.resources import Resources
from upsert_cli.load.vectors import recipe_of
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.sources.rows import Rows
from upsert_cli.store.locate import location_at, location_of
from upsert_cli.store.location import Location
from upsert_cli.store.target import UNNAMED, CollectionInfo, Target
from upsert_cli.verify.collections import last_tasks, no_collection

_LATE_STAGES = {Stage.SPLITTING, Stage.INFERENCE, Stage.UPSERT, Stage.OTHER}
"""The stages of rejects that are good rows to every reader; a row that ends its process is of the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A collection to verify, repair or query, and its expected content."""

    journal: Journal
    target: Target

    identity: str | None
    """The identity of the model, which is part of the records' hashes; None if the collection does not name it."""

    options: LoadOptions
    """Those of the task, or those that were given."""

    task: Task | None = None
    rows: Rows | None = None
    """The rows of the task's sources; None without a task."""

    named: ModelIdentity | None = None
    """The model of the vectors by the user's word, where the collection holds vectors that its items brought."""

    @classmethod
    def of_collection(
        cls, journal: Journal, chroma: str, collection: str, options: LoadOptions, *, model: str | None = None
    ) -> Subject:
        """Return a collection as it describes itself.

        `chroma` is as `canonical_target` spells it, `options` say where the model's files are, and `model` names the
        one that made the vectors, for a collection that does not name it.

        Raises:
            Refusal: The collection names another model.
            UpsertCliError: The collection does not exist.
        """
        info, target = _describe(journal, chroma, collection, options)
        identity = None if info.stamp is None else target.model.hashed
        subject = cls(journal=journal, target=target, identity=identity, options=options)
        if model is None or not embeds(model):
            return subject
        named = _named_model(target, model, options)
        if embeds(target.model.name):
            return replace(subject, target=replace(target, model=named))
        return replace(subject, named=named)  # the store knows such vectors as those of items

    @classmethod
    def of_task(cls, journal: Journal, task_id: str, options: LoadOptions | None = None) -> Subject:
        """Return the collection of a task, with the rows that it should have loaded.

        `options` may say that the model's files are not where the task found them.

        Raises:
            TaskNotFound: There is no such task.
            Refusal: A source has changed since the task was last run, so the collection cannot be compared with it.
            UpsertCliError: The collection does not exist.
        """
        task = journal.find(task_id)
        if options is not None:
            offline, folder = options.offline or task.options.offline, options.model_path or task.options.model_path
            task = replace(task, options=replace(task.options, offline=offline, model_path=folder))
        resources = Resources(task, leases=journal.layout.servers)
        for source in resources.sources:
            if (change := source.change()) is not None:
                raise Refusal(
                    message=f"{source.name} changed since task {task_id} was last run ({change}), so its rows cannot "
                    f"be compared with the collection; `upsert-cli verify --collection {shlex.quote(task.collection)} "
                    f"--chroma {shlex.quote(task.chroma)}` checks what is stored without them"
                )
        loaded_by = task if task.rows else None
        info, target = _describe(journal, task.chroma, task.collection, task.options, loaded_by=loaded_by)
        if info.stamp is None:  # not created by this tool: the hashes are those of the task's model
            target = replace(target, model=resources.model.identity)
        rejects = journal.rejects(task_id)
        refused = frozenset((one["source"], one["row"]) for one in rejects if one["failure_stage"] in _LATE_STAGES)
        return cls(
            journal=journal,
            target=target,
            identity=target.model.hashed,
            options=task.options,
            task=task,
            rows=replace(resources.rows, refused=refused),
        )

    def batches(self) -> Iterator[Batch]:
        """Yield the items of the sources as they have to be stored, unless a later one has the same id.

        Raises:
            SourceUnreadable: A file broke off or cannot be read any further.
        """
        if self.rows is None:
            return iter(())
        model = self.target.model
        recipe = self.options.recipe(model.name, identity=self.identity or "", dimension=model.dimension)
        if self.options.split:
            recipe = recipe_of(self.options, self.model())
        return read_batches(self.rows, recipe=recipe)

    def vectors(self) -> Model | OwnVectors:
        """Return where the collection's vectors come from: its model, or its items."""
        model, options = self.target.model, self.options
        # Without the files of the model, the vectors that a task keeps can still be copied again.
        are_kept = options.keep_vectors and bool(model.pooling) and options.given_model is None
        return OwnVectors(dimension=model.dimension) if are_kept or not embeds(model.name) else self.model()

    @property
    def task_id(self) -> str | None:
        """The id of its task, if there is one."""
        return None if self.task is None else self.task.id

    def location(self) -> Location:
        """Return the location of the collection."""
        return location_of(self.target)

    def loaded_by(self) -> str | None:
        """Return the newest task that loaded a collection whose vectors only the sources of tasks have."""
        name = self.target.collection
        if embeds(self.target.model.name):
            return None
        newest = last_tasks(self.journal, self.target.path, {name: NO_MODEL}).get(name)
        return None if newest is None else newest.id

    def check_given_model(self) -> None:
        """Check the weights in the folder that was given for the model; reading records back needs no model.

        Raises:
            Refusal: They differ from those that made the collection.
        """
        given = self.options.given_model
        if given is not None and given.path.is_dir() and self.target.model.weights is not None:
            self.model()

    def model(self, *, context: RunContext | None = None) -> Model:
        """Return the model that the collection's vectors come from.

        Raises:
            Refusal: The collection does not name it, or was made with other weights of its name.
        """
        target = self.target
        if not target.model.name:
            raise Refusal(
                message=f"the collection {target.collection} in {target.path} does not say which model made its "
                f"vectors, so no vector was made; load it again into a collection of this tool's own"
            )
        made_by, options = self.named or target.model, self.options
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
        for what, had, asked in made_by.differences(found):
            if what == "pooling":
                raise Refusal(
                    message=f"the vectors of the collection {target.collection} in {target.path} were made with the "
                    f"pooling {had}, not {asked}; leave --pooling and --no-normalize out"
                )
            if what != "weights":
                continue
            raise Refusal(
                message=f"the weights of {found.name} in {found.folder} differ from those that made the collection "
                f"{target.collection} in {target.path}; give --model-path the folder with those weights"
            )
        return found


def _named_model(target: Target, name: str, options: LoadOptions) -> ModelIdentity:
    """Return the identity of a model that the user names for a collection, which may not name another one."""
    known, entry = target.model, find_entry(name, given=options.given_model)
    if known.name not in ("", NO_MODEL) and known.name.lower() != entry.name.lower():
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} was made with the model {known.name}, not "
            f"{entry.name}; leave --model out, or name another --collection"
        )
    is_known = known.name and embeds(known.name)
    return known if is_known else replace(known, name=entry.name, prefixes=entry.prefixes)


def _describe(
    journal: Journal, chroma: str, collection: str, options: LoadOptions, *, loaded_by: Task | None = None
) -> tuple[CollectionInfo, Target]:
    """Return the description of a collection, and the target to read every record with its vector."""
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
    unstamped = UNNAMED if info.named_model is None else CHROMAS_DEFAULT
    model = info.stamp or unstamped
    return info, Target(
        path=chroma,
        collection=collection,
        model=replace(model, dimension=model.dimension or info.dimension or 0),
        as_found=True,
        examined=True,
        leases=str(leases),
        retry_for=options.retry_for,
    )
