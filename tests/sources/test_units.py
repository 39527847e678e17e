"""The units of a file are together the whole file, and each can be read by itself."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.support.reading import fuzz, sources_of
from upsert_cli.sources.item import Item, Position, Reject
from upsert_cli.sources.rows import Rows, Unit, plan_units
from upsert_cli.sources.source import Source

Row = tuple[Item | Reject, Position]


def _whole(sources: list[Source]) -> list[Row]:
    return list(Rows(sources=sources, id_field="id"))


def _rows_of(unit: Unit, sources: list[Source]) -> list[Row]:
    return list(Rows(sources=sources, id_field="id").of(unit))


def _by_units(sources: list[Source], *, rows: int, size: int = 1 << 20) -> list[list[Row]]:
    return [_rows_of(unit, sources) for unit in plan_units(sources, rows=rows, size=size)]


def _check(sources: list[Source], *, rows: int, size: int = 1 << 20) -> None:
    parts = _by_units(sources, rows=rows, size=size)
    assert [row for part in parts for row in part] == _whole(sources)
    assert all(len(part) <= rows for part in parts)


lines = st.lists(
    st.sampled_from([b'{"id": "a", "payload": {"text": "x"}}', b"", b"  ", b"no json", b'"\\u2028"', b"\xff", b"\r"])
)
fields = st.text(alphabet="ab,\"\r\n \t'é", max_size=8)


@fuzz(lines=lines, ends=st.sampled_from([(b"", b""), (b"\xef\xbb\xbf", b"\n")]), rows=st.integers(1, 5))
@pytest.mark.parametrize("size", [1, 40, 1 << 20])
def test_units_of_jsonl(tmp_path: Path, lines: list[bytes], ends: tuple[bytes, bytes], rows: int, size: int) -> None:
    """The units of JSONL are its rows with their numbers, even if lines are blank or broken."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines).join(ends))
    _check(sources_of(path), rows=rows, size=size)


@fuzz(records=st.lists(st.tuples(fields, fields)), raw=st.text(alphabet='a,"\n', max_size=20), rows=st.integers(1, 4))
def test_units_of_csv(tmp_path: Path, records: list[tuple[str, str]], raw: str, rows: int) -> None:
    """The units of CSV end after records, never at a line break inside quotes, even if a quote is left open."""
    quoted = [",".join('"' + field.replace('"', '""') + '"' for field in record) for record in records]
    path = tmp_path / "a.csv"
    path.write_text("\r\n".join(["id,text", *quoted]) + "\n" + raw, newline="")
    _check(sources_of(path), rows=rows)


@pytest.mark.parametrize(("total", "group"), [(0, 5), (1, 5), (23, 5), (20, 5), (30, 30), (40, 1), (7, 3)])
@pytest.mark.parametrize("rows", [1, 4, 5, 7, 100])
def test_units_of_parquet(tmp_path: Path, total: int, group: int, rows: int) -> None:
    """The units of Parquet are whole row groups if these are small, and parts of them if they are large."""
    path = tmp_path / "a.parquet"
    table = pa.table({"id": pa.array([str(number) for number in range(total)], pa.string())})
    pq.write_table(table, path, row_group_size=group)
    _check(sources_of(path), rows=rows)


def test_a_compressed_file_is_one_unit(tmp_path: Path) -> None:
    """A compressed file is not divided, since reading begins at its first byte."""
    paths = [tmp_path / name for name in ("a.jsonl.gz", "b.jsonl.gz")]
    for path in paths:
        path.write_bytes(gzip.compress(b'{"id": "a"}\n' * 50))
    sources = sources_of(*paths)
    assert [len(part) for part in _by_units(sources, rows=10)] == [50, 50]
    _check(sources, rows=50)


def test_the_ids_of_units_are_stable_and_unique(tmp_path: Path) -> None:
    """The same files have the same units each time, even if two files are equal; a changed file has others."""
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    for path in paths:
        path.write_bytes(b'{"id": "a"}\n' * 50)
    first = [unit.id for unit in plan_units(sources_of(*paths), rows=7)]
    assert len(set(first)) == len(first) == 16
    assert [unit.id for unit in plan_units(sources_of(*paths), rows=7)] == first
    paths[0].write_bytes(b'{"id": "b"}\n' * 50)
    again = [unit.id for unit in plan_units(sources_of(*paths), rows=7)]
    assert again[8:] == first[8:]
    assert not set(again[:8]) & set(first)


@pytest.mark.parametrize("compressed", [False, True])
def test_halves_are_the_whole(tmp_path: Path, compressed: bool) -> None:
    """A unit can be halved down to single rows, which are all of its rows, each once."""
    path = tmp_path / ("a.jsonl.gz" if compressed else "a.jsonl")
    content = b"".join(b'{"id": "%d"}\n' % number for number in range(37))
    path.write_bytes(gzip.compress(content) if compressed else content)
    sources = sources_of(path)
    todo, single = list(plan_units(sources, rows=20)), []
    while todo:
        unit = todo.pop()
        assert Unit.from_json(unit.as_json()) == unit
        halves = unit.halves()
        if halves is None or not _rows_of(unit, sources):
            single.append(unit)
        else:
            todo += halves
    rows = [row for unit in single for row in _rows_of(unit, sources)]
    assert sorted(row.row for row, _ in rows) == list(range(1, 38))


def test_the_rest_of_a_unit_begins_after_a_position(tmp_path: Path) -> None:
    """A unit that was loaded in part continues after the last position."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "a"}\n' * 30)
    sources = sources_of(path)
    [_, unit] = plan_units(sources, rows=20)
    _, position = _rows_of(unit, sources)[3]
    rest = unit.rest_from(position)
    assert [row.row for row, _ in _rows_of(rest, sources)] == list(range(25, 31))
    assert rest.id != unit.id
