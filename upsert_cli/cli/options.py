"""Options by situation: those that every command takes, those of a load, those of a task.

Every option is also an environment variable: `UPSERT_CLI_JOURNAL` for the common ones, `UPSERT_CLI_RUN_MODEL` and the
like, made by click from the command's name, for the others.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.folders import state_folder
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.tasks import valid_task_id
from upsert_cli.models import DEFAULT_MODEL

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[[Command], Command]

option = functools.partial(click.option, show_envvar=True)

MAX_BATCH = 5_000  # rows; Chroma's own limit is a little above, and nothing is gained beyond 1,024
MAX_THREADS = 256
MAX_TOKEN_BUDGET = 1 << 20
ALL = 100.0  # percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every command works with."""

    journal: Journal
    terminal: Terminal


class TaskId(click.ParamType[str]):
    """A task's id, checked before anything is looked up."""

    name = "task id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the id, or fails with the rule that it breaks."""
        if not valid_task_id(value):
            self.fail(f"{value!r} is no task id: up to 128 letters, digits, '.', '_' and '-', a letter or digit first")
        return str(value)


class ChromaFolder(click.ParamType[Path]):
    """The folder of a local Chroma; a server is no folder, and must not quietly become one of that name."""

    name = "folder"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Returns the folder, or fails for what names a server."""
        if re.match(r"[a-z][a-z0-9+.-]*://", str(value), re.IGNORECASE) or value == "cloud":
            self.fail(f"{value!r} is no folder, and servers cannot be loaded into yet (a folder `cloud` is ./cloud)")
        return Path(value)


class Failures(click.ParamType[str]):
    """A number of items, or a percentage of them."""

    name = "n|n%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text as it stands, once it is known to be a number or a percentage."""
        if not re.fullmatch(r"\d{1,12}|\d{1,3}(\.\d{1,6})?%", value) or (value[-1] == "%" and float(value[:-1]) > ALL):
            self.fail(f"{value!r} is neither a number of items such as 10 nor a percentage such as 5%")
        return str(value)


def common_options(command: Command) -> Command:
    """Adds the options that every command takes, and hands it a `Session` in their place."""

    @option(
        "--journal",
        type=click.Path(file_okay=False, path_type=Path),
        default=state_folder,
        show_default="the user's state folder",
        envvar="UPSERT_CLI_JOURNAL",
        metavar="DIR",
        help="Where tasks are kept.",
    )
    @option("-q", "--quiet", is_flag=True, envvar="UPSERT_CLI_QUIET", help="Print nothing on success.")
    @option(
        "-v",
        "--verbose",
        is_flag=True,
        envvar="UPSERT_CLI_VERBOSE",
        help="Show tracebacks and what the libraries say.",
    )
    @option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="UPSERT_CLI_COLOR",
        help="Colors on stderr; NO_COLOR is honoured.",
    )
    @option(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "none"]),
        default="auto",
        envvar="UPSERT_CLI_PROGRESS",
        help="Bars on a terminal, a line every 30 s in CI, else nothing.",
    )
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        journal = Journal(options.pop("journal").expanduser().absolute())
        names = ("quiet", "verbose", "color", "progress")
        terminal = Terminal(**{name: options.pop(name) for name in names})
        session = Session(journal=journal, terminal=terminal)
        click.get_current_context().find_root().obj = session
        try:
            command(session, **options)
        finally:
            for warning in journal.warnings:  # damage to the journal is never silent
                terminal.warn(warning)

    return wrapped


def load_options(collection: str) -> Decorator:
    """Adds what defines a load: its sources, its target, its model, and how carefully it is done."""
    options: list[Decorator] = [
        click.argument("sources", nargs=-1, required=True, metavar="SOURCE..."),
        option("--task-id", type=TaskId(), metavar="ID", help="Make sure that the task of this id is done."),
        option(
            "--chroma",
            type=ChromaFolder(),
            default=Path("chroma"),
            metavar="FOLDER",
            help="Chroma's folder.",
        ),
        option("--collection", default=collection, metavar="NAME", help="The collection to load into."),
        *model_choices(),
        option(
            "--batch-size",
            type=click.IntRange(1, MAX_BATCH),
            show_default="by measured speed",
            help="Items a write.",
        ),
        option(
            "--threads",
            type=click.IntRange(1, MAX_THREADS),
            show_default="one a processor",
            help="Texts are embedded in so many threads.",
        ),
        option(
            "--token-budget",
            type=click.IntRange(1, MAX_TOKEN_BUDGET),
            show_default="the fastest for the device",
            help="Tokens, padding included, that are embedded in one call.",
        ),
        option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help=_DEVICE_HELP),
        option("--force", is_flag=True, help="Embed and write items again that have not changed."),
        option(
            "--max-failures",
            type=Failures(),
            show_default="no limit",
            help="Stop as failed above so many rejected items.",
        ),
        option("--verify", is_flag=True, help="Read everything back once it is loaded; see `upsert-cli verify`."),
        option("--strict", is_flag=True, help="Exit with 1 instead of 3 if an item was rejected."),
        option(
            "--if-running",
            type=click.Choice(["refuse", "wait", "skip"]),
            default="refuse",
            help="What to do when the task or the target is in use.",
        ),
        option(
            "--wait-timeout",
            type=click.FloatRange(0),
            metavar="SECS",
            show_default="no limit",
            help="With --if-running wait: refuse after so many seconds.",
        ),
        json_option("Print one JSON object a line, the last one a summary."),
    ]
    return all_of(options)


def model_options() -> Decorator:
    """Adds the choice of a model."""
    return all_of(model_choices())


def model_choices() -> list[Decorator]:
    """Returns the options that choose a model."""
    return [
        option(
            "--model", default=DEFAULT_MODEL, metavar="NAME", help="A dense text model of fastembed's (`models list`)."
        ),
        option(
            "--model-path",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="The folder with the model's files, instead of looking for them.",
        ),
        option("--offline", is_flag=True, help="Never look for the model in the network."),
    ]


def json_option(text: str) -> Decorator:
    """Returns the option for output that programs read."""
    return option("--json", is_flag=True, help=text)


_DEVICE_HELP = "Where texts are embedded; cuda needs onnxruntime-gpu in place of onnxruntime."


def all_of(options: list[Decorator]) -> Decorator:
    """Returns what adds several options, in their order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(options):
            command = decorator(command)
        return command

    return decorate
