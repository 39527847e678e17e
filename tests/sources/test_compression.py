"""Compressed files give the rows of their content, from any row on; damage is an error with file and row."""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.reading import GOOD, item, read, read_in_a_process, rows_of, sources_of
from tests.support.terminal import SAMPLES
from upsert_cli.errors import SourceUnreadable
from upsert_cli.sources.find import find_files
from upsert_cli.sources.item import Item
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

KINDS = {".gz": "gzip", ".zst": "zstd"}


@cache
def _compressed(data: bytes, kind: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, KINDS[kind]) as file:
        file.write(data)
    value: bytes = sink.getvalue().to_pybytes()
    return value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["articles.jsonl", "mixed_errors.jsonl"])
def test_a_compressed_file_has_the_rows_of_the_plain_one(tmp_path: Path, name: str, kind: str) -> None:
    """Compression changes neither items nor rejects nor positions, and reading continues at any of them."""
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
def test_joined_compressed_files_are_one_file(tmp_path: Path, kind: str) -> None:
    """Files that were compressed separately and concatenated are read as one file."""
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(_compressed(GOOD + b"\n", kind) * 3)
    assert [item(row).row for row in rows_of(path)] == [1, 2, 3]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) * 2 // 3],
    "cut at its end": lambda data: data[:-2],
    "garbage": lambda _: b"object_id,text" * 100,
    "garbage at its end": lambda data: data + b"garbage and more of it",
    "empty": lambda _: b"",
    "a zero and a letter at its end": lambda data: data + b"\0x",
    "zeros and another member": lambda data: data + bytes(512) + data,
    "cut off and filled up": lambda data: data[: len(data) * 2 // 3] + bytes(512),
    "cut at its end and filled up": lambda data: data[:-8] + bytes(512),
    "damaged and filled up": lambda data: data[: len(data) // 2] + b"x" * 64 + data[len(data) // 2 + 64 :] + bytes(512),
    "zeros": lambda _: bytes(1024),
    "other bytes": lambda data: data[: len(data) // 2] + bytes(64) + data[len(data) // 2 + 64 :],
    "only its head": lambda data: data[:6],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_an_error_after_the_good_rows(tmp_path: Path, kind: str, damage: str) -> None:
    """A truncated or damaged file gives its good rows, then an error with file and row."""
    good = (SAMPLES / "articles.jsonl").read_bytes() * 10
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(DAMAGE[damage](_compressed(good, kind)))
    [source] = [Source.of(found) for found in find_files([str(path)])]
    assert source.total is None
    rows = 0
    with pytest.raises(SourceUnreadable) as caught:
        for row, _ in Rows(sources=[source]):
            assert (
                isinstance(row, Item) or "filled" in damage or damage == "other bytes"
            )  # gzip has a checksum only at its end
            rows += 1
    assert str(path) in str(caught.value)
    assert caught.value.row == rows
    if damage in ("cut at its end", "garbage at its end"):
        assert rows > 324 * 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("zeros", [1, 2, 3, 512, 300_000])
@pytest.mark.parametrize("members", [1, 2])
def test_zeros_after_the_data_are_padding(tmp_path: Path, kind: str, zeros: int, members: int) -> None:
    """A file that a tape or a block store padded with zeros ends where its data ends."""
    plain = (SAMPLES / "articles.jsonl").read_bytes() * 5
    path = tmp_path / f"a.jsonl{kind}"
    path.write_bytes(_compressed(plain, kind) * members + bytes(zeros))
    rows = read(path)
    assert len(rows) == members * len(plain.splitlines())
    assert sources_of(path)[0].total == len(rows)
    assert read(path, start=rows[-3][1]) == rows[-2:]


SKIPPABLE = b"\x50\x2a\x4d\x18\x05\0\0\0extra"


@pytest.mark.parametrize("kind", [0x50, 0x5A, 0x5E])
@pytest.mark.parametrize("zeros", [0, 512])
def test_zstd_frames_without_data_are_skipped(tmp_path: Path, zeros: int, kind: int) -> None:
    """Skippable frames of any kind, such as a table of offsets, may be before, between and after the others."""
    path = tmp_path / "a.jsonl.zst"
    frame = _compressed(GOOD + b"\n", ".zst")
    skippable = bytes([kind]) + SKIPPABLE[1:]
    path.write_bytes(skippable + frame + skippable + frame + skippable + bytes(zeros))
    assert [item(row).row for row in rows_of(path)] == [1, 2]


def _frame(*, window_log: int = 17, dictionary: int = 0) -> bytes:
    """Return a frame of one raw block whose header asks for a window size and a dictionary."""
    line = GOOD + b"\n"
    descriptor = bytes([3 if dictionary else 0])
    header = descriptor + bytes([window_log - 10 << 3]) + (dictionary.to_bytes(4, "little") if dictionary else b"")
    return b"\x28\xb5\x2f\xfd" + header + (len(line) << 3 | 1).to_bytes(3, "little") + line


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            {"window_log": 28},
            "a window of 256 MiB, and at most 128 MiB .*; `zstd -dc --long=31 {} | upsert-cli run - --format csv`",
        ),
        ({"window_log": 31}, "a window of 2048 MiB"),
        (
            {"dictionary": 77},
            "with the dictionary 77.*; `zstd -dc -D DICTIONARY {} | upsert-cli run - --format csv`",
        ),
    ],
)
@pytest.mark.parametrize("before", [b"", SKIPPABLE])
def test_a_zstd_frame_that_needs_too_much_is_named(
    tmp_path: Path, frame: dict[str, int], said: str, before: bytes
) -> None:
    """A sound file that needs more memory or a dictionary is not called damaged: the message says how to load it."""
    path = tmp_path / "a b.csv.zst"
    path.write_bytes(before + _frame(**frame))
    with pytest.raises(SourceUnreadable) as caught:
        rows_of(path)
    message = str(caught.value)
    assert re.search(said.replace("|", r"\|").format(re.escape(f"'{path}'")), message), message
    assert "repair" not in message


def test_the_largest_window_is_read(tmp_path: Path) -> None:
    """A file of `zstd --long=27`, whose window is 128 MiB, is read."""
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(_frame(window_log=27) + _frame())
    assert len(rows_of(path)) == 2


def test_a_file_of_another_kind_is_named_inside_and_outside(tmp_path: Path) -> None:
    """A compressed file of another kind, and a plain file with the name of a compressed one, are named."""
    inside = tmp_path / "a.jsonl.gz"
    inside.write_bytes(gzip.compress(b"PAR1 and more"))
    plain = tmp_path / "b.jsonl.gz"
    plain.write_bytes(GOOD)
    with pytest.raises(SourceUnreadable, match=r"a\.jsonl\.gz.*it is Parquet"):
        rows_of(inside)
    with pytest.raises(SourceUnreadable, match=r"b\.jsonl\.gz.*not compressed with gzip"):
        rows_of(plain)
    (tmp_path / "c.jsonl.gz").write_bytes(_frame())
    with pytest.raises(SourceUnreadable, match=r"not compressed with gzip, but compressed with zstd; add \.zst"):
        rows_of(tmp_path / "c.jsonl.gz")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "begin"), [("a.jsonl", b'{"id": "'), ("a.csv", b'id,text\n1,"')])
def test_a_decompression_bomb_costs_bounded_memory(tmp_path: Path, kind: str, name: str, begin: bytes) -> None:
    """A few kilobytes that decompress to 300 MB are one reject and cost a bounded amount of memory."""
    path = tmp_path / f"{name}{kind}"
    with pa.output_stream(path, compression=KINDS[kind]) as file:
        file.write(begin)
        for _ in range(300):
            file.write(b"a" * (1 << 20))
    items, rejects, megabytes = read_in_a_process(path, id_field="id")
    assert (items, rejects) == (0, 1)
    assert megabytes < 250
