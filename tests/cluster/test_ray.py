"""The same load on Ray: equal to the local one, also where workers, machines, the server or the driver die in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_server import ChromaServer, free_port
from tests.support.deadly_worker import DEADLY
from tests.support.other_program import some_records, write_records
from tests.support.raylets import Raylets
from tests.support.records import assert_same
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

SHARDS = 16
ROWS = int(os.environ.get("UPSERT_CLI_TEST_ROWS", "8000"))  # of a slow test; the figures in tests/bench are of more
QUIET_SECONDS = 5.0  # seconds after which a load that was stopped writes no more


def _shards(terminal: Terminal, rows: int, *, shards: int = SHARDS) -> str:
    """Write texts of mixed length into some files, with ids that come again in other files, and return their glob."""
    items = [
        {
            "object_id": f"obj-{row % (rows * 9 // 10):06d}",
            "payload": {"text": f"text {row} " + "and more of it " * (row % 17), f"key-{row % 3}": row},
        }
        for row in range(rows)
    ]
    folder = terminal.folder / "shards"
    folder.mkdir()
    for shard in range(shards):
        part = items[shard * rows // shards : (shard + 1) * rows // shards]
        (folder / f"{shard:02d}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in part))
    return "shards/*.jsonl"


def test_a_load_on_ray(tiny: Terminal, server: ChromaServer) -> None:
    """A limited load by two workers ends as the local one does: records, counts, rejects, exit code, and no other output."""
    sources = _shards(tiny, 120, shards=4)
    with (tiny.folder / "shards" / "01.jsonl").open("a") as shard:
        shard.write('{"object_id": "bad", "payload": {"text": ""}}\n')
    line = f"upsert-cli run '{sources}' --limit 115 --chroma {server.url}"
    tiny.type(f"{line} --collection local", expect=3)
    ray = f"{line} --engine ray --ray-address local --workers 2 --task-id ray --json -q"
    done = tiny.type(f"{ray} --verify", expect=3)
    events = [json.loads(event) for event in done.stdout.splitlines()]
    assert events[0]["type"] == "task"
    assert events[-1]["type"] == "summary"
    lines = done.stderr.splitlines()
    # Once records were updated, Chroma's index may no longer lead to one of so few; `--verify` then reports that one.
    missed = [line for line in lines if line.startswith("error: verified")]
    assert all("0 missing, 0 unreadable, 0 different, 1 unreachable, 0 stale" in line for line in missed)
    [first, *others] = [line for line in lines if line not in missed]
    assert first.startswith("task ray done: 108 inserted, 6 updated, 0 unchanged, 1 rejected")
    assert [line.partition(":")[0] for line in others[-2:]] == [
        "  all of them",
        "  once the rejected items are corrected",
    ]
    assert "  exit code  3" in others
    assert_same(server.records("default"), server.records("local"))
    task = tiny.info("ray")
    assert (task["status"], task["counts"]["read"], task["counts"]["failed"]) == ("done", 115, 1)
    assert task["options"]["engine"] == "ray"
    [failed] = task["failed_items"]
    assert (Path(failed["source"]).name, failed["row"]) == ("01.jsonl", 31)
    assert not list(tiny.journal.glob("active/*"))
    assert not (Path(os.environ["HOME"]) / ".ray").exists()


def test_unfit_targets_and_options_are_refused(tiny: Terminal) -> None:
    """A folder is no target for several processes, and options of Ray go with Ray; nothing is left in the journal."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    done = tiny.type("upsert-cli run a.jsonl --engine ray", expect=4)
    assert "one alone may write Chroma's folder" in done.stderr
    assert "chroma run --path" in done.stderr
    assert "--engine ray" in tiny.type("upsert-cli run a.jsonl --workers 2", expect=2).stderr
    done = tiny.type("upsert-cli run a.jsonl --engine ray --ray-address ray://host:10001", expect=2)
    assert "a machine of the cluster" in done.stderr
    assert json.loads(tiny.type("upsert-cli list --json").stdout) == []


def test_ray_is_not_installed(tiny: Terminal) -> None:
    """Without the extra, the error names the command that installs it, and nothing is written."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    (tiny.folder / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'ray' else find(name, *rest)\n"
    )
    tiny.env["PYTHONPATH"] = str(tiny.folder)
    done = tiny.type("upsert-cli run a.jsonl --engine ray --chroma http://127.0.0.1:9", expect=4)
    assert done.stderr.rstrip().endswith("-m pip install 'ray>=2.50'`")


def test_no_cluster(tiny: Terminal, shared_server: ChromaServer) -> None:
    """Without a cluster, the error says how to start one, and the task can be restarted."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    line = f"upsert-cli run a.jsonl --engine ray --chroma {shared_server.url} --collection none"
    nobody = f"127.0.0.1:{free_port()}"  # Ray itself would try it for ever
    tiny.env["RAY_ADDRESS"] = nobody
    for address in ("auto", nobody):
        done = tiny.type(f"{line} --ray-address {address} --task-id {address[:4]}", expect=1)
        assert f"error: no Ray cluster at {address}: " in done.stderr
        assert "`ray start --head` starts one" in done.stderr


def test_missing_records_are_deleted(tiny: Terminal, server: ChromaServer, head: Raylets) -> None:
    """After two workers have loaded, missing records are deleted under the limits of a local load."""
    sources = _shards(tiny, 120, shards=4)
    load = f"upsert-cli run '{sources}' --chroma {server.url} --delete-missing --scope s --refs-root refs"
    ray = f"{load} --engine ray --ray-address {head.address} --workers 2"
    (tiny.folder / "refs").mkdir()
    tiny.type(load)
    before = server.records("default")
    first = tiny.folder / "shards" / "00.jsonl"
    pointer = {"object_id": "late", "payload": {}, "item_info": {"file_path": "late.txt"}}
    first.write_text(json.dumps(pointer) + "\n")  # in place of 30 items; 12 of them come again in the last file
    said = tiny.type(f"{ray} --task-id t --max-delete 10%", expect=4).stderr
    assert "18 of the 108 records" in said
    assert (tiny.info("t")["status"], server.records("default")) == ("refused", before)
    done = tiny.type(f"{ray} --task-id t --max-delete 18", expect=3)
    assert "nothing was deleted, since 1 item was rejected" in done.stderr
    assert server.records("default").keys() == before.keys()
    (tiny.folder / "refs" / "late.txt").write_text("here at last")
    tiny.type("upsert-cli restart t --failed-only")
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"], counts["deleted"]) == (91, 1, 0, 18)
    tiny.type(f"{load} --collection local")
    assert_same(server.records("default"), server.records("local"))


def test_long_texts_from_a_queue(tiny: Terminal, server: ChromaServer, head: Raylets) -> None:
    """A queued load on Ray makes the chunks, means, own vectors, referenced texts and events of a local load."""
    vector = [float(number % 7 - 3) for number in range(384)]
    items: list[dict[str, Any]] = [
        {"object_id": f"o{row % 20}", "payload": {"text": f"sentence {row} of a text. " * (1 + 9 * (row % 4))}}
        for row in range(30)
    ]
    items[3]["payload"]["own"] = {"vector": vector}
    items[7] |= {"payload": {"year": 2024}, "item_info": {"file_path": "seven.txt"}}
    items[9]["item_info"] = items[8]["item_info"] = {"file_path": "../out.txt"}
    items[9]["payload"] = {}
    (tiny.folder / "refs").mkdir()
    (tiny.folder / "refs" / "seven.txt").write_text("words from a file. " * 40)
    tiny.write("a.jsonl", items[:15])
    tiny.write("b.jsonl", items[15:])
    load = f"upsert-cli run a.jsonl b.jsonl --chroma {server.url} --vector-field own.vector --refs-root refs --split"
    load += " --average --max-tokens 32 --overlap 8"
    tiny.type(f"{load} --collection local --task-id local --strict", expect=1)
    ray = f"{load} --engine ray --ray-address {head.address} --strict --task-id ray"
    tiny.type(f"{ray} --enqueue")
    done = tiny.type("upsert-cli work --json --metrics-file m.prom", expect=1)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [events[0]["type"], *(event["type"] for event in events[-2:])] == ["task", "summary", "summary"]
    assert [event["row"] for event in events if event["type"] == "reject"] == [10]
    assert_same(server.records("default"), server.records("local"))
    assert tiny.info("ray")["counts"] == tiny.info("local")["counts"]
    assert 'outcome="inserted"} 20\n' in (tiny.folder / "m.prom").read_text()
    assert "task ray is done already" in tiny.type(ray, expect=1).stderr
    tiny.type(f"{load} --engine ray --ray-address {head.address} --force --task-id again -q", expect=3)
    forced = tiny.info("again")["counts"]
    assert (forced["inserted"], forced["updated"], forced["unchanged"]) == (0, 29, 0)


def test_a_collection_is_copied_with_its_vectors(terminal: Terminal, server: ChromaServer, head: Raylets) -> None:
    """A worker reads a collection in a folder; no model is looked for, and each bit of the vectors is the same."""
    write_records(terminal, some_records(100))
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "none")
    load = f"upsert-cli run chroma:old#docs --keep-vectors --offline --chroma {server.url}"
    terminal.type(f"{load} --collection local")
    terminal.type(f"{load} --collection ray --engine ray --ray-address {head.address} --task-id ray")
    assert terminal.info("ray")["counts"]["inserted"] == 100
    assert server.records("ray") == server.records("local")


# -- faults -------------------------------------------------------------------------------------------------------


class _Case:
    """A load on two raylets, and the local load that it has to equal."""

    def __init__(self, terminal: Terminal, server: ChromaServer, raylets: Raylets) -> None:
        raylets.have(2)
        self.terminal, self.server, self.raylets = terminal, server, raylets
        load = f"upsert-cli run '{_shards(terminal, ROWS)}' --chroma {server.url} --scope s"
        terminal.type(f"{load} --collection local")
        self.local = server.records("local")
        self.line = f"{load} --task-id ray --engine ray --ray-address {raylets.address}"

    def start(self) -> subprocess.Popen[str]:
        """Start the load and wait until a third of its units is done."""
        process = self.terminal.start(self.line)
        self.wait_for(ROWS // 3, process)
        return process

    def wait_for(self, rows: int, process: subprocess.Popen[str]) -> None:
        wait_until(lambda: process.poll() is not None or self._done() >= rows, seconds=300)
        assert process.poll() is None, process.communicate()

    def _done(self) -> int:
        try:
            text = (self.terminal.journal / "active" / "ray.progress").read_text()
        except FileNotFoundError:
            return 0
        return int(json.loads(text.partition(" ")[2])["rows"])

    def check(self) -> None:
        """Check that no row is lost, doubled or different, and that each row is counted once."""
        assert_same(self.server.records("default"), self.local)
        task = self.terminal.info("ray")
        counts = task["counts"]
        assert (task["status"], counts["read"], counts["failed"]) == ("done", ROWS, 0)
        assert counts["inserted"] == len(self.local)


@pytest.fixture
def case(tiny: Terminal, server: ChromaServer, raylets: Raylets) -> _Case:
    """Return a load on two raylets."""
    return _Case(tiny, server, raylets)


def _end(process: subprocess.Popen[str], code: int) -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, f"{output}\n{errors}"
    return errors


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Raylets.kill_worker, Raylets.kill_one])
def test_workers_die(case: _Case, fault: Callable[[Raylets], None]) -> None:
    """An actor or a machine that is killed in the middle costs nothing but its unit's repetition."""
    process = case.start()
    fault(case.raylets)
    _end(process, 0)
    case.check()


@pytest.mark.slow
def test_the_driver_dies(case: _Case) -> None:
    """The driver is killed with -9 in the middle; the same command goes on by its receipts."""
    process = case.start()
    process.kill()
    process.wait()
    before = case.terminal.info("ray")
    assert (before["status"], before["running"]) == ("processing", False)
    case.terminal.type(case.line)
    case.check()
    assert case.terminal.info("ray")["attempt"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("by", ["cancel", "SIGINT", "SIGTERM"])
def test_a_load_is_stopped(case: _Case, by: str) -> None:
    """A load that is canceled or interrupted writes nothing more after five seconds, and a restart ends equal."""
    process = case.start()
    began = time.monotonic()
    if by == "cancel":
        case.terminal.type("upsert-cli cancel ray")
        _end(process, 5)
    else:
        os.killpg(process.pid, getattr(signal, by))
        assert "***" not in _end(process, -getattr(signal, by))  # as Ray would tell of a signal
    print(f"{by}: the driver was gone after {time.monotonic() - began:.1f} s")
    time.sleep(max(0.0, began + QUIET_SECONDS - time.monotonic()))
    place = "tenants/default_tenant/databases/default_database/collections"
    place += "/" + case.server.ask("GET", f"{place}/default")["id"]
    count = case.server.ask("GET", f"{place}/count")
    time.sleep(10)
    assert case.server.ask("GET", f"{place}/count") == count < ROWS * 9 // 10
    case.terminal.type("upsert-cli restart ray")
    case.check()


@pytest.mark.slow
def test_deletions_after_a_crash(case: _Case) -> None:
    """A load that deletes is killed with -9 in the middle; the same command goes on with the list that it made before."""
    case.terminal.write("gone.jsonl", [{"object_id": f"gone-{row}", "payload": {"text": "x"}} for row in range(700)])
    case.terminal.type(f"upsert-cli run gone.jsonl --chroma {case.server.url} --scope s")
    case.line += " --delete-missing --max-delete 100%"
    process = case.start()
    process.kill()
    process.wait()
    case.terminal.type(case.line)
    assert_same(case.server.records("default"), case.local)
    counts = case.terminal.info("ray")["counts"]
    assert (counts["read"], counts["failed"], counts["deleted"]) == (ROWS, 0, 700)


@pytest.mark.slow
def test_the_server_restarts(case: _Case) -> None:
    """A server that is killed and comes back a moment later is waited for by all workers."""
    process = case.start()
    case.server.kill()
    time.sleep(3)
    case.server.start()
    _end(process, 0)
    case.check()


@pytest.mark.slow
def test_a_deadly_row(tiny: Terminal, server: ChromaServer, raylets: Raylets) -> None:
    """A row that kills every worker is found and rejected, and all other rows are loaded."""
    raylets.have(2)
    items = [{"object_id": f"obj-{row:03d}", "payload": {"text": f"text {row}"}} for row in range(200)]
    items[77]["payload"] = {"text": DEADLY}
    tiny.write("a.jsonl", items[:100])
    tiny.write("b.jsonl", items[100:])
    load = f"run a.jsonl b.jsonl --chroma {server.url} --engine ray --ray-address {raylets.address} --task-id ray"
    program = f"{sys.executable} -m tests.support.deadly_worker"
    tiny.env["PYTHONPATH"] = str(Path(__file__).parents[2])
    tiny.type(f"{program} {load}", expect=3)
    task = tiny.info("ray")
    assert (task["counts"]["inserted"], task["counts"]["failed"]) == (199, 1)
    [failed] = task["failed_items"]
    assert (failed["source"], failed["row"], failed["failure_stage"]) == ("a.jsonl", 78, "other")
    assert "dies" in failed["detail"]
    assert len(server.records("default")) == 199
