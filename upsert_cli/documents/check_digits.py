"""A hexadecimal digit for each float, by which the exact float is restored after a store rounded it.

Chroma returns some floats of 16 or 17 digits with another last bit: its engine parses them from JSON text with a fast
algorithm that is not exact. The digit is the float's position among all doubles, modulo 16. With it, a float that is
off by up to `REACH` doubles is restored exactly; -0.0 and 0.0 count as neighbors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from typing import Any

REACH = 7  # doubles; at most 2 were measured, and a server parses the text twice
_DIGITS = "0123456789abcdef"
_SIGN_BIT = 1 << 63


def check_digits(metadata: Mapping[str, Any]) -> str:
    """Return one digit for each float of a record, in the order of the keys and of the lists."""
    return "".join(_DIGITS[_position(value) % len(_DIGITS)] for value in _floats(metadata))


def restored(metadata: Mapping[str, Any], digits: str) -> dict[str, Any]:
    """Return a stored record's metadata with its floats as they were before they were stored.

    Args:
        metadata: As the store returned it.
        digits: Those of the metadata before it was stored; ignored if their number does not fit.
    """
    floats = list(_floats(metadata))
    if len(digits) != len(floats) or not set(digits) <= set(_DIGITS):
        return dict(metadata)
    return _with_floats(metadata, map(_nearest, floats, map(_DIGITS.index, digits)))


def _floats(metadata: Mapping[str, Any]) -> Iterator[float]:
    """Yield the floats in the order of their keys, also those in lists."""
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
    """Return metadata with other floats, which come in the order of `_floats`."""
    changed, left = dict(metadata), iter(floats)
    for key in sorted(metadata):
        value = metadata[key]
        if type(value) is float:
            changed[key] = next(left)
        elif type(value) is list:
            changed[key] = [next(left) if type(one) is float else one for one in value]
    return changed


def _nearest(value: float, digit: int) -> float:
    """Return the float with a check digit that is nearest to a value, or the value itself if that is not finite."""
    step = (digit - _position(value)) % len(_DIGITS)
    nearest = _float_at(_position(value) + (step if step <= REACH else step - len(_DIGITS)))
    return nearest if isfinite(nearest) else value


def _position(value: float) -> int:
    """Return the position of a float among all doubles: 0 for 0.0, -1 for -0.0; neighbors differ by 1."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else ~int(bits) - _SIGN_BIT


def _float_at(position: int) -> float:
    """Return the float at a position."""
    (value,) = struct.unpack("<d", struct.pack("<q", position if position >= 0 else ~(position + _SIGN_BIT)))
    return float(value)
