"""Completes the commands in messages with the options that were typed, so that they work when pasted.

The core and the journal write commands without these options, between backticks, since they do not know how the user
reached the journal. Everything that prints a message completes it here. A line that ends in a command calls `command`
itself and needs no backticks.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from upsert_cli.redaction import in_message

if TYPE_CHECKING:
    import click

    from upsert_cli.journal.task import Task

CARRIED = {"journal": "--journal", "config": "--config", "profile": "--profile"}
"""The options that a printed command has to repeat, by parameter: they choose the journal and the settings."""

# A quoted path may have a backtick, and another program may feed ours; a mere mention of ours has no word after it.
_PRINTED = r"`((?:[^`'\"]*\| )?upsert-cli [a-z](?:[^`'\"]|'[^']*'|\"[^\"]*\")*)`"  # compiled by `re` when used
_TYPED = f"{__name__}.typed"


class NextStep(NamedTuple):
    """A command that the user may want next, and its purpose."""

    label: str
    """Such as `to continue it`."""

    command: str
    is_query: bool = False
    """Whether the command queries the collection, which a message about the collection shows."""


@dataclass(frozen=True, slots=True)
class PrintedCommands:
    """Completes printed commands."""

    options: tuple[tuple[str, str], ...] = ()
    """The typed options, such as `("--journal", "j8")`; those of the environment or a file still hold when pasted."""

    @classmethod
    def typed_in(cls, ctx: click.Context) -> PrintedCommands:
        """Return the completion for the options that were remembered in this context or one above it."""
        typed: Mapping[str, str] = ctx.meta.get(_TYPED, {})
        return cls(tuple((option, typed[name]) for name, option in CARRIED.items() if name in typed))

    def command(self, line: str) -> str:
        """Return a command line with the options that it lacks."""
        if line.endswith("--help"):  # which reads no journal
            return line
        words = set(line.split())
        if "--config" in words:
            words.add("--profile")  # the typed profile may not be in the file that the command names
        missing = (word for option, value in self.options if option not in words for word in (option, value))
        return " ".join([line, *map(shlex.quote, missing)])

    def complete(self, text: str) -> str:
        """Return one of our messages with each command between backticks completed."""
        return re.sub(_PRINTED, lambda found: f"`{self.command(found[1])}`", text) if self.options else text

    def message(self, text: str) -> str:
        """Return one of our messages for people or programs: its commands completed, and without secrets."""
        return in_message(self.complete(text))

    def in_task(self, task: Task) -> Task:
        """Return a task with the commands in its details completed, but not those in rejects, which quote files."""
        if not self.options:
            return task
        earlier = tuple(replace(attempt, detail=self._optional(attempt.detail)) for attempt in task.earlier)
        return replace(task, detail=self._optional(task.detail), earlier=earlier)

    def _optional(self, text: str | None) -> str | None:
        return None if text is None else self.complete(text)


AS_WRITTEN = PrintedCommands()  # where no option was typed


def remember(ctx: click.Context, name: str, value: object) -> None:
    """Remember the typed value of an option that printed commands have to repeat; contexts share the memory."""
    if name in CARRIED:
        ctx.meta.setdefault(_TYPED, {})[name] = str(value)
