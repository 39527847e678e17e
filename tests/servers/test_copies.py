"""Collections of servers as sources, and copies from and to servers."""

from __future__ import annotations

import shutil
from array import array
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.other_program import ROWS, as_written, floats_rounded, some_records, without_hash
from tests.support.proxy import Call, Fault, Proxy
from tests.support.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.sources.item import Item
from upsert_cli.store import record_rows
from upsert_cli.store.collection_source import collection_named

MANY = 2_100  # records; three pages
FEW = 20


def test_vectors_survive_a_move_to_a_server_and_back(
    terminal: Terminal, old_folder: Path, shared_server: ChromaServer
) -> None:
    """Folder, server, folder: ids, documents, metadata and vectors are equal, and no model is looked for."""
    shutil.copytree(old_folder, terminal.folder / "old")
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "none")
    url = shared_server.url
    terminal.type(f"upsert-cli run chroma:old#docs --keep-vectors --chroma {url} --collection moved")
    terminal.type(f"upsert-cli run chroma:{url}#moved --keep-vectors --collection docs --verify")
    terminal.type("upsert-cli run chroma:old#docs --keep-vectors --collection docs --offline")
    assert "300 unchanged" in terminal.type("upsert-cli info latest").stdout
    records = some_records(ROWS)
    for stored in (shared_server.records("moved"), terminal.records("docs", vectors=True)):
        assert floats_rounded(without_hash(stored)) == floats_rounded(as_written(records))
        for record in records:
            assert np.array_equal(np.float32(stored[record["id"]]["vector"]), np.float32(record["vector"]))


def test_a_source_that_restarts_is_waited_for(terminal: Terminal, server: ChromaServer) -> None:
    """The source's server goes down in the middle and comes back: nothing is lost, and nothing is read twice."""
    _fill(server)
    line = f"upsert-cli run chroma:{server.url}#docs --keep-vectors --collection docs --task-id copy --batch-size 64"
    with terminal.start(line) as process:
        terminal.wait_for_rows("copy")
        server.kill()
        server.start()
        assert process.wait() == 0, process.stderr and process.stderr.read()
    assert terminal.info("copy")["counts"]["inserted"] == MANY
    assert len(terminal.records("docs")) == MANY


def test_a_source_that_stays_away_fails_the_load(terminal: Terminal, server: ChromaServer) -> None:
    """If a source does not come back, the load ends at a checkpoint, and a restart continues it later."""
    _fill(server)
    line = f"upsert-cli run chroma:{server.url}#docs --keep-vectors --collection docs --task-id copy --retry-for 1"
    with terminal.start(f"{line} --batch-size 64") as process:
        terminal.wait_for_rows("copy")
        server.kill()
        assert process.wait() == 1
    assert "upsert-cli restart copy" in (terminal.type("upsert-cli info copy").stdout)
    server.start()
    terminal.type("upsert-cli restart copy")
    assert len(terminal.records("docs")) == MANY


def test_a_changed_server_is_noticed(terminal: Terminal, server: ChromaServer) -> None:
    """Another number of records, or another collection of the same name, is another source."""
    _fill(server, rows=FEW)
    line = f"upsert-cli run chroma:{server.url}#docs --keep-vectors --collection docs --task-id copy --limit 10"
    terminal.type(line)
    server.ask("DELETE", "tenants/default_tenant/databases/default_database/collections/docs")
    _fill(server, rows=FEW)
    assert "other content" in terminal.type(line, expect=4).stderr


def test_a_page_is_one_request(shared_server: ChromaServer) -> None:
    """Documents, metadata and vectors of a page come in one answer; the answer after the last page is empty."""
    _fill(shared_server, "paged")
    with Proxy(shared_server.port).running() as proxy:
        reader = replace(collection_named(f"chroma:{proxy.url}#paged"), with_vectors=True)
        rows = [*reader.read(row=0, offset=0)]
        asked = [call.path.rpartition("/")[2] for call in proxy.calls]
    assert [row.number for row in rows] == [*range(1, MANY + 1)]
    first = rows[0].value
    assert isinstance(first, Item)
    assert first.stored is not None
    assert (first.payload, first.stored.vector) == ({"text": "document 0", "number": 0}, array("f", [1.0, 0.0, 2.0]))
    assert asked.count("get") == 4


def test_a_vector_that_the_server_lost_costs_one_record(terminal: Terminal, shared_server: ChromaServer) -> None:
    """Chroma then fails for a whole page forever; the page's other records are loaded, and the lost one is named."""
    _fill(shared_server, "lossy", rows=FEW)

    def lose(call: Call) -> Fault | None:
        lost = call.path.endswith("/get") and b"embeddings" in call.body and "doc 7" in (call.ids or ["doc 7"])
        return Fault(status=500, message="Error executing plan: Internal error: Error finding id") if lost else None

    with Proxy(shared_server.port).running() as proxy:
        proxy.plan = lose
        terminal.type(f"upsert-cli run chroma:{proxy.url}#lossy --keep-vectors --collection docs", expect=3)
        asked = [call for call in proxy.calls if call.path.endswith("/get")]
    task = terminal.only_task()
    assert task["counts"]["inserted"] == FEW - 1
    assert [failed["object_id"] for failed in task["failed_items"]] == ["doc 7"]
    assert "the index has no vector of it" in task["failed_items"][0]["detail"]
    assert len(asked) <= 15


def test_a_collection_that_is_deleted_midway_is_gone(
    monkeypatch: pytest.MonkeyPatch, shared_server: ChromaServer
) -> None:
    """The message says that the collection is gone, not that the server needs a repair."""
    _fill(shared_server, "vanishing", rows=FEW)
    monkeypatch.setattr(record_rows, "PAGE_ROWS", FEW // 2)
    rows = collection_named(f"chroma:{shared_server.url}#vanishing").read(row=0, offset=0)
    next(rows)
    shared_server.ask("DELETE", "tenants/default_tenant/databases/default_database/collections/vanishing")
    with pytest.raises(UpsertCliError, match="the collection vanishing is gone; `upsert-cli collections list"):
        list(rows)


def test_filters_and_units_read_a_server(tiny: Terminal, shared_server: ChromaServer, old_folder: Path) -> None:
    """`--where` is Chroma's on a server too, and a source that is divided is read as a whole."""
    shutil.copytree(old_folder, tiny.folder / "old")
    url = shared_server.url
    tiny.type(f"upsert-cli run chroma:old#docs --keep-vectors --chroma {url} --collection divided")
    reader = collection_named(f"chroma:{url}#divided")
    ends = [*reader.boundaries(rows=128, size=1)]
    assert ends == [(128, 0), (256, 0), (ROWS, 0)]
    rows = [row.number for row in reader.read(row=256, offset=0)]
    assert rows == [*range(257, ROWS + 1)]
    where = """--where '{"number": {"$lt": 20}}'"""
    assert "20 inserted" in tiny.type(f"upsert-cli run chroma:{url}#divided {where} --collection few").stderr


@pytest.mark.parametrize("answer", [b"<html>a login page</html>", b'{"ids": "no"}', b'{"ids": ["a"], "documents": []}'])
def test_hostile_answers_are_no_records(terminal: Terminal, shared_server: ChromaServer, answer: bytes) -> None:
    """An answer that is not Chroma's fails the load, and never becomes records."""
    _fill(shared_server, "hostile", rows=FEW)
    with Proxy(shared_server.port).running() as proxy:
        proxy.plan = lambda call: Fault(status=200, body=answer) if call.path.endswith("/get") else None
        said = terminal.type(
            f"upsert-cli run chroma:{proxy.url}#hostile --keep-vectors --collection docs --retry-for 1", expect=1
        ).stderr
    assert "is not Chroma's" in said


def test_credentials_of_the_source_stay_with_it(terminal: Terminal, shared_server: ChromaServer) -> None:
    """The target's token is not sent to another server, the source's own is, and neither is ever shown."""
    with Proxy(shared_server.port).running() as proxy:
        terminal.env |= {"UPSERT_CLI_CHROMA_TOKEN": "target-s3cret", "UPSERT_CLI_SOURCE_CHROMA_TOKEN": "source-s3cret"}
        line = f"upsert-cli run chroma:{proxy.url}#absent --chroma {shared_server.url} --collection docs"
        said = terminal.type(line, expect=2)
        assert "s3cret" not in said.stderr + said.stdout
        assert _tokens(proxy) == {"source-s3cret"}
        del terminal.env["UPSERT_CLI_SOURCE_CHROMA_TOKEN"]
        proxy.calls.clear()
        terminal.type(line, expect=2)
        assert _tokens(proxy) == {None}
        proxy.plan = lambda _: Fault(status=401)
        assert "UPSERT_CLI_SOURCE_CHROMA_TOKEN, or the file" in terminal.type(line, expect=1).stderr


def test_the_target_gets_its_own_credentials_alone(terminal: Terminal, shared_server: ChromaServer) -> None:
    """To see whether source and target are one collection, the target is asked with its own token."""
    _fill(shared_server, "twice", rows=FEW)
    terminal.env |= {"UPSERT_CLI_CHROMA_TOKEN": "target-s3cret", "UPSERT_CLI_SOURCE_CHROMA_TOKEN": "source-s3cret"}
    with Proxy(shared_server.port).running() as source, Proxy(shared_server.port).running() as target:
        line = f"upsert-cli run chroma:{source.url}#twice --chroma {target.url} --collection twice --keep-vectors"
        terminal.type(line, expect=2)
        assert (_tokens(source), _tokens(target)) == ({"source-s3cret"}, {"target-s3cret"})


def _tokens(proxy: Proxy) -> set[str | None]:
    return {
        next((value for name, value in call.headers.items() if name.lower() == "x-chroma-token"), None)
        for call in proxy.calls
    }


def _fill(server: ChromaServer, name: str = "docs", *, rows: int = MANY) -> None:
    """Fill a collection, as a rule with more records than one page holds."""
    collections = "tenants/default_tenant/databases/default_database/collections"
    made = server.ask("POST", collections, {"name": name, "get_or_create": True})
    for start in range(0, rows, 1_000):
        numbers = range(start, min(start + 1_000, rows))
        server.ask(
            "POST",
            f"{collections}/{made['id']}/upsert",
            {
                "ids": [f"doc {number}" for number in numbers],
                "embeddings": [[1.0, number / 7, 2.0] for number in numbers],
                "documents": [f"document {number}" for number in numbers],
                "metadatas": [{"number": number} for number in numbers],
            },
        )
