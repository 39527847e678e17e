"""The journal's interface: create, find, list, change, claim and cancel tasks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tinydb import TinyDB

from tests.journal.conftest import die, finish, reach, start, start_process
from tests.support.journal_tasks import make_checkpoint, make_reject, make_task
from upsert_cli.counts import Counts
from upsert_cli.errors import JournalUnwritable, TaskExists, TaskNotFound, TaskRunning, UsageFault, WrongStatus
from upsert_cli.journal.claims import Claim, request_cancel
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.journal.rejects import JsonLines, read_rejects
from upsert_cli.journal.spool import Incoming
from upsert_cli.journal.task import TaskStatus
from upsert_cli.sources.item import START
from upsert_cli.sources.rows import Unit

PENDING, PROCESSING, DONE = TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.DONE
CANCELED, FAILED, REFUSED = TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.REFUSED


@contextmanager
def counting_opens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Collect the files that are opened."""
    opened: list[Path] = []
    real = os.open

    def count(path: str | Path, *arguments: int) -> int:
        opened.append(Path(path))
        return real(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", count)
        yield opened


# -- looking ----------------------------------------------------------------------------------------------------------


def test_reading_a_missing_journal_creates_nothing(journal: Journal) -> None:
    """Reading never creates the folder."""
    assert journal.list() == []
    assert not journal.is_running("t")
    assert damaged_files(journal) == ()
    with pytest.raises(TaskNotFound, match="upsert-cli list"):
        journal.find("t")
    with pytest.raises(TaskNotFound):
        request_cancel(journal, "t")
    with pytest.raises(TaskNotFound):
        Claim.take(journal, "t")
    assert not journal.folder.exists()


@pytest.mark.parametrize("text", ["../../etc/passwd", "", 'a"', "\ud800", "a/b"])
def test_an_invalid_id_is_not_found_and_names_no_file(journal: Journal, text: str) -> None:
    """Text that cannot be an id never becomes a part of a path."""
    journal.create(make_task())
    with pytest.raises(TaskNotFound):
        journal.find(text)
    for ask in (journal.files, journal.is_running):
        with pytest.raises(UsageFault, match="cannot be a task id"):
            ask(text)
    with pytest.raises(UsageFault, match="cannot be a task id"):
        journal.create(make_task(text))


def test_a_task_is_found_as_it_was_created(journal: Journal) -> None:
    """Another process finds every field unchanged, even names that are not UTF-8."""
    name = os.fsdecode(b"/data/caf\xe9.jsonl")
    options = LoadOptions(text_fields=("ä", "\N{PILE OF POO}"))
    task = make_task(sources=(name,), inputs=({"name": name, "size": 2**70},), options=options)
    assert journal.create(task) == task
    assert Journal(journal.folder).find("t") == task


def test_the_files_are_ordinary_tinydb_files(journal: Journal) -> None:
    """Stock TinyDB reads the journal's files."""
    journal.create(make_task("a"))
    journal.create(make_task("b"))
    table = TinyDB(journal.folder / "tasks-000000.json", access_mode="r").table("tasks")
    assert [(record.doc_id, record["id"], record["status"]) for record in table] == [
        (1, "a", "pending"),
        (2, "b", "pending"),
    ]


def test_a_file_that_stock_tinydb_wrote_is_read(journal: Journal) -> None:
    """A user who edits a file needs to know only the table of tasks."""
    journal.create(make_task("a"))
    path = journal.folder / "tasks-000000.json"
    path.unlink()
    TinyDB(path).table("tasks").insert(make_task("b").as_record() | {"added": "by hand"})
    fresh = Journal(journal.folder)
    assert [task.id for task in fresh.list(statuses=[PENDING])] == ["b"]
    assert request_cancel(fresh, "b").status is CANCELED
    (record,) = TinyDB(path, access_mode="r").table("tasks")
    assert (record["status"], record["added"]) == ("canceled", "by hand")


def test_list_is_newest_first_and_paged(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offset, limit and status cut the same sequence, across segments."""
    monkeypatch.setattr("upsert_cli.journal.segments.SEGMENT_TASKS", 4)
    ids = [f"t{number}" for number in range(10)]
    for task_id in ids:
        journal.create(make_task(task_id))
    for task_id in ids[::3]:
        request_cancel(journal, task_id)
    newest = ids[::-1]
    assert sorted(path.name for path in journal.folder.glob("tasks-*.json")) == [
        f"tasks-00000{n}.json" for n in range(3)
    ]
    assert [task.id for task in journal.list()] == newest
    assert [task.id for task in journal.list(offset=3, limit=5)] == newest[3:8]
    assert [task.id for task in journal.list(offset=9, limit=5)] == newest[9:]
    assert journal.list(offset=10) == [] == journal.list(limit=0)
    assert [task.id for task in journal.list(statuses=[CANCELED], offset=1)] == ["t6", "t3", "t0"]
    assert [task.id for task in journal.list(statuses=[FAILED])] == []


@pytest.mark.parametrize("history", [0, 3, 40])
def test_reading_costs_the_same_whatever_the_history(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, history: int
) -> None:
    """Finding, listing and changing new tasks opens the same files after 40 segments as after none."""
    with monkeypatch.context() as patch:
        patch.setattr("upsert_cli.journal.segments.SEGMENT_TASKS", 1)
        for number in range(history):
            journal.create(make_task(f"old{number}"))
        journal.create(make_task("new"))
    fresh = Journal(journal.folder)
    with counting_opens(monkeypatch) as opened:
        fresh.find("new")
    assert [path.name for path in opened] == ["meta.json", f"tasks-{history:06}.json"]
    with counting_opens(monkeypatch) as opened:
        Journal(journal.folder).list(limit=1)
    assert [path.name for path in opened] == ["meta.json", f"tasks-{history:06}.json"]
    with counting_opens(monkeypatch) as opened:
        fresh.change("new", CANCELED, expect=(PENDING,))
    assert [path.name for path in opened] == [
        "meta.json",
        f"tasks-{history:06}.lock",
        f"tasks-{history:06}.json.tmp",
        "journal",
    ]


def test_a_full_segment_gets_no_more_tasks(journal: Journal) -> None:
    """A task with thousands of sources does not slow down changes of other tasks."""
    journal.create(make_task("large", sources=tuple(f"/data/{number:0100}" for number in range(20_000))))
    journal.create(make_task("small"))
    assert (journal.folder / "tasks-000001.json").stat().st_size < 10_000
    assert [task.id for task in journal.list()] == ["small", "large"]


def test_a_reader_sees_writes_of_other_processes_at_once(journal: Journal) -> None:
    """A reader never answers from memory after the file was replaced."""
    journal.create(make_task())
    reader = Journal(journal.folder)
    for to in (PROCESSING, FAILED, PENDING, CANCELED):
        journal.change("t", to, expect=tuple(TaskStatus))
        assert reader.find("t").status is to
        assert [task.status for task in reader.list()] == [to]


# -- creating ---------------------------------------------------------------------------------------------------------


def test_an_id_is_taken_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id in any segment cannot be created again."""
    monkeypatch.setattr("upsert_cli.journal.segments.SEGMENT_TASKS", 2)
    for number in range(7):
        journal.create(make_task(f"t{number}"))
    for number in range(7):
        with pytest.raises(TaskExists, match=f"t{number}"):
            Journal(journal.folder).create(make_task(f"t{number}"))
    journal.create(make_task("t"))
    assert len(journal.list()) == 8


def test_ids_that_would_share_files_are_one_where_case_is_ignored(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a.lease and A.lease are one file, `Nightly` and `nightly` cannot both be tasks; elsewhere they can."""
    monkeypatch.setattr("upsert_cli.journal.task_table.FOLDS_CASE", True)
    journal.create(make_task("Nightly"))
    for task_id in ("nightly", "NIGHTLY", "Nightly"):
        with pytest.raises(TaskExists):
            Journal(journal.folder).create(make_task(task_id))
    monkeypatch.setattr("upsert_cli.journal.task_table.FOLDS_CASE", False)
    journal.create(make_task("nightly"))
    assert {task.id for task in journal.list()} == {"Nightly", "nightly"}


# -- changing ---------------------------------------------------------------------------------------------------------


def test_a_change_is_made_only_from_an_expected_state(journal: Journal) -> None:
    """Of two processes that begin a task, one succeeds, and the other learns the task's present state."""
    journal.create(make_task())
    other = Journal(journal.folder)
    other.find("t")
    assert journal.change("t", PROCESSING, expect=(PENDING,), attempt=2).attempt == 2
    with pytest.raises(WrongStatus, match="is processing, not pending"):
        other.change("t", PROCESSING, expect=(PENDING,), attempt=3)
    assert journal.find("t").attempt == 2


def test_a_change_sets_the_time(journal: Journal) -> None:
    """`updated_at` follows every change, `finished_at` the end of a task."""
    journal.create(make_task())
    changed = journal.change("t", PROCESSING, expect=(PENDING,))
    assert (changed.created_at, changed.finished_at) == (make_task().created_at, None)
    assert changed.updated_at > changed.created_at
    ended = journal.change("t", REFUSED, expect=(PROCESSING,), detail="the target is in use")
    assert ended.finished_at == ended.updated_at
    assert journal.find("t") == ended


def test_a_change_that_fails_leaves_no_trace(journal: Journal) -> None:
    """An unknown field or a value that is not JSON changes nothing, not even what the process itself sees."""
    journal.create(make_task())
    with pytest.raises(TypeError):
        journal.change("t", PROCESSING, expect=(PENDING,), no_such_field=1)
    with pytest.raises(TypeError):
        journal.change("t", PROCESSING, expect=(PENDING,), options=LoadOptions.from_json({"a": object()}))
    assert journal.find("t") == make_task() == Journal(journal.folder).find("t")
    journal.change("t", PROCESSING, expect=(PENDING,))


# -- claims -----------------------------------------------------------------------------------------------------------


def test_a_task_has_one_runner(journal: Journal) -> None:
    """A second claim is refused at once, names the holder, and is granted after the first is released."""
    journal.create(make_task())
    with Claim.take(journal, "t"):
        assert journal.is_running("t")
        with pytest.raises(TaskRunning, match=f"pid {os.getpid()} on "):
            Claim.take(Journal(journal.folder), "t")
    assert not journal.is_running("t")
    with Claim.take(journal, "t") as claim:
        claim.release()
        with Claim.take(Journal(journal.folder), "t"):
            claim.release()  # a second time, which must not take the lease away from its new holder
            assert journal.is_running("t")
    assert journal.find("t") == make_task()


def test_a_killed_runner_loses_its_claim(journal: Journal) -> None:
    """The lease is free when its holder is dead, and the next claim gets it."""
    journal.create(make_task())
    process = start_process("driver", "claim", journal.folder, "t")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["step"] == "claimed"
    assert journal.is_running("t")
    process.kill()
    process.communicate()
    assert not journal.is_running("t")
    Claim.take(journal, "t").release()


def test_a_killed_task_shows_its_checkpoint(journal: Journal) -> None:
    """While a task is processing, `find` and `list` show rows, counts and rejects from the checkpoint."""
    journal.create(make_task())
    claim = start(journal)
    with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
        length = rejects.append([make_reject(1), make_reject(2)])
        claim.save(make_checkpoint(50, rejects_bytes=length, failed=2))
        rejects.append([make_reject(3)])  # beyond the checkpoint: will be found again
    die(claim)
    for task in (journal.find("t"), journal.list()[0]):
        assert (task.status, task.rows, task.counts) == (PROCESSING, 50, Counts(read=50, inserted=48, failed=2))
        assert [item["row"] for item in task.failed_items] == [1, 2]
    assert [item["row"] for item in journal.rejects("t")] == [1, 2]


def _rows_shown(journal: Journal) -> tuple[list[int], list[int]]:
    return [item["row"] for item in journal.find("t").failed_items], [item["row"] for item in journal.rejects("t")]


def test_rejects_beyond_the_checkpoint_are_never_shown(journal: Journal) -> None:
    """Before the first checkpoint there are none, even if an attempt left some; after a failure, the counted ones are shown."""
    journal.create(make_task())
    claim = start(journal)
    with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
        length = rejects.append([make_reject(1) | {"payload": {"text": "x" * 100_000}}])
        assert _rows_shown(journal) == ([], [])
        claim.save(make_checkpoint(10, rejects_bytes=length, failed=1))
        rejects.append([make_reject(2)])
    assert _rows_shown(journal) == ([1], [1])
    finish(claim, FAILED, failed_items=journal.find("t").failed_items, checkpoint=claim.checkpoint())
    assert _rows_shown(journal) == ([1], [1])
    journal.change("t", PENDING, expect=(FAILED,), counts=Counts(), failed_items=())
    claim.drop_checkpoint()
    assert _rows_shown(journal) == ([], [])


def test_rejects_that_wait_to_be_retried_are_shown(journal: Journal) -> None:
    """During a retry, they follow the rejects that have failed again."""
    journal.create(make_task())
    claim = start(journal)
    with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
        length = rejects.append([make_reject(number) for number in (1, 2, 3)])
    checkpoint = make_checkpoint(10, rejects_bytes=length, failed=3)
    claim.retry_rejects(finish(claim, DONE, checkpoint=checkpoint), checkpoint.position)
    journal.change("t", PENDING, expect=(DONE,))
    journal.change("t", PROCESSING, expect=(PENDING,))
    assert _rows_shown(journal) == ([1, 2, 3], [1, 2, 3])
    with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
        length = rejects.append([make_reject(2)])
        claim.save(replace(make_checkpoint(10, rejects_bytes=length, failed=2), retried=2))
        rejects.append([make_reject(3)])
    assert _rows_shown(journal) == ([2, 3], [2, 3])


def test_a_dead_task_keeps_its_progress_when_it_is_set_back(journal: Journal) -> None:
    """A task that is pending again keeps its progress."""
    journal.create(make_task())
    claim = start(journal)
    claim.save(make_checkpoint(50))
    die(claim)
    task = journal.change("t", PENDING, expect=(PROCESSING,), attempt=2)
    assert (task.rows, task.counts.inserted, task.attempt) == (50, 50, 2)
    assert Journal(journal.folder).find("t") == task


@pytest.mark.parametrize("status", [FAILED, CANCELED, REFUSED, DONE])
def test_the_end_of_an_attempt_is_recorded_with_its_progress(journal: Journal, status: TaskStatus) -> None:
    """Rows, counts and rejects go into the record; the checkpoint stays for a restart unless the task is done."""
    journal.create(make_task())
    with start(journal) as claim:
        claim.save(make_checkpoint(40))
        journal.change("t", PROCESSING, expect=(PROCESSING,), cancel_requested=True)
        task = finish(claim, status, detail="why", failed_items=(make_reject(1),), checkpoint=make_checkpoint(60))
        assert claim.checkpoint() == (None if status is DONE else make_checkpoint(40))
    assert (task.status, task.detail, task.rows, task.counts.inserted) == (status, "why", 60, 60)
    assert task.failed_items == (make_reject(1),)
    assert task.finished_at is not None
    assert not task.cancel_requested
    assert Journal(journal.folder).find("t") == task


def test_rejects_too_long_for_the_record_are_shown_whole(journal: Journal) -> None:
    """The record stays small; `find` completes its cut items from the rejects file."""
    journal.create(make_task())
    items = [make_reject(number) | {"payload": {"text": "x" * 100_000}} for number in range(25)]
    with start(journal) as claim:
        with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
            length = rejects.append(items)
        checkpoint = make_checkpoint(50, rejects_bytes=length, failed=25)
        finish(claim, DONE, failed_items=tuple(items[:20]), checkpoint=checkpoint)
    assert (journal.folder / "tasks-000000.json").stat().st_size < 50_000
    assert list(journal.find("t").failed_items) == items[:20]
    journal.files("t").rejects.unlink()
    assert [item["payload"] for item in journal.find("t").failed_items] == [None] * 20


def test_dropping_a_checkpoint_begins_at_the_start(journal: Journal) -> None:
    """Afterwards there is no checkpoint, even if there never was one."""
    journal.create(make_task())
    with Claim.take(journal, "t") as claim:
        claim.drop_checkpoint()
        claim.save(make_checkpoint(40))
        assert claim.checkpoint() == make_checkpoint(40)
        claim.drop_checkpoint()
        assert claim.checkpoint() is None


@pytest.mark.parametrize("damage", ["cut", "zeros", "garbage", "empty", "other"])
def test_a_torn_checkpoint_reads_as_none(journal: Journal, damage: str) -> None:
    """A progress file that is not complete to the last byte reads as none, for the runner and for readers."""
    journal.create(make_task())
    claim = start(journal)
    claim.save(make_checkpoint(40))
    path = journal.folder / "active" / "t.progress"
    whole = path.read_bytes()
    torn = {
        "cut": [whole[:length] for length in range(1, len(whole))],
        "zeros": [whole[:length] + bytes(len(whole) - length) for length in range(0, len(whole), 9)],
        "garbage": [os.urandom(len(whole))],
        "empty": [b""],
        "other": [whole.replace(b'"rows": 40', b'"rows": 90'), b"[1, 2]", b"00000000 {}"],
    }
    for content in torn[damage]:
        path.write_bytes(content)
        assert claim.checkpoint() is None
        assert journal.find("t").rows == 0
    path.write_bytes(whole)
    assert claim.checkpoint() == make_checkpoint(40)


def test_a_checkpoint_without_its_rejects_reads_as_none(journal: Journal) -> None:
    """A power failure may lose rejects that the checkpoint counts; then the rows are read again."""
    journal.create(make_task())
    with start(journal) as claim:
        with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
            claim.save(make_checkpoint(40, rejects_bytes=rejects.append([make_reject(1)]), failed=1))
        assert claim.checkpoint() is not None
        os.truncate(journal.files("t").rejects, 10)
        assert claim.checkpoint() is None


def test_a_new_task_does_not_inherit_the_files_of_a_lost_one(journal: Journal) -> None:
    """A checkpoint and receipts of a task whose record is gone do not make a new task of that id skip rows."""
    journal.create(make_task())
    unit = Unit(digest="x", start=START, after=0, end=40)
    with start(journal) as claim, Receipts.open_at(claim.files.receipts) as receipts:
        claim.save(make_checkpoint(40))
        receipts.add(Receipt(unit=unit))
        die(claim)
    (journal.folder / "tasks-000000.json").unlink()
    (journal.folder / "tasks-000000.json.bak").unlink()
    journal.create(make_task())
    with Claim.take(journal, "t") as claim, Receipts.open_at(claim.files.receipts) as receipts:
        assert claim.checkpoint() is None
        assert receipts.left_of(unit) == unit


# -- canceling --------------------------------------------------------------------------------------------------------


def test_a_pending_task_is_canceled_at_once(journal: Journal) -> None:
    """A pending task has no runner, so no cancel has to be requested."""
    reach(journal, PENDING)
    assert request_cancel(journal, "t").status is CANCELED
    assert journal.find("t").finished_at is not None


def test_a_dead_task_is_canceled_at_once(journal: Journal) -> None:
    """It keeps the progress of its checkpoint, and can be restarted from there."""
    journal.create(make_task())
    claim = start(journal)
    claim.save(make_checkpoint(40))
    die(claim)
    task = request_cancel(journal, "t")
    assert (task.status, task.rows, journal.is_running("t")) == (CANCELED, 40, False)
    assert Claim.take(journal, "t").checkpoint() == make_checkpoint(40)


def test_cancel_does_not_end_a_task_that_is_taken_over_at_that_moment(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process can begin to run it between the check for a runner and the change."""
    reach(journal, PROCESSING)
    looks = iter([False])
    look = journal.is_running
    with Claim.take(journal, "t") as claim:
        monkeypatch.setattr(journal, "is_running", lambda task_id: next(looks, None) is None and look(task_id))
        assert request_cancel(journal, "t").status is PROCESSING
        assert claim.cancel_requested()


def test_a_running_task_is_canceled_by_its_runner(journal: Journal) -> None:
    """The runner sees the request at its next look, even if other tasks in the file changed before."""
    journal.create(make_task())
    journal.create(make_task("other"))
    other = Journal(journal.folder)
    with start(journal) as claim:
        request_cancel(other, "other")
        assert not claim.cancel_requested()
        asked = request_cancel(other, "t")
        assert (asked.status, asked.cancel_requested) == (PROCESSING, True)
        assert claim.cancel_requested()
        assert request_cancel(other, "t").cancel_requested
        assert finish(claim, CANCELED).cancel_requested is False


def test_polling_for_a_cancel_opens_nothing_while_nothing_changed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check costs one stat, so it can be polled."""
    journal.create(make_task())
    with start(journal) as claim:
        claim.cancel_requested()
        with counting_opens(monkeypatch) as opened:
            assert not any(claim.cancel_requested() for _ in range(10))
        assert opened == []


def test_a_journal_that_cannot_be_read_for_a_moment_cancels_nothing(journal: Journal) -> None:
    """A runner continues while its record cannot be read."""
    journal.create(make_task())
    with start(journal) as claim:
        for path in journal.folder.glob("tasks-*"):
            path.rename(path.with_suffix(path.suffix + ".away"))
        assert not claim.cancel_requested()
        for path in journal.folder.glob("*.away"):
            path.write_bytes(b"garbage")
            path.rename(path.with_suffix(""))
        assert not claim.cancel_requested()


@pytest.mark.parametrize("status", [DONE, FAILED, REFUSED])
def test_cancel_of_a_task_that_ended_changes_nothing(journal: Journal, status: TaskStatus) -> None:
    """It raises, names the state, and leaves the task unchanged."""
    reach(journal, status)
    before = journal.find("t")
    with pytest.raises(WrongStatus, match=f"is {status}, not pending or processing"):
        request_cancel(journal, "t")
    assert journal.find("t") == before


def test_cancel_of_a_canceled_task_is_no_error(journal: Journal) -> None:
    """The task is returned unchanged."""
    reach(journal, CANCELED)
    before = journal.find("t")
    assert request_cancel(journal, "t") == before == journal.find("t")


# -- files that go with a task ----------------------------------------------------------------------------------------


def test_standard_input_is_kept_for_its_task(journal: Journal) -> None:
    """Input that is read before there is a task moves into the task's folder."""
    with Incoming(journal.layout) as incoming:
        folder = incoming.folder()
        (folder / "0.jsonl").write_text("{}")
        assert folder.parent == journal.files("t").spool.parent
        assert Incoming(journal.layout).folder() != folder
        journal.create(make_task(), incoming=incoming.path)
    assert (journal.files("t").spool / "0.jsonl").read_text() == "{}"
    assert not folder.exists()


def test_standard_input_never_replaces_that_of_another_task(journal: Journal) -> None:
    """The spool of an existing task stays; the leftover of a process that was killed before its task existed does not."""
    journal.create(make_task("other"))
    journal.files("t").spool.mkdir()
    (journal.files("t").spool / "0.jsonl").write_text("first")  # and killed before there was a task
    for text in ("second", "third"):
        with Incoming(journal.layout) as incoming:
            (incoming.folder() / "0.jsonl").write_text(text)
            if text == "second":
                journal.create(make_task(), incoming=incoming.path)
            else:
                with pytest.raises(TaskExists):
                    journal.create(make_task(), incoming=incoming.path)
    assert (journal.files("t").spool / "0.jsonl").read_text() == "second"


def test_standard_input_of_a_task_that_cannot_be_created_is_removed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error no spool exists under the id; the next attempt finds the input at its old path."""
    with Incoming(journal.layout) as incoming:
        (incoming.folder() / "0.jsonl").write_text("{}")
        with monkeypatch.context() as patch, pytest.raises(JournalUnwritable):
            patch.setattr("upsert_cli.journal.segments.write_all", _full_disk)
            journal.create(make_task(), incoming=incoming.path)
        assert not journal.files("t").spool.exists()
        journal.create(make_task(), incoming=incoming.path)
    assert (journal.files("t").spool / "0.jsonl").read_text() == "{}"


def _full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_stale_standard_input_is_removed(journal: Journal) -> None:
    """A day after the last write, the folder of a killed process is removed; one that is young or owned stays."""
    owner, *killed = (Incoming(journal.layout) for _ in range(3))
    owned, stale, slow = owner.folder(), *(each.folder() for each in killed)
    os.utime(owned, (0, 0))
    (stale / "0.jsonl").write_text("{}")
    os.utime(stale / "0.jsonl", (0, 0))
    os.utime(stale, (0, 0))
    (slow / "0.jsonl").write_text("{}")
    os.utime(slow, (0, 0))
    for each in killed:
        each.close()  # as the end of its process would
    Incoming(journal.layout).folder()
    assert (stale.exists(), slow.exists(), owned.exists()) == (False, True, True)
    owner.close()


def test_rejects_are_cut_back_to_the_checkpoint(journal: Journal) -> None:
    """Rejects that are found again after a crash are in the file once; half a line does no harm."""
    path = journal.files("t").rejects
    with JsonLines.open_at(path, 0) as rejects:
        length = rejects.append([make_reject(1)])
        assert rejects.append([]) == length
        rejects.append([make_reject(2), make_reject(3)])
    with path.open("ab") as file:
        file.write(b'{"half": ')
    assert [item["row"] for item in read_rejects(path)] == [1, 2, 3]
    assert [item["row"] for item in read_rejects(path, length=length)] == [1]
    with JsonLines.open_at(path, length) as rejects:
        assert rejects.append([make_reject(2) | {"payload": "\ud800"}]) == path.stat().st_size
    assert [(item["row"], item["payload"]) for item in read_rejects(path)] == [(1, {"text": ""}), (2, "\ufffd")]


def test_a_reject_that_is_not_json_is_kept_without_its_item(journal: Journal) -> None:
    """If an item is nested too deeply or holds NaN, its row is named, and the other rejects are whole."""
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    with JsonLines.open_at(journal.files("t").rejects, 0) as rejects:
        rejects.append([make_reject(1) | {"payload": deep}, make_reject(2) | {"payload": float("nan")}, make_reject(3)])
    kept = list(read_rejects(journal.files("t").rejects))
    assert [(item["row"], item["payload"]) for item in kept] == [(1, None), (2, None), (3, {"text": ""})]
    assert kept[0]["detail"].startswith("payload.text is empty (item left out: maximum recursion")


def test_lost_rejects_are_not_filled_up_with_zeros(journal: Journal) -> None:
    """A file that is shorter than its checkpoint is not filled with zeros, and no file is created without rejects."""
    path = journal.files("t").rejects
    with JsonLines.open_at(path, 1_000) as rejects:
        assert rejects.append([]) == 0
    assert not path.exists()
    assert list(read_rejects(path)) == []
    for count in (1, 2):
        with JsonLines.open_at(path, 1_000) as rejects:
            assert rejects.append([make_reject(1)]) == path.stat().st_size
        assert len(list(read_rejects(path))) == count
