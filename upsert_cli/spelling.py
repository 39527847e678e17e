"""The known word that is nearest to one that was typed wrong."""

from __future__ import annotations

from collections.abc import Iterable

CLOSENESS = 0.75  # of difflib; `lsit` is as close to `list` as that, and `--columns` to no option of `run`


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
