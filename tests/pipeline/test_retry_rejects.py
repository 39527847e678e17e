"""Retries of rejected rows: the last good row of an id wins in any attempt, even if one is interrupted."""

from __future__ import annotations

import json
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.reading import fuzz, sources_of, write_lines
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import UpsertCliError
from upsert_cli.pipeline.batches import Pace, read_batches
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.retry_rejects import superseded_by_later_rows
from upsert_cli.sources.item import START, Item, Position
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

ATTEMPTS = 4
NEVER = ATTEMPTS


@dataclass
class Load:
    """Attempts at one task, with a dictionary in place of the collection."""

    sources: list[Source]
    collection: dict[str, tuple[str, int]] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def attempt(self, number: int, *, batches: int | None) -> None:
        """Read the rest of the task; after that number of batches it is killed and continues at its checkpoint."""
        before, self.rejected = self.rejected, []
        start, done = START, 0
        while (killed := self._part(number, before, start, done, batches=batches)) is not None:
            start, done = killed if number == 0 else (START, killed[1])
            batches = None

    def _part(
        self, number: int, before: list[dict[str, Any]], start: Position, done: int, *, batches: int | None
    ) -> tuple[Position, int] | None:
        stream = read_batches(
            Rows(
                sources=self.sources,
                start=start,
                only=None if number == 0 else [(each["source"], each["row"]) for each in before[done:]],
            ),
            recipe=Recipe(text_fields=(f"t{number}",), identity="test"),
            pace=Pace(3),
            superseded=None if number == 0 else _superseding(self.sources, before),
        )
        for place, batch in enumerate(stream):
            if place == batches:
                return start, done
            assert batch.read == len(batch.documents) + len(batch.rejects) + batch.duplicate
            self.collection |= {one.id: (one.item.source, one.item.row) for one in batch.documents}
            self.rejected += [reject.as_json() for reject in batch.rejects]
            start, done = batch.after, done + batch.read
        assert number == 0 or done == len(before)
        return None


def _superseding(sources: list[Source], rejected: list[dict[str, Any]]) -> Any:
    return superseded_by_later_rows(Rows(sources=sources), rejected=lambda: rejected, stopping=threading.Event())


def _line(identifier: str, good_from: int) -> bytes:
    texts = {f"t{number}": "text" for number in range(good_from, ATTEMPTS)}
    return json.dumps({"object_id": identifier, "payload": texts}).encode() if identifier else b"broken"


rows = st.tuples(st.sampled_from(["a", "b", "c", ""]), st.integers(0, NEVER))


@fuzz(
    files=st.lists(st.lists(rows, max_size=12), min_size=1, max_size=3),
    kills=st.lists(st.none() | st.integers(0, 3), min_size=ATTEMPTS, max_size=ATTEMPTS),
    attempts=st.integers(1, ATTEMPTS),
)
def test_the_last_good_row_of_each_id_wins(
    files: list[list[tuple[str, int]]], kills: list[int | None], attempts: int
) -> None:
    """After any retries, killed anywhere, the collection equals reading the good rows in order."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_lines(Path(folder) / f"{number}.jsonl", *(_line(*row) for row in file))
            for number, file in enumerate(files)
        ]
        load = Load(sources_of(*paths))
        for number, batches in zip(range(attempts), kills, strict=False):
            load.attempt(number, batches=batches)
        names = [source.name for source in load.sources]
    numbered = [(names[n], row, *item) for n, file in enumerate(files) for row, item in enumerate(file, 1)]
    good = [row for row in numbered if row[2] and row[3] < attempts]
    assert load.collection == {identifier: (name, row) for name, row, identifier, _ in good}
    assert [(each["source"], each["row"]) for each in load.rejected] == [row[:2] for row in numbered if row not in good]


@pytest.fixture
def many(tmp_path: Path) -> tuple[list[Source], list[dict[str, Any]]]:
    """Returns a file of more rows than a block in which each second row was rejected, and these rows."""
    ids = [f"i{number % 900}" for number in range(3_000)]
    sources = sources_of(write_lines(tmp_path / "a.jsonl", *(_line(each, 0) for each in ids)))
    return sources, [
        {"source": sources[0].name, "row": row, "object_id": each} for row, each in enumerate(ids, 1) if row % 2
    ]


def _item(source: Source, identifier: str, row: int) -> Item:
    return Item(identifier, None, None, source.name, row)


def test_a_row_is_compared_with_the_last_one_that_is_not_retried(many: tuple[list[Source], Any]) -> None:
    """The comparison works across blocks and with any ids that were not asked for."""
    (source,), rejected = many
    for each, odd in zip(rejected, (None, {"no": "id"}, "\ud800"), strict=False):
        each["object_id"] = odd
    with _superseding([source], rejected) as is_superseded:
        assert is_superseded(_item(source, "i4", 5)) is False  # its later rows are retried as well
        assert is_superseded(_item(source, "i1", 1)) is False  # only even rows have this id, none of them is retried
        assert is_superseded(_item(source, "nobody's", 1)) is False
    others = [each for each in rejected if each["row"] < 2_000]
    with _superseding([source], others) as is_superseded:
        assert is_superseded(_item(source, "i4", 5)) is True
        assert is_superseded(_item(source, "i4", 2_704)) is True
        assert is_superseded(_item(source, "i4", 2_705)) is False


def test_sources_are_read_only_where_that_can_matter(many: tuple[list[Source], Any]) -> None:
    """Without an id among the rejected rows nothing is opened, not even a file that is gone."""
    (source,), rejected = many
    Path(str(source.path)).unlink()
    with _superseding([source], [each | {"object_id": None} for each in rejected]) as is_superseded:
        assert is_superseded(_item(source, "i4", 5)) is False


def test_the_pass_can_be_ended(many: tuple[list[Source], Any]) -> None:
    """A request to stop is noticed after each block of rows, including retried ones."""
    sources, rejected = many
    ending = threading.Event()

    def asked() -> Iterator[dict[str, Any]]:
        yield from rejected
        ending.set()

    with (
        pytest.raises(StageStopped),
        superseded_by_later_rows(Rows(sources=sources), rejected=asked, stopping=ending),
    ):
        raise AssertionError("it was not ended")


def test_no_room_for_the_ids(many: tuple[list[Source], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder is an error of one line that says what to do."""

    def small(path: str, **options: Any) -> sqlite3.Connection:
        database = connect(path, **options)
        database.execute("PRAGMA max_page_count = 3")
        return database

    connect: Callable[..., sqlite3.Connection] = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(UpsertCliError, match=r"database or disk is full.*TMPDIR"), _superseding(*many):
        raise AssertionError("there was room")
