"""A source that breaks off fails its load, but only after every row that was read is committed."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal
from tests.support.web_servers import web_server

Broken = tuple[str, int]
"""The sources of a load, and how many of their rows can be read."""

ROWS = 150


def _lines(items: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in items)


def _gzip_without_its_end(folder: Path, items: list[dict[str, Any]]) -> Broken:
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(_lines(items))[:-8])
    return "a.jsonl.gz", len(items)


def _gzip_csv(folder: Path, items: list[dict[str, Any]]) -> Broken:
    text = "object_id,text\n" + "".join(f"{item['object_id']},{item['payload']['text']}\n" for item in items)
    (folder / "a.csv.gz").write_bytes(gzip.compress(text.encode())[:-8])
    return "a.csv.gz", len(items)


def _zstd_without_its_end(folder: Path, items: list[dict[str, Any]]) -> Broken:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(_lines(items))
        file.flush()  # ends the block, so that all rows can be inflated without the rest
    (folder / "a.jsonl.zst").write_bytes(sink.getvalue().to_pybytes()[:-2])
    return "a.jsonl.zst", len(items)


def _unreadable_second_file(folder: Path, items: list[dict[str, Any]]) -> Broken:
    (folder / "a.jsonl").write_bytes(_lines(items))
    (folder / "b.jsonl.gz").write_bytes(b"not compressed at all")
    return "a.jsonl b.jsonl.gz", len(items)


def _parquet_with_a_damaged_page(folder: Path, items: list[dict[str, Any]]) -> Broken:
    path = folder / "a.parquet"
    table = pa.table(
        {
            "object_id": [item["object_id"] for item in items],
            "payload": [json.dumps(item["payload"]) for item in items],
        }
    )
    groups = len(items) // 3
    pq.write_table(table, path, row_group_size=groups, compression="gzip", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(2).column(1)
    content = bytearray(path.read_bytes())
    begin = column.data_page_offset + column.total_compressed_size // 2
    content[begin : begin + 16] = bytes(16)
    path.write_bytes(bytes(content))
    return "a.parquet", 2 * groups


BROKEN = [
    _gzip_without_its_end,
    _gzip_csv,
    _zstd_without_its_end,
    _unreadable_second_file,
    _parquet_with_a_damaged_page,
]


@pytest.mark.parametrize("make", BROKEN)
@pytest.mark.parametrize("batch", ["", "--batch-size 64"])
def test_the_rows_before_the_break_are_committed(
    tiny: Terminal, make_items: Items, make: Callable[..., Broken], batch: str
) -> None:
    """All rows before the break are in the collection and counted; the load fails, and so does each restart."""
    names, readable = make(tiny.folder, make_items(ROWS))
    said = tiny.type(f"upsert-cli run {names} --task-id t {batch}", expect=1).stderr
    assert "cannot be read" in said
    assert len(tiny.records()) == readable
    task = tiny.info("t")
    assert (task["status"], task["counts"]["inserted"], task["counts"]["read"]) == ("failed", readable, readable)
    tiny.type("upsert-cli restart t", expect=1)
    task = tiny.info("t")
    assert (task["counts"]["inserted"], task["counts"]["unchanged"]) == (readable, 0)


@pytest.mark.parametrize(
    "options",
    ["--template '{text}'", "--metadata-fields number,absent", "--split", "--delete-missing", "--force", "--verify"],
)
def test_with_any_option(tiny: Terminal, make_items: Items, options: str) -> None:
    """No option loses rows before the break, even if their fields are checked before the task is created."""
    names, readable = _gzip_without_its_end(tiny.folder, make_items(20))
    said = tiny.type(f"upsert-cli run {names} --task-id t {options}", expect=None)
    if "absent" in options:
        assert said.returncode == 2  # the field is in none of the rows that can be read
        return
    assert said.returncode == 1
    assert f"{names} cannot be read beyond row {readable}" in said.stderr
    assert tiny.info("t")["counts"]["inserted"] == readable
    assert len(tiny.records()) == readable


def test_a_row_that_replaces_a_refused_one_at_the_break(tiny: Terminal, make_items: Items) -> None:
    """In the last batch before the break, as in any other, an earlier row replaces a rejected one."""
    items = [*make_items(3), {"object_id": "obj-00001", "payload": {"text": ""}}, {"object_id": "obj-00002"}]
    names, _ = _gzip_without_its_end(tiny.folder, items)
    tiny.type(f"upsert-cli run {names} --task-id t", expect=1)
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"]) == (5, 3, 2)


def test_a_worker_commits_them_too(tiny: Terminal, make_items: Items) -> None:
    """A queued task ends in the same way."""
    names, readable = _gzip_without_its_end(tiny.folder, make_items(20))
    tiny.type(f"upsert-cli run {names} --enqueue --task-id t")
    tiny.type("upsert-cli work", expect=1)
    assert tiny.info("t")["counts"]["inserted"] == readable
    assert len(tiny.records()) == readable


@pytest.mark.parametrize("options", ["", "--no-compare", "--delete-missing"])
def test_a_dry_run_counts_them(tiny: Terminal, make_items: Items, options: str) -> None:
    """A dry run counts the rows that would be committed, gives the reason of the failure, and exits like the load."""
    names, readable = _gzip_without_its_end(tiny.folder, make_items(20))
    done = tiny.type(f"upsert-cli run {names} --dry-run {options} --json", expect=1)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["type"] for event in events[-2:]] == ["error", "summary"]
    assert events[-1]["counts"]["inserted"] == readable
    assert f"{names} cannot be read beyond row {readable}" in events[-1]["detail"]
    assert f"{names} cannot be read beyond row {readable}" in done.stderr


def test_a_mirror_deletes_nothing(tiny: Terminal, make_items: Items) -> None:
    """Records that a broken source does not contain stay in the collection; once it is whole, they are deleted."""
    tiny.write("a.jsonl", make_items(30))
    tiny.type("upsert-cli run a.jsonl --delete-missing --scope s")
    names, _ = _gzip_without_its_end(tiny.folder, make_items(28, mark="second"))
    tiny.type(f"upsert-cli run {names} --delete-missing --scope s --task-id t", expect=1)
    counts = tiny.info("t")["counts"]
    assert (counts["updated"], counts["deleted"]) == (28, 0)
    assert len(tiny.records()) == 30
    (tiny.folder / names).write_bytes(gzip.compress(_lines(make_items(28, mark="second"))))
    tiny.type("upsert-cli restart t --from-start")
    assert tiny.info("t")["counts"]["deleted"] == 2
    assert len(tiny.records()) == 28


class _Vanishing(dict[str, bytes]):
    """Files of a server that may all be gone."""

    gone = False

    def get(self, name: str, default: Any = None) -> Any:
        return None if self.gone else super().get(name, default)


def test_a_lost_connection(tiny: Terminal, make_items: Items) -> None:
    """Rows that arrived before the server went away are committed, and a restart continues after them."""
    items = make_items(3_000)
    for item in items:
        item["payload"]["padding"] = "x" * 1_000
    with web_server() as web:
        files = web.files = _Vanishing({"/a.jsonl": _lines(items)})
        web.pause = 0.2  # so that most of the file is still to come at the first checkpoint
        load = tiny.start(f"upsert-cli run {web.address}/a.jsonl --task-id t")
        tiny.wait_for_rows("t")
        files.gone, web.break_after, web.breaks = True, 0, 1
        _, said = load.communicate()
        assert load.returncode == 1, said
        before = tiny.info("t")["counts"]["inserted"]
        assert f"cannot be read beyond row {before}" in said
        assert tiny.records().keys() == {item["object_id"] for item in items[:before]}
        files.gone, web.breaks, web.pause = False, 0, 0.0
        tiny.type("upsert-cli restart t")
    assert tiny.info("t")["counts"]["inserted"] == 3_000
    assert len(tiny.records()) == 3_000


def _appends(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"object_id": "new", "payload": {"text": "appended"}}\n')


def _replaces(path: Path) -> None:
    other = path.with_name("other.jsonl")
    other.write_bytes(b'{"object_id": "new", "payload": {"text": "of another file"}}\n' + path.read_bytes())
    other.replace(path)


def _rewrites(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"obj-00799", b"obj-99799"))


def _cuts(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


@pytest.mark.parametrize(("change", "code"), [(_appends, 0), (_replaces, 1), (_rewrites, 1), (_cuts, 1)])
def test_a_file_that_changes_during_the_load(
    tiny: Terminal, make_items: Items, change: Callable[[Path], None], code: int
) -> None:
    """A load fails if bytes that it may have read are other ones by then; rows that are appended are for the next."""
    path = tiny.write("a.jsonl", make_items(800))
    load = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    tiny.halt_when(load, "t")
    change(path)
    tiny.go_on(load)
    _, said = load.communicate()
    assert load.returncode == code, said
    assert "a.jsonl changed while it was being read" in said
    if code:
        assert tiny.info("t")["status"] == "failed"
        tiny.type("upsert-cli restart t", expect=4)
        tiny.type("upsert-cli restart t --from-start", expect=None)
        assert tiny.records().keys() >= {json.loads(line)["object_id"] for line in path.read_text().splitlines()[:-1]}
