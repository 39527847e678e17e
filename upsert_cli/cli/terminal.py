"""The terminal: where messages, errors and progress go, and what it can show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import click

from upsert_cli.context import Unattended
from upsert_cli.redaction import in_message
from upsert_cli.report.github import Level, annotation, in_actions
from upsert_cli.report.printed_commands import AS_WRITTEN, PrintedCommands
from upsert_cli.text import safe

if TYPE_CHECKING:
    from rich.console import Console

ColorChoice = Literal["auto", "always", "never"]
ProgressChoice = Literal["auto", "bar", "plain", "none"]

_COLORS: dict[Level, str] = {"warning": "yellow", "error": "red"}


@dataclass(slots=True)
class Screen:
    """What is drawn at the bottom of the terminal, over itself."""

    print_above: Callable[[str], None] | None = None
    """Prints a line above it; None where nothing is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What the user wants to see; stdout carries data only, everything else goes to stderr."""

    quiet: bool = False
    verbose: bool = False
    color: ColorChoice = "auto"
    progress: ProgressChoice = "auto"
    printed: PrintedCommands = AS_WRITTEN
    """Completes the commands in messages."""
    screen: Screen = field(default_factory=Screen)

    def say(self, message: str) -> None:
        """Shows a message of the tool's own, unless only failures are wanted."""
        if not self.quiet:
            self.show(message)

    def warn(self, message: str) -> None:
        """Shows what the user should know although the work goes on."""
        if not self.quiet:
            self._line("warning", message)

    def fail(self, message: str, *, annotated: bool = True) -> None:
        """Show an error, always; in GitHub Actions as an annotation, unless an earlier step has one for the cause."""
        self._line("error", message, annotated=annotated)

    def show(self, message: str, *, accent: str = "", level: Level = "warning") -> None:
        """Show a line on stderr, always; its part `accent` has the color of `level`."""
        line = safe(in_message(self.printed.complete(message)))
        before, found, after = line.partition(accent) if accent and self.colored else (line, "", "")
        self._echo(before + (click.style(found, fg=_COLORS[level], bold=True) if found else "") + after)

    def point_at(self, source: str, row: int, message: str, *, level: Level) -> None:
        """Show what is wrong with a row, always; in GitHub Actions as an annotation of the file."""
        if in_actions():
            self._echo(annotation(level, f"{source}:{row}: {message}", source=source, row=row))
        else:
            self.list_row(source, row, message)

    def list_row(self, source: str, row: int, message: str) -> None:
        """Shows what is wrong with a row, always."""
        # Of text from a file no command is completed.
        self._echo(safe(in_message(f"  {source}:{row}: {message}")))

    def _line(self, level: Level, message: str, *, annotated: bool = True) -> None:
        message = self.printed.complete(message)
        if in_actions() and annotated:
            self._echo(annotation(level, message))
            return
        styled = click.style(f"{level}:", fg=_COLORS[level], bold=True) if self.colored else f"{level}:"
        self._echo(f"{styled} {safe(in_message(message))}")

    @property
    def colored(self) -> bool:
        """Whether stderr gets colors; see https://no-color.org for the variable."""
        if self.color != "auto":
            return self.color == "always"
        return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def progress_kind(self) -> Literal["bar", "plain", "none"]:
        """How progress is shown; bars only on a terminal, whatever FORCE_COLOR says."""
        if self.quiet or self.progress == "none":
            return "none"
        bars = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        if self.progress == "auto":
            return "bar" if bars else "plain" if os.environ.get("CI") else "none"
        return "bar" if self.progress == "bar" and bars else "plain"

    def console(self, *, stderr: bool) -> Console:
        """Returns rich's console, with every decision that it would take from the environment taken here."""
        from rich.console import Console

        stream = sys.stderr if stderr else sys.stdout
        return Console(
            file=stream,
            force_terminal=stream.isatty(),
            force_interactive=stream.isatty(),
            no_color=not self.colored,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def _echo(self, line: str) -> None:
        # A terminal that was closed, or a log that is full, must not change how the work ends.
        with suppress(OSError):
            if self.screen.print_above is not None:
                self.screen.print_above(line)
            else:
                click.echo(line, err=True, color=self.colored)


class TerminalContext(Unattended):
    """A context that shows messages; a signal ends the command itself."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def info(self, message: str) -> None:
        """Show what takes long."""
        self._terminal.say(message)

    def warning(self, message: str) -> None:
        """Show a warning."""
        self._terminal.warn(message)
