"""A frame at the bottom of the terminal: lines that are drawn over themselves, below the messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.cli.display.terminal import STDERR, Terminal

if TYPE_CHECKING:
    from rich.console import RenderableType

Render: TypeAlias = Callable[[int], Sequence["RenderableType"]]
"""Returns the lines of a frame, given the width of the terminal."""

SHOW_CURSOR = b"\x1b[?25h"


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
