"""`info`, `list`, `restart`, `cancel`: the commands for tasks."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal


def test_list_pages_and_filters_newest_first(tiny: Terminal, make_items: Items) -> None:
    """`list --json` is an array of tasks, the newest first, cut by offset and limit, and filtered by status."""
    tiny.write("a.jsonl", make_items(2))
    for name in ("one", "two", "three"):
        tiny.type(f"upsert-cli run a.jsonl --task-id {name}")
    tiny.write("bad.jsonl", [{"object_id": "", "payload": {"text": "x"}}])
    tiny.type("upsert-cli run bad.jsonl --task-id four --max-failures 0", expect=1)

    def ids(options: str) -> list[str]:
        return [task["id"] for task in json.loads(tiny.type(f"upsert-cli list --json {options}").stdout)]

    assert ids("") == ["four", "three", "two", "one"]
    assert ids("--status done --offset 0 --limit 1") == ["three"]
    assert ids("--status done --offset 1 --limit 5") == ["two", "one"]
    assert ids("--status failed") == ["four"]
    assert ids("--status canceled") == []


def test_tables_in_a_pipe_are_tab_separated_and_whole(tiny: Terminal, make_items: Items) -> None:
    """A table in a pipe has a line for each task, tabs between the cells, and cuts nothing."""
    name = "x" * 100
    tiny.write(f"{name}.jsonl", make_items(1))
    tiny.type(f"upsert-cli run {name}.jsonl --task-id {name}")
    header, row = tiny.type("upsert-cli list").stdout.splitlines()
    assert header.split("\t")[0] == "ID"
    assert row.split("\t")[0] == name
    assert row.endswith(f"{name}.jsonl")


def test_looking_at_a_missing_journal_creates_none(terminal: Terminal) -> None:
    """`list` and `info` answer without a journal, and create nothing."""
    assert json.loads(terminal.type("upsert-cli list --json").stdout) == []
    assert "nothing" in terminal.type("upsert-cli info nothing", expect=1).stderr
    assert not terminal.journal.exists()


def test_an_empty_list_names_its_journal(tiny: Terminal, make_items: Items) -> None:
    """An empty list names its journal on stderr, and says whether it was filtered; stdout has its usual form."""
    tiny.env |= {"UPSERT_CLI_JOURNAL": "", "HOME": str(tiny.folder / "other"), "XDG_STATE_HOME": ""}
    bare = tiny.type("upsert-cli list")
    assert bare.stdout.startswith("ID\tSTATUS")
    assert bare.stderr == f"no tasks in {tiny.folder / 'other/.local/state/upsert-cli'}\n"
    listed = tiny.type("upsert-cli list --json --journal elsewhere")
    assert (json.loads(listed.stdout), listed.stderr) == ([], f"no tasks in {tiny.folder / 'elsewhere'}\n")
    assert tiny.type("upsert-cli list -q").stderr == ""
    tiny.write("a.jsonl", make_items(1))
    tiny.type("upsert-cli run a.jsonl -q --journal elsewhere")
    for narrowed in ("--status failed", "--offset 1", "--since 2999-01-01", "--status died"):
        said = tiny.type(f"upsert-cli list {narrowed} --journal elsewhere").stderr
        assert said == f"no tasks that match in {tiny.folder / 'elsewhere'}\n"
    assert tiny.type("upsert-cli list --journal elsewhere").stderr == ""


def test_a_killed_run_is_continued_and_ends_equal(tiny: Terminal, make_items: Items) -> None:
    """After kill -9 of a load and its child, a restart ends with the collection of an uninterrupted run."""
    tiny.write("a.jsonl", make_items(600))
    _kill_in_the_middle(tiny, "upsert-cli run a.jsonl --task-id t --batch-size 32")
    task = tiny.info("t")
    assert task["status"] == "processing"
    assert task["running"] is False
    assert 0 < task["progress"]["rows"] < 600
    tiny.type("upsert-cli restart t")
    task = tiny.info("t")
    assert task["status"] == "done"
    assert task["attempt"] == 2
    assert task["counts"]["read"] == 600
    interrupted = tiny.records(vectors=True)
    other = Terminal(tiny.folder / "other", tiny.env)
    other.folder.mkdir()
    other.type(f"upsert-cli run {tiny.folder / 'a.jsonl'}")
    expected = other.records(vectors=True)
    assert interrupted.keys() == expected.keys()
    for identifier, record in expected.items():
        assert interrupted[identifier]["document"] == record["document"]
        assert interrupted[identifier]["metadata"] == record["metadata"]
        assert interrupted[identifier]["vector"] == pytest.approx(record["vector"], abs=1e-5)


def test_run_with_the_id_of_a_dead_task_takes_it_over(tiny: Terminal, make_items: Items) -> None:
    """`run --task-id` continues a task whose process died."""
    tiny.write("a.jsonl", make_items(600))
    _kill_in_the_middle(tiny, "upsert-cli run a.jsonl --task-id t --batch-size 32")
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 32")
    assert tiny.info("t")["counts"]["read"] == 600
    assert len(tiny.records()) == 600


def test_restart_refuses_a_source_that_changed(tiny: Terminal, make_items: Items) -> None:
    """A restart refuses a file that changed since the checkpoint, and names the change."""
    tiny.write("a.jsonl", make_items(600))
    _kill_in_the_middle(tiny, "upsert-cli run a.jsonl --task-id t --batch-size 32")
    tiny.write("a.jsonl", make_items(601))
    said = tiny.type("upsert-cli restart t", expect=4).stderr
    assert "size" in said
    assert "`upsert-cli restart t --from-start` reads it again" in said
    (tiny.folder / "a.jsonl").rename(tiny.folder / "b.jsonl")
    said = tiny.type("upsert-cli restart t", expect=4).stderr
    assert "a.jsonl cannot be read any more (No such file or directory); put it back" in said
    assert "--from-start" not in said
    (tiny.folder / "b.jsonl").rename(tiny.folder / "a.jsonl")
    tiny.type("upsert-cli restart t --from-start")
    assert len(tiny.records()) == 601


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_at_a_checkpoint_and_really_kills(
    tiny: Terminal, make_items: Items, number: signal.Signals, code: int
) -> None:
    """A signal ends the run after the write in flight, the process dies by it, and a restart completes the load."""
    tiny.write("a.jsonl", make_items(600))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 32")
    tiny.wait_for_rows("t")
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert code == 128 + number
    assert "restart t" in errors
    task = tiny.info("t")
    assert task["running"] is False
    assert task["status"] == "failed"
    assert len(tiny.records()) == task["progress"]["rows"]
    tiny.type("upsert-cli restart t")
    assert len(tiny.records()) == 600


def test_cancel_from_another_terminal(tiny: Terminal, make_items: Items) -> None:
    """A running task stops for good when it is canceled from another terminal, and its process exits with 5."""
    tiny.write("a.jsonl", make_items(2000))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 32")
    tiny.wait_for_rows("t")
    tiny.type("upsert-cli cancel t --wait 30")
    process.communicate(timeout=60)
    assert process.returncode == 5
    assert tiny.info("t")["status"] == "canceled"
    tiny.type("upsert-cli cancel t")
    errors = tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 32", expect=5).stderr
    assert errors.splitlines()[-1] == "  to continue it: upsert-cli restart t"
    tiny.type("upsert-cli restart t")
    assert tiny.info("t")["status"] == "done"
    assert len(tiny.records()) == 2000
    before = tiny.info("t")
    tiny.type("upsert-cli cancel t", expect=1)
    assert tiny.info("t") == before


def test_a_task_is_run_by_one_process(tiny: Terminal, make_items: Items) -> None:
    """Of two processes with the same task one works; the other is refused, skips, or waits and finds it done."""
    tiny.write("a.jsonl", make_items(800))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 32")
    tiny.halt_when(process, "t")
    line = "upsert-cli run a.jsonl --task-id t --batch-size 32"
    tiny.type(line, expect=4)
    tiny.type(f"{line} --if-running skip")
    tiny.type("upsert-cli restart t", expect=4)
    tiny.go_on(process)
    tiny.type(f"{line} --if-running wait")
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert tiny.info("t")["attempt"] == 1


def test_a_folder_is_written_by_one_process(tiny: Terminal, make_items: Items) -> None:
    """Of two loads into one Chroma folder the second is refused, and names the first."""
    tiny.write("a.jsonl", make_items(800))
    tiny.write("b.jsonl", make_items(10, mark="other"))
    process = tiny.start("upsert-cli run a.jsonl --task-id first --batch-size 32")
    tiny.halt_when(process, "first")
    refused = tiny.type("upsert-cli run b.jsonl --task-id second", expect=4)
    assert "first" in refused.stderr
    assert tiny.info("second")["status"] == "refused"
    tiny.go_on(process)
    process.communicate(timeout=300)
    assert process.returncode == 0
    tiny.type("upsert-cli run b.jsonl --task-id second")
    assert tiny.info("second")["status"] == "done"


def test_exit_status_maps_the_state(tiny: Terminal, make_items: Items) -> None:
    """`info --exit-status` exits as the task did."""
    tiny.write("good.jsonl", make_items(2))
    tiny.write("bad.jsonl", [*make_items(1), {"object_id": ""}])
    tiny.type("upsert-cli run good.jsonl --task-id good")
    tiny.type("upsert-cli run bad.jsonl --task-id bad", expect=3)
    tiny.type("upsert-cli info good --exit-status")
    tiny.type("upsert-cli info bad --exit-status", expect=3)
    tiny.type("upsert-cli info bad")


def _kill_in_the_middle(terminal: Terminal, line: str) -> None:
    process = terminal.start(line)
    terminal.wait_for_rows("t")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
