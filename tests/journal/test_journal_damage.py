"""Damage to a journal is named, moved aside and restored if possible; it is never replaced by an empty journal."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journal.conftest import finish, reach, start
from tests.support.journal_tasks import make_checkpoint, make_task
from upsert_cli.errors import JournalDamaged, TaskExists, TaskNotFound, UpsertCliError, WrongStatus
from upsert_cli.journal.claims import Claim, request_cancel
from upsert_cli.journal.damage import damaged_files, repair_journal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import MIGRATIONS
from upsert_cli.journal.prune import prune_tasks
from upsert_cli.journal.spool import Incoming
from upsert_cli.journal.task import TaskStatus

PENDING, CANCELED = TaskStatus.PENDING, TaskStatus.CANCELED

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda whole: whole[: len(whole) // 2],
    "without its end": lambda whole: whole[:-1],
    "zeroed": lambda whole: bytes(len(whole)),
    "zeroed in the middle": lambda whole: whole[:20] + bytes(len(whole) - 40) + whole[-20:],
    "garbage": lambda whole: os.urandom(len(whole)),
    "garbage over an id": lambda whole: whole.replace(b'"id": "', b'"\xff\xfe\0: "', 1),
    "other JSON": lambda _: b'{"tasks": [1, 2, 3]}}}',
    "no table": lambda _: b"{}",
    "records that are none": lambda _: b'{"tasks": {"1": "a"}}',
}


@pytest.fixture
def segments(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Return a journal of three segments with the tasks a0 a1, b0 b1 and c0 c1; the a's and c's were changed."""
    monkeypatch.setattr("upsert_cli.journal.segments.SEGMENT_TASKS", 2)
    for task_id in ("a0", "a1", "b0", "b1", "c0", "c1"):
        journal.create(make_task(task_id))
    for task_id in ("a0", "c0"):
        request_cancel(journal, task_id)
    return Journal(journal.folder)


def path_of(journal: Journal, number: int, suffix: str = "") -> Path:
    return journal.folder / f"tasks-{number:06}.json{suffix}"


def damage(path: Path, kind: str = "truncated") -> bytes:
    """Damage a file and return its new content."""
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    return path.read_bytes()


@pytest.mark.parametrize("backup", ["good", "gone", "damaged"])
@pytest.mark.parametrize("seen", ["first by the runner", "first by another", "first by a repair"])
def test_a_runner_restores_its_damaged_task(segments: Journal, backup: str, seen: str) -> None:
    """Damage while a task runs costs neither its record nor its end, and its neighbours are restored as far as possible."""
    segments.create(make_task("d0"))
    with start(segments, "d0") as claim:
        begun = segments.find("d0")
        path = path_of(segments, 3)
        damage(path, "zeroed")
        if backup != "good":
            before = path_of(segments, 3, ".bak")
            before.unlink() if backup == "gone" else damage(before)
        other = Journal(segments.folder)
        if seen == "first by another":
            other.create(make_task("d1"))
        elif seen == "first by a repair":
            repair_journal(other)
        assert not claim.cancel_requested()
        ended = finish(claim, TaskStatus.DONE, checkpoint=make_checkpoint(100), begun=begun)
    assert (ended.status, ended.rows, ended.attempt) == (TaskStatus.DONE, 100, begun.attempt)
    assert Journal(segments.folder).find("d0") == ended
    listed = [task.id for task in Journal(segments.folder).list()]
    assert sorted(listed) == sorted({"a0", "a1", "b0", "b1", "c0", "c1", "d0", *listed})
    assert any("d0" in warning and "corrected that" in warning for warning in segments.warnings)


def test_a_cancel_reaches_a_runner_whose_record_was_damaged(journal: Journal) -> None:
    """A task that looks pending, restored from the previous generation, is canceled at once, and its runner ends too."""
    journal.create(make_task())
    with start(journal) as claim:
        begun = journal.find("t")
        damage(path_of(journal, 0), "zeroed")
        assert request_cancel(Journal(journal.folder), "t").status is CANCELED
        assert claim.cancel_requested()
        assert finish(claim, CANCELED, begun=begun).status is CANCELED


def test_a_new_task_under_a_lost_id_is_not_overwritten(journal: Journal) -> None:
    """The end of a lost task does not overwrite a new task that was created under its id."""
    journal.create(make_task())
    with start(journal) as claim:
        begun = journal.find("t")
        path_of(journal, 0).unlink()
        path_of(journal, 0, ".bak").unlink()
        new = Journal(journal.folder).create(make_task(created_at="2026-11-24T00:00:00Z"))
        with pytest.raises(WrongStatus):
            finish(claim, TaskStatus.DONE, begun=begun)
    assert Journal(journal.folder).find("t") == new


@pytest.mark.parametrize("kind", DAMAGE)
def test_readers_see_the_previous_generation_and_touch_nothing(segments: Journal, kind: str) -> None:
    """List and find answer from the .bak, warn once, and leave the damaged file untouched."""
    left = damage(path_of(segments, 0), kind)
    for _ in range(3):
        assert [task.id for task in segments.list()] == ["c1", "c0", "b1", "b0", "a1", "a0"]
        assert segments.find("a0").status is PENDING  # the generation before lacks the last change
        assert segments.find("c0").status is CANCELED
    assert [task.id for task in segments.list(statuses=[CANCELED])] == ["c0"]
    assert len(segments.warnings) == 1
    assert "tasks-000000.json is damaged" in segments.warnings[0]
    assert path_of(segments, 0).read_bytes() == left
    assert [entry.path.name for entry in damaged_files(segments)] == ["tasks-000000.json"]


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_writer_moves_the_damaged_file_aside_and_restores_the_previous_one(segments: Journal, kind: str) -> None:
    """Nothing is deleted, and after the first change the journal is whole again."""
    left = damage(path_of(segments, 0), kind)
    assert request_cancel(segments, "a1").status is CANCELED
    (aside,) = segments.folder.glob("*.damaged-*")
    assert (aside.name.startswith("tasks-000000.json.damaged-2"), aside.read_bytes()) == (True, left)
    assert any("moved to" in warning for warning in segments.warnings)
    assert any("restored" in warning for warning in segments.warnings)
    fresh = Journal(segments.folder)
    assert {task.id: task.status for task in fresh.list()}.items() >= {("a0", PENDING), ("a1", CANCELED)}
    assert fresh.warnings == []
    assert [entry.path for entry in damaged_files(fresh)] == [aside]
    assert aside.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("number", [0, 2])
def test_without_a_good_generation_other_segments_keep_working(segments: Journal, kind: str, number: int) -> None:
    """The lost tasks are reported, all others can be listed and changed, and the segment's number is never reused."""
    lost = "abc"[number]
    damage(path_of(segments, number), kind)
    path_of(segments, number, ".bak").unlink()
    others = [task_id for task_id in ("c1", "c0", "b1", "b0", "a1", "a0") if task_id[0] != lost]
    assert [task.id for task in segments.list()] == others
    with pytest.raises((TaskNotFound, JournalDamaged)):
        segments.change(f"{lost}1", CANCELED, expect=(PENDING,))
    assert request_cancel(segments, "b0").status is CANCELED
    segments.create(make_task("new"))
    assert [task.id for task in Journal(segments.folder).list()] == ["new", *others]
    assert [entry.path.name[:17] for entry in damaged_files(segments)] == [path_of(segments, number).name]
    if number == 2:
        assert not path_of(segments, 2).exists()
        assert path_of(segments, 3).exists()
        assert len(list(segments.folder.glob("tasks-000002.json.damaged-*"))) == 1


@pytest.mark.parametrize("kind", ["empty", "truncated", "without its end", "zeroed", "garbage"])
def test_damage_in_an_old_segment_hides_no_task(segments: Journal, kind: str) -> None:
    """A truncated or overwritten segment is noticed even if it is old, although old ones are searched without being parsed."""
    for number in range(20):
        segments.create(make_task(f"new{number}"))
    damage(path_of(segments, 0), kind)
    assert Journal(segments.folder).find("a1").id == "a1"
    assert [task.id for task in Journal(segments.folder).list(statuses=[PENDING])][-2:] == ["a1", "a0"]
    with pytest.raises(TaskExists):
        Journal(segments.folder).create(make_task("a1"))


def test_both_generations_damaged(segments: Journal) -> None:
    """Both are moved aside, and nothing replaces them."""
    damage(path_of(segments, 2))
    damage(path_of(segments, 2, ".bak"), "garbage")
    segments.create(make_task("new"))
    assert [task.id for task in segments.list()] == ["new", "b1", "b0", "a1", "a0"]
    assert len(list(segments.folder.glob("tasks-000002.json*.damaged-*"))) == 2
    assert [path.name for path in segments.folder.glob("tasks-000002.json*") if ".damaged-" not in path.name] == []


def test_a_damaged_only_segment_is_not_an_empty_journal(journal: Journal) -> None:
    """If all is lost, no file takes the damaged file's name, and a search reports the unreadable file."""
    reach(journal, PENDING)
    damage(path_of(journal, 0))
    fresh = Journal(journal.folder)
    assert fresh.list() == []
    assert any("damaged" in warning for warning in fresh.warnings)
    with pytest.raises(TaskNotFound, match="upsert-cli journal check"):
        fresh.find("t")
    fresh.create(make_task("new"))
    assert path_of(journal, 1).exists()
    assert not path_of(journal, 0).exists()


def test_a_missing_file_is_restored_from_the_previous_generation(segments: Journal) -> None:
    """A segment that was removed is read from its .bak, and the next change restores it."""
    path_of(segments, 0).unlink()
    assert segments.find("a0").status is PENDING
    assert "missing" in segments.warnings[0]
    request_cancel(segments, "a1")
    assert [task.id for task in Journal(segments.folder).list()][-2:] == ["a1", "a0"]


def test_a_missing_file_with_a_damaged_backup_is_a_loss(segments: Journal) -> None:
    """The loss is reported, and the other segments keep working."""
    path_of(segments, 0).unlink()
    damage(path_of(segments, 0, ".bak"))
    assert [task.id for task in segments.list()] == ["c1", "c0", "b1", "b0"]
    assert any("tasks-000000.json.bak is damaged" in warning for warning in segments.warnings)
    with pytest.raises(TaskNotFound, match="damaged files"):
        segments.find("a1")


def test_two_files_damaged_in_one_second_are_both_kept(segments: Journal) -> None:
    """A file that is moved aside never replaces another one."""
    contents = set()
    for round_number in range(3):
        damage(path_of(segments, 0), "without its end")
        contents.add(path_of(segments, 0).read_bytes())
        segments.change("a1", PENDING, expect=(PENDING,), detail=f"round {round_number}")
    kept = {path.read_bytes() for path in segments.folder.glob("tasks-000000.json.damaged-*")}
    assert contents <= kept
    assert len(list(segments.folder.glob("tasks-000000.json.damaged-*"))) == 3


def test_an_invalid_record_hides_no_other(segments: Journal) -> None:
    """The record is left out of the list with a warning, named by `find`, and stays in its file."""
    path = path_of(segments, 1)
    path.write_bytes(path.read_bytes().replace(b'"status": "pending"', b'"status": "unheard"', 1))
    assert [task.id for task in segments.list()] == ["c1", "c0", "b1", "a1", "a0"]
    assert any("b0" in warning for warning in segments.warnings)
    with pytest.raises(JournalDamaged, match="b0"):
        segments.find("b0")
    request_cancel(segments, "b1")
    assert b'"unheard"' in path.read_bytes()


def test_a_record_without_an_id_stops_no_other(segments: Journal) -> None:
    """Other tasks are found by the beginning of an id, and pruned; the record stays in its file."""
    request_cancel(segments, "b1")
    path = path_of(segments, 1)
    path.write_bytes(path.read_bytes().replace(b'"id": "b0"', b'"no": "b0"', 1))
    assert segments.resolve("b") == "b1"
    assert {task.id for task in prune_tasks(segments)} == {"a0", "b1", "c0"}
    assert b'"no": "b0"' in path.read_bytes()


def test_damaged_rejects_do_not_hide_their_task(journal: Journal) -> None:
    """The task is shown as its record has it, with a warning."""
    reach(journal, PENDING)
    claim = Claim.take(journal, "t")
    journal.change("t", TaskStatus.PROCESSING, expect=(PENDING,))
    journal.files("t").rejects.write_bytes(b"garbage\n" * 10)
    claim.save(make_checkpoint(40, rejects_bytes=80))
    assert journal.find("t").rows == 40
    assert any("t.jsonl is damaged (line 1" in warning for warning in journal.warnings)


# -- formats ----------------------------------------------------------------------------------------------------------


def test_a_newer_format_is_refused(journal: Journal) -> None:
    """Nothing is read or written, and the message names both formats."""
    reach(journal, PENDING)
    (journal.folder / "meta.json").write_text('{"format": 7}')
    (journal.folder / "spool").rmdir()
    before = sorted(path.name for path in journal.folder.rglob("*"))
    for use in (
        lambda: journal.find("t"),
        journal.list,
        lambda: journal.create(make_task("new")),
        lambda: request_cancel(journal, "t"),
        lambda: Claim.take(journal, "t"),
        lambda: journal.change("t", CANCELED, expect=(PENDING,)),
        lambda: Incoming(journal.layout).folder(),
        lambda: damaged_files(journal),
    ):
        with pytest.raises(UpsertCliError, match=r"has format 7, this version knows up to 1; upgrade"):
            use()
    assert sorted(path.name for path in journal.folder.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"format": "1"}', b'{"format": -3}', bytes(13)])
def test_a_damaged_format_is_taken_as_the_current_one(journal: Journal, content: bytes) -> None:
    """The tasks can still be read, and the next write moves the damaged file aside."""
    reach(journal, PENDING)
    (journal.folder / "meta.json").write_bytes(content)
    assert journal.find("t") == make_task()
    assert [entry.path.name for entry in damaged_files(journal)] == ["meta.json"]
    journal.create(make_task("new"))
    assert (journal.folder / "meta.json").read_text() == '{"format": 1}'
    (aside,) = journal.folder.glob("meta.json.damaged-*")
    assert aside.read_bytes() == content
    assert len(journal.warnings) == 1


@pytest.mark.parametrize("first_use", ["find", "list", "create"])
def test_an_older_format_is_brought_up_to_date(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, first_use: str
) -> None:
    """The first operation migrates the journal, once."""
    reach(journal, PENDING)
    (journal.folder / "meta.json").write_text('{"format": 0}')
    path_of(journal, 0).rename(journal.folder / "all-tasks.json")  # how a format 0 might have named it
    moved: list[Path] = []

    def migrate(folder: Path) -> None:
        moved.append(folder)
        (folder / "all-tasks.json").rename(folder / "tasks-000000.json")

    monkeypatch.setitem(MIGRATIONS, 0, migrate)
    uses: dict[str, Callable[[], object]] = {
        "find": lambda: journal.find("t"),
        "list": journal.list,
        "create": lambda: journal.create(make_task("new")),
    }
    uses[first_use]()
    assert journal.find("t") == make_task()
    assert moved == [journal.folder]
    assert (journal.folder / "meta.json").read_text() == '{"format": 1}'


def test_a_failed_migration_is_retried(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format is raised only after its step is done."""
    reach(journal, PENDING)
    (journal.folder / "meta.json").write_text('{"format": 0}')
    tries: list[Path] = []

    def migrate(folder: Path) -> None:
        tries.append(folder)
        if len(tries) == 1:
            raise KeyboardInterrupt

    monkeypatch.setitem(MIGRATIONS, 0, migrate)
    with pytest.raises(KeyboardInterrupt):
        journal.find("t")
    assert (journal.folder / "meta.json").read_text() == '{"format": 0}'
    assert journal.find("t") == make_task()
    assert len(tries) == 2
