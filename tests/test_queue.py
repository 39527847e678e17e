"""`run --enqueue` and `work`: queued tasks are run, the oldest first, even if workers die."""

from __future__ import annotations

import json
import os
import signal

from tests.support.items import Items
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.folder import LEASE_NAME

SECONDS = 120.0  # seconds after which a test gives up


def _statuses(terminal: Terminal) -> dict[str, str]:
    return {task.id: task.status.value for task in Journal(terminal.journal).list()}


def test_queued_tasks_are_run_the_oldest_first(tiny: Terminal, make_items: Items) -> None:
    """`run --enqueue` prints an id and loads nothing; `work` runs all tasks, standard input included, and ends."""
    tiny.write("a.jsonl", make_items(3))
    tiny.write("b.jsonl", [{"object_id": "b", "payload": {"text": "b"}}, {"object_id": ""}])
    first = tiny.type("upsert-cli run a.jsonl --enqueue")
    assert first.stdout.count("\n") == 1
    stdin = json.dumps({"object_id": "in", "payload": {"text": "x"}})
    assert tiny.type("upsert-cli run - --enqueue --task-id in", stdin=stdin).stdout == "in\n"
    assert tiny.type("upsert-cli categories run b.jsonl --enqueue --task-id b -q").stdout == ""
    assert set(_statuses(tiny).values()) == {"pending"}
    assert not (tiny.folder / "chroma").exists()
    done = tiny.type("upsert-cli work --json", expect=3)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    ends = [(event["id"], event["exit_code"]) for event in events if event["type"] == "summary"]
    assert ends == [(first.stdout.strip(), 0), ("in", 0), ("b", 3), (None, 3)]
    assert events[-1]["statuses"] == {"done": 3}
    assert len(tiny.records()) == 4
    assert tiny.type("upsert-cli work").stderr == "nothing was pending\n"


def test_an_id_is_queued_once(tiny: Terminal, make_items: Items) -> None:
    """A waiting or done task is not queued again under its id, and another load is refused."""
    tiny.write("a.jsonl", make_items(2))
    tiny.write("b.jsonl", make_items(3))
    for _ in range(2):
        assert tiny.type("upsert-cli run a.jsonl --enqueue --task-id t").stdout == "t\n"
    tiny.type("upsert-cli run b.jsonl --enqueue --task-id t", expect=4)
    assert tiny.info("t")["attempt"] == 1
    tiny.type("upsert-cli work -q")
    assert "is done already" in tiny.type("upsert-cli run a.jsonl --enqueue --task-id t").stderr
    tiny.type("upsert-cli run a.jsonl --enqueue --dry-run", expect=2)


def test_the_gravest_of_several_ends_is_the_exit_code(tiny: Terminal, make_items: Items) -> None:
    """A task that fails or is refused does not stop the others; --once runs one task, --max-tasks N runs N."""
    tiny.write("a.jsonl", [*make_items(2), {"object_id": ""}])
    changing = tiny.write("b.jsonl", make_items(2))
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id fails --max-failures 0")
    tiny.type("upsert-cli run b.jsonl --enqueue --task-id changed")
    for name in ("canceled", "partly", "last"):
        tiny.type(f"upsert-cli run a.jsonl --enqueue --task-id {name}")
    tiny.type("upsert-cli cancel canceled")
    changing.write_text(changing.read_text().replace("first", "other"))
    shown = tiny.type("upsert-cli work --once -q", expect=1).stderr
    assert "error: " in shown
    assert "upsert-cli info fails" in shown
    refused = tiny.type("upsert-cli work --max-tasks 2", expect=4).stderr
    assert "b.jsonl changed" in refused
    assert refused.endswith("2 tasks run: 1 done, 1 refused\n")
    assert _statuses(tiny) == {
        "fails": "failed", "changed": "refused", "canceled": "canceled", "partly": "done", "last": "pending",
    }  # fmt: skip
    tiny.type("upsert-cli work --once --watch", expect=2)


def test_a_task_whose_worker_ends_is_taken_over(tiny: Terminal, make_items: Items) -> None:
    """A task stays in the queue after kill -9 and SIGTERM; each next worker continues at the checkpoint."""
    tiny.write("a.jsonl", make_items(600))
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id t --batch-size 32")
    rows = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        worker = tiny.start("upsert-cli work --json")
        tiny.wait_for_rows("t")
        if number == signal.SIGKILL:
            os.killpg(worker.pid, number)
        else:
            worker.send_signal(number)
        output, errors = worker.communicate(timeout=SECONDS)
        assert worker.returncode == -number
        rows.append(Journal(tiny.journal).find("t").rows)
    assert 0 < rows[0] < rows[1] < 600
    assert _statuses(tiny) == {"t": "pending"}
    assert "the next `upsert-cli work` continues it" in errors
    ends = [json.loads(line) for line in output.splitlines()][-3:]
    assert [(end["type"], end["exit_code"]) for end in ends] == [("error", 143), ("summary", 143), ("summary", 143)]
    tiny.type("upsert-cli work")
    task = tiny.info("t")
    assert (task["status"], task["counts"]["read"], task["attempt"]) == ("done", 600, 3)
    shown = [(each["status"], each["counts"]["read"], each["finished_at"] is None) for each in task["attempts"]]
    assert shown == [("processing", rows[0], True), ("pending", rows[1], False), ("done", 600, False)]
    assert len(tiny.records()) == 600


def test_a_worker_waits_for_a_folder_in_use_and_runs_other_tasks_first(tiny: Terminal, make_items: Items) -> None:
    """A worker runs the task whose folder is free, then the other one; a worker that watches ends by a signal."""
    tiny.write("a.jsonl", make_items(2))
    (tiny.folder / "busy").mkdir()
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id waits --chroma busy")
    with Lease.take(tiny.folder / "busy" / LEASE_NAME, Holder.this_process("another", clean=True)):
        worker = tiny.start("upsert-cli work --watch 0.1")
        assert worker.stderr is not None
        waits = f"task waits waits: {tiny.folder / 'busy'} is in use by pid {os.getpid()}"
        assert waits in worker.stderr.readline()
        tiny.type("upsert-cli run a.jsonl --enqueue --task-id goes")
        wait_until(lambda: _statuses(tiny) == {"waits": "pending", "goes": "done"})
    wait_until(lambda: _statuses(tiny) == {"waits": "done", "goes": "done"})
    with Lease.take(tiny.folder / "busy" / LEASE_NAME, Holder.this_process("another", clean=True)):
        tiny.type("upsert-cli run a.jsonl --enqueue --task-id third --chroma busy")
        tiny.wait_for_line(worker, "task third waits")
        worker.send_signal(signal.SIGTERM)
        _, errors = worker.communicate(timeout=SECONDS)
    assert worker.returncode == -signal.SIGTERM
    assert "stopped by SIGTERM while no task was running, after 2 tasks" in errors


def test_a_task_that_was_not_queued_is_left_alone(tiny: Terminal, make_items: Items) -> None:
    """A worker does not take the task of a dead `run`; `restart --enqueue` queues it, unless a process runs it."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id t")
    journal = Journal(tiny.journal)
    pending, processing = TaskStatus.PENDING, TaskStatus.PROCESSING
    journal.change("t", processing, expect=(pending,), queued=False, started_at="2026-11-23T21:03:12Z")
    assert tiny.type("upsert-cli work").stderr == "nothing was pending\n"
    with Claim.take(journal, "t"):
        tiny.type("upsert-cli restart t --enqueue", expect=4)
    assert tiny.type("upsert-cli restart t --enqueue").stdout == "t\n"
    tiny.type("upsert-cli work")
    assert [attempt["status"] for attempt in tiny.info("t")["attempts"]] == ["processing", "done"]


def test_a_worker_reports_damage_once_after_the_task(terminal: Terminal, make_items: Items) -> None:
    """Damage in the journal is reported once, after the task during which it was found."""
    source = terminal.write("a.jsonl", make_items(3))
    terminal.type("upsert-cli run a.jsonl --enqueue --task-id t")
    (terminal.journal / "tasks-000001.json").write_text("damaged")
    source.unlink()
    *_, told, last = terminal.type("upsert-cli work", expect=4).stderr.splitlines()
    assert told.startswith(f"warning: the journal file {terminal.journal / 'tasks-000001.json'} is damaged")
    assert last == "1 task run: 1 refused"
