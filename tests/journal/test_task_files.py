"""Damage to the files of tasks, torn, garbled or missing, is named, and repaired if that is safe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.journal.conftest import die, finish, start
from tests.support.journal_tasks import make_checkpoint, make_reject, make_task
from tests.support.terminal import Terminal
from upsert_cli import atomic
from upsert_cli.errors import JournalUnreadable
from upsert_cli.journal import rejects
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.damage import damage_of_task, damaged_files, repair_journal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.rejects import JsonLines
from upsert_cli.journal.task import TaskStatus

DONE, FAILED, PENDING, PROCESSING = TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.PENDING, TaskStatus.PROCESSING
COUNT = 3


def _begin(journal: Journal, task_id: str = "t") -> Claim:
    """Start a task, and bring it to a checkpoint before which three rows were rejected."""
    journal.create(make_task(task_id))
    claim = start(journal, task_id)
    with JsonLines.open_at(journal.files(task_id).rejects, 0) as file:
        length = file.append([make_reject(number) for number in range(1, COUNT + 1)])
        claim.save(make_checkpoint(10, rejects_bytes=length, failed=COUNT))
        file.append([make_reject(COUNT + 1)])
    return claim


def _end(journal: Journal, claim: Claim, status: TaskStatus = DONE) -> None:
    checkpoint = claim.checkpoint()
    assert checkpoint is not None
    JsonLines.open_at(journal.files(claim.task_id).rejects, checkpoint.rejects_bytes).close()
    finish(claim, status, checkpoint=checkpoint)
    claim.release()


def _found(journal: Journal) -> list[tuple[str, str]]:
    return [(damage.path.name, damage.reason) for damage in damaged_files(journal)]


def _tear(raw: bytes) -> bytes:
    return raw[:-10]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "torn": (_tear, "2 whole rejects of 3"),
    "short": (lambda raw: raw.splitlines(keepends=True)[0], "1 whole reject of 3"),
    "empty": (lambda _: b"", "0 whole rejects of 3"),
    "zeroed": (lambda raw: bytes(len(raw)), "0 whole rejects of 3"),
    "garbled": (lambda raw: raw[:5] + b"\xff\x00" + raw[7:], "line 1 is not JSON"),
    "other": (lambda raw: b"[]\n" + raw, "line 1 is not a record of this file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("status", [DONE, FAILED, PROCESSING])
def test_damaged_rejects_are_named(journal: Journal, kind: str, status: TaskStatus) -> None:
    """For a task in any state, the remedy is named, and nothing is changed, not even by a repair, which repeats it."""
    claim = _begin(journal)
    if status is PROCESSING:
        die(claim)
    else:
        _end(journal, claim, status)
    assert damaged_files(journal) == ()
    path = journal.files("t").rejects
    damage, reason = DAMAGE[kind]
    path.write_bytes(damage(path.read_bytes()[: make_length()]))
    ((name, found),) = _found(journal)
    assert name == "t.jsonl"
    assert reason in found
    assert "`upsert-cli restart t --from-start`" in found
    left = path.read_bytes()
    (step,) = repair_journal(journal)
    assert found in step
    assert path.read_bytes() == left
    assert _found(journal) == [(name, found)]


def make_length() -> int:
    """Return the bytes of the rejects before the checkpoint."""
    return COUNT * len(f"{json.dumps(make_reject(1))}\n")


def test_more_rejects_than_counted_are_damage(journal: Journal) -> None:
    """A done task has exactly the rejects that it counts, and one without rejects has none."""
    _end(journal, _begin(journal))
    path = journal.files("t").rejects
    path.write_bytes(path.read_bytes() * 2)
    ((_, found),) = _found(journal)
    assert "6 whole rejects of 3" in found
    path.unlink()
    ((_, found),) = _found(journal)
    assert "0 whole rejects of 3" in found


def test_a_torn_tail_of_a_done_task_is_cut(journal: Journal) -> None:
    """All counted rejects come before it, so nothing is lost."""
    _end(journal, _begin(journal))
    path = journal.files("t").rejects
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"object_id": "ha')
    ((_, found),) = _found(journal)
    assert "torn" in found
    with Claim.take(journal, "t"):
        (step,) = repair_journal(journal)
        assert "being run" in step
    (step,) = repair_journal(journal)
    assert "cut" in step
    assert path.read_bytes() == whole
    assert damaged_files(journal) == ()
    assert repair_journal(journal) == []


def test_leftovers_of_a_kill_are_not_damage(journal: Journal) -> None:
    """Rejects and half a line after a checkpoint, a half-written checkpoint and files of removed tasks are not damage."""
    claim = _begin(journal)
    with journal.files("t").rejects.open("ab") as file:
        file.write(b'{"half": ')
    (journal.folder / "active" / "t.progress.tmp").write_bytes(b"half")
    journal.files("gone").rejects.write_bytes(b"garbage")
    (journal.folder / "active" / "gone.progress").write_bytes(b"garbage")
    assert damaged_files(journal) == ()
    die(claim)
    assert damaged_files(journal) == ()
    assert repair_journal(journal) == []


@pytest.mark.parametrize("kind", ["torn", "zeroed", "fewer"])
def test_a_checkpoint_with_lost_rejects_restarts_at_the_beginning(journal: Journal, kind: str) -> None:
    """The rows after it would be loaded for nothing, since only a start from the beginning can complete the task."""
    die(_begin(journal))
    path = journal.files("t").rejects
    whole = path.read_bytes()
    with Claim.take(journal, "t") as claim:
        assert claim.checkpoint() is not None
        one_line = whole.splitlines()[0].ljust(len(whole) - 1) + b"\n"
        path.write_bytes({"torn": whole[: len(whole) // 2], "zeroed": bytes(len(whole)), "fewer": one_line}[kind])
        assert claim.checkpoint() is None


def test_a_folder_in_place_of_a_file_is_named(journal: Journal) -> None:
    """The error names the file and says that it is a folder."""
    die(_begin(journal))
    path = journal.files("t").rejects
    path.unlink()
    path.mkdir()
    claim = Claim.take(journal, "t")
    for look in (lambda: list(journal.rejects("t")), claim.checkpoint, lambda: damaged_files(journal)):
        with pytest.raises(JournalUnreadable) as caught:
            look()
        assert str(path) in str(caught.value)
        assert "directory" in str(caught.value)


def test_a_torn_checkpoint_is_set_aside(journal: Journal) -> None:
    """A torn checkpoint is reported with its consequence; after a repair, the next attempt begins at the start."""
    die(_begin(journal))
    path = journal.folder / "active" / "t.progress"
    path.write_bytes(_tear(path.read_bytes()))
    ((name, found),) = _found(journal)
    assert name == "t.progress"
    assert "reads all rows again" in found
    (step,) = repair_journal(journal)
    assert "moved to t.progress.damaged-" in step
    assert damaged_files(journal) == ()
    with Claim.take(journal, "t") as claim:
        assert claim.checkpoint() is None


@pytest.mark.parametrize("moment", ["renamed", "saved", "begun", "midway"])
def test_each_moment_of_a_retry_is_sound_and_its_damage_is_named(journal: Journal, moment: str) -> None:
    """The rejects that failed again and those that wait add up to the task's count, wherever the retry stopped."""
    claim = _begin(journal)
    _end(journal, claim)
    failed, retry = journal.files("t").rejects, journal.files("t").retry
    if moment == "renamed":
        failed.rename(retry)
    else:
        claim = Claim.take(journal, "t")
        claim.retry_rejects(journal.find("t"), {})
    if moment in ("begun", "midway"):
        journal.change("t", PENDING, expect=(DONE,))
        journal.change("t", PROCESSING, expect=(PENDING,))
    if moment == "midway":
        with JsonLines.open_at(failed, 0) as file:
            length = file.append([make_reject(1)])
            claim.save(replace(make_checkpoint(10, rejects_bytes=length, failed=2), retried=2))
    assert damaged_files(journal) == ()
    retry.write_bytes(_tear(retry.read_bytes()))
    ((name, found),) = _found(journal)
    assert name == "t~retry.jsonl"
    assert "of 3" in found if moment != "midway" else "1 whole reject of 2" in found
    assert "--from-start" in found


def test_only_tasks_with_files_are_checked(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks without a rejects file cost no more than a look into the folder."""
    for number in range(5):
        journal.create(make_task(f"p{number}"))
    _end(journal, _begin(journal))
    opened: list[Path] = []

    def open_private(path: Path, flags: int) -> int:
        opened.append(path)
        return atomic.open_private(path, flags)

    monkeypatch.setattr(rejects, "open_private", open_private)
    assert damaged_files(journal) == ()
    assert opened == [journal.files("t").rejects]


def test_the_commands_name_the_damage(terminal: Terminal) -> None:
    """`journal check` exits with 1 and names the remedy, `journal repair` cuts the tail off, and then the journal is sound."""
    journal = Journal(terminal.journal)
    _end(journal, _begin(journal))
    with journal.files("t").rejects.open("ab") as file:
        file.write(b"\0\0\0")
    done = terminal.type("upsert-cli journal check", expect=1)
    assert "t.jsonl" in done.stdout
    assert "1 damaged file" in done.stderr
    assert "cut" in terminal.type("upsert-cli journal repair").stdout
    terminal.type("upsert-cli journal check")
    journal.files("t").rejects.unlink()
    assert "restart t --from-start" in terminal.type("upsert-cli journal check", expect=1).stdout
    assert "restart t --from-start" in terminal.type("upsert-cli journal repair", expect=1).stdout


def test_a_task_that_is_removed_during_a_check_has_no_damage(journal: Journal) -> None:
    """A prune removes the record first, so a check may still find files of which some are gone."""
    _end(journal, _begin(journal))
    record = journal.table.find("t")
    journal.files("t").rejects.write_bytes(b"")
    assert damage_of_task(journal, record) is not None
    journal.table.remove("t")
    assert damage_of_task(journal, record) is None
