"""Text for people: foreign text made safe to print, lines for counts and durations, and suggestions for typos.

The command line prints nothing that has not passed through `safe`, so that no escape sequence, control character,
direction character or line break in foreign text has an effect.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from upsert_cli.counts import OTHER_FIELDS, OUTCOMES, Converted

TENTH = 0.1  # seconds; shorter durations are shown with one significant digit
TENTHS_MATTER = 10  # seconds; longer durations are shown in whole seconds

CLOSENESS = 0.75  # by difflib; `lsit` is that close to `list`, and `--columns` to no option of `run`

# Compiled by `re` when used. A word comes with the spaces before it; a command between backticks is one word.
_WORD = r"(\s*)((?:`[^`]*`|\S)+)"
_STYLE = r"\x1b\[[0-9;]*m"
_MAYBE_UNSAFE = re.compile(r"[^ -~]")  # most text is plain ASCII and needs no look at each character

_WORKFLOW_COMMAND = re.compile(r"^(\s*):(?=:)")
_OLD_COMMAND = re.compile(r"#(?=#[A-Za-z0-9_-]*\[)")  # `##[error]`, `##vso[`, `##teamcity[`, anywhere in a line


def safe(text: str) -> str:
    r"""Return a text on one line, with every character that a terminal would not simply show as an escape (`\x1b`).

    Commands for CI systems are escaped too: the first colon of a GitHub workflow command at the start of a line, and
    the first character of `##[`, which Azure, TeamCity and older runners obey.
    """
    shown = _MAYBE_UNSAFE.sub(lambda match: _shown(match.group()), text)
    return _OLD_COMMAND.sub(r"\\x23", _WORKFLOW_COMMAND.sub(r"\1\\x3a", shown))


def wrapped(line: str, width: int) -> str:
    """Break a line of more than `width` cells between words, and indent the later lines by two more spaces.

    A word that is longer than a line, such as a path, stays whole, so that it can be copied.
    """
    if _cells(line) <= width:
        return line
    margin = line[: len(line) - len(line.lstrip())] + "  "
    lines: list[str] = []
    for gap, word in re.findall(_WORD, line):
        if lines and _cells(lines[-1] + gap + word) <= width:
            lines[-1] += gap + word
        else:
            lines.append((margin if lines else gap) + word)
    return "\n".join(lines)


def safe_json(value: Any) -> str:
    r"""Return a value as JSON on one line, in which the characters that `safe` escapes are escaped (`\u001b`)."""
    text = json.dumps(value, ensure_ascii=not _takes_unicode(), allow_nan=False, default=str)
    return _OLD_COMMAND.sub(r"\\u0023", _MAYBE_UNSAFE.sub(lambda match: _shown_in_json(match.group()), text))


def tab_separated(rows: Iterable[Iterable[object]]) -> str:
    """Return rows for a pipe, one per line; cells are not truncated, and their tabs and line breaks are escaped."""
    return "\n".join("\t".join(safe(str(cell)) for cell in row) for row in rows)


def ellipsis() -> str:
    """Return the mark of a truncated text on stdout."""
    return "…" if _takes_unicode() else "..."


def counts_line(counts: Mapping[str, int]) -> str:
    """Return the counts of a task in words, without the rarer ones that are zero."""
    words = OUTCOMES | {"deleted": "deleted", "truncated": "truncated"}
    rare = ("duplicate", "deleted", "truncated")
    return ", ".join(f"{counts[name]:,} {word}" for name, word in words.items() if counts[name] or name not in rare)


def converted_line(converted: Converted) -> str:
    """Return the number of values that became text, with their fields."""
    listed = [name for name in converted.by_field if name != OTHER_FIELDS]
    names = [*listed, "others"] if OTHER_FIELDS in converted.by_field else listed
    fields = "" if names in ([], ["others"]) else f": {', '.join(names)}"
    kind = "text" if converted.plain else "JSON text"
    return f"{converted.values:,} value{'s' * (converted.values != 1)} stored as {kind}{fields}"


def duration(seconds: float) -> str:
    """Return a duration in words: `0.8 s`, `2 min 5 s`, `1 h 20 min`."""
    if 0.0 < seconds < TENTH:
        return f"{seconds:.1g} s"
    if seconds < TENTHS_MATTER:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def time_taken(seconds: float, attempts: int) -> str:
    """Return the duration of a load that took one or more attempts."""
    return duration(seconds) + (f" over {attempts} attempts" if attempts > 1 else "")


def seconds_line(seconds: Mapping[str, float]) -> str:
    """Return the busy seconds of each stage, the busiest first; stages overlap, so their sum may exceed the total."""
    stages = sorted((name for name in seconds if name != "total"), key=lambda name: -seconds[name])
    parts = [f"{name} {seconds[name]:.1f}" for name in stages]
    return f"{', '.join(parts)}; {seconds.get('total', 0.0):.1f} in all"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most similar to a misspelled one, or None if none is close."""
    import difflib  # late: only a wrong word needs it

    known_by_bare = {option.lstrip("-"): option for option in sorted(known)}
    typed = word.lstrip("-").lower()
    if not typed:
        return None
    swapped = [bare for bare in known_by_bare if len(typed) > 1 and sorted(bare) == sorted(typed)]
    close = swapped or difflib.get_close_matches(typed, known_by_bare, n=1, cutoff=CLOSENESS)
    return known_by_bare[close[0]] if close else None


def _cells(text: str) -> int:
    """Return the number of terminal cells of a text, without its styles."""
    plain = re.sub(_STYLE, "", text)
    if plain.isascii():
        return len(plain)
    return sum(_cells_of(character) for character in plain)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _takes_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def _harmless(character: str) -> bool:
    # Python calls every space except the ASCII one unprintable; ideographic and no-break spaces are harmless.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _shown(character: str) -> str:
    return character if _harmless(character) else character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _shown_in_json(character: str) -> str:
    return character if _harmless(character) else json.dumps(character)[1:-1]
