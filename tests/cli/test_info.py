"""`info` and `list` for people: the state, its exit code, the next command, the options, and times."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.journal.conftest import start
from tests.support.journal_tasks import MOMENT, make_task
from tests.support.screens import shown
from tests.support.terminal import Terminal
from upsert_cli.counts import Counts
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

REJECTS = Counts(read=3, inserted=2, failed=1)


def _info(terminal: Terminal, task_id: str) -> dict[str, str]:
    lines = terminal.type(f"upsert-cli info {task_id}").stdout.splitlines()
    return {name: value for name, _, value in (line.partition("\t") for line in lines)}


@pytest.mark.parametrize(
    ("fields", "state", "code", "step"),
    [
        (
            {"status": TaskStatus.DONE, "counts": Counts(inserted=1)},
            "done",
            "0",
            "to query it: upsert-cli query 'your text' --chroma /data/chroma --model sentence-transformers/all-MiniLM-L6-v2",
        ),
        ({"status": TaskStatus.DONE}, "done", "0", None),
        (
            {"status": TaskStatus.DONE, "counts": REJECTS},
            "done",
            "3",
            "once the rejected items are corrected: upsert-cli restart t --from-start",
        ),
        (
            {"status": TaskStatus.FAILED},
            "failed",
            "1",
            "once the cause is removed, continue with: upsert-cli restart t",
        ),
        (
            {"status": TaskStatus.FAILED, "stopped_by": "SIGTERM"},
            "stopped",
            "1",
            "to continue it: upsert-cli restart t",
        ),
        (
            {"status": TaskStatus.FAILED, "detail": "too many; `upsert-cli restart t --from-start` reads all again"},
            "failed",
            "1",
            None,
        ),
        ({"status": TaskStatus.CANCELED}, "canceled", "5", "to continue it: upsert-cli restart t"),
        ({"status": TaskStatus.REFUSED}, "refused", "4", None),
        ({"status": TaskStatus.PENDING, "queued": True}, "pending", None, "to run it: upsert-cli work"),
    ],
)
def test_a_task_is_shown_with_its_code_and_the_next_command(
    terminal: Terminal, fields: dict[str, Any], state: str, code: str | None, step: str | None
) -> None:
    """`info` names the exit code of a task that has ended, and the command that fits its state."""
    Journal(terminal.journal).create(make_task("t", **fields))
    found = _info(terminal, "t")
    next_steps = [
        line[5:] for line in terminal.type("upsert-cli info t").stdout.splitlines() if line.startswith("next\t")
    ]
    assert (found["status"], found.get("exit code")) == (state, code)
    assert (step is None and "next" not in found) or (step is not None and next_steps[0].startswith(step))
    if code is not None:
        terminal.type("upsert-cli info t --exit-status", expect=int(code))


@pytest.mark.parametrize(
    ("collection", "option"),
    [("categories", ""), ("default", "--collection default "), ("other", "--collection other ")],
)
def test_corrected_rejects_of_categories_go_into_their_collection(
    terminal: Terminal, collection: str, option: str
) -> None:
    """The command names the collection unless it is the default of `categories run`, whose stream had the rejects."""
    fields = {"status": TaskStatus.DONE, "counts": REJECTS, "inputs": ({"spooled": True},), "chroma": "c"}
    Journal(terminal.journal).create(make_task("t", kind="categories", collection=collection, **fields))
    shown = terminal.type("upsert-cli info t").stdout
    assert f"corrected in FILE: upsert-cli categories run FILE --chroma c {option}".rstrip() in shown
    assert ("--collection" in shown.split("FILE: ")[1].splitlines()[0]) == bool(option)


def test_a_running_task_has_no_exit_code(terminal: Terminal) -> None:
    """While a process runs a task, its progress can be followed."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    claim = start(journal, "t")
    found = _info(terminal, "t")
    assert (found["status"], found.get("exit code")) == ("processing", None)
    assert found["next"] == "to see its progress: upsert-cli info t --follow"
    claim.release()


def test_the_options_that_differ_are_shown_as_typed(terminal: Terminal) -> None:
    """The options of a load can be pasted after `upsert-cli run`; those at their defaults are left out."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x", "a,b": "y"}}])
    typed = r"--text-field text,a\\,b --batch-size 7 --max-failures 5% --strict --retry-for 5"
    terminal.type(f"upsert-cli run a.jsonl --task-id t --enqueue {typed}")
    words = shlex.split(_info(terminal, "t")["options"])
    assert sorted(words) == sorted(shlex.split(typed.replace("--retry-for 5", "--retry-for 5.0")))
    terminal.type("upsert-cli run a.jsonl --task-id plain --enqueue")
    assert "options" not in _info(terminal, "plain")


def test_prose_is_wrapped_between_words_on_a_terminal(terminal: Terminal) -> None:
    """Reasons go on below themselves, commands and paths are left whole, and a pipe gets one line each."""
    detail = "nothing can be written, since the disk is full; make room, then `upsert-cli restart t` continues the load"
    source = "/data/" + "a-folder/" * 12 + "a.jsonl"
    task = make_task("t", status=TaskStatus.FAILED, detail=detail, sources=(source,))
    Journal(terminal.journal).create(task)
    assert _info(terminal, "t")["detail"] == detail
    text = "\n".join(shown(terminal, "upsert-cli info t", columns=60))
    rows = re.findall(r"^detail +(.*(?:\n {12}.*)+)", text, re.M)
    assert [" ".join(row.split()) for row in rows] == [detail]
    assert source in text.replace("\n", "")


def test_stopped_tasks_can_be_listed(terminal: Terminal) -> None:
    """People see `stopped` for a load that a signal ended; JSON and `--status failed` keep the recorded state."""
    journal = Journal(terminal.journal)
    journal.create(make_task("f", status=TaskStatus.FAILED))
    journal.create(make_task("s", status=TaskStatus.FAILED, stopped_by="SIGINT"))
    for status, ids in {"stopped": ["s"], "failed": ["s", "f"], "stopped,done": ["s"], "died": []}.items():
        rows = terminal.type(f"upsert-cli list --status {status}").stdout.splitlines()[1:]
        assert [row.split("\t")[0] for row in rows] == ids
        assert not rows or rows[0].split("\t")[1] == "stopped"
    assert terminal.info("s")["status"] == "failed"


def test_times_are_local_on_a_terminal_and_utc_in_a_pipe(terminal: Terminal) -> None:
    """A terminal shows local times, short in a table, and a pipe the journal's own."""
    terminal.env["TZ"] = "Asia/Tokyo"
    now = datetime.now(UTC).strftime("%Y-01-01T20:00:00Z")
    Journal(terminal.journal).create(make_task("new", status=TaskStatus.DONE, created_at=now))
    Journal(terminal.journal).create(make_task("old", status=TaskStatus.DONE, created_at="2001-02-03T20:00:00Z"))
    lines = shown(terminal, "upsert-cli list", columns=120)
    assert "Jan 02 05:00" in next(line for line in lines if line.startswith("new"))
    assert "Feb 04 2001" in next(line for line in lines if line.startswith("old"))
    assert "2001-02-04 05:00:00" in "\n".join(shown(terminal, "upsert-cli info old", columns=80))
    assert "\t2001-02-03T20:00:00Z\t" in terminal.type("upsert-cli list").stdout
    assert _info(terminal, "old")["created"] == "2001-02-03T20:00:00Z"


def test_an_invalid_time_is_shown_unchanged(terminal: Terminal) -> None:
    """A journal that somebody edited is still shown."""
    Journal(terminal.journal).create(make_task("t", status=TaskStatus.DONE, created_at="yesterday", updated_at=MOMENT))
    assert any("yesterday" in line for line in shown(terminal, "upsert-cli list", columns=120))


def test_an_empty_list_names_the_journal(terminal: Terminal) -> None:
    """Someone who looks into another journal than the load wrote sees which one."""
    done = terminal.type("upsert-cli list")
    assert done.stdout.count("\n") == 1
    assert done.stderr == f"no tasks in {terminal.journal}\n"
