"""The expected content of a collection: the records that a load of a task's sources makes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

from upsert_cli.errors import Refusal, Stage
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.load.resources import Resources
from upsert_cli.load.vectors import recipe_of
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.verify.subject import Subject, describe_collection

_LATE_STAGES = {Stage.SPLITTING, Stage.INFERENCE, Stage.UPSERT, Stage.OTHER}
"""The stages that reject rows which a reader takes for good; `OTHER` has the rows that end the process."""


def subject_of_task(journal: Journal, task_id: str, options: LoadOptions | None = None) -> Subject:
    """Return the collection of a task, with the rows that the task should have loaded.

    `options` may name another folder of the model's files, or forbid the network.

    Raises:
        TaskNotFound: There is no such task.
        Refusal: A source has changed since the task was last run.
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
                message=f"{source.name} changed since task {task_id} was last run ({change}), so its rows cannot be "
                f"compared with the collection; `upsert-cli verify --collection {shlex.quote(task.collection)} "
                f"--chroma {shlex.quote(task.chroma)}` checks what is stored without them"
            )
    loaded_by = task if task.rows else None
    info, target = describe_collection(journal, task.chroma, task.collection, task.options, loaded_by=loaded_by)
    if info.stamp is None:  # not created by this tool, so the hashes have the model of the task
        target = replace(target, model=resources.model.identity)
    rejects = journal.rejects(task_id)
    refused = frozenset((each["source"], each["row"]) for each in rejects if each["failure_stage"] in _LATE_STAGES)
    return Subject(
        journal=journal,
        target=target,
        identity=target.model.hashed,
        options=task.options,
        task=task,
        rows=replace(resources.rows, refused=refused),
    )


def expected_batches(subject: Subject) -> Iterator[Batch]:
    """Yield the expected documents in the order of their rows; a later row of an id replaces the earlier ones.

    Raises:
        SourceUnreadable: A source broke off or cannot be read any further.
    """
    if subject.rows is None:
        return iter(())
    model = subject.model() if subject.options.split else subject.target.model
    return read_batches(subject.rows, recipe=recipe_of(subject.options, model))
