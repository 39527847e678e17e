"""Exports of a collection to a file of items that is written whole or not at all, without a lock on the collection."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from upsert_cli.atomic import writing_out
from upsert_cli.context import RunContext
from upsert_cli.documents.hashing import is_chunk
from upsert_cli.documents.stored_items import ItemForm
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL, embeds, known_prefixes
from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.errors import SOME_REJECTED, ItemError, UpsertCliError, reason_of
from upsert_cli.sources.formats import STDOUT
from upsert_cli.sources.item import Item, Row, WrittenItem
from upsert_cli.sources.readers import item_writer
from upsert_cli.store.address import require_collection_name
from upsert_cli.store.collection_source import StoredCollection
from upsert_cli.store.locate import no_collection

BLOCK_ROWS = 10_000  # items written at once; a row group of Parquet
BLOCK_BYTES = 4 << 20  # bytes written at once; with 16 MiB the process grew to 300 MB, and was no faster
CHECKED_ROWS = 100  # records between two checks of the context
EXAMPLES = 10  # refused records in a report


def _write_items(items: Iterable[WrittenItem], file: Path, *, format_name: str) -> None:
    """Write items to a file, which keeps its content until the new one is complete.

    Args:
        items: The items.
        file: The file, or `-` for standard output.
        format_name: One of `WRITTEN_FORMATS`.

    Raises:
        UpsertCliError: The file cannot be written.
    """
    with _opened(file) as raw, item_writer(raw, format_name) as write:
        for block in _blocks(items):
            write(block)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == STDOUT:
        yield sys.stdout.buffer  # the command line reports its faults
        sys.stdout.buffer.flush()  # or a full disk would show only after the end, without an error
        return
    try:
        with writing_out(file) as raw:
            yield raw
    except OSError as error:
        raise UpsertCliError(
            message=f"{file} cannot be written ({reason_of(error)}), and is as it was before; make room or "
            f"access, or name another file"
        ) from error


def _blocks(items: Iterable[WrittenItem]) -> Iterator[list[WrittenItem]]:
    block: list[WrittenItem] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item.payload)
        if len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


@dataclass(slots=True, kw_only=True)
class Export:
    """The result of an export."""

    collection: StoredCollection
    file: Path
    format: str
    form: ItemForm
    model: ModelIdentity | None
    """The model that the collection names, or None."""

    records: int = 0
    """Records that were written."""

    lists: int = 0
    """Written records with a list in their metadata."""

    blank: int = 0
    """Written records whose document is blank or missing."""

    chunks: int = 0
    """Written chunks that could not be joined to their items."""

    refused: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    """The first refused records by id, each with one line of reason."""

    has_changed: bool = False
    """Whether the collection changed during the export."""

    @property
    def exit_code(self) -> int:
        """3 if records were refused, otherwise 0."""
        return SOME_REJECTED if self.refused else 0

    def load_command(self) -> str:
        """Return the command that loads the file; the user adds the options of `lacks`."""
        options = [*self.form.load_options(), *self._model_options(), *(["--keep-lists"] if self.lists else [])]
        return shlex.join(["upsert-cli", "run", str(self.file), *options])

    def _model_options(self) -> list[str]:
        """Return the options for a load with the model of the collection and its prefixes."""
        model, with_vectors = self.model, self.form.with_vectors
        if model is None or not embeds(model.name) or (with_vectors and self.blank):
            return ["--model", NO_MODEL] if with_vectors else []
        options = ["--model", model.name] if with_vectors or model.name != DEFAULT_MODEL else []
        # A model without known prefixes may take others from the files of its folder.
        if model.prefixes != known_prefixes(model.name):
            options += ["--passage-prefix", model.prefixes.passage, "--query-prefix", model.prefixes.query]
        return options

    @property
    def lacks(self) -> tuple[str, ...]:
        """The options that the user adds to `load_command`; only a model outside fastembed's list needs a folder."""
        needs_folder = self.model is not None and bool(self.model.pooling)
        return (*(["--model-path"] if needs_folder else []), "--collection", "--chroma")

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "collection": self.collection.collection,
            "chroma": self.collection.chroma,
            "file": str(self.file),
            "format": self.format,
            "vectors": self.form.with_vectors,
            "records": self.records,
            "refused": {
                "count": self.refused,
                "first": [{"id": one, "detail": detail} for one, detail in self.examples.items()],
            },
            "changed": self.has_changed,
        }


def export(
    chroma: str,
    name: str,
    file: Path,
    *,
    format_name: str,
    form: ItemForm,
    where: dict[str, Any] | None,
    limit: int | None,
    context: RunContext,
) -> Export:
    """Write the records of a collection to a file, which keeps its content until the new one is complete.

    Args:
        chroma: The target.
        name: The name of the collection.
        file: The file, or `-` for standard output.
        format_name: One of `WRITTEN_FORMATS`.
        form: The form of the items.
        where: Chroma's filter on the metadata; None or empty for all records.
        limit: The most records to read; None for all of them.
        context: Shows the progress, and is checked between records.

    Raises:
        UsageFault: Chroma accepts no collection of that name.
        UpsertCliError: The collection does not exist, or the file cannot be written.
        Refusal: The records do not fit the form; nothing was written.
    """
    require_collection_name(name)
    collection = StoredCollection(
        chroma=chroma,
        collection=name,
        target=chroma,
        where=where or None,
        with_vectors=form.with_vectors,
        joins_chunks=not form.with_vectors,
    )
    location = collection.location()
    if (info := location.describe()) is None:
        raise no_collection(chroma, name, known=[info.name for info, _ in location.list_collections()])
    before = collection.state()
    result = Export(collection=collection, file=file, format=format_name, form=form, model=info.model)
    total = collection.count()
    context.progress.total = min(total, limit) if total is not None and limit is not None else total
    context.progress.stage = "loading"
    items = _written(_items(collection, limit), result, context)
    _write_items(items, file, format_name=format_name)
    result.has_changed = collection.state() != before
    return result


def _items(collection: StoredCollection, limit: int | None) -> Iterator[Item]:
    # Closed at the limit, so that the reading process stops.
    with closing(cast("Generator[Row, None, None]", collection.read(row=0, offset=0))) as rows:
        for row in islice(rows, limit):
            assert isinstance(row.value, Item)  # noqa: S101  # as of every row of a collection
            yield row.value


def _written(items: Iterator[Item], result: Export, context: RunContext) -> Iterator[WrittenItem]:
    """Yield the items in the form of the export, and count them and the refused ones in its result."""
    for item in items:
        try:
            written = result.form.written(item)
        except ItemError as error:
            result.refused += 1
            if len(result.examples) < EXAMPLES:
                result.examples[item.object_id] = error.detail
        else:
            result.records += 1
            result.lists += any(type(value) is list for value in (item.payload or {}).values())
            if item.stored is not None:
                result.blank += not (item.stored.document or "").strip()
                result.chunks += result.collection.joins_chunks and is_chunk(item.stored.hash)
            yield written
        context.progress.committed += 1
        if not context.progress.committed % CHECKED_ROWS:
            context.check()
