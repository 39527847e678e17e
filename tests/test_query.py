"""`query`: the nearest records by the collection's own model, even during a load, without writing anything."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.other_program import plain_chroma
from tests.support.terminal import Terminal, read_drawn
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.chroma.local import LocalFolder
from upsert_cli.store.folder import LEASE_NAME

HOSTILE = "\x1b[31mred\x1b]52;c;aGk=\x07 two\nlines [bold]and\tmore[/bold] "


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal with a collection of 40 records, one of them with a hostile document."""
    variables = {f"UPSERT_CLI_{name}_MODEL_PATH": str(tiny_model) for name in ("RUN", "QUERY", "VERIFY")}
    terminal = Terminal(tmp_path_factory.mktemp("loaded"), variables)
    hostile = {"object_id": "evil\x1b[2J", "payload": {"text": HOSTILE + "and on " * 60, "number": 1000}}
    terminal.write("a.jsonl", [*(_item(number) for number in range(39)), hostile])
    terminal.type("upsert-cli run a.jsonl --task-id load")
    return terminal


def _item(number: int, *, mark: str = "first") -> dict[str, Any]:
    payload = {"text": f"{mark} text {number} " + "and more of it " * (number % 17), "number": number}
    return {"object_id": f"{mark}-{number:05d}", "payload": payload}


def _hits(terminal: Terminal, line: str) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = json.loads(terminal.type(f"{line} --json").stdout)["hits"]
    return hits


def test_each_text_finds_its_own_record(loaded: Terminal) -> None:
    """An item's text finds it first, at no distance, with document and metadata; a filter leaves others out."""
    item = _item(7)
    text = item["payload"]["text"]
    done = json.loads(loaded.type(f"upsert-cli query '{text}' -n 3 --json").stdout)
    assert (done["collection"], done["records"], done["text"]) == ("default", 40, text)
    assert done["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    hits = done["hits"]
    assert len(hits) == 3
    assert (hits[0]["id"], hits[0]["document"]) == (item["object_id"], text)
    assert hits[0]["metadata"]["number"] == 7
    assert hits[0]["distance"] == pytest.approx(0.0, abs=1e-5)
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    others = _hits(loaded, f"upsert-cli query '{text}' --where '{{\"number\": {{\"$gt\": 36}}}}'")
    assert {hit["id"] for hit in others} == {"first-00037", "first-00038", "evil\x1b[2J"}
    nothing = loaded.type(f"upsert-cli query '{text}' --where '{{\"number\": -1}}'")
    assert nothing.stdout == "ID\tDISTANCE\tDOCUMENT\n"
    assert "none of the 40 records" in nothing.stderr


def test_the_table_is_whole_in_a_pipe_and_short_on_a_terminal(loaded: Terminal) -> None:
    """Markup and escapes in a document are shown as text, and only a terminal shortens documents."""
    line = "upsert-cli query 'red two lines' -n 40"
    piped = loaded.type(line).stdout
    rows = [row.split("\t") for row in piped.splitlines()]
    assert rows[0] == ["ID", "DISTANCE", "DOCUMENT"]
    assert len(rows) == 41
    assert {len(row) for row in rows} == {3}
    [evil] = [row for row in rows if row[0].startswith("evil")]
    assert evil[2].endswith("and on " * 60)
    assert "[bold]" in evil[2]
    main, end = pty.openpty()
    process = loaded.start(line, stdout=end)
    os.close(end)
    drawn = read_drawn(main).decode()
    assert process.wait(60) == 0
    assert drawn.count("and on ") < 60
    assert "…" in drawn
    for shown in (piped, drawn):
        assert "\x1b[31m" not in shown
        assert "\x1b]52" not in shown
        assert "\\x1b[31mred" in shown


def test_a_load_is_not_disturbed(loaded: Terminal) -> None:
    """While a load has the folder, a query answers; it takes no lease, and the load ends well."""
    with Lease.take(loaded.folder / "chroma" / LEASE_NAME, Holder.this_process("other")):
        assert _hits(loaded, "upsert-cli query 'first text 3'")
    loaded.write("b.jsonl", (_item(number, mark="second") for number in range(600)))
    process = loaded.start("upsert-cli run b.jsonl --task-id t --batch-size 16")
    loaded.wait_for_rows("t")
    os.kill(process.pid, signal.SIGSTOP)  # its writer has the folder open, with rows that are not in the index files
    try:
        assert loaded.info("t")["running"]
        assert _hits(loaded, "upsert-cli query 'second text 3'")
    finally:
        os.kill(process.pid, signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    found = json.loads(loaded.type("upsert-cli verify t --json", expect=None).stdout)
    wrong = {kind: found[kind]["count"] for kind in ("missing", "unreadable", "different")}
    assert wrong == {"missing": 0, "unreadable": 0, "different": 0}
    assert found["records"] == 640


def test_a_collection_that_reading_would_flush_is_read_alone(terminal: Terminal) -> None:
    """Where Chroma would write the index files for a reader, the query takes the lease, or is refused."""
    make = (
        "import numpy as np\n"
        "c = client.create_collection('default', configuration={'hnsw': {'sync_threshold': 1000}})\n"
        "vectors = np.random.default_rng(0).standard_normal((50, 384)).astype('f4')\n"
        "c.add(ids=[str(n) for n in range(50)], embeddings=vectors, documents=['text'] * 50)\n"
    )
    plain_chroma(terminal, make)
    folder = terminal.folder / "chroma"
    location = LocalFolder(path=folder, collection="default")
    assert not location.reading_flushes()
    plain_chroma(terminal, "client.get_collection('default').modify(configuration={'hnsw': {'sync_threshold': 40}})\n")
    assert location.reading_flushes()
    with Lease.take(folder / LEASE_NAME, Holder.this_process("other")):
        assert "is in use by" in terminal.type("upsert-cli query text", expect=4).stderr
    assert len(_hits(terminal, "upsert-cli query text")) == 5


ERRORS = [
    ("upsert-cli query text --collection nix", 1, "there is no collection nix"),
    ("upsert-cli query text --chroma nowhere", 1, "nowhere; no Chroma is in that folder"),
    ("upsert-cli query '  '", 2, "give some words"),
    ("upsert-cli query text --where '{'", 2, "is not JSON"),
    ("upsert-cli query text --where '[1]'", 2, "is not a JSON object"),
    ('upsert-cli query text --where \'{"a": {"$near": 1}}\'', 2, "$near"),
    ("upsert-cli query text -n 0", 2, "'-n'"),
    ("upsert-cli query text --collection empty", 1, "holds no record; `upsert-cli run` loads into it"),
    ("upsert-cli query text --collection short", 4, "does not say which model made its vectors"),
    ("upsert-cli query text --collection silent", 4, "does not say which model"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error[2])
def test_errors_say_what_to_do(odd_folder: Path, tiny: Terminal, error: tuple[str, int, str]) -> None:
    """A query that cannot be answered is one line with the reason, and makes nothing."""
    line, code, says = error
    target = "" if "--chroma" in line else f" --chroma {odd_folder}"
    done = tiny.type(line + target, expect=code)
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    assert says in said
    assert not (tiny.folder / "nowhere").exists()


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another program's Chroma folder: an empty collection, one of another dimension, one without a function."""
    folder = tmp_path_factory.mktemp("odd")
    code = (
        "client.create_collection('empty')\nclient.create_collection('default').add(ids=['a'], embeddings=[[1.0] * 384])\n"
        "client.create_collection('short').add(ids=['a'], embeddings=[[1.0, 2.0, 3.0]])\n"
        "client.create_collection('silent', embedding_function=None).add(ids=['a'], embeddings=[[1.0] * 384])\n"
    )
    plain_chroma(Terminal(folder), code)
    return folder / "chroma"
