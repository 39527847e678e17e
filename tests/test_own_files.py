"""Files from other tools, loaded by the whole command and compared with plain Python's reading."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import signal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.terminal import Terminal
from tests.support.web_servers import web_server


def _rows(count: int = 40) -> list[dict[str, str]]:
    return [
        {"id": str(n), "title": f"Title, {n}", "body": f'line one of {n}\nand "two"', "year": str(2000 + n)}
        for n in range(count)
    ]


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _without_hash(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record["metadata"].items() if key != "upsert_hash"}


def test_a_table_by_a_template(tiny: Terminal) -> None:
    """A CSV loads by a template, and the same rows, compressed, piped in or by a map, are unchanged."""
    text = _csv(_rows())
    (tiny.folder / "a.csv").write_text(text, newline="")
    (tiny.folder / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tiny.folder / "map.toml").write_text(
        'format = "csv"\nid-field = "id"\ntemplate = "title: {title}\\n{body}"\nmetadata-fields = ["year", "title"]\n'
    )
    options = r"--id-field id --template 'title: {title}\n{body}' --metadata-fields year,title"
    tiny.type(f"upsert-cli run a.csv --task-id t {options}")
    records = tiny.records()
    assert {one: record["document"] for one, record in records.items()} == {
        row["id"]: f"title: {row['title']}\n{row['body']}" for row in csv.DictReader(io.StringIO(text, newline=""))
    }
    assert _without_hash(records["7"]) == {"year": "2007", "title": "Title, 7"}
    tiny.type("upsert-cli run a.csv --task-id t --map map.toml --format csv", expect=4)  # the format is another option
    tiny.type(f"upsert-cli run a.csv --task-id t {options}")
    tiny.type(f"upsert-cli run - --format csv.gz --task-id piped {options}", stdin=gzip.compress(text.encode()))
    tiny.type("upsert-cli run - --map map.toml --task-id mapped", stdin=text)
    for task in ("piped", "mapped"):
        assert tiny.info(task)["counts"]["unchanged"] == len(records)
    tiny.type("upsert-cli restart t --from-start")
    assert tiny.info("t")["counts"]["unchanged"] == len(records)


def test_shards_without_ids(tiny: Terminal) -> None:
    """Parquet shards without ids load with ids made from their rows, lists stay lists, and the ids are stable."""
    (tiny.folder / "hub").mkdir()
    rows = [{"text": f"text {n}", "label": n % 3, "tags": ["a", f"t{n}"], "meta": {"lang": "en"}} for n in range(30)]
    for shard in range(3):
        pq.write_table(
            pa.Table.from_pylist(rows[shard::3]), tiny.folder / f"hub/train-{shard}.parquet", row_group_size=4
        )
    tiny.type("upsert-cli run hub --id-from row --keep-lists")
    records = tiny.records()
    assert {one: record["document"] for one, record in records.items()} == {
        f"train-{shard}.parquet:{row}": one["text"]
        for shard in range(3)
        for row, one in enumerate(rows[shard::3], start=1)
    }
    expected = {"label": 0, "tags": ["a", "t3"], "meta.lang": "en"}
    assert _without_hash(records["train-0.parquet:2"]) == expected
    tiny.type("upsert-cli run hub --id-from row --keep-lists --task-id again")
    assert tiny.info("again")["counts"]["unchanged"] == len(rows)
    said = tiny.type("upsert-cli run hub --id-from row --task-id again", expect=4).stderr
    assert "(--keep-lists: given, now not given)" in said


def test_items_that_bring_their_vectors(tiny: Terminal) -> None:
    """Own vectors are stored and verified; a change is noticed, and another dimension is a reject."""
    own = [[float(n == place) + 0.25 for place in range(384)] for n in range(6)]
    rows: list[dict[str, Any]] = [{"id": f"own{n}", "text": f"text {n}", "emb": vector} for n, vector in enumerate(own)]
    tiny.write("a.jsonl", [*rows, {"id": "embedded", "text": "no vector"}, {"id": "bad", "text": "x", "emb": [1.0]}])
    options = "--id-field id --vector-field emb"
    said = tiny.type(f"upsert-cli run a.jsonl --task-id t --verify {options}", expect=3).stderr
    assert "payload.emb has 1 numbers, and those of the model sentence-transformers/all-MiniLM-L6-v2 have 384" in said
    records = tiny.records(vectors=True)
    assert records.keys() == {*(row["id"] for row in rows), "embedded"}
    for row in rows:
        record = records[row["id"]]
        assert (record["document"], _without_hash(record)) == (row["text"], {})
        assert max(abs(a - b) for a, b in zip(record["vector"], row["emb"], strict=True)) < 1e-5
    rows[2]["emb"] = own[5][::-1]
    tiny.write("a.jsonl", [*rows, {"id": "embedded", "text": "no vector"}])
    tiny.type(f"upsert-cli run a.jsonl --task-id u {options}")
    assert (tiny.info("u")["counts"]["updated"], tiny.info("u")["counts"]["unchanged"]) == (1, 6)
    assert (
        max(abs(a - b) for a, b in zip(tiny.records(vectors=True)["own2"]["vector"], own[5][::-1], strict=True)) < 1e-5
    )


def test_a_mapping_that_does_not_fit_makes_no_task(tiny: Terminal) -> None:
    """A wrong mapping exits with 2 and the fields that there are, and neither a task nor a collection is made."""
    (tiny.folder / "a.csv").write_text("id,title\n1,x\n")
    tiny.write("a.json", [{"object_id": "a", "payload": {"text": "x"}}])
    for line, said in {
        "a.csv": "there is no `object_id`, it has `id`, `title`",
        "a.csv --id-field key": "there is no `key`, it has `id`, `title`",
        "a.csv --id-field id": "the payload has no `text`, it has `title`",
        "a.csv --id-field id --template '{titel}'": "the payload has no `titel`, it has `title`",
        "a.csv --id-field id --template '{title'": "names no field",
        "a.csv --id-field id --id-from row": "give only that",
        "a.json": "--format jsonl",
    }.items():
        error = tiny.type(f"upsert-cli run {line}", expect=2).stderr
        assert said in error
        assert len(error.splitlines()) == 1
    assert json.loads(tiny.type("upsert-cli list --json").stdout) == []
    assert not (tiny.folder / "chroma").exists()
    tiny.type("upsert-cli run a.json --format jsonl")


def test_a_load_from_a_web_server_that_is_killed_goes_on_by_a_range(tiny: Terminal) -> None:
    """After kill -9, a restart requests only the bytes after the checkpoint; the secret in the address is not shown."""
    items = [json.dumps({"object_id": f"i{n}", "payload": {"text": f"text {n} " + "x" * 12_000}}) for n in range(400)]
    content = "".join(f"{item}\n" for item in items).encode()
    with web_server() as web:
        web.files["/a.jsonl"] = content
        web.pause = 0.02
        line = f"upsert-cli run {web.address}/a.jsonl?token=s3cret --task-id t --batch-size 100"
        process = tiny.start(line)
        tiny.wait_for_rows("t")
        os.killpg(process.pid, signal.SIGKILL)
        said = "".join(process.communicate(timeout=60))
        web.pause = 0.0
        web.asked.clear()
        said += tiny.type("upsert-cli restart t").stderr
        [wanted] = {wanted for _, wanted in web.asked} - {"bytes=0-0"}  # which asks for the file's size and tag
        assert re.fullmatch(r"bytes=[1-9]\d*-", str(wanted))
        assert "s3cret" not in said
        tiny.type("upsert-cli restart t --from-start")
        web.files["/a.jsonl"] = content + b"\n"
        refused = tiny.type(line, expect=4).stderr
        assert "a.jsonl" in refused
        assert (
            "s3cret" not in refused + tiny.type("upsert-cli info t").stdout + tiny.type("upsert-cli list --json").stdout
        )
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["failed"]) == (400, 0)
    assert len(tiny.records()) == 400
