"""A collection -> a file of items, page by page, whole or not at all.

Nothing is locked, so this works during a load.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from upsert_cli.atomic import writing_out
from upsert_cli.context import RunContext
from upsert_cli.documents.exported_items import ItemForm
from upsert_cli.documents.hashing import is_chunk
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL, embeds, known_prefixes
from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.errors import SOME_REJECTED, ItemError, UpsertCliError, reason_of
from upsert_cli.limits import require_resources
from upsert_cli.sources.item import Item, Row, WrittenItem
from upsert_cli.sources.readers import item_writer
from upsert_cli.store.address import require_collection_name
from upsert_cli.store.collection_source import StoredCollection
from upsert_cli.verify.collections import no_collection

BLOCK_ROWS = 10_000  # records written at once; a row group of Parquet
BLOCK_BYTES = 4 << 20  # bytes written at once; with 16 MiB the process grew to 300 MB, and was no faster
CHECKED_ROWS = 100  # records between two looks at the context
EXAMPLES = 10  # refused records in a report
STANDARD_OUTPUT = Path("-")


@dataclass(slots=True, kw_only=True)
class Export:
    """The result of an export."""

    collection: StoredCollection
    file: Path
    format: str
    form: ItemForm
    model: str | None
    """The name of the model that the collection names."""

    made_by: ModelIdentity | None
    """That model, if the collection is of this tool."""

    records: int = 0
    """Records that were written."""

    lists: int = 0
    """Written records with a list in their metadata."""

    blank: int = 0
    """Written records without a document, or with a blank one."""

    chunks: int = 0
    """Written chunks that could not be joined to their items."""

    refused: int = 0
    examples: dict[str, str] = field(default_factory=dict)
    """The first refused records, by id, with one line of reason."""

    has_changed: bool = False
    """The collection has changed while it was read."""

    @property
    def exit_code(self) -> int:
        """0, or 3 if records were refused."""
        return SOME_REJECTED if self.refused else 0

    def load_command(self) -> str:
        """Return the command that loads the file, without the collection that it is for."""
        lists = ["--keep-lists"] if self.lists else []
        words = ["run", str(self.file), *self.form.load_options(), *self._model_options(), *lists]
        return shlex.join(["upsert-cli", *words])

    def _model_options(self) -> list[str]:
        """Return the options by which a load takes the model of the collection, with its prefixes."""
        name = NO_MODEL if self.form.with_vectors and self.blank else self.model or NO_MODEL
        if not embeds(name):
            return ["--model", NO_MODEL] if self.form.with_vectors else []
        options = ["--model", name] if self.form.with_vectors or name != DEFAULT_MODEL else []
        made_by = self.made_by
        # The folder of a model without known prefixes may ask for any.
        if made_by is not None and made_by.prefixes != known_prefixes(name):
            passage, query = made_by.prefixes
            options += ["--passage-prefix", passage, "--query-prefix", query]
        return options

    @property
    def lacks(self) -> tuple[str, ...]:
        """The options that the command lacks: a model that fastembed does not list needs the folder of its files."""
        is_custom = self.made_by is not None and bool(self.made_by.pooling)
        return (*(["--model-path"] if is_custom else []), "--collection", "--chroma")

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
        form: Where documents and vectors stand in the items.
        where: Chroma's filter on the metadata; None or empty for all records.
        limit: The most records to read; None for all of them.
        context: Checked between records, and shows the progress.

    Raises:
        UsageFault: No collection could have that name.
        UpsertCliError: There is no such collection, the file cannot be written, or a resource is lacking.
        Refusal: The records do not fit the form; nothing was written.
    """
    require_resources()
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
        known = [one.name for one, _ in location.list_collections()]
        raise no_collection(collection.chroma, collection.collection, known=known)
    before = collection.state()
    result = Export(
        collection=collection, file=file, format=format_name, form=form, model=info.named_model, made_by=info.stamp
    )
    total = collection.count()
    context.progress.total = min(total, limit) if total is not None and limit is not None else total
    context.progress.stage = "loading"
    items = _items(collection, limit)
    with _opened(file) as raw, item_writer(raw, format_name) as write:
        for block in _blocks(_written(items, result, context)):
            write(block)
    result.has_changed = collection.state() != before
    return result


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """Open the file to write, or standard output, whose faults belong to the command line."""
    if file == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        return
    try:
        with writing_out(file) as raw:
            yield raw
    except OSError as error:
        raise UpsertCliError(
            message=f"{file} cannot be written ({reason_of(error)}), and is as it was before; make room or "
            f"access, or name another file"
        ) from error


def _items(collection: StoredCollection, limit: int | None) -> Iterator[Item]:
    # With a limit, the process that reads has to be told that no more is wanted.
    with closing(cast("Generator[Row, None, None]", collection.read(row=0, offset=0))) as rows:
        for row in islice(rows, limit):
            assert isinstance(row.value, Item)  # noqa: S101  # so does every row of a collection
            yield row.value


def _written(items: Iterator[Item], result: Export, context: RunContext) -> Iterator[WrittenItem]:
    """Yield the items to write, and count them."""
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


def _blocks(items: Iterator[WrittenItem]) -> Iterator[list[WrittenItem]]:
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
