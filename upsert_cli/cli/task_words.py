"""A task -> the words in which its sources, and what to do about its rejects, are told."""

from __future__ import annotations

from pathlib import Path

from upsert_cli.journal.tasks import Task


def sources_in_short(task: Task) -> str:
    """Returns the first source's name and how many there are beside it."""
    name = _short_name(task.sources[0])
    return name if len(task.sources) == 1 else f"{name} and {len(task.sources) - 1} more"


def _short_name(source: str) -> str:
    if source == "-":
        return "standard input"
    # Of `<(...)`, which the shell writes as /dev/fd/63, the last part alone would say nothing.
    return source if source.startswith(("/dev/", "/proc/")) else Path(source).name


def command_for_mended(task: Task) -> str:
    """Returns the command that loads mended rejects; our own copy of a stream is not for the user to mend."""
    if any(source.get("spooled") for source in task.inputs):
        return "upsert-cli run FILE, with what `--failed` printed"
    return f"upsert-cli restart {task.id} --from-start"
