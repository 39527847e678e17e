"""A text -> chunks that the model reads whole: cut between paragraphs, else sentences, else words, by its own tokens.

The chunks cover the text to the letter. A text is cut piece by piece, so that one of any length costs little memory and
holds nothing up.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import ItemError, Stage, UpsertCliError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PIECE = 1 << 16  # characters that are cut at once; some 60 ms with chunks of 254 tokens


def require_splitter() -> None:
    """Makes sure that texts can be split.

    Raises:
        UpsertCliError: The package is not installed.
    """
    if importlib.util.find_spec("semantic_text_splitter") is None:
        raise UpsertCliError(
            message="--split needs a package that is not installed; `pip install 'upsert-cli[split]'` installs it"
        )


class Splitter:
    """Cuts texts for one model."""

    def __init__(self, tokenizer: Tokenizer, *, max_tokens: int, overlap: int) -> None:
        """Takes a tokenizer that neither cuts nor pads.

        Args:
            tokenizer: The model's own.
            max_tokens: Tokens of a chunk, those included that the model puts around each text.
            overlap: Tokens that a chunk repeats of the one before, at most; fewer than `max_tokens`.
        """
        self.max_tokens = max_tokens
        self.overlap = overlap
        self._tokenizer: Any = tokenizer
        self._around = tokenizer.num_special_tokens_to_add(is_pair=False)
        self._cutter = self._make_cutter()

    def _make_cutter(self) -> Any:
        from semantic_text_splitter import TextSplitter

        room = max(1, self.max_tokens - self._around)
        overlap = min(self.overlap, room - 1)
        return TextSplitter.from_huggingface_tokenizer(self._tokenizer, room, overlap=overlap, trim=False)

    def chunks(self, text: str) -> Iterator[str]:
        """Yields the chunks of a text, in their order.

        Raises:
            ItemError: A single character has more tokens than a chunk may have.
        """
        for start, end in self._spans(text):
            yield from self._fitting(text, start, end)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        begin = 0
        while begin < len(text):
            piece = text[begin : begin + PIECE]
            spans = [(begin + start, begin + start + len(chunk)) for start, chunk in self._cutter.chunk_indices(piece)]
            if begin + len(piece) == len(text):
                yield from spans
                return
            # The end of the piece is no end in the text: its last chunk is cut again, as the first of the next piece.
            yield from spans[:-1] or spans
            begin = spans[-1][0] if len(spans) > 1 else spans[-1][1]

    def _fitting(self, text: str, start: int, end: int) -> Iterator[str]:
        """Yields one chunk, or its halves where it is too long after all: a tokenizer may join what was cut apart."""
        chunk = text[start:end]
        if len(self._tokenizer.encode(chunk)) <= self.max_tokens:
            yield chunk
        elif len(chunk) == 1:
            detail = f"the character {chunk!a} alone has more than {self.max_tokens} tokens; raise --max-tokens"
            raise ItemError(stage=Stage.SPLITTING, detail=detail)
        else:
            middle = start + len(chunk) // 2
            yield from self._fitting(text, start, middle)
            yield from self._fitting(text, middle, end)
