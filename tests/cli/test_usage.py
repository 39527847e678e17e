"""Usage errors: one line, the option or variable with the bad value, and the events that --json promises."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest

from tests.support.terminal import Terminal
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.root import COMMANDS, cli

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
def test_usage_errors_end_the_events_with_a_summary(terminal: Terminal, line: str) -> None:
    """With --json, error and summary are printed as for any other failure, and the error once on stderr."""
    done = terminal.type(line, expect=2)
    events = [json.loads(text) for text in done.stdout.splitlines()]
    assert [event["type"] for event in events] == ["error", "summary"]
    assert {event["exit_code"] for event in events} == {2}
    (shown,) = done.stderr.splitlines()
    assert shown.startswith("error: ")
    assert "--help`" in shown


@pytest.mark.parametrize("line", ["run a.jsonl", "restart t", "work"])
def test_a_journal_that_cannot_be_opened_ends_the_events_with_a_summary(terminal: Terminal, line: str) -> None:
    """The promise of --json also holds for an error between the options and the report of a load."""
    done = terminal.type(f"upsert-cli {line} --json --journal '~no-such-user/journal'", expect=2)
    error, summary = [json.loads(text) for text in done.stdout.splitlines()]
    assert (error["type"], summary["type"], summary["id"]) == ("error", "summary", None)
    assert "there is no user no-such-user" in error["message"]


def test_a_variable_can_turn_events_on(terminal: Terminal) -> None:
    """UPSERT_CLI_RUN_JSON counts as --json even if other options cannot be parsed, for both commands that load."""
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
def test_a_settings_file_can_turn_events_on(terminal: Terminal, line: str, where: str) -> None:
    """`json = true` in a settings file counts as --json even if an option or another setting is wrong."""
    (terminal.folder / where).write_text("[run]\njson = true\n[profile.loud.run]\nlowd = 1\n")
    named = f" --config {where}" if where == "elsewhere.toml" else ""
    done = terminal.type(f"upsert-cli {line}{named}", expect=2)
    if "none" in line:  # a broken settings file cannot name the value
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
    """The error names the variable that holds the bad value."""
    terminal.env[variable] = "none at all"
    assert f"environment variable {variable}" in terminal.type(line, expect=2).stderr


def test_a_bad_option_is_not_blamed_on_a_variable(terminal: Terminal) -> None:
    """A typed value beats the environment, so the error is about the option."""
    terminal.env["UPSERT_CLI_PROGRESS"] = "none"
    shown = terminal.type("upsert-cli list --progress wild", expect=2).stderr
    assert "'--progress'" in shown
    assert "UPSERT_CLI_PROGRESS" not in shown


def test_categories_run_takes_the_variables_of_run(terminal: Terminal) -> None:
    """Its own variable comes first; the collection and the task id are not shared."""
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
def test_the_list_of_commands_has_their_own_help(name: str) -> None:
    """`--help` loads no command, yet shows the help of each."""
    _, short_help = COMMANDS[name]
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    assert short_help.rstrip(".") == command.get_short_help_str(limit=1_000).rstrip(".")


@pytest.mark.parametrize("option", ["--chroma", "--journal", "--model-path"])
def test_an_empty_folder_name_is_refused(terminal: Terminal, option: str) -> None:
    """An unset shell variable is refused, and never means the current folder."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    errors = terminal.type(f"upsert-cli run a.jsonl {option} ''", expect=2).stderr
    assert f"'{option}'" in errors
    assert "it is empty" in errors
    assert sorted(path.name for path in terminal.folder.iterdir()) == ["a.jsonl"]


# -- options that take lists, and options that are given twice -----------------------------------------------------


def _texts_loaded(terminal: Terminal, line: str) -> list[str]:
    """Return the text fields of a load, read from its queued task."""
    terminal.type(f"upsert-cli {line} --id-field id --enqueue --task-id t")
    (task,) = json.loads((terminal.journal / "tasks-000000.json").read_text())["tasks"].values()
    return list(task["options"]["text_fields"])


@pytest.mark.parametrize(
    ("typed", "variable", "fields"),
    [
        ("--text-field title,body", "", ["title", "body"]),
        ("--text-field 'title, body'", "", ["title", "body"]),
        ("--text-field title --text-field body", "", ["title", "body"]),
        ("--text-field title,body --text-field 'full text'", "", ["title", "body", "full text"]),
        (r"--text-field 'last\, first'", "", ["last, first"]),
        ("", "full text", ["full text"]),
        ("", "full text\nbody\n", ["full text", "body"]),
        ("", "full text\r\n\r\nbody", ["full text", "body"]),
        ("", "title,full text", ["title", "full text"]),
        ("--text-field title", "full text", ["title"]),
    ],
)
def test_lists_are_split_at_commas_and_lines(terminal: Terminal, typed: str, variable: str, fields: list[str]) -> None:
    """Options are split at commas and may be repeated, variables are split at commas and lines, and blanks split nothing."""
    (terminal.folder / "t.csv").write_text('id,title,body,full text,"last, first"\n1,t,b,f,l\n')
    terminal.env["UPSERT_CLI_RUN_TEXT_FIELD"] = variable
    assert _texts_loaded(terminal, f"run t.csv {typed}") == fields


@pytest.mark.parametrize("line", ["run t.csv", "categories run t.csv"])
def test_metadata_fields_are_split_like_text_fields(terminal: Terminal, line: str) -> None:
    """Repeated options add up, and a variable may hold a name with a blank, also for `categories run`."""
    (terminal.folder / "t.csv").write_text("id,text,full name,b,c\n1,t,f,b,c\n")
    terminal.env["UPSERT_CLI_RUN_METADATA_FIELDS"] = "full name\nb"
    for number, (typed, fields) in enumerate(
        [("", ["full name", "b"]), ("--metadata-fields b --metadata-fields c,text", ["b", "c", "text"])]
    ):
        terminal.type(f"upsert-cli {line} {typed} --id-field id --enqueue --task-id t{number}")
        tasks = json.loads((terminal.journal / "tasks-000000.json").read_text())["tasks"].values()
        assert next(task for task in tasks if task["id"] == f"t{number}")["options"]["metadata_fields"] == fields


def test_states_are_split_in_the_same_way(terminal: Terminal) -> None:
    """--status takes commas and repetition, its variable also lines, and an unknown state is refused."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    for task_id in "abc":
        terminal.type(f"upsert-cli run a.jsonl --enqueue --task-id {task_id}")
    terminal.type("upsert-cli cancel a")
    for words in ("--status pending --status canceled", "--status pending,canceled"):
        assert len(terminal.type(f"upsert-cli list {words}").stdout.splitlines()) == 1 + 3
    for value, count in (("canceled", 1), ("pending", 2), ("canceled\npending", 3), ("done,failed", 0)):
        terminal.env["UPSERT_CLI_LIST_STATUS"] = value
        assert len(json.loads(terminal.type("upsert-cli list --json").stdout)) == count
    for words in ("--status done,failed", "--status done --status failed"):
        assert terminal.type(f"upsert-cli prune --dry-run {words}").returncode == 0
    terminal.env["UPSERT_CLI_PRUNE_STATUS"] = "done\nfailed"
    assert terminal.type("upsert-cli prune --dry-run").returncode == 0
    terminal.env["UPSERT_CLI_PRUNE_STATUS"] = "done failed"
    assert "UPSERT_CLI_PRUNE_STATUS" in terminal.type("upsert-cli prune --dry-run", expect=2).stderr


def _commands(group: click.Group, ctx: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, click.Context(command, parent=ctx, info_name=name), f"{path}{name} ")
        else:
            yield path + name, command


ALL_COMMANDS = dict(_commands(cli, click.Context(cli)))


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_a_repeated_single_value_is_never_replaced_silently(name: str) -> None:
    """A single-value option with two different values is refused; the same value twice is not."""
    command = ALL_COMMANDS[name]
    assert not [one for one in command.params if isinstance(one, click.Option) and not isinstance(one, Option)]
    singles = [param for param in command.params if isinstance(param, Option) and not (param.is_flag or param.multiple)]
    assert singles
    for param in singles:
        parser = command.make_parser(click.Context(command))
        for values, is_refused in ((["1", "2"], True), (["1", "1"], False)):
            words = [f"{max(param.opts, key=len)}={value}" for value in values]
            if param.opts[0] == "-n":
                words = [f"-n{value}" for value in values]
            opts, _, _ = parser.parse_args(words)
            ctx = click.Context(command)
            if is_refused:
                with pytest.raises(click.UsageError, match="is given 2 times, with different values"):
                    param.consume_value(ctx, opts)
            else:
                assert param.consume_value(ctx, opts)[0] == "1"


@pytest.mark.parametrize(
    "line",
    ["run a.jsonl --collection one --collection two", "run a.jsonl --json --task-id a --task-id b", "list --limit 3 --limit=4",
     "query hello -n 1 -n 2", "list --watch --watch 5", "list --journal a --journal b", "list --config a --config b"],
)  # fmt: skip
def test_an_option_given_twice_is_named(terminal: Terminal, line: str) -> None:
    """One line names the option with two values, and nothing is created."""
    done = terminal.type(f"upsert-cli {line}", expect=2)
    (error,) = done.stderr.splitlines()
    assert "is given 2 times, with different values; give it once" in error
    assert list(terminal.folder.iterdir()) == []


# -- words that are typed wrong -------------------------------------------------------------------------------------


def _error(terminal: Terminal, line: str) -> str:
    [shown] = terminal.type(line, expect=2).stderr.splitlines()
    assert shown.startswith("error: ")
    assert r"\n" not in shown and r"\t" not in shown
    return shown


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("load a.jsonl", "upsert-cli run"),
        ("import", "upsert-cli run"),
        ("status t", "upsert-cli info"),
        ("show", "upsert-cli info"),
        ("logs t", "upsert-cli info --failed TASK_ID"),
        ("retry", "upsert-cli restart"),
        ("resume", "upsert-cli restart"),
        ("tasks", "upsert-cli list"),
        ("collection", "upsert-cli collections"),
        ("lsit", "upsert-cli list"),
        ("rnu", "upsert-cli run"),
        ("here.jsonl --id-field x", "upsert-cli run here.jsonl"),
        ("categories load a", "upsert-cli categories run"),
        ("models download", "upsert-cli models fetch"),
        ("--verison", "--version"),
        ("run a --limti 3", "--limit"),
        ("run a --colection x", "--collection"),
        ("run a --url http://h", "--chroma http://HOST:8000"),
        ("query x --host h", "--chroma http://HOST:8000"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(terminal: Terminal, typed: str, meant: str) -> None:
    """Names from other tools and misspelled names are answered with the probable intended name."""
    terminal.write("here.jsonl", [])
    assert f"did you mean `{meant}`?" in _error(terminal, f"upsert-cli {typed}")


@pytest.mark.parametrize(
    "typed",
    ["run a --columns x", "run a --sample 3", "run a --file x", "list --collection x", "list --url x", "frobnicate"],
)
def test_nothing_is_suggested_where_nothing_is_near(terminal: Terminal, typed: str) -> None:
    """A word that resembles nothing gets no guess, only the way to the list."""
    shown = _error(terminal, f"upsert-cli {typed}")
    assert "did you mean" not in shown
    assert "--help` lists" in shown


@pytest.mark.parametrize(
    "typed", ["--journal j list", "--journal=j list", "-q run a", "--chroma x run a", "--json list"]
)
def test_an_option_before_the_command_goes_after_it(terminal: Terminal, typed: str) -> None:
    """An option that the command has is not unknown, but in front of it."""
    assert "goes after the command" in _error(terminal, f"upsert-cli {typed}")


@pytest.mark.parametrize("command", ["info", "restart", "cancel", "report --html x"])
def test_a_missing_task_id_says_where_ids_are(terminal: Terminal, command: str) -> None:
    """It names the command that lists them, and the word for the newest task."""
    shown = _error(terminal, f"upsert-cli {command}")
    assert "TASK_ID is missing" in shown
    assert "`upsert-cli list`" in shown and "`latest`" in shown


def test_a_missing_choice_is_one_line(terminal: Terminal) -> None:
    """The choices follow each other in the sentence."""
    assert "SHELL is missing; choose one of bash, zsh, fish" in _error(terminal, "upsert-cli completion")


def test_a_missing_value_names_its_command(terminal: Terminal) -> None:
    """The way to the options is that of the command which has the option."""
    assert "`upsert-cli prune --help`" in _error(terminal, "upsert-cli prune --keep")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("run a --threads 0", "0 is too small: it has to be at least 1"),
        ("run a --batch-size 5001", "5,001 is too large: it has to be at most 5,000"),
        ("run a --retry-for -1", "-1.0 is too small: it has to be at least 0"),
        ("list --offset -7", "-7 is too small: it has to be at least 0"),
        ("query x -n many", "'many' is not a valid integer"),
    ],
)
def test_a_number_out_of_range_is_answered_with_its_bound(terminal: Terminal, line: str, said: str) -> None:
    """The message names the bound that was missed, in words."""
    told = terminal.type(f"upsert-cli {line}", expect=2).stderr
    assert said in told
    assert "<=" not in told
