"""CSV and TSV, compressed or not, have the rows that any other reader finds, with exact numbers, from any row on."""

from __future__ import annotations

import csv
import gzip
import io
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.reading import fuzz, item, read, reject, rows_of, sources_of, write_file
from upsert_cli.errors import SourceUnreadable, UsageFault
from upsert_cli.sources.item import MAX_ROW, Item, Reject

cells = st.lists(st.sampled_from(["a", "é", '"', ",", ";", "\t", "\n", "\r\n", " ", "0"]), max_size=6).map("".join)
ends = st.sampled_from(["\n", "\r\n"])
quotings = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
FORMATS = {
    f"a.{name}{ending}": delimiter
    for name, delimiter in {"csv": ",", "tsv": "\t"}.items()
    for ending in ("", ".gz", ".zst")
}


@pytest.mark.parametrize("name", FORMATS)
@fuzz(
    table=st.lists(st.tuples(cells, cells), max_size=6),
    style=st.tuples(ends, quotings, st.sampled_from(["", "\ufeff"])),
)
def test_rows_equal_those_of_the_standard_library(
    tmp_path: Path, name: str, table: list[tuple[str, str]], style: tuple[str, Any, str]
) -> None:
    """A file is read as by the standard library's reader, and so is the rest of it from any row on."""
    delimiter = FORMATS[name]
    end, quoting, mark = style
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["object_id", "text", "more"])
    writer.writerows((f"i{number}", *row) for number, row in enumerate(table))
    path = write_file(tmp_path / name, (mark + text.getvalue()).encode())
    rows = read(path)
    expected = csv.DictReader(io.StringIO(text.getvalue(), newline=""), delimiter=delimiter)
    assert [{"object_id": one.object_id} | (one.payload or {}) for one in map(item, (row for row, _ in rows))] == [
        *expected
    ]
    assert [item(row).row for row, _ in rows] == [*range(1, len(table) + 1)]
    assert [source.total for source in sources_of(path)] == [len(table)]
    for number, (_, position) in enumerate(rows):
        assert read(path, start=position) == rows[number + 1 :]


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("closing", [None, 1, 20])
@pytest.mark.parametrize(("name", "other"), [("a.tsv", ","), ("a.csv", "|")])
def test_rows_after_a_header_with_an_odd_quote(
    tmp_path: Path, name: str, other: str, closing: int | None, ending: str
) -> None:
    """A quote that seems to open in the header makes us look further for its end; no row is lost by that."""
    delimiter = FORMATS[name]
    lines = [delimiter.join(("id", f'name{other}"short', "text"))]
    lines += [delimiter.join((f"i{row}", 'x"' if row == closing else "x", f"text {row}")) for row in range(50)]
    path = write_file(tmp_path / f"{name}{ending}", "\n".join(lines).encode())
    rows = read(path, id_field="id")
    assert [item(row).object_id for row, _ in rows] == [f"i{row}" for row in range(50)]
    for number, (_, position) in enumerate(rows):
        assert read(path, start=position, id_field="id") == rows[number + 1 :]


def _shown(path: Path, id_field: str = "id") -> list[str]:
    return [row.object_id if isinstance(row, Item) else row.detail for row in rows_of(path, id_field=id_field)]


def test_a_broken_row_costs_only_itself(tmp_path: Path) -> None:
    """Open or stray quotes, missing fields and bytes of another encoding are rejects; their neighbours load."""
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'id,text\n1,"two\nlines"\n2,"open\n3,x\n4,"a "b" c"\n\n5\n6,x,y\n7,caf\xe9\n8,"""quoted"""\n9,a "b" c\n10,"cut'
    )
    rows = rows_of(path, id_field="id")
    assert [row.row for row in rows] == [*range(1, 11)]
    assert [row.object_id for row in rows if isinstance(row, Item)] == ["1", "3", "8", "9"]
    details = {row.row: row.detail for row in rows if isinstance(row, Reject)}
    assert "never closed" in details[2]
    assert "not doubled" in details[4]
    assert details[5] == "1 fields, but the header has 2"
    assert details[6] == "3 fields, but the header has 2"
    assert "WINDOWS-1252" in details[7]
    assert "never closed" in details[10]
    for number, (_, position) in enumerate(read(path, id_field="id")):
        assert [row for row, _ in read(path, start=position, id_field="id")] == rows[number + 1 :]


def test_rows_after_an_open_quote_are_read(tmp_path: Path) -> None:
    """If nothing closes a quote, the rows after it are read anyway, also beyond the limit of a row."""
    path = tmp_path / "a.csv"
    lines = [f"{number},{'x' * 1_000}" for number in range(2 * MAX_ROW // 1_000)]
    path.write_text("\n".join(["id,text", '-1,"open', *lines]))
    rows = rows_of(path, id_field="id")
    assert "never closed" in reject(rows[0]).detail
    assert [item(row).object_id for row in rows[1:]] == [line.partition(",")[0] for line in lines]


def test_a_huge_field_costs_no_memory(tmp_path: Path) -> None:
    """A field beyond the limit of a row, in one line or in many, is one reject and is never held in memory."""
    for name, filling in {"line": b"x" * 1_000, "lines": b"x" * 999 + b"\n", "commas": b"," * 1_000}.items():
        path = tmp_path / f"{name}.csv"
        with path.open("wb") as file:
            file.write(b'id,text\n1,good\n2,"')
            for _ in range(40_000):
                file.write(filling)
            file.write(b'"\n3,good\n')
        tracemalloc.start()
        rows = rows_of(path, id_field="id") if name != "lines" else rows_of(path, id_field="id")[:2]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert item(rows[0]).object_id == "1"
        assert "larger than 8 MiB" in reject(rows[1]).detail or "never closed" in reject(rows[1]).detail
        if name != "lines":
            assert [item(row).object_id for row in rows[2:]] == ["3"]
            assert peak < 60 << 20


def test_a_huge_name_of_a_column_costs_bounded_memory(tmp_path: Path) -> None:
    """A header just below the limit of a row is read in a few times its size."""
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,"' + b"x" * (7 << 20) + b'"\n1,good\n')
    tracemalloc.start()
    [row] = rows_of(path, id_field="id")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert item(row).object_id == "1"
    assert peak < 100 << 20


def test_open_quotes_cost_bounded_time(tmp_path: Path) -> None:
    """A file in which every line leaves a quote open is read in time proportional to its size."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"id,text\n" + (b"y" * 1_000 + b'","\n') * (20 << 10))
    assert all(isinstance(row, Reject) for row in rows_of(path, id_field="id"))


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (",id,text\n0,1,x\n", {"column1": "0", "text": "x"}),
        ("id;text;price\n1;x;1,5\n", {"text": "x", "price": "1,5"}),
        ("id\ttext\n1\tx,y\n", {"text": "x,y"}),
        ('"id";"text"\n"1";"hallo"\n', {"text": "hallo"}),
        ('"id"\t"a,b"\n1\tx\n', {"a,b": "x"}),
        ('"id"|"a;b"\r\n1|x\r\n', {"a;b": "x"}),
        ('id;"te,xt"\n1;x\n', {"te,xt": "x"}),
        ('"id";"say ""a,b"""\n1;x\n', {'say "a,b"': "x"}),
        ('"id";"two\nlines, one name"\n1;x\n', {"two\nlines, one name": "x"}),
        ('"a;b;c",id\nx,1\n', {"a;b;c": "x"}),
        ('5" disk,id\nx,1\n', {'5" disk': "x"}),
        ("id|a;b|c\n1|x|y\n", {"a;b": "x", "c": "y"}),
        ('\n"id","text, more"\n1,x\n', {"text, more": "x"}),
        ("id,a.b\n1,x\n", {"a.b": "x"}),
        ("id;name, first;price\n1;x;1,5\n", {"name, first": "x", "price": "1,5"}),
        (
            'id;name, first;text\r\n1;"x, y; z";"two\r\nlines, both"\r\n',
            {"name, first": "x, y; z", "text": "two\r\nlines, both"},
        ),
        ("id\tname, first\n1\tx\n", {"name, first": "x"}),
        ("id,a;b;c\n1,x\n", {"a;b;c": "x"}),
        ("id,a;b\n1,x;y\n", {"a;b": "x;y"}),
        ('id,payload,item_info\n1,"{""n"": 1}",\n', {"payload": '{"n": 1}', "item_info": ""}),
    ],
)
def test_headers_and_delimiters(tmp_path: Path, text: str, payload: dict[str, Any]) -> None:
    """Columns without a name get one, the header shows its delimiter, and no name is special."""
    assert item(rows_of(write_file(tmp_path / "a.csv", text.encode()), id_field="id")[0])[:3] == ("1", payload, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"id,text,text\n1,x,y\n", "two columns are called `text`"),
        ("id,text\n1,x\n".encode("utf-16"), "UTF-16.*iconv"),
        ("id,text\n1,x\n".encode("utf-16-le"), "UTF-16.*iconv"),
        (b"id,caf\xe9\n1,x\n", "its header: not UTF-8.*WINDOWS-1252"),
        (b"id,text\r1,x\r2,y\r", "its header: a carriage return"),
        (b'id,"text\n1,x\n', "its header: a quote"),
        (b'"id";"text\n1;x\n', "its header: a quote"),
        (b"\x1f\x8b\x08\0", "gzip; add .gz"),
        (b"PAR1....", "Parquet; --format parquet"),
        (b"PK\x03\x04", "spreadsheet"),
    ],
)
def test_an_unusable_header_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    """A header that cannot be used, or a file of another kind, is named with a remedy."""
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable, match=f"a.csv.*{reason}"):
        rows_of(path, id_field="id")


def test_a_table_without_rows(tmp_path: Path) -> None:
    """An empty file, and one that is only a header, have no rows."""
    for text in ("", "\n\n", "id,text", "id,text\n"):
        path = write_file(tmp_path / "a.csv", text.encode())
        assert rows_of(path) == []
        assert [source.total for source in sources_of(path)] == [0]


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=,", "sep=\t"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_separator_line_for_excel_is_refused(tmp_path: Path, line: str, ending: str) -> None:
    """A first line that tells Excel the delimiter is refused, with a command that omits it."""
    path = tmp_path / f"a.csv{ending}"
    content = f"{line}\nid;text\n1;hola\n".encode()
    path.write_bytes(gzip.compress(content) if ending else content)
    with pytest.raises(
        UsageFault, match=r"`sep=`.*`tail -n \+2 .*a\.csv.* \| upsert-cli run - --format csv`"
    ) as caught:
        sources_of(path)
    assert caught.value.exit_code == 2


def test_tsv_has_no_other_delimiter(tmp_path: Path) -> None:
    """In a file named as TSV no other delimiter is looked for."""
    path = write_file(tmp_path / "a.tsv", b"id,text\n1,x\n")
    assert item(rows_of(path, id_field="id,text")[0])[:2] == ("1,x", {})
