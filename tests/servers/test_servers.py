"""Loads into a Chroma server: the same as into a folder, by the same rules."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.chroma_server import ChromaServer, free_port
from tests.support.items import Items
from tests.support.records import assert_same
from tests.support.terminal import SAMPLES, Terminal
from upsert_cli.errors import UsageFault
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.address import canonical_target
from upsert_cli.store.locate import location_at


def test_a_server_holds_what_a_folder_holds(tiny: Terminal, shared_server: ChromaServer) -> None:
    """The same file makes the same records in a folder and on a server, even when it is loaded again."""
    for name in ("mixed_errors.jsonl", "articles.jsonl"):
        for chroma in ("chroma", shared_server.url):
            tiny.type(f"upsert-cli run {SAMPLES / name} --chroma {chroma} --collection same", expect=None)
    folder, server = tiny.records("same", vectors=True), shared_server.records("same")
    assert len(server) > 300
    assert_same(folder, server, tolerance=1e-6)
    again = tiny.type(f"upsert-cli run {SAMPLES / 'articles.parquet'} --chroma {shared_server.url} --collection same")
    assert "0 inserted, 0 updated, 324 unchanged" in again.stderr


def test_changes_replace_records_on_a_server(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """Changed texts and metadata get there, and a metadata key that vanished from an item vanishes from its record."""
    items = vectored(30, number=1)
    path = tiny.write("a.jsonl", items)
    line = f"upsert-cli run {path.name} --chroma {shared_server.url} --collection changes"
    tiny.type(line)
    items[0]["payload"]["text"] = "another text"
    del items[1]["payload"]["number"]
    tiny.write("a.jsonl", items)
    assert "0 inserted, 2 updated, 28 unchanged" in tiny.type(line).stderr
    stored = shared_server.records("changes")
    assert stored["obj-00000"]["document"] == "another text"
    assert "number" not in stored["obj-00001"]["metadata"]
    dry = tiny.type(f"{line} --dry-run").stderr
    assert "30 unchanged" in dry


def test_own_vectors_on_a_server(tiny: Terminal, shared_server: ChromaServer) -> None:
    """A server's collection takes vectors of any dimension without a model, and keeps to the first one's."""
    rows = [{"object_id": f"id{n}", "payload": {"text": f"text {n}", "vector": [n, 2.0, n + 1]}} for n in range(20)]
    del rows[3]["payload"]["text"]  # type: ignore[attr-defined]
    tiny.write("a.jsonl", [{"object_id": "bad", "payload": {"vector": []}}, *rows])
    where = f"--chroma {shared_server.url} --collection own"
    tiny.type(f"upsert-cli run a.jsonl --model none --task-id t {where} --verify", expect=3)
    stored = shared_server.records("own")
    assert {one: record["vector"] for one, record in stored.items()} == {
        str(row["object_id"]): pytest.approx(row["payload"]["vector"], rel=1e-5)  # type: ignore[index]
        for row in rows
    }
    found = json.loads(tiny.type(f"upsert-cli query --vector '[0, 2, 1]' -n 1 --json {where}").stdout)
    assert (found["model"], found["hits"][0]["id"]) == ("none", "id0")
    tiny.write("b.jsonl", [{"object_id": "b", "payload": {"text": "b", "vector": [1, 2]}}])
    said = tiny.type(f"upsert-cli run b.jsonl --model none {where}", expect=3).stderr
    assert "has 2 numbers, and the collection's vectors have 3" in said
    tiny.type(f"upsert-cli run b.jsonl {where}", expect=4)
    assert shared_server.records("own") == stored


def test_verify_and_repair_on_a_server(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """Records that another client changed or deleted on the server are found and repaired."""
    tiny.write("a.jsonl", vectored(40))
    where = f"--chroma {shared_server.url} --collection verified"
    tiny.type(f"upsert-cli run a.jsonl --task-id t {where}")
    whole = shared_server.records("verified")
    database = "tenants/default_tenant/databases/default_database"
    identity = shared_server.ask("GET", f"{database}/collections/verified")["id"]
    shared_server.ask("POST", f"{database}/collections/{identity}/delete", {"ids": ["obj-00003"]})
    change = {"ids": ["obj-00004"], "documents": ["wrong"], "embeddings": None}
    shared_server.ask("POST", f"{database}/collections/{identity}/update", change)
    found = json.loads(tiny.type("upsert-cli verify t --json", expect=3).stdout)
    assert {kind: found[kind]["count"] for kind in ("missing", "different")} == {"missing": 1, "different": 1}
    model = tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]
    tiny.type(f"upsert-cli verify --repair t --model-path {model}")
    assert_same(whole, shared_server.records("verified"))


def test_a_collection_of_a_server_is_exported(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """The file holds all records with their vectors, and a missing collection is named as such."""
    tiny.write("a.jsonl", vectored(1_200))
    tiny.type(f"upsert-cli run a.jsonl --chroma {shared_server.url} --collection exported")
    tiny.type(f"upsert-cli export exported b.jsonl.gz --vectors --chroma {shared_server.url}")
    tiny.type("upsert-cli run b.jsonl.gz --collection copy")
    wanted, found = shared_server.records("exported"), tiny.records("copy", vectors=True)
    assert found.keys() == wanted.keys()
    assert all(found[one]["document"] == record["document"] for one, record in wanted.items())
    one = "obj-00700"
    assert found[one]["vector"] == pytest.approx(wanted[one]["vector"], rel=1e-5)
    said = tiny.type(f"upsert-cli export exprted b.jsonl --chroma {shared_server.url}", expect=1).stderr
    assert "did you mean exported?" in said


def test_missing_records_are_deleted_from_a_server(
    tiny: Terminal, shared_server: ChromaServer, vectored: Items
) -> None:
    """Missing records are deleted, too many deletions are refused, and the collection can be listed."""
    items = vectored(40)
    where = f"--chroma {shared_server.url} --collection equal"
    tiny.write("a.jsonl", items)
    tiny.type(f"upsert-cli run a.jsonl --delete-missing {where}")
    tiny.write("a.jsonl", items[4:])
    tiny.type(f"upsert-cli run a.jsonl --delete-missing --task-id t {where}")
    assert tiny.info("t")["counts"]["deleted"] == 4
    tiny.write("a.jsonl", items[20:])
    assert "16 of the 36 records" in tiny.type(f"upsert-cli run a.jsonl --delete-missing {where}", expect=4).stderr
    assert shared_server.records("equal").keys() == {item["object_id"] for item in items[4:]}
    listed = json.loads(tiny.type(f"upsert-cli collections --chroma {shared_server.url} --json").stdout)
    [equal] = [one for one in listed if one["collection"] == "equal"]
    assert (equal["records"], equal["dimension"], equal["task"]["id"]) == (36, 384, "t")
    model = tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]
    found = json.loads(tiny.type(f"upsert-cli query text {where} -n 36 --model-path {model} --json").stdout)
    assert {hit["id"] for hit in found["hits"]} == {item["object_id"] for item in items[4:]}


def test_a_collection_of_a_server_is_deleted(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """Its records are gone, a load into it holds off the deletion, and a task cannot continue after deleted records."""
    where = f"--chroma {shared_server.url} --collection gone"
    tiny.write("a.jsonl", [*vectored(6), {"object_id": "bad", "payload": {}}])
    tiny.type(f"upsert-cli run a.jsonl --task-id t --max-failures 0 {where}", expect=1)
    delete = f"upsert-cli collections delete gone --yes --chroma {shared_server.url}"
    [lease] = [path for path in tiny.journal.rglob("*.lease") if "active" not in path.parts]
    with Lease.take(lease, Holder.this_process("other")):
        assert f"pid {os.getpid()}" in tiny.type(delete, expect=4).stderr
    assert "with 6 records" in tiny.type(delete).stderr
    assert "there is no collection gone" in tiny.type(delete, expect=1).stderr
    assert "any more, although task t" in tiny.type("upsert-cli restart t --max-failures 9", expect=4).stderr
    assert "there is no collection gone" in tiny.type(delete, expect=1).stderr
    tiny.type("upsert-cli restart t --from-start --max-failures 9", expect=3)
    assert len(shared_server.records("gone")) == 6


def test_a_collection_of_a_server_is_renamed(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """Loads into either name keep it from that; the replaced collection stays whole under a third name."""
    for name, count in {"served-old": 5, "served-new": 3}.items():
        tiny.write("a.jsonl", vectored(count, mark=name))
        tiny.type(f"upsert-cli run a.jsonl --chroma {shared_server.url} --collection {name}")
    before = {name: shared_server.records(name) for name in ("served-old", "served-new")}
    rename = f"upsert-cli collections rename served-new served-old --replace --chroma {shared_server.url}"
    for name in before:
        location = location_at(shared_server.url, name, leases=tiny.journal / "servers")
        with Lease.take(location.lease_path(), Holder.this_process("other")):
            assert f"pid {os.getpid()}" in tiny.type(rename, expect=4).stderr
    kept = json.loads(tiny.type(f"{rename} --json").stdout)["kept"]
    assert shared_server.records("served-old") == before["served-new"]
    assert shared_server.records(kept) == before["served-old"]
    assert "there is no collection served-new" in tiny.type(rename, expect=1).stderr


def test_another_database_of_the_server(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """Tenant and database are part of the address; a missing database is named, and nothing is created."""
    tiny.write("a.jsonl", vectored(5))
    url = f"{shared_server.url}/default_tenant/second_one"
    missing = tiny.type(f"upsert-cli run a.jsonl --chroma {url}", expect=1)
    assert "has no database second_one of a tenant default_tenant" in missing.stderr
    shared_server.ask("POST", "tenants/default_tenant/databases", {"name": "second_one"})
    tiny.type(f"upsert-cli run a.jsonl --task-id t --chroma {url}")
    assert len(shared_server.records("default", database="second_one")) == 5
    assert tiny.info("t")["chroma"] == url
    tiny.type("upsert-cli verify t")


def test_an_interrupted_load_goes_on(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """A load into a server that is stopped ends by the signal, and `restart` goes on at the checkpoint."""
    tiny.write("a.jsonl", vectored(900))
    where = f"--chroma {shared_server.url} --collection stopped"
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --batch-size 30 {where}")
    tiny.wait_for_rows("t")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == -signal.SIGINT
    committed = tiny.info("t")["progress"]["rows"]
    assert 0 < committed < 900
    tiny.type("upsert-cli restart t")
    assert tiny.info("t")["counts"]["read"] == 900
    assert len(shared_server.records("stopped")) == 900


def test_two_loads_into_one_collection(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> None:
    """A second load into a collection is refused or skipped while the first one runs; another collection is free."""
    tiny.write("a.jsonl", vectored(400))
    tiny.write("b.jsonl", vectored(3))
    where = f"--chroma {shared_server.url} --collection"
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --batch-size 20 {where} one")
    tiny.halt_when(process, "t")
    refused = tiny.type(f"upsert-cli run b.jsonl {where} one", expect=4)
    assert f"the collection one of {shared_server.url} is in use by pid" in refused.stderr
    tiny.type(f"upsert-cli run b.jsonl {where} one --if-running skip")
    tiny.type(f"upsert-cli run b.jsonl {where} two")
    process.kill()
    tiny.go_on(process)  # its child, which then ends
    process.wait()
    tiny.type("upsert-cli cancel t")
    tiny.type(f"upsert-cli run b.jsonl {where} one")


@pytest.mark.parametrize(
    ("address", "says"),
    [("http://127.0.0.1:{free}", "[Errno"), ("https://127.0.0.1:{port}", "[SSL"), ("http://no-such.invalid", "[Errno")],
)
def test_addresses_that_lead_nowhere(
    tiny: Terminal, shared_server: ChromaServer, vectored: Items, address: str, says: str
) -> None:
    """The fault of an address is reported in one line, within seconds."""
    tiny.write("a.jsonl", vectored(1))
    url = address.format(free=free_port(), port=shared_server.port)
    done = tiny.type(f"upsert-cli run a.jsonl --chroma {url}", expect=1)
    assert f"{url} cannot be reached: {says}" in done.stderr.splitlines()[-1]


def test_a_password_in_an_address_is_refused(tiny: Terminal, vectored: Items) -> None:
    """An address with a password is refused before there is a task, and the password is not repeated."""
    tiny.write("a.jsonl", vectored(1))
    done = tiny.type("upsert-cli run a.jsonl --chroma http://ann:pass-word@127.0.0.1:1", expect=2)
    assert "it has a user or password in it" in done.stderr
    assert "pass-word" not in done.stderr
    assert not tiny.journal.exists()


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("http://LocalHost:8000/", "http://localhost:8000"),
        ("https://host", "https://host"),
        ("https://host:443/default_tenant/default_database", "https://host"),
        ("http://[::1]:8000/a%20b/c", "http://[::1]:8000/a%20b/c"),
        ("cloud", "https://api.trychroma.com"),
        ("https://api.trychroma.com/t/d", "https://api.trychroma.com/t/d"),
        ("/data/../chroma", "/data/../chroma"),
    ],
)
def test_a_place_has_one_spelling(typed: str, spelled: str) -> None:
    """A task stores one spelling of its target, however it was typed."""
    assert canonical_target(typed) == spelled
    assert canonical_target(spelled) == spelled


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("http://host/only_tenant", "is not a tenant and a database"),
        ("http://host/a/b/c", "is not a tenant and a database"),
        ("http://host?a=b", "a query or a fragment follows 'http://host'"),
        ("ftp://host", "begins with neither http:// nor https://"),
        ("http://", "has no host"),
        ("http://host:123456", "Port out of range"),
    ],
)
def test_no_address(typed: str, says: str) -> None:
    """An invalid address is refused with the reason."""
    with pytest.raises(UsageFault, match=says):
        canonical_target(typed)


def test_names_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tenant and database may come from the environment; the variables of Chroma's own tools are for the cloud."""
    monkeypatch.setenv("CHROMA_TENANT", "t")
    monkeypatch.setenv("CHROMA_DATABASE", "d")
    assert canonical_target("cloud") == "https://api.trychroma.com/t/d"
    assert canonical_target("http://host") == "http://host"
    monkeypatch.setenv("UPSERT_CLI_CHROMA_TENANT", "other")
    assert canonical_target("http://host") == "http://host/other/default_database"


SERVERS_WITHOUT_SCHEME = {
    "localhost:8765": ("http://localhost:8765", "./localhost:8765"),
    "host.domain:8000": ("http://host.domain:8000", "./host.domain:8000"),
    "10.0.0.1:8000": ("http://10.0.0.1:8000", "./10.0.0.1:8000"),
    "[::1]:8000": ("http://[::1]:8000", "./[::1]:8000"),
    "ann:pass-word@host:8000": ("http://host:8000", "./host:8000"),
    "localhost:8000/": ("http://localhost:8000", "./localhost:8000/"),
    "host:8000/tenant/database": ("http://host:8000/tenant/database", "./host:8000/tenant/database"),
    "host:443": ("https://host:443", "./host:443"),
    "host:8000?token=pass-word": ("http://host:8000", "./host:8000"),
    ":8000": ("http://localhost:8000", "./:8000"),
    "localhost": ("http://localhost:8000", "./localhost"),
    "127.0.0.1": ("http://127.0.0.1:8000", "./127.0.0.1"),
    "::1": ("http://[::1]:8000", "./::1"),
    "https:/host/t/d": ("https://host/t/d", "./https:/host/t/d"),
    "http:host": ("http://host", "./http:host"),
    "HTTP//host:8000": ("http://host:8000", "./HTTP//host:8000"),
}


@pytest.mark.parametrize("typed", SERVERS_WITHOUT_SCHEME)
def test_a_server_without_its_scheme_is_no_folder(typed: str) -> None:
    """A target that looks like a server's address is refused with both spellings, and no password."""
    with pytest.raises(UsageFault) as refused:
        canonical_target(typed)
    server, folder = SERVERS_WITHOUT_SCHEME[typed]
    assert f"write {server} for the server, or {folder} for a new folder" in str(refused.value)
    assert "pass-word" not in str(refused.value)


@pytest.mark.parametrize(
    "typed", ["chroma", "./localhost:8000", "/data/host:8000", "a/b:1", "a:b", "http", "snap:2026-11"]
)
def test_a_folder_with_a_colon_stays_a_folder(typed: str) -> None:
    """A path that no one would take for a server's address is a folder."""
    assert canonical_target(typed) == str(Path(typed).absolute())


@pytest.mark.parametrize(
    "line",
    ["run a.jsonl", "run a.jsonl --dry-run", "categories run a.jsonl", "collections", "query text", "verify"],
)
@pytest.mark.parametrize("where", ["option", "variable", "file"])
def test_no_command_makes_a_folder_of_a_server(terminal: Terminal, make_items: Items, line: str, where: str) -> None:
    """A server's address without its scheme ends a command with 2 before anything is created, wherever it is given."""
    terminal.write("a.jsonl", make_items(1))
    if where == "option":
        line += " --chroma localhost:8765"
    elif where == "variable":
        command = "_".join(word.upper() for word in line.split()[:2] if "." not in word and word not in {"text"})
        terminal.env[f"UPSERT_CLI_{command}_CHROMA"] = "localhost:8765"
    else:
        (terminal.folder / "upsert-cli.toml").write_text(
            "".join(f'[{table}]\nchroma = "localhost:8765"\n' for table in ("run", "collections", "query", "verify"))
        )
    before = sorted(terminal.folder.iterdir())
    refused = terminal.type(f"upsert-cli {line}", expect=2)
    assert "http://localhost:8765" in refused.stderr
    assert "./localhost:8765" in refused.stderr
    assert sorted(terminal.folder.iterdir()) == before


@pytest.mark.parametrize("where", ["option", "file"])
def test_an_existing_folder_may_look_like_a_server(tiny: Terminal, make_items: Items, where: str) -> None:
    """An existing folder stays usable under any name, also relative to the folder of a settings file."""
    tiny.write("a.jsonl", make_items(2))
    if where == "option":
        (tiny.folder / "localhost:8765").mkdir()
        tiny.type("upsert-cli run a.jsonl --chroma localhost:8765 --task-id t")
        assert tiny.info("t")["chroma"] == str(tiny.folder / "localhost:8765")
        return
    (tiny.folder / "conf" / "localhost:8765").mkdir(parents=True)
    (tiny.folder / "conf" / "c.toml").write_text('[run]\nchroma = "localhost:8765"\n')
    tiny.type("upsert-cli run a.jsonl --config conf/c.toml --task-id t")
    assert tiny.info("t")["chroma"] == str(tiny.folder / "conf" / "localhost:8765")
