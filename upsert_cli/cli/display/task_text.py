"""Words for people about a task: its sources, its options, and the facts about its load."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

from upsert_cli.journal.load_options import LoadOptions, flag
from upsert_cli.journal.task import Task
from upsert_cli.sources.source_path import SCHEME, is_collection
from upsert_cli.text import time_taken


def sources_in_short(task: Task) -> str:
    """Return the name of the first source, and how many more there are."""
    name = _short_name(task.sources[0])
    return name if len(task.sources) == 1 else f"{name} and {len(task.sources) - 1} more"


def _short_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # The shell passes `<(...)` as /dev/fd/63, whose last part alone would say nothing.
    if source.startswith(("/dev/", "/proc/")):
        return source
    return f"{SCHEME if is_collection(source) else ''}{Path(source).name}"


def options_line(options: LoadOptions) -> str:
    """Return the options of a load that differ from the defaults, as they are typed."""
    words: list[str] = []
    for name, value in options.changed().items():
        text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
        values = [each.replace(",", r"\,") for each in value] if isinstance(value, list) else [text]
        words.append(flag(name))
        words += [] if value is True else [",".join(values)]
    return shlex.join(words)


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
    if task.load_seconds:
        yield "took", time_taken(task.load_seconds, task.load_attempts)
