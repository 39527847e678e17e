"""Words for people about a task: its sources, its options, and the commands that come next.

`PrintedCommands` completes the commands, so that they work when pasted.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import click

from upsert_cli.embedding.catalog import embeds, known_prefixes
from upsert_cli.errors import UsageFault
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.option_field import flag
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.redaction import in_message
from upsert_cli.sources.formats import SCHEME, is_collection

TO_QUERY = "to query it"  # a label, like the next
TO_QUERY_BY_VECTOR = "to query it by the vector in FILE"
TO_QUERY_BY_MODEL = "to query it, with the files of its model in DIR"
QUERIES = (TO_QUERY, TO_QUERY_BY_VECTOR, TO_QUERY_BY_MODEL)
QUERY_WORDS, QUERY_CHARACTERS = 4, 40  # of a loaded text, enough to find it and short enough to read
Wanted: TypeAlias = dict[str, str | Path | bool | None]  # values of options by name
ANY_QUERY = "your text"  # where no loaded text is known


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


def by_status(statuses: Iterable[TaskStatus]) -> dict[str, int]:
    """Return the number of tasks in each state."""
    return dict(sorted(Counter(status.value for status in statuses).items()))


def tasks_line(counts: Mapping[str, int], verb: str) -> str:
    """Return a line such as `3 tasks removed: 2 done, 1 failed`."""
    number = sum(counts.values())
    each = ", ".join(f"{count:,} {status}" for status, count in counts.items())
    return f"{number:,} task{'s' * (number != 1)} {verb}" + (f": {each}" if each else "")


class NextStep(NamedTuple):
    """A command and its purpose."""

    label: str
    """Such as `to continue it`."""

    command: str


def how_to_continue(task: Task) -> str:
    """Return in words how to continue a task that no process runs."""
    return f"`{_start(task)}` continues it"


def _start(task: Task) -> str:
    """Return the command that runs or continues a task; the next worker takes over a queued one."""
    return "upsert-cli work" if task.queued and not task.status.is_final else f"upsert-cli restart {task.id}"


def next_steps(task: Task, *, example: str = "", names_model: bool = True) -> list[NextStep]:
    """Return the next steps after a task in its present state, but none that its detail names with more options.

    After a refusal, only the detail knows them.

    Args:
        task: The task.
        example: A loaded text, which a query may look for.
        names_model: Whether a query names the model, since the collection does not, or may not.
    """
    steps = _steps_after(task, example, names_model=names_model)
    return [step for step in steps if f"{step.command} --" not in (task.detail or "")]


def _steps_after(task: Task, example: str, *, names_model: bool) -> list[NextStep]:
    start = _start(task)
    match task.status:
        case TaskStatus.PROCESSING if task.running:
            return [NextStep("to see its progress", f"upsert-cli info {task.id} --follow")]
        case TaskStatus.PENDING:
            return [NextStep("to run it", start)]
        case TaskStatus.FAILED if task.stopped_by is None:
            return [NextStep("once the cause is removed, continue with", start)]
        case TaskStatus.PROCESSING | TaskStatus.FAILED | TaskStatus.CANCELED:
            return [NextStep("to continue it", start)]
        case TaskStatus.DONE:
            return [*_after_rejects(task), *_to_query(task, example, names_model=names_model)]
    return []


def _after_rejects(task: Task) -> Iterator[NextStep]:
    """Yield how to load corrected rejects; users cannot correct our copy of a stream."""
    if not task.counts.failed:
        return
    if not any(source.get("spooled") for source in task.inputs):
        yield NextStep("once the rejected items are corrected", f"upsert-cli restart {task.id} --from-start")
        return
    command = ("run", "FILE") if task.kind == "default" else ("categories", "run", "FILE")
    wanted = _target(task) | _model(task)
    yield NextStep("once the rejected items are corrected in FILE", _with_options(command, wanted, like="run"))


def _to_query(task: Task, example: str, *, names_model: bool) -> Iterator[NextStep]:
    if task.counts.inserted + task.counts.updated + task.counts.unchanged:
        yield to_query(task, example, names_model=names_model)


def to_query(task: Task, example: str = "", *, names_model: bool) -> NextStep:
    """Return how to query the collection of a task: for the beginning of a text, or by a vector without a model."""
    wanted = _target(task) | (_model(task) if names_model else {})
    if not embeds(task.model):
        return NextStep(TO_QUERY_BY_VECTOR, _with_options(("query", "--vector", "FILE"), _target(task), like="query"))
    label = TO_QUERY
    # The vectors of a model that fastembed does not list are kept without its files.
    is_custom = task.options.keep_vectors and known_prefixes(task.model) is None
    if is_custom and not isinstance(_value_unless_given("query", "model_path"), Path):
        label, wanted = TO_QUERY_BY_MODEL, wanted | {"model_path": "DIR"}
    return NextStep(label, _with_options(("query", _query_of(example)), wanted, like="query"))


def _target(task: Task) -> Wanted:
    folder = task.options.model_folder if embeds(task.model) else None
    return {"chroma": task.chroma, "collection": task.collection, "model_path": folder}


def _model(task: Task) -> Wanted:
    return {"model": task.model, "pooling": task.options.pooling, "no_normalize": task.options.no_normalize}


def _with_options(words: Sequence[str], wanted: Wanted, *, like: str) -> str:
    """Return a command with the options whose values are not set elsewhere, by a variable or a file."""
    options = [
        word
        for name, value in wanted.items()
        if value and value != _value_unless_given(like, name)
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]
    return shlex.join(["upsert-cli", *words, *options])


def _value_unless_given(command: str, option: str) -> Any:
    """Return the value that an option of a command has without being typed: from a variable, a file or the default.

    None if the command would refuse the value.
    """
    root = click.get_current_context().find_root()
    found = root.command.get_command(root, command) if isinstance(root.command, click.Group) else None
    if found is None:
        return None
    ctx = click.Context(found, info_name=command, parent=root)
    param = next(param for param in found.params if param.name == option)
    try:
        value, _ = param.consume_value(ctx, {})
        return param.process_value(ctx, value)
    except (click.UsageError, UsageFault):
        return None


def _query_of(text: str) -> str:
    """Return the first words of a text."""
    words = re.findall(r"\w+", in_message(text[: 10 * QUERY_CHARACTERS]))[:QUERY_WORDS]
    while words and len(" ".join(words)) > QUERY_CHARACTERS:
        words.pop()
    return " ".join(words) or ANY_QUERY
