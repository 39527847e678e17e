"""The edges of a run: sources that change under it, options that change between attempts, readers that leave."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.items import Items, text_item
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.journal.journal import Journal


def test_a_restart_keeps_the_order_of_the_sources(tiny: Terminal) -> None:
    """The last source named wins, also after `restart --from-start`, and rejects keep the names of their sources.

    Standard input that is named twice is read once.
    """
    tiny.write("fix.jsonl", [text_item("a", "correction"), text_item("b", "")])
    tiny.type(
        "upsert-cli run - fix.jsonl - --task-id t", stdin=json.dumps(text_item("a", "from stdin")) + "\n", expect=3
    )
    assert tiny.records()["a"]["document"] == "correction"
    rejects = tiny.type("upsert-cli info t --failed").stdout
    tiny.type("upsert-cli restart t --from-start", expect=3)
    assert tiny.records()["a"]["document"] == "correction"
    assert tiny.type("upsert-cli info t --failed").stdout == rejects


def test_a_restart_in_another_folder_reads_the_copy_of_a_pipe(tiny: Terminal, make_items: Items) -> None:
    """A pipe that was named relative to a folder is read from its copy, also after the command is typed elsewhere."""
    items = make_items(3)
    elsewhere = tiny.folder / "elsewhere"
    elsewhere.mkdir()
    os.mkfifo(tiny.folder / "pipe.jsonl")
    (elsewhere / "pipe.jsonl").write_text(json.dumps(text_item("other", "a regular file")))
    lines = "".join(json.dumps(item) + "\n" for item in items)
    writer = threading.Thread(target=(tiny.folder / "pipe.jsonl").write_text, args=(lines,))
    writer.start()
    tiny.type("upsert-cli run pipe.jsonl elsewhere/pipe.jsonl --task-id t")
    writer.join()
    replace(tiny, folder=elsewhere).type(f"upsert-cli restart t --from-start --journal {tiny.journal}")
    assert tiny.info("t")["counts"] | {"read": 4, "unchanged": 4, "inserted": 0} == tiny.info("t")["counts"]


@pytest.mark.parametrize(("name", "file"), [("day/feed", "day/feed/a.jsonl"), ("day/*/feed", "day/1/feed")])
def test_a_restart_reads_a_folder_or_a_glob_that_has_the_name_of_a_pipe(
    tiny: Terminal, make_items: Items, name: str, file: str
) -> None:
    """The copy replaces only the pipe, not other sources whose names end the same way."""
    first, second = make_items(2)
    os.mkfifo(tiny.folder / "feed")
    (tiny.folder / file).parent.mkdir(parents=True)
    (tiny.folder / file).write_text(json.dumps(second))
    writer = threading.Thread(target=(tiny.folder / "feed").write_text, args=(json.dumps(first),))
    writer.start()
    tiny.type(f"upsert-cli run feed {shlex.quote(name)} --format jsonl --task-id t")
    writer.join()
    tiny.type("upsert-cli restart t --from-start")
    assert tiny.info("t")["counts"] | {"read": 2, "unchanged": 2, "inserted": 0} == tiny.info("t")["counts"]


def test_a_restart_that_cannot_begin_loses_no_checkpoint(tiny: Terminal, make_items: Items) -> None:
    """While a source is missing nothing changes; once it is back, the task continues at its checkpoint."""
    path = tiny.write("a.jsonl", [*make_items(40), *[{"object_id": ""}] * 5])
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 20 --max-failures 2", expect=1)
    before = tiny.info("t")
    aside = path.rename(tiny.folder / "aside")
    tiny.type("upsert-cli restart t --from-start", expect=2)
    assert tiny.info("t") == before
    aside.rename(path)
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 20 --max-failures 10", expect=3)
    task = tiny.info("t")
    assert (task["status"], task["counts"]["read"], task["counts"]["failed"]) == ("done", 45, 5)
    assert task["counts"]["unchanged"] == 0


def test_a_source_that_is_cut_while_it_is_read_is_no_success(tiny: Terminal, make_items: Items) -> None:
    """If rows vanish before they are read, the task fails and the error names the file."""
    items = make_items(640)
    for item in items:
        item["payload"]["note"] = "x" * 1_000  # so that half of the file is more than one read
    path = tiny.write("a.jsonl", items)
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    tiny.halt_when(process, "t")
    os.truncate(path, path.stat().st_size // 2)
    tiny.go_on(process)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "a.jsonl" in errors
    assert tiny.info("t")["status"] == "failed"


def test_a_cancel_while_the_model_loads_exits_with_5(terminal: Terminal, make_items: Items) -> None:
    """At any moment of the loading, a cancel ends with exit code 5."""
    terminal.write("a.jsonl", make_items(200))
    process = terminal.start("upsert-cli run a.jsonl --task-id t")
    wait_until(lambda: terminal.type("upsert-cli info t", expect=None).returncode == 0)
    terminal.type("upsert-cli cancel t", expect=None)
    process.communicate(timeout=60)
    assert process.returncode == 5


def test_a_server_does_not_become_a_folder(tiny: Terminal, make_items: Items) -> None:
    """Of the address of a server that does not answer nothing is made in the working folder."""
    tiny.write("a.jsonl", make_items(1))
    tiny.type("upsert-cli run a.jsonl --retry-for 1 --chroma http://127.0.0.1:1", expect=1)
    assert {path.name for path in tiny.folder.iterdir()} == {"a.jsonl", "journal"}


def _type_with_streams(terminal: Terminal, line: str, streams: str) -> tuple[int, str]:
    """Type a command with changed streams, written as for a shell; return its exit code and its errors."""
    options: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    options["closed"] = [number for number, mark in enumerate(("<&-", ">&-", "2>&-")) if mark in streams.split()]
    with (terminal.folder / "written").open("w") as written, Path(os.devnull).open() as empty:
        if streams == "0>written":
            options["stdin"] = written
        elif streams == "1</dev/null":
            options["stdout"] = empty
        with terminal.start(f"upsert-cli {line}", **options) as process:
            _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.parametrize(
    ("streams", "json"),
    [("<&-", ""), (">&-", ""), ("2>&-", ""), ("<&- >&- 2>&-", ""), ("<&-", "--json"), ("2>&-", "--json")],
)
def test_closed_streams_that_a_load_does_not_use_are_no_obstacle(
    tiny: Terminal, make_items: Items, streams: str, json: str
) -> None:
    """A daemon whose standard streams are closed can load."""
    tiny.write("a.jsonl", [*make_items(3), {"object_id": ""}])
    code, errors = _type_with_streams(tiny, f"run a.jsonl {json} --task-id t", streams)
    assert (code, "Traceback" in errors) == (3, False)
    assert tiny.info("t")["counts"]["inserted"] == 3


@pytest.fixture(scope="module")
def queued(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal with a pending task `t`, for commands that change nothing."""
    terminal = Terminal(tmp_path_factory.mktemp("queued"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("a.jsonl", [text_item("a", "hello")])
    terminal.type("upsert-cli run a.jsonl --enqueue --task-id t")
    return terminal


CLOSED_INPUT = ["<&-", "0>written"]  # closed, or open for writing alone
CLOSED_OUTPUT = [">&-", "1</dev/null"]


@pytest.mark.parametrize("streams", CLOSED_INPUT)
@pytest.mark.parametrize(
    "line",
    [
        "run -",
        "run - --format csv",
        "run a.jsonl -",
        "run - --enqueue",
        "run - --dry-run",
        "run - --json",
        "categories run - -q",
    ],
)
def test_a_closed_standard_input_is_an_error(tiny: Terminal, make_items: Items, line: str, streams: str) -> None:
    """Input that was never connected is not an empty file: exit code 1, one line that names it, and no task."""
    tiny.write("a.jsonl", make_items(1))
    code, errors = _type_with_streams(tiny, line, streams)
    assert code == 1
    (error,) = errors.splitlines()
    assert "standard input cannot be read: it is closed; pipe data into it, or name a file" in error
    assert json.loads(tiny.type("upsert-cli list --json").stdout) == []


@pytest.mark.parametrize("streams", CLOSED_OUTPUT)
@pytest.mark.parametrize(
    "line",
    ["list", "list --json", "info t", "info t --failed", "journal check --json",
     "config show", "models list", "completion bash", "prune --keep 0 --json", "cancel t --json", "--help", "--version",
     "report t --html -", "run a.jsonl --json", "run a.jsonl --enqueue", "run a.jsonl --dry-run --json",
     "restart t --json", "restart t --enqueue", "work --json"],
)  # fmt: skip
def test_a_closed_standard_output_is_an_error(queued: Terminal, line: str, streams: str) -> None:
    """Output that cannot be printed is exit code 1 and one line that names the stream, and nothing is changed."""
    before = Journal(queued.journal).list()
    code, errors = _type_with_streams(queued, line, streams)
    assert code == 1
    (error,) = errors.splitlines()
    assert "standard output cannot be written (it is closed)" in error
    assert Journal(queued.journal).list() == before


def test_an_empty_standard_input_is_an_empty_file(tiny: Terminal) -> None:
    """An input that is open and holds nothing is a load without rows."""
    assert tiny.type("upsert-cli run - --json").returncode == 0
    assert tiny.only_task()["counts"]["read"] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_standard_input_is_read_leaves_nothing(tiny: Terminal, number: signal.Signals) -> None:
    """The partial spool is removed, and the process dies by the signal."""
    process = tiny.start("upsert-cli run -", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write('{"object_id": "a"')
    process.stdin.flush()
    spool = tiny.journal / "spool"
    wait_until(lambda: any(spool.glob("*/*")))
    os.kill(process.pid, number)
    process.wait(30)
    assert process.returncode == -number
    assert list(spool.iterdir()) == []


def _seconds_of(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_after_ctrl_c_the_folder_is_free(tiny: Terminal, make_items: Items) -> None:
    """A load that starts right after an interrupted one has ended is not refused."""
    tiny.write("a.jsonl", make_items(300))
    tiny.write("b.jsonl", make_items(3, mark="other"))
    tiny.type("upsert-cli run a.jsonl --batch-size 20")  # the first command of a test run takes longer to start
    seconds = _seconds_of(lambda: tiny.type("upsert-cli run a.jsonl --force --batch-size 20"))
    for part in (0.2, 0.4, 0.6, 0.8):
        process = tiny.start("upsert-cli run a.jsonl --force --batch-size 20")
        time.sleep(part * seconds)
        with suppress(ProcessLookupError):  # it may have ended just now
            os.kill(process.pid, signal.SIGINT)
        process.wait(30)
        tiny.type("upsert-cli run b.jsonl")


def test_rejects_that_were_lost_are_not_called_done(tiny: Terminal, make_items: Items) -> None:
    """If the rejects file is truncated during the load, the task fails with a message that says how to continue."""
    items = make_items(400)
    items[3]["payload"] = {"text": ""}
    tiny.write("a.jsonl", items)
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 32")
    path = tiny.journal / "rejects" / "t.jsonl"
    tiny.halt_when(process, "t")
    os.truncate(path, 0)
    tiny.go_on(process)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "does not hold its 1 rejected items" in said
    assert tiny.info("t")["status"] == "failed"
    tiny.type("upsert-cli restart t --from-start", expect=3)
    assert tiny.info("t")["counts"]["failed"] == 1


def test_a_task_has_the_busy_seconds_of_each_stage(tiny: Terminal, make_items: Items) -> None:
    """`info` has the seconds of each stage, and no stage was busy for longer than the whole took."""
    tiny.write("a.jsonl", make_items(300))
    said = tiny.type("upsert-cli run a.jsonl --task-id t -v").stderr
    seconds = tiny.info("t")["seconds"]
    stages = {"opening", "loading", "reading", "comparing", "embedding", "writing", "flushing"}
    assert seconds.keys() == stages | {"total"}
    assert all(0 <= seconds[stage] <= seconds["total"] for stage in stages)
    assert "seconds busy: " in said
    assert "embedding" in tiny.type("upsert-cli info t").stdout
