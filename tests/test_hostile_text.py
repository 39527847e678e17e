"""Hostile text, wherever it comes from, is only ever shown: no command obeys it, and none falls over it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import run_python, start_python
from tests.support.terminal import Terminal, read_drawn

PIECES = {
    "markup": "[bold red]x[/bold red][link=http://e]y[/]",
    "escape": "\x1b[31mred\x1b]52;c;aGk=\x07",
    "c1": "\x9b31m\x85",
    "direction": "\u202eleft\u2066\u200f",
    "breaks": "two\nlines\r::error file=x::y\u2028\u2029\v\f",
    "workflow": "::error file=x,line=1::no",
    "surrogate": "\udcff\udc9b",  # bytes of a file name that are no UTF-8
}
ALL = "".join(PIECES.values())
NAME = ALL.replace("/", "|")  # of a file

# C0 except tab and line break, DEL, C1, and characters that set directions or break lines
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
OWN_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?=\n)")  # colors and bold, which only a terminal gets


def _assert_harmless(output: bytes, line: object) -> None:
    text = output.decode()  # which no lone surrogate survives
    found = RAW.search(text)
    assert found is None, (line, text[max(0, found.start() - 60) : found.end() + 60])
    assert not re.search(r"^\s*::", text, re.M), line
    assert "this is a bug" not in text, (line, text)


def _run(terminal: Terminal, arguments: list[str], *, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [*terminal.arguments("upsert-cli"), *arguments]
    done = run_python(command, folder=cwd or terminal.folder, environment=terminal.environment)
    assert done.returncode in (0, 1, 2, 3, 4, 5), arguments
    _assert_harmless(done.stdout + done.stderr, arguments)
    for event in done.stdout.splitlines() if "--json" in arguments else []:
        json.loads(event)
    return done


def _in_a_terminal(terminal: Terminal, arguments: list[str], *, cwd: Path) -> bytes:
    """Run a command with a terminal for stdout and stderr, and return its output without our own colors."""
    ours, theirs = pty.openpty()
    environment = terminal.environment | {"TERM": "xterm-256color", "COLUMNS": "100", "NO_COLOR": "1"}
    process = start_python(
        [*terminal.arguments("upsert-cli"), *arguments],
        folder=cwd,
        environment=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = read_drawn(ours)
    process.wait()
    os.close(ours)
    return OWN_ESCAPES.sub("", drawn.decode()).encode()


@pytest.fixture
def hostile(tiny: Terminal) -> Terminal:
    """Return a terminal in a folder, with a file, a journal and a Chroma folder of hostile names."""
    tiny.folder = tiny.folder / f"folder {NAME}"[:80]
    tiny.folder.mkdir()
    tiny.env["UPSERT_CLI_JOURNAL"] = str(tiny.folder / "state \x1b[31m\n::error::")
    text = ALL.encode("ascii", "backslashreplace").decode()  # no file of items holds a surrogate but as an escape
    valid = ALL.encode(errors="ignore").decode()
    items: list[dict[str, Any]] = [
        {"object_id": valid, "payload": {"text": valid, valid: valid, "in": {valid: [valid]}}, "item_info": {valid: 1}},
        {"object_id": f"good {ALL}", "payload": {"text": ALL, ALL: ALL, "nested": {ALL: [ALL]}}, "item_info": {ALL: 1}},
        {"object_id": f"bad {ALL}", "payload": {"text": "", ALL: ALL}},
        {"object_id": f"no text {text}", "payload": {ALL: 1}},
        {ALL: 1},
        {"object_id": "wrong", "payload": ALL},
    ]
    lines = "".join(json.dumps(item) + "\n" for item in items)
    (tiny.folder / f"{NAME}.jsonl").write_text(lines + f"not json {text}\n" + f'"{text}\n', "utf-8", "surrogateescape")
    (tiny.folder / "raw.jsonl").write_bytes(
        ALL.replace("\n", "").encode("utf-8", "surrogatepass") + b"\n\xff\xfe\x9b\n"
    )
    return tiny


def test_every_command_only_shows_hostile_text(hostile: Terminal) -> None:
    """Ids, payloads, names of files, folders, collections and models go through every command in a pipe."""
    file, chroma = f"{NAME}.jsonl", f"chroma {NAME}"[:60]
    lines = [
        ["run", file, "raw.jsonl", "--task-id", "t", "--chroma", chroma, "--json"],
        ["categories", "run", file, "--task-id", "c", "--chroma", chroma, "-v", "--max-failures", "0"],
        ["run", "raw.jsonl", "--chroma", chroma, "--text-field", ALL, "--id-field", ALL],
        ["run", "raw.jsonl", "--task-id", "t", "--chroma", chroma],
        ["info", "t"],
        ["info", "t", "--json"],
        ["info", "t", "--failed"],
        ["list"],
        ["list", "--json"],
        ["restart", "t", "--json"],
        ["restart", "c", "-v"],
        ["cancel", "t"],
        ["verify", "t", "--json"],
        ["verify", "--chroma", chroma, "--repair"],
        ["journal", "check"],
        ["journal", "repair", "--json"],
    ]
    codes = [_run(hostile, line).returncode for line in lines]
    assert codes[:2] == [3, 1]
    task = json.loads(_run(hostile, ["info", "t", "--json"]).stdout)
    assert task["counts"]["inserted"] + task["counts"]["unchanged"] == 1


def test_mistyped_text_is_shown_as_text(hostile: Terminal) -> None:
    """Options, ids, names of models and collections and environment variables are quoted without their effect."""
    piece = f"::error file=x::no\n{ALL}"
    raw = "raw.jsonl"
    model = hostile.folder / f"model {piece.replace('/', '|')}"[:60]
    model.mkdir()
    for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json"):
        (model / name).write_text(piece, "utf-8", "surrogateescape")
    lines = [
        [piece],
        ["--" + piece],
        ["run", raw, "--" + piece],
        ["run", raw, "--batch-size", piece, "--json"],
        ["run", raw, "--task-id", piece, "--json"],
        ["run", raw, "--model", piece],
        ["run", piece],
        ["run", piece, "--json"],
        ["verify", "--collection", piece, "--chroma", piece],
        ["run", raw, "--collection", piece],
        ["run", f"{NAME}.jsonl", "--model-path", str(model)],
        ["models", "check", "--model-path", str(model)],
        ["models", "check", "--model-path", "/" + piece],
        ["list", "--status", piece],
        ["info", piece],
    ]
    for line in lines:
        assert _run(hostile, line).returncode in (1, 2), line
    hostile.env["UPSERT_CLI_LIST_LIMIT"] = piece
    assert _run(hostile, ["list"]).returncode == 2


def test_a_terminal_is_not_written_to_by_hostile_text(hostile: Terminal) -> None:
    """On a terminal too, tables, pairs, bars and messages hold no control character but the tool's own colors."""
    cwd, file = hostile.folder, f"{NAME}.jsonl"
    for line in (
        ["run", file, "--task-id", "t", "--chroma", f"chroma {NAME}"[:60]],
        ["list"],
        ["info", "t"],
        ["run", ALL],
        ["list", "--status", ALL],
    ):
        drawn = _in_a_terminal(hostile, line, cwd=cwd)
        _assert_harmless(drawn.replace(b"\r", b""), line)


def test_a_damaged_journal_is_only_shown(hostile: Terminal) -> None:
    """Hostile text in the journal itself, in tasks and in names of files, is shown and not obeyed."""
    _run(hostile, ["run", "raw.jsonl", "--task-id", "t"])
    journal = Path(hostile.env["UPSERT_CLI_JOURNAL"])
    (segment,) = journal.glob("tasks-*.json")
    record = segment.read_text()
    segment.write_text(record.replace("on_reading", json.dumps(ALL)[1:-1]))
    (journal / f"tasks-000000.json.damaged-{NAME}"[:90]).write_text(ALL, "utf-8", "surrogateescape")
    (journal / "meta.json").write_text(ALL, "utf-8", "surrogateescape")
    for line in (["info", "t"], ["list"], ["journal", "check"], ["journal", "repair"], ["info", "t", "--json"]):
        _run(hostile, line)
