"""Several writers to one collection on a server: batches overlap, and are committed in the order of the rows."""

from __future__ import annotations

import signal

from tests.support.chroma_server import ChromaServer
from tests.support.items import Items
from tests.support.proxy import Fault, Proxy
from tests.support.records import assert_same
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

ROWS, BATCH_ROWS, WRITERS = 400, 50, 3


def test_writes_overlap_and_a_crash_loses_nothing(
    tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, vectored: Items
) -> None:
    """While one batch is being written, the next ones are written too, but none is committed before it."""
    tiny.write("a.jsonl", vectored(ROWS))
    tiny.type(f"upsert-cli run a.jsonl --chroma {shared_server.url} --collection one_writer")
    # Not the first batch: its writer is the one that also compares, and without that no batch comes after it.
    held = f"obj-{BATCH_ROWS:05}"
    proxy.plan = lambda call: Fault(stall=600.0) if call.is_write and held in call.ids else None
    where = f"--chroma {proxy.url} --collection writers"
    process = tiny.start(f"upsert-cli run a.jsonl --task-id t --writers {WRITERS} --batch-size {BATCH_ROWS} {where}")
    wait_until(lambda: len(proxy.writes) == 4 and proxy.writing == 1)  # one before it, and two after it
    wait_until(lambda: tiny.info("t")["progress"]["rows"] == BATCH_ROWS)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    proxy.plan = lambda call: Fault(stall=0.2, passed_on=True) if call.is_write else None
    _restart(tiny)
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["failed"]) == (ROWS, 0)
    assert counts["inserted"] + counts["unchanged"] == ROWS
    assert counts["unchanged"] == 2 * BATCH_ROWS
    assert proxy.most_writes >= 2
    assert_same(shared_server.records("one_writer"), shared_server.records("writers"))


def test_a_signal_ends_all_writers(tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, vectored: Items) -> None:
    """A stop during several writes commits those that arrive, and `restart` continues from there."""
    tiny.write("a.jsonl", vectored(ROWS))
    proxy.plan = lambda call: Fault(stall=0.3, passed_on=True) if call.is_write else None
    line = f"upsert-cli run a.jsonl --task-id t --writers {WRITERS} --batch-size 20 --chroma {proxy.url} --collection stopped_three"
    process = tiny.start(line)
    tiny.wait_for_rows("t")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == -signal.SIGINT
    assert 0 < tiny.info("t")["progress"]["rows"] < ROWS
    _restart(tiny)
    assert tiny.info("t")["counts"]["inserted"] + tiny.info("t")["counts"]["unchanged"] == ROWS
    assert len(shared_server.records("stopped_three")) == ROWS


def _restart(terminal: Terminal) -> None:
    """Restart the task, whose writers the command does not name."""
    process = terminal.start("upsert-cli restart t", children=WRITERS)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
