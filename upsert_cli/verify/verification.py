"""Reads a collection back with its vectors, and compares it with the sources of a task.

Memory grows only with the number of wrong rows: the sources are compared batch by batch, and an id is kept from its
first row that differs, since a later row of the id may correct it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from upsert_cli.context import RunContext
from upsert_cli.errors import SOME_REJECTED, TargetDamaged, repair_command
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.compare import compare_documents, present_chunks
from upsert_cli.store.base import Verdict
from upsert_cli.store.process import StoreProcess, open_as_found
from upsert_cli.verify.expected import expected_batches
from upsert_cli.verify.subject import Subject, other_load, repair_by_task

BLOCK_ROWS = 1_000  # records read back at once: 1.5 MB of vectors with 384 numbers
SAMPLE_ROWS = 200  # records that a query has to find; each costs about a millisecond
MAX_UNREADABLE = 1_000  # records; with more the index itself is lost
EXAMPLES = 10  # ids of each kind in a report

KINDS = ("missing", "unreadable", "different", "unreachable", "stale")
"""The kinds of wrong rows, in the order of a report."""

_DIFFERENCES = {
    Verdict.TEXT: "has another text",
    Verdict.METADATA: "has other metadata",
    Verdict.TAKEN: "has another item's record under its id",
}


@dataclass(slots=True, kw_only=True)
class Verification:
    """The findings in a collection that was read back: by kind, the ids of wrong rows, each with one line of reason."""

    subject: Subject
    records: int = 0
    """Records that were read, which is all of the collection."""

    rows: int | None = None
    """Rows of the task's sources; None without a task."""

    asked: int = 0
    """Records that a query by their own vector was to find."""

    missing: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    """Records that are no longer part of their item: chunks, or the whole text of an item that is split now."""

    outdated: set[str] = field(default_factory=set)
    """The different records that need only the metadata of their row."""

    repaired: Repaired | None = None
    """The repair before these findings, if there was one."""

    @property
    def kinds(self) -> dict[str, dict[str, str]]:
        """The wrong rows by kind."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @property
    def wrong(self) -> frozenset[str]:
        """The ids of all wrong rows."""
        return frozenset(itertools.chain.from_iterable(self.kinds.values()))

    @property
    def index_is_lost(self) -> bool:
        """Whether the index has lost more than half of its records, so that it has to be rebuilt."""
        return 2 * len(self.unreadable) > self.records or self.queries_fail

    @property
    def queries_fail(self) -> bool:
        """Whether queries miss more than half of the records."""
        return 2 * len(self.unreachable) > self.asked

    @property
    def exit_code(self) -> int:
        """3 if a row is wrong, otherwise 0."""
        return SOME_REJECTED if self.wrong else 0

    def forget(self, identifiers: Iterable[str]) -> None:
        """Remove findings in the sources that a later row of their item replaces."""
        for identifier in identifiers:
            self.outdated.discard(identifier)
            for rows in (self.missing, self.different, self.stale):
                rows.pop(identifier, None)

    def examples(self) -> Iterator[tuple[str, str, str]]:
        """Yield the first few rows of each kind: kind, id, reason."""
        for kind, rows in self.kinds.items():
            for identifier, reason in itertools.islice(rows.items(), EXAMPLES):
                yield kind, identifier, reason

    def summary(self) -> str:
        """Return one line for people."""
        target = self.subject.target
        counts = ", ".join(f"{len(rows):,} {kind}" for kind, rows in self.kinds.items())
        sources = f", {self.rows:,} rows of the sources compared" if self.rows is not None else ""
        return f"verified {target.collection} in {target.path}: {self.records:,} records read back{sources}; {counts}"

    def remedy(self) -> str | None:
        """Return the command that corrects the findings, or None.

        An unfinished task loads the missing rows. After a repair, only the sources of another task can have the rest.
        """
        subject, task = self.subject, self.subject.task
        if self.repaired is not None:
            other = None if task is None else other_load(subject.journal, task)
            return None if other is None else f"upsert-cli verify --repair {other.id}"
        if task is not None:
            return repair_by_task(task)
        if (loaded_by := subject.loaded_by()) is not None:
            return f"upsert-cli verify --repair {loaded_by}"
        return repair_command(subject.target.collection, subject.target.path)

    def found_as_json(self) -> dict[str, Any]:
        """Return the counts and the first ids of each kind."""
        return {"records": self.records, "rows": self.rows, "asked": self.asked} | {
            kind: {
                "count": len(rows),
                "first": [{"id": one, "detail": rows[one]} for one in itertools.islice(rows, EXAMPLES)],
            }
            for kind, rows in self.kinds.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        target = self.subject.target
        return {
            "ok": not self.wrong,
            "task": self.subject.task_id,
            "collection": target.collection,
            "chroma": target.path,
            "model": target.model.name or None,
            **self.found_as_json(),
            "repaired": None if self.repaired is None else self.repaired.as_json(),
        }


@dataclass(slots=True, kw_only=True)
class Repaired:
    """The work of a repair."""

    damage: str | None
    """Why the collection could not be read at all; None if it could."""

    before: Verification | None
    """The findings before the repair; None if the collection could not be read."""

    removed: Sequence[str] = ()
    """The ids of rows that blocked Chroma's queue, were never stored, and were removed from the queue."""

    aside: Sequence[str] = ()
    """The new names of the folders of a damaged index."""

    written: int = 0
    """Records that were embedded and written again."""

    def as_json(self) -> dict[str, Any]:
        """Return the work as plain data."""
        return {
            "damage": self.damage,
            "before": None if self.before is None else self.before.found_as_json(),
            "removed": list(self.removed),
            "aside": list(self.aside),
            "written": self.written,
        }


def verify(subject: Subject, *, context: RunContext) -> Verification:
    """Read a collection back and change nothing; see `examine`."""
    subject.check_given_model()
    return examine(subject, context=context)


def examine(subject: Subject, *, context: RunContext, ask_all: bool = False, gives_up: bool = True) -> Verification:
    """Read every record with its vector, and compare the records with the sources of a task, if there is one.

    Args:
        subject: The collection.
        context: Receives a message before each step that may take long.
        ask_all: Query for every record, not only for a sample.
        gives_up: Give up after `MAX_UNREADABLE` unreadable records.

    Raises:
        TargetDamaged: The index cannot be read, reading ends the process, or too many records are unreadable.
        TargetInUse: Another upsert-cli holds the lease of the folder.
    """
    found = Verification(subject=subject)
    target = replace(subject.target, reads_only=True)
    with open_as_found(target, context=context, task_id=subject.task_id) as store:
        every = 1 if ask_all else max(1, -(-store.opened().count // SAMPLE_ROWS))
        if subject.rows is not None:
            context.info("comparing the sources with the collection")
            found.rows = 0
            wrong: dict[str, set[str]] = {}
            for batch in expected_batches(subject):
                _compare(batch, store, found, wrong)
        context.info("reading the records back with their vectors")
        _read_back(store, found, every=every, gives_up=gives_up)
    for identifier in found.unreadable:  # each row is reported once, with its worst fault
        found.different.pop(identifier, None)
    return found


def _compare(batch: Batch, store: StoreProcess, found: Verification, wrong: dict[str, set[str]]) -> None:
    """Add the differences between the next batch of the sources and the collection to the findings.

    `wrong` has the wrong ids so far, by item. A row of the batch replaces the findings in an earlier row of its item.
    """
    found.rows = (found.rows or 0) + batch.read
    for document in batch.documents:
        if document.is_first_chunk:
            found.forget(wrong.pop(document.item.object_id, ()))
    verdicts = compare_documents(batch.documents, store).verdicts
    for document, verdict in zip(batch.documents, verdicts, strict=True):
        if verdict is Verdict.UNCHANGED:
            continue
        where = f"{document.item.source}:{document.item.row}"
        if verdict is Verdict.NEW:
            found.missing[document.id] = f"{where} is not in the collection"
        else:
            found.different[document.id] = f"{where} {_DIFFERENCES[verdict]}"
            if verdict is Verdict.METADATA:
                found.outdated.add(document.id)
        wrong.setdefault(document.item.object_id, set()).add(document.id)
    stale = store.find_stale_chunks(present_chunks(batch.documents), average=found.subject.options.average)
    for object_id, records in stale.items():
        ids = [record.id for record in records]
        wrong.setdefault(object_id, set()).update(ids)
        found.stale |= dict.fromkeys(ids, f"the item {object_id} no longer has it")


def _read_back(store: StoreProcess, found: Verification, *, every: int, gives_up: bool) -> None:
    """Add the faults of all records to the findings; one of `every` records is queried for."""
    subject = found.subject
    while True:
        block = store.check(start=found.records, rows=BLOCK_ROWS, every=every, identity=subject.identity)
        if not block.rows:
            return
        found.records += block.rows
        found.asked += block.asked
        found.unreadable |= block.unreadable
        found.different |= block.different
        found.unreachable |= block.unreachable
        # These need more than new metadata.
        found.outdated -= block.unreadable.keys() | block.different.keys() | block.unreachable.keys()
        if gives_up and len(found.unreadable) > MAX_UNREADABLE:
            detail = f"{len(found.unreadable)} of the first {found.records} records cannot be read with their vectors"
            raise TargetDamaged(
                path=subject.target.path, collection=subject.target.collection, detail=detail, lacks_vectors=True
            )
