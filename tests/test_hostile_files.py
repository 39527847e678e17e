"""Hostile files cause no traceback: each error has file and row, and every good item is loaded."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.reading import write_file
from tests.support.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import Pace, read_batches
from upsert_cli.pipeline.preflight import check_first_rows
from upsert_cli.sources.find import find_files
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

MANY = 200  # files


def _line(number: int) -> bytes:
    return json.dumps({"object_id": f"good-{number}", "payload": {"text": f"text {number}"}}).encode()


BAD_LINES: dict[str, bytes] = {
    "cut": b'{"object_id": "x", "payload": {"te',
    "latin-1": '{"object_id": "x", "payload": {"text": "café"}}'.encode("latin-1"),
    "UTF-16": _line(0).decode().encode("utf-16-le"),
    "lone byte": b'{"object_id": "x", "payload": {"text": "\xff"}}',
    "surrogate": b'{"object_id": "x", "payload": {"text": "\\ud800"}}',
    "NaN": b'{"object_id": "x", "payload": {"text": "t", "n": NaN}}',
    "huge float": b'{"object_id": "x", "payload": {"text": "t", "n": 1e999}}',
    "deep": b'{"object_id": "x", "payload": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "deep list": b"[" * 100_000,
    "deep metadata": b'{"object_id": "x", "payload": {"text": "t", "a": ' + b"[" * 120 + b"]" * 120 + b"}}",
    "array": b'[{"object_id": "x"}]',
    "pretty": b'  "object_id": "x",',
    "brace": b"{",
    "text": b'"text"',
    "null": b"null",
    "CSV": b"object_id,text",
    "control": b'{"object_id": "x\x01"}',
    "zeros": b"\0" * 1_000,
    "escape": b"\x1b]0;title\x07",
    "command": b"::error file=a,line=1::hello",
    "no id": b'{"payload": {"text": "t"}}',
    "other id": b'{"id": "x", "payload": {"text": "t"}}',
    "number as id": b'{"object_id": 7, "payload": {"text": "t"}}',
    "empty id": b'{"object_id": "", "payload": {"text": "t"}}',
    "NUL in the id": b'{"object_id": "a\\u0000", "payload": {"text": "t"}}',
    "list as payload": b'{"object_id": "x", "payload": ["t"]}',
    "text as payload": b'{"object_id": "x", "payload": "t"}',
    "number as info": b'{"object_id": "x", "payload": {"text": "t"}, "item_info": 1}',
    "no text": b'{"object_id": "x", "payload": {"title": "t"}}',
    "blank text": b'{"object_id": "x", "payload": {"text": " \\u2003 "}}',
    "number as text": b'{"object_id": "x", "payload": {"text": 1}}',
    "reserved key": b'{"object_id": "x", "payload": {"text": "t", "#k": 1}}',
    "our key": b'{"object_id": "x", "payload": {"text": "t", "upsert_hash": "h"}}',
    "empty key": b'{"object_id": "x", "payload": {"text": "t", "": 1}}',
    "repeated path": b'{"object_id": "x", "payload": {"text": "t", "a.b": 1, "a": {"b": 2}}}',
    "many keys": json.dumps({"object_id": "x", "payload": {"text": "t"} | {f"k{n}": n for n in range(2_000)}}).encode(),
    "large": b'{"object_id": "x", "payload": {"text": "' + b"t" * (9 << 20) + b'"}}',
    "vector of texts": b'{"object_id": "x", "payload": {"text": "t", "vector": ["a"]}}',
    "short vector": b'{"object_id": "x", "payload": {"text": "t", "vector": [1.0]}}',
    "endless vector": b'{"object_id": "x", "payload": {"text": "t", "vector": [1e300, 1]}}',
}

HARMLESS = {
    "CRLF": b"\r",
    "blanks": b"\n \t\n",
    "mark": b"",
}


def _jsonl_files() -> Iterator[tuple[str, bytes, int, int]]:
    """Yield name, content, good rows and bad rows."""
    for place, ((name, bad), ending) in enumerate(itertools.product(BAD_LINES.items(), ("", ".gz", ".zst"))):
        lines = [_line(2 * place), bad, _line(2 * place + 1)]
        yield f"{place} {name}.jsonl{ending}", b"\n".join(lines), 2, 1
    for place, (name, extra) in enumerate(HARMLESS.items(), start=1_000):
        mark = b"\xef\xbb\xbf" if name == "mark" else b""
        yield f"{name}.jsonl", mark + _line(2 * place) + extra + b"\n" + _line(2 * place + 1), 2, 0
    yield "repeated key.jsonl", b'{"object_id": "y", "object_id": "good-r", "payload": {"text": "a"}}', 1, 0
    yield "huge integer.jsonl", b'{"object_id": "good-h", "payload": {"text": "a", "n": 123456789012345678901}}', 1, 0
    yield "empty.jsonl", b"", 0, 0
    yield "pretty.jsonl", json.dumps({"object_id": "x", "payload": {"text": "t"}}, indent=2).encode(), 0, 6
    yield "array.jsonl", b"[" + _line(0) + b"," + _line(1) + b"]", 0, 1


def _csv_files() -> Iterator[tuple[str, bytes, int, int]]:
    bad = {
        "quote": b'x,"open',
        "stray": b'x,"a "b" c"',
        "few": b"x",
        "many": b"x,y,z",
        "latin-1": b"x,caf\xe9",
        "no id": b",text",
        "no text": b"x,",
        "zeros": b"\0,\0",
        "return": b"x,y\rz,w",
        "large": b"x," + b"t" * (9 << 20),
    }
    kinds = itertools.product(bad.items(), ("csv", "tsv"), ("", ".gz", ".zst"))
    for place, ((name, row), kind, ending) in enumerate(kinds, start=2_000):
        text = b"object_id,text\ngood-%d,a\n%b\ngood-%d,b\n" % (2 * place, row, 2 * place + 1)
        yield f"{place} {name}.{kind}{ending}", text if kind == "csv" else text.replace(b",", b"\t"), 2, 1


def _hopeless_files() -> Iterator[tuple[str, bytes]]:
    """Yield files that cannot be read at all; each is an error that names the file."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"object_id": ["x"], "payload": ['{"text": "t"}']}), sink)
    parquet = sink.getvalue()
    good = _line(0) * 2_000
    noise = random.Random(1).randbytes(2_000)
    yield from {
        "cut.parquet": parquet[:-20],
        "headless.parquet": b"XXXX" + parquet[4:-8],
        "garbage.parquet": noise,
        "empty.parquet": b"",
        "lines.parquet": good,
        "named.jsonl": parquet,
        "named.csv": parquet,
        "gzip.jsonl": gzip.compress(good),
        "gzip.csv": gzip.compress(good),
        "plain.jsonl.gz": good,
        "plain.csv.zst": good,
        "noise.jsonl.gz": noise,
        "noise.jsonl.zst": noise,
        "head.jsonl.gz": gzip.compress(good)[:12],
        "empty.jsonl.gz": b"",
        "empty.csv.zst": b"",
        "parquet.jsonl.gz": gzip.compress(parquet),
        "utf-16.jsonl": good.decode().encode("utf-16"),
        "utf-16.csv": "object_id,text\n".encode("utf-16-be"),
        "zip.csv": b"PK\x03\x04" + noise,
        "bzip2.jsonl": b"BZh91AY" + noise,
        "twice.csv": b"object_id,text,text\n1,2,3\n",
        "header.csv": b'object_id,"text\n1,2\n',
        "latin-1.csv": b"object_id,caf\xe9\n1,2\n",
        "return.csv": b"object_id,text\r1,2\r",
        "data.json": _line(0),
        "data.xlsx": b"PK\x03\x04" + noise,
        "data": good,
    }.items()  # fmt: skip


def _read(*paths: Path) -> list[Batch]:
    """Read like a run, up to the documents that would be embedded."""
    sources = [Source.of(found) for found in find_files([str(path) for path in paths])]
    recipe = LoadOptions().recipe("m", identity="m", dimension=3)
    return list(read_batches(Rows(sources=sources), recipe=recipe, pace=Pace(7)))


def _counts(batches: list[Batch]) -> tuple[int, int]:
    return sum(len(one.documents) for one in batches), sum(len(one.rejects) for one in batches)


def test_good_rows_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    """The good rows of each file become documents, and every bad row a reject with file, row and reason."""
    files = [*_jsonl_files(), *_csv_files()]
    assert len(files) + len([*_hopeless_files()]) >= MANY
    for name, content, good, bad in files:
        path = write_file(tmp_path / name, content)
        batches = _read(path)
        assert _counts(batches) == (good, bad), name
        rejects = [reject for batch in batches for reject in batch.rejects]
        for reject in rejects:
            assert (reject.source, reject.row > 0) == (str(path), True), name
            assert reject.detail.isprintable(), name
            assert 0 < len(reject.detail) < 400, name
            assert json.loads(json.dumps(reject.as_json(), allow_nan=False)), name
        path.unlink()


def test_all_of_them_in_one_load(tmp_path: Path) -> None:
    """A folder of such files is read to its end, in bounded memory."""
    files = [file for file in (*_jsonl_files(), *_csv_files()) if len(file[1]) < 1 << 20]
    for name, content, _, _ in files:
        write_file(tmp_path / name, content)
    tracemalloc.start()
    assert _counts(_read(tmp_path)) == (sum(file[2] for file in files), sum(file[3] for file in files))
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(("name", "content"), [*_hopeless_files()], ids=[name for name, _ in _hopeless_files()])
def test_an_unreadable_file_is_an_error_of_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that is damaged at its start or of another kind is an error of one line, with its name and a remedy."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UpsertCliError) as caught:
        _read(path)
    said = str(caught.value)
    assert name in said
    assert said.isprintable()
    assert len(said) < 600


def test_the_first_rows_of_hostile_files(tmp_path: Path) -> None:
    """The check of the first rows accepts every file that has good ones."""
    for name, content, good, _ in (*_jsonl_files(), *_csv_files()):
        if good and len(content) < 1 << 20:
            sources = [Source.of(found) for found in find_files([str(write_file(tmp_path / name, content))])]
            check_first_rows(Rows(sources=sources), recipe=LoadOptions().recipe("m", identity="m"))


def test_a_run_over_hostile_files(tiny: Terminal) -> None:
    """The command loads every good item, exits with 3, and reports each bad row with file, row and reason."""
    folder = tiny.folder / "data"
    folder.mkdir()
    files = [file for file in (*_jsonl_files(), *_csv_files()) if len(file[1]) < 1 << 20]
    for name, content, _, _ in files:
        write_file(folder / name, content)
    done = tiny.type("upsert-cli run data --task-id t", expect=3)
    assert "Traceback" not in done.stderr
    counts = tiny.info("t")["counts"]
    assert (counts["inserted"], counts["failed"]) == (sum(file[2] for file in files), sum(file[3] for file in files))
    failed = [json.loads(line) for line in tiny.type("upsert-cli info t --failed").stdout.splitlines()]
    assert len(failed) == counts["failed"]
    assert all(one["source"].startswith("data/") and one["row"] > 0 and one["detail"] for one in failed)
    # Once fixed, they load with all their other fields.
    lines = [
        json.dumps(one | {"object_id": f"mended-{number}", "payload": {"text": "mended"}, "item_info": None})
        for number, one in enumerate(failed)
    ]
    (tiny.folder / "mended.jsonl").write_text("\n".join(lines))
    tiny.type("upsert-cli run mended.jsonl")
    assert {f"mended-{number}" for number in range(len(failed))} <= tiny.records().keys()


def test_a_run_over_a_file_that_breaks_off(tiny: Terminal) -> None:
    """A truncated compressed file fails the task after its last row, and the rows before are in the collection."""
    whole = gzip.compress(b"\n".join(map(_line, range(1_500))), 1)
    (tiny.folder / "a.jsonl.gz").write_bytes(whole[:-4])
    said = tiny.type("upsert-cli run a.jsonl.gz --task-id t", expect=1).stderr
    assert "a.jsonl.gz cannot be read beyond row" in said
    assert "Traceback" not in said
    assert tiny.info("t")["counts"]["inserted"] > 0
    (tiny.folder / "a.jsonl.gz").write_bytes(whole)
    tiny.type("upsert-cli restart t", expect=4)
    tiny.type("upsert-cli restart t --from-start")
    assert len(tiny.records()) == 1_500


def test_a_line_of_100_mb_in_the_middle(tiny: Terminal) -> None:
    """A huge line is rejected with its row, its neighbours are loaded, and its bytes are never kept."""
    path = tiny.folder / "a.jsonl"
    with path.open("wb") as file:
        file.write(_line(1) + b'\n{"object_id": "big", "payload": {"text": "')
        for _ in range(100):
            file.write(b"long text " * 100_000)
        file.write(b'"}}\n' + _line(2) + b"\n")
    done = tiny.type("upsert-cli run a.jsonl --task-id t --verify", expect=3)
    assert "a.jsonl:2: on_reading: the row is larger than 8 MiB" in done.stderr
    assert tiny.records().keys() == {"good-1", "good-2"}
    [failed] = tiny.type("upsert-cli info t --failed").stdout.splitlines()
    assert len(failed) < 1_000
