"""Splitting a text into chunks that the model reads whole, and how a chunk's record is identified.

Chunk 0 of the item `a` is the record `a#0`, the mean of its chunks `a#average`. With `--split` every item becomes
chunks, a short one just chunk 0, so an item whose own id is `a#0` is never mistaken: its chunk 0 is `a#0#0`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from upsert_cli.documents.hashing import is_chunk
from upsert_cli.errors import ItemError, Refusal, Stage, UpsertCliError
from upsert_cli.packages import install_command, is_installed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEPARATOR = "#"
AVERAGE = "average"
AVERAGE_NUMBER = -1  # stands for the mean of all chunks, which are numbered from 0
OBJECT_KEY, CHUNK_KEY = "object_id", "part"  # of a chunk's metadata
PIECE = 1 << 16  # characters that are split at once; some 60 ms with chunks of 254 tokens


def chunk_id(object_id: str, number: int) -> str:
    """Return the id of a chunk's record."""
    return f"{object_id}{SEPARATOR}{chunk_name(number)}"


def chunk_name(number: int) -> int | str:
    """Return the value of a chunk's metadata key `part`."""
    return AVERAGE if number == AVERAGE_NUMBER else number


def owner_of(identifier: str, upsert_hash: object) -> tuple[str, int] | None:
    """Return the item and the number of a chunk, from the id and the hash of its record; None for other records."""
    if not is_chunk(upsert_hash):
        return None
    object_id, separator, name = identifier.rpartition(SEPARATOR)
    if name == AVERAGE and separator:
        return object_id, AVERAGE_NUMBER
    return (object_id, int(name)) if separator and name.isascii() and name.isdecimal() else None


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
