"""Text from a file, an id or a path is only shown, never interpreted."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from upsert_cli.counts import Converted
from upsert_cli.text import converted_line, duration, safe, safe_json, tab_separated, wrapped

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "\x1b]52;c;aGk=\x07",
    "\x9b31m",
    "two\nlines",
    "carriage\rreturn",
    "tab\there",
    "right\u202eleft",
    "zero\u200bwidth",
    "nul\x00",
    "delete\x7f",
    "\ud800 alone",
]


def _controls(text: str) -> list[str]:
    return [character for character in text if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_is_left(text: str) -> None:
    """Escape sequences, line breaks, direction marks and lone surrogates are written as escapes."""
    assert _controls(safe(text)) == []
    assert "\\" in safe(text)


@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_stays_on_one_harmless_line(text: str) -> None:
    """No text can act on a terminal, neither in plain output nor in JSON."""
    assert _controls(safe(text)) == []
    assert _controls(safe_json({"text": text})) == []


@given(st.text())
def test_json_still_means_the_same(text: str) -> None:
    """Escaping in JSON changes the spelling of a text, not its value."""
    assert json.loads(safe_json({"text": text})) == {"text": text}


@pytest.mark.parametrize("text", ["plain", "[bold]not markup[/bold]", "naïve 中文 🎉", "a\u00a0b\u3000c"])
def test_harmless_text_is_left_alone(text: str) -> None:
    """Letters of all languages, emoji, wide spaces and brackets are shown unchanged."""
    assert safe(text) == text


@pytest.mark.parametrize("text", ["::error::x", "  ::stop-commands::x", "\t::x"])
def test_no_line_is_a_workflow_command(text: str) -> None:
    """Text at the start of a line cannot begin a command of a CI system; elsewhere colons stay."""
    assert not safe(text).lstrip().startswith("::")
    assert safe(f"a{text.strip()}") == f"a{text.strip()}"


def test_a_cell_cannot_break_a_table() -> None:
    """A tab or line break in a cell starts no new cell or row."""
    table = tab_separated([("a\tb", "c\nd"), ("e", 1)])
    assert [line.count("\t") for line in table.split("\n")] == [1, 1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.034, "0.03 s"),
        (2.04, "2 s"),
        (9.96, "10 s"),
        (125, "2 min 5 s"),
        (60, "1 min"),
        (4_860, "1 h 21 min"),
    ],
)
def test_durations_duration(seconds: float, words: str) -> None:
    """A duration has only significant digits."""
    assert duration(seconds) == words


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Mn")) | st.just(" ")), st.integers(10, 60)
)
def test_wrapping_changes_only_spaces(line: str, width: int) -> None:
    """Wrapping changes no word, a line is wider than the terminal only if it is a single word, and short lines stay."""
    lines = wrapped(line, width).split("\n")
    assert " ".join(lines).split() == line.split()
    assert all(cell_len(each) <= width or len(each.replace("`", " ").split()) == 1 or "`" in each for each in lines)
    assert cell_len(line) > width or lines == [line]


def test_a_wrapped_line_keeps_its_margin_and_its_commands() -> None:
    """Later lines are indented by two more spaces; styles take no room; a command between backticks is one word."""
    styled = "\x1b[31m\x1b[1merror:\x1b[0m"
    assert wrapped(f"{styled} one two three", 16) == f"{styled} one two\n  three"
    assert wrapped("  a.jsonl:3: not what was expected", 20) == "  a.jsonl:3: not\n    what was\n    expected"
    assert wrapped("run `upsert-cli restart t` now", 20) == "run\n  `upsert-cli restart t`\n  now"


def test_converted_values_in_words() -> None:
    """The fields are named in the order of their values, further fields last; a date is text, a list is JSON text."""
    dates = Converted({"created_at": 3_001, "tags": 3_000}, plain=3_001)
    assert converted_line(dates) == "6,001 values stored as text: created_at, tags"
    assert converted_line(Converted({"": 2, "a": 1})) == "3 values stored as JSON text: a, others"
    assert converted_line(Converted({"": 1})) == "1 value stored as JSON text"
