"""A task -> the words for people: its sources, how it ended, and what to do about its rejects."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from upsert_cli.cli.settings import value_unless_given
from upsert_cli.counts import Counts
from upsert_cli.journal.task import DIED, Task
from upsert_cli.report.printed_commands import PrintedCommands
from upsert_cli.text import counts_line


def sources_in_short(task: Task) -> str:
    """Returns the first source's name and how many there are beside it."""
    name = _short_name(task.sources[0])
    return name if len(task.sources) == 1 else f"{name} and {len(task.sources) - 1} more"


def _short_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # Of `<(...)`, which the shell writes as /dev/fd/63, the last part alone would say nothing.
    return source if source.startswith(("/dev/", "/proc/")) else Path(source).name


def command_for_mended(task: Task, printed: PrintedCommands) -> str:
    """Return the command that loads rejects once they are corrected; users cannot correct our copy of a stream."""
    if any(source.get("spooled") for source in task.inputs):
        return f"{printed.command('upsert-cli run FILE')}, with what `--failed` printed"
    return printed.command(f"upsert-cli restart {task.id} --from-start")


def query_command(task: Task, printed: PrintedCommands) -> str:
    """Return the command that queries the collection of a task, with the options that `query` does not have already."""
    wanted = {"chroma": task.chroma, "collection": task.collection, "model_path": task.options.model_folder}
    words = ["upsert-cli", "query", "your text"]
    for name, value in wanted.items():
        if value and value != value_unless_given("query", name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return printed.command(shlex.join(words))


def described_load(task: Task, *, exit_code: int) -> Iterator[tuple[str, str]]:
    """Yield what a mail about a load has to say, since its reader did not see the command."""
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


def counts_and_time(task: Task, before: Counts, seconds: float) -> str:
    """Return the counts of a task with the seconds of its last attempt, and which part of the rows these were for.

    Args:
        task: At the end of the attempt.
        before: Its counts when the attempt began.
        seconds: That the attempt took.
    """
    counts = counts_line(task.counts.as_json())
    if before == Counts():
        return f"{counts} in {seconds:.1f} s"
    rows = task.counts.loaded - before.loaded
    return f"{counts}; attempt {task.attempt} loaded {rows:,} of these rows in {seconds:.1f} s"


def state_of(task: Task, *, running: bool) -> str:
    """Return the state of a task for people; JSON says `processing` and `"running": false` of one that died."""
    return DIED if task.has_died(running=running) else task.status.value
