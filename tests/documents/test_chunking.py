"""Splitting: chunks cover the text to the letter, and the model reads each of them whole."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
import semantic_text_splitter
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from tests.support.reading import fuzz
from tests.support.terminal import SAMPLES
from upsert_cli.documents import document as documents
from upsert_cli.documents.document import Document, split_item
from upsert_cli.documents.hashing import as_stored, is_chunk, is_same, owner_of, stored_fault
from upsert_cli.documents.recipe import Recipe
from upsert_cli.documents.splitter import PIECE, Splitter
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.fastembed import load_tokenizer
from upsert_cli.embedding.models import find_model
from upsert_cli.errors import ItemError, Refusal, Stage
from upsert_cli.sources.item import Item

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400) | st.text(
    st.sampled_from("ab. \n\t\r\u3042\u65e5\u0301\u200d\U0001f468\U0001f469#[]"), min_size=1, max_size=400
)


@lru_cache
def _tokenizer() -> Any:
    return load_tokenizer(find_model(DEFAULT_MODEL))


def _splitter(max_tokens: int = 256, overlap: int = 0, prefix: str = "") -> Splitter:
    return Splitter(_tokenizer(), max_tokens=max_tokens, overlap=overlap, prefix=prefix)


def _articles() -> str:
    lines = (SAMPLES / "articles.jsonl").read_text().splitlines()
    return "\n\n".join(json.loads(line)["payload"]["text"] for line in lines)


def _chunks(payload: dict[str, Any], object_id: str = "a", **recipe: Any) -> list[Document]:
    made = Recipe(identity="m", splitter=recipe.pop("splitter", _splitter(16)), **recipe)
    average, chunks = split_item(Item(object_id, payload, {"origin": "x"}, "a.jsonl", 1), made, made.splitter)  # type: ignore[arg-type]
    return [*chunks, *([average] if average else [])]


@fuzz(few=30, text=TEXTS, max_tokens=st.integers(8, 40))
def test_chunks_cover_the_text_and_none_is_too_long(text: str, max_tokens: int) -> None:
    """Joined, the chunks equal the text, whatever its characters, and each fits by the model's own tokenizer."""
    chunks = list(_splitter(max_tokens).chunks(text))
    assert "".join(chunks) == text
    assert all(chunks)
    assert max(len(_tokenizer().encode(chunk)) for chunk in chunks) <= max_tokens


@fuzz(few=15, text=TEXTS, max_tokens=st.integers(8, 40))
def test_chunks_leave_room_for_a_prefix(text: str, max_tokens: int) -> None:
    """The chunks cover the text, and each fits after the prefix, which is no part of it."""
    prefix = "search_document: "
    chunks = list(_splitter(max_tokens, prefix=prefix).chunks(text))
    assert "".join(chunks) == text
    assert max(len(_tokenizer().encode(prefix + chunk)) for chunk in chunks) <= max_tokens


def test_a_prefix_may_not_fill_a_chunk() -> None:
    """The refusal names both options that help."""
    with pytest.raises(Refusal, match=r"--max-tokens 8 leaves no room .*'a b c d e f g ';.* --passage-prefix"):
        _splitter(8, prefix="a b c d e f g ")


@pytest.mark.parametrize("max_tokens", [16, 256])
def test_a_long_text_is_split_piece_by_piece(max_tokens: int) -> None:
    """A text of several pieces is covered to the letter too, and no chunk ends just because a piece does."""
    text = _articles()[: 2 * PIECE - 100]
    chunks = list(_splitter(max_tokens).chunks(text))
    assert "".join(chunks) == text
    lengths = [len(_tokenizer().encode(chunk)) for chunk in chunks]
    assert max(lengths) <= max_tokens
    assert sum(lengths) / len(lengths) > 0.4 * max_tokens


def test_overlapping_chunks() -> None:
    """With an overlap, chunks repeat whole sentences of the previous one where they fit, and still cover the text."""
    text = _articles()[:20_000]
    chunks = list(_splitter(64, overlap=16).chunks(text))
    whole = chunks[0]
    repeated = 0
    for chunk in chunks[1:]:
        size = next(size for size in range(len(chunk), -1, -1) if whole.endswith(chunk[:size]))
        repeated += size > 0
        whole += chunk[size:]
    assert whole == text
    assert repeated > len(chunks) / 4
    assert max(len(_tokenizer().encode(chunk)) for chunk in chunks) <= 64


def test_a_character_with_too_many_tokens_is_rejected() -> None:
    """A text that cannot be split any further is rejected with the option that helps."""
    splitter = _splitter(16)
    splitter.max_tokens = 2
    with pytest.raises(ItemError, match="--max-tokens") as caught:
        list(splitter.chunks("a b"))
    assert caught.value.stage is Stage.SPLITTING


def test_a_chunk_is_stored_with_its_item_and_number() -> None:
    """Chunks have the payload without its text; a payload's own `object_id` or `part` is replaced, and counted."""
    documents = _chunks({"text": "One sentence is here. " * 12, "title": "t", "part": "own"}, average=True)
    *chunks, average = documents
    assert [one.id for one in chunks] == [f"a#{number}" for number in range(len(chunks))]
    assert len(chunks) > 3
    assert [owner_of(one.id, one.upsert_hash) for one in documents] == [
        *(("a", n) for n in range(len(chunks))),
        ("a", -1),
    ]
    others = ("a", "a#", "a#b", "1", "average", f"a#{'9' * 5_000}")
    assert [owner_of(other, average.upsert_hash) for other in others] == [None] * len(others)
    for number, one in enumerate(chunks):
        own = {"object_id": "a", "part": number, "title": "t", "item_info.origin": "x"}
        assert {key: value for key, value in one.metadata.items() if key != "upsert_hash"} == own
    assert (average.id, average.text, average.metadata["part"]) == ("a#average", chunks[0].text, "average")
    assert [list(one.converted) for one in documents] == [["part"]] + [[]] * len(chunks)
    assert [one.is_last_chunk for one in documents] == [False] * (len(chunks) - 1) + [True, False]
    for one in documents:
        assert is_chunk(one.upsert_hash)
        assert stored_fault(one.text, one.metadata, "m") is None
        assert stored_fault(one.text + "x", one.metadata, "m") is not None
        assert stored_fault(one.text, one.metadata | {"title": "u"}, "m") is not None


STORED = {
    "a#0": "718f252a90cc8690e156c4d40e6bd4e6.e7b34798f372e8ab1499097de9bd2903~a>#",
    "a#1": "718f252a90cc8690e156c4d40e6bd4e6.4b2edba4791333c0f416aa937f19f1a9~a>#",
    "a#2": "718f252a90cc8690e156c4d40e6bd4e6.1b6952fd777ca19970d0e1f7780a6f8c~a$#",
    "a#average": "718f252a90cc8690e156c4d40e6bd4e6+062a2b090353ef6b5ae7d8208fc8711d.fded6866217cf8554af30403890b9200~a#",
}
STORED_WITH_OWN_VECTOR = {
    "a#0": "a555da14af643866858e4d30c6f95cfa+4894c85a271925cd452dde658e597da5.754c57c2793072a3b13f00df758ff2b4~a$#",
    "a#average": "a555da14af643866858e4d30c6f95cfa+22b15767b3596f9c6d68318fc226beff.c065205da3020d85334d8acb35cd4960~a#",
}


def test_stored_ids_and_hashes_of_chunks_never_change() -> None:
    """A new version makes the same ids and hashes, also for averages."""
    payload = {"text": "One sentence is here. " * 6, "n": 1, "f": 0.1, "part": "own"}
    chunks = _chunks(payload, average=True, splitter=_splitter(16, overlap=4))
    with_own_vector = _chunks(payload | {"vector": [1.0, 2.0]}, average=True, scope="s")
    for of_item, stored in ((chunks, STORED), (with_own_vector, STORED_WITH_OWN_VECTOR)):
        assert {chunk.id: as_stored(chunk.metadata)["upsert_hash"] for chunk in of_item} == stored
        assert all(is_same(stored[chunk.id], chunk.upsert_hash) for chunk in of_item)


def test_a_chunk_with_another_place_is_another_record() -> None:
    """When a text becomes longer, its former last chunk is written again, and never passes for a whole item."""
    last, longer = "h.m~a$#", "h.m>#"
    assert is_same(last, "h.m$#")
    assert not is_same(last, longer)
    assert not is_same(last, "h.m#")
    assert not is_same("h.m~a#", last)
    assert not is_same("h.m~a#", "h.m")
    assert not is_same("h.m~a", "h.m$#")


def test_chunks_repeat_text_fields_only_if_asked() -> None:
    """--metadata-fields chooses what chunks have of the payload; without it, a template's fields are left out."""
    payload = {"title": "t", "body": "b", "n": 1}
    named = _chunks(payload, template="{title} {body}", metadata_fields=("title",))[0]
    assert named.metadata["title"] == "t"
    assert "n" not in named.metadata
    assert not {"title", "body"} & _chunks(payload, template="{title} {body}")[0].metadata.keys()


def test_an_edit_changes_only_the_chunks_it_touches() -> None:
    """A word more at the end changes the hash of the last chunk and of the mean, and no other."""
    text = "One sentence is here. " * 12
    before = {one.id: one.upsert_hash for one in _chunks({"text": text}, average=True)}
    after = {one.id: one.upsert_hash for one in _chunks({"text": f"{text} more."}, average=True)}
    assert {one for one in before if after.get(one) != before[one]} <= {"a#average", max(before.keys() - {"a#average"})}
    assert after["a#average"] != before["a#average"]
    again = {one.id: one.upsert_hash for one in _chunks({"text": text}, average=True, splitter=_splitter(24))}
    assert again["a#average"] != before["a#average"]


def test_an_item_with_its_own_vector_is_one_chunk() -> None:
    """An own vector is not embedded, so its item is not split; another vector changes the hash."""
    [chunk] = _chunks({"text": "One sentence is here. " * 12, "vector": [1.0, 2.0]})
    assert (chunk.id, list(chunk.vector or ()), chunk.is_last_chunk) == ("a#0", [1.0, 2.0], True)
    [other] = _chunks({"text": chunk.text, "vector": [2.0, 1.0]})
    assert other.upsert_hash != chunk.upsert_hash


def test_metadata_too_large_to_repeat_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each chunk repeats the metadata, so it has a limit; an item of one chunk may have more."""
    monkeypatch.setattr(documents, "MAX_CHUNK_METADATA", 100)
    assert len(_chunks({"text": "short", "more": "x" * 200})) == 1
    with pytest.raises(ItemError, match="--metadata-fields takes less") as caught:
        _chunks({"text": "One sentence is here. " * 12, "more": "x" * 200})
    assert caught.value.stage is Stage.SPLITTING


def test_the_chunks_of_an_item_are_made_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first chunks of a text are there before more than its first piece is split."""
    pieces: list[str] = []

    class Counting:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self._real = TextSplitter.from_huggingface_tokenizer(*arguments, **options)

        from_huggingface_tokenizer = classmethod(lambda cls, *arguments, **options: cls(*arguments, **options))

        def chunk_indices(self, piece: str) -> list[tuple[int, str]]:
            pieces.append(piece)
            return self._real.chunk_indices(piece)

    monkeypatch.setattr(semantic_text_splitter, "TextSplitter", Counting)
    splitter = _splitter(16)
    _, chunks = split_item(
        Item("a", {"text": _articles()}, None, "a.jsonl", 1), Recipe(identity="m", splitter=splitter), splitter
    )
    next(chunks)
    assert len(pieces) == 1
    assert len(list(chunks)) > 1_000
    assert len(pieces) == 2
