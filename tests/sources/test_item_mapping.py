"""Item form and foreign rows: no column vanishes because of its name, and the reject of a row loads again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.reading import item, reject, sources_of, write_lines
from tests.support.terminal import Terminal
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import ItemError
from upsert_cli.sources.item import Item, Reject
from upsert_cli.sources.rows import Rows

Values = dict[str, Any]
Write = Callable[[Path, Values], Path]


def _jsonl(folder: Path, row: Values) -> Path:
    return write_lines(folder / "a.jsonl", json.dumps(row).encode())


def _csv(folder: Path, row: Values) -> Path:
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        cells = {name: value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
        writer.writerow({name: "" if cell == "null" else cell for name, cell in cells.items()})
    return folder / "a.csv"


def _parquet(folder: Path, row: Values) -> Path:
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), folder / "a.parquet")
    return folder / "a.parquet"


def _parquet_of_texts(folder: Path, row: Values) -> Path:
    return _parquet(folder, {name: json.dumps(one) if isinstance(one, dict) else one for name, one in row.items()})


FORMATS = [_jsonl, _csv, _parquet, _parquet_of_texts]


def _rows(*paths: Path, **mapping: Any) -> list[Item | Reject]:
    return [row for row, _ in Rows(sources=sources_of(*paths), **mapping)]


FOREIGN: dict[str, tuple[Values, Values]] = {
    "payload is an object": ({"id": "1", "text": "t", "payload": {"text": "inner", "n": 1}}, {"id_field": "id"}),
    "payload is text": ({"id": "1", "text": "t", "payload": "note"}, {"id_field": "id"}),
    "payload is JSON that is broken": ({"id": "1", "text": "t", "payload": '{"a": '}, {"id_field": "id"}),
    "item_info is text": ({"id": "1", "text": "t", "item_info": "note"}, {"id_field": "id"}),
    "item_info is a number": ({"id": "1", "text": "t", "item_info": 5}, {"id_field": "id"}),
    "both": ({"id": "1", "text": "t", "payload": "p", "item_info": "i"}, {"id_field": "id"}),
    "vector is text": ({"id": "1", "text": "t", "vector": "pUC19"}, {"id_field": "id"}),
    "object_id is null": ({"id": "1", "object_id": None, "text": "t", "payload": {"a": 1}}, {"id_field": "id"}),
    "object_id is empty": ({"id": "1", "object_id": "", "text": "t", "payload": {"a": 1}}, {"id_field": "id"}),
    "object_id, but no payload": ({"object_id": "1", "text": "t", "payload": "p"}, {"id_field": "object_id"}),
    "an id by its row": ({"text": "t", "payload": {"text": "inner"}, "item_info": "i"}, {"id_from": "row"}),
    "an id by what it holds": ({"text": "t", "payload": {"text": "inner"}, "item_info": "i"}, {"id_from": "hash"}),
}


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(("row", "mapping"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_row_keeps_all_its_columns(tmp_path: Path, write: Write, row: Values, mapping: Values) -> None:
    """The text comes from the text field and every other column is metadata, even one called `payload`."""
    document = make_document(item(_rows(write(tmp_path, row), **mapping)[0]), Recipe(identity="m"))
    assert document.text == "t"
    kept = {name.partition(".")[0] for name in document.metadata} - {"upsert_hash"}
    assert kept >= {name for name, value in row.items() if value not in (None, "")} - {"text", mapping.get("id_field")}
    if isinstance(row.get("payload"), dict) and "text" in row["payload"]:
        stored = document.metadata.get("payload.text") or json.loads(str(document.metadata["payload"]))["text"]
        assert stored == "inner"


def test_an_id_of_a_hash_covers_all_columns(tmp_path: Path) -> None:
    """Rows that differ only outside a column called `payload` get different ids."""
    rows = [{"text": text, "payload": {"same": 1}} for text in ("one", "two")]
    path = write_lines(tmp_path / "a.jsonl", *(json.dumps(row).encode() for row in rows))
    assert len({item(row).object_id for row in _rows(path, id_from="hash")}) == 2


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("mapping", [{}, {"id_field": "id"}, {"id_field": "object_id"}, {"id_from": "row"}])
@pytest.mark.parametrize("info", [None, {"k": "v"}])
def test_a_row_in_item_form_ignores_the_mapping(
    tmp_path: Path, write: Write, mapping: Values, info: Values | None
) -> None:
    """In every format an object_id and objects make an item, and its other fields are named as ignored."""
    row = {"object_id": "a", "payload": {"text": "x"}, "id": "1", "title": "T"} | ({"item_info": info} if info else {})
    found = item(_rows(write(tmp_path, row), **mapping)[0])
    assert found[:3] == ("a", {"text": "x"}, info)
    assert found.ignored == ("id", "title")


def test_broken_json_in_a_table_of_items(tmp_path: Path) -> None:
    """Broken JSON is a reject if a table has only the columns of an item; otherwise it is text."""
    broken = _csv(tmp_path, {"object_id": "a", "payload": '{"text": '})
    assert reject(_rows(broken)[0]).detail.startswith("payload: not JSON")
    foreign = _csv(tmp_path, {"object_id": "a", "payload": "{name}, hello", "text": "t"})
    assert item(_rows(foreign)[0]).payload == {"payload": "{name}, hello", "text": "t"}


# -- rejects ------------------------------------------------------------------------------------------------------

NO_ITEMS: dict[str, tuple[Values, Values]] = {
    "no id": ({"id": "1", "payload": {"text": "six"}, "extra": 1}, {}),
    "a number as id": ({"object_id": 7, "payload": {"text": "six"}, "extra": 1.5}, {}),
    "null as id": ({"id": None, "text": "six", "tags": ["a"]}, {"id_field": "id"}),
    "payload is text": ({"object_id": "a", "payload": "six", "extra": "x"}, {}),
    "info is a number": ({"object_id": "a", "payload": {"text": "six"}, "item_info": 5, "extra": "x"}, {}),
}


@pytest.mark.parametrize("write", [_jsonl, _parquet, _parquet_of_texts])
@pytest.mark.parametrize(("row", "mapping"), NO_ITEMS.values(), ids=NO_ITEMS)
def test_a_reject_keeps_the_whole_row(tmp_path: Path, write: Write, row: Values, mapping: Values) -> None:
    """The reject of a row that is not an item keeps the row as `line`, with all its columns."""
    record = reject(_rows(write(tmp_path, row), **mapping)[0]).as_json()
    line = json.loads(record["line"])
    assert {
        name: json.loads(one) if isinstance(one, str) and one.startswith("{") else one for name, one in line.items()
    } == row
    again = reject(_rows(write_lines(tmp_path / "b.jsonl", json.dumps(record).encode()), **mapping)[0])
    assert again.line == record["line"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id,text\n,hello\n", '{"id": "", "text": "hello"}'),
        ('id,text\n1,"a "b""\n', '1,"a "b""'),
        ("id,text\n1,a,b\n", "1,a,b"),
        ("id,text\n1\n", "1"),
    ],
)
def test_a_reject_keeps_a_row_of_csv(tmp_path: Path, text: str, line: str) -> None:
    """A row of a table is kept as JSON by its columns, or as its own text if its number of fields is wrong."""
    path = tmp_path / "a.csv"
    path.write_text(text)
    assert reject(_rows(path, id_field="id")[0]).line == line


@pytest.mark.parametrize("content", [b'"str"', b"[1, 2]", b"7", b"null", b'{"object_id": "a"', b'{"a": 1e400}'])
def test_a_reject_keeps_a_line_that_is_not_an_object(tmp_path: Path, content: bytes) -> None:
    """A line that is not an object is kept unchanged."""
    assert reject(_rows(write_lines(tmp_path / "a.jsonl", content))[0]).line == content.decode()


def _again(folder: Path, record: Values, **mapping: Any) -> Item | Reject:
    return _rows(write_lines(folder / "again.jsonl", json.dumps(record).encode()), **mapping)[0]


@pytest.mark.parametrize("write", FORMATS)
def test_the_row_kept_by_a_reject_is_read(tmp_path: Path, write: Write) -> None:
    """A reject is read as the row that it keeps, by the mapping that the row needs, with corrections made there."""
    row = {"id": "a6", "payload": {"text": "six"}, "extra": "x"}
    if write is _csv:
        record = reject(_rows(write(tmp_path, row))[0]).as_json()
    else:
        record = reject(_rows(write(tmp_path, row), id_field="key")[0]).as_json()
    found = item(_again(tmp_path, record, id_field="id"))
    payload = found.payload or {}
    assert (found.object_id, payload["extra"]) == ("a6", "x")
    assert found == item(_rows(write(tmp_path, row), id_field="id")[0])._replace(source=found.source, row=found.row)
    corrected = record["line"].replace('"id":', '"object_id":')
    assert item(_again(tmp_path, record | {"line": corrected})).object_id == "a6"


def test_corrected_fields_of_a_reject_win(tmp_path: Path) -> None:
    """Corrected fields that make an item win over the kept row; the reject's other fields are not fields of the item."""
    record = reject(_rows(write_lines(tmp_path / "a.jsonl", b'{"id": 1, "title": "x"}'))[0]).as_json()
    for mapping in ({}, {"id_field": "id"}, {"id_from": "row"}):
        found = item(_again(tmp_path, record | {"object_id": "a", "payload": {"text": "y"}}, **mapping))
        assert (found[:3], found.ignored) == (("a", {"text": "y"}, None), ())


def test_a_kept_row_of_a_table_needs_no_mapping(tmp_path: Path) -> None:
    """A kept row of a table is read like one: its columns are the payload, or hold JSON."""
    flat = reject(_rows(_csv(tmp_path, {"object_id": "", "text": "t"}))[0]).as_json()
    corrected = flat | {"line": flat["line"].replace('""', '"a"')}
    assert item(_again(tmp_path, corrected))[:2] == ("a", {"text": "t"})
    nested = reject(_rows(_csv(tmp_path, {"object_id": "", "payload": {"text": "t"}}))[0]).as_json()
    corrected = nested | {"line": nested["line"].replace('""', '"a"')}
    assert item(_again(tmp_path, corrected, id_field="id"))[:2] == ("a", {"text": "t"})


def test_a_row_that_is_too_long_to_keep(tmp_path: Path) -> None:
    """Only the beginning of a long row is kept, which is not JSON: its reject says where to find the whole row."""
    path = _jsonl(tmp_path, {"id": "a", "text": "x" * 20_000})
    record = reject(_rows(path)[0]).as_json()
    assert len(record["line"]) == 10_000
    again = reject(_again(tmp_path, record, id_field="id"))
    assert again.detail == f"its `line` was cut short; correct it in {path}, row 1"


def test_rejects_of_a_load_are_loaded(tiny: Terminal) -> None:
    """`info --failed` prints a file that `run` loads once the mapping is right, without losing a field."""
    (tiny.folder / "m.jsonl").write_text(
        '{"id":"a6","payload":{"text":"six"},"extra":1}\n"str"\n{"object_id":"g","payload":{"text":"good"}}\n'
    )
    tiny.type("upsert-cli run m.jsonl --task-id mm", expect=3)
    failed = tiny.type("upsert-cli info mm --failed").stdout
    assert [json.loads(line)["line"] for line in failed.splitlines()] == [
        '{"id":"a6","payload":{"text":"six"},"extra":1}',
        '"str"',
    ]
    (tiny.folder / "failed.jsonl").write_text(failed)
    tiny.type("upsert-cli run failed.jsonl --id-field id --text-field payload.text", expect=3)
    record = tiny.records()["a6"]
    assert record["document"] == "six"
    assert record["metadata"]["extra"] == 1


# -- fields that are not stored -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "options"), [(_jsonl, ""), (_csv, "--split"), (_parquet, "--dry-run"), (_jsonl, "--id-field id")]
)
def test_a_load_warns_once_of_fields_that_are_not_stored(tiny: Terminal, write: Write, options: str) -> None:
    """A load of items warns once of fields that are not part of them, with the number of rows; `-q` prints nothing."""
    path = write(tiny.folder, {"object_id": "a", "payload": {"text": "x"}, "title": "T", "id": "1"}).name
    said = tiny.type(f"upsert-cli run {path} {options}").stderr
    assert said.count("warning:") == 1
    assert "1 row in item form has fields that are not stored: `title`, `id`" in said
    assert tiny.type(f"upsert-cli run {path} {options} -q").stderr == ""


def test_fields_that_are_not_stored_are_counted_over_batches(tiny: Terminal) -> None:
    """Rows of several batches are counted together, and only the first of many names are shown."""
    rows = [
        {"object_id": f"o{number}", "payload": {"text": "x"}} | ({f"f{number:03}": 1} if number % 2 else {})
        for number in range(200)
    ]
    tiny.write("a.jsonl", rows)
    said = tiny.type("upsert-cli run a.jsonl --batch-size 16").stderr
    assert "100 rows in item form have fields that are not stored: `f001`, `f003`" in said
    assert "`f039`, ..." in said


def test_a_foreign_row_has_no_fields_that_are_not_stored(tmp_path: Path) -> None:
    """A mapped row is stored completely, so there is nothing to warn about."""
    assert item(_rows(_jsonl(tmp_path, {"id": "1", "text": "t", "more": 1}), id_field="id")[0]).ignored == ()
    with pytest.raises(ItemError):
        make_document(item(_rows(_jsonl(tmp_path, {"id": "1"}), id_field="id")[0]), Recipe(identity="m"))


def test_an_unreadable_column_that_is_not_stored(tmp_path: Path) -> None:
    """An item of Parquet is loaded although another column is unreadable; a foreign row is rejected."""
    bad = pa.array([10**7], pa.date32())
    table = pa.table({"object_id": ["a"], "payload": [{"text": "x"}], "at": bad})
    pq.write_table(table, tmp_path / "a.parquet")
    for mapping in ({}, {"id_field": "id"}):
        found = item(_rows(tmp_path / "a.parquet", **mapping)[0])
        assert (found[:3], found.ignored) == (("a", {"text": "x"}, None), ("at",))
    pq.write_table(table.rename_columns(["id", "payload", "at"]), tmp_path / "b.parquet")
    assert "`at` cannot be read" in reject(_rows(tmp_path / "b.parquet", id_field="id")[0]).detail
