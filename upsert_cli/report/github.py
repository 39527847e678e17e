"""GitHub Actions: annotations for messages, and a Markdown summary of the step for a task.

Data is escaped twice: `safe` escapes commands for the log, these functions the syntax of annotations and of Markdown.
The rules are at https://docs.github.com/actions/reference/workflow-commands-for-github-actions.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upsert_cli.counts import OUTCOMES
from upsert_cli.redaction import in_message
from upsert_cli.report.printed_commands import AS_WRITTEN, NextStep, PrintedCommands
from upsert_cli.text import converted_line, safe, time_taken

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task

ANNOTATED_REJECTS = 9  # GitHub shows ten errors per step, and one is for the error that ends it
SUMMARY_REJECTS = 10  # rejects in the summary of a step
LINE_FORMATS = (".jsonl", ".ndjson")  # formats in which a row is a line, so that a link can point at it

Level = Literal["error", "warning"]


def in_actions() -> bool:
    """Tell whether this process is a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotation(level: Level, message: str, *, source: str | None = None, row: int | None = None) -> str:
    """Return the line that makes the runner show a message next to its file.

    Args:
        level: The severity.
        message: One line.
        source: The file, as the user named it.
        row: The row in the file.
    """
    properties: dict[str, str] = {}
    if source is not None:
        properties["file"] = _in_workspace(source)
        if row is not None and source.lower().endswith(LINE_FORMATS):
            properties["line"] = str(row)
    listed = ",".join(f"{name}={_escaped(value, more=':,')}" for name, value in properties.items())
    command = f"{level} {listed}" if listed else level
    return f"::{command}::{_escaped(message)}"


def append_summary(
    task: Task | None,
    *,
    exit_code: int,
    seconds: float,
    detail: str | None,
    steps: Iterable[NextStep] = (),
    printed: PrintedCommands = AS_WRITTEN,
) -> None:
    """Append the outcome of a load to the summary of the step, if this is a step.

    Args:
        task: The task; None if the load created none.
        exit_code: The exit code of the process.
        seconds: The duration, for a task whose record has none.
        detail: Why the load failed, or why nothing was done.
        steps: What to do next.
        printed: Completes the commands.

    Raises:
        OSError: The summary cannot be written.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not in_actions() or not path:
        return
    mark = {0: "✅", 3: "⚠️"}.get(exit_code, "❌")
    if task is None:
        reason = _text(printed.complete(detail or "nothing was done"))
        lines: Iterable[str] = (f"### {mark} upsert-cli: exit code {exit_code}", "", reason, "")
    else:
        outcome = f"{time_taken(task.load_seconds or seconds, task.load_attempts)}, exit code {exit_code}"
        lines = itertools.chain(
            _task_summary(task, mark=mark, outcome=outcome, detail=detail or task.detail, printed=printed),
            (f"* {_text(step.label.capitalize())}: {_code(printed.command(step.command))}" for step in steps),
            ("",),
        )
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _task_summary(
    task: Task, *, mark: str, outcome: str, detail: str | None, printed: PrintedCommands
) -> Iterator[str]:
    yield from (f"### {mark} upsert-cli: task {_text(task.id)} {task.status.value}", "")
    sources = ", ".join(_text(source) for source in task.sources)
    yield from (f"{sources} into collection {_text(task.collection)} in {_text(task.chroma)}, {outcome}", "")
    if detail:
        yield from (_text(printed.complete(detail)), "")
    counts = task.counts
    columns = {"read": "read", **OUTCOMES, "truncated": "truncated"}
    yield f"| {' | '.join(columns.values())} |"
    yield f"|{'---:|' * len(columns)}"
    yield from (f"| {' | '.join(f'{getattr(counts, name):,}' for name in columns)} |", "")
    if task.converted.values:
        yield from (_text(converted_line(task.converted)), "")
    if rejects := task.failed_items[:SUMMARY_REJECTS]:
        yield from _rejects_table(rejects)
        more = counts.failed - len(rejects)
        yield from ("", f"{more:,} more; all of them:" if more > 0 else "All of them as JSONL:")
        yield from (_code(printed.command(f"upsert-cli info {task.id} --failed")), "")


def _rejects_table(rejects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("| row | stage | why |", "|---|---|---|")
    for record in rejects:
        row = _text(f"{record['source']}:{record['row']}")
        yield f"| {row} | {_text(record['failure_stage'])} | {_text(record['detail'])} |"


def _in_workspace(source: str) -> str:
    """Return a path as GitHub links it, relative to the root of the checkout."""
    workspace = os.environ.get("GITHUB_WORKSPACE")
    if workspace:
        path, root = Path(source).absolute(), Path(workspace).absolute()
        if path.is_relative_to(root):
            return path.relative_to(root).as_posix()
    return source


def _escaped(text: str, *, more: str = "") -> str:
    shown = safe(in_message(text))
    return re.sub(f"[%\r\n{more}]", lambda match: f"%{ord(match.group()):02X}", shown)


def _code(text: str) -> str:
    """Return text as Markdown code, between more backticks than it has in a row."""
    shown = safe(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def _text(text: str) -> str:
    """Return text that Markdown shows unchanged, since a character reference has no meaning in its grammar."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda match: f"&#{ord(match.group())};", safe(in_message(text)))
