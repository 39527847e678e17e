"""An item's record in the collection: its text, its flat metadata, and a hash that shows each change."""

from __future__ import annotations

import datetime
import decimal
import itertools
import uuid
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb.api import ClientAPI
from hypothesis import strategies as st

from tests.support.reading import exactly, fuzz, item, payloads, rows_of, values
from tests.support.terminal import SAMPLES
from upsert_cli.documents.document import Document, make_document
from upsert_cli.documents.hashing import as_stored
from upsert_cli.documents.metadata import scope_of
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import Item

RECIPE = Recipe(identity="a model|384|256")


def _item(payload: dict[str, Any] | None, info: dict[str, Any] | None = None, object_id: str = "a") -> Item:
    return Item(object_id, payload, info, "a.jsonl", 1)


def _document(payload: dict[str, Any], info: dict[str, Any] | None = None, **recipe: Any) -> Document:
    return make_document(_item({"text": "hello"} | payload, info), Recipe(identity="m", **recipe))


def _metadata(payload: dict[str, Any], info: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a payload's metadata without the hash that every record has."""
    metadata: dict[str, Any] = dict(_document(payload, info).metadata)
    del metadata["upsert_hash"]
    return metadata


def _typed(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata in which 1, 1.0 and True differ, as they do not under ==."""
    return {key: (type(value), value) for key, value in metadata.items()}


# -- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "fields", "text"),
    [
        ({"text": "hello"}, ("text",), "hello"),
        ({"text": " hello\n"}, ("text",), " hello\n"),
        ({"title": "T", "body": "B"}, ("title", "body"), "T\nB"),
        ({"title": None, "body": "B"}, ("title", "body"), "B"),
        ({"body": "B"}, ("title", "body"), "B"),
        ({"a": {"b": "deep"}}, ("a.b",), "deep"),
        ({"a.b": "flat", "a": {"c": "deep"}}, ("a.b",), "flat"),
    ],
)
def test_the_text_comes_from_its_fields(payload: dict[str, Any], fields: tuple[str, ...], text: str) -> None:
    """Text is taken unchanged, also from dotted paths, and several texts are joined by line breaks."""
    assert make_document(_item(payload), Recipe(text_fields=fields, identity="m")).text == text


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (None, "payload.text is missing"),
        ({}, "payload.text is missing"),
        ({"text": None}, "payload.text is missing"),
        ({"text": ""}, "payload.text is empty"),
        ({"text": " \n\u2003"}, "payload.text is empty"),
        ({"text": 1}, "payload.text is a number, not text"),
        ({"text": ["a"]}, "payload.text is a list, not text"),
        ({"text": {"a": "b"}}, "payload.text is an object, not text"),
        ({"text": "x" * ((8 << 20) + 1)}, "the text has 8388609 bytes, 8388608 are allowed"),
    ],
)
def test_an_item_without_text_is_rejected(payload: dict[str, Any] | None, detail: str) -> None:
    """An item whose text is missing, blank, too long or not text is rejected on reading."""
    with pytest.raises(ItemError) as caught:
        make_document(_item(payload), RECIPE)
    assert (caught.value.stage, caught.value.detail) == (Stage.READING, detail)


# -- metadata -----------------------------------------------------------------------------------------------------

LARGE = 2**63

METADATA: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({}, {}, []),
    ({"s": "x", "i": 1, "f": 1.5, "b": True, "e": ""}, {"s": "x", "i": 1, "f": 1.5, "b": True, "e": ""}, []),
    ({"i": LARGE - 1, "j": -LARGE}, {"i": LARGE - 1, "j": -LARGE}, []),
    ({"i": LARGE, "j": -LARGE - 1}, {"i": "9223372036854775808", "j": "-9223372036854775809"}, ["i", "j"]),
    ({"n": float("nan"), "p": float("inf"), "m": float("-inf")}, {"n": "NaN", "p": "Infinity", "m": "-Infinity"}, ["n", "p", "m"]),
    ({"n": None, "d": {"n": None}}, {}, []),
    ({"d": {"a": 1, "e": {"f": "x"}}}, {"d.a": 1, "d.e.f": "x"}, []),
    ({"d": {}, "l": []}, {"d": "{}", "l": "[]"}, ["d", "l"]),
    ({"l": ["ü", 1, None, {"b": 1, "a": LARGE * 4}]}, {"l": '["ü",1,null,{"a":36893488147419103232,"b":1}]'}, ["l"]),
    ({"l": [1.0, float("nan"), float("inf")]}, {"l": '[1.0,"NaN","Infinity"]'}, ["l"]),
    ({"d": {"#a": 1, "$b": 2, "chroma:c": 3, "": 4}}, {"d.#a": 1, "d.$b": 2, "d.chroma:c": 3, "d.": 4}, []),
    ({"when": datetime.datetime(2026, 11, 23, 1, 2, 3)}, {"when": "2026-11-23T01:02:03"}, ["when"]),
    ({"day": datetime.date(2026, 11, 23), "at": datetime.time(1, 2)}, {"day": "2026-11-23", "at": "01:02:00"}, ["day", "at"]),
    ({"took": datetime.timedelta(minutes=1, milliseconds=5)}, {"took": "PT60.005S"}, ["took"]),
    ({"price": decimal.Decimal("1.10"), "raw": b"\xff", "u": uuid.UUID(int=1)},
     {"price": "1.10", "raw": "/w==", "u": "00000000-0000-0000-0000-000000000001"}, ["price", "raw", "u"]),
    ({"pairs": [("k", decimal.Decimal(1))]}, {"pairs": '[["k","1"]]'}, ["pairs"]),
]  # fmt: skip


@pytest.mark.parametrize(("payload", "metadata", "converted"), METADATA)
def test_metadata_is_flat(payload: dict[str, Any], metadata: dict[str, Any], converted: list[str]) -> None:
    """Scalars are kept, values that Chroma cannot hold become text, and the key of each such value is returned."""
    assert _typed(_metadata(payload)) == _typed(metadata)
    assert list(_document(payload).converted) == converted


def test_item_info_has_its_own_prefix() -> None:
    """An item's info is stored under `item_info.` by the same rules; an empty one leaves nothing."""
    assert _metadata({"a": 1}, {"a": 2, "d": {"e": [1]}, "n": None}) == {
        "a": 1,
        "item_info.a": 2,
        "item_info.d.e": "[1]",
    }
    assert _metadata({"a": 1}, {}) == {"a": 1}


@pytest.mark.parametrize(
    ("payload", "recipe", "document", "metadata"),
    [
        ({"text": "t", "n": 1}, {}, "t", {"n": 1}),
        ({"text": "t", "n": 1}, {"metadata_fields": ("n", "text")}, "t", {"n": 1, "text": "t"}),
        ({"a": "A", "b": "B", "n": 1}, {"text_fields": ("a", "b")}, "A\nB", {"n": 1}),
        ({"a": "A", "b": "B", "n": 1}, {"text_fields": ("a", "b"), "metadata_fields": ("a",)}, "A\nB", {"a": "A"}),
        ({"a": None, "b": "B"}, {"text_fields": ("a", "b")}, "B", {}),
        ({"d": {"a": "A", "b": "B", "c": 1}}, {"text_fields": ("d.a", "d.b")}, "A\nB", {"d.c": 1}),
        ({"d": {"a": "A", "e": {"b": "B"}}}, {"text_fields": ("d.a", "d.e.b")}, "A\nB", {}),
        ({"d": {"a": "A", "b": "B"}}, {"text_fields": ("d.a",), "metadata_fields": ("d",)}, "A", {"d.a": "A", "d.b": "B"}),
        ({"d.a": "flat", "d": {"a": "deep"}}, {"text_fields": ("d.a",)}, "flat", {"d.a": "deep"}),
        ({"d.a": "flat", "d": {"a": "deep"}}, {"text_fields": ("d.a", "d.a")}, "flat\nflat", {"d.a": "deep"}),
        ({"a": "A", "d": {"e.f": 1, "g": {}}}, {"text_fields": ("a", "d.e.f", "d.g.h")}, "A", {"d.e.f": 1, "d.g": "{}"}),
        ({"y": 2024, "l": ["x"], "n": 1}, {"template": "{y}: {l}"}, '2024: ["x"]', {"n": 1}),
        ({"a": "A", "y": 1, "n": 2}, {"template": "{a}, {y}", "metadata_fields": ("y",)}, "A, 1", {"y": 1}),
        ({"d": {"a": 1, "b": 2}, "n": 3}, {"template": "{d} {d.a}"}, '{"a":1,"b":2} 1', {"n": 3}),
        ({"d": {"a": 1, "b": 2}, "n": 3}, {"template": "{d.a} {n}"}, "1 3", {"d.b": 2}),
        ({"#t": "t", "n": 1}, {"text_fields": ("#t",)}, "t", {"n": 1}),
    ],
)  # fmt: skip
def test_fields_of_the_document_are_metadata_only_if_named(
    payload: dict[str, Any], recipe: dict[str, Any], document: str, metadata: dict[str, Any]
) -> None:
    """A field that makes up the document is stored once, an object that this empties is not stored, and all else is."""
    made = make_document(_item(payload), Recipe(identity="m", **recipe))
    assert made.text == document
    assert _typed(made.metadata) == _typed(metadata | {"upsert_hash": made.upsert_hash})
    assert list(made.converted) == [key for key, value in metadata.items() if value == "{}"]
    assert made.item.payload == payload


@pytest.mark.parametrize(
    ("payload", "info", "detail"),
    [
        ({"": 1}, None, "a key of the payload is empty"),
        ({"#tag": 1}, None, "`#tag` begins with `#`"),
        ({"$tag": {"a": 1}}, None, "`$tag.a` begins with `$`"),
        ({"chroma:document": "x"}, None, "begins with `chroma:`"),
        ({"upsert_hash": "x"}, None, "this tool's own"),
        ({"a.b": 1, "a": {"b": 2}}, None, "`a.b` occurs twice"),
        ({"item_info": {"a": 1}}, {"a": 2}, "`item_info.a` occurs twice"),
        ({"k" * 1_025: 1}, None, "has 1025 characters, 1024 are allowed"),
        ({f"k{n}": n for n in range(1000)}, None, "1000 metadata keys, 999 are allowed"),
        ({f"k{n}": "x" * (1 << 20) for n in range(8)}, None, "bytes as JSON, 8388608 are allowed"),
    ],
)
def test_metadata_that_chroma_cannot_store_is_rejected(
    payload: dict[str, Any], info: dict[str, Any] | None, detail: str
) -> None:
    """Metadata that Chroma refuses, silently drops or is damaged by is rejected first, with the name of the key."""
    with pytest.raises(ItemError) as caught:
        _document(payload, info)
    assert caught.value.stage == Stage.READING
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize("kind", [dict, list])
def test_metadata_nested_too_deep_is_rejected(kind: type) -> None:
    """Deep nesting rejects the item and never exhausts Python's stack."""
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep} if kind is dict else [deep]
    with pytest.raises(ItemError, match="nested deeper than 100 levels"):
        _document({"d": deep})


# -- hashes -------------------------------------------------------------------------------------------------------


def _halves(document: Document) -> list[str]:
    text, metadata = document.upsert_hash.split(".")
    assert len(text) == len(metadata) == 32
    return [text, metadata]


@pytest.mark.parametrize(
    ("payload", "recipe", "stored"),
    [
        ({"text": "hello", "n": 1, "d": {"f": 1.5}}, {"metadata_fields": ("text", "n", "d")},
         "947fdd52e6f2237b8cb129adbeaf6744.e63d14021c8dcbaca049dba0fae2457b~0"),
        ({"text": "hello"}, {"metadata_fields": ("text",)}, "947fdd52e6f2237b8cb129adbeaf6744.ccb0c13ec56bb56e31d55ceb8e731ef3"),
        ({"text": "hello", "vector": [1.0, 2.0, 0.5]}, {"metadata_fields": ("text",)}, "947fdd52e6f2237b8cb129adbeaf6744+77c628ad570720949847236dff9cfeb9.ccb0c13ec56bb56e31d55ceb8e731ef3"),
        ({"text": "hello", "l": [0.1, 1e300], "f": -0.1}, {"keep_lists": True, "metadata_fields": ("text", "l", "f")}, "947fdd52e6f2237b8cb129adbeaf6744.c264fe1d0b946f92abf438e06058061d~5ac"),
        ({"text": "hello", "f": 0.1}, {"template": "{f}: {text}", "metadata_fields": ("f",), "scope": "s"}, "55c4f7620768bfa2aea4d6ca392b9378.ed3cc193236e4b3c22ae32337f454e8e~a"),
    ],
)  # fmt: skip
def test_stored_hashes_never_change(payload: dict[str, Any], recipe: dict[str, Any], stored: str) -> None:
    """A new version of this tool computes the hashes that are stored already; otherwise it would load everything again."""
    document = make_document(_item(payload), Recipe(identity="a model|384|256", **recipe))
    assert as_stored(document.metadata)["upsert_hash"] == stored


def test_an_older_version_differs_in_the_metadata_alone() -> None:
    """Where the metadata repeats the text, as an older version stored it, the first half of the hash is the same."""
    repeated = _halves(_document({"n": 1}, metadata_fields=("text", "n")))
    once = _halves(_document({"n": 1}))
    assert [a == b for a, b in zip(repeated, once, strict=True)] == [True, False]


def test_default_scopes_never_change() -> None:
    """The scope of a load that names none depends only on its sources, in any order."""
    assert (
        scope_of(["/b.jsonl", "/a.jsonl"])
        == scope_of(["/a.jsonl", "/b.jsonl", "/a.jsonl"])
        == "sources-2ce6e66040a5db52"
    )


def test_each_half_of_a_hash_covers_its_own_values() -> None:
    """Another text, model or embedding option changes the first half, other metadata the second."""
    before = _halves(_document({"n": 1}))
    other_text = _halves(make_document(_item({"text": "hallo", "n": 1}), Recipe(identity="m")))
    other_model = _halves(make_document(_item({"text": "hello", "n": 1}), Recipe(identity="m2")))
    other_metadata = _halves(_document({"n": 2}))
    assert [a == b for a, b in zip(before, other_text, strict=True)] == [False, True]
    assert [a == b for a, b in zip(before, other_model, strict=True)] == [False, True]
    assert [a == b for a, b in zip(before, other_metadata, strict=True)] == [True, False]


def test_the_order_of_keys_does_not_matter() -> None:
    """The same keys and values have the same hash in any order, also inside lists."""
    one = _document({"a": 1, "b": {"c": 2, "d": [{"e": 3, "f": 4}]}})
    other = _document({"b": {"d": [{"f": 4, "e": 3}], "c": 2}, "a": 1})
    assert one.upsert_hash == other.upsert_hash


def test_a_text_that_moved_to_another_key_is_a_change() -> None:
    """A text is hashed once, but the key that holds it counts."""
    hashes = [
        _halves(
            make_document(
                _item(dict.fromkeys(names, "hello")), Recipe(identity="m", text_fields=(field,), metadata_fields=names)
            )
        )
        for names, field in ((("text",), "text"), (("body",), "body"), (("text", "body"), "body"))
    ]
    assert len({text for text, _ in hashes}) == 1
    assert len({metadata for _, metadata in hashes}) == 3


def test_similar_values_have_different_hashes() -> None:
    """The hash depends on types, on boundaries between values and on their keys."""
    alike: list[dict[str, Any]] = [
        {"v": 1}, {"v": 1.0}, {"v": True}, {"v": "1"}, {"v": "true"}, {"v": 0}, {"v": False}, {"v": ""}, {},
        {"v": "a", "w": "b"}, {"v": "b", "w": "a"}, {"v": "ab", "w": ""}, {"v": 'a","w":"b'}, {"vw": "ab"},
        {"v": LARGE - 1}, {"v": float(LARGE)}, {"v": 0.1}, {"v": 0.1 + 2**-56}, {"v": "\0"}, {"v": "é"}, {"v": "e\u0301"},
    ]  # fmt: skip
    hashes = [_document(payload).upsert_hash for payload in alike]
    assert len(set(hashes)) == len(alike)


@fuzz(one=payloads, other=payloads, text=st.text(min_size=1).filter(str.strip))
def test_hashes_differ_exactly_where_records_do(one: dict[str, Any], other: dict[str, Any], text: str) -> None:
    """Two items with the same text have the same hash if and only if their metadata is the same."""
    documents = []
    for payload in (one, other):
        try:
            documents.append(make_document(_item(payload | {"text": text}), RECIPE))
        except ItemError:
            return
    same = [exactly({**document.metadata, "upsert_hash": ""}) for document in documents]
    assert (same[0] == same[1]) == (documents[0].upsert_hash == documents[1].upsert_hash)


# -- in a collection ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> ClientAPI:
    return chromadb.PersistentClient(str(tmp_path_factory.mktemp("chroma")))


NUMBERS = itertools.count()

keys = st.text(max_size=4) | st.sampled_from(["#", "$a", "chroma:x", "a.b", "item_info", "upsert_hash", "\0", "\n"])
texts = st.text(min_size=1) | st.sampled_from(["\0", "\x1b[31m", "\u202e", "\ufffe", "::error"])


@fuzz(
    few=40,
    rows=st.lists(
        st.tuples(texts, st.dictionaries(keys, values), st.none() | st.dictionaries(keys, values)), min_size=1
    ),
)
def test_chroma_returns_every_document_as_it_was(client: ClientAPI, rows: list[tuple[str, Any, Any]]) -> None:
    """Every document is stored exactly, whatever the item holds, and affects no other row of its call."""
    documents = []
    for number, (text, payload, info) in enumerate(rows):
        try:
            documents.append(make_document(_item(payload | {"text": text}, info, f"i{number}"), RECIPE))
        except ItemError as error:
            assert error.detail
    if not documents:
        return
    collection = client.create_collection(f"fuzz-{next(NUMBERS)}", embedding_function=None)
    collection.upsert(
        ids=[document.id for document in documents],
        documents=[document.text for document in documents],
        metadatas=[document.metadata for document in documents],
        embeddings=np.ones((len(documents), 2), dtype=np.float32),
    )
    stored = collection.get(ids=[document.id for document in documents])
    by_id = dict(
        zip(stored["ids"], zip(stored["documents"] or [], stored["metadatas"] or [], strict=True), strict=True)
    )
    for document in documents:
        text, metadata = by_id[document.id]
        assert text == document.text
        # Chroma returns one in ten floats of full precision with another last bit.
        assert _typed(dict(metadata)) == {
            key: (type(value), pytest.approx(value, rel=1e-14, abs=1e-300) if isinstance(value, float) else value)
            for key, value in document.metadata.items()
        }


def test_the_largest_record_fits(client: ClientAPI) -> None:
    """A record at this tool's limits harms neither the collection nor later calls."""
    collection = client.create_collection("largest", embedding_function=None)
    largest = _item({f"{n:0>1024}": n for n in range(998)} | {"text": "word " * ((8 << 20) // 5)})
    document = make_document(largest, RECIPE)
    for row in (document, _document({})):
        collection.upsert(
            ids=[row.id], documents=[row.text], metadatas=[row.metadata], embeddings=np.ones((1, 2), dtype=np.float32)
        )
        assert collection.get(ids=[row.id])["documents"] == [row.text]


def test_items_of_parquet_and_jsonl_give_the_same_records() -> None:
    """The sample items become records with the same hashes from either format."""
    hashes = [
        [make_document(item(row), RECIPE).upsert_hash for row in rows_of(SAMPLES / f"articles.{suffix}")]
        for suffix in ("jsonl", "parquet")
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes[0])) == len(hashes[0]) > 300
