"""A dry run: all rows are read, checked and compared, and nothing is written."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.counts import NOTHING_IGNORED, Counts
from upsert_cli.errors import SourceUnreadable
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.rejects import FAILED_ITEMS
from upsert_cli.limits import require_resources
from upsert_cli.load.create import drafted
from upsert_cli.load.orphans import find_orphans
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import Resources
from upsert_cli.pipeline.batch import Batch, Outcomes
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.pipeline.compare import compare_only
from upsert_cli.pipeline.embed import rows_to_embed, seconds_a_token
from upsert_cli.redaction import in_message
from upsert_cli.store.process import StoreProcess

PROBE_ROWS = 64  # texts to embed to measure the speed; one to three seconds with the default model


def dry_run_load(
    journal: Journal, request: LoadRequest, *, stdin: BinaryIO, compare: bool, context: RunContext
) -> DryRunResult:
    """Read all items of a load, and return the results that it would have.

    Args:
        journal: The journal, which keeps standard input during the dry run and gets no task.
        request: The load.
        stdin: Read to its end if a source is `-`.
        compare: Whether to use the collection and the model; without, neither has to exist.
        context: Reports long steps, and the warnings of the load.

    Raises:
        Refusal: The load would be refused, for example for another model.
        UpsertCliError: The load would fail, or this process may not use the resources that a load needs.
    """
    require_resources()
    with drafted(journal, request, stdin) as draft:
        for note in draft.notes:
            context.info(note)
        resources = Resources(draft.task, leases=journal.layout.servers, context=context)
        result = DryRunResult(resources, compared=compare)
        batches = read_batches(resources.rows, recipe=resources.recipe if compare else resources.recipe_without_model())
        store = resources.start_reader() if compare else None
        with store or nullcontext():
            if store is not None:
                _look_into(store, resources, result, context)
            try:
                for batch in compare_only(batches, store, average=draft.task.options.average):
                    result.add(batch)
            except SourceUnreadable as error:
                result.broken = error
    if result.broken is not None or result.counts.failed:
        result.forget_missing()
    if (warning := result.ignored.warning()) is not None:
        context.warning(warning)
    return result


def _look_into(store: StoreProcess, resources: Resources, result: DryRunResult, context: RunContext) -> None:
    """Report the warnings of a collection, and count the records that the load would delete."""
    opened = store.opened()
    for warning in filter(None, (opened.upgrade, *opened.warnings)):
        context.warning(warning)
    if resources.task.options.delete_missing:
        try:
            for block in find_orphans(resources, store, context=context, is_dry_run=True):
                result.counts += Counts(deleted=len(block))
                result.to_delete += [record.id for record in block[: FAILED_ITEMS - len(result.to_delete)]]
        except SourceUnreadable:  # reading the rows reports it
            result.forget_missing()


class DryRunResult:
    """The results that a load would have; the first text to embed loads the model."""

    def __init__(self, resources: Resources, *, compared: bool) -> None:
        """Begin without any rows."""
        self.counts = Counts()
        """Without a comparison, every good row counts as new; an id that is repeated in a later batch counts again."""

        self.rejects: list[dict[str, Any]] = []
        """The first rejects, in the shape of `failed_items`."""

        self.to_delete: list[str] = []
        """The ids of the first records to delete; all records to delete are in the counts."""

        self.tokens = 0
        """Tokens to embed, without those beyond the model's limit."""

        self.broken: SourceUnreadable | None = None
        """The error with which the load would end after the counted rows, if any."""

        self.compared = compared
        self.ignored = NOTHING_IGNORED
        self._resources = resources
        self._outcomes = Outcomes()
        self._token_seconds: float | None = None

    @property
    def exit_code(self) -> int:
        """The exit code that the load would have."""
        return self._resources.task.done_code(self.counts) if self.broken is None else self.broken.exit_code

    @property
    def embed_seconds(self) -> float | None:
        """The estimated seconds to embed the tokens, from a measurement; None without a comparison."""
        return self.tokens * (self._token_seconds or 0.0) if self.compared else None

    def as_json(self) -> dict[str, Any]:
        """Return the results as plain data."""
        return {
            "dry_run": True,
            "compared": self.compared,
            "counts": self.counts.as_json(),
            "to_delete": list(self.to_delete),
            **({} if self.broken is None else {"detail": in_message(str(self.broken))}),
            "tokens": self.tokens,
            "embed_seconds": self.embed_seconds,
        }

    def forget_missing(self) -> None:
        """Forget the records to delete, since a load with rejects or a source that breaks off deletes nothing."""
        self.counts += Counts(deleted=-self.counts.deleted)
        self.to_delete.clear()

    def add(self, batch: Batch) -> None:
        """Count the rows of a compared batch."""
        lengths = self._lengths(batch)
        limit = self._resources.model.max_tokens if self.compared else 0
        self.tokens += sum(min(length, limit) for length in lengths)
        outcome = self._outcomes.of(batch)
        self.ignored += batch.ignored
        room = FAILED_ITEMS - len(self.rejects)
        self.rejects += outcome.rejects[:room]
        self.counts += outcome.counts + Counts(truncated=sum(length > limit for length in lengths))

    def _lengths(self, batch: Batch) -> list[int]:
        """Count the tokens of each text to embed; the first texts are also embedded, to measure the speed."""
        if not self.compared or not (rows := rows_to_embed(batch)):
            return []
        documents = [batch.documents[row] for row in rows]
        embedder = self._resources.loader.embedder()
        if self._token_seconds is None:
            effort = self._resources.task.options.effort
            self._token_seconds = seconds_a_token(documents[:PROBE_ROWS], embedder, effort)
        return embedder.count([document.text for document in documents])
