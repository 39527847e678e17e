"""Early ends of a load without a crash: a cancel, a dead runner, a late refusal, a closed terminal, a bad model."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import CONTAINER
from tests.support.items import Items
from tests.support.records import queued_rows
from tests.support.terminal import Terminal
from tests.support.tiny_model import choking_model
from tests.support.waiting import wait_until
from tests.support.web_servers import answer, raw_server
from upsert_cli.journal.claims import request_cancel
from upsert_cli.journal.journal import Journal
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.folder import LEASE_NAME

FEW, MANY = 1_600, 5_000  # rows of one batch; the larger number is run before a release
SECONDS = 120.0  # seconds after which a test gives up


def _writer_of(process: subprocess.Popen[str]) -> int:
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


# -- cancel, and a dead runner ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_cancel_stops_a_load_within_a_large_batch(tiny: Terminal, make_items: Items, rows: int) -> None:
    """A cancel from another process works while a batch of thousands of rows is being written."""
    tiny.write("a.jsonl", make_items(rows))
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --batch-size {rows}")
    wait_until(lambda: queued_rows(tiny.folder / "chroma") > 0)
    began = time.monotonic()
    request_cancel(Journal(tiny.journal), "t")
    process.communicate(timeout=SECONDS)
    print(f"{rows} rows in a batch: canceled after {time.monotonic() - began:.2f} s")
    assert process.returncode == 5
    task = tiny.info("t")
    assert (task["status"], task["progress"]["rows"]) == ("canceled", 0)
    assert len(tiny.records()) < rows
    tiny.type("upsert-cli restart t")
    assert len(tiny.records(vectors=True)) == rows


def test_a_dead_runner_is_noticed(tiny: Terminal, make_items: Items) -> None:
    """The next command shows a task whose runner was killed with -9 as `processing` and not running."""
    tiny.write("a.jsonl", make_items(800))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    tiny.halt_when(process, "t")
    assert tiny.info("t")["running"] is True
    process.kill()
    tiny.go_on(process)  # its writer, which then ends
    began = time.monotonic()
    process.wait()
    task = tiny.info("t")
    print(f"seen to be dead after {time.monotonic() - began:.2f} s")
    assert (task["status"], task["running"]) == ("processing", False)
    tiny.type("upsert-cli cancel t")
    assert tiny.info("t")["status"] == "canceled"
    process.communicate()


# -- a refusal midway ---------------------------------------------------------------------------------------------


def test_a_folder_that_is_lost_midway(tiny: Terminal, make_items: Items) -> None:
    """If the writer is killed and another load takes the folder, the task fails midway and can continue."""
    tiny.write("a.jsonl", make_items(800))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    wait_until(lambda: tiny.has_checkpoint("t"))
    taken: list[Lease] = []
    path = tiny.folder / "chroma" / LEASE_NAME
    other = threading.Thread(
        target=lambda: taken.append(Lease.take(path, Holder.this_process("other"), timeout=SECONDS))
    )
    other.start()
    os.kill(_writer_of(process), signal.SIGKILL)
    _, errors = process.communicate(timeout=SECONDS)
    other.join()
    taken[0].release()
    assert process.returncode == 1, errors
    assert "after part of the rows" in errors
    assert "task other" in errors
    task = tiny.info("t")
    assert task["status"] == "failed"
    assert task["progress"]["rows"] > 0
    tiny.type("upsert-cli restart t")
    assert len(tiny.records(vectors=True)) == 800


# -- a terminal that is closed ------------------------------------------------------------------------------------


def test_a_closed_terminal_stops_at_a_checkpoint(tiny: Terminal, make_items: Items) -> None:
    """Closing the terminal window sends SIGHUP, which stops the load although nothing can be shown."""
    tiny.write("a.jsonl", make_items(800))
    ours, theirs = pty.openpty()
    process = tiny.start(
        "upsert-cli run a.jsonl --task-id t --batch-size 16", stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    draining = threading.Thread(target=_drain, args=(ours, lambda: tiny.has_checkpoint("t")))
    draining.start()
    draining.join(SECONDS)
    os.close(ours)
    for _ in range(2):  # after each checkpoint the bars are drawn, on no terminal
        tiny.wait_for_rows("t")
    assert process.poll() is None
    os.kill(process.pid, signal.SIGHUP)
    assert process.wait(SECONDS) == -signal.SIGHUP
    task = tiny.info("t")
    assert (task["status"], task["running"]) == ("failed", False)
    assert 0 < task["progress"]["rows"] < 800
    tiny.type("upsert-cli restart t")
    assert len(tiny.records(vectors=True)) == 800


def _drain(terminal: int, enough: Callable[[], bool]) -> None:
    os.set_blocking(terminal, False)
    until = time.monotonic() + SECONDS
    while not enough() and time.monotonic() < until:
        try:
            os.read(terminal, 65_536)
        except BlockingIOError:
            time.sleep(0.02)


# -- PID 1 of a container, and the program's first and last moments -----------------------------------------------

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

containers = pytest.mark.skipif(
    subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode != 0,
    reason="user namespaces are not allowed here",
)


def _start_contained(terminal: Terminal, line: str, **options: Any) -> tuple[subprocess.Popen[str], int]:
    """Start a command as PID 1 of a container; return the process that waits for it, and its id from outside."""
    process = terminal.start(line, contained=True, **options)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: children.read_text() != "")
    return process, int(children.read_text())


@containers
@pytest.mark.parametrize(
    ("prepare", "line", "number"),
    [
        *[("", "run a.jsonl --task-id t --batch-size 16 --json", number) for number in ENDING],
        ("", "categories run a.jsonl --task-id t --batch-size 16 --json", signal.SIGTERM),
        ("run a.jsonl --task-id t --batch-size 16 --enqueue", "restart t --json", signal.SIGTERM),
        ("run a.jsonl --task-id t --batch-size 16 --enqueue", "work --json", signal.SIGINT),
    ],
)
def test_a_load_that_is_pid_1_exits_with_the_code_of_its_signal(
    tiny: Terminal, make_items: Items, prepare: str, line: str, number: signal.Signals
) -> None:
    """The kernel drops PID 1's own signals, and the load still exits with 128 + n after a checkpoint."""
    tiny.write("a.jsonl", make_items(4000))
    if prepare:
        tiny.type(f"upsert-cli {prepare}")
    process, inside = _start_contained(tiny, f"upsert-cli {line}")
    tiny.wait_for_rows("t")
    os.kill(inside, number)
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, errors
    summary = json.loads(output.splitlines()[-1])
    assert (summary["type"], summary["exit_code"]) == ("summary", 128 + number)
    assert "restart t" in errors or "is pending; the next `upsert-cli work`" in errors
    task = tiny.info("t")
    assert task["status"] == ("pending" if "work" in line else "failed")
    assert 0 < task["progress"]["rows"] < 4000


@containers
@pytest.mark.parametrize("line", ["run -", "work --watch", "list --watch", "info t --follow"])
@pytest.mark.parametrize("number", ENDING)
def test_a_command_that_waits_as_pid_1_exits_with_the_code_of_its_signal(
    tiny: Terminal, make_items: Items, line: str, number: signal.Signals
) -> None:
    """A waiting command also ends a signal with 128 + n."""
    tiny.write("a.jsonl", make_items(1))
    if "info" in line:
        tiny.type("upsert-cli run a.jsonl --enqueue --task-id t")
    process, inside = _start_contained(tiny, f"upsert-cli {line}", stdin=subprocess.PIPE)
    wait_until(lambda: _catches_signals(inside))
    os.kill(inside, number)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors


def _catches_signals(pid: int) -> bool:
    """Check that a process handles all ending signals, so that none is dropped."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return all(caught >> (number - 1) & 1 for number in ENDING)


_AT_THE_START = """
import os, sys
class Hook:
    def find_spec(self, name, *_):
        if name == "upsert_cli.cli.root":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Hook())
"""
_AT_THE_END = """
import atexit, os, sys
atexit.register(os.kill, os.getpid(), {number})
"""


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("moment", [_AT_THE_START, _AT_THE_END], ids=["start", "end"])
@pytest.mark.parametrize(
    "container", ["", pytest.param(shlex.join(CONTAINER), marks=containers)], ids=["plain", "pid 1"]
)
def test_a_signal_in_the_first_or_last_moment_ends_the_program(
    terminal: Terminal, container: str, moment: str, number: signal.Signals
) -> None:
    """While the program is imported, and after its work, a signal ends it without a traceback, also as PID 1."""
    program = f"{moment.format(number=int(number))}sys.argv = ['upsert-cli', 'list', '-q']\nfrom upsert_cli.__main__ import main\nmain()"
    terminal = replace(terminal, forks=False)  # the program has to be imported
    done = terminal.type(f"{container} {shlex.join([sys.executable, '-c', program])}", expect=None)
    assert (done.returncode, done.stderr) == (128 + number if container else -number, "")


# -- a model that is no good --------------------------------------------------------------------------------------


def _other_model(tiny_model: Path, folder: Path, change: Callable[[Any], None]) -> Path:
    """Return a copy of the tiny model with another graph."""
    import onnx

    shutil.copytree(tiny_model, folder)
    model = onnx.load(folder / "model.onnx")
    change(model.graph)
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_text_of_which_the_model_makes_no_number(tiny: Terminal, tiny_model: Path, make_items: Items) -> None:
    """A row whose vector would hold NaN is rejected with its stage, and its neighbours are loaded."""
    folder = choking_model(tiny_model, tiny.folder / "model", "horse")
    items = make_items(30)
    items[13]["payload"]["text"] = "a horse among them"
    tiny.write("a.jsonl", items)
    tiny.type(f"upsert-cli run a.jsonl --task-id t --model-path {folder}", expect=3)
    (reject,) = map(json.loads, tiny.type("upsert-cli info t --failed").stdout.splitlines())
    assert (reject["row"], reject["failure_stage"]) == (14, "on_inference")
    assert "not finite" in reject["detail"]
    assert len(tiny.records()) == 29


def test_a_model_of_another_dimension_writes_nothing(tiny: Terminal, tiny_model: Path, make_items: Items) -> None:
    """A model whose vectors are shorter than its name promises stops the load with one line, and no row is blamed."""
    from onnx import TensorProto, helper

    def shorten(graph: Any) -> None:
        (output,) = graph.output
        for name, value in (("starts", 0), ("ends", 128), ("axes", 2)):
            graph.initializer.append(helper.make_tensor(f"cut_{name}", TensorProto.INT64, [1], [value]))
        graph.node.append(helper.make_node("Slice", [output.name, "cut_starts", "cut_ends", "cut_axes"], ["shorter"]))
        output.name = "shorter"
        output.type.tensor_type.shape.dim[2].dim_value = 128

    folder = _other_model(tiny_model, tiny.folder / "model", shorten)
    tiny.write("a.jsonl", make_items(30))
    errors = tiny.type(f"upsert-cli run a.jsonl --task-id t --model-path {folder}", expect=1).stderr
    assert "Traceback" not in errors
    assert str(folder) in errors
    task = tiny.info("t")
    assert (task["status"], task["counts"]["failed"]) == ("failed", 0)
    assert tiny.records() == {}


# -- a journal that is damaged during a load --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("with_backup", [True, False])
def test_a_segment_that_is_zeroed_during_a_load(tiny: Terminal, make_items: Items, with_backup: bool) -> None:
    """Zeros over the tasks while one of them runs: it ends as ever, and is found as it ended."""
    tiny.write("a.jsonl", [{"object_id": "", "payload": {}}, *make_items(800)])
    tiny.write("b.jsonl", make_items(5))
    tiny.type("upsert-cli categories run b.jsonl --task-id before")
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    wait_until(lambda: tiny.has_checkpoint("t"))
    segment = tiny.journal / "tasks-000000.json"
    segment.write_bytes(bytes(segment.stat().st_size))
    if not with_backup:
        segment.with_name(f"{segment.name}.bak").unlink()
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, errors
    assert "damaged" in errors
    task = tiny.info("t")
    assert (task["counts"]["inserted"], [item["row"] for item in task["failed_items"]]) == (800, [1])
    tiny.type("upsert-cli journal repair")
    listed = {task["id"]: task["status"] for task in json.loads(tiny.type("upsert-cli list --json").stdout)}
    assert listed == {"t": "done"} | ({"before": "done"} if with_backup else {})
    assert len(tiny.records(vectors=True)) == 800


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_task_names_the_signal_that_stopped_its_last_attempt(
    tiny: Terminal, make_items: Items, number: signal.Signals
) -> None:
    """The signal is shown until the next attempt begins; an attempt that ends otherwise has none."""
    tiny.write("a.jsonl", make_items(480))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 16")
    tiny.halt_when(process, "t")
    assert tiny.info("t")["stopped_by"] is None
    process.send_signal(number)
    tiny.go_on(process)
    _, errors = process.communicate()
    assert tiny.info("t")["stopped_by"] == number.name
    assert re.search(r"^task t stopped: \d+ rows committed", errors, re.M)
    assert "\nstatus\tstopped\n" in tiny.type("upsert-cli info t").stdout
    tiny.type("upsert-cli restart t --enqueue")
    assert tiny.info("t")["stopped_by"] == number.name
    tiny.type("upsert-cli work")
    assert tiny.info("t")["stopped_by"] is None


def test_a_stopped_worker_names_the_signal_in_its_task(tiny: Terminal, make_items: Items) -> None:
    """The task is pending, and still names the signal that ended the attempt."""
    tiny.write("a.jsonl", make_items(FEW))
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 16 --enqueue")
    process = tiny.start("upsert-cli work")
    tiny.halt_when(process, "t")
    process.send_signal(signal.SIGTERM)
    tiny.go_on(process)
    process.communicate()
    task = tiny.info("t")
    assert (task["status"], task["stopped_by"]) == ("pending", "SIGTERM")


@pytest.mark.parametrize(
    ("stop", "status", "code"),
    [("SIGTERM", "failed", -signal.SIGTERM), ("cancel", "canceled", 5)],
)
def test_a_source_that_is_silent_does_not_hold_up_a_stop(
    tiny: Terminal, make_items: Items, stop: str, status: str, code: int
) -> None:
    """The task ends while a server still owes the rest of a file, and the program does, too."""
    whole = "".join(json.dumps(item) + "\n" for item in make_items(FEW)).encode()
    silent, over = threading.Event(), threading.Event()
    readings = itertools.count()

    def respond(wanted: str | None) -> Iterator[bytes]:
        is_second = wanted is None and next(readings) > 0  # the first one looks at the rows before there is a task
        yield answer(200, whole[: len(whole) // 2] if is_second else whole, Content_Length=len(whole))
        if is_second:
            silent.set()
            over.wait()

    with raw_server(respond) as address:
        process = tiny.start(f"upsert-cli run {address}/a.jsonl --task-id t")
        wait_until(silent.is_set)
        if stop == "cancel":
            tiny.type("upsert-cli cancel t")
        else:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        over.set()
    assert process.returncode == code
    assert tiny.info("t")["status"] == status
    assert "`upsert-cli restart t` continues it" in errors
