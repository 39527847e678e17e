"""The store in the real Chroma: any client reads the records, and no row can harm another."""

from __future__ import annotations

import errno
import math
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.loading import (
    DIMENSION,
    a_target,
    assert_holds,
    numbered,
    of_model,
    open_store,
    opened,
    plain_client,
    read_back,
    some_rows,
)
from upsert_cli.embedding.catalog import DEFAULT_MODEL, Prefixes
from upsert_cli.embedding.identity import Weights
from upsert_cli.errors import Refusal, TargetDamaged, UpsertCliError, UsageFault
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.base import Verdict, WriteBatch
from upsert_cli.store.chroma import index_files as index_files_module
from upsert_cli.store.chroma import index_queue as index_queue_module
from upsert_cli.store.chroma import records as records_module
from upsert_cli.store.chroma.index_files import IndexFiles
from upsert_cli.store.folder import LEASE_NAME, prepare_folder
from upsert_cli.store.target import Target


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return a_target(tmp_path)


def load(target: Target, rows: WriteBatch) -> list[tuple[str, str]]:
    with opened(target) as (records, _):
        return records.write(rows)


def is_flushed(target: Target) -> bool | None:
    return IndexFiles(Path(target.path), target.collection).is_flushed()


def make_foreign(target: Target, rows: WriteBatch | None, **options: Any) -> None:
    """Create a collection as another program would."""
    prepare_folder(Path(target.path))
    with plain_client(target) as client:
        made = client.create_collection(target.collection, **options)
        if rows is not None:
            made.upsert(
                ids=rows.ids,
                documents=[text or "" for text in rows.texts],
                metadatas=[*rows.metadatas],
                embeddings=rows.vectors,
            )


def settings_of(target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    with plain_client(target) as client:
        found = client.get_collection(target.collection)
        return dict(found.configuration_json), dict(found.metadata or {})


# -- writing -------------------------------------------------------------------------------------------------------


def test_any_client_reads_the_records(target: Target) -> None:
    """Documents, metadata and vectors of more than one call are read back with chromadb alone."""
    rows = some_rows(numbered(0, 1_100), number=7, share=0.5, flag=True)
    with opened(target) as (records, facts):
        assert (facts.created, facts.count, facts.unclean) == (True, 0, False)
        assert records.write(rows) == []
    assert_holds(target, rows)
    with opened(target) as (_, facts):
        assert (facts.created, facts.count, facts.warnings) == (False, 1_100, ())


def test_a_new_collection_has_the_settings_of_a_load(target: Target) -> None:
    """A new collection uses cosine, flushes seldom, and names its model."""
    load(target, some_rows(["a"]))
    configuration, metadata = settings_of(target)
    assert configuration["hnsw"]["space"] == "cosine"
    assert configuration["hnsw"]["sync_threshold"] == 10_000
    assert configuration["embedding_function"].get("name") is None
    assert metadata == {
        "upsert_cli_model": "maker/small-model",
        "upsert_cli_dimension": DIMENSION,
        "upsert_cli_max_tokens": 256,
        "upsert_cli_version": "0.0.0",
    }


def test_default_model_lets_clients_query_by_text(target: Target) -> None:
    """A collection for the default model stores Chroma's own function, and creating it fetches no model."""
    load(of_model(target, name=DEFAULT_MODEL), some_rows(["a"]))
    assert settings_of(target)[0]["embedding_function"]["name"] == "default"
    assert not (Path.home() / ".cache" / "chroma").exists()


def test_upsert_replaces_a_record(target: Target) -> None:
    """Text, vector and metadata are replaced, and a key with the value None is removed."""
    load(target, some_rows(["a", "b"], old=1))
    after = some_rows(["a"], mark="second", new=2)
    load(target, replace(after, metadatas=[{**after.metadatas[0], "old": None}]))
    assert_holds(target, some_rows(["a", "b"], old=1), after)


def test_update_leaves_text_and_vector(target: Target) -> None:
    """A metadata-only update changes, adds and removes keys, and nothing else."""
    before = some_rows(["a", "b"], old=1)
    load(target, before)
    with opened(target) as (records, _):
        update = WriteBatch(ids=["a"], texts=[], metadatas=[{"old": None, "new": 2}], vectors=None)
        assert records.write(update) == []
    after = replace(before, metadatas=[{**some_rows(["a"]).metadatas[0], "new": 2}, before.metadatas[1]])
    assert_holds(target, after)


def test_a_comparison_distinguishes_the_verdicts(target: Target) -> None:
    """New, changed, only in metadata changed and unchanged records are distinguished, with each record's keys."""
    rows = some_rows(["text", "metadata", "same", "foreign"], gone=1)
    del rows.metadatas[3]["upsert_hash"]
    load(target, rows)
    with opened(target) as (records, _):
        comparison = records.compare(
            ["new", "text", "metadata", "same", "foreign", "new"],
            ["first.first", "other.first", "first.other", "first.first", "first.first", "first.first"],
        )
    assert comparison.verdicts == [
        Verdict.NEW, Verdict.TEXT, Verdict.METADATA, Verdict.UNCHANGED, Verdict.TEXT, Verdict.NEW,
    ]  # fmt: skip
    assert {row: set(keys) for row, keys in comparison.stored_keys.items()} == {
        1: {"name", "upsert_hash", "gone"}, 2: {"name", "upsert_hash", "gone"},
        3: {"name", "upsert_hash", "gone"}, 4: {"name", "gone"},
    }  # fmt: skip


def test_a_comparison_of_many_rows_keeps_their_order(target: Target) -> None:
    """More ids than fit into one call are compared, and the verdicts are in their order."""
    load(target, some_rows(numbered(0, 2_500)))
    asked = [one for pair in zip(numbered(0, 2_500)[::-1], numbered(5_000, 7_500), strict=True) for one in pair]
    with opened(target) as (records, _):
        verdicts = records.compare(asked, ["first.first"] * 5_000).verdicts
        assert records.compare([], []).verdicts == []
    assert verdicts == [Verdict.UNCHANGED, Verdict.NEW] * 2_500


# -- bad rows ------------------------------------------------------------------------------------------------------

BAD_METADATA: dict[str, dict[Any, Any]] = {
    "nested": {"a": {"b": 1}},
    "empty-object": {"a": {}},
    "empty-list": {"a": []},
    "mixed-list": {"a": [1, "x"]},
    "list-of-objects": {"a": [{}]},
    "list-of-none": {"a": [None]},
    "no-metadata": {},
    "key-hash": {"#a": 1},
    "key-dollar": {"$a": 1},
    "key-empty": {"": 1},
    "key-number": {1: 1},
    "key-document": {"chroma:document": "x"},
    "key-chroma": {"chroma:x": "x"},
    "key-surrogate": {"\ud800": 1},
    "nan": {"a": math.nan},
    "infinite": {"a": math.inf},
    "integer-64": {"a": 2**63},
    "integer-huge": {"a": 10**600},
    "numpy-integer": {"a": np.int64(1)},
    "numpy-bool": {"a": np.bool_(True)},
    "bytes": {"a": b"x"},
    "tuple": {"a": (1, 2)},
    "surrogate": {"a": "\ud800"},
    "poison-nan-in-list": {"a": [1.0, math.nan]},
    "poison-infinity-in-list": {"a": [math.inf]},
    "poison-many-keys": {f"k{number}": 1 for number in range(5_461)},
    "poison-long-list": {"a": list(range(7_000))},
    "poison-long-lists": {"a": list(range(4_000)), "b": list(range(4_000))},
    "poison-many-removed": {f"k{number}": None for number in range(40_000)},
}


def _bad(kind: str) -> WriteBatch:
    """Return a row that is bad in one way."""
    row = some_rows(["bad"])
    assert row.vectors is not None
    if kind in BAD_METADATA:
        return replace(row, metadatas=[BAD_METADATA[kind]])
    changes: dict[str, dict[str, Any]] = {
        "empty-id": {"ids": [""]},
        "surrogate-id": {"ids": ["bad\udc00"]},
        "surrogate-text": {"texts": ["bad \ud800"]},
        "nan-vector": {"vectors": row.vectors * np.nan},
        "infinite-vector": {"vectors": row.vectors * np.inf},
        "zero-vector": {"vectors": row.vectors * 0},
    }
    return replace(row, **changes[kind])


def _with(rows: WriteBatch, other: WriteBatch, *, place: int) -> WriteBatch:
    """Return rows with another one among them."""
    assert rows.vectors is not None
    assert other.vectors is not None
    return WriteBatch(
        ids=[*rows.ids[:place], *other.ids, *rows.ids[place:]],
        texts=[*rows.texts[:place], *other.texts, *rows.texts[place:]],
        metadatas=[*rows.metadatas[:place], *other.metadatas, *rows.metadatas[place:]],
        vectors=np.concatenate([rows.vectors[:place], other.vectors, rows.vectors[place:]]),
    )


KINDS = [
    *BAD_METADATA, "empty-id", "surrogate-id", "surrogate-text", "nan-vector", "infinite-vector", "zero-vector",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_row_costs_no_other(target: Target, kind: str) -> None:
    """Only the bad row of a batch is refused, with one line of reason, and the collection stays sound."""
    good = some_rows(numbered(0, 40))
    bad = _bad(kind)
    later = some_rows(["later"])
    with opened(target, flush=False) as (records, _):
        ((identifier, reason),) = records.write(_with(good, bad, place=17))
        assert records.write(later) == []
    assert identifier == bad.ids[0]
    assert 0 < len(reason) < 400
    assert reason.isprintable()
    assert_holds(target, good, later)


@pytest.mark.parametrize("kind", [kind for kind in BAD_METADATA if not kind.startswith("no-")])
def test_a_bad_update_costs_no_other(target: Target, kind: str) -> None:
    """Bad metadata is refused in an update as well, and the record stays unchanged."""
    before = some_rows(["bad", "good"])
    update = WriteBatch(ids=["bad", "good"], texts=[], metadatas=[BAD_METADATA[kind], {"new": 1}], vectors=None)
    with opened(target, flush=False) as (records, _):
        assert records.write(before) == []
        ((identifier, _),) = records.write(update)
    assert identifier == "bad"
    assert_holds(target, replace(before, metadatas=[before.metadatas[0], {**before.metadatas[1], "new": 1}]))


REJECTED_BY_CHROMA = ["nested", "key-dollar", "surrogate", "surrogate-id", "empty-id", "nan-vector", "integer-huge"]


@pytest.mark.parametrize("kind", REJECTED_BY_CHROMA)
def test_a_row_that_only_chroma_rejects_is_found(target: Target, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that passes our own check and is rejected by Chroma is found by bisecting."""
    monkeypatch.setattr(records_module, "_row_faults", lambda *_, **__: {})
    good = some_rows(numbered(0, 600))
    bad = _bad(kind)
    with opened(target, flush=False) as (records, _):
        ((identifier, reason),) = records.write(_with(good, bad, place=333))
    assert identifier == bad.ids[0]
    assert reason.startswith("Chroma rejects it: ")
    assert_holds(target, good)


def test_all_kinds_of_bad_rows_in_one_batch(target: Target) -> None:
    """A batch with every kind of bad row among good ones refuses these, and writes all others."""
    good = some_rows(numbered(0, 200))
    batch = good
    for place, kind in enumerate(KINDS):
        bad = _bad(kind)
        batch = _with(batch, bad if bad.ids != ["bad"] else replace(bad, ids=[kind]), place=3 * place)
    refused = load(target, batch)
    assert len(refused) == len(KINDS)
    assert_holds(target, good)


def test_a_batch_of_only_bad_rows_is_rejected(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every row of a batch is bad, each is rejected, and the check with a harmless record leaves no trace."""
    monkeypatch.setattr(records_module, "_row_faults", lambda *_, **__: {})
    bad = replace(some_rows(numbered(0, 20)), metadatas=[{"a": {}}] * 20)
    good = some_rows(numbered(20, 40))
    with opened(target) as (records, _):
        assert len(records.write(bad)) == 20
        assert records.write(good) == []
        assert len(records.write(bad)) == 20
    assert_holds(target, good)


def test_chroma_that_refuses_any_row_blames_none(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Chroma refuses a harmless record too, the load stops at once with the cause and a remedy."""
    from chromadb.api.models.Collection import Collection

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("unexpected kind of array")

    with opened(target) as (records, _):
        with monkeypatch.context() as broken:
            for name in ("upsert", "update"):
                broken.setattr(Collection, name, refuse)
            with pytest.raises(UpsertCliError, match=r"any record: unexpected kind of array; .* restart the task"):
                records.write(some_rows(numbered(0, 20)))
        assert records.write(some_rows(numbered(0, 20))) == []
    assert_holds(target, some_rows(numbered(0, 20)))


def test_vectors_of_another_length_are_no_rows_fault(target: Target) -> None:
    """Vectors that do not fit the target stop the load; no row is blamed."""
    with opened(target) as (records, _), pytest.raises(Refusal, match="gives 5"):
        records.write(some_rows(["a"], dimension=5))


# -- guards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"name": "maker/other-model"}, {"dimension": 5}, {"max_tokens": 512}],
    ids=lambda change: next(iter(change)),
)
def test_other_model_is_refused(target: Target, change: dict[str, Any]) -> None:
    """A collection with the stamp of another model, dimension or token limit is refused and not changed."""
    load(target, rows := some_rows(["a"]))
    with (
        pytest.raises(Refusal, match="load with that, or into another --collection"),
        opened(of_model(target, **change)),
    ):
        pass
    assert_holds(target, rows)


def test_newer_version_of_the_tool_may_go_on(target: Target) -> None:
    """The version in the stamp is for information only."""
    load(target, some_rows(["a"]))
    assert load(replace(target, tool_version="9.9.9"), some_rows(["b"])) == []


def test_foreign_collection_without_evidence_is_warned_of(target: Target) -> None:
    """Even an empty collection that names no model causes a warning, since a query then has to name it."""
    make_foreign(target, None, embedding_function=None)
    make_foreign(other := replace(target, collection="other"), some_rows(["a"]), embedding_function=None)
    for each in (target, other):
        with opened(each) as (_, facts):
            assert len(facts.warnings) == 1
            assert "does not say with which model" in facts.warnings[0]


def test_foreign_collection_of_another_dimension_is_refused(target: Target) -> None:
    """Vectors of another length are reason enough to refuse."""
    make_foreign(target, some_rows(["a"], dimension=5), embedding_function=None)
    with pytest.raises(Refusal, match="holds vectors of 5 numbers"), opened(target):
        pass


def test_a_folder_that_is_removed_while_it_is_open(target: Target) -> None:
    """A write names the folder that is gone, in an error that is no bug."""
    with opened(target, flush=False) as (records, _):
        moved = Path(target.path).rename(f"{target.path}.moved")
        try:
            with pytest.raises(UpsertCliError, match=f"{target.path} cannot be used: No such file"):
                records.write(some_rows(["a"]))
        finally:
            moved.rename(target.path)


def test_foreign_collection_may_hold_zeros(target: Target) -> None:
    """A vector of zeros is not damage in a collection that another program made."""
    rows = some_rows(numbered(0, 20))
    assert rows.vectors is not None
    rows.vectors[3:9] = 0
    make_foreign(target, rows, embedding_function=None)
    with opened(target, unclean=True) as (_, facts):
        assert facts.count == 20


def test_foreign_collection_with_the_default_function(target: Target) -> None:
    """A collection with Chroma's default function accepts the default model and no other."""
    make_foreign(target, some_rows(["a"], dimension=384))
    equal = of_model(target, name=DEFAULT_MODEL, dimension=384, weights=Weights("", is_published=True))
    with opened(equal) as (_, facts):
        assert facts.warnings == ()
    for other in (
        target,
        of_model(equal, prefixes=Prefixes("passage: ")),
        of_model(equal, weights=Weights("1", False)),
    ):
        with pytest.raises(Refusal), opened(other):
            pass


@pytest.mark.parametrize("name", ["a", "-bad-", "two words", "x" * 513])
def test_bad_name_is_a_fault_of_usage(target: Target, name: str) -> None:
    """A name that Chroma does not accept is a usage error with a remedy."""
    with pytest.raises(UsageFault, match="choose another name"), opened(replace(target, collection=name)):
        pass


# -- the index -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 700])
def test_closing_flushes_the_index(target: Target, rows: int) -> None:
    """Closing leaves nothing queued for the next reader."""
    with opened(target) as (records, _):
        records.write(some_rows(numbered(0, rows)))
        assert is_flushed(target) is False
    assert is_flushed(target) is True
    assert_holds(target, some_rows(numbered(0, rows)))


@pytest.mark.parametrize(("expected", "written", "changes"), [(2, 2, 256), (600, 600, 0), (600, 500, 150)])
def test_flush_of_few_rows_costs_next_to_nothing(
    target: Target, monkeypatch: pytest.MonkeyPatch, expected: int, written: int, changes: int
) -> None:
    """If few rows are expected, the last of them flushes the index, or a few updates without a change do."""
    from chromadb.api.models.Collection import Collection

    made: list[int] = []
    with opened(replace(target, rows=expected)) as (records, _):
        records.write(rows := some_rows(numbered(0, written)))
        update = Collection.update

        def counted(self: Collection, **some: Any) -> None:
            made.append(len(some["ids"]))
            update(self, **some)

        monkeypatch.setattr(Collection, "update", counted)
    assert sum(made) <= changes
    assert is_flushed(target) is True
    assert settings_of(target)[0]["hnsw"]["sync_threshold"] == 10_000
    assert_holds(target, rows)


@pytest.mark.parametrize("name", ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin"])
def test_a_reader_that_makes_an_index_costs_no_vector(
    target: Target, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Index files that a reader writes during the first flush are replaced by ours, and every vector stays."""
    from chromadb.api.models.Collection import Collection

    update, folder = Collection.update, Path(target.path)
    written: list[Path] = []

    def disturbed(self: Collection, **some: Any) -> None:
        update(self, **some)
        for path in folder.glob(f"*/{name}") if not written and is_flushed(target) else ():
            content = bytearray(path.read_bytes())
            if name == "header.bin":
                content[20:28] = bytes(8)  # the number of rows
            path.write_bytes(content[:100])
            written.append(path)

    with opened(target) as (records, _):
        records.write(rows := some_rows(numbered(0, 700)))
        monkeypatch.setattr(Collection, "update", disturbed)
    assert written
    assert_holds(target, rows)


def test_a_long_queue_is_flushed_during_the_load(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large rows do not wait for the threshold, since the engine reads the whole queue at each write."""
    monkeypatch.setattr(index_queue_module, "QUEUE_SIZE", 100_000)
    flushed: list[bool | None] = []
    rows = some_rows(numbered(0, 60), blob="x" * 5_000)
    with opened(target) as (records, _):
        for start in range(0, 60, 10):
            records.write(rows.take(range(start, start + 10)))
            flushed.append(is_flushed(target))
    assert flushed == [False, True, False, True, False, True]
    assert_holds(target, rows)


def test_threshold_stays_high_while_rows_are_queued(target: Target) -> None:
    """After a load that did not flush, no reader finds a threshold at which it would flush during the next load."""
    records, _ = open_store(target)
    records.write(some_rows(numbered(0, 400)))
    records.abandon()
    with opened(replace(target, rows=300), unclean=True):
        database = sqlite3.connect(Path(target.path) / "chroma.sqlite3")
        (schema,) = database.execute("SELECT schema_str FROM collections").fetchone()
    assert '"sync_threshold":10000' in schema


def test_comparing_alone_flushes_nothing(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that finds everything unchanged does not touch the index."""
    load(target, some_rows(["a"]))
    monkeypatch.setattr(index_queue_module.IndexQueue, "flush", lambda _: pytest.fail("flushed"))
    with opened(target) as (records, _):
        records.compare(["a"], ["first.first"])


def test_abandoned_load_is_flushed_by_the_next(target: Target) -> None:
    """The next load flushes the queue of an abandoned one, even if it writes nothing itself."""
    records, _ = open_store(target)
    records.write(rows := some_rows(numbered(0, 30)))
    records.abandon()
    assert is_flushed(target) is False
    with opened(target, unclean=True) as (_, facts):
        assert facts.unclean
    assert is_flushed(target) is True
    assert_holds(target, rows)


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_foreign_collection_gets_its_own_threshold_back(target: Target, ending: str) -> None:
    """Another program's threshold is raised only during the load, and noted before it is changed."""
    make_foreign(target, some_rows(["a"]), embedding_function=None, configuration={"hnsw": {"sync_threshold": 345}})
    notes: list[tuple[int | None, int]] = []

    class Notes(Lease):
        def owe(self, settings: Mapping[str, int | None]) -> None:
            super().owe(settings)
            database = sqlite3.connect(Path(target.path) / "chroma.sqlite3")
            (schema,) = database.execute("SELECT schema_str FROM collections").fetchone()
            notes.append((settings[target.collection], schema.count('"sync_threshold":345')))

    with Notes.take(Path(target.path) / LEASE_NAME, Holder.this_process()) as lease:
        records, _ = open_store(target, lease=lease)
        records.write(some_rows(["b"]))
        getattr(records, ending)()
    assert [threshold for threshold, _ in notes] == [345, None]
    assert notes[0][1] == notes[1][1] > 0
    assert settings_of(target)[0]["hnsw"]["sync_threshold"] == 345


@pytest.mark.parametrize("ending", ["close", "abandon"])
def test_a_full_disk_while_the_threshold_is_restored_is_reported(target: Target, ending: str) -> None:
    """If there is no room to remove the note about the threshold, the error says so."""
    make_foreign(target, some_rows(["a"]), embedding_function=None, configuration={"hnsw": {"sync_threshold": 345}})

    class Full(Lease):
        def owe(self, settings: Mapping[str, int | None]) -> None:
            if settings[target.collection] is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            super().owe(settings)

    with Full.take(Path(target.path) / LEASE_NAME, Holder.this_process()) as lease:
        records, _ = open_store(target, lease=lease)
        with pytest.raises(UpsertCliError, match="make room"):
            getattr(records, ending)()


def test_the_threshold_that_a_dead_writer_left_is_restored(target: Target) -> None:
    """A threshold that could not be restored is restored by the next load."""
    make_foreign(target, None, embedding_function=None, configuration={"hnsw": {"sync_threshold": 10_000}})
    path, holder = Path(target.path) / LEASE_NAME, Holder.this_process()
    with Lease.take(path, holder) as lease:
        lease.owe({target.collection: 345})
    with (
        Lease.take(path, holder) as lease,
        opened(target, unclean=True, lease=lease),
    ):
        pass
    assert settings_of(target)[0]["hnsw"]["sync_threshold"] == 345


def test_readers_do_not_flush_during_a_load(target: Target) -> None:
    """While a load has rows queued, no other process finds a threshold at which it would write the index files."""
    with opened(target) as (records, _):
        records.write(some_rows(["a"]))
        database = sqlite3.connect(Path(target.path) / "chroma.sqlite3")
        (schema,) = database.execute("SELECT schema_str FROM collections").fetchone()
    assert '"sync_threshold":1000000000' in schema


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a collection of 300 rows that was closed in order."""
    folder = tmp_path_factory.mktemp("loaded")
    load(a_target(folder), some_rows(numbered(0, 300)))
    return folder


def _index(folder: Path) -> Path:
    (found,) = [path for path in (folder / "chroma").iterdir() if path.is_dir()]
    return found


def _cut(name: str, size: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (_index(folder) / name).open("r+b") as file:
            file.truncate(size)

    return damage


def _zero(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = _index(folder) / name
        path.write_bytes(bytes(path.stat().st_size))

    return damage


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (_index(folder) / name).unlink()


def _poison(folder: Path) -> None:
    """Queue a row that the engine can never apply."""
    poison = np.ones((1, DIMENSION), dtype=np.float32)
    with plain_client(a_target(folder)) as client, pytest.raises(Exception, match="compaction"):
        client.get_collection("default").upsert(ids=["poison"], embeddings=poison, metadatas=[{"a": [math.nan]}])


FILES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]
DAMAGES: dict[str, Callable[[Path], None]] = {
    "folder gone": lambda folder: shutil.rmtree(_index(folder)),
    "poisoned queue": _poison,
    **{f"{name} gone": _remove(name) for name in FILES},
    **{f"{name} cut": _cut(name, 50) for name in FILES},
    **{f"{name} empty": _cut(name, 0) for name in FILES},
    # Zeros in link_lists.bin end the process; that is a test of the writer's.
    **{f"{name} zeros": _zero(name) for name in FILES if name != "link_lists.bin"},
}


@pytest.mark.parametrize("unclean", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_on_opening(loaded: Path, tmp_path: Path, damage: str, unclean: bool) -> None:
    """Index files that are gone, cut or zeroed, and a poisoned queue, are found, with the command that repairs them."""
    shutil.copytree(loaded, tmp_path, dirs_exist_ok=True)
    DAMAGES[damage](tmp_path)
    with pytest.raises(TargetDamaged, match=r"`upsert-cli verify --repair --collection default --chroma /"):
        open_store(a_target(tmp_path), unclean=unclean)


@pytest.mark.parametrize("count", [0, 1, 15, 33, 700])
def test_sound_collections_pass(target: Target, count: int) -> None:
    """A sound collection of any size passes the closer check, even if all its vectors are equal."""
    rows = some_rows(numbered(0, count))
    assert rows.vectors is not None
    load(target, rows)
    load(equal := replace(target, collection="equal"), replace(rows, vectors=np.ones_like(rows.vectors)))
    for one in (target, equal):
        with opened(one, unclean=True) as (_, facts):
            assert facts.count == count


# -- when Chroma cannot --------------------------------------------------------------------------------------------


def test_full_disk_is_an_error_before_anything_is_lost(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for the rows and a reserve, nothing is written; with room, the load continues."""
    usage = shutil.disk_usage(target.path.removesuffix("/chroma"))
    with opened(target) as (records, _):
        with monkeypatch.context() as full:
            full.setattr(shutil, "disk_usage", lambda _: usage._replace(free=65 << 20))
            with pytest.raises(UpsertCliError, match=f"{target.path} has 65 MiB free and 66 MiB are needed"):
                records.write(some_rows(numbered(0, 500)))
        records.write(rows := some_rows(["a"]))
    assert_holds(target, rows)


def test_all_links_are_followed_after_an_unclean_end(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that were cut off a large index are found at the next opening, unless the last writer ended in order."""
    load(target, some_rows(numbered(0, 600)))
    monkeypatch.setattr(index_files_module, "GLANCE_LINKS", 100)
    (links,) = Path(target.path).glob("*/link_lists.bin")
    os.truncate(links, links.stat().st_size - 1)
    with opened(target):
        pass
    with pytest.raises(TargetDamaged, match=r"link_lists.bin was cut"):
        open_store(target, unclean=True)


@pytest.mark.parametrize("method", ["get", "count", "upsert", "update", "modify"])
def test_a_locked_database_is_waited_for(target: Target, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Every call that finds the database locked is retried, also those that flush the index and close."""
    from chromadb.api.models.Collection import Collection
    from chromadb.errors import InternalError

    real, tries = getattr(Collection, method), []

    def locked_twice(*arguments: Any, **named: Any) -> Any:
        tries.append(1)
        if len(tries) <= 2:
            raise InternalError("error returned from database: (code: 5) database is locked")
        return real(*arguments, **named)

    monkeypatch.setattr(Collection, method, locked_twice)
    rows = some_rows(["a", "b"])
    with opened(target) as (records, _):
        records.compare(rows.ids, ["1.1", "2.2"])
        assert records.write(rows) == []
    assert len(tries) > 2
    monkeypatch.undo()
    assert_holds(target, rows)


def test_a_panic_of_the_engine_blames_no_row(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A panic of Chroma's Rust code, which is not an Exception, means a damaged collection."""
    from chromadb.api.models.Collection import Collection

    class PanicException(BaseException):  # named as pyo3 names it, which cannot be imported
        pass

    def panic(*_: Any, **__: Any) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value")

    with opened(target) as (records, _), monkeypatch.context() as broken:
        broken.setattr(Collection, "upsert", panic)
        with pytest.raises(TargetDamaged, match="unwrap"):
            records.write(some_rows(["a"]))


def test_a_collection_that_is_deleted_during_a_load(target: Target) -> None:
    """A collection that is deleted during the load is reported as gone, and no row is blamed."""
    records, _ = open_store(target)
    with plain_client(target) as client:
        client.delete_collection(target.collection)
    with pytest.raises(UpsertCliError, match="the collection default is gone"):
        records.write(some_rows(["a"]))
    records.abandon()


def test_the_environment_does_not_redirect_chroma(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables and a .env file for another Chroma do not redirect this one."""
    import chromadb  # noqa: F401  # what its own import makes of them is the writer's to prevent

    for name, value in {"PERSIST_DIRECTORY": "elsewhere", "CHROMA_API_IMPL": "no.such.Thing"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text("CHROMA_API_IMPL=no.such.Thing\nMIGRATIONS=never\n")
    monkeypatch.chdir(tmp_path)
    load(target, some_rows(["a"]))
    assert (Path(target.path) / "chroma.sqlite3").exists()
    assert not (tmp_path / "elsewhere").exists()
    for name in ("PERSIST_DIRECTORY", "CHROMA_API_IMPL"):
        monkeypatch.delenv(name)
    assert read_back(target).keys() == {"a"}
