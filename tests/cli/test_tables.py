"""Tables: on a terminal aligned, with whole ids and numbers at any width; in a pipe whole and tab-separated."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.journal.conftest import start
from tests.support.journal_tasks import make_checkpoint, make_task
from tests.support.other_program import plain_chroma
from tests.support.screens import shown
from tests.support.terminal import Terminal
from upsert_cli.cli.display.tables import Column, table_lines
from upsert_cli.counts import Counts
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

WIDTHS = (80, 100, 120, 200)
COLUMNS = (
    Column(title="ID"),
    Column(title="CREATED", order=1, widths=(11, 5)),
    Column(title="ROWS", number=True),
    Column(title="COLLECTION", order=2, widths=(10, 6)),
    Column(title="SOURCES", order=3, widths=(12, 8), keep="end"),
)
ROW = ("20261128-013333-4a88", "2026-11-28T01:33:33Z", "3000", "articles-production", "/home/ann/data/articles.jsonl")
LONG_ID = "k" * 76

_TEXTS = st.text("aé漢字[b]/ -.1", max_size=90)


def _lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    return [line.plain for line in table_lines(columns, rows, width=width)]


@pytest.mark.parametrize(
    ("width", "cells"),
    [
        (100, ROW),
        (97, (ROW[0], "2026-11-28T01:33…", "3000", ROW[3], ROW[4])),
        (91, (ROW[0], "2026-11-28…", "3000", ROW[3], ROW[4])),
        (86, (ROW[0], "2026-11-28…", "3000", "articles-prod…", ROW[4])),
        (80, (ROW[0], "2026-11-28…", "3000", "articles-…", "…me/ann/data/articles.jsonl")),
        (62, (ROW[0], "2026-11…", "3000", "articles-…", "…icles.jsonl")),
        (55, (ROW[0], "2026…", "3000", "artic…", "…icles.jsonl")),
        (51, (ROW[0], "2026…", "3000", "artic…", "…s.jsonl")),
    ],
)
def test_columns_are_shortened_in_their_order(width: int, cells: tuple[str, ...]) -> None:
    """Columns are shortened no more than needed, the first in order first, with a mark."""
    *_, line = _lines(COLUMNS, [ROW], width)
    assert tuple(line.split()) == cells


def test_only_a_row_with_a_longer_id_takes_several_lines() -> None:
    """A whole id that leaves no room for the other cells has a line of its own; the other rows keep theirs."""
    header, first, second, other = _lines(COLUMNS, [(LONG_ID, *ROW[1:]), ROW], 80)
    assert first == LONG_ID
    cells = ["2026-11-28…", "3000", "articles-…", "…icles.jsonl"]
    assert header.split() == ["ID", "CREATED", "ROWS", "COLLECTION", "SOURCES"]
    assert (second.split(), other.split()) == (cells, [ROW[0], *cells])
    assert {line.index("3000") for line in (second, other)} == {header.index("ROWS")}


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(_TEXTS, _TEXTS, st.text("123456789/", max_size=15), _TEXTS, _TEXTS), max_size=5),
    width=st.integers(20, 250),
)
def test_ids_and_numbers_are_whole_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    """At any width, ids and numbers are complete, only they may exceed the width, and markup is text."""
    lines = _lines(COLUMNS, rows, width)
    for row in rows:
        for cell in (row[0], row[2]):
            assert any(cell.strip() in line for line in lines)
    for line in lines:
        assert cell_len(line) <= width or line.strip() in {row[0].strip() for row in rows}, line


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_list_keeps_ids_and_numbers(terminal: Terminal, columns: int) -> None:
    """`list` shows id, status, rows and rejects whole at every width, one task per line; a pipe gets every cell whole."""
    journal = Journal(terminal.journal)
    source = "/home/ann/a folder/a-rather-ordinary-file-name.jsonl"
    common = {"total": 3000, "collection": "articles-production", "sources": (source,)}
    journal.create(make_task("20261128-013333-4a88", **common))
    claim = start(journal, "20261128-013333-4a88")
    claim.save(make_checkpoint(1500))
    done = Counts(read=300_000, inserted=299_000, failed=1_000)
    journal.create(make_task("20261127-235959-zzzz", status=TaskStatus.DONE, rows=300_000, counts=done, **common))
    header, *rows = shown(terminal, "upsert-cli list", columns=columns)
    assert header.split()[:2] == ["ID", "STATUS"]
    assert {line.split()[0] for line in rows} == {"20261128-013333-4a88", "20261127-235959-zzzz"}
    (running,) = [line for line in rows if "4a88" in line]
    (finished,) = [line for line in rows if "zzzz" in line]
    assert re.search(r" processing .* 1500/3000 ", running)
    assert re.search(r" done .* 300000 +1000 ", finished) or " 300000/3000" in finished
    assert all(line.endswith("e.jsonl") for line in rows)
    assert columns == 200 or "…" in running
    piped = [line.split("\t") for line in terminal.type("upsert-cli list").stdout.splitlines()]
    assert {line[-1] for line in piped} == {"SOURCES", source}
    assert {line[-2] for line in piped} == {"COLLECTION", "articles-production"}
    claim.release()


def test_every_table_is_aligned_on_a_terminal_and_whole_in_a_pipe(tiny: Terminal) -> None:
    """Each command with a table fits it into the terminal, and prints the same cells, whole, into a pipe."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    tiny.type("upsert-cli run a.jsonl --task-id nightly-2026-11-28 --collection articles-production -q")
    for command, whole in {
        "list": ("nightly-2026-11-28", "done", "1"),
        "collections": ("articles-production", "nightly-2026-11-28", "384"),
        "models list": ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "384"),
        "prune --older-than 2099-01-01 --dry-run": ("nightly-2026-11-28", "done"),
        "config show": ("run.num-gpus-per-worker", "300.0"),
    }.items():
        line = f"upsert-cli {command}"
        header, *rows = tiny.type(line).stdout.splitlines()
        assert {row.count("\t") for row in rows} == {header.count("\t")}, command
        assert "…" not in "\n".join(rows), command
        for cell in whole:
            assert any(cell in row.split("\t") for row in rows), (command, cell)
        for columns in WIDTHS if command in ("list", "collections") else (80, 120):
            lines = shown(tiny, line, columns=columns)
            assert not any("\t" in one for one in lines), command
            for cell in whole:
                assert any(cell in one.split() for one in lines), (command, columns, cell)


def test_a_query_shows_whole_ids_and_the_documents(tiny: Terminal) -> None:
    """A long id is whole, and the document next to it or below is shortened with a mark; its markup is plain text."""
    text = "hello [red]to[/red]\n\tyou " + "and more " * 40
    tiny.write("k.jsonl", [{"object_id": LONG_ID, "payload": {"text": text}}])
    tiny.type("upsert-cli run k.jsonl -q")
    tiny.env["UPSERT_CLI_QUERY_MODEL_PATH"] = tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]
    for columns in (80, 120):
        lines = shown(tiny, "upsert-cli query hello", columns=columns)
        assert any(LONG_ID in line for line in lines)
        assert "DOCUMENT" in " ".join(lines)
        (document,) = [line for line in lines if "hello [red]to" in line]
        assert document.endswith("…")


def test_damage_is_a_table_with_whole_reasons(terminal: Terminal) -> None:
    """`journal check` never shortens the reason of damage, since it names a remedy."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t", status=TaskStatus.DONE))
    (terminal.journal / "tasks-000000.json").write_bytes(b"damaged")
    piped = terminal.type("upsert-cli journal check", expect=1).stdout.splitlines()
    assert piped[0] == "STATE\tFILE\tREASON"
    state, name, reason = piped[1].split("\t")
    text = "".join(shown(terminal, "upsert-cli journal check", columns=60, expect=1)).replace(" ", "")
    assert state + name in text
    assert reason.replace(" ", "") in text


def test_findings_of_verify_are_a_table(tiny: Terminal) -> None:
    """`verify` lists problems with whole ids, aligned on a terminal and tab-separated in a pipe."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    tiny.type("upsert-cli run a.jsonl -q")
    tiny.write("b.jsonl", [{"object_id": f"{LONG_ID}-{n}", "payload": {"text": "y"}} for n in range(2)])
    tiny.type("upsert-cli run b.jsonl --task-id b -q --collection other")
    plain_chroma(tiny, f"client.get_collection('other').delete(['{LONG_ID}-0', '{LONG_ID}-1'])")
    lines = shown(tiny, "upsert-cli verify b", columns=80, expect=3)
    assert [line for line in lines if line.endswith((f"{LONG_ID}-0", f"{LONG_ID}-1"))]
    piped = tiny.type("upsert-cli verify b", expect=3).stdout.splitlines()
    assert piped[0] == "PROBLEM\tID\tDETAIL"
    assert [line.split("\t")[1] for line in piped[1:]] == [f"{LONG_ID}-0", f"{LONG_ID}-1"]
