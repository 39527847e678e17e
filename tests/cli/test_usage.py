"""What is typed wrong: one line, the option or the variable that it came from, and the events that were asked for."""

from __future__ import annotations

import importlib
import json

import click
import pytest

from tests.conftest import Terminal
from upsert_cli.cli import COMMANDS

WRONG = [
    "upsert-cli run a.jsonl --json --batch-size many",
    "upsert-cli run --json",
    "upsert-cli run a.jsonl --json --no-such-option",
    "upsert-cli categories run a.jsonl --json --max-failures 5x",
    "upsert-cli restart t --json --from-start --failed-only",
    "upsert-cli restart .hidden --json",
    "upsert-cli work --json --once --watch",
    "upsert-cli run a.jsonl --json --task-id",
]


@pytest.mark.parametrize("line", WRONG)
def test_events_end_with_a_summary_also_for_what_is_typed_wrong(terminal: Terminal, line: str) -> None:
    """With --json the error and the summary are printed as for any other failure, and the error once for people."""
    done = terminal.type(line, expect=2)
    events = [json.loads(text) for text in done.stdout.splitlines()]
    assert [event["type"] for event in events] == ["error", "summary"]
    assert {event["exit_code"] for event in events} == {2}
    (shown,) = done.stderr.splitlines()
    assert shown.startswith("error: ")
    assert "--help`" in shown


def test_events_may_be_asked_for_by_the_environment(terminal: Terminal) -> None:
    """UPSERT_CLI_RUN_JSON counts as --json also where the options cannot be read, for both commands that load."""
    terminal.env["UPSERT_CLI_RUN_JSON"] = "yes"
    for command in ("run", "categories run"):
        done = terminal.type(f"upsert-cli {command} a.jsonl --threads 0", expect=2)
        assert [json.loads(text)["type"] for text in done.stdout.splitlines()] == ["error", "summary"]


@pytest.mark.parametrize(
    "line",
    [
        "run a.jsonl --threads 0",
        "run a.jsonl --no-such-option",
        "run",
        "categories run a.jsonl --max-tokens 9",
        "run a.jsonl --template '{'",
        "run a.jsonl --profile loud",
        "run a.jsonl --profile none",
    ],
)
@pytest.mark.parametrize("where", ["upsert-cli.toml", "elsewhere.toml"])
def test_events_may_be_asked_for_by_a_file(terminal: Terminal, line: str, where: str) -> None:
    """`json = true` in a file of settings counts as --json also where an option, or another setting, cannot be meant."""
    (terminal.folder / where).write_text("[run]\njson = true\n[profile.loud.run]\nlowd = 1\n")
    named = f" --config {where}" if where == "elsewhere.toml" else ""
    done = terminal.type(f"upsert-cli {line}{named}", expect=2)
    if "none" in line:  # no file of settings that can be used says what is wanted
        assert done.stdout == ""
        return
    assert [json.loads(text)["type"] for text in done.stdout.splitlines()] == ["error", "summary"]
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "line"),
    [
        ("UPSERT_CLI_RUN_BATCH_SIZE", "upsert-cli run a.jsonl"),
        ("UPSERT_CLI_RUN_BATCH_SIZE", "upsert-cli categories run a.jsonl"),
        ("UPSERT_CLI_CATEGORIES_RUN_BATCH_SIZE", "upsert-cli categories run a.jsonl"),
        ("UPSERT_CLI_PROGRESS", "upsert-cli list"),
        ("UPSERT_CLI_LIST_LIMIT", "upsert-cli list"),
    ],
)
def test_a_bad_variable_is_named(terminal: Terminal, variable: str, line: str) -> None:
    """A value that nobody typed is found by the name of the variable it stands in."""
    terminal.env[variable] = "none at all"
    assert f"environment variable {variable}" in terminal.type(line, expect=2).stderr


def test_a_bad_option_is_not_blamed_on_a_variable(terminal: Terminal) -> None:
    """What was typed beats the environment, and is what the error speaks of."""
    terminal.env["UPSERT_CLI_PROGRESS"] = "none"
    shown = terminal.type("upsert-cli list --progress wild", expect=2).stderr
    assert "'--progress'" in shown
    assert "UPSERT_CLI_PROGRESS" not in shown


def test_categories_run_takes_the_variables_of_run(terminal: Terminal) -> None:
    """Its own variable comes first; the collection and the task id, which would be wrong for it, are not shared."""
    terminal.env |= {
        "UPSERT_CLI_RUN_MODEL": "of-run",
        "UPSERT_CLI_RUN_COLLECTION": "articles",
        "UPSERT_CLI_RUN_TASK_ID": "of-run",
    }
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    assert "'of-run'" in terminal.type("upsert-cli categories run a.jsonl", expect=2).stderr
    terminal.env["UPSERT_CLI_CATEGORIES_RUN_MODEL"] = "of-its-own"
    assert "'of-its-own'" in terminal.type("upsert-cli categories run a.jsonl", expect=2).stderr
    assert terminal.type("upsert-cli list").stdout.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_commands_say(name: str) -> None:
    """`--help` loads no command, and yet shows each one's own words."""
    place, short_help = COMMANDS[name]
    module, _, function = place.partition(":")
    command = getattr(importlib.import_module(module), function)
    assert isinstance(command, click.Command)
    assert short_help.rstrip(".") == command.get_short_help_str(limit=1_000).rstrip(".")


@pytest.mark.parametrize("option", ["--chroma", "--journal", "--model-path"])
def test_an_empty_name_is_no_folder(terminal: Terminal, option: str) -> None:
    """A shell variable that was not set is refused, and never stands for the folder that one is in."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    errors = terminal.type(f"upsert-cli run a.jsonl {option} ''", expect=2).stderr
    assert f"'{option}'" in errors
    assert "it is empty" in errors
    assert sorted(path.name for path in terminal.folder.iterdir()) == ["a.jsonl"]
