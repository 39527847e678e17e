"""Renders a task, its rejects and its course as one self-contained HTML page.

Everything from files is text: it passes through `safe`, and jinja2 escapes it. In addition, the page's content security
policy forbids all scripts and styles except its own, and loading anything from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli import __version__
from upsert_cli.counts import OUTCOMES
from upsert_cli.journal.progress import Timeline
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.redaction import without_secrets
from upsert_cli.report.charts import draw
from upsert_cli.report.printed_commands import AS_WRITTEN, NextStep, PrintedCommands
from upsert_cli.text import duration, safe, safe_json, time_taken

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_REJECTS = 1_000  # rejects on a page; a browser searches that many without delay
WHOLE_LOCATION = 36  # characters of a reject's file and row that are shown on one line, which fit on a phone
ITEM_CHARS = 2_000  # characters of a rejected item's JSON; the rejects file has all of it


def render_page(
    task: Task,
    *,
    rejects: Iterable[dict[str, Any]],
    course: Timeline,
    steps: Iterable[NextStep] = (),
    printed: PrintedCommands = AS_WRITTEN,
) -> str:
    """Return the page of a task in its present state.

    Args:
        task: The task.
        rejects: All of them.
        course: For the chart.
        steps: What to do next.
        printed: Completes the commands.
    """
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            task=printed.in_task(task),
            command=printed.command,
            steps=list(steps),
            whole_location=WHOLE_LOCATION,
            state=_state(task),
            tone=_tone(task),
            exit_code=task.exit_code if task.status.is_final else None,
            outcomes=OUTCOMES,
            chart=draw(course),
            rejects=[_reject(record) for record in itertools.islice(rejects, PAGE_REJECTS)],
            options=_options(task),
            took=time_taken(task.load_seconds, task.load_attempts) if task.load_seconds else None,
            converted=[(name or "other fields", values) for name, values in task.converted.by_field.items()],
            now=utc_now(),
            version=__version__,
            style=style,
            script=script,
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        return safe(without_secrets(value)) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": lambda number: f"{number:,}",
        "percent": lambda number: f"{number:.3f}",
        "seconds": duration,
        "rate": lambda rate: f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",  # noqa: PLR2004  # below, a tenth matters
        "own": Markup,  # for our own style and script; nothing else may stay unescaped
    }
    return environment


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _reject(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the cells of a reject's row; its location looks like `a.jsonl:17`."""
    source = str(record["source"])
    item = _item(record)
    return {
        "location": f"{Path(source).name if '://' not in source else source}:{record['row']}",
        "object_id": str(record.get("object_id") or ""),
        "stage": str(record["failure_stage"]),
        "detail": str(record["detail"]),
        "item": item if len(item) <= ITEM_CHARS else f"{item[:ITEM_CHARS]} ...",
    }


def _item(record: Mapping[str, Any]) -> str:
    """Return a rejected item as JSON, a row that is no item as its line, and an empty text if neither is kept."""
    if record.get("line") is not None:
        return str(record["line"])
    item = {name: record[name] for name in ("payload", "item_info") if record.get(name) is not None}
    return safe_json(item) if item else ""


def _options(task: Task) -> list[tuple[str, str]]:
    """Return the options that differ from the defaults of a load."""
    changed = task.options.changed().items()
    return [(name.replace("_", "-"), value if isinstance(value, str) else safe_json(value)) for name, value in changed]


def _state(task: Task) -> str:
    if task.status is TaskStatus.DONE and task.counts.failed:
        return f"done, {task.counts.failed:,} rejected"
    return task.shown_state


def _tone(task: Task) -> str:
    if task.status in (TaskStatus.FAILED, TaskStatus.REFUSED) or task.has_died:
        return "bad"
    if task.status is TaskStatus.DONE:
        return "mixed" if task.counts.failed else "good"
    return "open"
