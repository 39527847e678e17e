"""Check digits: a float that a store rounded is restored, and one that really differs is found."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.support.reading import exactly, fuzz
from upsert_cli.documents.check_digits import REACH, check_digits, restored
from upsert_cli.documents.document import Document, make_document
from upsert_cli.documents.hashing import HASH_KEY, as_stored, is_same, stored_fault, with_exact_floats
from upsert_cli.documents.recipe import Recipe
from upsert_cli.sources.item import Item

ROUNDED = 0.00019991099999927542  # comes back from Chroma with another last bit
EDGES = (0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e308, math.nextafter(math.inf, 0), 1.0, 1e16, ROUNDED)
doubles = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EDGES)


def _moved(value: float, steps: int) -> float:
    for _ in range(abs(steps)):
        value = math.nextafter(value, math.inf if steps > 0 else -math.inf)
    return value


def _document(metadata: dict[str, Any], **recipe: Any) -> Document:
    item = Item("a", {"text": "hello"} | metadata, None, "a.jsonl", 1)
    return make_document(item, Recipe(identity="m", keep_lists=True, **recipe))


@fuzz(value=doubles, others=st.lists(doubles, max_size=4), steps=st.integers(1 - REACH, REACH - 1))
def test_every_rounded_double_is_restored(value: float, others: list[float], steps: int) -> None:
    """A float that is off by a few doubles is restored, also in a list; the two zeros count as one step."""
    stored = {"x": value, "n": 7, "l": [*others, value], "t": "text", "b": True}
    rounded = _moved(value, steps)
    if not math.isfinite(rounded):
        return
    returned = stored | {"x": rounded, "l": [*others, rounded]}
    assert exactly(restored(returned, check_digits(stored))) == exactly(stored)


@pytest.mark.parametrize("value", EDGES)
@pytest.mark.parametrize("other", [{"x": 1.0}, {"l": [1.0, 2.0]}, {"d": {"e": 1.0}, "k": [True]}])
def test_a_rounded_float_is_no_difference(value: float, other: dict[str, Any]) -> None:
    """A record with a rounded float still matches its hash, and one with another float does not."""
    document = _document(other | {"x": value})
    stored = as_stored(document.metadata)
    assert is_same(stored[HASH_KEY], document.upsert_hash)
    for rounded in {_moved(value, steps) for steps in (-2, -1, 0, 1, 2)} - {math.inf}:
        returned = stored | {"x": rounded}
        assert stored_fault("hello", returned, "m") is None
        assert exactly(with_exact_floats(returned)) == exactly(stored)
    for changed in (value * 0.9999 + 1e-9, -value / 2 - 1.0, 17.25):
        assert "metadata is not that" in str(stored_fault("hello", stored | {"x": changed}, "m"))
    assert "metadata is not that" in str(stored_fault("hello", stored | {"new": 1.5}, "m"))


def test_digits_are_added_once() -> None:
    """Metadata that is stored again has the digits of its present floats alone."""
    stored = as_stored(_document({"x": ROUNDED, "y": 0.5, "z": -0.0}).metadata)
    assert as_stored(stored) == stored
    changed = as_stored(stored | {"y": 0.6})
    assert exactly(with_exact_floats(changed | {"x": _moved(ROUNDED, 1)})) == exactly(changed)


@pytest.mark.parametrize("digits", ["", "0", "zz", "0123"])
def test_digits_that_do_not_fit_change_nothing(digits: str) -> None:
    """Digits of another program, or for another number of floats, are ignored."""
    assert restored({"x": 1.5, "y": 2.5}, digits) == {"x": 1.5, "y": 2.5}
