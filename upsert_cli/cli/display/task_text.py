"""Words for people about tasks: their sources and options, all about one task, and how many ended in which state."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from upsert_cli.cli.display.next_steps import next_steps
from upsert_cli.cli.display.tables import shown_time
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.option_field import flag
from upsert_cli.journal.task import DIED, Attempt, Task, TaskStatus
from upsert_cli.report.printed_commands import PrintedCommands
from upsert_cli.sources.formats import SCHEME, is_collection
from upsert_cli.text import counts_line, seconds_line

PROSE = ("detail", "counts", "seconds", "rejected")
"""The entries of a description that are sentences; the others are commands, paths and names to copy."""


def sources_in_short(task: Task) -> str:
    """Return the name of the first source, and how many more there are."""
    name = _short_name(task.sources[0])
    return name if len(task.sources) == 1 else f"{name} and {len(task.sources) - 1} more"


def _short_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # The shell passes `<(...)` as /dev/fd/63, whose last part alone would be no name.
    if source.startswith(("/dev/", "/proc/")):
        return source
    return f"{SCHEME if is_collection(source) else ''}{Path(source).name}"


def description(task: Task, printed: PrintedCommands) -> Iterator[tuple[str, str]]:
    """Yield the names and values of all that people may want to know about a task; `printed` completes its commands."""
    task = printed.in_task(task)
    yield "task", task.id
    yield "status", task.shown_state
    if task.status.is_final or task.has_died:
        yield "exit code", str(exit_code_for(task))
    for step in next_steps(task):
        yield "next", f"{step.label}: {printed.command(step.command)}"
    if task.detail is not None:
        yield "detail", task.detail
    yield "kind", task.kind
    yield "sources", " ".join(task.sources)
    yield "collection", f"{task.collection} in {task.chroma}"
    yield "model", task.model
    if options := _options_line(task):
        yield "options", options
    yield "rows", str(task.rows) if task.total is None else f"{task.rows} of {task.total}"
    yield "counts", counts_line(task.counts.as_json())
    for name in ("created_at", "started_at", "finished_at", "updated_at"):
        if (moment := getattr(task, name)) is not None:
            yield name.removesuffix("_at"), shown_time(moment)
    yield from _attempts(task)
    for record in task.failed_items:
        yield "rejected", f"{record['source']}:{record['row']} {record['failure_stage']}: {record['detail']}"


def exit_code_for(task: Task) -> int:
    """Return the exit code that stands for a task, also for one that died."""
    return UpsertCliError.exit_code if task.has_died else task.exit_code


def _options_line(task: Task) -> str:
    """Return the options of a load that differ from the defaults, as they are typed."""
    words: list[str] = []
    for name, value in task.options.changed().items():
        words.append(flag(name))
        if value is not True:
            words.append(_as_typed(value))
    return shlex.join(words)


def _as_typed(value: object) -> str:
    match value:
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return ",".join(each.replace(",", r"\,") for each in value)
    return str(value)


def _attempts(task: Task) -> Iterator[tuple[str, str]]:
    yield "attempt", str(task.attempt)
    if len(task.attempts) > 1:
        for attempt in task.attempts:
            is_running = task.running and attempt.attempt == task.attempt
            yield f"attempt {attempt.attempt}", _attempt_line(attempt, is_running=is_running)
    if task.seconds:
        of_attempt = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        yield "seconds", seconds_line(task.seconds) + of_attempt


def _attempt_line(attempt: Attempt, *, is_running: bool) -> str:
    began, ended = (shown_time(moment or "") for moment in (attempt.started_at, attempt.finished_at))
    span = f"{began} to {ended}" if ended else f"since {began}"
    because = f" ({attempt.detail})" if attempt.detail else ""
    state = DIED if attempt.finished_at is None and not is_running else attempt.status
    return f"{state}, {span}, then {counts_line(attempt.counts.as_json())}{because}"


def by_status(statuses: Iterable[TaskStatus]) -> dict[str, int]:
    """Return the number of tasks in each state."""
    return dict(sorted(Counter(status.value for status in statuses).items()))


def tasks_line(counts: Mapping[str, int], verb: str) -> str:
    """Return a line such as `3 tasks removed: 2 done, 1 failed`."""
    number = sum(counts.values())
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return f"{number:,} task{'s' * (number != 1)} {verb}" + (f": {each}" if each else "")
