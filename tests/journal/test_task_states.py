"""A task as data: the moves between states, the record in the journal, the JSON on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.journal_tasks import MOMENT, make_reject, make_task
from upsert_cli.counts import MAX_FIELDS, OTHER_FIELDS, Converted, Counts
from upsert_cli.journal.layout import new_task_id, valid_task_id
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.rejects import FAILED_ITEMS, FAILED_ITEMS_CHARS
from upsert_cli.journal.task import MOVES, Task, TaskStatus

FINAL = {TaskStatus.DONE, TaskStatus.CANCELED, TaskStatus.FAILED, TaskStatus.REFUSED}
ALLOWED = {
    *product([TaskStatus.PENDING], set(TaskStatus) - {TaskStatus.DONE}),
    *product([TaskStatus.PROCESSING], TaskStatus),
    *product(FINAL, [TaskStatus.PENDING]),
}

# With the halves of characters by which Python spells bytes that are not UTF-8, as in names of files.
texts = st.text(st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF), max_size=20)
counts = st.builds(Counts, **{name: st.integers(0, 10**12) for name in Counts().as_json()})
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def test_statuses_are_those_of_the_api() -> None:
    """The six states have exactly the names of the contract, and four of them are final."""
    assert {str(status) for status in TaskStatus} == {"pending", "processing", "done", "canceled", "failed", "refused"}
    assert {status for status in TaskStatus if status.is_final} == FINAL


def test_a_record_keeps_the_options_of_its_version() -> None:
    """Options that this version does not know stay in the record and in the JSON output; missing ones stay missing."""
    kept = {"of a newer version": [1], "text_fields": ["title"], "threads": None}
    record = make_task().as_record() | {"options": dict(kept)}
    task = Task.from_record(record)
    assert task.options == LoadOptions(text_fields=("title",))
    assert list(task.as_record()["options"].items()) == list(kept.items())
    assert list(task.as_json()["options"].items()) == list(kept.items())
    limited = replace(task.options, max_failures="5")
    assert limited.as_json() == kept | {"max_failures": "5"}


@pytest.mark.parametrize(("now", "to"), list(product(TaskStatus, TaskStatus)))
def test_only_allowed_moves_are_made(now: TaskStatus, to: TaskStatus) -> None:
    """A move that is not in the table raises; one that is sets the times that follow from it."""
    task = make_task(status=now, cancel_requested=True)
    assert (to in MOVES[now]) == ((now, to) in ALLOWED)
    if (now, to) not in ALLOWED:
        with pytest.raises(ValueError, match=" -> "):
            task.moved(to)
        return
    moved = task.moved(to)
    assert moved.status is to
    assert (moved.finished_at is not None) == to.is_final
    assert moved.cancel_requested == (now is to)


def test_an_attempt_that_did_not_begin_yet_took_no_time() -> None:
    """A task that a signal returned to the queue was loaded by the attempts before, and by none after a full reload."""
    stopped = make_task().moved(TaskStatus.PROCESSING, started_at=MOMENT).moved(TaskStatus.PENDING, load_seconds=4.0)
    assert (stopped.attempt, stopped.load_attempts) == (2, 1)
    assert stopped.moved(TaskStatus.PROCESSING, started_at=MOMENT).load_attempts == 2
    assert replace(stopped, first_attempt=2).load_attempts == 0


@given(first=counts, second=counts)
def test_counts_add_up(first: Counts, second: Counts) -> None:
    """Counts are added name by name, and survive the journal."""
    total = (first + second).as_json()
    assert total == {name: value + second.as_json()[name] for name, value in first.as_json().items()}
    assert Counts.from_json(first.as_json() | {"of a newer version": 1}) == first


fields = st.tuples(texts.filter(bool), st.sampled_from(["2024-01-01", "[1]", "{}"]))
converted = st.lists(fields, max_size=2 * MAX_FIELDS).map(Converted.of)


@given(first=converted, second=converted)
def test_converted_values_add_up(first: Converted, second: Converted) -> None:
    """Values are counted by field in the order of the fields, a record stays small, and the journal keeps them."""
    total = first + second
    assert total.values == first.values + second.values
    assert total.plain == first.plain + second.plain
    assert list(total.by_field)[: len(first.by_field)] == list(first.by_field)
    assert len(total.by_field) <= MAX_FIELDS + 1
    assert Converted.from_json(json.loads(json.dumps(total.as_json()))) == total


def test_converted_values_of_long_or_many_fields_are_counted_together() -> None:
    """Any number of fields, with names of any length, takes a bounded part of a record."""
    names = [f"field {number}" for number in range(MAX_FIELDS)]
    counted = Converted.of((name, "[]") for name in ["k" * 1_000, *names, *names, "one more"])
    assert counted.by_field == {OTHER_FIELDS: 4} | dict.fromkeys(names[:-1], 2)
    assert Converted.from_json({"converted": 7}) == Converted({OTHER_FIELDS: 7})
    assert Converted.from_json({}) == Converted()


def test_counts_reconcile_when_every_row_ended_once() -> None:
    """`read` equals inserted, updated, unchanged, duplicate and failed together; deleted and truncated do not count."""
    good = Counts(read=15, inserted=1, updated=2, unchanged=3, duplicate=4, failed=5, deleted=6, truncated=7)
    assert good.reconciles()
    assert not any(replace(good, **{name: 100}).reconciles() for name in ("read", "inserted", "updated", "failed"))


tasks = st.builds(
    make_task,
    status=st.sampled_from(TaskStatus),
    detail=st.none() | texts,
    counts=counts,
    converted=converted,
    load_seconds=st.floats(0, 1e9),
    total=st.none() | st.integers(0),
    options=st.dictionaries(texts, plain, max_size=3).map(LoadOptions.from_json),
    inputs=st.lists(st.dictionaries(texts, plain, max_size=3), max_size=2).map(tuple),
    sources=st.lists(texts, max_size=2).map(tuple),
    failed_items=plain.map(lambda payload: (make_reject(1) | {"payload": payload},)),
)


@given(task=tasks)
def test_records_survive_json(task: Task) -> None:
    """A record comes back equal, except that detail and failed items become valid Unicode."""
    back = Task.from_record(json.loads(json.dumps(task.as_record() | {"of a newer version": 1})))
    assert replace(back, detail=None, failed_items=()) == replace(task, detail=None, failed_items=())
    assert back.options.as_json() == task.options.as_json()
    json.dumps([back.detail, back.failed_items], ensure_ascii=False).encode()
    json.dumps(task.as_json(), ensure_ascii=False).encode()


def test_who_runs_a_task_is_not_recorded() -> None:
    """The lease shows whether a process runs a task, so the record does not."""
    assert make_task(running=True).as_record() == make_task().as_record()
    assert not Task.from_record(make_task(running=True).as_record()).running


def test_json_has_the_shape_of_the_contract() -> None:
    """The keys are in the order of the contract, with this tool's additions at the end."""
    shown = make_task(rows=7, total=9, attempt=2, running=True, options=LoadOptions(force=True)).as_json()
    assert ",".join(shown) == (
        "id,status,created_at,updated_at,started_at,finished_at,failed_items,detail,kind,collection,chroma,model,"
        "sources,attempt,running,stopped_by,progress,counts,converted,seconds,queued,attempts,options"
    )
    assert ",".join(shown["counts"]) == "read,inserted,updated,unchanged,duplicate,failed,deleted,truncated"
    assert shown["progress"] == {"rows": 7, "total": 9}
    assert (shown["status"], shown["running"], shown["attempt"]) == ("pending", True, 2)
    assert shown["sources"] == ["/data/a.jsonl"]


def test_a_record_of_an_older_version_is_read() -> None:
    """A record without the fields of later versions is read."""
    old = make_task(status=TaskStatus.FAILED).as_record()
    for later in ("stopped_by", "converted_fields", "load_seconds"):
        del old[later]
    assert Task.from_record(old) == make_task(status=TaskStatus.FAILED)


@pytest.mark.parametrize(
    "record", [{}, {"id": "t"}, make_task().as_record() | {"status": "lost"}, make_task().as_record() | {"counts": 3}]
)
def test_an_invalid_record_is_not_read_as_a_task(record: dict[str, Any]) -> None:
    """A record with missing fields or an unknown state raises rather than being guessed at."""
    with pytest.raises(ValueError, match=r"not a task|is not a valid"):
        Task.from_record(record)


@given(size=st.integers(0, 3 * FAILED_ITEMS_CHARS), count=st.integers(0, 3 * FAILED_ITEMS))
def test_failed_items_in_a_record_are_bounded(size: int, count: int) -> None:
    """A record holds the first 20 rejects within its limit; those that are too long lose payload, not identity."""
    items = tuple(make_reject(number) | {"payload": {"text": "x" * size}} for number in range(count))
    kept = make_task(failed_items=items).as_record()["failed_items"]
    assert [item["row"] for item in kept] == list(range(min(count, FAILED_ITEMS)))
    assert len(json.dumps(kept)) < 2 * FAILED_ITEMS_CHARS
    assert all(item["payload"] == {"text": "x" * size} or "cut" in item for item in kept)


def test_ids_sort_by_time_and_are_valid() -> None:
    """A new id has its second in UTC and a random end, and can be a file name."""
    moment = datetime(2026, 11, 23, 22, 3, 12, tzinfo=UTC) + timedelta(0)
    ids = {new_task_id(moment) for _ in range(50)}
    assert len(ids) > 45
    assert all(each.startswith("20261123-220312-") and valid_task_id(each) for each in ids)
    assert new_task_id() > max(ids) or datetime.now(UTC) < moment


@pytest.mark.parametrize("text", ["a", "A.b-c_9", "0" * 128, "nightly.2026-11-23"])
def test_valid_ids(text: str) -> None:
    """Ids are letters, digits, dots, hyphens and underscores, up to 128 of them."""
    assert valid_task_id(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "_a", "a/b", "../a", "a b", "a\n", "ä", "0" * 129, "a\0", "\ud800"])
def test_invalid_ids(text: str) -> None:
    """An id is never hidden, never needs escaping, and can always be a file name."""
    assert not valid_task_id(text)
