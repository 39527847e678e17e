"""Faults between us and a server: retried, halved or named, with nothing lost, doubled or retried forever."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.items import Items
from tests.support.proxy import Call, Fault, Proxy
from tests.support.records import assert_same
from tests.support.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.store.locate import location_of
from upsert_cli.store.target import Target

KINDS = (
    Fault(status=429, headers={"Retry-After": "0.2"}),
    Fault(status=500),
    Fault(reset=True),
    Fault(status=503),
    Fault(reset=True, passed_on=True),
    Fault(status=502, passed_on=True),
)


@pytest.fixture
def loaded(tiny: Terminal, shared_server: ChromaServer, vectored: Items) -> dict[str, dict[str, Any]]:
    """Return the records after an undisturbed load of `a.jsonl`."""
    tiny.write("a.jsonl", vectored(600))
    tiny.type(f"upsert-cli run a.jsonl --chroma {shared_server.url} --collection undisturbed --task-id whole --force")
    return shared_server.records("undisturbed")


def test_every_third_request_fails(
    tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, loaded: dict[str, dict[str, Any]]
) -> None:
    """A load with every third request refused, lost or cut off ends like an undisturbed one, with its counts."""
    proxy.plan = lambda call: KINDS[call.number // 3 % len(KINDS)] if call.number % 3 == 0 else None
    where = f"--chroma {proxy.url} --collection every_third"
    done = tiny.type(f"upsert-cli run a.jsonl --task-id t --batch-size 50 {where}")
    assert proxy.faults > 8
    assert "trying again in" in done.stderr
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"]) == (600, 600, 0)
    assert_same(loaded, shared_server.records("every_third"))
    assert "0 different" in tiny.type("upsert-cli verify t").stderr


def test_a_server_says_when_to_come_back(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """Retry-After is honored; if it exceeds --retry-for, the load ends at once with that reason."""
    tiny.write("a.jsonl", vectored(10))
    seen: list[float] = []

    def busy(call: Call) -> Fault | None:
        seen.extend([time.monotonic()] if call.is_write else [])
        return Fault(status=429, headers={"Retry-After": "1"}) if call.is_write and len(seen) == 1 else None

    proxy.plan = busy
    where = f"--chroma {proxy.url} --collection come_back"
    done = tiny.type(f"upsert-cli run a.jsonl {where}")
    assert seen[1] - seen[0] >= 1
    assert "429 Too Many Requests, a fault of the proxy; trying again in 1.0 s" in done.stderr
    proxy.plan = lambda call: Fault(status=429, headers={"Retry-After": "3600"}) if call.is_write else None
    failed = tiny.type(f"upsert-cli run a.jsonl --force {where}", expect=1)
    assert "asks to be left alone for 3600 s" in failed.stderr.splitlines()[-1]


def test_a_request_that_is_too_large_is_halved(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """On 413 a write is made in halves; a row that is too large alone is rejected, and only that one."""
    limit = 100_000
    items = vectored(200)
    items[77]["payload"]["text"] = "large " * limit
    tiny.write("a.jsonl", items)
    proxy.plan = lambda call: Fault(status=413) if len(call.body) > limit else None
    tiny.type(f"upsert-cli run a.jsonl --task-id t --chroma {proxy.url} --collection halved", expect=3)
    [failed] = tiny.info("t")["failed_items"]
    assert (failed["object_id"], failed["failure_stage"], failed["row"]) == ("obj-00077", "on_upsert", 78)
    assert "too large (413)" in failed["detail"]
    passed = Counter(one for call in proxy.writes if len(call.body) <= limit for one in call.ids)
    assert set(passed.values()) == {1}
    assert len(passed) == 199


def test_the_row_before_takes_the_place_of_one_that_a_server_refuses(
    tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, vectored: Items
) -> None:
    """If an id's last row in the batch is too large to send, the row before it is loaded, by any of several writers."""
    limit = 100_000
    items = vectored(120)
    for number in range(0, 120, 7):
        again = vectored(120)[number]
        again["payload"]["text"] = "large " * (limit // 5) if number % 2 else "the last one"
        items.append(again)
    tiny.write("a.jsonl", items)
    proxy.plan = lambda call: Fault(status=413) if len(call.body) > limit else None
    where = f"--chroma {proxy.url} --collection before --writers 2"
    tiny.type(f"upsert-cli run a.jsonl --task-id t --batch-size 500 {where}", expect=3)
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"], counts["duplicate"]) == (138, 120, 9, 9)
    stored = shared_server.records("before")
    assert len(stored) == 120
    assert sum(record["document"] == "the last one" for record in stored.values()) == 9


def test_an_answer_that_does_not_come_is_asked_for_again(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """A read or write that stalls is given up after a while and repeated; a record that arrived twice exists once."""
    tiny.write("a.jsonl", vectored(20))
    stalled: list[Call] = []

    def stall(call: Call) -> Fault | None:
        if not call.ids or len(stalled) > 1 or (stalled and stalled[0].path == call.path):
            return None
        stalled.append(call)
        return Fault(stall=7.0, passed_on=True)

    proxy.plan = stall
    done = tiny.type(f"upsert-cli run a.jsonl --retry-for 25 --chroma {proxy.url} --collection stalled")
    assert [call.path.rpartition("/")[2] for call in stalled] == ["get", "upsert"]
    assert "no answer in time" in done.stderr
    assert "20 inserted, 0 updated" in done.stderr


def test_a_server_that_is_killed_and_started_again(tiny: Terminal, server: ChromaServer, vectored: Items) -> None:
    """A load waits for its server to come back, and then has lost nothing of it."""
    tiny.write("a.jsonl", vectored(600))
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --batch-size 15 --chroma {server.url}")
    tiny.wait_for_rows("t")
    server.kill()
    tiny.wait_for_line(process, "trying again in")
    server.start()
    _, said = process.communicate()
    assert process.returncode == 0, said
    tiny.type("upsert-cli verify t")
    assert len(server.records("default")) == 600


def test_a_server_that_stays_away(tiny: Terminal, server: ChromaServer, vectored: Items) -> None:
    """After --retry-for the task fails with a remedy; a signal ends the waiting; `restart` continues."""
    tiny.write("a.jsonl", vectored(600))
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --batch-size 15 --retry-for 2 --chroma {server.url}")
    tiny.wait_for_rows("t")
    server.kill()
    _, said = process.communicate()
    assert process.returncode == 1
    assert "has failed for" in said
    assert "upsert-cli restart t" in said
    committed = tiny.info("t")["progress"]["rows"]
    server.start()
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 15 --retry-for 600 --chroma " + server.url)
    tiny.wait_for_rows("t")
    server.kill()
    tiny.wait_for_line(process, "trying again in")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == -signal.SIGTERM
    assert tiny.info("t")["progress"]["rows"] > committed
    server.start()
    tiny.type("upsert-cli restart t")
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["failed"]) == (600, 0)
    assert len(server.records("default")) == 600


def test_a_limit_that_stops_the_client_is_named(
    shared_server: ChromaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If memory is too short to import Chroma's client, the error says so, as it does for a folder."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise ImportError("libchroma.so: failed to map segment: Cannot allocate memory")

    monkeypatch.setattr("upsert_cli.store.chroma.client.connect_server", fail)
    target = Target(path=shared_server.url, collection="limited", leases=str(tmp_path))
    with pytest.raises(UpsertCliError, match="memory"):
        location_of(target).open(target)


def test_a_server_of_another_version(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """An old Chroma, and something that is no Chroma, are named, and nothing is sent to them."""
    tiny.write("a.jsonl", vectored(1))

    def old(call: Call) -> Fault | None:
        return Fault(status=404) if call.path.startswith("/api/v2") else Fault(status=200, body=b'"0.5.3"')

    proxy.plan = old
    done = tiny.type(f"upsert-cli run a.jsonl --chroma {proxy.url}", expect=1)
    assert "is a Chroma of version 0.5.3, and a Chroma server of version 1 is needed" in done.stderr
    proxy.plan = lambda _: Fault(status=200, body=b"<html>")
    done = tiny.type(f"upsert-cli run a.jsonl --chroma {proxy.url}", expect=1)
    assert "is something else" in done.stderr
    assert proxy.writes == []
    assert json.loads(tiny.type("upsert-cli list --json").stdout)[0]["status"] == "failed"
