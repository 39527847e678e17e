"""The first records of a load, made in the same way as by the load; nothing is compared, embedded or stored."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.counts import NOTHING_IGNORED, IgnoredFields
from upsert_cli.documents.document import Document, make_document, require_splitter, split_item
from upsert_cli.documents.hashing import HASH_KEY, as_stored
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.catalog import embeds
from upsert_cli.embedding.fastembed import load_token_counter
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import identity_if_known, model_without_weights, prefixes_of
from upsert_cli.errors import ItemError, SourceUnreadable, UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.load.inputs import check_first_inputs, find_inputs, open_inputs, spooled
from upsert_cli.load.resources import recipe_of, recipe_without_model
from upsert_cli.pipeline.preflight import PROBED_ROWS
from upsert_cli.sources.item import MAX_ROW, Item, Reject
from upsert_cli.sources.rows import Rows
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
        found = _Outcomes(options.rows(sources), _recipe(options, model, model_name, sources))
    if (ignored := found.ignored.warning()) is not None:
        context.warning(ignored)
    has_hash = (model or identity_if_known(model_name, options.prefixes)) is not None
    notes = [_lacks(model_name, has_hash=has_hash)] if model is None and embeds(model_name) else []
    record_of = _finisher(model, has_hash=has_hash)
    entries = [record_of(each) if isinstance(each, Document) else each for each in found]
    return Preview(entries=entries, notes=notes, broken=found.broken)


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

        limit, most = max(rows, PROBED_ROWS), max(STREAM_BYTES, (rows + 1) * MAX_ROW)
        probed = open_inputs(spooled(found, spool_folder, stdin=stdin, limit=limit, most=most), limit=limit)
        if (note := check_first_inputs(probed, options, model=model)) is not None:
            context.info(note)
        yield open_inputs(probed, limit=rows)


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
    """The outcomes of rows, in their order: documents, rejects, and rows that a later one replaced."""

    def __init__(self, rows: Rows, recipe: Recipe) -> None:
        """Read all rows."""
        self.ignored = NOTHING_IGNORED
        self.broken: SourceUnreadable | None = None
        """The error of a source that breaks off."""

        self._rows: list[Sequence[Document | Reject | ReplacedRow]] = []
        self._last: dict[str, tuple[int, Item]] = {}  # by id, the last loadable row, and its index in `_rows`
        try:
            for row, _ in rows:
                self._add(row, recipe)
        except SourceUnreadable as error:
            self.broken = error

    def _add(self, row: Item | Reject, recipe: Recipe) -> None:
        if isinstance(row, Reject):
            self._rows.append([row])
            return
        self.ignored += IgnoredFields.of(row.ignored)
        try:
            documents = _documents(row, recipe)
        except ItemError as error:
            self._rows.append([Reject.of(row, stage=error.stage, detail=error.detail)])
            return
        if (last := self._last.get(row.object_id)) is not None:
            place, before = last
            self._rows[place] = [ReplacedRow(object_id=before.object_id, source=before.source, row=before.row)]
        self._last[row.object_id] = len(self._rows), row
        self._rows.append(documents)

    def __iter__(self) -> Iterator[Document | Reject | ReplacedRow]:
        return itertools.chain.from_iterable(self._rows)


def _documents(item: Item, recipe: Recipe) -> list[Document]:
    """Make the documents of an item: itself, or the mean of its chunks, if it is wanted, and all of them."""
    if recipe.splitter is None:
        return [make_document(item, recipe)]
    average, chunks = split_item(item, recipe, recipe.splitter)
    return [*chunks] if average is None else [average, *chunks]


def _finisher(model: Model | None, *, has_hash: bool) -> Callable[[Document], PreviewedRecord]:
    """Return the function that makes a record of a document, as the store would be given it."""
    counter = None if model is None else load_token_counter(model)

    def record(document: Document) -> PreviewedRecord:
        metadata = as_stored(document.metadata)
        is_embedded = document.vector is None and not document.is_average
        return PreviewedRecord(
            document=document,
            metadata={key: value for key, value in metadata.items() if has_hash or key != HASH_KEY},
            tokens=counter.count([document.text])[0] if counter is not None and is_embedded else None,
            max_tokens=None if model is None else model.max_tokens,
        )

    return record


def _lacks(model_name: str, *, has_hash: bool) -> str:
    """Return the message about the tokens, and perhaps the hash, that the records lack without a tokenizer."""
    without = "tokens" if has_hash else f"tokens and {HASH_KEY}"
    return (
        f"shown without {without}, since the tokenizer of {model_name} is not on this machine; `upsert-cli "
        f"models fetch --model {model_name}` fetches it"
    )
