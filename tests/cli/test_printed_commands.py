"""Every printed command works when pasted: it repeats the options that choose the journal and the settings."""

from __future__ import annotations

import ast
import html
import json
import re
import shlex
from pathlib import Path

import click
import pytest

import upsert_cli
from tests.support.journal_tasks import make_task
from tests.support.terminal import Terminal
from upsert_cli.cli.display.next_steps import query_others
from upsert_cli.cli.root import cli
from upsert_cli.journal.journal import Journal
from upsert_cli.report.printed_commands import PrintedCommands

BAD = {"object_id": "a", "payload": {"text": ""}}
GOOD = {"object_id": "b", "payload": {"text": "good"}}
COMPLETED = ("command", "print_command", "NextStep")  # functions that complete a command, or whose callers do
TYPED = "--journal 'my journal' --config set.toml --profile night"

PRINTED = re.compile(
    r"`(upsert-cli [a-z](?:[^`'\"]|'[^']*')*)`|<code>(upsert-cli [^<]*)</code>|^  .*: (upsert-cli [a-z].*)$",
    re.MULTILINE,
)


@pytest.fixture
def typed(tiny: Terminal) -> Terminal:
    """Return a terminal with a settings file, and no variable that names a journal."""
    (tiny.folder / "set.toml").write_text("[profile.night.run]\nbatch-size = 7\n")
    tiny.env["UPSERT_CLI_JOURNAL"] = ""
    tiny.write("bad.jsonl", [BAD, GOOD])
    return tiny


def _commands(text: str) -> list[str]:
    return ["".join(found) for found in PRINTED.findall(html.unescape(text))]


def _carry_all(commands: list[str]) -> bool:
    return bool(commands) and all(command.endswith(f" {TYPED}") for command in commands)


# Each line, its exit code, and a command that it prints, with the exit code that this one ends with.
SESSION = [
    ("run bad.jsonl --task-id t -q", 3, "info t --failed", 0),
    ("run bad.jsonl --task-id t", 3, "restart t --from-start", 3),
    ("run bad.jsonl --task-id strict --max-failures 0 --json", 1, "info strict --failed", 0),
    ("list --status failed --json", 0, "restart strict --from-start", 1),
    ("info strict", 0, "info strict --failed", 0),
    ("info strict --json", 0, "info strict --failed", 0),
    ("report t --html -", 0, "info t --failed", 0),
    ("info nowhere", 1, "list", 0),
    ("run bad.jsonl --task-id later --enqueue", 0, "work", 3),
    ("cancel t", 1, "info t", 0),
    ("verify t --json", 4, "verify --collection default", 0),
]


def test_each_printed_command_repeats_the_typed_options_and_works(typed: Terminal) -> None:
    """In messages, events, tables and pages, the pasted command finds the same task."""
    for line, code, expected, ends in SESSION:
        if line.startswith("verify"):
            typed.write("bad.jsonl", [BAD, GOOD, GOOD])
        done = typed.type(f"upsert-cli {line} {TYPED}", expect=code)
        commands = _commands(done.stdout + done.stderr)
        assert _carry_all(commands), (line, commands, done.stderr)
        (pasted, *_) = [command for command in commands if command.startswith(f"upsert-cli {expected} --")]
        typed.type(pasted, expect=ends)


def test_a_printed_command_does_not_repeat_the_environment(tiny: Terminal) -> None:
    """A variable still holds when the command is pasted."""
    tiny.write("bad.jsonl", [BAD])
    assert _commands(tiny.type("upsert-cli run bad.jsonl --task-id t -q", expect=3).stderr)[0] == (
        "upsert-cli info t --failed"
    )


def test_the_summary_of_a_step_repeats_the_typed_options(typed: Terminal, tmp_path: Path) -> None:
    """The summary is read far from the command."""
    typed.env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    typed.type(f"upsert-cli run bad.jsonl --task-id t {TYPED}", expect=3)
    assert _carry_all(_commands((tmp_path / "summary.md").read_text()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("`tail -n +2 F | upsert-cli run -` loads", "`tail -n +2 F | upsert-cli run - --journal 'a b'` loads"),
        ("see `upsert-cli info t`", "see `upsert-cli info t --journal 'a b'`"),
        (
            "`upsert-cli list`, `upsert-cli work`",
            "`upsert-cli list --journal 'a b'`, `upsert-cli work --journal 'a b'`",
        ),
        ("`upsert-cli list --journal x` shows it", "`upsert-cli list --journal x` shows it"),
        ("(`upsert-cli run --help` says more)", "(`upsert-cli run --help` says more)"),
        ("another upsert-cli run", "another upsert-cli run"),
        ("the `text` of `upsert-cli`", "the `text` of `upsert-cli`"),
        ("`upsert-cli verify --chroma 'x`y'`", "`upsert-cli verify --chroma 'x`y' --journal 'a b'`"),
    ],
)
def test_only_commands_between_backticks_are_completed(text: str, shown: str) -> None:
    """Mere mentions of the program, and `--help`, stay unchanged."""
    assert PrintedCommands((("--journal", "a b"),)).complete(text) == shown


def test_text_of_a_file_is_not_completed(typed: Terminal) -> None:
    """Text in a row that looks like a command is data."""
    lure = "`upsert-cli info t`"
    (typed.folder / "lure.jsonl").write_text(json.dumps({"object_id": lure, "payload": {"text": ""}}) + "\n")
    line = f"upsert-cli run lure.jsonl --task-id lure --json {TYPED}"
    events = [json.loads(event) for event in typed.type(line, expect=3).stdout.splitlines()]
    (reject,) = [event for event in events if event["type"] == "reject"]
    assert reject["object_id"] == events[-1]["failed_items"][0]["object_id"] == lure


def test_every_command_in_a_message_is_completed() -> None:
    """Every command is between backticks or passed to `command`, except in help and docstrings."""
    package = Path(upsert_cli.__file__).parent
    loose = re.compile(
        r"(?<![`\w])(?<!\| )upsert-cli (run|info|list|restart|cancel|work|verify|query|report|prune|journal) "
    )
    found = []
    for path in package.rglob("*.py"):
        tree = ast.parse(path.read_text())
        exempt = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        exempt |= {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", None)) in COMPLETED
            for part in ast.walk(node)
        }
        exempt |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "epilog"}
        parts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        found += [
            f"{path.relative_to(package)}:{node.lineno}: {node.value!s}"
            for node in parts
            if id(node) not in exempt and loose.search(str(node.value))
        ]
    # Those two functions return a command alone, and their callers complete it.
    assert [line for line in found if not re.search(": upsert-cli (verify --repair|restart) ", line)] == []


def test_a_completed_command_is_quoted_for_the_shell() -> None:
    """Names of folders and profiles may contain any characters."""
    odd = PrintedCommands((("--journal", "it's; a $(journal)"), ("--profile", "p q")))
    assert shlex.split(odd.command("upsert-cli info t")) == [
        *("upsert-cli", "info", "t", "--journal", "it's; a $(journal)"),
        *("--profile", "p q"),
    ]


def test_a_collection_that_cannot_be_looked_at_may_have_records(tmp_path: Path) -> None:
    """A load whose target stops answering is followed by a query, not by the claim that there are no records."""
    task = make_task(chroma=str(tmp_path / "gone"))
    with click.Context(cli, info_name="upsert-cli"):
        (step,) = query_others(Journal(tmp_path), task)
    assert step.command == f"upsert-cli query 'your text' --chroma {tmp_path / 'gone'} --model {task.model}"
