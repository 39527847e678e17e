"""JSONL, also hostile: each good line becomes an item, each other one a reject with its file and row."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from tests.support.reading import GOOD, exactly, fuzz, item, read, reject, rows_of, sources_of, write_lines
from upsert_cli.errors import SourceUnreadable, Stage
from upsert_cli.sources.formats import HEAD, kind_of_file
from upsert_cli.sources.item import MAX_ROW, Item, Position, Reject
from upsert_cli.sources.rows import Rows

# -- good rows ----------------------------------------------------------------------------------------------------


def test_an_item_of_jsonl(tmp_path: Path) -> None:
    """An item has its fields, file and line; other fields of the line are omitted and named."""
    path = write_lines(
        tmp_path / "a.jsonl", b'{"object_id": "x", "payload": {"n": 1}, "item_info": {"k": null}, "more": 1}'
    )
    assert rows_of(path) == [Item("x", {"n": 1}, {"k": None}, str(path), 1, ("more",))]


def test_payload_and_info_may_be_missing(tmp_path: Path) -> None:
    """Only the id is required, and null means the same as a missing field."""
    path = write_lines(
        tmp_path / "a.jsonl", b'{"object_id": "x"}', b'{"object_id": "y", "payload": null, "item_info": null}'
    )
    assert [item(row)[:3] for row in rows_of(path)] == [("x", None, None), ("y", None, None)]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b"", []),
        (b"\n\n \t\r\n", []),
        (GOOD, [1]),
        (b"\xef\xbb\xbf" + GOOD + b"\n", [1]),
        (b"\xef\xbb\xbf", []),
        (GOOD + b"\r\n" + GOOD + b"\r\n", [1, 2]),
        (b"\n" + GOOD + b"\n\n  \n" + GOOD + b"\n\n", [2, 5]),
    ],
)
def test_lines_are_numbered_as_in_an_editor(tmp_path: Path, content: bytes, rows: list[int]) -> None:
    """Blank lines, CRLF, a byte-order mark and a missing last line break affect only the numbers."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert [item(row).row for row in rows_of(path)] == rows
    assert [source.total for source in sources_of(path)] == [len(rows)]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**50, 0, -1])
def test_integers_of_any_size(tmp_path: Path, number: int) -> None:
    """An integer of any size is read exactly, at any depth."""
    payload = {"n": number, "l": [1.5, [number]], "d": {"e": number}, "text": "12345678901234567890"}
    path = write_lines(tmp_path / "a.jsonl", json.dumps({"object_id": "x", "payload": payload}).encode())
    assert exactly(item(rows_of(path)[0]).payload) == exactly(payload)


@pytest.mark.parametrize("text", ["1e300", "18446744073709551616.0", "-1E+20", "0.12345678901234567890"])
def test_floats_stay_floats(tmp_path: Path, text: str) -> None:
    """A number with a point or an exponent is a float, however large."""
    path = write_lines(tmp_path / "a.jsonl", b'{"object_id": "x", "payload": {"n": %b}}' % text.encode())
    payload = item(rows_of(path)[0]).payload
    assert payload is not None
    assert exactly(payload["n"]) == exactly(float(text))


def test_the_last_of_a_repeated_key_wins(tmp_path: Path) -> None:
    """A repeated key has its last value with both parsers."""
    path = write_lines(
        tmp_path / "a.jsonl",
        b'{"object_id": "x", "payload": {"n": 1, "n": 2}}',
        b'{"object_id": "x", "payload": {"n": 99999999999999999999, "n": 2}}',
        b'{"object_id": "x", "payload": {"m": 99999999999999999999, "n": 1, "n": 2}}',
    )
    assert [(item(row).payload or {})["n"] for row in rows_of(path)] == [2, 2, 2]


# -- bad rows -----------------------------------------------------------------------------------------------------

HOSTILE = {
    "cut off": (b'{"object_id": "a", "payload": {"text": "he', "column 43"),
    "not UTF-8": (b'{"object_id": "a", "payload": {"text": "\xff"}}', "byte 0xff at byte 41"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "UTF-16"),
    "NaN": (b'{"object_id": "a", "payload": {"n": NaN}}', "NaN and Infinity"),
    "infinity": (b'{"object_id": "a", "payload": {"n": -Infinity}}', "NaN and Infinity"),
    "infinite": (b'{"object_id": "a", "payload": {"n": 1e999}}', r"^payload\.n: a number is out of range"),
    "infinite in a list": (
        b'{"object_id": "a", "payload": {"v": [1, {"n": -1e400}]}}',
        r"^payload\.v\.1\.n: a number is out",
    ),
    "infinite, cut off": (b'{"object_id": "a", "payload": {"n": 1e999', r"^a number is out of range"),
    "infinite alone": (b"123123e100000", r"^a number is out of range"),
    "a JSON sequence": (b"\x1e" + GOOD, r"RFC 7464; `tr -d '\\036'`"),
    "two objects with a space": (GOOD + b" " + GOOD, r"column 50.*jq -c \."),
    "NaN beside a long integer": (b'{"object_id": "a", "payload": {"n": NaN, "m": 99999999999999999999}}', "NaN"),
    "half a pair": (b'{"object_id": "a", "payload": {"text": "\\ud800"}}', "surrogate"),
    "nested": (b'{"object_id":"a","payload":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, "nested"),
    "nested, cut off": (b"[" * 100_000, "nested"),
    "nested, long integer": (b'{"a":' * 1_000 + b"99999999999999999999" + b"}" * 1_000, "nested"),
    "brace": (b"{", "jq -c"),
    "bracket": (b"[", "jq -c"),
    "closing": (b"  },", "jq -c"),
    "a line of pretty-printed JSON": (b'    "object_id": "a",', "jq -c"),
    "an element of an array": (GOOD + b",", r"jq -c '\.\[\]'"),
    "an array": (b"[" + GOOD + b", " + GOOD + b"]", r"a list.*jq -c '\.\[\]'"),
    "two objects": (GOOD + GOOD, "column 49"),
    "text": (b'"abc"', "not text"),
    "a number": (b"17", "not a number"),
    "null": (b"null", "not null"),
    "true": (b"true", "not true or false"),
    "CSV": (b"object_id,text", "column 1.*--format csv"),
    "a row of CSV": (b'17,"text, more",x', "--format csv"),
    "TSV": (b"id\ttext", "--format csv"),
    "Windows-1252": ('{"object_id": "caf\xe9"}'.encode("cp1252"), "byte 0xe9 at byte 19.*iconv -f WINDOWS-1252"),
    "no JSON": (b"hello world", r"column 1$"),
    "zeros": (b"\0" * 100, "column 1"),
    "a tab in a text": (b'{"object_id": "a\tb"}', "control character"),
    "no id": (b'{"payload": {"text": "hello"}}', "object_id is missing.*payload.*--id-field"),
    "nothing": (b"{}", "object_id is missing.*nothing"),
    "null as id": (b'{"object_id": null}', "object_id is null"),
    "empty id": (b'{"object_id": ""}', "object_id is empty"),
    "a number as id": (b'{"object_id": 7}', "object_id is a number"),
    "an object as id": (b'{"object_id": {}}', "object_id is an object"),
    "NUL in the id": (b'{"object_id": "a\\u0000b"}', "NUL"),
    "payload is text": (b'{"object_id": "a", "payload": "{}"}', "payload is text, not an object"),
    "payload is a list": (b'{"object_id": "a", "payload": []}', "payload is a list"),
    "payload is false": (b'{"object_id": "a", "payload": false}', "payload is true or false"),
    "item_info is a number": (b'{"object_id": "a", "item_info": 1.5}', "item_info is a number"),
}


@pytest.mark.parametrize(("line", "detail"), HOSTILE.values(), ids=HOSTILE)
def test_a_bad_line_costs_only_itself(tmp_path: Path, line: bytes, detail: str) -> None:
    """Each kind of bad line is rejected with its number and a reason, its neighbours are read, and resuming works."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + line.replace(b"\n", b" ") + b"\n" + GOOD)
    rows = read(path)
    assert [type(row) for row, _ in rows] == [Item, Reject, Item]
    bad = reject(rows[1][0])
    assert (bad.source, bad.row, bad.stage) == (str(path), 2, Stage.READING)
    assert re.search(detail, bad.detail), bad.detail
    assert bad.detail.isprintable()
    assert json.loads(json.dumps(bad.as_json(), allow_nan=False))["failure_stage"] == "on_reading"
    assert read(path, start=rows[0][1]) == rows[1:]
    assert read(path, start=rows[1][1]) == rows[2:]


def test_a_reject_can_be_corrected(tmp_path: Path) -> None:
    """A reject has the known fields of a bad row and the row itself, in the shape of the contract."""
    lines = (
        b'{"object_id": 7, "payload": {"text": "x"}, "item_info": {"k": 99999999999999999999}}',
        b'{"id": 7,  "text": "x"}',
    )
    path = write_lines(tmp_path / "a.jsonl", *lines)
    assert [reject(row).as_json() for row in rows_of(path)] == [
        {
            "object_id": 7,
            "payload": {"text": "x"},
            "item_info": {"k": 99999999999999999999},
            "detail": "object_id is a number, not text; `--id-field object_id` takes integers as ids too",
            "failure_stage": "on_reading",
            "source": str(path),
            "row": 1,
            "line": lines[0].decode(),
        },
        {
            "object_id": None,
            "payload": {"id": 7, "text": "x"},
            "item_info": None,
            "detail": "object_id is missing (there: id, text); --id-field takes the id from another field",
            "failure_stage": "on_reading",
            "source": str(path),
            "row": 2,
            "line": lines[1].decode(),
        },
    ]


def test_a_reject_of_a_row_nested_too_deep(tmp_path: Path) -> None:
    """A row that is nested too deep for JSON writers can still be reported."""
    nested = b'{"object_id": 7, "item_info": {"k": 1}, "payload": ' + b'{"a":' * 900 + b"1" + b"}" * 901
    [bad] = rows_of(write_lines(tmp_path / "a.jsonl", nested))
    written = json.dumps(reject(bad).as_json())
    assert json.loads(written)["item_info"] == {"k": 1}


def test_a_truncated_last_line(tmp_path: Path) -> None:
    """A broken last line without a line break may be truncated, and its reject asks whether the file is complete."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b"\n" + GOOD[:-5])
    assert "is the file complete?" in reject(rows_of(path)[1]).detail
    path.write_bytes(GOOD[:-5] + b"\n" + GOOD)
    assert "line break" not in reject(rows_of(path)[0]).detail


def test_a_json_array_and_pretty_printed_json(tmp_path: Path) -> None:
    """A JSON file that is not JSONL has only rejects, and the first one says what to do."""
    objects = [{"object_id": "a", "payload": {"text": "x"}}] * 2
    for name, text in {"array": json.dumps(objects), "pretty": json.dumps(objects, indent=2)}.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(text)
        rows = [reject(row) for row in rows_of(path)]
        assert "jq -c" in rows[0].detail


def test_a_line_that_is_not_an_item_is_kept(tmp_path: Path) -> None:
    """The reject of a line that is not an item keeps the line, in valid Unicode and of bounded length."""
    long = b'{"object_id": "' + b"x" * 20_000
    path = write_lines(tmp_path / "a.jsonl", b'{"object_id": "a", \r', b'{"caf\xe9": "\xc3\xa9"', long, b"[1]", GOOD)
    shown = [reject(row).as_json() for row in rows_of(path)[:4]]
    assert [record.get("line") for record in shown] == [
        '{"object_id": "a", ',
        '{"caf\\xe9": "\u00e9"',
        long[:10_000].decode(),
        "[1]",
    ]
    assert all(record["payload"] is None for record in shown)


def test_an_endless_line_costs_no_memory(tmp_path: Path) -> None:
    """A line beyond the limit is one reject, keeps the numbering, and is never held in memory."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b"\n")
        file.seek(40 << 20, 1)  # a hole: zeros that take no disk
        file.write(b"\n" + GOOD + b"\n")
    sources = sources_of(path)
    tracemalloc.start()
    rows = list(Rows(sources=sources))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(type(row), row.row) for row, _ in rows] == [(Item, 1), (Reject, 2), (Item, 3)]
    assert "larger than 8 MiB" in reject(rows[1][0]).detail
    assert peak < 20 << 20
    assert [source.total for source in sources] == [3]
    assert read(path, start=rows[1][1]) == rows[2:]


@pytest.mark.parametrize(("excess", "kind"), [(0, Item), (1, Reject)])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_the_limit_of_a_line(tmp_path: Path, excess: int, kind: type, end: bytes) -> None:
    """The limit of a line does not include its line break."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + b" " * (MAX_ROW + excess - len(GOOD)) + end)
    assert [type(row) for row in rows_of(path)] == [kind]


@fuzz(content=st.lists(st.binary() | st.sampled_from([GOOD, b"", b" ", b"\xef\xbb\xbf", b"{", b"[1]"])))
def test_any_bytes_are_read(tmp_path: Path, content: list[bytes]) -> None:
    """Each line of any bytes that is not blank is an item or a reject, and the total is known before."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(content))
    assume(kind_of_file(path.read_bytes()[:HEAD]) is None)
    rows = rows_of(path)
    assert [source.total for source in sources_of(path)] == [len(rows)]
    for row in rows:
        assert isinstance(row, Item) or json.dumps(row.as_json(), allow_nan=False).encode()


# -- resuming -----------------------------------------------------------------------------------------------------

lines = st.sampled_from([GOOD, b"", b"  ", b"{", GOOD + b"\r", GOOD + b" " * 300])


@fuzz(files=st.lists(st.lists(lines, max_size=6), min_size=1, max_size=3), end=st.sampled_from([b"", b"\n"]))
def test_resuming_anywhere_gives_the_rest(tmp_path: Path, files: list[list[bytes]], end: bytes) -> None:
    """From the position of each row exactly the rows after it are read, even if nothing before them is intact."""
    paths = [tmp_path / f"{number}.jsonl" for number in range(len(files))]
    contents = [b"\n".join(content) + end for content in files]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    sources = sources_of(*paths)
    rows = list(Rows(sources=sources))
    for number, (_, position) in enumerate(rows):
        at = Position.from_json(json.loads(json.dumps(position.as_json())))
        for path, content in zip(paths[: at.source], contents, strict=False):
            path.write_bytes(b"\xff" * len(content))
        paths[at.source].write_bytes(b"\xff" * at.offset + contents[at.source][at.offset :])
        assert list(Rows(sources=sources, start=at)) == rows[number + 1 :]


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    """A file that is removed after it was found ends the reading after the rows before it."""
    paths = [write_lines(tmp_path / name, GOOD) for name in ("a.jsonl", "b.jsonl")]
    sources = sources_of(*paths)
    paths[1].unlink()
    rows = iter(Rows(sources=sources))
    assert item(next(rows)[0]).source == str(paths[0])
    with pytest.raises(SourceUnreadable, match=r"b\.jsonl cannot be read \(No such file") as caught:
        next(rows)
    assert caught.value.exit_code == 1


# -- files that are not in item form ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id_field", "line", "object_id", "payload"),
    [
        ("id", b'{"id": "x", "text": "t", "n": 1}', "x", {"text": "t", "n": 1}),
        ("id", b'{"id": 7, "text": "t"}', "7", {"text": "t"}),
        ("id", b'{"id": 99999999999999999999}', "99999999999999999999", {}),
        ("meta.id", b'{"meta": {"id": "x", "k": 1}}', "x", {"meta": {"id": "x", "k": 1}}),
        ("meta.id", b'{"meta.id": "y", "meta": {"id": "x"}}', "y", {"meta": {"id": "x"}}),
        ("id", b'{"id": "x", "payload": {"text": "t"}, "n": 1}', "x", {"payload": {"text": "t"}, "n": 1}),
        ("id", b'{"id": "x", "payload": "text"}', "x", {"payload": "text"}),
        ("payload.id", b'{"payload": {"id": "x"}}', "x", {"payload": {"id": "x"}}),
    ],
)
def test_the_id_comes_from_another_field(
    tmp_path: Path, id_field: str, line: bytes, object_id: str, payload: dict[str, object]
) -> None:
    """Without an `object_id`, the payload is the whole row except its id, whatever the fields are called."""
    path = write_lines(tmp_path / "a.jsonl", line[:-1] + b', "item_info": {"i": 1}}')
    assert rows_of(path, id_field=id_field) == [Item(object_id, payload, {"i": 1}, str(path), 1)]


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        (b'{"text": "t"}', r"meta\.id is missing \(there: text\)$"),
        (b'{"meta": "x"}', r"meta\.id is missing"),
        (b'{"meta": {"id": null}}', r"meta\.id is null"),
        (b'{"meta": {"id": 1.5}}', r"meta\.id 1\.5 is a float; the column has to be written as integers or text"),
        (b'{"meta": {"id": true}}', r"meta\.id is true or false"),
        (b'{"meta": {"id": ""}}', r"meta\.id is empty"),
    ],
)
def test_an_id_field_without_an_id(tmp_path: Path, line: bytes, detail: str) -> None:
    """A row whose id field holds no id is rejected, naming that field."""
    [bad] = rows_of(write_lines(tmp_path / "a.jsonl", line), id_field="meta.id")
    assert re.match(detail, reject(bad).detail)
