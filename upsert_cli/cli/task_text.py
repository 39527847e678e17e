"""Words for people about a task: its state, its sources, its counts, and the commands for what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from upsert_cli.cli.settings import value_unless_given
from upsert_cli.journal.load_options import RESULT_FIELDS, LoadOptions
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.report.printed_commands import PrintedCommands, how_to_continue


def sources_in_short(task: Task) -> str:
    """Return the name of the first source, and how many more there are."""
    name = _short_name(task.sources[0])
    return name if len(task.sources) == 1 else f"{name} and {len(task.sources) - 1} more"


def _short_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # The shell passes `<(...)` as /dev/fd/63, whose last part alone would say nothing.
    return source if source.startswith(("/dev/", "/proc/")) else Path(source).name


def command_for_corrected(task: Task, printed: PrintedCommands) -> str:
    """Return the command that loads corrected rejects; users cannot correct our copy of a stream."""
    if any(source.get("spooled") for source in task.inputs):
        return f"{printed.command('upsert-cli run FILE')}, with what `--failed` printed"
    return printed.command(f"upsert-cli restart {task.id} --from-start")


def next_step(task: Task, printed: PrintedCommands, *, running: bool) -> str | None:
    """Return what to do next with a task and by which command; None if only its detail knows that."""
    match task.status:
        case TaskStatus.PENDING if task.queued:
            return printed.complete("`upsert-cli work` runs it")
        case TaskStatus.PROCESSING if running:
            return printed.complete(f"`upsert-cli info {task.id} --follow` shows the progress")
        case TaskStatus.DONE if task.counts.failed:
            return f"once the rejected items are corrected: {command_for_corrected(task, printed)}"
        case TaskStatus.DONE:
            return f"to query it: {query_command(task, printed)}"
        case TaskStatus.REFUSED:
            return None
    return printed.complete(how_to_continue(task))


def options_line(options: LoadOptions) -> str:
    """Return the options of a load that differ from the defaults, as they are typed."""
    words: list[str] = []
    for name, value in options.changed().items():
        values = [each.replace(",", "\\,") for each in value] if isinstance(value, list) else [str(value)]
        words.append(RESULT_FIELDS.get(name, f"--{name.replace('_', '-')}"))
        words += [] if value is True else [",".join(values)]
    return shlex.join(words)


def query_command(task: Task, printed: PrintedCommands) -> str:
    """Return the command that queries the collection of a task, without the options that are set elsewhere."""
    wanted = {"chroma": task.chroma, "collection": task.collection, "model_path": task.options.model_folder}
    words = ["upsert-cli", "query", "your text"]
    for name, value in wanted.items():
        if value and value != value_unless_given("query", name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return printed.command(shlex.join(words))


def described_load(task: Task, *, exit_code: int) -> Iterator[tuple[str, str]]:
    """Yield the facts about a load that the reader of a cron email does not know from the command."""
    import platform

    yield "exit code", str(exit_code)
    yield "sources", " ".join(task.sources)
    yield "target", f"collection {task.collection} in {task.chroma}"
    yield "model", task.model
    yield "host", platform.node()
    yield "created", task.created_at
    if task.started_at is not None:
        yield "started", task.started_at
    if task.finished_at is not None:
        yield "finished", task.finished_at
    if task.attempt > 1:
        yield "attempt", str(task.attempt)
