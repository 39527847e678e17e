"""The terminal: messages, warnings and errors on stderr, below them a frame whose lines are drawn over themselves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from upsert_cli.redaction import in_message
from upsert_cli.report.github import Level, annotation, in_actions
from upsert_cli.report.printed_commands import AS_WRITTEN, PrintedCommands
from upsert_cli.text import safe, wrapped

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Part: TypeAlias = str | tuple[str, str]
"""A part of a line: a text, or a text and its color."""

ColorChoice = Literal["auto", "always", "never"]
ProgressChoice = Literal["auto", "bar", "plain", "none"]

COLORS: dict[Level, str] = {"warning": "yellow", "error": "red"}
STDERR = 2  # the descriptor, which stays the terminal while a frame redirects sys.stderr
USUAL_COLUMNS = 80

Render: TypeAlias = Callable[[int], Sequence["RenderableType"]]
"""Returns the lines of a frame, given the width of the terminal."""

SHOW_CURSOR = b"\x1b[?25h"


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class Terminal:
    """The user's wishes for stderr, and the messages that go there; stdout carries data only.

    On a terminal, messages are wrapped between words; elsewhere a message is one line.
    """

    quiet: bool = False
    verbose: bool = False
    color: ColorChoice = "auto"
    progress: ProgressChoice = "auto"
    printed: PrintedCommands = AS_WRITTEN
    """Completes the commands in messages."""

    print_above: Callable[[str], None] | None = None
    """Prints a line above the frame that is drawn at the bottom of the terminal; None if there is no frame."""

    is_terminal: bool = field(default_factory=lambda: sys.stderr.isatty())  # noqa: PLW0108  # the stream at that time
    """Whether stderr is a terminal, before a frame redirects it."""

    @classmethod
    def of(cls, ctx: click.Context) -> Terminal:
        """Return the terminal with the options of a command, or with the defaults for options that were not read."""
        wishes = {name: ctx.params[name] for name in ("quiet", "verbose", "color", "progress") if name in ctx.params}
        return cls(**wishes, printed=PrintedCommands.typed_in(ctx))

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

    def print(self, *parts: Part) -> None:
        """Show a line, always."""
        self._echo("".join(map(self._styled, parts)))

    def print_command(self, command: str, label: str = "") -> None:
        """Show a command to copy, always; below its label if it does not fit after it."""
        command = safe(in_message(self.printed.command(command)))
        line = f"  {label}: {command}" if label else f"  {command}"
        if label and self.is_terminal and len(line) > self._columns:
            self._echo(f"  {label}:")
            line = f"    {command}"
        self._echo(line, is_whole=True)

    def print_row(self, source: str, row: int, problem: str, *, level: Level | None) -> None:
        """Show the problem of a row, always; in GitHub Actions as an annotation of its file, if it has a level."""
        if level is not None and in_actions():
            self._echo(annotation(level, f"{source}:{row}: {problem}", source=source, row=row), is_whole=True)
        else:
            self._echo(safe(in_message(f"  {source}:{row}: {problem}")))  # commands in text from files stay as they are

    def _print_level(self, level: Level, message: str, *, annotated: bool = True) -> None:
        if in_actions() and annotated:
            self._echo(annotation(level, self.printed.complete(message)), is_whole=True)
        else:
            self.print((f"{level}:", COLORS[level]), f" {message}")

    def _styled(self, part: Part) -> str:
        text, color = part if isinstance(part, tuple) else (part, None)
        shown = safe(self.printed.message(text))
        return click.style(shown, fg=color, bold=True) if color and self.colored else shown

    @property
    def colored(self) -> bool:
        """Whether stderr gets colors; https://no-color.org describes the variable."""
        if self.color != "auto":
            return self.color == "always"
        return self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    @property
    def progress_kind(self) -> Literal["bar", "plain", "none"]:
        """How to show progress; bars only on a terminal, even with FORCE_COLOR."""
        if self.quiet or self.progress == "none":
            return "none"
        can_draw = self.is_terminal and os.environ.get("TERM") != "dumb"
        if self.progress == "auto" and not can_draw:
            return "plain" if os.environ.get("CI") else "none"
        return "bar" if can_draw and self.progress != "plain" else "plain"

    def console(self, *, stderr: bool) -> Console:
        """Return a console of rich, with colors and interactivity as decided here and not by the environment."""
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

    @property
    def _columns(self) -> int:
        """The width of the terminal; https://pubs.opengroup.org/onlinepubs/9799919799 defines the variable."""
        if (given := os.environ.get("COLUMNS", "")).isdecimal():
            return int(given) or USUAL_COLUMNS
        try:
            return os.get_terminal_size(STDERR).columns or USUAL_COLUMNS
        except OSError:
            return USUAL_COLUMNS

    def _echo(self, line: str, *, is_whole: bool = False) -> None:
        if self.is_terminal and not is_whole:
            line = wrapped(line, self._columns)
        # A closed terminal or a full log must not change how the work ends.
        with suppress(OSError):
            if self.print_above is not None:
                self.print_above(line)
            else:
                click.echo(line, err=True, color=self.colored)


class Frame:
    """Lines that are drawn over themselves; on exit, the last ones stay.

    Messages are printed above the frame. The cursor waits in an empty line below it, so that characters that the
    terminal echoes, such as `^C`, move no line of the frame and are erased with the next one.
    """

    def __init__(self, terminal: Terminal, render: Render, *, stderr: bool, refreshes: float | None = None) -> None:
        """Prepare a frame.

        Args:
            terminal: The terminal to draw on.
            render: Returns the lines.
            stderr: Whether to draw on stderr instead of stdout.
            refreshes: How many times per second to draw; None to draw only when `draw` is called.
        """
        from rich.live import Live

        self._terminal = terminal
        self._render = render
        self._last = False
        self._console = terminal.console(stderr=stderr)
        self._live = Live(
            console=self._console,
            get_renderable=self._lines,
            auto_refresh=refreshes is not None,
            refresh_per_second=refreshes or 1.0,
            vertical_overflow="crop",
            redirect_stdout=False,  # data goes where the user sent it
        )

    def __enter__(self) -> Frame:
        self._terminal.print_above = self._print_above
        try:
            self._live.start(refresh=True)
        except BaseException:  # a signal during the first drawing would leave the cursor hidden
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._last = True
        try:
            with suppress(OSError):  # the terminal is gone, which must not change how the work ends
                self._live.stop()
        finally:
            self._terminal.print_above = None

    def draw(self) -> None:
        """Draw the frame again."""
        self._live.refresh()

    def _lines(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        below = () if self._last else (Text(""),)
        return Group(*self._render(self._console.width), *below)

    def _print_above(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(line), soft_wrap=True)


def restore_cursor() -> None:
    """Show the cursor again; safe in a signal handler, where rich's locks may be held."""
    if os.isatty(STDERR):  # not `sys.stderr`, which a frame redirects
        os.write(STDERR, SHOW_CURSOR)
