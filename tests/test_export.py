"""`export`: the file holds each record as an item that `run` makes the same record of, or names the record."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.support.other_program import plain_chroma
from tests.support.reading import exactly, fuzz, item, rows_of
from tests.support.screens import shown
from tests.support.terminal import Terminal
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.documents.stored_items import ItemForm, item_of_record
from upsert_cli.errors import ItemError, Refusal
from upsert_cli.sources.formats import WRITTEN_FORMATS
from upsert_cli.sources.readers import item_writer
from upsert_cli.store.base import Record

SUFFIXES = {"jsonl": ".jsonl", "jsonl.gz": ".jsonl.gz", "jsonl.zst": ".jsonl.zst", "parquet": ".parquet"}

# -- any record ---------------------------------------------------------------------------------------------------

ODD = ["\u202e", "\x1b[31m", "::error::", "\ufeff", "é", "e\u0301", "\u2028", "{", "\\", '"', "\n"]
KEYS = ["text", "vector", "payload", "object_id", "item_info", "item_info.", "item_info.a", "a", "a.b", "a.", ".", " "]
texts = st.text(max_size=20) | st.sampled_from(ODD)
integers = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 2**63 - 1, 0, 1])
floats = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, -0.0, 1.0, 1e300, 5e-324, 1 / 3])
scalars = st.booleans() | integers | floats | texts
lists = st.one_of(*(st.lists(kind, min_size=1, max_size=4) for kind in (st.booleans(), integers, floats, texts)))
keys = st.sampled_from(KEYS) | st.text(min_size=1, max_size=8)
records = st.builds(
    Record,
    st.text(min_size=1, max_size=8) | st.sampled_from(["007", "-1", "true", "null", " "]),
    st.none() | texts,
    st.dictionaries(keys, scalars | lists, max_size=6),
)
vectors = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2)


@pytest.mark.parametrize("format_name", ["jsonl", "parquet"])
@fuzz(few=30, drawn=st.lists(st.tuples(records, vectors), min_size=1, max_size=8), with_vectors=st.booleans())
def test_any_record_is_read_back_or_named(
    tmp_path: Path, format_name: str, drawn: list[tuple[Record, list[float]]], with_vectors: bool
) -> None:
    """Id, document, metadata with their types and the bits of the vector are the same; a record that cannot be is refused."""
    form = ItemForm(text_field="the document", vector_field="the vector", with_vectors=with_vectors)
    written, stored = [], []
    for record, numbers in drawn:
        vector = array("f", numbers) if with_vectors else None
        try:
            written.append(form.written(item_of_record(record.id, record.text, record.metadata, vector=vector)))
        except ItemError as error:
            assert error.detail
        except Refusal as error:
            assert "--vectors --vector-field" in str(error)
            assert isinstance(record.metadata["vector"], list)
        else:
            stored.append((record, vector))
    path = tmp_path / f"a{SUFFIXES[format_name]}"
    with path.open("wb") as file, item_writer(file, format_name) as write:
        if written:
            write(written)
    recipe = Recipe(
        text_fields=("the document",),
        vector_field="the vector" if with_vectors else None,
        keep_lists=True,
        identity="m",
        model="none" if with_vectors else "a model",
    )
    found = [make_document(item(row), recipe) for row in rows_of(path)]
    assert len(found) == len(stored)
    for document, (record, vector) in zip(found, stored, strict=True):
        assert (document.id, document.text if document.has_text else None) == (record.id, record.text)
        kept = {key: value for key, value in document.metadata.items() if key != "upsert_hash"}
        assert exactly(kept) == exactly(record.metadata)
        assert (None if document.vector is None else document.vector.tobytes()) == (vector and vector.tobytes())


@pytest.mark.parametrize(
    ("text", "metadata", "vector", "reason"),
    [
        (None, {}, None, "no document"),
        (" \n", {}, None, "a blank document"),
        ("x", {"n": float("nan")}, None, "`n` would become text"),
        ("x", {"l": [1] * 1_001}, None, "`l` would become text"),
        ("x", {"#a": 1}, None, "begins with `#`"),
        ("x", {"a": "y" * (8 << 20)}, None, "8388608 are allowed"),
        ("\x00" * (2 << 20), {}, None, "larger than 8 MiB"),
        ("x", {}, [0.0, 0.0], "all zeros"),
        ("x", {}, [float("inf"), 0.0], "not finite"),
        ("x", {}, [], "no numbers"),
    ],
)
def test_a_record_that_cannot_be_read_back_is_refused(
    text: str | None, metadata: dict[str, Any], vector: list[float] | None, reason: str
) -> None:
    """The reason says why a load would reject or change the record."""
    own = None if vector is None else array("f", vector)
    with pytest.raises(ItemError, match=reason):
        ItemForm(with_vectors=vector is not None).written(item_of_record("a", text, metadata, vector=own))


# -- through the command ------------------------------------------------------------------------------------------

_FILL = """
collection = client.create_collection(
    "docs", embedding_function=None, configuration={"hnsw": {"space": "l2"}}
)
rows = json.load(sys.stdin)
collection.add(
    ids=[row["id"] for row in rows], documents=[row["document"] for row in rows],
    embeddings=[row["vector"] for row in rows], metadatas=[row["metadata"] for row in rows],
)
"""


def _fill(terminal: Terminal, rows: list[dict[str, Any]]) -> None:
    """Write records as another program does, in another process."""
    plain_chroma(terminal, _FILL, folder="old", given=rows)


def _rows(count: int = 30) -> list[dict[str, Any]]:
    """Return records of every type of metadata, some without a document."""
    return [
        {
            "id": f"id {n}",
            "document": [None, "", f"text {n}\n\u202eend"][min(n, 2)],
            "vector": [0.1 * n + 1, -1 / 3, n / 7],
            "metadata": {"n": n, "big": 2**63 - 1, "f": n / 7, "b": n % 2 == 0, "e": "", "a.b": "x", "a": n, "l": ["p", "q"]}
            | {"payload": "p", "object_id": "o", "item_info.origin": "here", "upsert_scope": "s"},
        }
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def docs(tiny: Terminal) -> Terminal:
    """Return a terminal with a collection `docs` of another program in the folder `old`."""
    _fill(tiny, _rows())
    return tiny


def _stored(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    own = ("upsert_hash", "upsert_scope")
    return {
        one: (record["document"], {key: value for key, value in record["metadata"].items() if key not in own})
        for one, record in records.items()
    }


@pytest.mark.parametrize("format_name", WRITTEN_FORMATS)
def test_an_export_is_loaded_again(docs: Terminal, format_name: str) -> None:
    """The printed command makes a collection with the same ids, documents, metadata and vectors."""
    said = docs.type(f"upsert-cli export docs a{SUFFIXES[format_name]} --chroma old --vectors").stderr
    assert "wrote 30 of 30 records" in said
    command = said[said.index("upsert-cli run") :].strip()
    assert command == f"upsert-cli run a{SUFFIXES[format_name]} --model none --keep-lists"
    docs.type(f"{command} --collection copy --task-id t")
    docs.type("upsert-cli verify t")
    read_old = "upsert-cli export docs old.jsonl --chroma old --vectors -q"
    assert docs.type(read_old).stderr == ""
    copy = docs.records("copy", vectors=True)
    rows = {row["id"]: row for row in _rows()}
    assert _stored(copy) == _stored(rows)
    for one, record in copy.items():
        np.testing.assert_allclose(record["vector"], rows[one]["vector"], rtol=1e-6)
    for line in (docs.folder / "old.jsonl").read_text().splitlines():
        exported = json.loads(line)
        wanted = np.asarray(rows[exported["object_id"]]["vector"], dtype=np.float32)
        assert np.asarray(exported["payload"]["vector"], dtype=np.float32).tobytes() == wanted.tobytes()


def test_parquet_is_a_table_for_other_programs(docs: Terminal) -> None:
    """Any reader of Parquet finds a row a record, with the payload as JSON text and the vector in it."""
    docs.type("upsert-cli export docs a.parquet --chroma old --vectors")
    table = pq.read_table(docs.folder / "a.parquet")
    assert table.column_names == ["object_id", "payload", "item_info"]
    rows = {row["id"]: row for row in _rows()}
    assert table["object_id"].to_pylist() == [*rows]
    for identifier, payload in zip(
        table["object_id"].to_pylist(), map(json.loads, table["payload"].to_pylist()), strict=True
    ):
        assert payload.get("text") == rows[identifier]["document"]
        np.testing.assert_allclose(payload["vector"], rows[identifier]["vector"], rtol=1e-6)


def test_vectors_of_a_cosine_collection_come_back_bit_by_bit(tiny: Terminal) -> None:
    """Such an index rounds its input; a loaded export has exactly the vectors of the original collection."""
    rows = [row["vector"] for row in _rows()]
    items = [{"object_id": str(n), "payload": {"text": "x", "vector": vector}} for n, vector in enumerate(rows)]
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --model none --collection mine")
    tiny.type("upsert-cli export mine a.parquet --vectors")
    tiny.type("upsert-cli run a.parquet --model none --collection copy")
    mine, copy = tiny.records("mine", vectors=True), tiny.records("copy", vectors=True)
    assert any(mine[str(n)]["vector"] != np.float32(vector).tolist() for n, vector in enumerate(rows))
    assert {one: record["vector"] for one, record in copy.items()} == {
        one: record["vector"] for one, record in mine.items()
    }


def test_without_vectors_the_documents_are_embedded_again(docs: Terminal) -> None:
    """A record without a document is named and omitted, with exit code 3; the others are embedded by the model."""
    done = docs.type("upsert-cli export docs a.jsonl --chroma old --json", expect=3)
    outcome = json.loads(done.stdout)
    assert (outcome["records"], outcome["refused"]["count"], outcome["changed"]) == (28, 2, False)
    assert outcome["refused"]["first"][0]["id"] == "id 0"
    assert "id 1 is not in the file: it has a blank document" in done.stderr
    docs.type("upsert-cli run a.jsonl --keep-lists --collection copy")
    rows = {row["id"]: row for row in _rows()[2:]}
    assert _stored(docs.records("copy")) == _stored(rows)


def test_a_collection_of_our_own_is_copied(tiny: Terminal) -> None:
    """The model, the hashes' own keys and the items' info come back as they were loaded."""
    items = [
        {"object_id": f"i{n}", "payload": {"text": f"t {n}", "n": n, "d": {"e": 0.1 * n}}, "item_info": {"o": "x"}}
        for n in range(5)
    ]
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --scope s")
    tiny.type("upsert-cli export default b.jsonl")
    exported = [json.loads(line) for line in (tiny.folder / "b.jsonl").read_text().splitlines()]
    assert sorted(exported, key=lambda one: one["object_id"])[3] == items[3] | {
        "payload": {"text": "t 3", "n": 3, "d.e": 0.1 * 3}
    }
    tiny.type("upsert-cli run b.jsonl --scope s --task-id again")
    assert tiny.info("again")["counts"]["unchanged"] == 5


def test_chunks_are_joined_unless_their_vectors_are_written(tiny: Terminal) -> None:
    """With vectors, each chunk of an item is exported and loaded separately; without, the item is."""
    text = "".join(f"{number} is the number of this sentence. " for number in range(9))
    whole = {"object_id": "a", "payload": {"text": text, "n": 1}}
    tiny.write("a.jsonl", [whole])
    tiny.type("upsert-cli run a.jsonl --split --max-tokens 16")
    chunks = tiny.records()
    assert len(chunks) > 3
    assert f"wrote {len(chunks)} of" in tiny.type("upsert-cli export default b.jsonl --vectors").stderr
    tiny.type("upsert-cli run b.jsonl --collection copy")
    assert _stored(tiny.records("copy")) == _stored(chunks)
    assert [json.loads(line) for line in tiny.type("upsert-cli export default -").stdout.splitlines()] == [whole]


def test_what_is_written_can_be_chosen(docs: Terminal) -> None:
    """A filter, a number of records, the names of the fields, and standard output."""
    lines = docs.type(
        'upsert-cli export docs - --chroma old --where \'{"n": {"$gte": 20}}\' --limit 3 --text-field body'
    ).stdout.splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["payload"]["body"].startswith("text 2") for line in lines)
    for line in (
        "docs a.txt",
        "docs a.csv",
        "docs - --format parquet",
        "docs - --json",
        "docs a.jsonl --vector-field v",
        "docs a.jsonl --vectors --vector-field text",
        "docs a.jsonl --where 1",
        "docs a.jsonl --limit 0",
    ):
        docs.type(f"upsert-cli export {line} --chroma old", expect=2)
    docs.type('upsert-cli export docs a.jsonl --chroma old --where \'{"n": {"$no": 1}}\'', expect=2)
    assert not (docs.folder / "a.jsonl").exists()


def test_a_pipe_is_written_by_its_name(docs: Terminal) -> None:
    """`/dev/stdout` and the pipes that a shell names, such as `>(gzip > FILE)`, take the records directly."""
    done = docs.type("upsert-cli export docs /dev/stdout --format jsonl --chroma old --vectors -q")
    assert len(done.stdout.splitlines()) == 30
    line = "bash -c '%s export docs >(cat > a.jsonl) --format jsonl --chroma old --vectors -q; wait $!'"
    docs.type(line % " ".join(docs.arguments("upsert-cli")))
    assert (docs.folder / "a.jsonl").read_text() == done.stdout


@pytest.mark.parametrize(
    ("metadata", "remedy"),
    [
        ({"text": "own"}, "--text-field document"),
        ({"vector": [1, 2]}, "--vectors --vector-field embedding"),
    ],
)
def test_a_key_that_a_load_would_take_for_another_is_refused(
    tiny: Terminal, metadata: dict[str, Any], remedy: str
) -> None:
    """Nothing is written, an older file stays, and the named option makes an export that is read back exactly."""
    rows = [row | {"metadata": row["metadata"] | metadata} for row in _rows()[2:]]
    _fill(tiny, rows)
    (tiny.folder / "a.jsonl").write_text("older")
    said = tiny.type("upsert-cli export docs a.jsonl --chroma old", expect=4).stderr
    assert f"`{remedy}`" in said
    assert (tiny.folder / "a.jsonl").read_text() == "older"
    assert [path.name for path in tiny.folder.glob(".a*")] == []
    said = tiny.type(f"upsert-cli export docs a.jsonl --chroma old {remedy}").stderr
    tiny.type(f"{said[said.index('upsert-cli run') :].strip()} --collection copy")
    assert _stored(tiny.records("copy")) == _stored({row["id"]: row for row in rows})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("dosc a.jsonl --chroma old", "did you mean docs?"),
        ("docs a.jsonl --chroma none", "there is no"),
        ("docs /dev/full --format jsonl --chroma old --vectors", "No space left on device"),
        ("docs no/a.jsonl --chroma old --vectors", "No such file or directory"),
    ],
)
def test_an_export_that_cannot_be_made(docs: Terminal, line: str, message: str) -> None:
    """The reason is one line, the code is 1, and nothing is left."""
    error = docs.type(f"upsert-cli export {line}", expect=1).stderr
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(docs.folder.glob("*.jsonl"))
    assert not (docs.folder / "none").exists()


@pytest.mark.parametrize("options", ["", "--format jsonl.zst", "--limit 1"])
def test_a_standard_output_that_takes_nothing(docs: Terminal, options: str) -> None:
    """The export fails, however few records are in the buffer that cannot be written."""
    with Path("/dev/full").open("w") as full:
        process = docs.start(f"upsert-cli export docs - --chroma old --vectors {options}", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    (error,) = errors.splitlines()
    assert error.startswith("error: standard output cannot be written (No space left on device)")


def test_no_bar_disturbs_records_on_a_terminal(tiny: Terminal) -> None:
    """Records that are exported to a terminal all stay on it."""
    tiny.write("a.jsonl", [{"object_id": f"x{n}", "payload": {"text": f"text {n}"}} for n in range(250)])
    tiny.type("upsert-cli run a.jsonl -q")
    lines = shown(tiny, "upsert-cli export default -", columns=100)
    found = [json.loads(line)["object_id"] for line in lines if line.startswith("{")]
    assert sorted(found) == sorted(f"x{n}" for n in range(250))
    assert lines[len(found) :] == ["wrote 250 of 250 records to -"]
