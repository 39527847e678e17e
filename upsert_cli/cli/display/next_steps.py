"""The commands that a user may want next, given a task in its present state.

`PrintedCommands` completes the commands, so that they work when pasted.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from upsert_cli.embedding.catalog import embeds, known_prefixes
from upsert_cli.errors import UpsertCliError, UsageFault
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.redaction import in_message
from upsert_cli.report.printed_commands import NextStep

if TYPE_CHECKING:
    from upsert_cli.journal.journal import Journal

QUERY_WORDS, QUERY_CHARACTERS = 4, 40  # of a loaded text, enough to find it and short enough to read
ANY_QUERY = "your text"  # where no loaded text is known

_Options: TypeAlias = dict[str, str | Path | bool | None]  # values by name; None and False for an option to leave out


def how_to_continue(task: Task) -> str:
    """Return the end of a sentence with the command that continues a task that no process runs."""
    return f"`{_start(task)}` continues it"


def next_steps(task: Task, *, example: str = "", names_model: bool = True) -> list[NextStep]:
    """Return the next steps after a task, without those whose command its detail gives with more options.

    After a refusal, only the detail has these options.

    Args:
        task: The task.
        example: A loaded text, which a query may look for.
        names_model: Whether a query names the model, since the collection does not, or may not.
    """
    steps = [*_ways_to_go_on(task)]
    counts = task.counts
    if task.status is TaskStatus.DONE and counts.inserted + counts.updated + counts.unchanged:
        steps.append(to_query(task, example, names_model=names_model))
    return [step for step in steps if f"{step.command} --" not in (task.detail or "")]


def _ways_to_go_on(task: Task) -> Iterator[NextStep]:
    match task.status:
        case TaskStatus.PROCESSING if task.running:
            yield NextStep("to see its progress", f"upsert-cli info {task.id} --follow")
        case TaskStatus.PENDING:
            yield NextStep("to run it", _start(task))
        case TaskStatus.FAILED if task.stopped_by is None:
            yield NextStep("once the cause is removed, continue with", _start(task))
        case TaskStatus.PROCESSING | TaskStatus.FAILED | TaskStatus.CANCELED:
            yield NextStep("to continue it", _start(task))
        case TaskStatus.DONE if task.counts.failed:
            yield _to_load_corrected(task)


def _start(task: Task) -> str:
    """Return the command that runs or continues a task; the next worker takes over a queued one."""
    return "upsert-cli work" if task.queued and not task.status.is_final else f"upsert-cli restart {task.id}"


def _to_load_corrected(task: Task) -> NextStep:
    """Return how to load corrected rejects; a stream is not read again, so they come from a file."""
    if not any(source.get("spooled") for source in task.inputs):
        return NextStep("once the rejected items are corrected", f"upsert-cli restart {task.id} --from-start")
    command = ("run",) if task.kind == "default" else ("categories", "run")
    line = _command_line(command, "FILE", options=_target(task) | _model(task))
    return NextStep("once the rejected items are corrected in FILE", line)


def to_query(task: Task, example: str = "", *, names_model: bool) -> NextStep:
    """Return how to query the collection of a task: for the beginning of a text, or by a vector without a model."""
    if not embeds(task.model):
        line = _command_line(("query",), "--vector", "FILE", options=_target(task))
        return NextStep("to query it by the vector in FILE", line, is_query=True)
    label, options = "to query it", _target(task)
    if names_model:
        options |= _model(task)
    if _lacks_model_files(task):
        label, options = "to query it, with the files of its model in DIR", options | {"model_path": "DIR"}
    return NextStep(label, _command_line(("query",), _query_of(example), options=options), is_query=True)


def query_others(journal: Journal, task: Task) -> list[NextStep]:
    """Return how to query the collection of a task that loaded no record, unless the collection is empty."""
    from upsert_cli.verify.collections import collections_at

    try:
        found = collections_at(journal, task.chroma)
    except UpsertCliError:  # the load has ended well, even if the target does not answer now
        return [to_query(task, names_model=True)]
    own = [summary for summary in found if summary.info.name == task.collection and summary.records]
    return [to_query(task, names_model=summary.info.model is None) for summary in own]


def _lacks_model_files(task: Task) -> bool:
    """Tell whether a task has copied the vectors of a model that fastembed does not list, without the model's files."""
    is_copy = task.options.keep_vectors and known_prefixes(task.model) is None
    return is_copy and not isinstance(_value_unless_given(("query",), "model_path"), Path)


def _target(task: Task) -> _Options:
    folder = task.options.model_folder if embeds(task.model) else None
    return {"chroma": task.chroma, "collection": task.collection, "model_path": folder}


def _model(task: Task) -> _Options:
    return {"model": task.model, "pooling": task.options.pooling, "no_normalize": task.options.no_normalize}


def _command_line(command: Sequence[str], *words: str, options: _Options) -> str:
    """Return a command line with the options whose values neither a variable nor a file sets."""
    given = [
        word
        for name, value in options.items()
        if value and value != _value_unless_given(command, name)
        for word in (f"--{name.replace('_', '-')}", *([] if value is True else [str(value)]))
    ]
    return shlex.join(["upsert-cli", *command, *words, *given])


def _value_unless_given(command: Sequence[str], option: str) -> Any:
    """Return the value that an option has without being typed: from a variable, a file or the default.

    None if the command would refuse the value.
    """
    ctx = click.get_current_context().find_root()
    for name in command:
        found = ctx.command.get_command(ctx, name) if isinstance(ctx.command, click.Group) else None
        if found is None:
            return None
        ctx = click.Context(found, info_name=name, parent=ctx)
    param = next(param for param in ctx.command.params if param.name == option)
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
