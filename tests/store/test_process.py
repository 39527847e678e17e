"""A store in a child process: it keeps other loads out, survives signals, and its death loses nothing."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import start_python
from tests.support.loading import a_target, assert_holds, numbered, of_model, plain_client, read_back, some_rows
from tests.support.records import queued_rows
from tests.support.waiting import wait_until
from upsert_cli.context import RunContext
from upsert_cli.errors import Refusal, TargetBusy, TargetDamaged, TargetInUse, UpsertCliError
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.base import Verdict, WriteBatch
from upsert_cli.store.chroma.local import LocalFolder
from upsert_cli.store.chroma.records import ChromaStore
from upsert_cli.store.folder import LEASE_NAME
from upsert_cli.store.process import CALL_ROWS, StoreProcess
from upsert_cli.store.target import Opened, Target


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return a_target(tmp_path)


class Enough(Exception):
    """Raised by a context that stops the run."""


class StopLater(RunContext):
    """A context that stops the run after a number of checks."""

    def __init__(self) -> None:
        super().__init__()
        self.checks = 0
        self.stop_after = sys.maxsize

    def check(self) -> None:
        """Count the check."""
        self.checks += 1
        if self.checks > self.stop_after:
            raise Enough


def lease_of(target: Target) -> Path:
    return Path(target.path) / LEASE_NAME


def is_free(target: Target) -> bool:
    return Lease.peek(lease_of(target)) is None


def later(action: Callable[[], object], *, seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


# -- writing and reading -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cold_children")
def test_rows_arrive_through_the_pipe(target: Target) -> None:
    """Rows arrive through the pipe; after closing, the folder is free and marked as clean."""
    rows = some_rows(numbered(0, 600))
    with StoreProcess(target, task_id="some-task") as writer:
        assert writer.opened().created
        holder = Lease.peek(lease_of(target))
        assert holder is not None
        assert (holder.pid, holder.task_id, holder.clean) == (writer.pid, "some-task", False)
        bad = replace(some_rows(["bad"]), metadatas=[{"a": {}}])
        assert writer.write(rows) == []
        assert [one for one, _ in writer.write(bad) + writer.write(replace(bad, vectors=None))] == ["bad", "bad"]
        compared = writer.compare(["id-000000", "no"], ["first.first", "x.y"], with_keys=True)
        assert compared.verdicts == [Verdict.UNCHANGED, Verdict.NEW]
        assert {row: sorted(keys) for row, keys in compared.stored_keys.items()} == {0: ["name", "upsert_hash"]}
    with Lease.take(lease_of(target), Holder.this_process()) as lease:
        assert lease.before is not None
        assert lease.before.clean
    assert_holds(target, rows)


def test_large_batches_go_through_the_pipe(target: Target) -> None:
    """A batch far larger than the pipe's buffers goes through, and so does its long list of refusals."""
    rows = some_rows(numbered(0, 1_024))
    batch = replace(rows, texts=[f"{text} {'x' * 8_192}" for text in rows.texts])
    refused = replace(batch, ids=[f"bad-{one}" for one in batch.ids], metadatas=[{"a": {}}] * 1_024)
    with StoreProcess(target) as writer:
        assert writer.write(batch) == []
        assert len(writer.write(refused)) == 1_024
    assert_holds(target, batch)


def test_threads_take_turns(target: Target) -> None:
    """Calls from several threads each get their own answer."""
    answers: dict[int, list[Verdict]] = {}
    with StoreProcess(target) as writer:
        writer.write(some_rows(numbered(0, 10)))

        def ask(number: int) -> None:
            ids = [f"id-{number:06}", "no"] * (number + 1)
            for _ in range(20):
                answers[number] = writer.compare(ids, ["first.first"] * len(ids)).verdicts

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {number: [Verdict.UNCHANGED, Verdict.NEW] * (number + 1) for number in range(4)}


def test_errors_cross_the_pipe(target: Target) -> None:
    """A refusal in the child is the same error in the parent."""
    with StoreProcess(target) as writer:
        writer.opened()
    writer = StoreProcess(of_model(target, name="maker/other"))
    with pytest.raises(Refusal, match="made with the model maker/small-model, not maker/other"):
        writer.opened()
    wait_until(lambda: is_free(target))


def test_new_folders_and_files_are_private(target: Target) -> None:
    """With any umask, a folder that the tool creates and everything in it belong to the user alone."""
    before = os.umask(0)
    try:
        with StoreProcess(target) as writer:
            writer.write(some_rows(["a"]))
    finally:
        os.umask(before)
    found = [Path(target.path), *Path(target.path).rglob("*")]
    assert len(found) > 6
    assert {oct(path.stat().st_mode & 0o777) for path in found if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in found if path.is_file()} == {"0o600"}


@pytest.mark.usefixtures("cold_children")
def test_the_environment_cannot_redirect_or_break_the_child(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child does not see variables and a .env file that chromadb would follow or fail on."""
    for name in ("CHROMA_API_IMPL", "MIGRATIONS", "IS_PERSISTENT", "CHROMA_DB_IMPL"):
        monkeypatch.setenv(name, "nonsense")
    (tmp_path / ".env").write_text("MIGRATIONS=nonsense\nPERSIST_DIRECTORY=elsewhere\n")
    (tmp_path / "queue.py").write_text("raise SystemExit('a module of the user, imported by us')\n")
    monkeypatch.chdir(tmp_path)
    with StoreProcess(target) as writer:
        writer.write(some_rows(["a"]))
    for name in ("CHROMA_API_IMPL", "MIGRATIONS", "IS_PERSISTENT", "CHROMA_DB_IMPL"):
        monkeypatch.delenv(name)
    monkeypatch.chdir("/")
    assert read_back(target).keys() == {"a"}
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_instead_of_a_folder_is_refused(target: Target) -> None:
    """A file at the path of the folder is an error with a remedy."""
    Path(target.path).write_text("not a folder")
    with pytest.raises(UpsertCliError, match="choose another folder with --chroma"):
        StoreProcess(target).opened()


def test_a_file_that_is_not_a_database_is_refused(target: Target) -> None:
    """A database file with other content is an error with a remedy, and stays unchanged."""
    Path(target.path).mkdir()
    path = Path(target.path) / "chroma.sqlite3"
    path.write_bytes(b"something else " * 1_000)
    with pytest.raises(UpsertCliError, match="restore it from a backup"):
        StoreProcess(target).opened()
    assert path.read_bytes() == b"something else " * 1_000


def test_only_the_methods_of_a_store_can_be_called(target: Target) -> None:
    """A call of anything else is an error, and the child continues."""
    with StoreProcess(target) as process:
        for name in ("abandon", "__init__", "_write"):
            with pytest.raises(RuntimeError, match=f"{name} is not a method that a parent may call"):
                process.ask(name)
        assert process.ask("fetch", rows=10) == []


# -- other users of the folder -------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_by_the_name_of_the_first(target: Target) -> None:
    """While one process has a folder, another is refused for any collection, and its error names the holder."""
    with StoreProcess(target, task_id="the-first") as first:
        first.opened()
        with pytest.raises(TargetInUse, match=rf"in use by pid {first.pid} on .* \(task the-first\) since 20"):
            StoreProcess(replace(target, collection="other")).opened()
        assert first.write(some_rows(["a"])) == []


def test_a_second_writer_may_wait(target: Target) -> None:
    """A process that may wait for the folder gets it when the first one closes."""
    first = StoreProcess(target)
    first.opened()
    second = StoreProcess(target, lease_timeout=60.0)
    first.close()
    assert not second.opened().created
    second.close()


def test_the_folder_of_a_killed_writer_is_free(target: Target) -> None:
    """A process that is killed with -9 leaves a free folder, which holds every row that it acknowledged."""
    writer = StoreProcess(target)
    rows = some_rows(numbered(0, 300))
    writer.write(rows)
    os.kill(writer.pid, signal.SIGKILL)
    with StoreProcess(target, lease_timeout=10.0) as second:
        assert second.opened().unclean
        assert second.opened().count == 300
    with StoreProcess(target) as third:
        assert not third.opened().unclean
    assert_holds(target, rows)


def test_a_foreign_writer_is_found_at_once(target: Target) -> None:
    """A program with a write transaction is an error at once; Chroma would wait for a quarter of an hour."""
    with StoreProcess(target) as writer:
        writer.opened()
    foreign = sqlite3.connect(Path(target.path) / "chroma.sqlite3", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    with pytest.raises(TargetBusy, match="another program is writing to"):
        StoreProcess(target).opened()
    foreign.execute("ROLLBACK")
    with StoreProcess(target) as writer:
        assert not writer.opened().unclean


READER = """
import sys, chromadb
from chromadb.config import Settings
opened = 0
while opened >= 0:
    client = chromadb.PersistentClient(sys.argv[1], settings=Settings.model_construct(anonymized_telemetry=False))
    try:
        collection = client.get_collection("default")
        collection.count()
        collection.query(query_embeddings=[[1.0] * 8], n_results=3)
        opened += 1
        print(opened, flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
    client.close()
"""


def test_a_reader_during_a_load_does_no_harm(target: Target, tmp_path: Path) -> None:
    """A process that opens, counts and queries the collection over and over during a load leaves it intact."""
    rows = some_rows(numbered(0, 2_000))
    with StoreProcess(target) as writer:
        writer.write(rows.take(range(100)))
        seen = tmp_path / "seen"
        program = [sys.executable, "-c", READER, target.path]
        with seen.open("w") as output:
            reader = start_python(program, folder=tmp_path, environment=os.environ, stdout=output)
        wait_until(lambda: bool(seen.read_text()))
        for start in range(100, 2_000, 200):
            assert writer.write(rows.take(range(start, min(start + 200, 2_000)))) == []
        while len(seen.read_text().split()) < 4:
            assert writer.write(rows.take(range(200))) == []
    reader.kill()
    reader.wait()
    assert_holds(target, rows)


# -- signals and the parent's end ----------------------------------------------------------------------------------

LOAD = """
import os, signal, sys
from pathlib import Path
from tests.support.forked import start_python
from tests.support.loading import a_target, numbered, some_rows
from upsert_cli.store.process import StoreProcess

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
writer = StoreProcess(a_target(Path(sys.argv[1])), task_id="of-the-parent")
writer.opened()
rows = [some_rows(numbered(start, start + 2_000)) for start in range(0, 6_000, 2_000)]
print(writer.pid, flush=True)
for part in rows:
    writer.write(part)
    print("written", flush=True)
writer.close()
"""


def _parent(folder: Path) -> tuple[subprocess.Popen[str], int]:
    root = Path(__file__).parent.parent.parent
    process = start_python(
        [sys.executable, "-c", LOAD, str(folder)],
        folder=root,
        environment=os.environ,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_child_outlives_a_killed_parent_by_one_write(target: Target, tmp_path: Path) -> None:
    """When its parent is killed with -9, the child finishes the write in flight, frees the folder, and ends."""
    parent, pid = _parent(tmp_path)
    wait_until(lambda: queued_rows(Path(target.path)))  # the first part of the first write
    parent.kill()
    parent.communicate()
    wait_until(lambda: is_free(target))
    wait_until(lambda: not Path(f"/proc/{pid}").exists() if sys.platform == "linux" else True)
    with StoreProcess(target) as writer:
        assert writer.opened().unclean
        assert writer.opened().count in (0, CALL_ROWS, 2 * CALL_ROWS)
    assert_holds(target, some_rows(numbered(0, writer.opened().count)))


def test_signals_to_the_group_do_not_reach_the_child(target: Target, tmp_path: Path) -> None:
    """Ctrl-C and other signals to the whole group do not disturb a write or the closing flush."""
    parent, pid = _parent(tmp_path)
    while parent.poll() is None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with suppress(ProcessLookupError):  # it has ended since
                os.killpg(parent.pid, number)
        with suppress(subprocess.TimeoutExpired):
            parent.wait(0.05)
    assert parent.returncode == 0
    assert parent.communicate()[0].count("written") == 3
    assert_holds(target, some_rows(numbered(0, 6_000)))
    assert is_free(target)
    assert pid > 0


def test_an_abandoned_child_finishes_its_write(target: Target) -> None:
    """A context that raises during a write ends the wait at once; the child finishes the write and frees the folder."""
    context = StopLater()
    writer = StoreProcess(target, context=context)
    writer.opened()
    rows = some_rows(numbered(0, CALL_ROWS))
    context.stop_after = 0
    with pytest.raises(Enough):
        writer.write(rows)
    assert not is_free(target)
    with pytest.raises(RuntimeError, match="abandoned"):
        writer.compare(["a"], ["x.y"])
    wait_until(lambda: is_free(target))
    assert_holds(target, rows)
    with StoreProcess(target) as second:
        assert second.opened().unclean


def test_a_stop_takes_effect_between_the_parts_of_a_write(target: Target) -> None:
    """A write of thousands of rows can be stopped after each part; the parts before it are written whole."""
    rows = some_rows(numbered(0, 5 * CALL_ROWS))
    context = StopLater()
    writer = StoreProcess(target, context=context)
    writer.opened()
    with ThreadPoolExecutor() as pool:  # in the main thread, the context is checked during a part as well
        context.checks, context.stop_after = 0, 1
        with pytest.raises(Enough):
            pool.submit(writer.write, rows).result()
    writer.abandon()
    wait_until(lambda: is_free(target))
    assert_holds(target, rows.take(range(2 * CALL_ROWS)))


def test_abandoning_frees_a_waiting_thread(target: Target) -> None:
    """A thread that waits for an answer gets an error when the main thread abandons the store."""
    writer = StoreProcess(target)
    writer.opened()
    raised: list[BaseException] = []

    def write() -> None:
        try:
            writer.write(some_rows(numbered(0, 2_000)))
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    wait_until(lambda: queued_rows(Path(target.path)))
    writer.abandon()
    writer.abandon()
    thread.join(60)
    assert len(raised) == 1
    wait_until(lambda: is_free(target))


@pytest.mark.usefixtures("cold_children")
def test_a_child_that_waits_for_the_folder_ends_when_abandoned(target: Target) -> None:
    """A child that waits for the lease notices that its pipe was closed."""
    Path(target.path).mkdir()
    with Lease.take(lease_of(target), Holder.this_process()):
        writer = StoreProcess(target, lease_timeout=600.0)
        pid = writer.pid
        time.sleep(0.5)
        writer.abandon()
        wait_until(lambda: _is_gone(pid))


def _is_gone(pid: int) -> bool:
    with_zombie = os.waitpid(pid, os.WNOHANG)
    return with_zombie[0] == pid


def test_a_foreign_threshold_survives_the_childs_death(target: Target) -> None:
    """The next load restores the threshold of another program's collection if the child was killed."""
    Path(target.path).mkdir()
    with plain_client(target) as client:
        client.create_collection("default", embedding_function=None, configuration={"hnsw": {"sync_threshold": 345}})
    writer = StoreProcess(target)
    writer.write(some_rows(["a"]))
    os.kill(writer.pid, signal.SIGKILL)
    with StoreProcess(replace(target, collection="other"), lease_timeout=10.0) as other:
        other.opened()
    with StoreProcess(target) as writer:
        writer.opened()
    with plain_client(target) as client:
        assert client.get_collection("default").configuration_json["hnsw"]["sync_threshold"] == 345
    with Lease.take(lease_of(target), Holder.this_process()) as lease:
        assert lease.before is not None
        assert lease.before.owed == {}


def test_a_dropped_collection_leaves_a_clean_folder(target: Target) -> None:
    """Closing the store of a collection that it has dropped restores nothing, and its records were never damaged."""
    with StoreProcess(replace(target, rows=2)) as store:
        store.write(some_rows(numbered(0, 2)))
        assert store.drop() == 0
        store.close()
    assert LocalFolder(path=Path(target.path), collection=target.collection).describe() is None
    with Lease.take(lease_of(target), Holder.this_process()) as lease:
        assert lease.was_clean
        assert not lease.holder.owed


# -- its death -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4])
def test_a_write_survives_the_death_of_the_child(target: Target, delay: float) -> None:
    """A child that is killed with -9 during a write is started again, and every row is written."""
    rows = some_rows(numbered(0, 2_000))
    with StoreProcess(target) as writer:
        writer.opened()
        first = writer.pid
        timer = later(lambda: os.kill(first, signal.SIGKILL), seconds=delay)
        assert writer.write(rows) == []
        timer.join()
        writer.compare(["a"], ["x.y"])
        assert writer.pid != first
    assert_holds(target, rows)


class FolderForDeadlyRows(LocalFolder):
    """A folder whose child process ends in a segmentation fault instead of writing certain rows."""

    def enter(self) -> None:
        """Change the store, in a process that does nothing else."""
        real = ChromaStore.write

        def write(store: ChromaStore, batch: WriteBatch) -> list[tuple[str, str]]:
            if any(one.startswith("deadly") for one in batch.ids):
                os.kill(os.getpid(), signal.SIGSEGV)
            return real(store, batch)

        ChromaStore.write = write  # type: ignore[method-assign, assignment]
        super().enter()


def deadly(kind: type[LocalFolder], target: Target) -> LocalFolder:
    return kind(path=Path(target.path), collection=target.collection)


def test_a_row_that_kills_the_child_is_found(target: Target) -> None:
    """A row that kills the child is refused with the signal, and all others are written."""
    rows = some_rows(numbered(0, 4))
    ids = ["id-000000", "id-000001", "deadly", "id-000002", "id-000003"]
    batch = some_rows(ids)
    with StoreProcess(target, location=deadly(FolderForDeadlyRows, target)) as writer:
        assert writer.write(batch) == [("deadly", "the process that writes it ends by SIGSEGV")]
        update = WriteBatch(ids=["id-000001"], texts=[], metadatas=[{"new": 1}], vectors=None)
        assert writer.write(some_rows(["id-000004"])) == writer.write(update) == []
    found = read_back(target)
    assert found.keys() == {*rows.ids, "id-000004"}
    assert found["id-000001"]["metadata"]["new"] == 1


class DyingStore:
    """A store whose process dies of each call; without Chroma, whose import takes most of the time to start again."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_: os.kill(os.getpid(), signal.SIGKILL)


class FolderOfDeath(LocalFolder):
    """A folder whose child process dies of each call."""

    def open(self, *_: Any, **__: Any) -> Any:
        """Open nothing."""
        return DyingStore(), Opened(created=True, count=0, warnings=(), unclean=False)


def test_a_child_that_always_dies_blames_no_row(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies of every call is an error with a remedy after a bounded number of deaths."""
    monkeypatch.setattr("upsert_cli.store.process.MAX_DEATHS", 5)
    writer = StoreProcess(target, location=deadly(FolderOfDeath, target))
    with pytest.raises(UpsertCliError, match=r"ended by SIGKILL each time; .*`upsert-cli verify --repair"):
        writer.write(some_rows(numbered(0, 64)))
    with pytest.raises(UpsertCliError, match="ended by SIGKILL each time"):
        writer.compare(["a"], ["x.y"])
    writer.abandon()


class FolderThatCrashes(LocalFolder):
    """A folder whose child process crashes before anything is opened."""

    def enter(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGSEGV)


class FolderThatIsKilled(LocalFolder):
    """A folder whose child process is killed before anything is opened."""

    def enter(self) -> None:
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kind", "how", "error"),
    [(FolderThatCrashes, "SIGSEGV", TargetDamaged), (FolderThatIsKilled, "SIGKILL", UpsertCliError)],
)
def test_a_child_that_dies_while_opening(
    target: Target, kind: type[LocalFolder], how: str, error: type[Exception]
) -> None:
    """A crash while opening means a damaged collection, a kill does not; both are errors with a remedy."""
    with pytest.raises(error, match=rf"{how}.*verify --repair"):
        StoreProcess(target, location=deadly(kind, target)).opened()


def test_an_index_that_kills_the_child_is_an_error(target: Target) -> None:
    """Index files that make Chroma end in a segmentation fault are reported as a damaged collection."""
    with StoreProcess(target) as writer:
        writer.write(some_rows(numbered(0, 1_000)))
    (links,) = Path(target.path).glob("*/link_lists.bin")
    size = links.stat().st_size
    links.write_bytes(bytes(size))
    with pytest.raises(TargetDamaged, match="verify --repair --collection default"):
        StoreProcess(target).opened()
    wait_until(lambda: is_free(target))


def test_damage_after_an_unclean_end_is_found(target: Target) -> None:
    """After an unclean end all of the newest vectors are checked."""
    writer = StoreProcess(target)
    writer.write(some_rows(numbered(0, 1_000)))
    writer.close()
    (lengths,) = Path(target.path).glob("*/length.bin")
    content = bytearray(lengths.read_bytes())
    content[4 * 700 : 4 * 710] = bytes(40)  # the rows 700 to 709 lose their vectors; the ends of the file are good
    lengths.write_bytes(content)
    shutil.copy(lengths, lengths.with_suffix(".kept"))
    with Lease.take(lease_of(target), Holder.this_process()):
        pass  # a holder that did not end in order
    with pytest.raises(TargetDamaged, match="10 have a vector of zeros"):
        StoreProcess(target).opened()
