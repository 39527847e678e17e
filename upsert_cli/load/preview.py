"""The first records of a load, made in the same way as by the load; nothing is compared, embedded or stored."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.documents.chunking import require_splitter
from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import HASH_KEY, as_stored
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.catalog import embeds
from upsert_cli.embedding.fastembed import load_token_counter
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import identity_if_known, model_without_weights, prefixes_of
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.load.inputs import check_first_inputs, find_inputs, open_again, open_inputs
from upsert_cli.load.resources import recipe_of, recipe_without_model
from upsert_cli.pipeline.batch import NOTHING_IGNORED, Batch
from upsert_cli.pipeline.batches import MAX_ROWS, Pace, read_batches
from upsert_cli.pipeline.preflight import PROBED_ROWS
from upsert_cli.sources.item import MAX_ROW, Reject
from upsert_cli.sources.source import Source

STREAM_BYTES = 64 << 20  # bytes of a stream that are read, or more if the rows may be larger


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedRecord:
    """A record as a load would store it."""

    document: Document

    metadata: dict[str, Any]
    """Without `upsert_hash` if the model's limit is not known, since that is part of it."""

    tokens: int | None
    """Tokens of the document; None if there is no tokenizer, or the text is not embedded. Of a text that is far longer
    than the model reads, only the beginning is counted."""

    max_tokens: int | None
    """Tokens that the model reads; None if that is not known."""

    @property
    def is_truncated(self) -> bool | None:
        """Whether the model would read only the beginning of the document; None if that is not known."""
        if self.document.vector is not None or self.document.is_average:
            return False
        return None if self.tokens is None or self.max_tokens is None else self.tokens > self.max_tokens

    def as_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        document = self.document
        return {
            "type": "record",
            "source": document.item.source,
            "row": document.item.row,
            "id": document.id,
            "document": document.text,
            "metadata": self.metadata,
            "vector": None if document.vector is None else list(document.vector),
            "tokens": self.tokens,
            "max_tokens": self.max_tokens,
            "truncated": self.is_truncated,
            "converted": [{"field": key, "kind": kind} for key, kind in document.converted.items()],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedRow:
    """A row that is not stored, since a later one of the same id is."""

    object_id: str
    source: str
    row: int

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return {"type": "duplicate", "source": self.source, "row": self.row, "object_id": self.object_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The outcomes of the first rows."""

    entries: Sequence[PreviewedRecord | ReplacedRow | Reject]
    """In the order of their rows; an item that is split has several records."""

    notes: Sequence[str]
    """Messages for the user, such as why there are no tokens."""

    broken: SourceUnreadable | None
    """The error that a load would end with after these rows, if any."""


def preview(
    names: Sequence[str], options: LoadOptions, *, model_name: str, rows: int, stdin: BinaryIO, context: RunContext
) -> Preview:
    """Return the records of the first rows of some sources, without a journal, a collection or a model's weights.

    Args:
        names: Files, folders, globs, pipes, addresses; `-` is standard input.
        options: Those of the load.
        model_name: The model that would embed the records.
        rows: The number of rows.
        stdin: Read where a name is `-`.
        context: Reports files that are skipped in folders.

    Raises:
        UsageFault: A source does not exist, or its first rows do not fit the options.
        UpsertCliError: Texts are to be split, and the model's tokenizer is not on this machine.
    """
    if options.split:
        require_splitter()
    options = options.with_prefixes(prefixes_of(model_name, given=options.given_model))
    model = None
    if embeds(model_name) and not options.keep_vectors:
        model = model_without_weights(model_name, given=options.given_model, prefixes=options.prefixes)
    with _sources(names, options, model_name, rows=rows, stdin=stdin, context=context) as sources:
        outcomes = _Outcomes(sources, _recipe(options, model, model_name, sources))
        broken = outcomes.read(options)
    known = model or identity_if_known(model_name, options.prefixes)
    finish = _Finish(model, has_hash=known is not None)
    if (ignored := outcomes.ignored.warning()) is not None:
        context.warning(ignored)
    return Preview(
        entries=[finish.record(one) if isinstance(one, Document) else one for one in outcomes.in_order()],
        notes=tuple(finish.notes(model_name)),
        broken=broken,
    )


@contextmanager
def _sources(
    names: Sequence[str], options: LoadOptions, model: str, *, rows: int, stdin: BinaryIO, context: RunContext
) -> Iterator[list[Source]]:
    """Yield the sources cut after some rows, once the first rows were checked as those of a load are."""
    found = find_inputs(names, options, chroma=None, with_vectors=True, report=context.info)
    with ExitStack() as stack:

        @cache
        def spool_folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upsert-cli-preview-")))

        probed = open_inputs(
            found,
            limit=max(rows, PROBED_ROWS),
            spool_folder=spool_folder,
            stdin=stdin,
            most_spooled=max(STREAM_BYTES, (rows + 1) * MAX_ROW),
        )
        if (note := check_first_inputs(probed, options, model=model)) is not None:
            context.info(note)
        yield open_again(probed, limit=rows)


def _recipe(options: LoadOptions, model: Model | None, model_name: str, sources: Sequence[Source]) -> Recipe:
    if model is not None:
        return recipe_of(options, model)
    if options.split and embeds(model_name):  # the vectors of collections are not kept then
        raise UpsertCliError(
            message=f"--split needs the tokenizer of {model_name}, which is not on this machine; `upsert-cli models "
            f"fetch --model {model_name}` fetches it, --model-path takes a folder that holds it"
        )
    return recipe_without_model(model_name, options, sources)


class _Outcomes:
    """The outcomes of rows: documents, rejects and rows that a later one replaced."""

    def __init__(self, sources: Sequence[Source], recipe: Recipe) -> None:
        self._sources = sources
        self._recipe = recipe
        self._documents: dict[str, list[Document]] = {}
        self._others: list[Reject | ReplacedRow] = []
        self.ignored = NOTHING_IGNORED

    def read(self, options: LoadOptions) -> SourceUnreadable | None:
        """Read all rows, and return the error of a source that breaks off."""
        goes_on = False
        try:
            for batch in read_batches(options.rows(self._sources), recipe=self._recipe, pace=Pace(MAX_ROWS)):
                self._add(batch, goes_on=goes_on)
                goes_on = batch.goes_on
        except SourceUnreadable as error:
            return error
        return None

    def _add(self, batch: Batch, *, goes_on: bool) -> None:
        self._others += batch.rejects
        for reject in batch.rejects if goes_on else ():
            self._documents.pop(str(reject.object_id), None)
        self.ignored += batch.ignored
        for replaced in itertools.chain.from_iterable(batch.earlier.values()):
            self._replace(replaced)
        for object_id, found in itertools.groupby(batch.documents, key=lambda document: document.item.object_id):
            if goes_on:
                self._documents[object_id] += found
                continue
            self._replace(self._documents.get(object_id, ()))
            self._documents[object_id] = list(found)

    def _replace(self, documents: Sequence[Document]) -> None:
        for document in documents[:1]:
            item = document.item
            self._others.append(ReplacedRow(object_id=item.object_id, source=item.source, row=item.row))

    def in_order(self) -> list[Document | Reject | ReplacedRow]:
        """Return the outcomes in the order of their rows."""
        places = {source.name: place for place, source in enumerate(self._sources)}

        def place_of(outcome: Document | Reject | ReplacedRow) -> tuple[int, int]:
            row = outcome.item if isinstance(outcome, Document) else outcome
            return places[row.source], row.row

        return sorted([*itertools.chain.from_iterable(self._documents.values()), *self._others], key=place_of)


class _Finish:
    """Makes records of documents, as the store would be given them."""

    def __init__(self, model: Model | None, *, has_hash: bool) -> None:
        self._model = model
        self._has_hash = has_hash
        self._counter = None if model is None else load_token_counter(model)

    def record(self, document: Document) -> PreviewedRecord:
        """Return the record of a document."""
        metadata = as_stored(document.metadata)
        if not self._has_hash:
            metadata = {key: value for key, value in metadata.items() if key != HASH_KEY}
        is_embedded = document.vector is None and not document.is_average
        tokens = self._counter.count([document.text])[0] if self._counter is not None and is_embedded else None
        return PreviewedRecord(
            document=document,
            metadata=metadata,
            tokens=tokens,
            max_tokens=None if self._model is None else self._model.max_tokens,
        )

    def notes(self, model_name: str) -> Iterator[str]:
        """Yield a message for each thing that the records lack, and why."""
        if self._model is None and embeds(model_name):
            without = "tokens" if self._has_hash else f"tokens and {HASH_KEY}"
            yield (
                f"shown without {without}, since the tokenizer of {model_name} is not on this machine; `upsert-cli "
                f"models fetch --model {model_name}` fetches it"
            )
