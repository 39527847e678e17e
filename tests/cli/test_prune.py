"""`prune`: the matching tasks are removed and reported; bad conditions are refused."""

from __future__ import annotations

import json

import pytest

from tests.support.journal_tasks import make_task
from tests.support.terminal import Terminal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus


def _journal(terminal: Terminal) -> Journal:
    journal = Journal(terminal.journal)
    for number, status in enumerate((TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.PENDING)):
        journal.create(make_task(f"old-{number}", status=status, updated_at="2020-01-01T00:00:00Z"))
    journal.create(make_task("new", status=TaskStatus.DONE, updated_at="2999-01-01T00:00:00Z"))
    return journal


def test_removed_tasks_are_listed_first_by_a_dry_run(terminal: Terminal) -> None:
    """--dry-run lists the tasks and removes nothing; then the same tasks are removed; stdout has only data."""
    journal = _journal(terminal)
    would = terminal.type("upsert-cli prune --older-than 4w --dry-run")
    assert [line.split("\t")[0] for line in would.stdout.splitlines()] == ["ID", "old-1", "old-0"]
    assert would.stderr == "2 tasks would go: 1 done, 1 failed\n"
    done = terminal.type("upsert-cli prune --older-than 2020-02-01 --status failed --json")
    assert json.loads(done.stdout) == {"dry_run": False, "tasks": 1, "statuses": {"failed": 1}, "ids": ["old-1"]}
    done = terminal.type("upsert-cli prune --older-than 4w")
    assert (done.stdout, done.stderr) == ("", "1 task removed: 1 done\n")
    assert terminal.type("upsert-cli prune --keep 1").stderr == "0 tasks removed\n"
    assert [task.id for task in journal.list()] == ["new", "old-2"]


def test_a_missing_journal_is_not_created(terminal: Terminal) -> None:
    """`prune` without a journal does nothing."""
    assert terminal.type("upsert-cli prune --keep 0").stderr == "0 tasks removed\n"
    assert not terminal.journal.exists()


@pytest.mark.parametrize(
    "options", ["", "--older-than soon", "--older-than 5y", "--older-than 999999999w", "--keep -1", "--status pending"]
)
def test_bad_conditions_remove_nothing(terminal: Terminal, options: str) -> None:
    """Without a condition, or with a bad age, number or state, the exit code is 2 and nothing is removed."""
    journal = _journal(terminal)
    terminal.type(f"upsert-cli prune {options}", expect=2)
    assert len(journal.list()) == 4
