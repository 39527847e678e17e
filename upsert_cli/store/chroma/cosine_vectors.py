"""Vectors for a cosine index, chosen so that the index returns the wanted ones bit by bit.

A cosine index stores a vector divided by its length, and the length. It returns their product, which differs from the
vector in the last bits of some numbers. A vector that came out of an index is such a product of some vector near it.
This module finds that vector, so that copies of copies stay equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

LENGTHS = 7  # lengths to try on either side, in steps of one bit; two are enough for nearly all vectors
NEIGHBORS = 3  # numbers on either side that may give the same product
SHARES = (0.0, 1.0, 0.5, 0.25, 0.75, 0.1, 0.9, 0.35, 0.65, 0.5, 0.5, 0.5)  # of numbers that become the largest neighbor


def returned(vectors: Vectors) -> Vectors:
    """Return the vectors that a cosine index of Chroma's gives back for these."""
    return _products(vectors, _lengths(vectors))


def to_be_returned(wanted: Vectors) -> Vectors:
    """Return vectors for which a cosine index returns the wanted ones; a wanted one where none is found."""
    import numpy as np

    with np.errstate(all="ignore"):  # vectors that an index cannot take are rejected later
        return _to_be_returned(wanted)


def _to_be_returned(wanted: Vectors) -> Vectors:
    import numpy as np

    lengths = _lengths(wanted)
    found = wanted.copy()
    left = np.flatnonzero((_products(wanted, lengths) != wanted).any(axis=1))
    for near in _near(lengths):
        if not left.size:
            break
        smallest, largest = _neighbors(wanted[left], near[left])
        possible = ~np.isnan(smallest).any(axis=1)
        done = np.zeros(left.size, dtype=np.bool_)
        for seed, share in enumerate(SHARES if possible.any() else ()):
            rows = np.flatnonzero(possible & ~done)
            are_largest = np.random.default_rng(seed).random(wanted.shape[1]) < share  # the same numbers each time
            chosen = np.where(are_largest, largest[rows], smallest[rows])
            fits = _lengths(chosen) == near[left][rows]
            found[left[rows[fits]]] = chosen[fits]
            done[rows[fits]] = True
        left = left[~done]
    return found


def _lengths(vectors: Vectors) -> Vectors:
    """Return the lengths as the index computes them: the squares are added one by one, in 32 bits."""
    import numpy as np

    return np.sqrt(np.add.accumulate(vectors * vectors, axis=1, dtype=np.float32)[:, -1])


def _products(vectors: Vectors, lengths: Vectors) -> Vectors:
    import numpy as np

    return (vectors * (np.float32(1) / lengths)[:, None]) * lengths[:, None]


def _near(lengths: Vectors) -> Iterator[Vectors]:
    """Yield the lengths, and those next to them on either side, further away each time."""
    import numpy as np

    yield lengths
    above = below = lengths
    for _ in range(LENGTHS):
        above, below = np.nextafter(above, np.float32(np.inf)), np.nextafter(below, np.float32(0))
        yield above
        yield below


def _neighbors(wanted: Vectors, lengths: Vectors) -> tuple[Vectors, Vectors]:
    """Return the smallest and the largest numbers that give the wanted products; NaN where no number does."""
    import numpy as np

    smallest = largest = np.full_like(wanted, np.nan)
    number = wanted
    for _ in range(NEIGHBORS):
        number = np.nextafter(number, np.float32(0))
    for _ in range(2 * NEIGHBORS + 1):
        gives = _products(number, lengths) == wanted
        smallest = np.where(gives & np.isnan(smallest), number, smallest)
        largest = np.where(gives, number, largest)
        number = np.nextafter(number, np.copysign(np.float32(np.inf), number))
    return smallest, largest
