"""A command on an emulated terminal: keys to press, and the text on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from itertools import groupby
from types import TracebackType
from typing import IO

import pyte
from pyte.screens import Char
from rich.style import Style
from rich.text import Text

from tests.support.forked import start_python
from tests.support.terminal import Terminal

ROWS = 300  # lines of the screen: nothing scrolls away
SECONDS = 120.0  # seconds after which a test gives up


class Screen:
    """The screen of a command whose streams are all one terminal."""

    def __init__(
        self, terminal: Terminal, line: str, *, columns: int, rows: int = ROWS, output: IO[str] | None = None
    ) -> None:
        """Start the command; its standard output may go elsewhere."""
        self.drawn = b""
        """Every byte that was sent to the terminal."""

        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        environment = terminal.environment | {"TERM": "xterm-256color"}
        environment.pop("COLUMNS", None)
        # With a terminal to control it, the command gets a signal for Ctrl-C, and the terminal echoes that.
        self._process = start_python(
            terminal.arguments(line),
            folder=terminal.folder,
            environment=environment,
            controlling_terminal=True,
            stdin=theirs,
            stdout=output or theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)

    def press(self, keys: str) -> None:
        """Press keys, as the terminal sends them."""
        os.write(self._ours, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        self.wait_for_match(re.escape(text))

    def wait_for_match(self, pattern: str) -> None:
        """Wait until a text that matches a regular expression stands on the screen."""
        until = time.monotonic() + SECONDS
        while re.search(pattern, self.text) is None:
            assert self._read(until), f"{pattern!r} never came:\n{self.text}"

    def finish(self, *, expect: int = 0) -> list[str]:
        """Wait for the end of the command, check its exit code, and return the lines on the screen."""
        until = time.monotonic() + SECONDS
        while self._read(until):
            pass
        code = self._process.wait(SECONDS)
        assert code == expect, f"exit {code}\n{self.text}"
        return self.lines

    @property
    def lines(self) -> list[str]:
        """Return the lines on the screen, down to the last that is not empty."""
        return self.text.split("\n")

    @property
    def styled_lines(self) -> list[Text]:
        """Return the lines on the screen with their colors."""
        buffer = self._screen.buffer
        rows = [[buffer[number][column] for column in range(len(line))] for number, line in enumerate(self.lines)]
        return [
            Text.assemble(*(("".join(each.data for each in run), style) for style, run in groupby(row, _style)))
            for row in rows
        ]

    @property
    def text(self) -> str:
        """Return the text on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()

    def _read(self, until: float) -> bool:
        """Draw the next output; return False at the end of the command."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"nothing more came:\n{self.text}"
        try:
            part = os.read(self._ours, 65_536)
        except OSError:  # Linux reports the end of a terminal as an error
            return False
        self.drawn += part
        self._stream.feed(part)
        return bool(part)


def _style(character: Char) -> Style:
    # The emulator calls the color brown that others call yellow, and writes other colors as hexadecimal digits.
    names = {"default": None, "brown": "yellow"}
    color = names.get(character.fg, character.fg)
    is_hex = color is not None and re.fullmatch("[0-9a-f]{6}", color) is not None
    return Style(color=f"#{color}" if is_hex else color, bold=character.bold)


def shown(terminal: Terminal, line: str, *, columns: int, expect: int = 0, output: IO[str] | None = None) -> list[str]:
    """Return the lines that a command leaves on a screen of that width; its standard output may go elsewhere."""
    with Screen(terminal, line, columns=columns, output=output) as screen:
        return screen.finish(expect=expect)
