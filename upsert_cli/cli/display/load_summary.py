"""A load in words for people: its start, and at its end the counts, the rejects, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.cli.display.task_text import sources_in_short
from upsert_cli.cli.display.terminal import COLORS, Part, Terminal
from upsert_cli.embedding.catalog import embeds
from upsert_cli.errors import SOME_REJECTED, UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.report.github import ANNOTATED_REJECTS, Level
from upsert_cli.report.printed_commands import NextStep
from upsert_cli.text import converted_line, counts_line, seconds_line, time_taken

if TYPE_CHECKING:
    from upsert_cli.load.dry_run import DryRunResult
    from upsert_cli.verify.verification import Verification

REPORTED_REJECTS = 10  # rejects in a report; the rejects file has all of them

_TRUNCATED = (
    "  truncated texts are longer than the model reads: only their beginning is searchable; --split stores all of it"
)


def show_start(terminal: Terminal, task: Task) -> None:
    """Show that an attempt at a task begins."""
    again = f", attempt {task.attempt}" if task.attempt > 1 else ""
    into = f"collection {task.collection} in {task.chroma}"
    terminal.info(f"task {task.id}{again}: {sources_in_short(task)} -> {into}")


def show_pending(terminal: Terminal, task: Task) -> None:
    """Show that a task waits for a worker."""
    terminal.info(f"task {task.id} is pending: {sources_in_short(task)}; `upsert-cli work` runs it")


def show_end(terminal: Terminal, task: Task, steps: Sequence[NextStep], *, exit_code: int) -> None:
    """Show the end of a task that this process ran."""
    level = _level(exit_code)
    name = f"task {task.id} " if terminal.quiet else ""  # otherwise the first line has named it
    terminal.print(name, _status(task, level), ": ", *_counts(task, level), f" in {_time(task)}")
    _describe_if_quiet(terminal, task, exit_code=exit_code)
    if terminal.verbose:
        terminal.print(f"seconds busy: {seconds_line(task.seconds)}")
    if task.converted.values:
        terminal.print(f"  {converted_line(task.converted)}")
    if task.counts.truncated:
        terminal.print(_TRUNCATED)
    _show_rejects(terminal, task, level=level)
    _show_steps(terminal, steps)


def show_earlier_end(terminal: Terminal, task: Task, steps: Sequence[NextStep], *, exit_code: int) -> None:
    """Show the end of a task that an earlier process ran."""
    level = _level(exit_code)
    terminal.print(f"task {task.id} is ", _status(task, level), " already: ", *_counts(task, level))
    _describe_if_quiet(terminal, task, exit_code=exit_code)
    _show_rejects(terminal, task, level=level)
    _show_steps(terminal, steps)


def show_failure(terminal: Terminal, task: Task, steps: Sequence[NextStep], *, exit_code: int) -> None:
    """Show how far a task came before an error."""
    spent = f", after {_time(task)}" if task.load_seconds else ""
    rows = f": {task.rows:,} rows committed, "
    terminal.print(f"task {task.id} ", _status(task, "error"), rows, *_counts(task, "error"), spent)
    _describe_if_quiet(terminal, task, exit_code=exit_code)
    _show_rejects(terminal, task, level="error")
    # A restart with the same options would not help after a usage error or a refusal.
    if exit_code == UpsertCliError.exit_code and task.status is not TaskStatus.DONE:
        _show_steps(terminal, steps)


def show_target(terminal: Terminal, task: Task, queries: Sequence[NextStep]) -> None:
    """Show where the data is, and how to query it; without a query, the collection has no records."""
    target = f"collection {task.collection} in {task.chroma}"
    if not queries:
        terminal.print(f"{target} has no records")
    made = f"embedded by {task.model}" if embeds(task.model) else "with the vectors of its items"
    if task.options.keep_vectors:
        made = "with the vectors of its source"
    for step in queries:
        terminal.print(f"{target}, {made}; {step.label}:")
        terminal.print_command(step.command)


def show_dry_run(terminal: Terminal, outcome: DryRunResult) -> None:
    """Show the outcome of a dry run."""
    level = _level(outcome.exit_code)
    counts = _counts(outcome, level)
    if outcome.compared:
        estimate = f"; about {outcome.embed_seconds:,.0f} s to embed; nothing was written"
        terminal.print("dry run: ", *counts, estimate)
    else:
        terminal.print("dry run, compared with nothing: ", *counts, "; nothing was written")
    if outcome.counts.truncated:
        terminal.print(_TRUNCATED)
    _list_rejects(terminal, outcome.rejects, level=level)
    if (more := outcome.counts.failed - REPORTED_REJECTS) > 0:
        terminal.print(f"  {more:,} more")
    for identifier in outcome.to_delete[:REPORTED_REJECTS]:
        terminal.print(f"  to delete: {identifier}")
    if (more := outcome.counts.deleted - REPORTED_REJECTS) > 0:
        terminal.print(f"  {more:,} more to delete")
    if outcome.broken is not None:
        terminal.error(str(outcome.broken))


def show_verification(terminal: Terminal, outcome: Verification, *, examples: bool) -> None:
    """Show the result of reading everything back; without `examples` if a table has shown them."""
    if outcome.exit_code == 0:
        terminal.info(outcome.summary())
        return
    terminal.error(outcome.summary())
    for kind, identifier, reason in outcome.examples() if examples else ():
        terminal.print(f"  {kind}: {identifier}: {reason}")
    if (command := outcome.remedy()) is not None:
        terminal.print_command(command, "to repair it")


def _describe_if_quiet(terminal: Terminal, task: Task, *, exit_code: int) -> None:
    """With -q, show the facts that no earlier line has named, for the reader of a cron email."""
    if not terminal.quiet:
        return
    import platform

    facts = {
        "exit code": str(exit_code),
        "sources": " ".join(task.sources),
        "target": f"collection {task.collection} in {task.chroma}",
        "model": task.model,
        "host": platform.node(),
        "created": task.created_at,
        "started": task.started_at,
        "finished": task.finished_at,
        "took": _time(task) if task.load_seconds else None,
    }
    for name, value in facts.items():
        if value is not None:
            terminal.print(f"  {name:<9}  {value}")


def _show_rejects(terminal: Terminal, task: Task, *, level: Level) -> None:
    if not task.counts.failed:
        return
    _list_rejects(terminal, task.failed_items, level=level)
    more = task.counts.failed - min(len(task.failed_items), REPORTED_REJECTS)
    label = f"{more:,} more; all of them" if more > 0 else "all of them"
    terminal.print_command(f"upsert-cli info {task.id} --failed", label)


def _list_rejects(terminal: Terminal, records: Sequence[dict[str, Any]], *, level: Level) -> None:
    # GitHub Actions annotates only the first ones, so that the error that ends the step is annotated too.
    for number, record in enumerate(records[:REPORTED_REJECTS]):
        problem = f"{record['failure_stage']}: {record['detail']}"
        annotated = level if number < ANNOTATED_REJECTS else None
        terminal.print_row(record["source"], record["row"], problem, level=annotated)


def _show_steps(terminal: Terminal, steps: Sequence[NextStep]) -> None:
    for step in steps:
        if not step.is_query:
            terminal.print_command(step.command, step.label)


def _level(exit_code: int) -> Level:
    """Return how serious rejects are, given the exit code of their load."""
    return "warning" if exit_code in (0, SOME_REJECTED) else "error"


def _status(task: Task, level: Level) -> Part:
    """Return the state in its color; --strict turns rejects into a failure, although the task is done."""
    state = task.shown_state
    match task.status:
        case TaskStatus.DONE if level == "warning":
            return state, "green"
        case TaskStatus.DONE | TaskStatus.FAILED | TaskStatus.REFUSED:
            return state, COLORS["error"]
        case TaskStatus.CANCELED:
            return state, COLORS["warning"]
    return state


def _counts(outcome: Task | DryRunResult, level: Level) -> tuple[Part, ...]:
    """Return the counts, in which the number of rejects stands out."""
    line = counts_line(outcome.counts.as_json())
    if not outcome.counts.failed:
        return (line,)
    before, rejected, after = line.partition(f"{outcome.counts.failed:,} rejected")
    return before, (rejected, COLORS[level]), after


def _time(task: Task) -> str:
    return time_taken(task.load_seconds, task.load_attempts)
