"""GitHub Actions: messages -> annotations, and a task -> a Markdown summary of the step.

Data is escaped twice over: `safe` takes away what a log would obey, and these functions what an annotation or Markdown
would. https://docs.github.com/actions/reference/workflow-commands-for-github-actions has the rules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from upsert_cli.journal.task import Task
from upsert_cli.redaction import in_message
from upsert_cli.report.printed_commands import AS_WRITTEN, PrintedCommands
from upsert_cli.text import safe

ANNOTATED_REJECTS = 9  # GitHub shows ten errors of a step, and one is for the error that ends it
LINE_FORMATS = (".jsonl", ".ndjson")  # where a row is a line that the file can be opened at

Level = Literal["error", "warning"]


def in_actions() -> bool:
    """Tells whether this process is a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def annotation(level: Level, message: str, *, source: str | None = None, row: int | None = None) -> str:
    """Returns the line that makes the runner show a message beside the file that it is about.

    Args:
        level: How grave it is.
        message: One line.
        source: The file, as the user named it.
        row: The row in it; the line that is pointed at, where rows are lines.
    """
    properties: dict[str, str] = {}
    if source is not None:
        properties["file"] = _in_workspace(source)
        if row is not None and source.lower().endswith(LINE_FORMATS):
            properties["line"] = str(row)
    given = ",".join(f"{name}={_escaped(value, more=':,')}" for name, value in properties.items())
    return f"::{level}{f' {given}' if given else ''}::{_escaped(message)}"


def append_summary(
    task: Task | None,
    *,
    exit_code: int,
    seconds: float,
    detail: str | None,
    rejects: Sequence[Mapping[str, Any]],
    printed: PrintedCommands = AS_WRITTEN,
) -> None:
    """Adds what became of a load to the summary of the step, where there is one.

    Raises:
        OSError: It cannot be written.
    """
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not in_actions() or not path:
        return
    lines = _summary(task, exit_code=exit_code, seconds=seconds, detail=detail, rejects=rejects, printed=printed)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("".join(f"{line}\n" for line in lines))


def _summary(
    task: Task | None,
    *,
    exit_code: int,
    seconds: float,
    detail: str | None,
    rejects: Sequence[Mapping[str, Any]],
    printed: PrintedCommands,
) -> Iterator[str]:
    mark = {0: "✅", 3: "⚠️"}.get(exit_code, "❌")
    if task is None:
        yield from (
            f"### {mark} upsert-cli: exit code {exit_code}",
            "",
            _text(printed.complete(detail or "nothing was done")),
            "",
        )
        return
    yield from (f"### {mark} upsert-cli: task {_text(task.id)} {task.status.value}", "")
    sources = ", ".join(_text(source) for source in task.sources)
    target = f"collection {_text(task.collection)} in {_text(task.chroma)}"
    spent = f"attempt {task.attempt} took {seconds:,.1f} s" if task.attempt > 1 else f"{seconds:,.1f} s"
    yield from (f"{sources} into {target}, {spent}, exit code {exit_code}", "")
    if detail or task.detail:
        yield from (_text(printed.complete(detail or task.detail or "")), "")
    yield "| read | inserted | updated | unchanged | duplicate | rejected | truncated |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    counts = task.counts
    numbers = (counts.read, counts.inserted, counts.updated, counts.unchanged, counts.duplicate, counts.failed)
    yield f"| {' | '.join(f'{number:,}' for number in (*numbers, counts.truncated))} |"
    yield ""
    if rejects:
        yield from ("| row | stage | why |", "|---|---|---|")
        for record in rejects:
            place = _text(f"{record['source']}:{record['row']}")
            yield f"| {place} | {_text(record['failure_stage'])} | {_text(record['detail'])} |"
        more = counts.failed - len(rejects)
        yield from ("", f"{more:,} more; all of them:" if more > 0 else "All of them as JSONL:")
        yield from (_code(printed.command(f"upsert-cli info {task.id} --failed")), "")


def _in_workspace(source: str) -> str:
    """Returns a path as GitHub links it: from the root of the checkout on."""
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
    """Return text as Markdown's code, between more backticks than it holds in a row."""
    shown = safe(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence} {shown} {fence}" if "`" in shown else f"{fence}{shown}{fence}"


def _text(text: str) -> str:
    """Returns text that Markdown shows as it is: a character reference has no meaning in its grammar."""
    return re.sub(r"[!-/:-@\[-`{-~]", lambda match: f"&#{ord(match.group())};", safe(in_message(text)))
