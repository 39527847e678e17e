"""Long texts as chunks that the model reads whole, measured in its own tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import ItemError, Refusal, Stage, UpsertCliError
from upsert_cli.packages import install_command, is_installed

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 1 << 16  # characters that are split at once; some 60 ms with chunks of 254 tokens


def require_splitter() -> None:
    """Check that texts can be split.

    Raises:
        UpsertCliError: The package is not installed.
    """
    if not is_installed("semantic_text_splitter"):
        command = install_command("semantic-text-splitter>=0.25")
        raise UpsertCliError(message=f"--split needs a package that is not installed; `{command}`")


class Splitter:
    """A splitter of texts for one model: between paragraphs, else sentences, else words.

    The chunks cover the text to the letter. A text is split in pieces, so a long text needs little memory, and its
    first chunks are ready soon.
    """

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, overlap: int, prefix: str = "") -> None:
        """Prepare to split with a tokenizer that neither truncates nor pads.

        Args:
            tokenizer: The model's own.
            max_tokens: The most tokens of a chunk, with the prefix and the special tokens of the model.
            overlap: The most tokens that a chunk repeats of the previous chunk; fewer than `max_tokens`.
            prefix: Embedded before each chunk, but no part of it.

        Raises:
            Refusal: The prefix leaves no room for a chunk.
        """
        from semantic_text_splitter import TextSplitter

        self.max_tokens = max_tokens
        self.overlap = overlap
        self._tokenizer: Any = tokenizer
        self._prefix = prefix
        # Some tokenizers, such as e5's, turn the space at the end of a prefix into another token.
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
        """Yield the start and the end of each chunk, as far as the tokens of a piece alone decide it."""
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
        """Yield a chunk, or its halves if it is too long: a cut may change the tokens around it."""
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
