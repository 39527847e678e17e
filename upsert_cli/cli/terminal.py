"""The terminal: messages, warnings, errors and progress go to stderr, in the form that it can show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from upsert_cli.redaction import in_message
from upsert_cli.report.github import Level, annotation, in_actions
from upsert_cli.report.printed_commands import AS_WRITTEN, PrintedCommands
from upsert_cli.text import safe

if TYPE_CHECKING:
    from rich.console import Console

ColorChoice = Literal["auto", "always", "never"]
ProgressChoice = Literal["auto", "bar", "plain", "none"]

_COLORS: dict[Level, str] = {"warning": "yellow", "error": "red"}


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Terminal:
    """The user's wishes for stderr, and the messages that go there; stdout carries data only."""

    quiet: bool = False
    verbose: bool = False
    color: ColorChoice = "auto"
    progress: ProgressChoice = "auto"
    printed: PrintedCommands = AS_WRITTEN
    """Completes the commands in messages."""

    print_above: Callable[[str], None] | None = None
    """Prints a line above the frame that is drawn at the bottom of the terminal; None if there is no frame."""

    def info(self, message: str) -> None:
        """Show a message, unless the user only wants failures."""
        if not self.quiet:
            self.print(message)

    def warning(self, message: str) -> None:
        """Show something that the user should know although the work continues."""
        if not self.quiet:
            self._print_level("warning", message)

    def error(self, message: str, *, annotated: bool = True) -> None:
        """Show an error, always; in GitHub Actions as an annotation, unless an earlier step has one for the cause."""
        self._print_level("error", message, annotated=annotated)

    def print(self, message: str, *, accent: str = "", level: Level = "warning") -> None:
        """Show a line, always; its part `accent` gets the color of `level`."""
        line = safe(in_message(self.printed.complete(message)))
        before, found, after = line.partition(accent) if accent and self.colored else (line, "", "")
        self._echo(before + (click.style(found, fg=_COLORS[level], bold=True) if found else "") + after)

    def print_row(self, source: str, row: int, problem: str, *, level: Level | None) -> None:
        """Show the problem of a row, always; in GitHub Actions as an annotation of its file, if it has a level."""
        if level is not None and in_actions():
            self._echo(annotation(level, f"{source}:{row}: {problem}", source=source, row=row))
        else:
            self._echo(safe(in_message(f"  {source}:{row}: {problem}")))  # commands in text from files stay as they are

    def _print_level(self, level: Level, message: str, *, annotated: bool = True) -> None:
        message = self.printed.complete(message)
        if in_actions() and annotated:
            self._echo(annotation(level, message))
            return
        styled = click.style(f"{level}:", fg=_COLORS[level], bold=True) if self.colored else f"{level}:"
        self._echo(f"{styled} {safe(in_message(message))}")

    @property
    def colored(self) -> bool:
        """Whether stderr gets colors; https://no-color.org describes the variable."""
        if self.color != "auto":
            return self.color == "always"
        return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def progress_kind(self) -> Literal["bar", "plain", "none"]:
        """How to show progress; bars only on a terminal, whatever FORCE_COLOR says."""
        if self.quiet or self.progress == "none":
            return "none"
        bars = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        if self.progress == "auto":
            return "bar" if bars else "plain" if os.environ.get("CI") else "none"
        return "bar" if self.progress == "bar" and bars else "plain"

    def console(self, *, stderr: bool) -> Console:
        """Return rich's console with everything decided here that it would otherwise take from the environment."""
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
        # A closed terminal or a full log must not change how the work ends.
        with suppress(OSError):
            if self.print_above is not None:
                self.print_above(line)
            else:
                click.echo(line, err=True, color=self.colored)
