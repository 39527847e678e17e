"""A hexadecimal digit for each float, by which the exact float is restored after a store rounded it.

Chroma returns some floats of 16 or 17 digits with another last bit: its engine parses them from JSON text with a fast
algorithm that is not exact. The digit is the float's position among all doubles, modulo 16. With it, a float that is
off by up to `REACH` doubles is restored exactly; -0.0 and 0.0 count as neighbors.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any

REACH = 7  # doubles; at most 2 were measured, and a server parses the text twice
MAX_GUESSES = 729  # sets of values to try where there are no digits; as many as six floats have
_DIGITS = "0123456789abcdef"
_NEGATIVE = 1 << 63


def check_digits(metadata: Mapping[str, Any]) -> str:
    """Return one digit for each float of a record, in the order of the keys and of the lists."""
    floats = list(_floats(metadata))
    positions = struct.unpack(f"<{len(floats)}q", struct.pack(f"<{len(floats)}d", *floats))
    return "".join(_DIGITS[(position if position >= 0 else ~position) & 15] for position in positions)


def restored(metadata: Mapping[str, Any], digits: str) -> dict[str, Any]:
    """Return a stored record's metadata with its floats as they were before they were stored.

    Args:
        metadata: As the store returns it.
        digits: From `check_digits` for the metadata before it was stored; ignored if their number does not fit.
    """
    floats = list(_floats(metadata))
    if len(digits) != len(floats) or not set(digits) <= set(_DIGITS):
        return dict(metadata)
    return _with_floats(metadata, map(_nearest, floats, map(_DIGITS.index, digits)))


def guesses(metadata: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the values that a record without digits may have held: each float itself, or one of its two neighbors.

    Yields nothing if there are too many combinations.
    """
    choices = [[value, *(_moved(value, step) for step in (-1, 1))] for value in _floats(metadata)]
    if 3 ** len(choices) <= MAX_GUESSES:
        for chosen in itertools.product(*choices):
            yield _with_floats(metadata, chosen)


def _floats(metadata: Mapping[str, Any]) -> Iterator[float]:
    kinds = set(map(type, metadata.values()))
    if float not in kinds and list not in kinds:
        return
    for key in sorted(metadata):
        value = metadata[key]
        if type(value) is float:
            yield value
        elif type(value) is list:
            yield from (one for one in value if type(one) is float)


def _with_floats(metadata: Mapping[str, Any], floats: Iterable[float]) -> dict[str, Any]:
    """Return metadata with other values in the place of its floats, in the order of `_floats`."""
    changed, left = dict(metadata), iter(floats)
    for key in sorted(metadata):
        value = metadata[key]
        if type(value) is float:
            changed[key] = next(left)
        elif type(value) is list:
            changed[key] = [next(left) if type(one) is float else one for one in value]
    return changed


def _nearest(value: float, digit: int) -> float:
    """Return the float nearest to `value` that has a check digit."""
    step = (digit - _position(value)) % 16
    return _moved(value, step if step <= REACH else step - 16)


def _moved(value: float, step: int) -> float:
    """Return the float that is `step` doubles after a value, or the value itself if that is not finite."""
    position = _position(value) + step
    (moved,) = struct.unpack("<d", struct.pack("<q", position if position >= 0 else ~(position + _NEGATIVE)))
    return float(moved) if isfinite(moved) else value


def _position(value: float) -> int:
    """Return the position of a float among all: 0 for 0.0, -1 for -0.0; neighbors differ by 1."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else ~int(bits) - _NEGATIVE
