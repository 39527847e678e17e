"""The terminal: where messages, errors and progress go, and what it can show."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from upsert_cli.cli.actions import Level, annotation, in_actions
from upsert_cli.cli.printed_commands import AS_WRITTEN, PrintedCommands
from upsert_cli.cli.text import safe
from upsert_cli.redaction import without_secrets

if TYPE_CHECKING:
    from rich.console import Console

ColorChoice = Literal["auto", "always", "never"]
ProgressChoice = Literal["auto", "bar", "plain", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """What the user wants to see; stdout carries data only, everything else goes to stderr."""

    quiet: bool = False
    verbose: bool = False
    color: ColorChoice = "auto"
    progress: ProgressChoice = "auto"
    printed: PrintedCommands = AS_WRITTEN
    """Completes the commands in messages."""

    def say(self, message: str) -> None:
        """Shows a message of the tool's own, unless only failures are wanted."""
        if not self.quiet:
            self.show(message)

    def warn(self, message: str) -> None:
        """Shows what the user should know although the work goes on."""
        if not self.quiet:
            self._line("warning", "yellow", message)

    def fail(self, message: str, *, annotated: bool = True) -> None:
        """Show an error, always; in GitHub Actions as an annotation, unless an earlier step has one for the cause."""
        self._line("error", "red", message, annotated=annotated)

    def show(self, message: str) -> None:
        """Shows a line on stderr, always."""
        self._echo_plain(self.printed.complete(message))

    def point_at(self, source: str, row: int, message: str) -> None:
        """Shows what is wrong with a row, always; in GitHub Actions beside the file."""
        if in_actions():
            _echo(annotation("error", f"{source}:{row}: {message}", source=source, row=row), colored=False)
        else:
            self.list_row(source, row, message)

    def list_row(self, source: str, row: int, message: str) -> None:
        """Shows what is wrong with a row, always."""
        self._echo_plain(f"  {source}:{row}: {message}")  # text from a file, which is shown as it is

    def _echo_plain(self, message: str) -> None:
        _echo(safe(without_secrets(message)), colored=False)

    def _line(self, label: Level, color: str, message: str, *, annotated: bool = True) -> None:
        message = self.printed.complete(message)
        if in_actions() and annotated:
            _echo(annotation(label, message), colored=False)
            return
        styled = click.style(f"{label}:", fg=color, bold=True) if self.colored else f"{label}:"
        _echo(f"{styled} {safe(without_secrets(message))}", colored=self.colored)

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


def _echo(line: str, *, colored: bool) -> None:
    # A terminal that was closed, or a log that is full, must not change how the work ends.
    with suppress(OSError):
        click.echo(line, err=True, color=colored)
