"""Names that a user may give, and fingerprints that let a later run recognize the same file."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import select
import shlex
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from tests.support.reading import sources_of
from tests.support.terminal import Terminal
from upsert_cli.errors import (
    Refusal,
    SourceUnreadable,
    UpsertCliError,
    UsageFault,
)
from upsert_cli.journal.spool import spool
from upsert_cli.sources.addresses import source_name
from upsert_cli.sources.find import find_files
from upsert_cli.sources.formats import KNOWN_SUFFIXES, SUFFIXES, Unsuitable, format_name_of
from upsert_cli.sources.item import Item
from upsert_cli.sources.readers import reader_of
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import FoundFile, Source
from upsert_cli.sources.source_faults import not_loadable

LINE = b'{"object_id": "a", "payload": {"text": "hello"}}\n'
EDGE = 4 << 20  # bytes at each end that a fingerprint covers


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make names relative to the test's own folder."""
    monkeypatch.chdir(tmp_path)


def _write(name: str, content: bytes = LINE) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _names(*names: str) -> list[str]:
    return [found.name for found in find_files(names)]


def _source(name: str) -> Source:
    [found] = find_files([name])
    return Source.of(found)


# -- finding ------------------------------------------------------------------------------------------------------


def test_every_format_has_a_suffix_and_a_reader() -> None:
    """Each format that a shell completes can be read, and each known suffix leads to one of them."""
    for name in SUFFIXES:
        assert callable(reader_of(Path("a"), name).read)
    assert {format_name_of(Path(f"a{suffix}")) for suffix in KNOWN_SUFFIXES} == set(SUFFIXES)


def test_a_file_keeps_its_name_and_is_opened_by_an_absolute_path() -> None:
    """A file keeps the name that the user gave, and is opened by a path that holds in any folder."""
    _write("data/a.jsonl")
    assert find_files(["data/a.jsonl"]) == [
        FoundFile(name="data/a.jsonl", path=Path.cwd() / "data/a.jsonl", format="jsonl")
    ]


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.JSONL", "jsonl"),
        ("a.b.parquet", "parquet"),
        ("a.csv", "csv"),
        ("a.tsv", "tsv"),
        ("a.ndjson.gz", "jsonl.gz"),
        ("a.csv.ZST", "csv.zst"),
    ],
)
def test_the_suffix_says_the_format(name: str, format_name: str) -> None:
    """Each known suffix, in any case, leads to its format."""
    _write(name)
    assert [found.format for found in find_files([name])] == [format_name]


def test_a_folder_stands_for_all_files_below_it() -> None:
    """A folder stands for all data files below it, sorted, without hidden and foreign ones."""
    for name in ("d/b.jsonl", "d/a.jsonl", "d/sub/deep/c.parquet", "d/.hidden.jsonl", "d/.git/x.jsonl", "d/README.md"):
        _write(name)
    assert _names("d") == ["d/a.jsonl", "d/b.jsonl", "d/sub/deep/c.parquet"]


def test_a_glob_is_expanded() -> None:
    """A glob that no shell expanded matches without hidden files, and `**` matches any folders."""
    for name in ("d/a.jsonl", "d/b.jsonl", "d/sub/c.jsonl", "d/sub/deep/d.jsonl", "d/.x.jsonl", "d/note.txt"):
        _write(name)
    assert _names("d/*.jsonl") == ["d/a.jsonl", "d/b.jsonl"]
    assert _names("d/[b-z]*") == ["d/b.jsonl", "d/sub/c.jsonl", "d/sub/deep/d.jsonl"]
    assert _names("d/**/*.jsonl") == ["d/a.jsonl", "d/b.jsonl", "d/sub/c.jsonl", "d/sub/deep/d.jsonl"]
    assert _names("**/deep") == ["d/sub/deep/d.jsonl"]
    assert _names("d/**") == _names("d")
    assert _names(str(Path.cwd() / "*" / "sub" / "*.jsonl")) == [str(Path.cwd() / "d/sub/c.jsonl")]


def _report(*names: str) -> list[str]:
    notes: list[str] = []
    find_files(names, report=notes.append)
    return notes


def test_names_that_are_not_data_are_skipped() -> None:
    """Names that begin with `_` or `.` are skipped and counted, except those of partitions."""
    for name in (
        "d/part-0.jsonl", "d/_temporary/0/part-1.jsonl", "d/_spool.jsonl", "d/.part-0.jsonl.crc", "d/_SUCCESS",
        "d/_year=2024/a.jsonl", "d/_year=2024/_tmp/b.jsonl", "d/.year=2024/c.jsonl", "d/k=1/_x=2/d.jsonl", "d/_k=v.jsonl",
    ):  # fmt: skip
        _write(name)
    kept = ["d/part-0.jsonl", "d/_year=2024/a.jsonl", "d/k=1/_x=2/d.jsonl"]
    assert _names("d") == kept
    assert _names("d/**") == kept
    assert _names("d/**/*.jsonl") == kept
    assert set(_names("d/*")) == set(kept)
    for name in ("d", "d/**/*.jsonl"):
        assert _report(name) == [
            f"{name}: skipped 7 files or folders whose names begin with `_` or `.`",
            f"{name}: the values in names of folders, such as `_year=2024`, `k=1`, `_x=2`, are not stored",
        ]
    assert _report("d/part-0.jsonl", "d/_spool.jsonl") == []


def test_a_named_file_is_never_skipped() -> None:
    """A file or folder is read if it is named, or matched by a glob that begins with the same character."""
    for name in ("d/_tmp/a.jsonl", "d/_tmp/_b.jsonl", "d/.hidden/c.jsonl", "_d/e.jsonl", "d/_f.jsonl"):
        _write(name)
    assert _names("d/_tmp") == ["d/_tmp/a.jsonl"]
    assert _names("_d", "d/.hidden", "d/_f.jsonl", "d/_tmp/_b.jsonl") == [
        "_d/e.jsonl", "d/.hidden/c.jsonl", "d/_f.jsonl", "d/_tmp/_b.jsonl",
    ]  # fmt: skip
    assert _names("d/_*") == ["d/_f.jsonl", "d/_tmp/a.jsonl"]
    assert _names("d/_tmp/*.jsonl") == ["d/_tmp/a.jsonl"]
    assert _names("d/.h*/*") == ["d/.hidden/c.jsonl"]
    with pytest.raises(UsageFault, match="but not in 3 files or folders whose names begin with `_`"):
        find_files(["d"])
    _write("one/_g.jsonl")
    with pytest.raises(UsageFault, match="but not in 1 file or folder whose name begins with `_`"):
        find_files(["one"])


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/00000.json", "a Delta"),
        (".hoodie/hoodie.properties", "a Hudi"),
        ("metadata/v1.metadata.json", "an Iceberg"),
    ],
)
def test_a_table_with_a_log_is_refused(log: str, kind: str) -> None:
    """A table's files also hold deleted rows, so its folder is refused at any depth; its files can be named."""
    _write("lake/table/part-0.jsonl")
    _write(f"lake/table/{log}")
    for name in ("lake", "lake/table", "lake/*", "lake/**/*.jsonl"):
        with pytest.raises(Refusal, match=f"lake/table is {kind} table"):
            find_files([name])
    assert _names("lake/table/part-0.jsonl", "lake/table/*.jsonl") == ["lake/table/part-0.jsonl"]
    _write("plain/metadata/a.jsonl")
    assert _names("plain") == ["plain/metadata/a.jsonl"]


def test_a_name_that_looks_like_a_glob() -> None:
    """An existing file is read by its name, even if the name contains brackets."""
    _write("a[1].jsonl")
    _write("a1.jsonl")
    assert _names("a[1].jsonl") == ["a[1].jsonl"]


def test_the_same_file_is_read_once() -> None:
    """A file that is named twice, by another spelling, a link or its folder, is loaded once, at its first name."""
    _write("d/a.jsonl")
    _write("d/b.jsonl")
    Path("link.jsonl").symlink_to("d/a.jsonl")
    assert _names("d/b.jsonl", "d/../d/b.jsonl", "link.jsonl", "d", "-", "-") == ["d/b.jsonl", "link.jsonl", "-"]


@pytest.mark.parametrize("name", ["nothing.jsonl", "nothing/", "", "a\0b.jsonl", "a.jsonl/b", "\ud800.jsonl"])
def test_a_name_of_nothing_is_a_usage_fault(name: str) -> None:
    """A name of nothing is a usage fault, and the message can be printed for any name."""
    _write("a.jsonl")
    with pytest.raises(UsageFault, match="does not exist") as caught:
        find_files([name])
    assert str(caught.value).encode()


@pytest.mark.parametrize("name", ["empty", "foreign", "empty/*.jsonl", "foreign/*", "empty/**/*.jsonl", "no/**/such"])
def test_a_folder_or_glob_without_data_is_a_usage_fault(name: str) -> None:
    """A folder or a glob without data files is a usage fault that names the suffixes that were looked for."""
    Path("empty").mkdir()
    _write("foreign/notes.txt")
    with pytest.raises(UsageFault, match=r"holds no file of items; .*\.parquet") as caught:
        find_files([name])
    assert caught.value.exit_code == 2


def test_an_unknown_suffix_is_a_usage_fault() -> None:
    """A named file of an unknown format is not skipped silently."""
    _write("a.txt")
    with pytest.raises(UsageFault, match=r"a\.txt.*\.jsonl.*\.parquet") as caught:
        find_files(["a.txt"])
    assert caught.value.exit_code == 2


def test_a_given_format_overrides_suffixes() -> None:
    """A given format overrides suffixes and also finds files without one, but no markers or notes of other programs."""
    for name in ("d/part-0", "d/a.json", "d/b.csv.gz", "d/_SUCCESS", "d/README.md", "d/sub/part-1"):
        _write(name)
    assert _names("d") == ["d/b.csv.gz"]
    for names, expected in {
        ("d",): ["d/b.csv.gz", "d/part-0", "d/sub/part-1"],
        ("d/*.json",): ["d/a.json"],
        ("d/a.json", "-"): ["d/a.json", "-"],
    }.items():
        found = find_files(names, format_name="tsv")
        assert [file.name for file in found] == expected
        assert {file.format for file in found} == {"tsv"}


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("a.json", LINE, "--format jsonl; `jq"),
        ("a.json", b"PAR1....", "Parquet; --format parquet"),
        ("a.txt", b"\x1f\x8b\x08\0", "gzip; add .gz"),
        ("a.json.gz", b"\x1f\x8b\x08\0", "the format in it; --format .* --format jsonl.gz"),
        ("a.ZST", b"\x28\xb5\x2f\xfd", "the format in it; --format .* --format jsonl.zst"),
        ("a.gz", b"\x28\xb5\x2f\xfd", "zstd; add .zst"),
        ("a.xlsx", b"PK\x03\x04", "spreadsheet"),
    ],
)
def test_the_kind_of_a_file_with_an_unknown_suffix_is_named(name: str, content: bytes, hint: str) -> None:
    """If the first bytes show the kind of a file, the message names it."""
    _write(name, content)
    with pytest.raises(UsageFault, match=hint):
        find_files([name])


def test_circular_links_end() -> None:
    """Links that lead up, to themselves or nowhere neither hang a walk nor hide other files."""
    _write("d/a.jsonl")
    _write("elsewhere/far.jsonl")
    for name, target in {"up": "..", "self": ".", "again": ".", "gone": "nowhere", "far": "../elsewhere"}.items():
        Path("d", name).symlink_to(target)
    Path("d/loop.jsonl").symlink_to("loop.jsonl")
    Path("d/dangling.jsonl").symlink_to("nowhere.jsonl")
    found = {Path(str(found.path)).resolve().name for found in find_files(["d"])}
    assert found == {"a.jsonl", "far.jsonl"}
    assert {Path(str(found.path)).resolve().name for found in find_files(["d/**/*.jsonl"])} == found
    with pytest.raises(SourceUnreadable, match=r"loop\.jsonl"):
        find_files(["d/loop.jsonl"])
    with pytest.raises(UsageFault, match="does not exist"):
        find_files(["d/dangling.jsonl"])


def test_pipes_are_spooled_and_only_where_they_are_named() -> None:
    """Standard input and named pipes can be read once; a pipe that is only found in a folder would block for ever."""
    _write("d/a.jsonl")
    os.mkfifo("d/pipe.jsonl")
    os.mkfifo("pipe")
    assert [(found.name, found.spooled) for found in find_files(["d", "-", "pipe", "d/pipe.jsonl"])] == [
        ("d/a.jsonl", False),
        ("-", True),
        ("pipe", True),
        ("d/pipe.jsonl", True),
    ]
    with pytest.raises(SourceUnreadable, match="not a regular file"):
        Source.of(find_files(["pipe"])[0])


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_devices_are_refused(name: str) -> None:
    """A device is refused, since some never end."""
    with pytest.raises(SourceUnreadable, match="neither a file"):
        find_files([name])


def test_a_name_of_any_bytes() -> None:
    """A file whose name is not UTF-8 is opened, and has a name that can be printed and journaled."""
    raw = os.fsdecode(b"d/caf\xe9.jsonl")
    _write(raw)
    for asked in (raw, "d", "d/*"):
        source = _source(asked)
        assert source.name == "d/caf\\xe9.jsonl"
        journaled = json.dumps(source.as_json(), ensure_ascii=False).encode()
        again = Source.from_json(json.loads(journaled))
        assert again == source
        assert [row.object_id for row, _ in Rows(sources=[again])] == ["a"]


# -- fingerprints -------------------------------------------------------------------------------------------------


def test_a_source_survives_the_journal() -> None:
    """A source is the same after a round trip through JSON, and keys of a newer version are ignored."""
    _write("a.jsonl", LINE * 3)
    source = _source("a.jsonl")
    assert source.total == 3
    assert Source.from_json(json.loads(json.dumps(source.as_json())) | {"newer": 1}) == source


def test_the_rows_of_a_parquet_file_are_in_its_footer() -> None:
    """The total of a Parquet file is known without reading it."""
    pq.write_table(pa.table({"object_id": ["a", "b"]}), "a.parquet")
    assert _source("a.parquet").total == 2


def test_a_file_that_was_touched_or_copied_is_the_same() -> None:
    """Another mtime alone does not mean a change if the digest covers the whole file."""
    path = _write("a.jsonl")
    source = _source("a.jsonl")
    os.utime(path, ns=(1, 1))
    source.check_unchanged(task_id="t")


@pytest.mark.parametrize(
    ("content", "how"),
    [
        (LINE * 2, f"size {len(LINE)} -> {2 * len(LINE)} bytes"),
        (LINE.replace(b"hello", b"hallo"), "same size, other content"),
    ],
)
def test_a_changed_file_is_refused(content: bytes, how: str) -> None:
    """Another size or content is refused, with the change."""
    path = _write("a.jsonl")
    source = _source("a.jsonl")
    path.write_bytes(content)
    with pytest.raises(Refusal, match=re.escape(f"a.jsonl changed since the task was last run ({how})")):
        source.check_unchanged(task_id="t")
    assert source.change() == how


@pytest.mark.parametrize("place", [0, EDGE + 100, -1])
def test_a_change_anywhere_in_a_large_file_is_noticed(place: int) -> None:
    """A change at either end of a large file shows in its digest, one in between in its mtime."""
    path = _write("a.jsonl", b"x" * (3 * EDGE))
    source = _source("a.jsonl")
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        file.write(b"y")
    os.utime(path, ns=(1, 1))
    assert source.change() is not None


def test_a_missing_file_counts_as_changed() -> None:
    """A file that no longer exists counts as changed."""
    path = _write("a.jsonl")
    source = _source("a.jsonl")
    path.unlink()
    with pytest.raises(Refusal, match="No such file"):
        source.check_unchanged(task_id="t")


def test_a_broken_parquet_file_is_named() -> None:
    """An empty or truncated Parquet file, or one of another kind, is refused by name before anything is loaded."""
    pq.write_table(pa.table({"object_id": ["a", "b"]}), "good.parquet")
    whole = Path("good.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], LINE):
        _write("a.parquet", content)
        with pytest.raises(SourceUnreadable, match=r"a\.parquet") as caught:
            _source("a.parquet")
        assert caught.value.exit_code == 1


# -- spooling -----------------------------------------------------------------------------------------------------


def test_standard_input_is_kept_whole_and_private() -> None:
    """Standard input is copied into a file for its owner only, and equal input is the same source each time."""
    content = LINE * 40_000
    sources = []
    for name in ("one.jsonl", "two.jsonl"):
        path = Path(name).absolute()
        spool(io.BytesIO(content), path, name="-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        sources.append(Source.of(replace(find_files(["-"])[0], path=path)))
    assert sources[0].total == 40_000
    assert sources[1].fingerprint.changed_from(sources[0].fingerprint) is None
    assert sorted(path.name for path in Path().iterdir()) == ["one.jsonl", "two.jsonl"]


def test_the_digest_of_a_spooled_file_covers_all_of_it() -> None:
    """Two large inputs that differ only in the middle are distinguished, and the time of spooling has no effect."""
    content = bytearray(b"x" * (3 * EDGE))
    spool(io.BytesIO(content), Path("one.jsonl").absolute(), name="-")
    content[EDGE + 100] = ord("y")
    spool(io.BytesIO(content), Path("two.jsonl").absolute(), name="-")
    [stdin] = find_files(["-"])
    one, two = (Source.of(replace(stdin, path=Path(name).absolute())) for name in ("one.jsonl", "two.jsonl"))
    assert two.fingerprint.changed_from(one.fingerprint) == "same size, other content"
    os.utime("one.jsonl", ns=(1, 1))
    assert one.change() is None


def test_a_pipe_is_read_to_its_end() -> None:
    """A named pipe is read until its writer is done."""
    os.mkfifo("pipe")
    [found] = find_files(["pipe"])
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(LINE * 3))
    writer.start()
    assert isinstance(found.path, Path)
    with found.path.open("rb") as stream:
        spool(stream, Path("kept.jsonl").absolute(), name="-")
    writer.join()
    source = Source.of(replace(found, path=Path("kept.jsonl").absolute()))
    rows = [row for row, _ in Rows(sources=[source])]
    assert [(type(row), row.source, row.row) for row in rows] == [
        (Item, "pipe", 1),
        (Item, "pipe", 2),
        (Item, "pipe", 3),
    ]


class _Broken(io.BytesIO):
    """A stream that ends with an error after some bytes."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(LINE)
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise self._error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_spool_leaves_nothing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Input that cannot be kept completely is not kept at all, and the message names the file."""

    def fail(_descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((UpsertCliError, KeyboardInterrupt)) as caught:
        spool(io.BytesIO(LINE), Path("kept.jsonl").absolute(), name="-")
    assert isinstance(caught.value, KeyboardInterrupt) or "kept.jsonl (No space left on device)" in str(caught.value)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["-", "a pipe"])
def test_a_stream_that_breaks_off_is_not_kept(name: str) -> None:
    """Input that cannot be read to its end is not kept, and the message names the input."""
    with pytest.raises(SourceUnreadable) as caught:
        spool(_Broken(OSError(5, "Input/output error")), Path("kept.jsonl").absolute(), name=name)
    said = {
        "-": "standard input cannot be read: Input/output error",
        "a pipe": "a pipe cannot be read (Input/output error)",
    }
    assert said[name] in str(caught.value)
    assert list(Path().iterdir()) == []


def test_a_non_blocking_stream_is_read_to_its_end() -> None:
    """A moment without data is not the end of a non-blocking pipe."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb") as stream, ThreadPoolExecutor(1) as threads:
        done = threads.submit(spool, stream, Path("kept.jsonl").absolute(), name="-")
        with os.fdopen(writing, "wb", buffering=0) as end:
            for _ in range(3):
                end.write(LINE)
                _wait_until_drained(reading)
        done.result()
    assert Path("kept.jsonl").read_bytes() == LINE * 3


def _wait_until_drained(reading: int) -> None:
    while select.select([reading], [], [], 0)[0]:
        time.sleep(0.001)


def _by_pyarrow(write: Callable[[pa.Table, Any], None]) -> bytes:
    sink = pa.BufferOutputStream()
    write(pa.table({"object_id": ["a"]}), sink)
    value: bytes = sink.getvalue().to_pybytes()
    return value


def _arrow(opened: Callable[..., Any]) -> Callable[[pa.Table, Any], None]:
    def write(table: pa.Table, sink: Any) -> None:
        with opened(sink, table.schema) as writer:
            writer.write_table(table)

    return write


FOREIGN: dict[str, tuple[bytes, str]] = {
    "Avro": (b"Obj\x01\x04", "an Avro file; `fastavro .*` "),
    "ORC": (_by_pyarrow(orc.write_table), "an ORC file; `python -c .*`"),
    "Arrow": (_by_pyarrow(_arrow(pa.ipc.new_file)), "an Arrow file; `python -c .*`"),
    "Arrow stream": (_by_pyarrow(_arrow(pa.ipc.new_stream)), "an Arrow stream; `python -c .*`"),
    "Excel": (b"PK\x03\x04\x14", "a spreadsheet; .* save it as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1", "old version of Excel.*; save it as CSV"),
    "a login page": (b"\n<!doctype html>\n<title>Log in</title>", "an HTML page, such as a login or error page"),
    "an error page": (b"<html><head>", "an HTML page"),
    "XML": (b'<?xml version="1.0"?><Error/>', "XML; "),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS.*; `git lfs pull`"),
    "SQLite": (b"SQLite format 3\0", "an SQLite database; `sqlite3 -csv"),
    "PDF": (b"%PDF-1.7\n", "a PDF"),
    "LZ4": (b"\x04\x22\x4d\x18d", "compressed with LZ4; unpack"),
    "UTF-16": ("{}".encode("utf-16"), "text in UTF-16; `iconv -f UTF-16 -t UTF-8 .*`"),
    "UTF-32": ("{}".encode("utf-32"), "text in UTF-32; `iconv -f UTF-32 -t UTF-8 .*`"),
}


@pytest.mark.parametrize("name", ["a b.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize(("content", "said"), FOREIGN.values(), ids=FOREIGN)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """A file of another kind is not called damaged: the message names its kind and how to load it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceUnreadable) as caught:
        sources_of(path)
    message = str(caught.value)
    assert re.search(f"{name} cannot be read: it is .*{said}", message), message
    assert "repair" not in message
    if (command := re.search(r"`(python -c .*)`", message)) is not None:
        subprocess.run([sys.executable, *shlex.split(command[1])[1:]], cwd=tmp_path, check=True)
        assert pq.read_table(tmp_path / "data.parquet").to_pydict() == {"object_id": ["a"]}


@pytest.mark.parametrize(
    ("name", "format_name", "content", "remedy"),
    [
        ("a", "csv", b"sep=;\nid;t\n", "`tail -n +2 a | upsert-cli run - --format csv`"),
        ("-a.tsv", "tsv", b"sep=;\n", "`tail -n +2 ./-a.tsv | upsert-cli run - --format tsv`"),
        (
            "a.csv.gz",
            "csv.gz",
            gzip.compress(b"sep=;\n"),
            "; unpack it, then `tail -n +2 a.csv | upsert-cli run - --format csv`",
        ),
        (
            "a.jsonl.gz",
            "jsonl.gz",
            gzip.compress("{}".encode("utf-16")),
            "; unpack it, then `iconv -f UTF-16 -t UTF-8 a.jsonl`",
        ),
        (
            "A.CSV.GZ",
            "csv.gz",
            gzip.compress(b"sep=;\n"),
            "; unpack it, then `tail -n +2 A.CSV | upsert-cli run - --format csv`",
        ),
        ("a.jsonl.gz", "jsonl.gz", "{}".encode("utf-16"), "; `iconv -f UTF-16 -t UTF-8 a.jsonl.gz`"),
        ("MY_FORMAT.csv", "csv", b"sep=;\n", "`tail -n +2 MY_FORMAT.csv | upsert-cli run - --format csv`"),
    ],
    ids=[
        "no suffix",
        "a hyphen",
        "compressed CSV",
        "compressed JSONL",
        "upper case",
        "not compressed",
        "a name of ours",
    ],
)
def test_the_command_of_a_remedy_fits_the_file(
    tmp_path: Path, name: str, format_name: str, content: bytes, remedy: str
) -> None:
    """The remedy names the format that was given, and a compressed file's content by its unpacked name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UpsertCliError) as caught:
        Source.of(FoundFile(name=name, path=path, format=format_name))
    assert remedy in str(caught.value)


def test_the_command_of_a_remedy_takes_a_copy_of_a_remote_file() -> None:
    """No command of a shell reads an address, so a remedy is for a copy of the file."""
    error = Unsuitable("it is text in UTF-16", "`iconv FILE` rewrites it")
    name = source_name("https://example.org/data/a.csv.gz?part=1")
    assert "; download it and unpack it, then `iconv a.csv` rewrites it" in str(not_loadable(name, "csv.gz", error))
    assert "; download it, then `iconv a.csv` rewrites it" in str(not_loadable("s3://bucket/data/a.csv", "csv", error))
    assert "; save it as CSV" in str(not_loadable(name, "csv", Unsuitable("it is a spreadsheet", "save it as CSV")))


@pytest.mark.parametrize(
    ("options", "content", "said"),
    [
        ("--format csv", gzip.compress(b"id\n"), "it is compressed with gzip; add .gz to its name, or to --format"),
        ("--format csv", "id".encode("utf-16"), "save it to a file, then `iconv -f UTF-16 -t UTF-8 FILE` rewrites it"),
        ("--format csv", b"sep=;\n", "save it to a file, then `tail -n +2 FILE | upsert-cli run - --format csv`"),
        ("--format csv.gz", gzip.compress(b"sep=;\n"), "save it to a file and unpack it, then `tail -n +2 FILE"),
        ("--format csv", b'id,"text\n', "is never closed); correct the data that is piped in, then load again"),
        ("--format parquet", b"PAR1", "correct the data that is piped in, then load again"),
        ("", b"PAR1", "it is Parquet; --format parquet reads it"),
    ],
    ids=["gzip", "UTF-16", "sep", "sep in gzip", "open quote", "cut Parquet", "Parquet"],
)
def test_the_remedy_for_standard_input(terminal: Terminal, options: str, content: bytes, said: str) -> None:
    """Data that was piped in is called standard input, and the remedy fits the reason."""
    done = terminal.type(f"upsert-cli run - --id-field id {options}", expect=None, stdin=content)
    assert done.returncode in (1, 2)
    assert "standard input cannot be " in done.stderr
    assert said in done.stderr
    assert "pipe data into it" not in done.stderr


def test_parquet_in_gzip_is_to_be_unpacked(tmp_path: Path) -> None:
    """The remedy for a Parquet file in gzip is to unpack it, since no suffix makes it readable."""
    path = tmp_path / "a.parquet"
    path.write_bytes(gzip.compress(_by_pyarrow(pq.write_table)))
    with pytest.raises(SourceUnreadable, match="compressed as a whole; unpack it"):
        sources_of(path)
