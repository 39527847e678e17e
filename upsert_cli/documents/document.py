"""Item -> Document: the text that is embedded, flat metadata that Chroma takes as it is, and a hash of both.

With a splitter an item becomes several, its chunks.

Whatever Chroma would reject, change in silence or choke on for good is found here, row by row, before any call is made.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from upsert_cli.documents.chunking import Splitter
from upsert_cli.documents.chunks import AVERAGE_NUMBER, CHUNK_KEY, OBJECT_KEY, Chunk, chunk_id, chunk_name
from upsert_cli.documents.hashing import HASH_KEY, chunk_hash, record_hash
from upsert_cli.documents.metadata import MAX_KEYS, Value, flatten
from upsert_cli.documents.references import read_reference, reference_of
from upsert_cli.documents.scope import SCOPE_KEY
from upsert_cli.documents.text_fields import template_fields, text_by_template, text_of_fields, with_texts
from upsert_cli.documents.vectors import USUAL_FIELD, own_vector, without_vector
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import Item, field_at, without_field
from upsert_cli.sources.json_text import canonical

MAX_CHUNK_METADATA = 64 << 10  # bytes as JSON of what every chunk of an item repeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How documents are made of items; what it changes of a record shows in its hash, and nothing else does."""

    text_fields: tuple[str, ...] = ("text",)
    """Dotted paths in the payload; their texts are joined by line breaks."""

    template: str | None = None
    """Such as `title: {title}\\n{body}`; the text is made by it, whatever the text fields are."""

    metadata_fields: tuple[str, ...] | None = None
    """Dotted paths in the payload, of what becomes metadata; None: all of it."""

    vector_field: str | None = None
    """Dotted path in the payload, of the vector that an item may bring; None: `vector`, where that is a list."""

    keep_lists: bool = False
    """Lists of one scalar kind stay lists."""

    refs_root: Path | None = None
    """The folder below which the text of an item without one is read, from the file that its `item_info` names."""

    scope: str | None = None
    """Which loads the record belongs to, and so which of them may delete it; None: none."""

    identity: str
    """The model's identity and the options of embedding."""

    dimension: int = 0
    """Numbers of a vector; 0 where it is not known."""

    splitter: Splitter | None = None
    """Cuts the text of every item into chunks; None: an item is one document."""

    average: bool = False
    """Whether an item's chunks are followed by the mean of them."""

    @property
    def text_paths(self) -> tuple[str, ...]:
        """Return the dotted paths in the payload of all that the text is made of."""
        return self.text_fields if self.template is None else template_fields(self.template)


class Document(NamedTuple):
    """One record as it is going to be stored; a tuple, since there is one for every row."""

    id: str
    text: str

    metadata: dict[str, Value]
    """The payload, flat, `upsert_scope` where there is one, and `upsert_hash`."""

    upsert_hash: str
    """Two hashes in hex, `<text>.<metadata>`: what differs tells what has to be written."""

    item: Item

    converted: int
    """Values that had to be changed to fit, such as lists that became JSON text."""

    vector: array[float] | None = None
    """The item's own, of 32-bit floats; None: the text is to be embedded."""

    chunk: Chunk | None = None
    """Which chunk of its item it is; None: it is all of it."""

    @property
    def is_average(self) -> bool:
        """Tells whether it is the mean of its item's chunks."""
        return self.chunk is not None and self.chunk.number == AVERAGE_NUMBER

    @property
    def is_first_chunk(self) -> bool:
        """Tells whether it is the first of its item, but for the mean."""
        return self.chunk is None or self.chunk.number == 0

    @property
    def is_last_chunk(self) -> bool:
        """Tells whether it is the last of its item, but for the mean."""
        return self.chunk is None or self.chunk.is_last


def make_document(item: Item, recipe: Recipe) -> Document:
    """Makes the document of an item that is not split.

    Raises:
        ItemError: Its text is missing or blank, its vector is none, or its metadata is nothing that Chroma can hold.
    """
    payload, vector = _own_vector(item, recipe)
    payload = with_texts(payload, recipe.text_paths)
    text = _text(payload, item, recipe)
    metadata, converted = _metadata(payload, item, recipe)
    upsert_hash = metadata[HASH_KEY] = record_hash(
        text, metadata, field=recipe.text_fields[0], identity=recipe.identity, vector=vector
    )
    return Document(item.object_id, text, metadata, upsert_hash, item, converted, vector)


def split_item(item: Item, recipe: Recipe, splitter: Splitter) -> tuple[Document | None, Iterator[Document]]:
    """Returns the document of the mean of an item's chunks, if it is wanted, and its chunks one by one.

    An item that brings its own vector has one chunk.

    Raises:
        ItemError: As for `make_document`; also later, where a chunk cannot be made.
    """
    payload, vector = _own_vector(item, recipe)
    payload = with_texts(payload, recipe.text_paths)
    text = _text(payload, item, recipe)
    metadata, converted = _metadata(_without_text(payload, recipe), item, recipe)
    converted += sum(key in metadata for key in (OBJECT_KEY, CHUNK_KEY))  # the payload's own give way
    texts = _with_last(iter([text]) if vector is not None else splitter.chunks(text))
    first, is_last = next(texts)
    if not is_last and (size := len(canonical(metadata))) > MAX_CHUNK_METADATA:
        raise ItemError(stage=Stage.SPLITTING, detail=_too_much_metadata(size))

    def document(number: int, chunk: str, *, is_last: bool, mean_of: str | None = None) -> Document:
        own: dict[str, Value] = {OBJECT_KEY: item.object_id, CHUNK_KEY: chunk_name(number)}
        whole = metadata | own
        if vector is not None and mean_of is None:
            mean_of = vector.tobytes().hex()
        upsert_hash = whole[HASH_KEY] = chunk_hash(chunk, whole, identity=recipe.identity, mean_of=mean_of)
        name = chunk_id(item.object_id, number)
        changed = converted if number == 0 else 0
        return Document(name, chunk, whole, upsert_hash, item, changed, vector, Chunk(number, is_last))

    def chunks() -> Iterator[Document]:
        yield document(0, first, is_last=is_last)
        for number, (chunk, last) in enumerate(texts, start=1):
            yield document(number, chunk, is_last=last)

    if not recipe.average:
        return None, chunks()
    # Its document is what the text begins with, by which a reader knows it again.
    mean_of = canonical([text, splitter.max_tokens, splitter.overlap, None if vector is None else list(vector)])
    average = document(AVERAGE_NUMBER, first, is_last=False, mean_of=mean_of.decode())
    return average._replace(vector=None), chunks()


def _with_last(texts: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yields each text, and whether it is the last; there is at least one."""
    known = next(texts)
    for following in texts:
        yield known, False
        known = following
    yield known, True


def _too_much_metadata(size: int) -> str:
    return (
        f"the text has several chunks, and its metadata, which each of them repeats, has {size} bytes as JSON; "
        f"{MAX_CHUNK_METADATA} are allowed; --metadata-fields takes less"
    )


def _without_text(payload: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Returns a payload without what its chunks have as their documents, unless the user asks for that."""
    if recipe.metadata_fields is not None:
        return payload
    for path in recipe.text_paths:
        payload = without_field(payload, path)
    return payload


def _own_vector(item: Item, recipe: Recipe) -> tuple[dict[str, Any], array[float] | None]:
    """Returns the vector that an item brings, if any, and its payload without it."""
    payload = item.payload or {}
    if USUAL_FIELD in payload or recipe.vector_field is not None:
        vector = own_vector(payload, recipe.vector_field, dimension=recipe.dimension)
        if vector is not None:
            return without_vector(payload, recipe.vector_field), vector
    return payload, None


def _metadata(payload: dict[str, Any], item: Item, recipe: Recipe) -> tuple[dict[str, Value], int]:
    """Returns the flat metadata of an item, without a hash, and how many values had to be changed for it."""
    metadata: dict[str, Value] = {}
    if recipe.metadata_fields is None:
        converted = flatten(payload, metadata, keep_lists=recipe.keep_lists)
    else:
        converted = _flatten_chosen(payload, recipe.metadata_fields, metadata, keep_lists=recipe.keep_lists)
    if item.item_info:
        converted += flatten(item.item_info, metadata, prefix="item_info.", keep_lists=recipe.keep_lists)
    if recipe.scope is not None:
        metadata[SCOPE_KEY] = recipe.scope
    if len(metadata) >= MAX_KEYS:
        raise ItemError(stage=Stage.READING, detail=f"{len(metadata)} metadata keys, {MAX_KEYS - 1} are allowed")
    return metadata, converted


def _text(payload: dict[str, Any], item: Item, recipe: Recipe) -> str:
    if recipe.template is not None:
        return text_by_template(payload, recipe.template)
    if recipe.refs_root is not None and all(field_at(payload, name) is None for name in recipe.text_fields):
        reference = reference_of(item.item_info)
        if reference is not None:
            return read_reference(recipe.refs_root, reference)
    return text_of_fields(payload, recipe.text_fields)


def _flatten_chosen(
    payload: dict[str, Any], names: tuple[str, ...], into: dict[str, Value], *, keep_lists: bool
) -> int:
    converted = 0
    for name in names:
        if (value := field_at(payload, name)) is not None:
            # By itself, since one path may lead into what another one leads to.
            chosen: dict[str, Value] = {}
            converted += flatten({name: value}, chosen, keep_lists=keep_lists)
            into |= chosen
    return converted
