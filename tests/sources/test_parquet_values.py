"""No value of a Parquet file changes silently: it is kept exactly, or its row is rejected with the column's name."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st

from tests.support.reading import exactly, fuzz, item, reject, rows_of, sources_of, write_lines, write_parquet
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import ItemError
from upsert_cli.sources.item import Item
from upsert_cli.sources.parquet_values import converters_of, unpacked
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.values import plain

NANOS = pa.timestamp("ns")
FIRST, SECOND = 1_700_000_000_123_456_001, 1_700_000_000_123_456_002
FIRST_TEXT, SECOND_TEXT = "2023-11-14T22:13:20.123456001", "2023-11-14T22:13:20.123456002"


def _read(tmp_path: Path, column: pa.Array, **options: Any) -> list[Any]:
    """Return the values of a column of a foreign file as JSON, or the details of its rejects."""
    ids = [str(number) for number in range(len(column))]
    path = write_parquet(tmp_path / "a.parquet", {"id": ids, "v": column}, **options)
    rows = rows_of(path, id_field="id")
    return [plain((row.payload or {})["v"]) if isinstance(row, Item) else row.detail for row in rows]


def _in_memory(column: pa.Array) -> list[Any]:
    """Return the values of a column of a type that pyarrow does not write."""
    batch = pa.record_batch({"v": column})
    rows = unpacked((batch,), converters_of(batch.schema))
    return [plain(row["v"]) if isinstance(row, dict) else row.detail for row in rows]


# -- dates and times ----------------------------------------------------------------------------------------------

JULIAN_1970 = 2_440_588  # the day number of 1970-01-01 in INT96 timestamps
DAY = 86_400 * 10**9  # nanoseconds


def _int96_file(path: Path, moments: list[tuple[int, int]], wrap: Callable[[pa.Array], pa.Array] = lambda a: a) -> Path:
    """Write INT96 timestamps that pyarrow cannot write, each as its nanosecond of the day and its days since 1970."""
    markers = [datetime.datetime(2001, 1, 1) + datetime.timedelta(days=number) for number in range(len(moments))]
    columns = {"id": [str(number) for number in range(len(moments))], "v": wrap(pa.array(markers, pa.timestamp("us")))}
    options = {"use_deprecated_int96_timestamps": True, "use_dictionary": False, "compression": "none"}
    write_parquet(path, columns, store_schema=False, **options)
    content = path.read_bytes()
    for marker, (nanos, days) in zip(markers, moments, strict=True):
        old = bytes(8) + ((marker - datetime.datetime(1970, 1, 1)).days + JULIAN_1970).to_bytes(4, "little")
        assert content.count(old) == 1
        content = content.replace(old, nanos.to_bytes(8, "little") + (days + JULIAN_1970).to_bytes(4, "little"))
    path.write_bytes(content)
    return path


INT96 = {
    (10_800 * 10**9, 2_932_896): "9999-12-31T03:00:00",
    (DAY - 1, 2_932_896): "9999-12-31T23:59:59.999999999",
    (DAY - 1000, 2_932_896): "9999-12-31T23:59:59.999999",
    (1, -719_162): "0001-01-01T00:00:00.000000001",
    (0, -719_162): "0001-01-01T00:00:00",
    (123_456_789, 19_675): "2023-11-14T00:00:00.123456789",
    (DAY - 1, -1): "1969-12-31T23:59:59.999999999",
    (0, 106_751): "2262-04-11T00:00:00",
    (0, 106_752): "2262-04-12T00:00:00",  # too far for 64 bits of nanoseconds
}
SHAPES: dict[str, tuple[Callable[[pa.Array], pa.Array], Callable[[Any], Any]]] = {
    "column": (lambda array: array, lambda value: value),
    "list": (
        lambda array: pa.ListArray.from_arrays(list(range(len(array) + 1)), array),
        lambda value: [value],
    ),
    "struct": (
        lambda array: pa.StructArray.from_arrays([array, pa.array(["x"] * len(array))], ["at", "b"]),
        lambda value: {"at": value, "b": "x"},
    ),
    "map value": (
        lambda array: pa.MapArray.from_arrays(list(range(len(array) + 1)), pa.array(["k"] * len(array)), array),
        lambda value: {"k": value},
    ),
}


@pytest.mark.parametrize(("wrap", "expected"), SHAPES.values(), ids=SHAPES)
def test_int96_timestamps_are_the_dates_that_the_file_holds(
    tmp_path: Path, wrap: Callable[[pa.Array], pa.Array], expected: Callable[[Any], Any]
) -> None:
    """Far dates and nanoseconds are exact together, at any depth, and when reading begins in the middle."""
    path = _int96_file(tmp_path / "a.parquet", list(INT96), wrap)
    rows = list(Rows(sources=sources_of(path), id_field="id"))
    assert [plain(item(row).payload) for row, _ in rows] == [{"v": expected(text)} for text in INT96.values()]
    for number, (_, position) in enumerate(rows):
        assert list(Rows(sources=sources_of(path), start=position, id_field="id")) == rows[number + 1 :]


def test_int96_timestamps_of_a_payload(tmp_path: Path) -> None:
    """INT96 timestamps are exact in item form too, where only the columns of an item are read."""
    payload = pa.array([{"at": datetime.datetime(9999, 12, 31, 3)}], pa.struct([("at", pa.timestamp("us"))]))
    columns = {"object_id": ["1"], "other": [1], "payload": payload}
    path = write_parquet(tmp_path / "a.parquet", columns, use_deprecated_int96_timestamps=True)
    assert plain(item(rows_of(path)[0]).payload) == {"at": "9999-12-31T03:00:00"}


def test_int96_timestamps_of_columns_with_dots_in_their_names(tmp_path: Path) -> None:
    """A column that is named like the path to another one is not mistaken for it."""
    far = pa.array([datetime.datetime(9999, 12, 31, 3)], pa.timestamp("us"))
    near = pa.array([datetime.datetime(2020, 1, 1)], pa.timestamp("us"))
    columns = {"id": ["1"], "a": pa.StructArray.from_arrays([near], ["b"]), "a.b": far, "c": far}
    path = write_parquet(tmp_path / "a.parquet", columns, use_deprecated_int96_timestamps=True)
    [row] = rows_of(path, id_field="id")
    far_text = "9999-12-31T03:00:00"
    assert plain(item(row).payload) == {"a": {"b": "2020-01-01T00:00:00"}, "a.b": far_text, "c": far_text}


@pytest.mark.parametrize("days", [2_932_897, -719_163, 2**31 - 1 - JULIAN_1970])
def test_an_int96_timestamp_that_no_date_can_represent_is_a_reject(tmp_path: Path, days: int) -> None:
    """The timestamp is never wrapped around to another date, and the neighboring row is loaded."""
    path = _int96_file(tmp_path / "a.parquet", [(0, days), (0, 0)])
    bad, good = rows_of(path, id_field="id")
    assert "`v` cannot be read: a timestamp is out of range" in reject(bad).detail
    assert plain(item(good).payload) == {"v": "1970-01-01T00:00:00"}


@fuzz(nanos=st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=5, unique=True))
def test_different_nanoseconds_stay_different(tmp_path: Path, *, nanos: list[int]) -> None:
    """Every timestamp has the text of exactly its own nanosecond, also before 1970."""
    texts = _read(tmp_path, pa.array(nanos, NANOS))
    assert [_nanos_of(text) for text in texts] == nanos


def _nanos_of(text: str) -> int:
    whole, _, fraction = text.partition(".")
    seconds = (datetime.datetime.fromisoformat(whole) - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)
    return seconds * 10**9 + int(fraction.ljust(9, "0") or 0)


NANOSECONDS: dict[str, tuple[pa.Array, Any]] = {
    "without nanoseconds": (pa.array([FIRST - 1, FIRST // 10**9 * 10**9], NANOS), ["2023-11-14T22:13:20.123456", "2023-11-14T22:13:20"]),
    "time zone": (pa.array([FIRST], pa.timestamp("ns", "Asia/Kolkata")), ["2023-11-15T03:43:20.123456001+05:30"]),
    "dictionary": (pa.array([FIRST, None, FIRST], NANOS).dictionary_encode(), [FIRST_TEXT, None, FIRST_TEXT]),
    "list": (pa.array([[FIRST, SECOND], None, []], pa.list_(NANOS)), [[FIRST_TEXT, SECOND_TEXT], None, []]),
    "large list": (pa.array([[FIRST], None], pa.large_list(NANOS)), [[FIRST_TEXT], None]),
    "fixed-size list": (pa.array([None, [FIRST, SECOND]], pa.list_(NANOS, 2)), [None, [FIRST_TEXT, SECOND_TEXT]]),
    "list view": (pa.array([[FIRST], None], pa.list_view(NANOS)), [[FIRST_TEXT], None]),
    "large list view": (pa.array([None, [FIRST]], pa.large_list_view(NANOS)), [None, [FIRST_TEXT]]),
    "struct": (pa.array([{"a": FIRST}, None], pa.struct([("a", NANOS)])), [{"a": FIRST_TEXT}, None]),
    "map key": (pa.array([[(FIRST, 1), (SECOND, 2)]], pa.map_(NANOS, pa.int64())), [{FIRST_TEXT: 1, SECOND_TEXT: 2}]),
    "map value": (pa.array([None, [("k", FIRST)]], pa.map_(pa.string(), NANOS)), [None, {"k": FIRST_TEXT}]),
    "list in a struct in a list": (pa.array([[{"a": [FIRST]}]], pa.list_(pa.struct([("a", pa.list_(NANOS))]))), [[{"a": [FIRST_TEXT]}]]),
    "time of day": (pa.array([1, 3_600 * 10**9], pa.time64("ns")), ["00:00:00.000000001", "01:00:00"]),
    "duration": (pa.array([-1, 1_500, 90 * 10**9], pa.duration("ns")), ["-PT0.000000001S", "PT0.0000015S", "PT90S"]),
}  # fmt: skip


@pytest.mark.parametrize(("column", "expected"), NANOSECONDS.values(), ids=NANOSECONDS)
def test_nanoseconds_are_kept_wherever_they_are(tmp_path: Path, column: pa.Array, expected: list[Any]) -> None:
    """A value with nanoseconds keeps all of its digits; one without has the text that it always had."""
    assert exactly(_read(tmp_path, column)) == exactly(expected)


def test_nanoseconds_make_different_ids_of_a_hash(tmp_path: Path) -> None:
    """Rows that differ only in nanoseconds are different records."""
    path = write_parquet(tmp_path / "a.parquet", {"text": ["same"] * 2, "ts": pa.array([FIRST, SECOND], NANOS)})
    rows = [row for row, _ in Rows(sources=sources_of(path), id_from="hash")]
    assert len({item(row).object_id for row in rows}) == 2


OUT_OF_RANGE: dict[str, tuple[pa.Array, str]] = {
    "date": (pa.array([10**7], pa.date32()), "`v` cannot be read: a date is out of range"),
    "date before the year 1": (pa.array([-719_163], pa.date32()), "`v` cannot be read: a date is out of range"),
    "seconds": (pa.array([2**53], pa.timestamp("s")), "`v` cannot be read: a timestamp is out of range"),
    "milliseconds": (pa.array([2**62], pa.timestamp("ms")), "`v` cannot be read: a timestamp is out of range"),
    "microseconds": (pa.array([-(2**62)], pa.timestamp("us")), "`v` cannot be read: a timestamp is out of range"),
    "local year 10000": (pa.array([253_402_300_799], pa.timestamp("s", "Asia/Tokyo")), "`v` cannot be read: a timestamp"),
    "unknown zone": (pa.array([FIRST], pa.timestamp("ns", "No/Where")), "`v` cannot be read: its time zone No/Where is not"),
    "time of day": (pa.array([86_400_000_001], pa.time64("us")), "`v` cannot be read: PT86400.000001S is not a time of day"),
    "negative time of day": (pa.array([-1], pa.time32("ms")), "`v` cannot be read: -PT0.001S is not a time of day"),
    "in a struct": (pa.array([{"a": {"day": 10**7}}], pa.struct([("a", pa.struct([("day", pa.date32())]))])), "`v.a.day` cannot be read"),
    "in a list": (pa.array([[10**7]], pa.list_(pa.date32())), "`v` cannot be read"),
    "in a list of structs": (pa.array([[{"day": 10**7}]], pa.list_(pa.struct([("day", pa.date32())]))), "`v.day` cannot be read"),
    "in a map": (pa.array([[("k", 10**7)]], pa.map_(pa.string(), pa.date32())), "`v` cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("column", "detail"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_a_date_that_python_cannot_hold_is_a_reject_that_names_its_column(
    tmp_path: Path, column: pa.Array, detail: str
) -> None:
    """No date, timestamp or time of day is ever replaced by another one, and the row before is loaded."""
    good, bad = _read(tmp_path, pa.concat_arrays([pa.nulls(1, column.type), column]))
    assert good is None
    assert detail in bad


def test_a_row_that_cannot_be_read_keeps_its_other_columns(tmp_path: Path) -> None:
    """The reject names each column that cannot be read, and holds the rest of the row as JSON."""
    bad = pa.array([10**7], pa.date32())
    columns = {"id": ["a"], "first": bad, "text": ["x"], "at": pa.array([FIRST], NANOS), "last": bad}
    [row] = rows_of(write_parquet(tmp_path / "a.parquet", columns), id_field="id")
    assert "`first` cannot be read" in reject(row).detail
    assert "; `last` cannot be read" in reject(row).detail
    assert json.loads(reject(row).line or "") == {"id": "a", "text": "x", "at": FIRST_TEXT}


@pytest.mark.parametrize(
    ("column", "text"),
    [
        (pa.array([86_400_000_000], pa.time64("us")), "24:00:00"),
        (pa.array([2**62], pa.duration("s")), f"PT{2**62}S"),
        (pa.array([-(2**62) - 1], pa.duration("ms")), "-PT4611686018427387.905S"),
    ],
)
def test_times_that_python_cannot_hold_are_kept_as_text(tmp_path: Path, column: pa.Array, text: str) -> None:
    """The end of a day and any duration have their own text."""
    assert _read(tmp_path, column) == [text]


# -- numbers ------------------------------------------------------------------------------------------------------

DECIMALS: dict[str, tuple[pa.Array, Any]] = {
    "decimal32": (pa.array([Decimal(2024)], pa.decimal32(9, 0)), 2024),
    "decimal64": (pa.array([Decimal(-1)], pa.decimal64(18, 0)), -1),
    "decimal128": (pa.array([Decimal(2**63 - 1)], pa.decimal128(38, 0)), 2**63 - 1),
    "decimal256": (pa.array([Decimal(10**60)], pa.decimal256(76, 0)), 10**60),
    "list": (pa.array([[Decimal(1), None]], pa.list_(pa.decimal128(5, 0))), [1, None]),
    "struct": (pa.array([{"a": Decimal(1)}], pa.struct([("a", pa.decimal128(5, 0))])), {"a": 1}),
    "dictionary": (pa.array([Decimal(7)], pa.decimal128(5, 0)).dictionary_encode(), 7),
    "map": (pa.array([[(Decimal(1), Decimal(2))]], pa.map_(pa.decimal128(5, 0), pa.decimal128(5, 0))), {"1": 2}),
    "a scale": (pa.array([Decimal("2024.00")], pa.decimal128(10, 2)), "2024.00"),
    "a scale in a list": (pa.array([[Decimal("1.50")]], pa.list_(pa.decimal128(10, 2))), ["1.50"]),
}


@pytest.mark.parametrize(("column", "expected"), DECIMALS.values(), ids=DECIMALS)
def test_a_decimal_without_a_fraction_is_an_integer(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    """The type decides: without digits after the point it is an integer of any size, otherwise text."""
    assert exactly(_read(tmp_path, column)) == exactly([expected])


def test_a_decimal_with_a_negative_scale_is_an_integer() -> None:
    """1.2E+3 is 1200."""
    assert exactly(_in_memory(pa.array([Decimal(1200), None], pa.decimal128(6, -2)))) == exactly([1200, None])


@pytest.mark.parametrize("kind", [pa.decimal32(9, 0), pa.decimal128(38, 0), pa.decimal256(76, 0)], ids=str)
def test_decimals_are_ids_and_metadata_as_integers_are(tmp_path: Path, kind: pa.DataType) -> None:
    """A collection's record has the integer; beyond 64 bits its text, which Chroma can hold."""
    wide = 10 ** min(kind.precision - 1, 30)
    columns = {"ID": pa.array([Decimal(7)], kind), "TEXT": ["x"], "N": pa.array([Decimal(wide)], kind)}
    [row] = rows_of(write_parquet(tmp_path / "a.parquet", columns), id_field="ID")
    document = make_document(item(row), Recipe(text_fields=("TEXT",), identity="m"))
    assert document.id == "7"
    assert document.metadata["N"] == (wide if wide < 2**63 else str(wide))


# -- logical types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
@pytest.mark.parametrize("id_field", [None, "object_id"])
def test_a_column_of_type_json_is_read_as_its_text(tmp_path: Path, storage: pa.DataType, id_field: str | None) -> None:
    """Payload and info of the logical type JSON are objects, as JSON texts are; other such columns are texts."""
    texts = ['{"text": "hello", "year": 2024}', None]
    kind = pa.json_(storage)
    columns = {
        "object_id": ["a", "b"],
        "payload": pa.array(texts, kind),
        "item_info": pa.array(['{"n": 1}', None], kind),
    }
    rows = rows_of(write_parquet(tmp_path / "a.parquet", columns), id_field=id_field)
    assert item(rows[0])[:3] == ("a", {"text": "hello", "year": 2024}, {"n": 1})
    flat = {"id": ["a"], "extra": pa.array(['{"n": 1}'], kind), "list": _one_each(pa.array(['{"n": 1}'], kind))}
    [row] = rows_of(write_parquet(tmp_path / "flat.parquet", flat), id_field="id")
    assert item(row).payload == {"extra": '{"n": 1}', "list": ['{"n": 1}']}


def _one_each(array: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(list(range(len(array) + 1)), array)


class _Unknown(pa.ExtensionType):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self) -> None:
        super().__init__(NANOS, "tests.unknown")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> _Unknown:
        return cls()


UUID = "00000000-0000-0000-0000-000000000001"
EXTENSIONS: dict[str, tuple[pa.Array, Any]] = {
    "uuid": (pa.array([b"\0" * 15 + b"\x01"], pa.uuid()), UUID),
    "list of uuid": (_one_each(pa.array([b"\0" * 15 + b"\x01"], pa.uuid())), [UUID]),
    "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())), True),
    "opaque": (pa.ExtensionArray.from_storage(pa.opaque(NANOS, "t", "v"), pa.array([FIRST], NANOS)), FIRST_TEXT),
    "unknown": (pa.ExtensionArray.from_storage(_Unknown(), pa.array([FIRST], NANOS)), FIRST_TEXT),
    "tensor": (pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int64(), [2]), pa.array([[1, 2]], pa.list_(pa.int64(), 2))), [1, 2]),
}  # fmt: skip


@pytest.mark.parametrize(("column", "expected"), EXTENSIONS.values(), ids=EXTENSIONS)
def test_a_logical_type_is_read_as_its_storage(tmp_path: Path, column: pa.Array, expected: Any) -> None:
    """A logical type never makes a value unreadable; those that JSONL has a form for have that."""
    assert exactly(_read(tmp_path, column)) == exactly([expected])
    assert exactly(_in_memory(column)) == exactly([expected])


def test_run_ends_are_decoded() -> None:
    """Run-end encoding, which repeats values at no cost, changes none of them."""
    values = pc.run_end_encode(pa.array([FIRST, FIRST, SECOND], NANOS)).slice(1)
    assert _in_memory(values) == [FIRST_TEXT, SECOND_TEXT]


@pytest.mark.parametrize("kind", [pa.float16(), pa.null()], ids=str)
def test_columns_of_rare_types(tmp_path: Path, kind: pa.DataType) -> None:
    """Halves are floats, and a column of nulls is null, also in lists and as the id."""
    value = None if pa.types.is_null(kind) else 1.5
    assert exactly(_read(tmp_path, pa.array([value], kind))) == exactly([value])
    assert exactly(_read(tmp_path, pa.array([[value]], pa.list_(kind)))) == exactly([[value]])
    [bad] = rows_of(write_parquet(tmp_path / "a.parquet", {"id": pa.array([value], kind)}), id_field="id")
    assert reject(bad).detail.startswith("id is null" if value is None else "id 1.5 is a float")


# -- maps ---------------------------------------------------------------------------------------------------------

PAIRS = [("a", 1), ("a", 2), ("b", 3)]
COUNTS = pa.map_(pa.string(), pa.int64())
MAPS: dict[str, tuple[pa.Array, Any]] = {
    "top level": (pa.array([PAIRS], COUNTS), {"v": '[["a",1],["a",2],["b",3]]'}),
    "unique keys": (pa.array([PAIRS[1:]], COUNTS), {"v.a": 2, "v.b": 3}),
    "integer keys": (pa.array([[(1, 1), (1, 2)]], pa.map_(pa.int64(), pa.int64())), {"v": "[[1,1],[1,2]]"}),
    "binary keys": (pa.array([[(b"a", 1), (b"b", 2)]], pa.map_(pa.binary(), pa.int64())), {"v.a": 1, "v.b": 2}),
    "repeated binary keys": (pa.array([[(b"a", 1), (b"a", 2)]], pa.map_(pa.binary(), pa.int64())), {"v": '[["a",1],["a",2]]'}),
    "in a struct": (pa.array([{"m": PAIRS}], pa.struct([("m", COUNTS)])), {"v.m": '[["a",1],["a",2],["b",3]]'}),
    "unique in a struct": (pa.array([{"m": PAIRS[1:]}], pa.struct([("m", COUNTS)])), {"v.m.a": 2, "v.m.b": 3}),
    "in a list": (pa.array([[PAIRS, PAIRS[1:]]], pa.list_(COUNTS)), {"v": '[[["a",1],["a",2],["b",3]],{"a":2,"b":3}]'}),
    "in a map": (pa.array([[("k", PAIRS)]], pa.map_(pa.string(), COUNTS)), {"v.k": '[["a",1],["a",2],["b",3]]'}),
    "unique in a map": (pa.array([[("k", PAIRS[1:])]], pa.map_(pa.string(), COUNTS)), {"v.k.a": 2, "v.k.b": 3}),
}  # fmt: skip


@pytest.mark.parametrize(("column", "expected"), MAPS.values(), ids=MAPS)
def test_a_map_is_an_object_unless_a_key_is_repeated(
    tmp_path: Path, column: pa.Array, expected: dict[str, Any]
) -> None:
    """Unique keys are the keys of an object at any depth; repeated ones keep all their pairs, as JSON text."""
    path = write_parquet(tmp_path / "a.parquet", {"id": ["1"], "text": ["x"], "v": column})
    document = make_document(item(rows_of(path, id_field="id")[0]), Recipe(identity="m"))
    assert {key: value for key, value in document.metadata.items() if key.startswith("v")} == expected


def test_maps_in_slices_and_of_null(tmp_path: Path) -> None:
    """Each row has its own pairs, wherever its batch and its row group begin."""
    maps = [[(str(number), number)] if number % 3 else None if number % 2 else [] for number in range(200)]
    expected = [None if pairs is None else dict(pairs) for pairs in maps]
    path = write_parquet(
        tmp_path / "a.parquet",
        {"id": [str(number) for number in range(200)], "v": pa.array(maps, COUNTS)},
        row_group_size=90,
    )
    rows = list(Rows(sources=sources_of(path), id_field="id"))
    assert [item(row).payload for row, _ in rows] == [{"v": value} for value in expected]
    assert list(Rows(sources=sources_of(path), start=rows[70][1], id_field="id")) == rows[71:]


def test_a_payload_that_repeats_a_key_is_a_reject(tmp_path: Path) -> None:
    """An item cannot hold two values of one key, and the message says so; a foreign row keeps the pairs."""
    path = write_parquet(tmp_path / "a.parquet", {"object_id": ["a"], "payload": pa.array([PAIRS], COUNTS)})
    assert "payload: a map that repeats a key" in reject(rows_of(path)[0]).detail
    [row] = rows_of(path, id_field="object_id")
    assert item(row).payload == {"payload": [list(pair) for pair in PAIRS]}


def test_a_struct_with_two_fields_of_one_name_is_a_reject(tmp_path: Path) -> None:
    """A dictionary would lose one of the two values, so the row is rejected with the column's name."""
    column = pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    [detail] = _read(tmp_path, column)
    assert detail == "`v` cannot be read: two of its fields are called `a`"


# -- bytes that are text ------------------------------------------------------------------------------------------

BINARY = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(4), pa.dictionary(pa.int32(), pa.binary())]


def _bytes(values: list[bytes], kind: pa.DataType) -> pa.Array:
    is_dictionary = pa.types.is_dictionary(kind)
    array = pa.array(values, kind.value_type if is_dictionary else kind)
    return array.dictionary_encode() if is_dictionary else array


@pytest.mark.parametrize("kind", BINARY, ids=str)
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(text_fields=("title",), identity="m"),
        Recipe(text_fields=("deep.title",), identity="m"),
        Recipe(template="{title}", identity="m"),
        Recipe(template="{deep.title}", identity="m"),
    ],
    ids=["text field", "nested text field", "template", "nested field of a template"],
)
def test_bytes_are_text_where_text_is_needed(tmp_path: Path, kind: pa.DataType, recipe: Recipe) -> None:
    """A binary column is a text, a part of a template and an id; bytes that are not UTF-8 are rejected by name."""
    title = _bytes([b"Moon", b"Su\xffn"], kind)
    deep = pa.StructArray.from_arrays([title], ["title"])
    columns = {"id": _bytes([b"id 1", b"id 2"], kind), "title": title, "deep": deep, "raw": title}
    rows = rows_of(write_parquet(tmp_path / "a.parquet", columns), id_field="id")
    good = make_document(item(rows[0]), recipe)
    assert (good.id, good.text) == ("id 1", "Moon")
    [field] = recipe.text_paths
    assert field not in good.metadata
    assert good.metadata["raw"] == "TW9vbg=="  # only metadata
    kept = make_document(item(rows[0]), dataclasses.replace(recipe, metadata_fields=(field,)))
    assert kept.metadata[field] == "Moon"
    with pytest.raises(ItemError, match=rf"payload\.{field} holds bytes that are not UTF-8: byte 0xff at byte 3"):
        make_document(item(rows[1]), recipe)


@pytest.mark.parametrize("kind", BINARY, ids=str)
def test_ids_of_bytes(tmp_path: Path, kind: pa.DataType) -> None:
    """An id may be bytes, in item form too; one that is not UTF-8 is rejected by the field's name."""
    ids = _bytes([b"abcd", b"ab\xffd"], kind)
    for name, id_field in (("key", "key"), ("object_id", None)):
        good, bad = rows_of(write_parquet(tmp_path / "a.parquet", {name: ids}), id_field=id_field)
        assert item(good).object_id == "abcd"
        assert reject(bad).detail == f"{name} holds bytes that are not UTF-8: byte 0xff at byte 3"


def test_bytes_in_a_list_of_a_template(tmp_path: Path) -> None:
    """Text is never embedded as base64, however deep the bytes are."""
    path = write_parquet(tmp_path / "a.parquet", {"id": ["1"], "tags": pa.array([[b"red", b"blue"]])})
    document = make_document(item(rows_of(path, id_field="id")[0]), Recipe(template="{tags}", identity="m"))
    assert document.text == '["red","blue"]'


def test_bytes_next_to_a_key_that_looks_like_their_path() -> None:
    """Only the named field becomes text, although another key in its object has the rest of the path as its name."""
    row = Item("1", {"a": {"b": {"c": b"Moon"}, "b.c": b"Sun"}}, None, "a.parquet", 1)
    document = make_document(row, Recipe(template="{a.b.c}", identity="m"))
    assert (document.text, document.metadata["a.b.c"]) == ("Moon", "U3Vu")


def test_bytes_name_the_file_of_a_text_and_hold_a_vector(tmp_path: Path) -> None:
    """A path and a vector as JSON text are read from bytes too."""
    (tmp_path / "x.txt").write_text("hello")
    info = pa.array([{"file_path": b"x.txt"}, {"file_path": b"\xff"}])
    vectors = pa.StructArray.from_arrays([pa.array([b"[1, 2]", b"[1, 2]"])], ["v"])
    path = write_parquet(tmp_path / "a.parquet", {"object_id": ["1", "2"], "item_info": info, "payload": vectors})
    rows = rows_of(path)
    recipe = Recipe(identity="m", refs_root=tmp_path, vector_field="v", dimension=2)
    document = make_document(item(rows[0]), recipe)
    assert (document.text, list(document.vector or [])) == ("hello", [1.0, 2.0])
    with pytest.raises(ItemError, match=r"item_info\.file_path holds bytes that are not UTF-8"):
        make_document(item(rows[1]), recipe)


def test_text_that_is_not_utf8_is_a_reject_that_names_its_column(tmp_path: Path) -> None:
    """A column of text with other bytes is named, also by its path in a struct; the other rows are loaded."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2, 4)))
    text = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"ok\xff\xfe"))
    assert _read(tmp_path, text)[0] == "ok"
    assert "`v` cannot be read" in _read(tmp_path, text)[1]
    assert "`v.t` cannot be read" in _read(tmp_path, pa.StructArray.from_arrays([text], ["t"]))[1]


# -- ids ----------------------------------------------------------------------------------------------------------

NO_IDS: dict[str, tuple[pa.Array, str]] = {
    "float": (pa.array([1.0]), "id 1.0 is a float; the column has to be written as integers or text"),
    "half": (pa.array([1.0], pa.float16()), "id 1.0 is a float"),
    "NaN": (pa.array([float("nan")]), "id NaN is a float"),
    "decimal": (pa.array([Decimal("1.50")]), "id 1.50 is a decimal number; the column has to be written"),
    "date": (pa.array([datetime.date(2026, 11, 23)]), "id 2026-11-23 is a date; the column has to be written"),
    "nanosecond": (pa.array([FIRST], NANOS), f"id {FIRST_TEXT} is a date or time; the column has to be written"),
    "boolean": (pa.array([True]), "id is true or false, not text"),
    "list": (pa.array([[1]]), "id is a list, not text"),
}


@pytest.mark.parametrize(("ids", "detail"), NO_IDS.values(), ids=NO_IDS)
def test_a_message_about_an_id_says_what_it_is_and_what_to_do(tmp_path: Path, ids: pa.Array, detail: str) -> None:
    """The value, its kind and the remedy are named."""
    [bad] = rows_of(write_parquet(tmp_path / "a.parquet", {"id": ids}), id_field="id")
    assert detail in reject(bad).detail


def test_a_float_id_in_other_formats_and_in_item_form(tmp_path: Path) -> None:
    """JSONL has the same message; in item form only text is an id, and the message says how integers load."""
    line = write_lines(tmp_path / "a.jsonl", b'{"id": 1.0}', b'{"object_id": 2.5, "payload": {}}', b'{"object_id": 3}')
    assert (
        "id 1.0 is a float; the column has to be written as integers or text"
        in reject(rows_of(line, id_field="id")[0]).detail
    )
    details = [reject(row).detail for row in rows_of(line)[1:]]
    assert "object_id 2.5 is a float; the column has to be written as text" in details[0]
    assert "object_id is a number, not text; `--id-field object_id` takes integers" in details[1]


# -- compared with JSONL ------------------------------------------------------------------------------------------


def test_parquet_and_jsonl_of_the_same_data_make_the_same_records(tmp_path: Path) -> None:
    """Types that JSON lacks are read as the text that JSONL writers use, so that the records are equal."""
    row = {
        "id": "1", "text": "x", "n": 5, "flag": True, "half": 1.5, "big": 2**70, "at": FIRST_TEXT, "uid": UUID, "price": "1.50",
        "deep": {"counts": {"a": 1, "b": None}, "list": [{"a": 1}], "when": "2026-11-23"},
    }  # fmt: skip
    counts = pa.struct([("counts", COUNTS), ("list", pa.list_(COUNTS)), ("when", pa.date32())])
    deep = {"counts": [("a", 1), ("b", None)], "list": [[("a", 1)]], "when": datetime.date(2026, 11, 23)}
    columns = {
        "id": ["1"], "text": ["x"], "n": pa.array([Decimal(5)], pa.decimal128(38, 0)), "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8())),
        "half": pa.array([1.5], pa.float16()), "big": pa.array([Decimal(2**70)], pa.decimal128(38, 0)), "at": pa.array([FIRST], NANOS),
        "uid": pa.array([b"\0" * 15 + b"\x01"], pa.uuid()), "price": pa.array([Decimal("1.50")]), "deep": pa.array([deep], counts),
    }  # fmt: skip
    paths = [
        write_lines(tmp_path / "a.jsonl", json.dumps(row).encode()),
        write_parquet(tmp_path / "a.parquet", columns),
    ]
    for id_from in ("hash", None):
        rows = [
            [
                item(row)
                for row, _ in Rows(sources=sources_of(path), id_field=None if id_from else "id", id_from=id_from)
            ]
            for path in paths
        ]
        documents = [make_document(row, Recipe(identity="m")) for [row] in rows]
        assert documents[0].id == documents[1].id
        assert documents[0].upsert_hash == documents[1].upsert_hash


HASHES = {
    "plain": ({"text": ["x"], "n": [1], "f": [0.1], "tags": [["a", None]], "deep": [{"a": None, "b": True}]}, "be18d7eeec8c93548293d14395d36023"),
    "dates": ({"at": pa.array([1_001_000, None], NANOS), "day": pa.array([1, None], pa.date32()), "t": pa.array([5, 6], pa.time64("us"))}, "286250981d40136caca5ab21a21b71d7"),
    "kept": ({"price": [Decimal("1.50")], "raw": [b"\xff"], "uid": pa.array([b"\0" * 16], pa.uuid()), "m": pa.array([[("a", 1)]], COUNTS)}, "aeda7f5b633be79e26e024b6f9e5e31d"),
    "info": ({"text": ["x"], "item_info": ['{"a": 12345678901234567890}']}, "9d8137f8809b9022c19d5829f6f55e00"),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "expected"), HASHES.values(), ids=HASHES)
def test_ids_of_a_hash_are_those_of_earlier_versions(tmp_path: Path, columns: dict[str, Any], expected: str) -> None:
    """A collection that was loaded by an earlier version is not duplicated."""
    path = write_parquet(tmp_path / "a.parquet", columns)
    row, _ = next(iter(Rows(sources=sources_of(path), id_from="hash")))
    assert item(row).object_id == expected
