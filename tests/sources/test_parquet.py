"""Parquet files give the same items as JSONL, from any row on and with any types."""

from __future__ import annotations

import base64
import datetime
import decimal
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.support.reading import (
    exactly,
    fuzz,
    item,
    payloads,
    read,
    read_in_a_process,
    reject,
    rows_of,
    sources_of,
    write_lines,
    write_parquet,
)
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import SourceUnreadable
from upsert_cli.sources.find import find_files
from upsert_cli.sources.item import Item, Reject
from upsert_cli.sources.parquet_pages import pages_of
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

UTC = datetime.UTC


def _payload(path: Path) -> Any:
    [row] = rows_of(path)
    return item(row).payload


# -- the same items as JSONL --------------------------------------------------------------------------------------


@fuzz(
    rows=st.lists(st.tuples(payloads | st.none(), payloads | st.none()), min_size=1, max_size=5),
    escaped=st.booleans(),
    kind=st.sampled_from([pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]),
)
def test_json_text_gives_the_items_of_jsonl(
    tmp_path: Path, *, rows: list[tuple[Any, Any]], escaped: bool, kind: pa.DataType
) -> None:
    """Any payload and info, written as a line and as JSON text in a column of any kind of text, are the same items."""
    texts = [[None if part is None else json.dumps(part, ensure_ascii=escaped) for part in row] for row in rows]
    jsonl = write_lines(
        tmp_path / "a.jsonl",
        *(
            json.dumps({"object_id": f"i{n}", "payload": payload, "item_info": info}, ensure_ascii=escaped).encode()
            for n, (payload, info) in enumerate(rows)
        ),
    )
    parquet = write_parquet(
        tmp_path / "a.parquet",
        {
            "object_id": [f"i{n}" for n in range(len(rows))],
            "payload": pa.array([payload for payload, _ in texts], pa.string()).cast(kind),
            "item_info": pa.array([info for _, info in texts], pa.string()).cast(kind),
        },
    )
    lines, records = [[item(row) for row in rows_of(path)] for path in (jsonl, parquet)]
    assert [exactly(row[:3]) for row in lines] == [exactly(row[:3]) for row in records]
    assert [row.row for row in lines] == [row.row for row in records]
    assert [exactly(row.payload) for row in lines] == [exactly(payload) for payload, _ in rows]


def test_a_struct_is_an_object(tmp_path: Path) -> None:
    """A struct is an object; a field that a row lacks is null, since a column cannot express absence."""
    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "object_id": ["a", "b", "c"],
            "payload": [{"text": "x", "tags": ["t", None]}, {"text": "y", "deep": {"n": 2**53 + 1}}, None],
            "other": [1, 2, 3],
        },
    )
    assert [item(row)[:3] for row in rows_of(path)] == [
        ("a", {"text": "x", "tags": ["t", None], "deep": None}, None),
        ("b", {"text": "y", "tags": None, "deep": {"n": 2**53 + 1}}, None),
        ("c", None, None),
    ]


def test_a_map_is_an_object(tmp_path: Path) -> None:
    """A map with keys of any type is an object."""
    kind = pa.map_(pa.int64(), pa.string())
    path = write_parquet(
        tmp_path / "a.parquet",
        {"object_id": ["a", "b"], "payload": pa.array([[(1, "x"), (2, None)], None], kind)},
    )
    assert [item(row).payload for row in rows_of(path)] == [{"1": "x", "2": None}, None]


def test_a_dot_in_a_column_name_is_not_a_path(tmp_path: Path) -> None:
    """A column named like a field of the payload is not mistaken for it."""
    path = write_parquet(
        tmp_path / "a.parquet", {"payload.text": ["wrong"], "payload": [{"text": "right"}], "object_id": ["a"]}
    )
    assert _payload(path) == {"text": "right"}


def test_mapped_columns_make_up_the_payload(tmp_path: Path) -> None:
    """With an id field all columns make up the payload, even one called `payload`."""
    flat = write_parquet(tmp_path / "flat.parquet", {"id": [1], "text": ["t"], "payload": ["just text"]})
    assert rows_of(flat, id_field="id") == [Item("1", {"text": "t", "payload": "just text"}, None, str(flat), 1)]
    nested = write_parquet(tmp_path / "nested.parquet", {"id": [1], "text": ["t"], "payload": ['{"n": 1}']})
    assert rows_of(nested, id_field="id") == [Item("1", {"text": "t", "payload": '{"n": 1}'}, None, str(nested), 1)]


def test_a_foreign_row_without_a_mapping_is_rejected(tmp_path: Path) -> None:
    """A row without the fields of an item is rejected, and its reject names the fields that it has."""
    [bad] = rows_of(write_parquet(tmp_path / "a.parquet", {"id": [1], "text": ["t"]}))
    assert "there: id, text" in reject(bad).detail
    assert reject(bad).payload == {"id": 1, "text": "t"}


# -- values -------------------------------------------------------------------------------------------------------

MOMENT = datetime.datetime(2026, 11, 23, 21, 3, 12, 5, tzinfo=UTC)

VALUES: dict[str, tuple[pa.Array, Any]] = {
    "timestamp": (pa.array([MOMENT]), "2026-11-23T21:03:12.000005+00:00"),
    "no zone": (pa.array([datetime.datetime(2026, 11, 23)]), "2026-11-23T00:00:00"),
    "nanoseconds": (pa.array([1_001], pa.timestamp("ns")), "1970-01-01T00:00:00.000001001"),
    "nanoseconds in a list": (pa.array([[1_001]], pa.list_(pa.timestamp("ns"))), ["1970-01-01T00:00:00.000001001"]),
    "date": (pa.array([datetime.date(2026, 11, 23)]), "2026-11-23"),
    "time": (pa.array([datetime.time(1, 2, 3)]), "01:02:03"),
    "nanosecond of a day": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
    "duration": (pa.array([datetime.timedelta(days=1, microseconds=5)]), "PT86400.000005S"),
    "back in time": (pa.array([datetime.timedelta(seconds=-90)]), "-PT90S"),
    "decimal": (pa.array([decimal.Decimal("1.50")]), "1.50"),
    "bytes": (pa.array([b"\xff\x00"]), base64.b64encode(b"\xff\x00").decode()),
    "small float": (pa.array([1.5], pa.float16()), 1.5),
    "NaN": (pa.array([float("nan")]), "NaN"),
    "infinity": (pa.array([[float("-inf")]]), ["-Infinity"]),
    "large": (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
    "category": (pa.array(["x"]).dictionary_encode(), "x"),
    "map": (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), {"k": 1}),
    "null": (pa.array([None], pa.null()), None),
}


@pytest.mark.parametrize(("column", "expected"), VALUES.values(), ids=VALUES)
def test_values_that_json_does_not_know(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    """A value of any type is read, without any other package, and reported as JSON."""
    payload = pa.StructArray.from_arrays([column], ["v"])
    path = write_parquet(tmp_path / "a.parquet", {"object_id": pa.array([None], pa.string()), "payload": payload})
    [bad] = rows_of(path)
    assert exactly(reject(bad).as_json()["payload"]) == exactly({"v": expected})


NANOS = pa.timestamp("ns")

HUB: dict[str, tuple[pa.Array, Any]] = {
    "list of nanoseconds": (pa.array([[1_001]], pa.large_list(NANOS)), '["1970-01-01T00:00:00.000001001"]'),
    "pair of nanoseconds": (
        pa.array([[1, 2000]], pa.list_(NANOS, 2)),
        '["1970-01-01T00:00:00.000000001","1970-01-01T00:00:00.000002"]',
    ),
    "embedding": (pa.array([[0.5, 2.0]], pa.list_(pa.float32(), 2)), "[0.5,2.0]"),
    "view": (pa.array([["a"]], pa.list_view(pa.string_view())), '["a"]'),
    "messages": (pa.array([[{"role": "user", "content": "hi"}]]), '[{"content":"hi","role":"user"}]'),
    "dictionary": (pa.array(["en"]).dictionary_encode(), "en"),
    "index": (pa.array([7]), 7),
    "label": (pa.array([3], pa.int8()), 3),
    "unsigned": (pa.array([2**64 - 1], pa.uint64()), "18446744073709551615"),
    "half": (pa.array([1.5], pa.float16()), 1.5),
    "date": (pa.array([datetime.date(2026, 11, 23)]), "2026-11-23"),
    "bytes": (pa.array([b"\x00\xff"], pa.binary(2)), "AP8="),
    "uuid": (pa.array([b"\0" * 15 + b"\x01"], pa.uuid()), "00000000-0000-0000-0000-000000000001"),
}


@pytest.mark.parametrize(("column", "expected"), HUB.values(), ids=HUB)
def test_columns_of_a_dataset_hub(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    """Columns of every type that dataset hubs use become metadata, in a file with other names and without ids."""
    path = write_parquet(tmp_path / "train.parquet", {"review": ["good"], "more": column, "uid": pa.nulls(1)})
    [row] = [row for row, _ in Rows(sources=sources_of(path), id_from="row")]
    document = make_document(item(row), Recipe(text_fields=("review",), identity="m"))
    assert (document.id, document.text) == ("train.parquet:1", "good")
    assert document.metadata == {"more": expected, "upsert_hash": document.upsert_hash}


def test_structs_and_maps_of_a_dataset_hub(tmp_path: Path) -> None:
    """Objects in columns become dotted keys, and a UUID is an id as well as a text is."""
    ids = pa.array([b"\0" * 15 + b"\x01"], pa.uuid())
    image = pa.array(
        [{"bytes": b"\xff", "path": None, "at": 1}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("at", NANOS)]),
    )
    scores = pa.array([[("a", 1.5), ("b", None)]], pa.map_(pa.string(), pa.float64()))
    path = write_parquet(tmp_path / "a.parquet", {"id": ids, "text": ["x"], "image": image, "scores": scores})
    document = make_document(item(rows_of(path, id_field="id")[0]), Recipe(identity="m"))
    assert document.id == "00000000-0000-0000-0000-000000000001"
    assert {key: value for key, value in document.metadata.items() if key != "upsert_hash"} == {
        "image.bytes": "/w==",
        "image.at": "1970-01-01T00:00:00.000000001",
        "scores.a": 1.5,
    }


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    """A file with two columns of one name is refused, since the name is ambiguous."""
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["{}"]), pa.array([1]), pa.array([2])], ["object_id", "payload", "x", "x"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    for id_field in (None, "object_id"):
        with pytest.raises(SourceUnreadable, match=r"a\.parquet.*two columns are called `x`; rename one"):
            rows_of(tmp_path / "a.parquet", id_field=id_field)


def test_two_columns_of_one_name_and_other_types(tmp_path: Path) -> None:
    """A file with two columns of one name and different types is refused too, since no reject could keep both."""
    table = pa.Table.from_arrays([pa.array([1]), pa.array([[None]], pa.list_(pa.timestamp("ns")))], ["x", "x"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(SourceUnreadable, match="two columns are called `x`; rename one"):
        rows_of(tmp_path / "a.parquet")


# -- bad rows -----------------------------------------------------------------------------------------------------

NOT_UTF8 = pa.StringArray.from_buffers(
    3, pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2, 4, 6))), pa.py_buffer(b"ok\xff\xfeok")
)

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "text that is not UTF-8": ({"payload": pa.StructArray.from_arrays([NOT_UTF8], ["text"])}, "decode byte 0xff"),
    "JSON that is not UTF-8": ({"payload": pa.array([b"{}", b'{"a": "\xff"}', b"{}"])}, "payload: not UTF-8"),
    "no JSON": ({"payload": ["{}", "{", "{}"]}, "payload: "),
    "empty text": ({"payload": ["{}", "", "{}"]}, "payload: not JSON"),
    "a list as JSON": ({"item_info": ["{}", "[1]", "{}"]}, "item_info is a list"),
    "a date that Python cannot hold": ({"payload": pa.StructArray.from_arrays([pa.array([1, 10**8, 1], pa.date32())], ["d"])}, "out of range"),
    "an unknown time zone": ({"payload": pa.StructArray.from_arrays([pa.array([None, 1, None], pa.timestamp("us", "No/Where"))], ["d"])}, "cannot be read"),
    "no id": ({"object_id": ["i", None, "k"]}, "object_id is null"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "detail"), BAD.values(), ids=BAD)
def test_a_bad_row_costs_only_itself(tmp_path: Path, columns: dict[str, Any], detail: str) -> None:
    """Each kind of bad row is rejected with its number and a reason, and its neighbours are read."""
    rows = rows_of(write_parquet(tmp_path / "a.parquet", {"object_id": ["i", "j", "k"]} | columns))
    bad = reject(rows[1])
    assert bad.row == 2
    assert detail in bad.detail
    assert json.dumps(bad.as_json(), allow_nan=False)
    assert [type(row) for row in rows] == [Item, Reject, Item]


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        ({"object_id": pa.array([b"\xff", b"\xfe"])}, "object_id holds bytes that are not UTF-8: byte 0xf"),
        ({"object_id": [1, 2]}, "object_id is a number"),
        ({"object_id": ["i", "j"], "payload": [[1], [2]]}, "payload is a list"),
    ],
)
def test_a_column_of_the_wrong_type(tmp_path: Path, columns: dict[str, Any], detail: str) -> None:
    """A column that can hold no item is a reject for every row, since rows are counted."""
    rows = rows_of(write_parquet(tmp_path / "a.parquet", columns))
    assert [detail in reject(row).detail for row in rows] == [True, True]


def test_a_row_that_is_too_large(tmp_path: Path) -> None:
    """A row beyond the limit of a JSONL line is rejected as in JSONL."""
    texts = ["x", "y" * (9 << 20), "z"]
    for name, payload in {
        "struct": [{"text": text} for text in texts],
        "json": [json.dumps({"text": text}) for text in texts],
    }.items():
        rows = rows_of(write_parquet(tmp_path / f"{name}.parquet", {"object_id": ["i", "j", "k"], "payload": payload}))
        assert [type(row) for row in rows] == [Item, Reject, Item]
        assert "larger than 8 MiB" in reject(rows[1]).detail


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    "options",
    [{}, {"use_dictionary": False, "column_encoding": {"payload": "DELTA_BYTE_ARRAY"}}],
    ids=["dictionary", "delta"],
)
def test_a_decompression_bomb_costs_bounded_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    """A file of a few KB that unpacks to 400 MB is read in bounded memory, row by row."""
    count = 400
    text = json.dumps({"text": "x" * (1 << 20)})
    path = write_parquet(
        tmp_path / "a.parquet",
        {"object_id": [str(n) for n in range(count)], "payload": [text] * count},
        compression="zstd",
        **options,
    )
    assert path.stat().st_size < 20_000
    good, bad, peak = read_in_a_process(path)
    assert (good, bad) == (count, 0)
    assert peak < 320  # MiB; Python with pyarrow takes 70


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_headers_of_pages_are_read(tmp_path: Path, version: str, compression: str, *, dictionary: bool) -> None:
    """The pages found in a file of any writer hold all values and bytes of each column."""
    path = write_parquet(
        tmp_path / "a.parquet",
        {"object_id": [f"{n * 7919}" for n in range(9_000)], "lists": [[str(n), None] for n in range(9_000)]},
        data_page_version=version,
        compression=compression,
        use_dictionary=dictionary,
        write_page_checksum=dictionary,
        data_page_size=4_096,
    )
    metadata = pq.ParquetFile(path).metadata.row_group(0)
    with path.open("rb") as file:
        for place in range(metadata.num_columns):
            chunk = metadata.column(place)
            pages = list(pages_of(chunk, file))
            assert [page.is_dictionary for page in pages].count(True) == dictionary
            assert sum(page.values for page in pages if not page.is_dictionary) == chunk.num_values
            # The rest are the headers.
            assert 0 < chunk.total_uncompressed_size - sum(page.size for page in pages) < 100 * len(pages)


def test_a_header_of_a_page_with_a_number_beyond_64_bits_is_damage() -> None:
    """A size that no float can hold is no size: the page is treated like any that cannot be looked at."""
    header = b"\x15\0" + b"\x15\xfe" + b"\xff" * 200 + b"\x7f" + b"\x15\0" + b"\x2c\x15\2\0" + b"\0"
    chunk = SimpleNamespace(has_dictionary_page=False, data_page_offset=0, total_compressed_size=len(header))
    with pytest.raises(ValueError, match="64 bits"):
        list(pages_of(cast("pq.ColumnChunkMetaData", chunk), io.BytesIO(header)))


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_large_rows_after_many_small_ones(tmp_path: Path) -> None:
    """Large rows at the end of a row group are read a few at a time, although the mean of the group is small."""
    small = [json.dumps({"text": f"text {n}" * 10}) for n in range(20_000)]
    fat = [json.dumps({"text": "x" * (5 << 20)})] * 24
    texts = [*small, *fat]
    path = write_parquet(
        tmp_path / "a.parquet",
        {"object_id": [str(n) for n in range(len(texts))], "payload": texts},
        row_group_size=len(texts),
        use_dictionary=False,
        compression="zstd",
    )
    good, bad, peak = read_in_a_process(path)
    assert (good, bad) == (len(texts), 0)
    assert peak < 320  # MiB: pyarrow unpacks the page of 120 as a whole; 440 with all of its rows in one batch


@pytest.mark.parametrize("limit", [None, 5])
def test_pages_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """The file is refused before anything is loaded, with a command that writes it so that it can be loaded."""
    texts = [json.dumps({"text": f"{n} " * 10_000}) for n in range(900)]
    columns = {"object_id": [str(n) for n in range(len(texts))], "payload": texts}
    path = write_parquet(tmp_path / "its pages.parquet", columns, use_dictionary=False, compression="zstd")
    wanted = [item(row)._replace(source="") for row in rows_of(path)]
    monkeypatch.setattr("upsert_cli.sources.parquet_pages.MAX_PAGE", 3 << 20)
    [found] = find_files([str(path)])
    with pytest.raises(SourceUnreadable, match="one of its pages unpacks to ") as caught:
        Source.of(found, limit=limit)
    [command] = re.findall("`python (.*)`", str(caught.value))
    subprocess.run([sys.executable, *shlex.split(command)], check=True, cwd=tmp_path)
    assert [item(row)._replace(source="") for row in rows_of(tmp_path / "smaller-pages.parquet")] == wanted


# -- damaged files ------------------------------------------------------------------------------------------------


def _groups(path: Path, sizes: Sequence[int], *, as_text: bool = False) -> Path:
    """Write rows numbered from 1, in row groups of these sizes."""
    kind = pa.string() if as_text else pa.struct([("text", pa.string())])
    schema = pa.schema([("object_id", pa.string()), ("payload", kind)])
    row = 0
    with pq.ParquetWriter(path, schema) as writer:
        for size in sizes:
            numbers = range(row + 1, row + size + 1)
            payload = [{"text": f"text {n}"} for n in numbers]
            columns = {
                "object_id": [f"i{n}" for n in numbers],
                "payload": [json.dumps(part) for part in payload] if as_text else payload,
            }
            writer.write_table(pa.table(columns, schema=schema))
            row += size
    return path


def _begin_of_group(path: Path, group: int) -> int:
    metadata = pq.ParquetFile(path).metadata
    if group == metadata.num_row_groups:
        return path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[-8:-4], "little")
    chunk = metadata.row_group(group).column(0)
    return int(chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset)


def test_damage_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The rows before the damage are read, then the error names the file and the last good row."""
    path = _groups(tmp_path / "a.parquet", [10, 10, 10])
    sources = sources_of(path)
    content = bytearray(path.read_bytes())
    begin, end = _begin_of_group(path, 1), _begin_of_group(path, 2)
    content[begin:end] = b"\xff" * (end - begin)
    path.write_bytes(content)
    rows = iter(Rows(sources=sources))
    assert [item(next(rows)[0]).row for _ in range(10)] == list(range(1, 11))
    with pytest.raises(SourceUnreadable, match=r"a\.parquet cannot be read beyond row 10") as caught:
        next(rows)
    assert len(str(caught.value).splitlines()) == 1


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    """A file without its end is not read, wherever it was cut off."""
    path = _groups(tmp_path / "a.parquet", [20, 20])
    sources = sources_of(path)
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        with pytest.raises(SourceUnreadable, match=r"a\.parquet"):
            list(Rows(sources=sources))


def _with_footer(path: Path, old: bytes, new: bytes) -> Path:
    """Replace a number in the footer, the first time that it occurs there."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    footer = content[-8 - length : -8]
    assert old in footer
    footer = footer.replace(old, new, 1)
    path.write_bytes(content[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def _promising(path: Path, rows: int, promised: int, *, store: Sequence[str]) -> Path:
    """Write rows of text and let the footer promise another number of them.

    Args:
        path: The file.
        rows: How many it has.
        promised: How many its footer promises.
        store: Where: `file`, `group`, and `column` for the values of each column.
    """
    ids = [f"i{number}" for number in range(rows)]
    write_parquet(path, {"object_id": ids, "payload": ["{}"] * rows}, store_schema=False, write_statistics=False)
    old, new = (bytes([0x16, 2 * number]) for number in (rows, promised))  # a 64-bit integer of Thrift, zigzag
    if "file" in store:  # field 3 of the footer, followed by the list of row groups
        _with_footer(path, old + b"\x19", new + b"\x19")
    if "column" in store:  # field 5 of a column: after its codec, before its sizes
        for _ in range(2):
            _with_footer(path, b"\x15\x02" + old + b"\x16", b"\x15\x02" + new + b"\x16")
    if "group" in store:  # field 3 of a row group, then the file offset and the size
        _with_footer(path, old + b"\x26", new + b"\x26")
    return path


@pytest.mark.parametrize(
    ("rows", "promised", "store", "reason"),
    [
        (2, 3, ["file"], "promises 3 rows, but its row groups hold 2"),
        (2, 1, ["file"], "promises 1 row, but its row groups hold 2"),
        (0, 1, ["file"], "promises 1 row, but its row groups hold 0"),
        (2, 3, ["file", "group"], "promises 3 rows in row group 0, but its column `object_id` holds 2"),
        (2, 1, ["file", "group"], "promises 1 row in row group 0, but its column `object_id` holds 2"),
        (2, 1, ["file", "group", "column"], "promises 1 values of `object_id`, but its pages hold 2"),
        (2, 3, ["file", "group", "column"], "promises 3 values of `object_id`, but its pages hold 2"),
    ],
)
def test_a_footer_that_contradicts_its_rows_is_damage(
    tmp_path: Path, rows: int, promised: int, store: Sequence[str], reason: str
) -> None:
    """No row is missing silently: the error names the file, the promised number and the real one."""
    path = _promising(tmp_path / "a.parquet", rows, promised, store=store)
    with pytest.raises(SourceUnreadable, match=r"a\.parquet") as caught:
        rows_of(path)
    assert reason in str(caught.value)


def test_a_type_that_pyarrow_does_not_read_is_not_called_damage(tmp_path: Path) -> None:
    """Polars writes integers of 128 bits; such a file is sound, and the message does not suggest a repair."""
    path = write_parquet(tmp_path / "a.parquet", {"id": ["a"], "n": [1]})
    schema = pq.ParquetFile(path).metadata.metadata[b"ARROW:schema"]
    arrow = base64.b64decode(schema)
    wide = base64.b64encode(arrow.replace((64).to_bytes(4, "little"), (128).to_bytes(4, "little")))
    path.write_bytes(path.read_bytes().replace(schema, wide))
    with pytest.raises(SourceUnreadable, match="more than 64 bits") as caught:
        rows_of(path)
    assert "repair" not in str(caught.value)
    assert "write it again with types that pyarrow reads" in str(caught.value)


# -- resuming -----------------------------------------------------------------------------------------------------


@fuzz(
    files=st.lists(st.lists(st.integers(1, 5) | st.just(70), max_size=4), min_size=1, max_size=2),
    as_text=st.booleans(),
    data=st.data(),
)
def test_resuming_anywhere_gives_the_rest(
    tmp_path: Path, *, files: list[list[int]], as_text: bool, data: st.DataObject
) -> None:
    """From every position exactly the rows after it are read, and no row group before it."""
    paths = [_groups(tmp_path / f"{number}.parquet", sizes, as_text=as_text) for number, sizes in enumerate(files)]
    contents = [path.read_bytes() for path in paths]
    sources = sources_of(*paths)
    rows = list(Rows(sources=sources))
    assert len(rows) == sum(map(sum, files))
    for number in data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=5)) if rows else []:
        position = rows[number][1]
        for place, (path, content) in enumerate(zip(paths, contents, strict=True)):
            path.write_bytes(content)
            if place <= position.source:
                behind = position.row if place == position.source else sum(files[place])
                _spoil_before(path, files[place], behind)
        assert list(Rows(sources=sources, start=position)) == rows[number + 1 :]


def _spoil_before(path: Path, sizes: Sequence[int], rows: int) -> None:
    """Overwrite the row groups that hold only the first `rows` rows."""
    whole = 0
    while whole < len(sizes) and sum(sizes[: whole + 1]) <= rows:
        whole += 1
    end = _begin_of_group(path, whole)
    content = path.read_bytes()
    path.write_bytes(b"\xff" * end + content[end:])


def test_jsonl_and_parquet_in_one_task(tmp_path: Path) -> None:
    """Files of different formats follow each other, and a position names its file."""
    first = write_lines(tmp_path / "a.jsonl", b'{"object_id": "x"}')
    second = _groups(tmp_path / "b.parquet", [2])
    rows = read(first, second)
    assert [(row.source, row.row) for row, _ in rows] == [(str(first), 1), (str(second), 1), (str(second), 2)]
    assert read(first, second, start=rows[0][1]) == rows[1:]
    assert read(first, second, start=rows[2][1]) == []


def test_an_empty_map_is_an_object(tmp_path: Path) -> None:
    """A map without entries is the empty object that JSONL has, not an empty list; a missing one is null."""
    path = tmp_path / "a.parquet"
    table = {
        "id": pa.array(["a", "b", "c"]),
        "m": pa.array([[], [("k", "v")], None], type=pa.map_(pa.string(), pa.string())),
    }
    pq.write_table(pa.table(table), path)
    (found,) = find_files([str(path)])
    rows = [row for row, _ in Rows(sources=[Source.of(found)], id_field="id")]
    assert [getattr(row, "payload", row) for row in rows] == [{"m": {}}, {"m": {"k": "v"}}, {"m": None}]
