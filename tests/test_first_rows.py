"""`--limit N`: a task of the first N rows of its sources, for every command that reads them."""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.items import Items
from tests.support.reading import write_lines
from tests.support.terminal import Terminal
from upsert_cli.sources.find import find_files
from upsert_cli.sources.rows import Rows, plan_units
from upsert_cli.sources.source import Source

CSV_ROWS = 'object_id,text\n"a","one\nline"\n"b","two"\n"c","three"\n'


def _ids(terminal: Terminal) -> list[str]:
    return sorted(terminal.records())


def _limited(*paths: Path, limit: int) -> list[Source]:
    [source, *others] = [Source.of(found, limit=limit) for found in find_files([str(path) for path in paths])]
    return [source, *others]


def test_the_first_rows_over_all_sources_are_loaded(tiny: Terminal, make_items: Items) -> None:
    """The limit counts rows, rejects among them, over the files in their order; the total is the limit."""
    items = make_items(8)
    tiny.write("a.jsonl", [*items[:2], {"object_id": "bad", "payload": {"text": ""}}])
    tiny.write("b.jsonl", items[2:])
    tiny.type("upsert-cli run a.jsonl b.jsonl --limit 5 --task-id t", expect=3)
    task = tiny.info("t")
    assert task["progress"] == {"rows": 5, "total": 5}
    assert (task["counts"]["read"], task["counts"]["inserted"], task["counts"]["failed"]) == (5, 4, 1)
    assert task["options"]["limit"] == 5
    assert _ids(tiny) == sorted(item["object_id"] for item in items[:4])


def test_files_after_the_limit_are_not_opened(tiny: Terminal, make_items: Items) -> None:
    """A broken file after the last row to read stops nothing, and the limit may be above all rows."""
    tiny.write("a.jsonl", make_items(3))
    (tiny.folder / "b.parquet").write_bytes(b"not Parquet")
    tiny.type("upsert-cli run a.jsonl b.parquet --limit 3 --task-id t")
    tiny.type("upsert-cli verify t")
    tiny.type("upsert-cli run a.jsonl b.parquet --limit 4", expect=1)
    assert tiny.type("upsert-cli run a.jsonl --limit 9 --dry-run").stderr.count("3 unchanged") == 1


def test_a_dry_run_reports_the_limited_load(tiny: Terminal, make_items: Items) -> None:
    """`--dry-run` reads as far as the load, and so does a task that a worker runs."""
    tiny.write("a.jsonl", make_items(20))
    told = json.loads(tiny.type("upsert-cli run a.jsonl --limit 7 --dry-run --json").stdout.splitlines()[-1])
    assert told["counts"]["inserted"] == 7
    tiny.type("upsert-cli categories run a.jsonl --limit 7 --enqueue --task-id t")
    assert tiny.info("t")["progress"] == {"rows": 0, "total": 7}
    tiny.type("upsert-cli work")
    assert tiny.info("t")["counts"]["inserted"] == 7


def test_another_limit_is_another_load(tiny: Terminal, make_items: Items) -> None:
    """The same task id with another limit is refused, and with the same limit it is the same task."""
    tiny.write("a.jsonl", make_items(4))
    tiny.type("upsert-cli run a.jsonl --limit 2 --task-id t")
    for other, shown in (("--limit 3", "--limit: 2, now 3"), ("", "--limit: 2, now not given")):
        assert shown in tiny.type(f"upsert-cli run a.jsonl {other} --task-id t", expect=4).stderr
    assert "done already" in tiny.type("upsert-cli run a.jsonl --limit 2 --task-id t").stderr
    assert len(tiny.records()) == 2


def test_a_limit_deletes_nothing(tiny: Terminal, make_items: Items) -> None:
    """`--delete-missing` would delete the records of the rows that are not read, so the two exclude each other."""
    tiny.write("a.jsonl", make_items(4))
    tiny.type("upsert-cli run a.jsonl --delete-missing")
    errors = tiny.type("upsert-cli run a.jsonl --delete-missing --limit 2", expect=2).stderr
    assert "--delete-missing" in errors and "--limit" in errors
    assert len(tiny.records()) == 4
    tiny.type("upsert-cli run a.jsonl --limit 0", expect=2)


def test_an_interrupted_load_stops_at_the_same_row(tiny: Terminal, make_items: Items) -> None:
    """A restart continues at the checkpoint and ends at the limit, and verify expects no row after it."""
    tiny.write("a.jsonl", make_items(3_000))
    process = tiny.start("upsert-cli run a.jsonl --limit 2000 --batch-size 50 --task-id t")
    tiny.halt_when(process, "t", lambda: tiny.info("t")["progress"]["rows"] > 0)
    process.kill()
    tiny.go_on(process)  # its writer, which then ends
    process.communicate()
    tiny.type("upsert-cli restart t")
    task = tiny.info("t")
    assert task["progress"] == {"rows": 2000, "total": 2000}
    assert len(tiny.records()) == 2000
    assert "2,000 rows of the sources compared; 0 missing" in tiny.type("upsert-cli verify t").stderr


def test_a_restart_from_the_start_counts_again(tiny: Terminal, make_items: Items) -> None:
    """`--from-start` reads the first N rows of the files' present content, including standard input."""
    items = make_items(6)
    tiny.write("a.jsonl", items[:3])
    lines = "".join(json.dumps(item) + "\n" for item in items[3:])
    tiny.type("upsert-cli run a.jsonl - --limit 4 --task-id t", stdin=lines)
    tiny.write("a.jsonl", items[:2])
    tiny.type("upsert-cli restart t --from-start")
    assert tiny.info("t")["counts"] | {"read": 4, "unchanged": 3, "inserted": 1} == tiny.info("t")["counts"]
    assert _ids(tiny) == sorted(item["object_id"] for item in items[:5])


def test_a_retry_of_the_rejects_reads_no_further(tiny: Terminal, make_items: Items) -> None:
    """`--failed-only` retries the rejects among the first N rows, and no row after them replaces one."""
    items = make_items(4)
    tiny.write("a.jsonl", [items[0], items[1] | {"item_info": {"file_path": "late.txt"}, "payload": {}}, *items[1:]])
    (tiny.folder / "refs").mkdir()
    tiny.type("upsert-cli run a.jsonl --limit 2 --refs-root refs --task-id t", expect=3)
    (tiny.folder / "refs" / "late.txt").write_text("now it is there")
    tiny.type("upsert-cli restart t --failed-only")
    assert tiny.records()[items[1]["object_id"]]["document"] == "now it is there"
    assert _ids(tiny) == sorted(item["object_id"] for item in items[:2])


def test_a_stream_ends_at_the_limit(tiny: Terminal, make_items: Items) -> None:
    """Standard input counts like a file, and blank lines are not rows."""
    lines = "".join("\n" + json.dumps(item) + "\n" for item in make_items(5))
    tiny.type("upsert-cli run - --limit 2 --task-id t", stdin=lines)
    assert tiny.info("t")["progress"] == {"rows": 2, "total": 2}


def test_a_writer_is_not_waited_for(tiny: Terminal, make_items: Items) -> None:
    """A load ends after its rows although the writer of the stream goes on, and keeps only their lines."""
    process = tiny.start("upsert-cli run - --limit 2 --task-id t", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write("  \n" + "".join(json.dumps(item) + "\n\n" for item in make_items(4)))
    process.stdin.flush()
    assert process.wait(120) == 0
    assert tiny.info("t")["counts"]["inserted"] == 2
    [kept] = (tiny.journal / "spool" / "t").iterdir()
    assert [json.loads(line) for line in kept.read_text().splitlines() if line.strip()] == make_items(2)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_writer_of_records_is_not_waited_for(tiny: Terminal, suffix: str) -> None:
    """A record of CSV may take several lines; the load ends after the last one that it reads, and keeps no more."""
    process = tiny.start(
        f"upsert-cli run - --format {suffix} --id-field object_id --limit 2 --task-id t", stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    rows = CSV_ROWS.replace(",", "," if suffix == "csv" else "\t")
    process.stdin.write(rows)
    process.stdin.flush()
    assert process.wait(120) == 0
    assert {one: record["document"] for one, record in tiny.records().items()} == {"a": "one\nline", "b": "two"}
    [kept] = (tiny.journal / "spool" / "t").iterdir()
    assert kept.read_text() == rows[: rows.index('"c"')]
    tiny.type("upsert-cli restart t --from-start")
    assert tiny.info("t")["counts"]["unchanged"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("object_id,text,text\na,b,c\n", "two columns are called `text`"),
        ("sep=;\nobject_id;text\na;b\n", "is only for Excel"),
    ],
)
def test_a_stream_with_a_wrong_header_is_refused_by_name(tiny: Terminal, text: str, message: str) -> None:
    """The message is about the header, and not about the copy of the stream."""
    code = 2 if "sep" in text else 1
    assert message in tiny.type("upsert-cli run - --format csv --limit 1", stdin=text, expect=code).stderr


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 6])
def test_each_format_ends_at_the_limit(tmp_path: Path, limit: int) -> None:
    """The rows, their positions and the units of the first rows are the first ones of all rows."""
    lines = [b'{"object_id": "a"}', b"", b"no json", b'{"object_id": "c"}', b"  ", b'{"object_id": "d"}']
    paths = [
        write_lines(tmp_path / "a.jsonl", *lines),
        tmp_path / "b.jsonl.gz",
        tmp_path / "c.csv",
        tmp_path / "d.parquet",
    ]
    paths[1].write_bytes(gzip.compress(b"\n".join(lines)))
    paths[2].write_text(CSV_ROWS)
    pq.write_table(pa.table({"object_id": ["a", "b", "c", "d", "e"]}), paths[3], row_group_size=2)
    for path in paths:
        whole = list(Rows(sources=[Source.of(found) for found in find_files([str(path)])]))
        sources = _limited(path, limit=limit)
        first = list(Rows(sources=sources))
        assert first == whole[:limit]
        assert sources[0].total == len(first)
        assert Source.from_json(sources[0].as_json()) == sources[0]
        assert list(Rows(sources=sources).after(first[0][1])) == first[1:]
        units = list(plan_units(sources, rows=2))
        assert [row for unit in units for row in Rows(sources=sources).of(unit)] == first
        assert len(units) <= -(-first[-1][1].row // 2)


def test_damage_after_the_limit_is_not_met(tiny: Terminal, make_items: Items) -> None:
    """A compressed file that breaks off after the last row to read loads as if it were whole."""
    lines = "".join(json.dumps(item) + "\n" for item in make_items(3_000)).encode()
    whole = gzip.compress(lines)
    (tiny.folder / "a.jsonl.gz").write_bytes(whole[: len(whole) * 2 // 3])
    tiny.type("upsert-cli run a.jsonl.gz --limit 100 --task-id t")
    assert tiny.info("t")["counts"]["inserted"] == 100
    tiny.type("upsert-cli restart t --from-start")
    tiny.type("upsert-cli run a.jsonl.gz --limit 2990", expect=1)
