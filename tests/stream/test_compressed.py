"""Compressed files: the rows of what is inside, from any row on; damage and bombs are errors with file and row."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import SAMPLES
from tests.stream.reading import GOOD, item, read, rows_of, sources_of
from upsert_cli.errors import SourceUnreadable
from upsert_cli.stream.items.reading import START, Item, read_items
from upsert_cli.stream.sources.source import find_files, fingerprint

KINDS = {".gz": "gzip", ".zst": "zstd"}


def _compressed(data: bytes, kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, KINDS[kind]) as file:
        file.write(data)
    value: bytes = sink.getvalue().to_pybytes()
    return value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["articles.jsonl", "mixed_errors.jsonl"])
def test_the_rows_are_those_of_the_plain_file(tmp_path: Path, name: str, kind: str) -> None:
    """Compression changes neither items nor rejects nor positions, and reading goes on at any of them."""
    plain = tmp_path / name
    plain.write_bytes((SAMPLES / name).read_bytes())
    path = tmp_path / f"{name}{kind}"
    path.write_bytes(_compressed(plain.read_bytes(), kind))
    rows = read(path)
    assert [(position, row.row, row.object_id) for row, position in rows] == [
        (position, row.row, row.object_id) for row, position in read(plain)
    ]
    assert sources_of(path)[0].total == len(rows)
    for number in range(0, len(rows), 50):
        assert read(path, start=rows[number][1]) == rows[number + 1 :]


@pytest.mark.parametrize("kind", KINDS)
def test_members_one_after_the_other(tmp_path: Path, kind: str) -> None:
    """Files that were compressed one by one and joined are one file."""
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(_compressed(GOOD + b"\n", kind) * 3)
    assert [item(row).row for row in rows_of(path)] == [1, 2, 3]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) * 2 // 3],
    "cut at its end": lambda data: data[:-2],
    "garbage": lambda _: b"object_id,text" * 100,
    "garbage at its end": lambda data: data + b"garbage and more of it",
    "empty": lambda _: b"",
    "other bytes": lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
    "only its head": lambda data: data[:6],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_never_silent(tmp_path: Path, kind: str, damage: str) -> None:
    """A file that is cut off or damaged gives its good rows, then an error with file and row."""
    good = (SAMPLES / "articles.jsonl").read_bytes() * 20
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(DAMAGE[damage](_compressed(good, kind)))
    [source] = [fingerprint(found) for found in find_files([str(path)])]
    assert source.total is None
    rows = 0
    with pytest.raises(SourceUnreadable) as caught:
        for row, _ in read_items([source], start=START, id_field=None):
            assert isinstance(row, Item) or damage == "other bytes"  # gzip has a checksum only at its end
            rows += 1
    assert str(path) in str(caught.value)
    assert caught.value.row == rows
    if damage in ("cut at its end", "garbage at its end"):
        assert rows > 324 * 15


def test_what_is_inside_is_looked_at_too(tmp_path: Path) -> None:
    """A compressed file of something else, and a plain one with the name of a compressed one, are named."""
    inside = tmp_path / "a.jsonl.gz"
    inside.write_bytes(gzip.compress(b"PAR1 and more"))
    plain = tmp_path / "b.jsonl.gz"
    plain.write_bytes(GOOD)
    with pytest.raises(SourceUnreadable, match=r"a\.jsonl\.gz.*it is Parquet"):
        rows_of(inside)
    with pytest.raises(SourceUnreadable, match=r"b\.jsonl\.gz.*not compressed with gzip"):
        rows_of(plain)


BOMB = """
import sys
from upsert_cli.stream.items.reading import START, Item, read_items
from upsert_cli.stream.sources.source import find_files, fingerprint
from pathlib import Path
rows = read_items([fingerprint(found) for found in find_files(sys.argv[1:])], start=START, id_field="id")
kinds = [type(row).__name__ for row, _ in rows]
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(kinds.count("Item"), kinds.count("Reject"), int(peak.split()[1]) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "begin"), [("a.jsonl", b'{"id": "'), ("a.csv", b'id,text\n1,"')])
def test_a_bomb(tmp_path: Path, kind: str, name: str, begin: bytes) -> None:
    """A few kilobytes that inflate to 300 MB are one reject and a bounded amount of memory."""
    path = tmp_path / f"{name}{kind}"
    with pa.output_stream(path, compression=KINDS[kind]) as file:
        file.write(begin)
        for _ in range(300):
            file.write(b"a" * (1 << 20))
    done = subprocess.run([sys.executable, "-c", BOMB, str(path)], capture_output=True, text=True, check=True)
    items, rejects, megabytes = map(int, done.stdout.split())
    assert (items, rejects) == (0, 1)
    assert megabytes < 250
