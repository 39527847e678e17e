"""Item -> Document: the text to embed, flat metadata that Chroma stores unchanged, and a hash of both.

With a splitter an item becomes several documents, its chunks. Rows that Chroma would refuse, silently change or be
damaged by are rejected here, one by one, before any call is made.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from upsert_cli.documents.hashing import (
    AVERAGE_NUMBER,
    CHUNK_KEY,
    HASH_KEY,
    OBJECT_KEY,
    chunk_hash,
    chunk_id,
    chunk_name,
    copied_hash,
    record_hash,
)
from upsert_cli.documents.metadata import Value, metadata_of
from upsert_cli.documents.recipe import Recipe, read_payload
from upsert_cli.errors import ItemError, Refusal, Stage, UpsertCliError
from upsert_cli.packages import install_command, is_installed
from upsert_cli.sources.item import Item
from upsert_cli.sources.json_text import canonical

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 1 << 16  # characters that are split at once; some 60 ms with chunks of 254 tokens
MAX_CHUNK_METADATA = 64 << 10  # bytes as JSON of the metadata that every chunk of an item repeats
NUMBER_SIZE = 36  # bytes of a number in the list that it was read as, and as 32 bits


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

    converted: dict[str, str]
    """The metadata keys of values that had to be changed to fit, such as lists that became JSON text, and the kind that
    each had, such as `a list`."""

    vector: array[float] | None = None
    """The item's own, of 32-bit floats; None: the text is to be embedded."""

    number: int | None = None
    """Which chunk of its item it is, from 0; `AVERAGE_NUMBER` for the mean of all; None: it is the whole item."""

    is_last_chunk: bool = True
    """No chunk of its item follows; never true for the mean."""

    has_text: bool = True
    """Whether it is stored with a document; False for an item that brings its vector and has no text."""

    @property
    def is_average(self) -> bool:
        """Check that it is the mean of its item's chunks."""
        return self.number == AVERAGE_NUMBER

    @property
    def is_first_chunk(self) -> bool:
        """Check that it is the first of its item, the mean aside."""
        return not self.number

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        own = 0 if self.vector is None else NUMBER_SIZE * len(self.vector)
        return len(self.text) + size_of(self.metadata) + own


def size_of(value: object) -> int:
    """Return the characters of all strings in a value; the rest is small in comparison."""
    if type(value) is not dict:
        return len(value) if isinstance(value, str | bytes) else sum(map(size_of, value if type(value) is list else ()))
    size = 0
    for inner in value.values():
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
    payload, found, vector = read_payload(item, recipe)
    text = found or ""
    metadata, converted = metadata_of(payload, item, recipe)
    hashed, stored = None, item.stored
    if stored is not None and stored.vector is not None and stored.hash is not None:
        field = recipe.text_fields[0]
        hashed = copied_hash(stored.hash, text, metadata, field=field, identity=recipe.identity)
    if hashed is None:
        hashed = record_hash(text, metadata, field=recipe.text_fields[0], identity=recipe.identity, vector=vector)
    upsert_hash = metadata[HASH_KEY] = hashed
    has_text = found is not None
    return Document(item.object_id, text, metadata, upsert_hash, item, converted, vector, has_text=has_text)


def split_item(item: Item, recipe: Recipe, splitter: Splitter) -> tuple[Document | None, Iterator[Document]]:
    """Return the document of the mean of an item's chunks, if it is wanted, and its chunks one by one.

    An item that brings its own vector has one chunk.

    Raises:
        ItemError: As for `make_document`; also later, if a chunk cannot be made.
    """
    payload, found, vector = read_payload(item, recipe)
    text = found or ""
    metadata, converted = metadata_of(payload, item, recipe)
    converted |= {key: "replaced by that of the chunk" for key in (OBJECT_KEY, CHUNK_KEY) if key in metadata}
    texts = _with_last(iter([text]) if vector is not None else splitter.chunks(text))
    first, is_only = next(texts)
    if not is_only and (size := len(canonical(metadata))) > MAX_CHUNK_METADATA:
        detail = (
            f"the text has several chunks, and its metadata, which each of them repeats, has {size} bytes as JSON; "
            f"{MAX_CHUNK_METADATA} are allowed; --metadata-fields takes less"
        )
        raise ItemError(stage=Stage.SPLITTING, detail=detail)

    def document(number: int, chunk_text: str, mean_of: str | None, *, is_last: bool) -> Document:
        is_average = number == AVERAGE_NUMBER
        whole = metadata | {OBJECT_KEY: item.object_id, CHUNK_KEY: chunk_name(number)}
        upsert_hash = whole[HASH_KEY] = chunk_hash(
            chunk_text, whole, identity=recipe.identity, is_last=None if is_average else is_last, mean_of=mean_of
        )
        return Document(
            chunk_id(item.object_id, number),
            chunk_text,
            whole,
            upsert_hash,
            item,
            converted if number == 0 else {},
            None if is_average else vector,
            number,
            is_last_chunk=is_last,
            has_text=found is not None,
        )

    def chunks() -> Iterator[Document]:
        mean_of = None if vector is None else vector.tobytes().hex()
        for number, (chunk_text, is_last) in enumerate(itertools.chain([(first, is_only)], texts)):
            yield document(number, chunk_text, mean_of, is_last=is_last)

    if not recipe.average:
        return None, chunks()
    mean_of = canonical([text, splitter.max_tokens, splitter.overlap, None if vector is None else list(vector)])
    # Its document is the beginning of the text, by which a reader recognises the item.
    return document(AVERAGE_NUMBER, first, mean_of.decode(), is_last=False), chunks()


def _with_last(texts: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield each text, and whether it is the last; there is at least one."""
    known = next(texts)
    for following in texts:
        yield known, False
        known = following
    yield known, True


# -- splitting ----------------------------------------------------------------------------------------------------


def require_splitter() -> None:
    """Check that texts can be split.

    Raises:
        UpsertCliError: The package is not installed.
    """
    if not is_installed("semantic_text_splitter"):
        command = install_command("semantic-text-splitter>=0.25")
        raise UpsertCliError(message=f"--split needs a package that is not installed; `{command}`")


class Splitter:
    """Splits texts for one model: between paragraphs, else sentences, else words, measured in the model's own tokens.

    The chunks cover the text to the letter. A text is split piece by piece, so that one of any length costs little
    memory and delays nothing.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, overlap: int, prefix: str = "") -> None:
        """Prepare to split with a tokenizer that neither truncates nor pads.

        Args:
            tokenizer: The model's own.
            max_tokens: Tokens of a chunk, including those of the prefix and those that the model puts around each text.
            overlap: The most tokens that a chunk repeats of the previous one; fewer than `max_tokens`.
            prefix: Embedded before each chunk, and no part of it.

        Raises:
            Refusal: The prefix leaves no room for a chunk.
        """
        from semantic_text_splitter import TextSplitter

        self.max_tokens = max_tokens
        self.overlap = overlap
        self._tokenizer: Any = tokenizer
        self._prefix = prefix
        # Some tokenizers, such as that of e5, turn the space at the end of a prefix into a token of its own.
        taken = len(self._tokenizer.encode(prefix)) if prefix else tokenizer.num_special_tokens_to_add(is_pair=False)
        if prefix and taken >= max_tokens:
            raise Refusal(
                message=f"--max-tokens {max_tokens} leaves no room for text after the {taken} tokens of the prefix "
                f"{prefix!r}; raise it, or give a shorter --passage-prefix"
            )
        room = max(1, max_tokens - taken)
        self._splitter = TextSplitter.from_huggingface_tokenizer(
            tokenizer, room, overlap=min(overlap, room - 1), trim=False
        )

    def chunks(self, text: str) -> Iterator[str]:
        """Yield the chunks of a text in order.

        Raises:
            ItemError: A single character has more tokens than a chunk may have.
        """
        for start, end in self._spans(text):
            yield from self._fitting(text, start, end)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        begin = 0
        while begin < len(text):
            piece = text[begin : begin + PIECE]
            chunks = self._splitter.chunk_indices(piece)
            spans = [(begin + start, begin + start + len(chunk)) for start, chunk in chunks]
            if begin + len(piece) == len(text):
                yield from spans
                return
            # The piece ends in the middle of the text, so its last chunk is split again with the next piece.
            yield from spans[:-1] or spans
            begin = spans[-1][0] if len(spans) > 1 else spans[-1][1]

    def _fitting(self, text: str, start: int, end: int) -> Iterator[str]:
        """Yield one chunk, or its halves if it is too long: at a cut, a tokenizer may make more tokens."""
        chunk = text[start:end]
        if len(self._tokenizer.encode(self._prefix + chunk)) <= self.max_tokens:
            yield chunk
        elif len(chunk) == 1:
            detail = f"the character {chunk!a} alone has more than {self.max_tokens} tokens; raise --max-tokens"
            raise ItemError(stage=Stage.SPLITTING, detail=detail)
        else:
            middle = start + len(chunk) // 2
            yield from self._fitting(text, start, middle)
            yield from self._fitting(text, middle, end)
