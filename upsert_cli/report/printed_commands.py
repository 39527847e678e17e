"""The commands that messages print: completed with the options that were typed, so that each works when pasted.

The core writes a command without them, between backticks, and so does a task's record: both know nothing of how a user
reached the journal. Whatever prints a message completes it here. A line of our own that ends in a command calls
`command` itself, and needs no backticks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from upsert_cli.journal.task import Task

if TYPE_CHECKING:
    import click

CARRIED = {"journal": "--journal", "config": "--config", "profile": "--profile"}
"""The options that a printed command has to repeat, by parameter: they say which journal and which settings count."""

# A quoted path may hold a backtick, another program may feed ours, and text that only mentions it has no word after it.
_PRINTED = re.compile(r"`((?:[^`'\"]*\| )?upsert-cli [a-z](?:[^`'\"]|'[^']*'|\"[^\"]*\")*)`")
_TYPED = f"{__name__}.typed"


@dataclass(frozen=True, slots=True)
class PrintedCommands:
    """Completes printed commands."""

    options: tuple[tuple[str, str], ...] = ()
    """What was typed, such as `("--journal", "j8")`; not what the environment or a file set."""

    @classmethod
    def typed_in(cls, ctx: click.Context) -> PrintedCommands:
        """Return the completion for the options that `remember` saw in a context or in one above it."""
        typed: Mapping[str, str] = ctx.meta.get(_TYPED, {})
        return cls(tuple((option, typed[name]) for name, option in CARRIED.items() if name in typed))

    def command(self, line: str) -> str:
        """Return a command line with the options that it does not have yet."""
        if line.endswith("--help"):  # which reads no journal
            return line
        words = set(line.split())
        if "--config" in words:
            words.add("--profile")  # the one that was typed may not be in the file that the command names
        missing = (word for option, value in self.options if option not in words for word in (option, value))
        return " ".join([line, *map(shlex.quote, missing)])

    def complete(self, text: str) -> str:
        """Return a message of ours with each command between backticks completed."""
        return _PRINTED.sub(lambda found: f"`{self.command(found[1])}`", text) if self.options else text

    def in_task(self, task: Task) -> Task:
        """Return a task for output: its record's reasons name commands, and its rejects hold text of others."""
        if not self.options:
            return task
        earlier = tuple(replace(attempt, detail=self._optional(attempt.detail)) for attempt in task.earlier)
        return replace(task, detail=self._optional(task.detail), earlier=earlier)

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.complete(text)


AS_WRITTEN = PrintedCommands()  # where no option was typed


def remember(ctx: click.Context, name: str, value: object) -> None:
    """Keep what was typed for an option, if printed commands have to repeat it; all contexts of a run share it."""
    if name in CARRIED:
        ctx.meta.setdefault(_TYPED, {})[name] = str(value)


def how_to_continue(task: Task) -> str:
    """Return what continues a task that nobody runs; a queued one is taken over by the next worker."""
    by_worker = task.queued and not task.status.is_final
    return f"`upsert-cli {'work' if by_worker else f'restart {task.id}'}` continues it"
