"""Splitting: parts cover the text to the letter, and the model reads each of them whole."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.reading import fuzz
from tests.support.terminal import SAMPLES
from upsert_cli.documents import document as documents
from upsert_cli.documents.chunking import PIECE, Splitter, owner_of
from upsert_cli.documents.document import Document, Recipe, split_item
from upsert_cli.documents.hashing import as_stored, is_chunk, stored_fault
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.embedder import load_tokenizer
from upsert_cli.embedding.models import find_model
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import Item

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400) | st.text(
    st.sampled_from("ab. \n\t\r\u3042\u65e5\u0301\u200d\U0001f468\U0001f469#[]"), min_size=1, max_size=400
)


@lru_cache
def _tokenizer() -> Any:
    return load_tokenizer(find_model(DEFAULT_MODEL))


def _splitter(max_tokens: int = 256, overlap: int = 0) -> Splitter:
    return Splitter(_tokenizer(), max_tokens=max_tokens, overlap=overlap)


def _articles() -> str:
    lines = (SAMPLES / "articles.jsonl").read_text().splitlines()
    return "\n\n".join(json.loads(line)["payload"]["text"] for line in lines)


def _parts(payload: dict[str, Any], object_id: str = "a", **recipe: Any) -> list[Document]:
    made = Recipe(identity="m", splitter=recipe.pop("splitter", _splitter(16)), **recipe)
    average, parts = split_item(Item(object_id, payload, {"origin": "x"}, "a.jsonl", 1), made, made.splitter)  # type: ignore[arg-type]
    return [*parts, *([average] if average else [])]


@fuzz(few=30, text=TEXTS, max_tokens=st.integers(8, 40))
def test_parts_cover_the_text_and_none_is_too_long(text: str, max_tokens: int) -> None:
    """Put together, the parts are the text, whatever characters it has; each fits, by the model's own tokenizer."""
    parts = list(_splitter(max_tokens).chunks(text))
    assert "".join(parts) == text
    assert all(parts)
    assert max(len(_tokenizer().encode(part)) for part in parts) <= max_tokens


@pytest.mark.parametrize("max_tokens", [16, 256])
def test_a_long_text_is_cut_piece_by_piece(max_tokens: int) -> None:
    """A text of several pieces is covered to the letter as well, and its parts are not cut where a piece ends."""
    text = _articles()[: 2 * PIECE - 100]
    parts = list(_splitter(max_tokens).chunks(text))
    assert "".join(parts) == text
    lengths = [len(_tokenizer().encode(part)) for part in parts]
    assert max(lengths) <= max_tokens
    assert sum(lengths) / len(lengths) > 0.4 * max_tokens


def test_overlapping_parts() -> None:
    """With an overlap, parts begin within the one before where whole sentences fit, and together they are the text."""
    text = _articles()[:20_000]
    parts = list(_splitter(64, overlap=16).chunks(text))
    whole = parts[0]
    repeated = 0
    for part in parts[1:]:
        size = next(size for size in range(len(part), -1, -1) if whole.endswith(part[:size]))
        repeated += size > 0
        whole += part[size:]
    assert whole == text
    assert repeated > len(parts) / 4
    assert max(len(_tokenizer().encode(part)) for part in parts) <= 64


def test_a_character_that_is_too_long_by_itself() -> None:
    """What cannot be cut any further is rejected, with the option that helps."""
    splitter = _splitter(16)
    splitter.max_tokens = 2
    with pytest.raises(ItemError, match="--max-tokens") as caught:
        list(splitter.chunks("a b"))
    assert caught.value.stage is Stage.SPLITTING


def test_what_a_part_is_stored_with() -> None:
    """Ids, item and number, the payload but for its text; the payload's own keys of these names give way, and count."""
    documents = _parts({"text": "One sentence is here. " * 12, "title": "t", "part": "own"}, average=True)
    *parts, average = documents
    assert [one.id for one in parts] == [f"a#{number}" for number in range(len(parts))]
    assert len(parts) > 3
    assert [owner_of(one.id) for one in documents] == [*(("a", n) for n in range(len(parts))), ("a", -1)]
    for number, one in enumerate(parts):
        own = {"object_id": "a", "part": number, "title": "t", "item_info.origin": "x"}
        assert {key: value for key, value in one.metadata.items() if key != "upsert_hash"} == own
    assert (average.id, average.text, average.metadata["part"]) == ("a#average", parts[0].text, "average")
    assert [one.converted for one in documents] == [1] + [0] * len(parts)
    assert [one.is_last_chunk for one in documents] == [False] * (len(parts) - 1) + [True, False]
    for one in documents:
        assert is_chunk(one.upsert_hash)
        assert stored_fault(one.text, one.metadata, "m") is None
        assert stored_fault(one.text + "x", one.metadata, "m") is not None
        assert stored_fault(one.text, one.metadata | {"title": "u"}, "m") is not None


STORED = {
    "a#0": "718f252a90cc8690e156c4d40e6bd4e6.e7b34798f372e8ab1499097de9bd2903~a#",
    "a#1": "718f252a90cc8690e156c4d40e6bd4e6.4b2edba4791333c0f416aa937f19f1a9~a#",
    "a#2": "718f252a90cc8690e156c4d40e6bd4e6.1b6952fd777ca19970d0e1f7780a6f8c~a#",
    "a#average": "718f252a90cc8690e156c4d40e6bd4e6+062a2b090353ef6b5ae7d8208fc8711d.fded6866217cf8554af30403890b9200~a#",
}
STORED_WITH_OWN_VECTOR = {
    "a#0": "a555da14af643866858e4d30c6f95cfa+4894c85a271925cd452dde658e597da5.754c57c2793072a3b13f00df758ff2b4~a#",
    "a#average": "a555da14af643866858e4d30c6f95cfa+22b15767b3596f9c6d68318fc226beff.c065205da3020d85334d8acb35cd4960~a#",
}


def test_stored_ids_and_hashes_of_chunks_never_change() -> None:
    """A new version of this tool makes the ids and hashes that are stored already, also of averages."""
    payload = {"text": "One sentence is here. " * 6, "n": 1, "f": 0.1, "part": "own"}
    chunks = _parts(payload, average=True, splitter=_splitter(16, overlap=4))
    assert {chunk.id: as_stored(chunk.metadata)["upsert_hash"] for chunk in chunks} == STORED
    chunks = _parts(payload | {"vector": [1.0, 2.0]}, average=True, scope="s")
    assert {chunk.id: as_stored(chunk.metadata)["upsert_hash"] for chunk in chunks} == STORED_WITH_OWN_VECTOR


def test_the_text_is_kept_in_the_metadata_where_it_is_asked_for() -> None:
    """--metadata-fields says what parts have of the payload; without it, fields of a template are left out as well."""
    payload = {"title": "t", "body": "b", "n": 1}
    named = _parts(payload, template="{title} {body}", metadata_fields=("title",))[0]
    assert named.metadata["title"] == "t"
    assert "n" not in named.metadata
    assert not {"title", "body"} & _parts(payload, template="{title} {body}")[0].metadata.keys()


def test_only_what_changed_of_a_text_is_another_part() -> None:
    """A word more at the end leaves the hashes of the parts before as they are; that of the mean is another."""
    text = "One sentence is here. " * 12
    before = {one.id: one.upsert_hash for one in _parts({"text": text}, average=True)}
    after = {one.id: one.upsert_hash for one in _parts({"text": f"{text} more."}, average=True)}
    assert {one for one in before if after.get(one) != before[one]} <= {"a#average", max(before.keys() - {"a#average"})}
    assert after["a#average"] != before["a#average"]
    again = {one.id: one.upsert_hash for one in _parts({"text": text}, average=True, splitter=_splitter(24))}
    assert again["a#average"] != before["a#average"]


def test_an_item_with_a_vector_of_its_own_is_one_part() -> None:
    """It is not embedded, so it need not be cut; another vector shows in the hash."""
    [part] = _parts({"text": "One sentence is here. " * 12, "vector": [1.0, 2.0]})
    assert (part.id, list(part.vector or ()), part.is_last_chunk) == ("a#0", [1.0, 2.0], True)
    [other] = _parts({"text": part.text, "vector": [2.0, 1.0]})
    assert other.upsert_hash != part.upsert_hash


def test_metadata_that_is_too_large_to_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part has it, so there is a limit; an item of one part may have more."""
    monkeypatch.setattr(documents, "MAX_CHUNK_METADATA", 100)
    assert len(_parts({"text": "short", "more": "x" * 200})) == 1
    with pytest.raises(ItemError, match="--metadata-fields takes less") as caught:
        _parts({"text": "One sentence is here. " * 12, "more": "x" * 200})
    assert caught.value.stage is Stage.SPLITTING


def test_the_parts_of_an_item_are_made_one_by_one() -> None:
    """The first parts of a text are there before the last are cut."""
    made = Recipe(identity="m", splitter=_splitter(16))
    assert made.splitter is not None
    cut: list[int] = []
    original = made.splitter._fitting

    def counting(text: str, start: int, end: int) -> Any:
        cut.append(start)
        return original(text, start, end)

    made.splitter._fitting = counting  # type: ignore[method-assign]
    _, parts = split_item(Item("a", {"text": _articles()}, None, "a.jsonl", 1), made, made.splitter)
    next(parts)
    assert len(cut) < 10
    assert len(list(parts)) > 1_000
