"""Item -> Document: the text to embed, flat metadata that Chroma stores unchanged, and a hash of both.

With a splitter an item becomes several documents, its chunks. Rows that Chroma would refuse, silently change or be
damaged by are rejected here, one by one, before any call is made.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from upsert_cli.documents.chunking import AVERAGE_NUMBER, CHUNK_KEY, OBJECT_KEY, Chunk, Splitter, chunk_id, chunk_name
from upsert_cli.documents.hashing import HASH_KEY, chunk_hash, copied_hash, record_hash
from upsert_cli.documents.metadata import MAX_KEYS, MAX_LIST, SCOPE_KEY, Value, flatten, shown
from upsert_cli.documents.payload import (
    VECTOR_FIELD,
    own_vector,
    template_fields,
    text_by_template,
    text_of_fields,
    text_of_record,
    with_texts,
)
from upsert_cli.documents.references import read_reference, reference_of
from upsert_cli.documents.stored_items import TEXT_FIELD
from upsert_cli.embedding.catalog import DEFAULT_MODEL, embeds
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import Item, field_at, without_field
from upsert_cli.sources.json_text import canonical, kind_of

MAX_CHUNK_METADATA = 64 << 10  # bytes as JSON of the metadata that every chunk of an item repeats
DEFAULT_TEXT_FIELDS = ("text",)
NUMBER_SIZE = 36  # bytes of a number in the list that it was read as, and as 32 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How documents are made of items; anything that it changes in a record changes the record's hash."""

    text_fields: tuple[str, ...] = DEFAULT_TEXT_FIELDS
    """Dotted paths in the payload; their texts are joined by line breaks."""

    template: str | None = None
    """Such as `title: {title}\\n{body}`; takes precedence over the text fields."""

    metadata_fields: tuple[str, ...] | None = None
    """Dotted paths in the payload of the fields that become metadata; None: all that do not make up the document."""

    vector_field: str | None = None
    """Dotted path in the payload of the vector that an item may bring; None: `vector`, where that is a list."""

    keep_lists: bool = False
    """Lists of one scalar kind stay lists."""

    refs_root: Path | None = None
    """The folder with the files that `item_info` may name for the text of an item without one."""

    scope: str | None = None
    """Which loads the record belongs to, and so which of them may delete it; None: none."""

    identity: str
    """The model's identity and the options of embedding."""

    model: str = DEFAULT_MODEL
    """Its name; with `none`, every item has to bring its vector, and may lack a text."""

    dimension: int = 0
    """Numbers of a vector; 0 if not known."""

    splitter: Splitter | None = None
    """Splits the text of every item into chunks; None: an item is one document."""

    average: bool = False
    """The mean of an item's chunks becomes a record too."""

    @property
    def embeds(self) -> bool:
        """Check that texts are embedded by a model."""
        return embeds(self.model)

    @property
    def text_paths(self) -> tuple[str, ...]:
        """Return the dotted paths in the payload that the text is made of."""
        return self.text_fields if self.template is None else template_fields(self.template)


class Document(NamedTuple):
    """One record as it will be stored; a tuple, since there is one for every row."""

    id: str
    text: str
    """May be empty for an item that brings its vector; see `has_text`."""

    metadata: dict[str, Value]
    """The flat payload, `upsert_scope` if there is one, and `upsert_hash`."""

    upsert_hash: str
    """Two hashes in hex, `<text>.<metadata>`; the one that differs decides how the record is written."""

    item: Item

    converted: Sequence[str]
    """The metadata keys of values that had to be changed to fit, such as lists that became JSON text."""

    vector: array[float] | None = None
    """The item's own, of 32-bit floats; None: the text is to be embedded."""

    chunk: Chunk | None = None
    """Which chunk of its item it is; None: it is the whole item."""

    has_text: bool = True
    """Whether it is stored with a document; False for an item that brings its vector and has no text."""

    @property
    def is_average(self) -> bool:
        """Check that it is the mean of its item's chunks."""
        return self.chunk is not None and self.chunk.number == AVERAGE_NUMBER

    @property
    def is_first_chunk(self) -> bool:
        """Check that it is the first of its item, the mean aside."""
        return self.chunk is None or self.chunk.number == 0

    @property
    def is_last_chunk(self) -> bool:
        """Check that it is the last of its item, the mean aside."""
        return self.chunk is None or self.chunk.is_last

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        own = 0 if self.vector is None else NUMBER_SIZE * len(self.vector)
        return len(self.text) + size_of(self.metadata) + own


def size_of(value: object) -> int:
    """Return the characters of all strings in a value; the rest is small in comparison."""
    if isinstance(value, str | bytes):
        return len(value)
    inners = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    size = 0
    for inner in inners:
        kind = type(inner)  # looked at here, since this runs for every value of every row
        if kind is str or kind is bytes:
            size += len(inner)
        elif kind is dict or kind is list:
            size += size_of(inner)
    return size


def make_document(item: Item, recipe: Recipe) -> Document:
    """Make the document of an item that is not split.

    Raises:
        ItemError: Its text is missing or blank, its vector is not usable, or Chroma cannot hold its metadata.
    """
    payload, text, vector = _read_payload(item, recipe)
    metadata, converted = _metadata(payload, item, recipe)
    hashed, stored = None, item.stored
    if stored is not None and stored.vector is not None and stored.hash is not None:
        field = recipe.text_fields[0]
        hashed = copied_hash(stored.hash, text, metadata, field=field, identity=recipe.identity)
    if hashed is None:
        hashed = record_hash(text, metadata, field=recipe.text_fields[0], identity=recipe.identity, vector=vector)
    upsert_hash = metadata[HASH_KEY] = hashed
    has_text = text != "" or _has_text(payload, item, recipe)
    return Document(item.object_id, text, metadata, upsert_hash, item, converted, vector, has_text=has_text)


def split_item(item: Item, recipe: Recipe, splitter: Splitter) -> tuple[Document | None, Iterator[Document]]:
    """Return the document of the mean of an item's chunks, if it is wanted, and its chunks one by one.

    An item that brings its own vector has one chunk.

    Raises:
        ItemError: As for `make_document`; also later, if a chunk cannot be made.
    """
    payload, text, vector = _read_payload(item, recipe)
    metadata, converted = _metadata(payload, item, recipe)
    converted += [key for key in (OBJECT_KEY, CHUNK_KEY) if key in metadata]  # ours replace the payload's own
    texts = _with_last(iter([text]) if vector is not None else splitter.chunks(text))
    first, is_only = next(texts)
    if not is_only and (size := len(canonical(metadata))) > MAX_CHUNK_METADATA:
        detail = (
            f"the text has several chunks, and its metadata, which each of them repeats, has {size} bytes as JSON; "
            f"{MAX_CHUNK_METADATA} are allowed; --metadata-fields takes less"
        )
        raise ItemError(stage=Stage.SPLITTING, detail=detail)

    has_text = text != "" or _has_text(payload, item, recipe)

    def document(chunk: Chunk, chunk_text: str, mean_of: str | None) -> Document:
        number = chunk.number
        whole = metadata | {OBJECT_KEY: item.object_id, CHUNK_KEY: chunk_name(number)}
        is_last = None if number == AVERAGE_NUMBER else chunk.is_last
        upsert_hash = whole[HASH_KEY] = chunk_hash(
            chunk_text, whole, identity=recipe.identity, is_last=is_last, mean_of=mean_of
        )
        own = None if number == AVERAGE_NUMBER else vector
        changed = converted if number == 0 else ()
        identifier = chunk_id(item.object_id, number)
        return Document(identifier, chunk_text, whole, upsert_hash, item, changed, own, chunk, has_text=has_text)

    def chunks() -> Iterator[Document]:
        mean_of = None if vector is None else vector.tobytes().hex()
        for number, (chunk_text, is_last) in enumerate(itertools.chain([(first, is_only)], texts)):
            yield document(Chunk(number, is_last), chunk_text, mean_of)

    if not recipe.average:
        return None, chunks()
    mean_of = canonical([text, splitter.max_tokens, splitter.overlap, None if vector is None else list(vector)])
    # Its document is the beginning of the text, by which a reader recognises the item.
    return document(Chunk(AVERAGE_NUMBER, is_last=False), first, mean_of.decode()), chunks()


def _with_last(texts: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield each text, and whether it is the last; there is at least one."""
    known = next(texts)
    for following in texts:
        yield known, False
        known = following
    yield known, True


def _read_payload(item: Item, recipe: Recipe) -> tuple[dict[str, Any], str, array[float] | None]:
    """Return the payload that may become metadata, the text of the item, and its own vector, if any."""
    payload = item.payload or {}
    if item.stored is not None:
        text = text_of_record(payload, item.stored, template=recipe.template, fields=recipe.text_fields)
        return payload, text, item.stored.vector
    vector = None
    if VECTOR_FIELD in payload or recipe.vector_field is not None:
        vector = own_vector(payload, recipe.vector_field, dimension=recipe.dimension, model=recipe.model)
        if vector is not None:
            payload = without_field(payload, recipe.vector_field or VECTOR_FIELD)
    if vector is None and not recipe.embeds:
        field = recipe.vector_field or VECTOR_FIELD
        value = field_at(payload, field)
        fault = "missing" if value is None or value == "" else f"{kind_of(value)}, not a vector"
        raise ItemError(detail=f"payload.{field} is {fault}, and with --model none nothing is embedded")
    payload = with_texts(payload, recipe.text_paths)
    return payload, _text(payload, item, recipe), vector


def _text(payload: dict[str, Any], item: Item, recipe: Recipe) -> str:
    if recipe.template is not None:
        return text_by_template(payload, recipe.template)
    if recipe.refs_root is not None and all(field_at(payload, name) is None for name in recipe.text_fields):
        reference = reference_of(item.item_info)
        if reference is not None:
            return read_reference(recipe.refs_root, reference)
    return text_of_fields(payload, recipe.text_fields, may_be_blank=not recipe.embeds)


def _has_text(payload: dict[str, Any], item: Item, recipe: Recipe) -> bool:
    """Tell whether an empty text was given, as opposed to none."""
    if item.stored is not None:
        return item.stored.document is not None
    return any(isinstance(field_at(payload, path), str) for path in recipe.text_paths)


def _metadata(payload: dict[str, Any], item: Item, recipe: Recipe) -> tuple[dict[str, Value], list[str]]:
    """Return the flat metadata of an item, without a hash, and the keys of the values that were changed for it."""
    metadata: dict[str, Value] = {}
    converted: list[str] = []
    stored = item.stored
    keep_lists = recipe.keep_lists or stored is not None
    if recipe.metadata_fields is None:
        converted = flatten(_without_text(payload, item, recipe), metadata, keep_lists=keep_lists)
    for name in recipe.metadata_fields or ():
        if (value := field_at(payload, name)) is not None:
            # Separately, since one path may lead into the value of another.
            chosen: dict[str, Value] = {}
            converted += flatten({name: value}, chosen, keep_lists=keep_lists)
            metadata |= chosen
    if stored is not None and converted:
        raise ItemError(detail=f"its list {shown(converted[0])} would become text; a load keeps {MAX_LIST:,} values")
    if item.item_info:
        converted += flatten(item.item_info, metadata, prefix="item_info.", keep_lists=recipe.keep_lists)
    if recipe.scope is not None:
        metadata[SCOPE_KEY] = recipe.scope
    if len(metadata) >= MAX_KEYS:
        raise ItemError(detail=f"{len(metadata)} metadata keys, {MAX_KEYS - 1} are allowed")
    return metadata, converted


def _without_text(payload: dict[str, Any], item: Item, recipe: Recipe) -> dict[str, Any]:
    """Return a payload without the fields that make up the document, since a record holds that already."""
    if item.stored is not None:  # its metadata is kept whole
        return payload if item.stored.has_own_text else without_field(payload, TEXT_FIELD)
    for path in dict.fromkeys(recipe.text_paths):  # the second time, another field may answer to it
        payload = without_field(payload, path)
    return payload
