"""Files that were not made for us: where ids, texts, metadata and vectors come from, and a mapping that does not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.support.reading import item, reject, sources_of, write_lines
from upsert_cli.documents.document import Document, make_document
from upsert_cli.documents.hashing import stored_fault
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import (
    ItemError,
    UsageFault,
)
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.load.request import read_mapping
from upsert_cli.pipeline.preflight import check_first_rows
from upsert_cli.sources.item import Item, Reject
from upsert_cli.sources.rows import Rows


def _document(payload: dict[str, Any], **recipe: Any) -> Document:
    return make_document(Item("a", payload, None, "a.jsonl", 1), Recipe(identity="m", **recipe))


def _metadata(payload: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    return {key: value for key, value in _document(payload, **recipe).metadata.items() if key != "upsert_hash"}


def _fault(payload: dict[str, Any], **recipe: Any) -> str:
    with pytest.raises(ItemError) as caught:
        _document(payload, **recipe)
    return caught.value.detail


# -- templates ----------------------------------------------------------------------------------------------------

PAYLOAD = {
    "title": "T",
    "body": {"plain": "B"},
    "a.b": "dotted",
    "year": 2024,
    "ok": True,
    "tags": ["x", "y"],
    "no": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{title}", "T"),
        (r"title: {title}\n{body.plain}", "title: T\nB"),
        ("{title}\n{ body.plain }", "T\nB"),
        ("{a.b}|{year}|{ok}|{tags}", 'dotted|2024|true|["x","y"]'),
        ("{{{title}}} {{}}", "{T} {}"),
        (r"C:\\new\t{title}", "C:\\new\tT"),
        ("{title}{title}", "TT"),
    ],
)
def test_a_template_is_filled_in(template: str, text: str) -> None:
    """Dotted paths, doubled braces and a typed backslash-n are understood; other values are written as JSON."""
    assert _document(PAYLOAD, template=template).text == text


@pytest.mark.parametrize("field", ["missing", "no", "body.html", "title.x", "title.__class__", "__class__"])
def test_a_row_without_a_field_of_the_template(field: str) -> None:
    """A field that a row lacks is named in its reject, and no path leads out of the payload."""
    assert (
        _fault(PAYLOAD, template=f"{{title}} {{{field}}}") == f"payload.{field} is missing, and the template needs it"
    )


def test_a_text_that_is_blank_by_the_template() -> None:
    """A template that results in nothing but space makes no text."""
    assert _fault({"a": " ", "b": ""}, template=r"{a}\n{b}") == "the text by the template is empty"
    assert _fault({"b": ""}, template="{b}") == "the text by the template is empty"


@pytest.mark.parametrize("template", ["", "no field", "{title", "title}", "{}", "{ }", "{a}{b", "{{a}}"])
def test_an_invalid_template_is_a_usage_fault(template: str) -> None:
    """A single brace and a template without a field are usage faults."""
    with pytest.raises(UsageFault, match="--template"):
        _document(PAYLOAD, template=template)


# -- metadata -----------------------------------------------------------------------------------------------------


def test_chosen_metadata() -> None:
    """Only the chosen fields become metadata, under their paths; fields that a row lacks are omitted."""
    payload = {"text": "x", "a": 1, "b": {"c": {"d": 2, "e": None}, "f": 3}, "g.h": 4}
    assert _metadata(payload, metadata_fields=("a", "b.c", "g.h", "missing")) == {"a": 1, "b.c.d": 2, "g.h": 4}
    assert _metadata(payload, metadata_fields=("b", "b.f")) == {"b.c.d": 2, "b.f": 3}


def test_lists_that_are_kept() -> None:
    """With --keep-lists, lists of one scalar kind stay lists; all others become JSON text."""
    lists = {"s": ["a", "b"], "i": [1, 2], "f": [1.5], "b": [True]}
    others = {
        "mixed": [1, "a"],
        "numbers": [1, 1.5],
        "null": ["a", None],
        "huge": [2**64],
        "deep": [["a"]],
        "empty": [],
    }
    metadata = _metadata({"text": "x"} | lists | others, keep_lists=True)
    assert {key: metadata[key] for key in lists} == lists
    assert {key: json.loads(metadata[key]) for key in others} == others
    assert _metadata({"text": "x"} | lists)["s"] == '["a","b"]'
    assert _metadata({"text": "x", "f": [math.nan]}, keep_lists=True)["f"] == '["NaN"]'
    long = _metadata({"text": "x", "one": [1] * 600, "two": [2] * 600}, keep_lists=True)
    assert [type(long["one"]), type(long["two"])] == [list, str]  # more would break Chroma's queue for good


def test_the_hash_changes_only_with_the_record() -> None:
    """Two mappings that make the same record make the same hash; another text, metadata or list is another hash."""
    payload = {"text": "x", "tags": ["a"], "n": 1}
    plain = _document(payload).upsert_hash
    assert _document(payload, metadata_fields=("tags", "n")).upsert_hash == plain
    assert _document(payload, template="{text}").upsert_hash == plain
    assert _document(payload, text_fields=("text", "missing")).upsert_hash == plain
    text, metadata = plain.split(".")
    lists = _document(payload, keep_lists=True)
    fewer = _document(payload, metadata_fields=("n",))
    more = _document(payload, metadata_fields=("text", "tags", "n"))
    assert {one.upsert_hash.split(".")[0] for one in (lists, fewer, more)} == {text}
    assert len({metadata, *(one.upsert_hash.split(".")[1] for one in (lists, fewer, more))}) == 4
    for one in (lists, fewer, more, _document(payload, template="t: {text}")):
        assert stored_fault(one.text, one.metadata, "m") is None


# -- vectors ------------------------------------------------------------------------------------------------------


def test_an_item_that_brings_its_vector() -> None:
    """A list in `payload.vector`, or in the vector field, is the vector; it is hashed and is not metadata."""
    own = _document({"text": "x", "vector": [1, 0.5]}, dimension=2)
    assert own.vector is not None
    assert own.vector.tolist() == [1.0, 0.5]
    assert own.metadata.keys() == {"upsert_hash"}
    deep = _document({"text": "x", "e": {"v": [1, 0.5], "w": 1}}, vector_field="e.v")
    assert deep.vector == own.vector
    assert deep.metadata.keys() == {"e.w", "upsert_hash"}
    assert _document({"text": "x", "v": "[1, 0.5]"}, vector_field="v").upsert_hash == own.upsert_hash
    other = _document({"text": "x", "vector": [1, 0.25]})
    embedded = _document({"text": "x"})
    assert len({one.upsert_hash for one in (own, other, embedded)}) == 3
    assert len({one.upsert_hash.split(".")[1] for one in (own, other, embedded)}) == 1
    assert stored_fault(own.text, own.metadata, "m") is None
    assert stored_fault("y", own.metadata, "m") is not None


def test_items_without_a_vector_are_embedded() -> None:
    """An item whose vector field is null, missing or text is embedded by the model."""
    assert _document({"text": "x", "vector": None}).vector is None
    assert _document({"text": "x"}, vector_field="v").vector is None
    plasmid = _document({"text": "x", "vector": "pUC19"})
    assert plasmid.vector is None
    assert plasmid.metadata["vector"] == "pUC19"


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ([1.0], "has 1 numbers, and those of the model"),
        ([], "has no numbers"),
        ([1, "a"], "is not only numbers"),
        ([1, True], "is not only numbers"),
        ([1, None], "is not only numbers"),
        ([math.nan, 1], "not finite"),
        ([1e39, 1], "not finite"),
        ([10**400, 1], "not finite"),
        ([0, 0.0], "all zeros"),
        ("[1, 2", "payload.vector is not JSON"),
        ("1", "is a number, not a vector"),
        ({"a": 1}, "is an object, not a vector"),
    ],
)
def test_an_invalid_vector_is_a_reject(value: object, detail: str) -> None:
    """A list that cannot be a vector of the collection is a reject that names its field."""
    assert detail in _fault({"text": "x", "vector": value}, vector_field="vector", dimension=2)


# -- ids ----------------------------------------------------------------------------------------------------------


def _rows(path: Path, **ids: Any) -> list[Item | Reject]:
    return [row for row, _ in Rows(sources=sources_of(path), **ids)]


def test_generated_ids(tmp_path: Path) -> None:
    """A row without an id gets one from its file and number, or from its content; a corrected reject keeps its own."""
    path = write_lines(
        tmp_path / "a.jsonl",
        b'{"text": "x", "n": 1}', b'{"n": 1, "text": "x"}', b"", b'{"text": "y"}',
        b'{"object_id": "corrected", "payload": {"text": "z"}, "detail": "was bad"}',
    )  # fmt: skip
    by_row = [item(row) for row in _rows(path, id_from="row")]
    assert [row.object_id for row in by_row] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:4", "corrected"]
    assert [row.payload for row in by_row] == [
        {"text": "x", "n": 1},
        {"text": "x", "n": 1},
        {"text": "y"},
        {"text": "z"},
    ]
    by_hash = [item(row).object_id for row in _rows(path, id_from="hash")]
    assert by_hash == [by_hash[0], by_hash[0], by_hash[2], "corrected"]
    assert len(set(by_hash)) == 3
    assert by_hash[0] == "3f297db8c93598077bad35da01d31577"  # the same tomorrow


def test_rejects_ignore_the_mapping(tmp_path: Path) -> None:
    """A row in item form, such as a corrected reject with all its other fields, ignores the mapping."""
    bad = write_lines(tmp_path / "a.jsonl", b'{"id": 1.5, "title": "x"}')
    record = reject(_rows(bad, id_field="id")[0]).as_json()
    assert record["payload"] == {"title": "x"}
    corrected = write_lines(tmp_path / "b.jsonl", json.dumps(record | {"object_id": "1.5"}).encode())
    for ids in ({}, {"id_field": "id"}, {"id_from": "row"}, {"id_from": "hash"}):
        assert item(_rows(corrected, **ids)[0])[:3] == ("1.5", {"title": "x"}, None)


# -- a mapping that does not fit ------------------------------------------------------------------------------------


def _check(*paths: Path, **options: Any) -> None:
    own = LoadOptions(**options)
    check_first_rows(own.rows(sources_of(*paths)), recipe=own.recipe("m", identity=""))


def _lines(folder: Path, *rows: dict[str, Any], name: str = "a.jsonl") -> Path:
    return write_lines(folder / name, *(json.dumps(row).encode() for row in rows))


def test_a_missing_text_field_is_a_usage_fault(tmp_path: Path) -> None:
    """If the first item has no text field, the message names the paths of its fields."""
    payload = {"title": "T", "body": {"de": "B", "en": "B"}, "empty": {}}
    path = _lines(tmp_path, {"object_id": "a", "payload": payload})
    with pytest.raises(UsageFault) as caught:
        _check(path, text_fields=("text", "body.fr"))
    assert str(caught.value) == (
        f"{path}, row 1: the payload has no `text` or `body.fr`, "
        "it has `title`, `body.de`, `body.en`, `empty`; --text-field names the text"
    )
    assert caught.value.exit_code == 2
    with pytest.raises(UsageFault, match="it is empty"):
        _check(_lines(tmp_path, {"object_id": "a"}))
    with pytest.raises(UsageFault, match="no payload with `text`, but `text`; --id-field object_id takes them"):
        _check(_lines(tmp_path, {"object_id": "a", "text": "x"}))


@pytest.mark.parametrize("payload", [{"text": "x"}, {"text": None}, {"text": 1}, {"more": "x", "other": {"deep": "y"}}])
def test_a_first_item_that_has_one_of_the_fields(tmp_path: Path, payload: dict[str, Any]) -> None:
    """One text field is enough, and a bad value in the first item rejects only that item."""
    _check(_lines(tmp_path, {"object_id": "a", "payload": payload}), text_fields=("text", "other.deep"))


def test_a_missing_id_field_is_a_usage_fault(tmp_path: Path) -> None:
    """If none of the first rows has the id field, the message names the existing fields; one such row is enough."""
    path = _lines(tmp_path, {"id": 1, "text": "x"}, {"id": 2, "text": "y", "meta": {"key": "k"}})
    for options, wanted in (({}, "object_id"), ({"id_field": "key"}, "key")):
        with pytest.raises(UsageFault, match=f"row 1: there is no `{wanted}`, it has `id`, `text`") as caught:
            _check(path, **options)
        assert caught.value.exit_code == 2
    _check(path, id_field="meta.key")
    _check(_lines(tmp_path, {"object_id": None}, {"text": "x"}))
    _check(_lines(tmp_path))
    _check(write_lines(tmp_path / "b.jsonl", b"{", b"[]"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "{title} {boddy}"}, r"no `boddy`, it has `title`, `body`; correct --template"),
        ({"template": "{title}", "metadata_fields": ("body", "x", "y.z")}, r"no `x`, `y.z`, .*--metadata-fields"),
        ({"template": "{title}", "vector_field": "v"}, r"no `v`, .*--vector-field"),
    ],
)
def test_a_missing_named_field_is_a_usage_fault(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """A field that an option names has to be in one of the first rows, but not in all of them."""
    rows = [{"id": 1, "title": "T", "body": "B"}, {"id": 2, "title": "T"}]
    with pytest.raises(UsageFault, match=message) as caught:
        _check(_lines(tmp_path, *rows), id_field="id", **options)
    assert caught.value.exit_code == 2
    _check(_lines(tmp_path, *reversed(rows)), id_field="id", template="{title} {body}", metadata_fields=("body",))


def test_row_ids_of_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two files of the same name in two folders would get the same ids, so they are refused."""
    (tmp_path / "sub").mkdir()
    paths = [_lines(folder, {"text": "x"}) for folder in (tmp_path, tmp_path / "sub")]
    with pytest.raises(UsageFault, match="two files are called a"):
        _check(*paths, id_from="row")
    _check(*paths, id_from="hash")


# -- a file of --map ----------------------------------------------------------------------------------------------

NOTHING: dict[str, Any] = {"text_fields": (), "keep_lists": None, "id_field": None}


def _map(tmp_path: Path, text: str, **given: Any) -> dict[str, Any]:
    path = tmp_path / "map.toml"
    path.write_text(text)
    return read_mapping(path, NOTHING | given)


def test_a_map_sets_options(tmp_path: Path) -> None:
    """A --map file may set all mapping options by their names, and options override it."""
    text = """
        format = "csv"
        id-field = "id"
        template = "{title}\\n{body}"
        metadata_fields = ["a", "b.c"]
        vector-field = "v"
        keep-lists = true
    """
    known: dict[str, Any] = {
        "format": "csv", "id_field": "id", "template": "{title}\n{body}", "metadata_fields": ("a", "b.c"),
        "vector_field": "v", "keep_lists": True,
    }  # fmt: skip
    assert _map(tmp_path, text) == known
    assert LoadOptions(**known) == LoadOptions.from_json(json.loads(json.dumps(LoadOptions(**known).as_json())))
    assert _map(tmp_path, text, template="{x}", metadata_fields=("a", "d")) == known | {
        "template": "{x}",
        "metadata_fields": ("a", "d"),
    }
    of_options = _map(tmp_path, text, text_fields=("x",), id_from="row")
    assert (of_options["text_fields"], of_options["id_from"]) == (("x",), "row")
    assert not {"template", "id_field"} & of_options.keys()
    assert _map(tmp_path, 'text-field = "x"') == {"text_fields": ("x",)}
    assert _map(tmp_path, 'text-field = "x, y.z"') == {"text_fields": ("x", "y.z")}
    assert _map(tmp_path, 'text-field = ["x, y.z"]') == {"text_fields": ("x, y.z",)}
    assert read_mapping(None, NOTHING) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id_field", "has to be TOML"),
        ('ids = "x"', "`ids` is unknown; known are format, id-field"),
        ("id-field = 7", "`id-field` has to be a text"),
        ('id-from = "name"', "has to be one of row, hash"),
        ('format = "xls"', "has to be one of jsonl, jsonl.gz"),
        ("keep-lists = 1", "true or false"),
        ("text-field = [1]", "a text or a list of texts"),
        ("metadata-fields = []", "a field's name is empty"),
        ('id-field = "a"\nid-from = "row"', "comes from one of them"),
    ],
)
def test_an_invalid_map_is_a_usage_fault(tmp_path: Path, text: str, reason: str) -> None:
    """An invalid --map file is a usage fault that names the line to change."""
    with pytest.raises(UsageFault, match=reason) as caught:
        _map(tmp_path, text)
    assert caught.value.exit_code == 2
    assert "map.toml" in str(caught.value)


def test_options_that_contradict_each_other() -> None:
    """An id from a field and a generated id exclude each other, and a list of fields may not have an empty name."""
    for given in ({"id_field": "a", "id_from": "row"}, {"metadata_fields": ("a", "", "b")}):
        with pytest.raises(UsageFault):
            read_mapping(None, NOTHING | given)


def test_another_mapping_is_another_load() -> None:
    """Another mapping makes other records, so the same task id is refused; another batch size is accepted."""
    others: list[dict[str, Any]] = [
        {"format": "csv"}, {"id_field": "a"}, {"id_from": "row"}, {"text_fields": ("a",)}, {"template": "{a}"},
        {"metadata_fields": ("a",)}, {"vector_field": "a"}, {"keep_lists": True},
    ]  # fmt: skip
    assert all(LoadOptions().differing(LoadOptions(**other)) == tuple(other) for other in others)
    assert not LoadOptions().differing(LoadOptions(batch_size=7, threads=1))
