"""Text for people: foreign text made safe to print, lines for counts and durations, and the meant word for a typo.

Everything that the command line prints passes through `safe` last, so that no escape sequence, control character,
direction character or line break in foreign text has an effect.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from upsert_cli.counts import OUTCOMES, Converted

TENTH = 0.1  # seconds; shorter durations are shown with one significant digit
TENTHS_MATTER = 10  # seconds; longer durations are shown in whole seconds

CLOSENESS = 0.75  # of difflib; `lsit` is as close to `list` as that, and `--columns` to no option of `run`

# Compiled by `re` when used. A word comes with the spaces before it; a command between backticks is one word.
_WORD = r"(\s*)((?:`[^`]*`|\S)+)"
_STYLE = r"\x1b\[[0-9;]*m"
_MAYBE_UNSAFE = re.compile(r"[^ -~]")  # most text is plain ASCII and needs no look at each character

_WORKFLOW_COMMAND = re.compile(r"^(\s*):(?=:)")
_OLD_COMMAND = re.compile(r"#(?=#[A-Za-z0-9_-]*\[)")  # `##[error]`, `##vso[`, `##teamcity[`: obeyed anywhere in a line


def safe(text: str) -> str:
    r"""Return `text` on one line, with every character that is not simply shown written as an escape (`\x1b`).

    Commands for CI systems are escaped too: the colon that begins a GitHub workflow command at the start of a line, and
    the first character of `##[`, which Azure, TeamCity and older runners look for.
    """
    shown = _MAYBE_UNSAFE.sub(lambda match: _shown(match.group()), text)
    return _OLD_COMMAND.sub(r"\\x23", _WORKFLOW_COMMAND.sub(r"\1\\x3a", shown))


def wrapped(line: str, width: int) -> str:
    """Break a line between words where it has more than `width` cells; later lines are indented by two more spaces.

    A word that is longer than a line, such as a path, is left to the terminal, so that it can be copied whole.
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
    r"""Return `value` as JSON on one line; the characters that `safe` escapes are escaped as in JSON (`\u001b`)."""
    text = json.dumps(value, ensure_ascii=not _takes_unicode(), allow_nan=False, default=str)
    return _OLD_COMMAND.sub(r"\\u0023", _MAYBE_UNSAFE.sub(lambda match: _shown_in_json(match.group()), text))


def tab_separated(rows: Iterable[Iterable[object]]) -> str:
    """Return rows for a pipe: one per line, never truncated, and no tab or line break in a cell."""
    return "\n".join("\t".join(safe(str(cell)) for cell in row) for row in rows)


def ellipsis() -> str:
    """Return the mark of a truncated text on stdout."""
    return "…" if _takes_unicode() else "..."


def counts_line(counts: Mapping[str, int]) -> str:
    """Return the counts of a task for people; zeros of the rarer kinds are left out."""
    words = OUTCOMES | {"deleted": "deleted", "truncated": "truncated"}
    rare = ("duplicate", "deleted", "truncated")
    return ", ".join(f"{counts[name]:,} {word}" for name, word in words.items() if counts[name] or name not in rare)


def converted_line(converted: Converted) -> str:
    """Return how many values became text, and in which fields; the empty name stands for further fields."""
    names = [name or "others" for name in sorted(converted.by_field, key=lambda name: not name)]
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
    """Return the busy seconds of each stage, the busiest first; stages overlap, so the sum may exceed the total."""
    stages = sorted((name for name in seconds if name != "total"), key=lambda name: -seconds[name])
    parts = [f"{name} {seconds[name]:.1f}" for name in stages]
    return f"{', '.join(parts)}; {seconds.get('total', 0.0):.1f} in all"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the word that `word` is a misspelling of, or None if none is close."""
    import difflib  # late: only a wrong word needs it

    bare = {each.lstrip("-"): each for each in sorted(known)}
    typed = word.lstrip("-").lower()
    if not typed:
        return None
    swapped = [each for each in bare if len(typed) > 1 and sorted(each) == sorted(typed)]
    found = swapped or difflib.get_close_matches(typed, bare, n=1, cutoff=CLOSENESS)
    return bare[found[0]] if found else None


def _cells(text: str) -> int:
    """Return how many cells of a terminal a text takes, without its styles."""
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
