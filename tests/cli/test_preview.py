"""`preview`: the records of the first rows, exactly as a load stores them, and nothing written."""

from __future__ import annotations

import gzip
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.support.items import Items
from tests.support.reading import exactly
from tests.support.screens import shown as screen_of
from tests.support.terminal import SAMPLES, Terminal

VECTOR = [0.5, *[0.0] * 383]
HOSTILE = "\x1b[31mred\u202e\n::error::no\n[bold]x[/bold]"


def _entries(terminal: Terminal, line: str, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(text) for text in terminal.type(f"{line} --json", **options).stdout.splitlines()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*"))


@pytest.mark.parametrize(
    "load",
    [
        "articles.jsonl",
        "articles.parquet",
        "products.csv --id-field sku --template 'product: {title}\\n{body}'",
        "posts.jsonl.gz --id-field id --text-field title --text-field body.plain --metadata-fields title,score,author",
        "reviews.parquet --id-from row --text-field review --keep-lists",
        "tickets.jsonl --map tickets.toml",
        "articles.jsonl --split --max-tokens 32 --average",
    ],
)
def test_a_preview_shows_what_the_load_stores(tiny: Terminal, load: str) -> None:
    """Id, document and metadata of each record are to the letter those that the load then stores, its hash included."""
    line = " ".join(
        str(SAMPLES / word) if (SAMPLES / word).exists() else shlex.quote(word) for word in shlex.split(load)
    )
    shown = [each for each in _entries(tiny, f"upsert-cli preview {line} --limit 5") if each["type"] == "record"]
    assert len(shown) >= 4
    tiny.type(f"upsert-cli run {line} --limit 5")
    stored = tiny.records()
    for each in shown:
        assert exactly({"document": each["document"], "metadata": each["metadata"]}) == exactly(stored[each["id"]])


def test_each_row_has_one_outcome(terminal: Terminal) -> None:
    """A record, a row that a later one replaces, and a reject with its reason, in the order of the rows."""
    path = terminal.write(
        "a.jsonl",
        [
            {"object_id": "a", "payload": {"text": "first"}},
            {"object_id": "bad", "payload": {"text": ""}},
            {"object_id": "a", "payload": {"text": "second"}},
            {"object_id": "v", "payload": {"text": "own", "vector": VECTOR}},
        ],
    )
    with path.open("a") as file:
        file.write("no json\n")
    shown = _entries(terminal, "upsert-cli preview a.jsonl --limit 9")
    assert [(each["type"], each["row"]) for each in shown] == [
        ("duplicate", 1), ("reject", 2), ("record", 3), ("record", 4), ("reject", 5),
    ]  # fmt: skip
    assert shown[1]["detail"] == "payload.text is empty"
    assert shown[4]["line"] == "no json"
    assert (shown[2]["tokens"], shown[2]["max_tokens"], shown[2]["truncated"]) == (3, 256, False)
    assert (shown[3]["vector"], shown[3]["tokens"], shown[3]["truncated"]) == (VECTOR, None, False)


def test_converted_values_are_named_with_their_kinds(terminal: Terminal) -> None:
    """A value that becomes text has its field and the kind that it had; a null is left out as ever."""
    payload = {
        "text": "x",
        "tags": ["p"],
        "o": [{"k": 1}],
        "big": 2**70,
        "null": None,
        "year": 2024,
        "in": {"l": [], "d.t": [2]},
    }
    terminal.write("a.jsonl", [{"object_id": "a", "payload": payload, "item_info": {"l": [1]}}])
    [record] = _entries(terminal, "upsert-cli preview a.jsonl")
    assert {each["field"]: each["kind"] for each in record["converted"]} == {
        "tags": "a list", "o": "a list", "big": "an integer beyond 64 bits", "in.l": "a list",
        "in.d.t": "a list", "item_info.l": "a list",
    }  # fmt: skip
    assert "null" not in record["metadata"]
    printed = terminal.type("upsert-cli preview a.jsonl").stdout.splitlines()
    assert 'metadata\ttags\tJSON text of a list\t["p"]' in printed
    assert "metadata\tyear\tinteger\t2024" in printed


def test_a_text_that_the_model_truncates_is_marked(terminal: Terminal) -> None:
    """A text with more tokens than the model reads is marked; with --split the chunks fit."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "many words " * 200}}])
    [record] = _entries(terminal, "upsert-cli preview a.jsonl")
    assert record["truncated"] is True
    assert "the model truncates the document" in terminal.type("upsert-cli preview a.jsonl").stdout
    chunks = _entries(terminal, "upsert-cli preview a.jsonl --split")
    assert [each["id"] for each in chunks] == [f"a#{number}" for number in range(len(chunks))]
    assert all(each["tokens"] <= 256 and not each["truncated"] for each in chunks)
    assert "".join(each["document"] for each in chunks) == "many words " * 200


def test_nothing_is_needed_and_nothing_is_written(terminal: Terminal, make_items: Items, tmp_path: Path) -> None:
    """Without a model, a journal or write access, the records are shown with a note about missing token counts."""
    terminal.env |= {"UPSERT_CLI_MODEL_CACHE": str(tmp_path / "none"), "UPSERT_CLI_JOURNAL": str(tmp_path / "journal")}
    terminal.env |= {"https_proxy": "http://127.0.0.1:9", "HF_ENDPOINT": "http://127.0.0.1:9"}
    terminal.write("a.jsonl", make_items(5))
    before = _files(tmp_path)
    done = terminal.type("upsert-cli preview a.jsonl --json")
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["tokens"] for each in shown] == [None] * 3
    assert all("upsert_hash" in each["metadata"] for each in shown)
    assert "the tokenizer of sentence-transformers/all-MiniLM-L6-v2 is not on this machine" in done.stderr
    assert "models fetch" in terminal.type("upsert-cli preview a.jsonl --split", expect=1).stderr
    other = terminal.type("upsert-cli preview a.jsonl --model BAAI/bge-small-en-v1.5 --json")
    assert "without tokens and upsert_hash" in other.stderr
    assert "upsert_hash" not in other.stdout
    assert _files(tmp_path) == before


def test_a_tokenizer_is_enough(terminal: Terminal, tiny_model: Path) -> None:
    """Tokens are counted by a folder that has a tokenizer and no weights."""
    folder = terminal.folder / "tokenizer"
    folder.mkdir()
    for path in tiny_model.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "none")
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello world"}}])
    assert _entries(terminal, "upsert-cli preview a.jsonl --model-path tokenizer")[0]["tokens"] == 4


def test_a_mapping_that_does_not_fit_is_refused_as_by_run(terminal: Terminal) -> None:
    """The same error as of `run`, with the fields that there are."""
    line = f"{SAMPLES / 'products.csv'} --id-field sku"
    errors = [terminal.type(f"upsert-cli {command} {line}", expect=2).stderr for command in ("preview", "run")]
    assert errors[0].replace("preview", "run") == errors[1]
    assert "`title`, `body`" in errors[0]
    terminal.type(f"upsert-cli preview {line} --template {{title}} --overlap 3", expect=2)


def test_streams_are_read_as_far_as_needed(terminal: Terminal, make_items: Items) -> None:
    """Standard input and pipes are previewed too, compressed ones and an endless one among them."""
    lines = "".join(json.dumps(item) + "\n" for item in make_items(9)).encode()
    ids = [item["object_id"] for item in make_items(3)]
    for given, options in ((lines, ""), (gzip.compress(lines), "--format jsonl.gz")):
        shown = _entries(terminal, f"upsert-cli preview - {options}", stdin=given)
        assert [each["id"] for each in shown] == ids
    program = "upsert-cli preview - --limit 1 --json"
    endless = f"yes {shlex.quote(json.dumps(make_items(1)[0]))} | {shlex.join(terminal.arguments(program))}"
    done = terminal.type(f"bash -c {shlex.quote(endless)}")
    assert json.loads(done.stdout)["id"] == ids[0]


def test_rows_before_a_break_are_shown(terminal: Terminal, make_items: Items) -> None:
    """A file that breaks off shows what can be read, then the error that a load would end with."""
    lines = "".join(json.dumps(item) + "\n" for item in make_items(3_000)).encode()
    whole = gzip.compress(lines)
    (terminal.folder / "a.jsonl.gz").write_bytes(whole[: len(whole) // 20])
    terminal.type("upsert-cli preview a.jsonl.gz")
    done = terminal.type("upsert-cli preview a.jsonl.gz --limit 1000 --json", expect=1)
    assert len(done.stdout.splitlines()) > 3
    assert "a.jsonl.gz" in done.stderr


def test_settings_of_run_count_except_its_limit(terminal: Terminal) -> None:
    """The mapping in `[run]` applies to `preview` too, but `limit` belongs to each command alone."""
    (terminal.folder / "upsert-cli.toml").write_text('[run]\nid-field = "n"\nlimit = 1\nbatch-size = 7\n')
    terminal.env["UPSERT_CLI_RUN_TEXT_FIELD"] = "body"
    terminal.write("a.jsonl", [{"n": number, "body": "x"} for number in range(9)])
    assert [each["id"] for each in _entries(terminal, "upsert-cli preview a.jsonl")] == ["0", "1", "2"]
    (terminal.folder / "upsert-cli.toml").write_text('[preview]\nlimit = 2\n[run]\nid-field = "n"\n')
    assert len(_entries(terminal, "upsert-cli preview a.jsonl")) == 2


def test_a_preview_is_readable_at_80_columns(terminal: Terminal) -> None:
    """Ids and numbers are whole, long texts end in an ellipsis, and no line is wider than the terminal."""
    payload = {"text": f"{'word ' * 300}\nend", "number": 1234567890123, "long": "v" * 200, "flag": True}
    terminal.write("a.jsonl", [{"object_id": "k" * 76, "payload": payload}, {"object_id": "bad"}])
    screen = screen_of(terminal, "upsert-cli preview a.jsonl", columns=80)
    text = "\n".join(screen)
    assert "k" * 70 in text and "1234567890123" in text
    assert text.count("…") >= 2
    assert "rejected  on_reading: payload.text is missing" in text


def test_the_fields_of_a_reject_are_not_those_of_its_row(terminal: Terminal) -> None:
    """For a reject without a text, the message does not offer the fields that describe the reject."""
    fields = {"detail": "payload.text is missing", "failure_stage": "on_reading", "source": "a.jsonl", "row": 1}
    terminal.write("rejects.jsonl", [{"object_id": "a", "payload": None, "item_info": None} | fields])
    errors = terminal.type("upsert-cli preview rejects.jsonl", expect=2).stderr
    assert "row 1: the payload has no `text`, it is empty; --text-field names the text" in errors


def test_hostile_text_is_only_shown(terminal: Terminal) -> None:
    """No escape sequence, markup or workflow command of a file has an effect, on a terminal and in a pipe."""
    item = {"object_id": HOSTILE, "payload": {"text": HOSTILE, HOSTILE.replace(".", ""): HOSTILE}}
    terminal.write("a.jsonl", [item, {"object_id": 3, HOSTILE: 1}])
    for line in ("upsert-cli preview a.jsonl", "upsert-cli preview a.jsonl --json"):
        printed = terminal.type(line).stdout
        assert "\x1b" not in printed and "\u202e" not in printed
        assert not any(each.lstrip().startswith("::") for each in printed.splitlines())
    text = "\n".join(screen_of(terminal, "upsert-cli preview a.jsonl", columns=80))
    assert "[bold]x[/bold]" in text
    assert not any(each.lstrip().startswith("::") for each in text.splitlines())
    [record, _] = _entries(terminal, "upsert-cli preview a.jsonl")
    assert record["document"] == HOSTILE
