"""Reads a collection back with its vectors, and compares it with a task's sources.

Memory grows with the rows that are wrong, never with those that are right: the sources are compared batch by batch,
and an id is remembered only from its first row that differs on, since a later row of the same id may set it right.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from upsert_cli.errors import SOME_REJECTED, TargetDamaged
from upsert_cli.pipeline.compare import compared, present_chunks
from upsert_cli.store.base import Verdict
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import Subject

BLOCK_ROWS = 1_000  # records read back at once: 1.5 MB of vectors with 384 numbers
SAMPLE_ROWS = 200  # records that have to find themselves; each costs about a millisecond
MAX_UNREADABLE = 1_000  # records; with more of them it is the index that is lost
EXAMPLES = 10  # ids of each kind in a report

Report = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is wrong with a collection, each id with one line of reason."""

    records: int = 0
    """Records in the collection, all of which were read."""

    rows: int | None = None
    """Rows of the task's sources; None without a task."""

    asked: int = 0
    """Records that were looked for by a query."""

    missing: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    different: dict[str, str] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)

    stale: dict[str, str] = field(default_factory=dict)
    """Records of an item that it has no longer: parts, or a whole that is split now."""

    @property
    def kinds(self) -> dict[str, dict[str, str]]:
        """The rows that are wrong, by kind."""
        return {
            "missing": self.missing,
            "unreadable": self.unreadable,
            "different": self.different,
            "unreachable": self.unreachable,
            "stale": self.stale,
        }

    @property
    def wrong(self) -> frozenset[str]:
        """The ids of all rows that are wrong."""
        return frozenset(itertools.chain.from_iterable(self.kinds.values()))

    @property
    def index_is_lost(self) -> bool:
        """Whether so much of the index is gone that it is better made anew."""
        return 2 * len(self.unreadable) > self.records or 2 * len(self.unreachable) > self.asked

    def examples(self) -> Iterator[tuple[str, str, str]]:
        """Yields the first few rows of each kind: kind, id, reason."""
        for kind, rows in self.kinds.items():
            yield from ((kind, one, reason) for one, reason in itertools.islice(rows.items(), EXAMPLES))

    def as_json(self) -> dict[str, Any]:
        """Returns counts and first ids."""
        return {"records": self.records, "rows": self.rows, "asked": self.asked} | {
            kind: {"count": len(rows), "first": [{"id": one, "detail": rows[one]} for one in list(rows)[:EXAMPLES]]}
            for kind, rows in self.kinds.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What was done to mend a collection."""

    damage: str | None
    """Why it could not be read at all before, if so."""

    before: Findings | None
    """What was wrong with its rows; None if it could not be read."""

    removed: tuple[str, ...]
    """Ids of the rows that blocked Chroma's queue and were taken out of it; none of them was ever stored."""

    aside: tuple[str, ...]
    """New names of the folders of a damaged index."""

    written: int
    """Records embedded and written again."""

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {
            "damage": self.damage,
            "before": None if self.before is None else self.before.as_json(),
            "removed": list(self.removed),
            "aside": list(self.aside),
            "written": self.written,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What came of a verification."""

    subject: Subject

    found: Findings
    """How it is now, after a repair if there was one."""

    repaired: Repaired | None = None

    @property
    def exit_code(self) -> int:
        """0 where all is well, else 3."""
        return SOME_REJECTED if self.found.wrong else 0

    def summary(self) -> str:
        """Returns one line for people."""
        target, found = self.subject.target, self.found
        counts = ", ".join(f"{len(rows):,} {kind}" for kind, rows in found.kinds.items())
        sources = f", {found.rows:,} rows of the sources compared" if found.rows is not None else ""
        return f"verified {target.collection} in {target.path}: {found.records:,} records read back{sources}; {counts}"

    def repair_command(self) -> str:
        """Return the command that corrects what was found."""
        if self.subject.is_unfinished:
            return f"upsert-cli restart {self.subject.task_id}"
        if self.subject.task_id is not None:
            return f"upsert-cli verify --repair {self.subject.task_id}"
        target = self.subject.target
        place = f"--collection {shlex.quote(target.collection)} --chroma {shlex.quote(target.path)}"
        return f"upsert-cli verify --repair {place}"

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        target = self.subject.target
        return {
            "ok": not self.found.wrong,
            "task": self.subject.task_id,
            "collection": target.collection,
            "chroma": target.path,
            "model": target.model or None,
            **self.found.as_json(),
            "repaired": None if self.repaired is None else self.repaired.as_json(),
        }


def verify(subject: Subject, *, report: Report) -> Verification:
    """Reads a collection back, and changes nothing; see `examine`."""
    return Verification(subject=subject, found=examine(subject, report=report))


def examine(subject: Subject, *, report: Report, ask_all: bool = False) -> Findings:
    """Reads every record with its vector, and compares the sources, if there are any, with what is stored.

    Args:
        subject: What to read, and what to compare it with.
        report: Told of each step that may take long.
        ask_all: Whether every record has to find itself, not just a sample.

    Raises:
        TargetDamaged: The index cannot be read, or reading it ends the process.
        TargetInUse: Another upsert-cli has the folder.
    """
    found = Findings()
    with opened(subject, report=report, reads_only=True) as writer:
        every = 1 if ask_all else max(1, -(-writer.opened().count // SAMPLE_ROWS))
        if subject.sources:
            report("comparing the sources with the collection")
            _compare_sources(subject, writer, found)
        report("reading the records back with their vectors")
        _read_back(subject, writer, found, every=every)
    # Each row is named once, with what is the matter most.
    for one in found.unreadable:
        found.different.pop(one, None)
    return found


@contextmanager
def opened(subject: Subject, *, report: Report, reads_only: bool = False) -> Iterator[StoreProcess]:
    """Opens the collection in the writer's process, as it is, and closes it in the end."""
    target = replace(subject.target, reads_only=reads_only)
    with StoreProcess.start(target, task_id=subject.task_id, told=report) as writer:
        yield writer
        writer.close()


def _compare_sources(subject: Subject, writer: StoreProcess, found: Findings) -> None:
    wrong: dict[str, set[str]] = {}  # by item, since a later row of the same item may set all of it right
    found.rows = 0
    for batch in subject.batches():
        found.rows += batch.read
        comparison = compared(batch.documents, writer)
        for document in batch.documents:
            if document.is_first_chunk:
                for one in wrong.pop(document.item.object_id, ()):
                    for rows in (found.missing, found.different, found.stale):
                        rows.pop(one, None)
        for document, verdict in zip(batch.documents, comparison.verdicts, strict=True):
            where = f"{document.item.source}:{document.item.row}"
            if verdict is Verdict.NEW:
                found.missing[document.id] = f"{where} is not in the collection"
            elif verdict is not Verdict.UNCHANGED:
                part = _DIFFERENCES.get(verdict, "metadata")
                found.different[document.id] = f"{where} has another {part}"
            if verdict is not Verdict.UNCHANGED:
                wrong.setdefault(document.item.object_id, set()).add(document.id)
        leftovers = writer.find_stale_chunks(present_chunks(batch.documents), average=subject.options.average)
        for object_id, members in leftovers.items():
            ids = [member.id for member in members]
            wrong.setdefault(object_id, set()).update(ids)
            found.stale |= dict.fromkeys(ids, f"the item {object_id} has it no longer")


_DIFFERENCES = {Verdict.TEXT: "text", Verdict.TAKEN: "item's record under its id"}


def _read_back(subject: Subject, writer: StoreProcess, found: Findings, *, every: int) -> None:
    while True:
        block = writer.check(start=found.records, rows=BLOCK_ROWS, every=every, identity=subject.identity)
        if not block.rows:
            return
        found.records += block.rows
        found.asked += block.asked
        found.unreadable |= block.unreadable
        found.different |= block.different
        found.unreachable |= block.unreachable
        if len(found.unreadable) > MAX_UNREADABLE:
            detail = f"{len(found.unreadable)} of the first {found.records} records cannot be read with their vectors"
            raise TargetDamaged(path=subject.target.path, collection=subject.target.collection, detail=detail)
