"""The way through the code stays short: from a command to the loop of a load, and from a batch to Chroma."""

from __future__ import annotations

import sys
import threading
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import run_python
from tests.support.items import Items
from tests.support.loading import a_target, open_store, some_rows
from tests.support.terminal import Terminal
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.write import write
from upsert_cli.sources.item import Item
from upsert_cli.store.base import Verdict
from upsert_cli.store.process import StoreProcess

PACKAGE = Path(__file__).parent.parent / "upsert_cli"
MOST_FRAMES = 12  # from the function of a command to the loop that commits its batches
MOST_CALLS = 12  # of functions of the package, from an embedded batch to `collection.upsert`

_SHOW_STACK = """
import sys, traceback
from upsert_cli.cli.root import cli
from upsert_cli.load.commit import Committer

commit = Committer.commit

def show_and_commit(*args, **options):
    print(*(f"{frame.filename}:{frame.name}" for frame in traceback.extract_stack()[:-1]), sep="\\n")
    return commit(*args, **options)

Committer.commit = show_and_commit
cli(sys.argv[1:], prog_name="upsert-cli")
"""


def _own_calls() -> list[str]:
    """Return the names of the functions of the package that are being called."""
    stack = traceback.extract_stack()
    return [frame.name for frame in stack if Path(frame.filename).is_relative_to(PACKAGE)]


def test_a_command_reaches_the_loop_of_its_load_in_few_frames(tiny: Terminal, make_items: Items) -> None:
    """Between the function `run` and the loop over the batches there is nothing that only hands on."""
    tiny.write("a.jsonl", make_items(1))
    program = [sys.executable, "-c", _SHOW_STACK, "run", "a.jsonl"]
    done = run_python(program, folder=tiny.folder, environment=tiny.environment)
    assert done.returncode == 0, done.stderr
    frames = done.stdout.decode().splitlines()
    from_run = frames[frames.index(f"{PACKAGE / 'cli' / 'run.py'}:run") :]
    assert len(from_run) <= MOST_FRAMES, from_run


def test_a_batch_reaches_chroma_in_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded batch passes few functions of the package on its way to Chroma, those of the child included."""
    from chromadb.api.models.Collection import Collection

    target = a_target(tmp_path)
    rows = some_rows(["a"])
    assert rows.vectors is not None
    item = Item("a", {"text": rows.texts[0]}, None, "a.jsonl", 1)
    batch = replace(Batch.of((make_document(item, Recipe(identity="m")),), Verdict.NEW), vectors={0: rows.vectors[0]})
    calls: list[str] = []
    send: Any = Connection.send
    upsert: Any = Collection.upsert

    def show_and_send(connection: Connection, message: Any) -> None:
        if isinstance(message, tuple) and message[0] == "write":
            calls.extend(_own_calls())
        send(connection, message)

    def show_and_upsert(*args: Any, **options: Any) -> Any:
        calls.extend(_own_calls())
        return upsert(*args, **options)

    monkeypatch.setattr(Connection, "send", show_and_send)
    with StoreProcess(target) as process:
        [_] = write(iter([batch]), [process], stopping=threading.Event())
    monkeypatch.setattr(Collection, "upsert", show_and_upsert)
    store, _ = open_store(target)
    store.write(rows)
    store.close()
    assert {"write", "failing_rows"} <= set(calls)
    assert len(calls) <= MOST_CALLS, calls
