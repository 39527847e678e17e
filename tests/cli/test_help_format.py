"""`--help`: options and commands under headings, whole words at 80 columns, and values by their names."""

from __future__ import annotations

import re

import click
import pytest

from tests.support.terminal import Terminal
from upsert_cli.cli.help import ALL_COMMANDS, environment_variables
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.options.settings import commands_below
from upsert_cli.cli.root import SECTIONS, cli
from upsert_cli.journal.load_options import OPTIONS
from upsert_cli.journal.option_field import flag

ROOT = cli.make_context("upsert-cli", [], resilient_parsing=True)
COMMANDS = {ctx.command_path.removeprefix("upsert-cli "): ctx for ctx in commands_below(ROOT)}
GROUPS = sorted({name.split()[0] for name in COMMANDS if " " in name})
RUN_HEADINGS = [
    "Target",
    "Input",
    "Model",
    "Long texts",
    "Task",
    "Limits",
    "Writing and servers",
    "Ray",
    "Output",
    "Common options",
]


def _help(terminal: Terminal, command: str) -> str:
    terminal.env["COLUMNS"] = "80"
    return terminal.type(f"upsert-cli {command} --help".replace("  ", " ")).stdout


def _records(command: str) -> list[tuple[str, str]]:
    ctx = COMMANDS[command]
    records = [param.get_help_record(ctx) for param in ctx.command.get_params(ctx) if isinstance(param, click.Option)]
    return [record for record in records if record is not None]


def _headings(text: str) -> list[str]:
    return re.findall(r"^([A-Z][^:\n]*):$", text, re.M)


@pytest.mark.parametrize("command", ["run", "categories run"])
def test_the_options_of_a_load_are_grouped(terminal: Terminal, command: str) -> None:
    """The headings come in the order of a load, and the common options are last."""
    assert _headings(_help(terminal, command)) == RUN_HEADINGS


def test_a_load_takes_every_option_that_its_task_keeps() -> None:
    """No field of `LoadOptions` is left without a heading."""
    taken = {name for param in COMMANDS["run"].command.params for name in param.opts}
    assert set(map(flag, OPTIONS)) <= taken


@pytest.mark.parametrize("command", COMMANDS)
def test_the_common_options_are_one_short_group_at_the_end(terminal: Terminal, command: str) -> None:
    """Each of them has one line, so that a small command's help fits on a screen."""
    _, common = _help(terminal, command).split("Common options:\n")
    assert re.findall(r"^  (?:-\w, )?(--\w+)", common, re.M) == [
        "--journal",
        "--config",
        "--profile",
        "--quiet",
        "--verbose",
        "--color",
        "--progress",
        "--help",
    ]
    assert len(common.splitlines()) == 8


@pytest.mark.parametrize("command", [name for name, ctx in COMMANDS.items() if len(ctx.command.params) <= 7 + 5])
def test_the_help_of_a_small_command_fits_on_a_screen(terminal: Terminal, command: str) -> None:
    """A command with five parameters of its own or fewer takes 24 lines at most."""
    assert len(_help(terminal, command).splitlines()) <= 24


@pytest.mark.parametrize("command", ["", *GROUPS, *COMMANDS])
def test_no_word_is_broken_at_80_columns(terminal: Terminal, command: str) -> None:
    """Every word of the texts is on the screen as a whole, no sentence is cut, and no line is too long."""
    text = _help(terminal, command)
    assert max(map(len, text.splitlines())) < 80
    assert not re.search(r"[a-z]\.\.\.$", text, re.M)
    words = set(text.split())
    for record in _records(command) if command in COMMANDS else ():
        assert set(" ".join(record).split()) <= words


@pytest.mark.parametrize("command", ["", *GROUPS])
def test_summaries_are_one_whole_line(terminal: Terminal, command: str) -> None:
    """Each command of a list has one line, which ends a sentence."""
    about, _ = _help(terminal, command).split("\nOptions:")
    _, *sections = re.split(r"^[A-Z]\w+:$", about, flags=re.M)
    text = "".join(sections)
    assert text
    for line in re.findall(r"^  [a-z].*$", text, re.M):
        assert re.fullmatch(r"  [a-z]+ +[A-Z].*\.", line), line
    assert not re.search(r"^ {6}", text, re.M)


def test_the_root_groups_its_commands(terminal: Terminal) -> None:
    """The list of commands has headings, and a line says where options are typed."""
    text = _help(terminal, "")
    assert _headings(text) == [*SECTIONS, "Options"]
    assert "Options come after the command, as in `list --journal DIR`." in text


@pytest.mark.parametrize("line", ["upsert-cli -V", "upsert-cli --version"])
def test_the_version_has_a_short_option(terminal: Terminal, line: str) -> None:
    """`-V` is the same as `--version`."""
    assert terminal.type(line).stdout.startswith("upsert-cli, version ")


def test_without_arguments_the_help_is_printed(terminal: Terminal) -> None:
    """`upsert-cli` alone prints the help, as a usage error."""
    assert terminal.type("upsert-cli", expect=2).stderr == terminal.type("upsert-cli --help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_values_are_named_and_ranges_are_not_shown(command: str) -> None:
    """No option has a type or a range of Click in its help, nor its environment variable."""
    for term, text in _records(command):
        assert not re.search(r"\b(INTEGER|FLOAT|RANGE|BOOLEAN|FILENAME)\b|\[\w+\|", term), term
        assert not re.search(r"\d<=|<=\d|env var|UPSERT_CLI_", text), text
        assert re.search(r"\.(  \[(default|required)[^\]]*\])?$", text), text


def test_every_option_has_a_variable_on_the_list(terminal: Terminal) -> None:
    """The list has every option of every command, the common ones once."""
    variables = environment_variables(ROOT)
    assert variables[ALL_COMMANDS]["UPSERT_CLI_JOURNAL"] == "--journal DIR"
    assert variables["upsert-cli run"]["UPSERT_CLI_RUN_MODEL"] == "--model NAME|none"
    assert variables["upsert-cli categories run"]["UPSERT_CLI_CATEGORIES_RUN_MODEL"] == "--model NAME|none"
    names = [name for rows in variables.values() for name in rows]
    assert len(names) == len(set(names))
    options = {id(param) for ctx in COMMANDS.values() for param in ctx.command.params if isinstance(param, Option)}
    assert len(names) == len(options)  # the commands share the common ones
