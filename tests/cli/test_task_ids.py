"""TASK_ID may be an id, a unique beginning of one, or `latest`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.items import Items
from tests.support.journal_tasks import make_task, segment_at
from tests.support.terminal import Terminal
from upsert_cli.errors import TaskNotFound, UsageFault
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.segments import SEGMENT_TASKS
from upsert_cli.journal.task import TaskStatus


@pytest.fixture
def journal(terminal: Terminal) -> Journal:
    """Return a journal with ids that share a beginning, the oldest first."""
    journal = Journal(terminal.journal)
    for name in ("nightly", "nightly-1", "nightly-2", "other-x9"):
        journal.create(make_task(name, status=TaskStatus.FAILED))
    return journal


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nightly-1", "nightly-1"),
        ("nightly", "nightly"),  # an id wins over a beginning
        ("o", "other-x9"),
        ("other-x", "other-x9"),
        ("latest", "other-x9"),
    ],
)
def test_a_unique_beginning_of_an_id_is_enough(terminal: Terminal, journal: Journal, typed: str, meant: str) -> None:
    """Every unambiguous form finds its task."""
    assert journal.resolve(typed) == terminal.info(typed)["id"] == meant


def test_an_ambiguous_beginning_lists_the_candidates(terminal: Terminal, journal: Journal) -> None:
    """The newest is first, and the command does nothing."""
    said = terminal.type("upsert-cli cancel night", expect=2).stderr
    assert "'night' is the beginning of 3 task ids: nightly-2, nightly-1, nightly;" in said
    for number in range(12):
        journal.create(make_task(f"night{number}"))
    assert "night11, night10, night9, " in terminal.type("upsert-cli info night", expect=2).stderr
    assert "and 5 more;" in terminal.type("upsert-cli info night", expect=2).stderr
    with pytest.raises(UsageFault, match="is the beginning of"):
        journal.resolve("nigh")


@pytest.mark.parametrize("line", ["info", "restart", "cancel", "verify", "report --html -"])
@pytest.mark.parametrize(("typed", "code"), [("night", 2), ("unknown", 1)])
def test_each_command_refuses_unknown_and_ambiguous_ids(
    terminal: Terminal, journal: Journal, line: str, typed: str, code: int
) -> None:
    """The exit code is 2 for an ambiguous id, and 1 for an unknown one."""
    assert journal.folder.exists()
    command, *options = line.split(" ", 1)
    terminal.type(f"upsert-cli {command} {typed} {' '.join(options)}", expect=code)


def test_events_of_an_ambiguous_restart_end_with_a_summary(terminal: Terminal, journal: Journal) -> None:
    """The id is looked up inside the report, which turns errors into events."""
    assert journal.folder.exists()
    events = [
        json.loads(line) for line in terminal.type("upsert-cli restart night --json", expect=2).stdout.splitlines()
    ]
    assert [event["type"] for event in events] == ["error", "summary"]
    assert json.loads(terminal.type("upsert-cli verify night --json", expect=2).stdout)["exit_code"] == 2


def test_latest_is_the_newest_task_for_every_command(tiny: Terminal, make_items: Items) -> None:
    """The word and a beginning mean the same task to every command."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id first -q")
    tiny.type("upsert-cli run a.jsonl --task-id second -q")
    for typed in ("latest", "sec"):
        assert tiny.info(typed)["id"] == "second"
        assert "task second" in tiny.type(f"upsert-cli restart {typed}").stderr
        assert "Task second" in tiny.type(f"upsert-cli report {typed} --html -").stdout
        assert json.loads(tiny.type(f"upsert-cli verify {typed} --json").stdout)["task"] == "second"
        assert "task second is done" in tiny.type(f"upsert-cli cancel {typed}", expect=1).stderr
        assert tiny.type(f"upsert-cli info {typed} --failed").stdout == ""
        assert tiny.type(f"upsert-cli info {typed} --follow --exit-status").returncode == 0


@pytest.mark.parametrize("given", ["option", "variable", "file"])
def test_no_new_task_can_be_called_latest(terminal: Terminal, given: str) -> None:
    """Neither an option nor a variable can set it."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    if given == "variable":
        terminal.env["UPSERT_CLI_RUN_TASK_ID"] = "latest"
    if given == "file":
        (terminal.folder / "upsert-cli.toml").write_text('[run]\ntask-id = "latest"\n')
    option = "--task-id latest" if given == "option" else ""
    assert "stands for the newest task" in terminal.type(f"upsert-cli run a.jsonl {option}", expect=2).stderr
    assert not terminal.journal.exists()


def test_an_older_task_of_that_id_is_still_found(terminal: Terminal, journal: Journal) -> None:
    """Earlier versions allowed the id `latest`; the exact id beats the word."""
    journal.create(make_task("latest", status=TaskStatus.DONE))
    journal.create(make_task("newer"))
    assert terminal.info("latest")["id"] == "latest"


def test_latest_finds_nothing_in_an_empty_journal(terminal: Terminal) -> None:
    """The command creates no journal."""
    for typed in ("latest", "a"):
        assert f"there is no task '{typed}'" in terminal.type(f"upsert-cli info {typed}", expect=1).stderr
    assert not terminal.journal.exists()


def test_a_beginning_is_found_in_any_file_of_the_journal(tmp_path: Path) -> None:
    """Only segments that may contain it are parsed; if a damaged segment may, nothing is guessed."""
    journal = Journal(tmp_path)
    journal.create(make_task("old-one"))
    for number in range(1, 7):
        records = [make_task(f"t{number}-{place}").as_record() for place in range(SEGMENT_TASKS)]
        segment_at(tmp_path, number).insert(*records)
    assert Journal(tmp_path).resolve("old") == "old-one"
    with pytest.raises(UsageFault, match="500 task ids"):
        Journal(tmp_path).resolve("t3-")
    (tmp_path / "tasks-000006.json").write_bytes(b"damaged")
    with pytest.raises(TaskNotFound):
        Journal(tmp_path).resolve("old-o")
    assert Journal(tmp_path).resolve("old-one") == "old-one"
