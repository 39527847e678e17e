"""`--delete-missing` makes the collection equal to the file, also after kills, and never deletes more than that."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal
from upsert_cli.load.orphans import OrphanSearch
from upsert_cli.sources.find import find_files
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source
from upsert_cli.store.base import RecordRef

Item = dict[str, Any]

LINE = "upsert-cli run a.jsonl --delete-missing"
KILL_ITEMS = 300
FEW_KILLS, MANY_KILLS = 3, 100


def _equals(terminal: Terminal, *parts: Sequence[Item]) -> None:
    """Check that the collection holds exactly the texts of these items."""
    wanted = {item["object_id"]: item["payload"]["text"] for part in parts for item in part}
    assert {one: record["document"] for one, record in terminal.records().items()} == wanted


def test_the_collection_equals_the_file(tiny: Terminal, tiny_model: Path, make_items: Items) -> None:
    """Records that the file no longer holds are deleted, except other loads' records; too many of them are refused."""
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    items = make_items(100)
    others = [item | {"object_id": f"other-{place}"} for place, item in enumerate(make_items(10, mark="other"))]
    shared = {"object_id": "obj-00003", "payload": {"text": "now of the other file"}}
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl")
    tiny.write("b.jsonl", others)
    tiny.type("upsert-cli run b.jsonl --scope b")
    # Rows that differ only in their scope are not embedded again.
    tiny.type(f"{LINE} --task-id first")
    assert tiny.info("first")["counts"]["updated"] == 100
    # A record that the other load has taken over no longer belongs to this scope.
    tiny.write("b.jsonl", [*others, shared])
    tiny.type("upsert-cli run b.jsonl --scope b")

    tiny.write("a.jsonl", [*items[5:], items[-1]])
    told = tiny.type(f"{LINE} --dry-run --json").stdout.splitlines()
    planned = json.loads(told[-1])
    assert planned["to_delete"] == ["obj-00000", "obj-00001", "obj-00002", "obj-00004"]
    tiny.type(f"{LINE} --task-id second")
    counts = tiny.info("second")["counts"]
    assert counts == planned["counts"]
    assert (counts["deleted"], counts["unchanged"], counts["duplicate"]) == (4, 95, 1)
    _equals(tiny, items[5:], others, [shared])

    tiny.write("a.jsonl", items[52:])
    said = tiny.type(f"{LINE} --task-id third", expect=4).stderr
    assert "47 of the 95 records" in said
    assert "more than --max-delete 20% allows, so nothing was written" in said
    assert tiny.info("third")["status"] == "refused"
    _equals(tiny, items[5:], others, [shared])
    reason, _, _ = said.splitlines()[-1].partition(" `upsert-cli restart third")  # a dry run has no task to restart
    assert tiny.type(f"{LINE} --dry-run", expect=4).stderr == f"{reason} --max-delete 47 allows it\n"
    tiny.type(f"{LINE} --task-id third --max-delete 50%")
    assert tiny.info("third")["counts"]["deleted"] == 47
    _equals(tiny, items[52:], others, [shared])
    verified = json.loads(tiny.type("upsert-cli verify third --json").stdout)
    assert (verified["records"], verified["asked"], verified["ok"]) == (59, 59, True)

    tiny.write("a.jsonl", [])
    said = tiny.type(f"{LINE} --max-delete 100%", expect=4).stderr
    assert "the sources hold no item, and all 48 records" in said
    _equals(tiny, items[52:], others, [shared])
    assert [path.suffix for path in (tiny.journal / "active").iterdir()] == []


def test_nothing_is_deleted_while_a_row_is_rejected(tiny: Terminal, make_items: Items) -> None:
    """A rejected row may stand for any record; once a retry has loaded it, the missing records are deleted."""
    items = make_items(20)
    (tiny.folder / "refs").mkdir()
    tiny.write("a.jsonl", items)
    tiny.type(f"{LINE} --scope s --refs-root refs")
    pointer = {"object_id": "late", "payload": {}, "item_info": {"file_path": "late.txt"}}
    tiny.write("a.jsonl", [*items[2:], pointer])
    said = tiny.type(f"{LINE} --scope s --refs-root refs --task-id t", expect=3).stderr
    assert "nothing was deleted, since 1 item was rejected" in said
    assert tiny.info("t")["counts"]["deleted"] == 0
    _equals(tiny, items)
    (tiny.folder / "refs" / "late.txt").write_text("here at last")
    tiny.type("upsert-cli restart t --failed-only")
    assert tiny.info("t")["counts"]["deleted"] == 2
    _equals(tiny, items[2:], [{"object_id": "late", "payload": {"text": "here at last"}}])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("upsert-cli run - --delete-missing", "--scope NAME"),
        ("upsert-cli run a.jsonl --max-delete 5", "--delete-missing"),
        ("upsert-cli run a.jsonl --delete-missing --max-delete 101%", "'--max-delete'"),
        ("upsert-cli run a.jsonl --delete-missing --dry-run --no-compare", "--no-compare"),
        ("upsert-cli run a.jsonl --scope ' '", "'--scope'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    terminal: Terminal, make_items: Items, line: str, says: str
) -> None:
    """Options that contradict each other cause one line, exit code 2, and no task."""
    terminal.write("a.jsonl", make_items(2))
    stdin = json.dumps(make_items(1)[0])
    done = terminal.type(line, expect=2, stdin=stdin)
    [said] = done.stderr.splitlines()
    assert says in said
    assert terminal.type("upsert-cli list --json").stdout.strip() == "[]"


# -- the search ----------------------------------------------------------------------------------------------------


class _Held:
    """A collection whose ids are in the scope `s`, except those that begin with `not`."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def members(self, scope: str, *, start: int, rows: int) -> tuple[int, list[RecordRef]]:
        assert scope == "s"
        part = self._ids[start : start + rows]
        return len(part), [RecordRef(one, "h") for one in part if not one.startswith("not")]


def _search(folder: Path, text: str, held: Sequence[str]) -> tuple[OrphanSearch, list[str]]:
    (folder / "a.jsonl").write_text(text)
    sources = [Source.of(found) for found in find_files([str(folder / "a.jsonl")], format_name=None)]
    search = OrphanSearch(rows=Rows(sources=sources), scope="s")
    store: Any = _Held(held)
    return search, [member.id for block in search.run(store) for member in block]


def test_the_search_finds_exactly_the_missing_records(tmp_path: Path) -> None:
    """Records of the scope that no row names are found across many blocks, with repeated and odd ids."""
    ids = [f"id-{number}" for number in range(2500)]
    held = [*ids, "e\u0301", "not-mine", "gone", "\u00e9"]
    text = "".join(f'{{"object_id": {json.dumps(one)}}}\n' for one in [*ids[1:], ids[7], "e\u0301"])
    search, missing = _search(tmp_path, text, held)
    assert missing == ["id-0", "gone", "\u00e9"]
    assert (search.items, search.held, search.missing) == (2501, 2503, 3)


def test_a_row_without_an_id_makes_nothing_missing(tmp_path: Path) -> None:
    """A row that cannot be read may stand for any record, so the search finds nothing."""
    search, missing = _search(tmp_path, '{"object_id": "a"}\n{"object_id":\n', ["a", "b"])
    assert missing == []
    assert search.has_unreadable_row
    assert (search.items, search.held) == (1, 0)


# -- kills ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def before(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal with a collection, half of whose records a later file lacks."""
    terminal = Terminal(tmp_path_factory.mktemp("before"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("a.jsonl", _items(KILL_ITEMS))
    terminal.type(f"{LINE} --scope s")
    return terminal


def _items(count: int, *, start: int = 0) -> list[Item]:
    return [
        {"object_id": f"obj-{number}", "payload": {"text": f"text {number} " + "and more of it " * (number % 7)}}
        for number in range(start, count)
    ]


@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_kills_at_random_instants(before: Terminal, tmp_path: Path, kills: int) -> None:
    """However often the load or its child is killed, restarts end with the file's records and with right counts."""
    choose = random.Random(kills)
    done = 0
    while done < kills:
        terminal = Terminal(tmp_path / str(done), before.env)
        shutil.copytree(before.folder / "chroma", terminal.folder / "chroma")
        items = _items(KILL_ITEMS + 20, start=KILL_ITEMS // 2)
        terminal.write("a.jsonl", items)
        line = f"{LINE} --scope s --max-delete 60% --task-id t --batch-size 16"
        while done < kills:
            done += 1
            if _killed(terminal.start(line), choose) == 0:
                break
        else:
            terminal.type(line)
        counts = terminal.info("t")["counts"]
        assert (counts["read"], counts["failed"]) == (len(items), 0)
        assert counts["deleted"] == KILL_ITEMS // 2
        _equals(terminal, items)


def _killed(process: subprocess.Popen[str], choose: random.Random) -> int:
    """Kill a load or its child after a random time, unless it ends before, and return its exit code."""
    try:
        process.wait(choose.uniform(0.5, 4.0))
    except subprocess.TimeoutExpired:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        victims = [process.pid, *map(int, children)]
        try:
            os.kill(choose.choice(victims), signal.SIGKILL)
        except ProcessLookupError:
            victims = []  # it has just ended
    process.communicate(timeout=120)
    return process.returncode


def test_a_footer_that_contradicts_its_rows_deletes_nothing(tiny: Terminal, make_items: Items) -> None:
    """A Parquet file that promises a row and holds none is damaged, so nothing is missing in it."""
    items = make_items(3)
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --scope s")
    path = tiny.folder / "a.parquet"
    columns = {"object_id": pa.array([], pa.string()), "payload": pa.array([], pa.string())}
    pq.write_table(pa.table(columns), path, store_schema=False)
    content = path.read_bytes()
    # The number of rows is field 3 of the footer, a 64-bit integer, and the list of row groups follows it.
    assert content.count(b"\x16\x00\x19") == 1
    path.write_bytes(content.replace(b"\x16\x00\x19", b"\x16\x02\x19"))
    for line in ("run a.parquet --scope s", "run a.parquet --scope s --delete-missing --max-delete 100%"):
        error = tiny.type(f"upsert-cli {line}", expect=1).stderr
        assert "a.parquet cannot be read (its footer promises 1 row, but its row groups hold 0)" in error
    _equals(tiny, items)
