"""Files at an address are read from any position on, through transient errors, and never two versions as one."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.reading import item
from tests.support.terminal import Terminal
from tests.support.web_servers import Bucket, WebServer, bucket, web_server
from upsert_cli.errors import Refusal, SourceUnreadable, UsageFault
from upsert_cli.sources import object_stores
from upsert_cli.sources.addresses import shown_address
from upsert_cli.sources.find import find_files
from upsert_cli.sources.item import START, Item, Position, Reject
from upsert_cli.sources.object_stores import ObjectFile
from upsert_cli.sources.remote_stream import TransientError
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

ROWS = 40_000
SECONDS = 10.0  # seconds in which a signal has to be obeyed; a store is asked for 20 and more
LINES = [b'{"object_id": "i%06d", "payload": {"text": "row %06d of a remote file"}}\n' % (n, n) for n in range(ROWS)]
CONTENT = b"".join(LINES)


@pytest.fixture
def web() -> Iterator[WebServer]:
    """Yield a web server with one file of three blocks."""
    with web_server() as server:
        server.files["/a.jsonl"] = CONTENT
        yield server


@pytest.fixture(scope="module")
def filled_bucket() -> Iterator[Bucket]:
    """Yield a bucket with a few objects."""
    with bucket() as made:
        for key in ("d/a.jsonl", "d/e/b.jsonl", "d/notes.txt", "d/_SUCCESS", "other.jsonl", "odd # name.jsonl"):
            made.put(key, LINES[0])
        yield made


@pytest.fixture
def store(filled_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Return the bucket, with its credentials in the environment."""
    for name, value in filled_bucket.environment.items():
        monkeypatch.setenv(name, value)
    return filled_bucket


def _sources(*names: str, retry_for: float = 60.0) -> list[Source]:
    return [Source.of(found) for found in find_files(names, retry_for=retry_for)]


def _rows(sources: list[Source], start: Position = START) -> list[tuple[Item | Reject, Position]]:
    return list(Rows(sources=sources, start=start))


def _ids(sources: list[Source]) -> list[str]:
    return [item(row).object_id for row, _ in _rows(sources)]


def _parquet() -> bytes:
    out = io.BytesIO()
    columns = {"object_id": [f"i{n}" for n in range(5_000)], "payload": [f'{{"text": "t{n}"}}' for n in range(5_000)]}
    pq.write_table(pa.table(columns), out, row_group_size=500)
    return out.getvalue()


def test_a_file_is_read_in_one_request_and_resumed_by_a_range(web: WebServer) -> None:
    """Continuing at a position requests only the bytes after it, and gives the same rows."""
    [source] = _sources(f"{web.address}/a.jsonl")
    assert (source.total, source.fingerprint.size) == (None, len(CONTENT))
    assert Source.from_json(source.as_json()) == source
    web.asked.clear()
    rows = _rows([source])
    assert len(rows) == ROWS
    assert web.asked == [("/a.jsonl", "bytes=0-0"), ("/a.jsonl", None)]
    web.asked.clear()
    web.sent, begin = 0, rows[-100][1].offset
    assert _rows([source], rows[-100][1]) == rows[-99:]
    assert web.asked == [("/a.jsonl", "bytes=0-0"), ("/a.jsonl", f"bytes={begin}-")]
    assert web.sent <= 1 + len(CONTENT) - begin  # the byte was requested for the file's size and tag


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_continued(web: WebServer, ranges: bool) -> None:
    """If responses end early and the server is busy in between, no row is lost and none is read twice."""
    web.ranges = ranges
    web.break_after, web.breaks, web.busy = 900_000, 4, 2
    sources = _sources(f"{web.address}/a.jsonl")
    assert _ids(sources) == [f"i{n:06d}" for n in range(ROWS)]
    assert web.breaks <= 2


def test_a_server_without_ranges_or_sizes(web: WebServer) -> None:
    """A file of such a server is read from its start to reach a position."""
    web.ranges = web.sized = False
    [source] = _sources(f"{web.address}/a.jsonl")
    rows = _rows([source])
    assert _rows([source], rows[-3][1]) == rows[-2:]


def test_permanent_errors_end_the_reading(web: WebServer) -> None:
    """A permanent error ends the reading after --retry-for, or at once, with the server's reason."""
    with pytest.raises(UsageFault, match=r"nothing\.jsonl does not exist"):
        _sources(f"{web.address}/nothing.jsonl")
    web.busy = 1_000
    with pytest.raises(SourceUnreadable, match="503"):
        _sources(f"{web.address}/a.jsonl", retry_for=0.5)
    web.busy = 0
    sources = _sources(f"{web.address}/a.jsonl", retry_for=0.5)
    web.break_after, web.breaks = 0, 1_000
    with pytest.raises(SourceUnreadable, match="broke off"):
        _rows(sources)


def test_a_file_that_changes_while_it_is_read(web: WebServer) -> None:
    """If a file changes between two requests, reading ends; if it changed before, the fingerprint shows it."""
    [source] = _sources(f"{web.address}/a.jsonl")
    web.break_after, web.breaks = 1_500_000, 1
    rows = iter(Rows(sources=[source]))
    next(rows)
    web.files["/a.jsonl"] = CONTENT.replace(b"remote", b"change")
    with pytest.raises(SourceUnreadable, match="changed while it was being read"):
        list(rows)
    assert source.change() == "same size, other content"
    web.etags = False
    assert source.change() == "same size, other content"
    web.files["/a.jsonl"] += LINES[0]
    assert source.change() == f"size {len(CONTENT)} -> {len(CONTENT) + len(LINES[0])} bytes"
    del web.files["/a.jsonl"]
    assert "404" in str(source.change())


def test_all_formats_are_read_over_the_network(web: WebServer) -> None:
    """Parquet seeks in its file; compressed text and tables are streamed."""
    web.files["/b.parquet"] = _parquet()
    web.files["/c.jsonl.gz"] = gzip.compress(b"".join(LINES[:100]))
    web.files["/d.csv"] = b"object_id,text\nx,hello\n"
    [parquet, packed, table] = _sources(*(f"{web.address}/{name}" for name in ("b.parquet", "c.jsonl.gz", "d.csv")))
    assert (parquet.total, packed.total, table.total) == (5_000, None, None)
    rows = _rows([parquet])
    assert [item(row).object_id for row, _ in rows] == [f"i{n}" for n in range(5_000)]
    assert _rows([parquet], rows[4_700][1]) == rows[4_701:]
    assert len(_ids([packed])) == 100
    assert _ids([table]) == ["x"]


@pytest.mark.usefixtures("store")
def test_the_files_of_an_address_in_an_object_store() -> None:
    """Objects, folders and globs stand for sorted files; those with other suffixes are skipped unless they are named."""

    def found(*names: str) -> list[str]:
        return [source.name.removeprefix("s3://bucket/") for source in find_files(names)]

    assert found("s3://bucket/d/a.jsonl", "s3://bucket/d") == ["d/a.jsonl", "d/e/b.jsonl"]
    assert found("s3://bucket/*.jsonl") == ["odd # name.jsonl", "other.jsonl"]
    assert found("s3://bucket/**/*.jsonl") == ["d/a.jsonl", "d/e/b.jsonl", "odd # name.jsonl", "other.jsonl"]
    assert found("s3://bucket/odd # name.jsonl") == ["odd # name.jsonl"]
    assert found("S3://bucket/d/a.jsonl") == ["S3://bucket/d/a.jsonl"]
    for name, kept in {"d": ["d/a.jsonl", "d/e/b.jsonl"], "d/*.txt": ["d/notes.txt"]}.items():
        files = find_files([f"s3://bucket/{name}"], format_name="tsv")
        assert [file.name.removeprefix("s3://bucket/") for file in files] == kept
    for name, (error, message) in {
        "s3://bucket/d/notes.txt": (UsageFault, "none of the suffixes"),
        "s3://bucket/d/*.txt": (UsageFault, "no file of items"),
        "s3://bucket/d*": (UsageFault, "no file of items"),  # a folder, whose files no glob in a store stands for
        "s3://bucket/nothing": (UsageFault, "does not exist"),
        "s3://no-bucket/a.jsonl": (SourceUnreadable, "no-bucket"),
        "s3://": (UsageFault, "no host or bucket"),
        "s3://buck*/a.jsonl": (UsageFault, "bucket cannot be a pattern"),
        "ftp://host/a.jsonl": (UsageFault, "begins with none of"),
        "https://user:s3cret@host/a.jsonl": (UsageFault, "a password in it"),
        "https://host/\udcff.jsonl": (UsageFault, "not UTF-8"),
    }.items():
        with pytest.raises(error, match=message) as caught:
            found(name)
        assert "s3cret" not in str(caught.value)


def test_object_stores_have_the_rules_of_folders(store: Bucket) -> None:
    """In an object store too, uncommitted files are skipped and tables are refused."""
    for key in ("s/part-0.jsonl", "s/_temporary/0/part-1.jsonl", "s/.x.jsonl", "s/_y=1/a.jsonl", "s//b.jsonl"):
        store.put(key, LINES[0])

    def found(*names: str) -> list[str]:
        return [source.name.removeprefix("s3://bucket/") for source in find_files(names, report=notes.append)]

    notes: list[str] = []
    kept = ["s//b.jsonl", "s/_y=1/a.jsonl", "s/part-0.jsonl"]
    assert found("s3://bucket/s") == found("s3://bucket/s/") == kept
    assert notes[:2] == [
        "s3://bucket/s: skipped 2 files or folders whose names begin with `_` or `.`",
        "s3://bucket/s: the values in names of folders, such as `_y=1`, are not stored",
    ]
    assert found("s3://bucket/s/**/*.jsonl") == kept
    assert found("s3://bucket/s/*.jsonl") == ["s/part-0.jsonl"]
    assert found("s3://bucket/s/_temporary") == ["s/_temporary/0/part-1.jsonl"]
    assert found("s3://bucket/s/.*.jsonl") == ["s/.x.jsonl"]
    store.put("lake/t/part-0.jsonl", LINES[0])
    store.put("lake/t/_delta_log/0.json", LINES[0])
    for name in ("s3://bucket/lake", "s3://bucket/lake/**/*.jsonl"):
        with pytest.raises(Refusal, match="lake/t is a Delta table"):
            found(name)
    assert found("s3://bucket/lake/t/*.jsonl") == ["lake/t/part-0.jsonl"]


def test_objects_are_read_resumed_and_fingerprinted(store: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are read like files of a web server, with the store's etag as fingerprint."""
    store.put("big.jsonl", CONTENT)
    store.put("b.parquet", _parquet())
    [source, parquet] = _sources("s3://bucket/big.jsonl", "s3://bucket/b.parquet")
    rows = _rows([source])
    assert [item(row).object_id for row, _ in rows] == [f"i{n:06d}" for n in range(ROWS)]
    asked: list[int] = []
    read_at = ObjectFile.read_at

    def noted(file: ObjectFile, position: int, size: int) -> bytes:
        asked.append(position)
        return read_at(file, position, size)

    monkeypatch.setattr(ObjectFile, "read_at", noted)
    assert _rows([source], rows[30_000][1]) == rows[30_001:]
    assert min(asked) == rows[30_000][1].offset
    assert len(_rows([parquet])) == parquet.total == 5_000
    assert source.change() is None
    store.put("big.jsonl", CONTENT.replace(b"remote", b"change"))
    assert source.change() == "same size, other content"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_signal_ends_waiting_for_an_object_store(terminal: Terminal, scheme: str) -> None:
    """Ctrl-C ends the load before a task is created, although the store's library would keep trying."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        terminal.env |= {"AWS_ENDPOINT_URL": f"http://{host}", "STORAGE_EMULATOR_HOST": host, "AWS_ACCESS_KEY_ID": "a"}
        terminal.env |= {"AWS_SECRET_ACCESS_KEY": "b", "AWS_EC2_METADATA_DISABLED": "true"}
        process = terminal.start(f"upsert-cli run {scheme}://bucket/a.jsonl")
        silent.settimeout(SECONDS)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGINT
    assert json.loads(terminal.type("upsert-cli list --json").stdout) == []


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://host/a.jsonl?X-Amz-Signature=secret", "https://host/a.jsonl"),
        ("https://user:secret@host:1/a", "https://host:1/a"),
        ("s3://bucket/a?b#c.jsonl", "s3://bucket/a?b#c.jsonl"),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, expected: str) -> None:
    """Messages show neither the password nor the query of an address."""
    assert shown_address(address) == expected


def test_an_item_cannot_name_an_address(web: WebServer, tmp_path: Any) -> None:
    """The text of an item is only read from below --refs-root, never over the network."""
    from upsert_cli.documents.references import read_reference
    from upsert_cli.errors import ItemError

    for url in (f"{web.address}/a.jsonl", "s3://bucket/d/a.jsonl"):
        with pytest.raises(ItemError, match="is an address"):
            read_reference(tmp_path, url)
    assert web.asked == []


@pytest.mark.usefixtures("store")
def test_a_store_that_never_responds_does_not_hold_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call has a time limit, although the store's library would keep waiting."""
    [source] = _sources("s3://bucket/d/a.jsonl", retry_for=0.0)
    monkeypatch.setattr(object_stores, "SHORTEST_CALL", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(SourceUnreadable, match=r"does not answer within 0\.5 s"):
            _rows([source])


@pytest.mark.usefixtures("store")
def test_a_read_that_ends_before_the_object_is_an_error() -> None:
    """No bytes before the end that the store announced are an error, and not the end."""
    file = ObjectFile("s3://bucket/d/a.jsonl", retry_for=0.0)
    file.info = dataclasses.replace(file.info, size=10_000)
    assert file.read_at(0, 10_000) == LINES[0]
    with pytest.raises(TransientError, match="less than the object holds"):
        file.read_at(len(LINES[0]), 10_000)
    file.close()
