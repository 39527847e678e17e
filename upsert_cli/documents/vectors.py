"""A payload -> the vector that it brings, if any, and the payload without it."""

from __future__ import annotations

import math
from array import array
from typing import Any, NoReturn

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import field_at, without_field
from upsert_cli.sources.json_text import kind_of, parse

USUAL_FIELD = "vector"  # of the payload, in which a list is a vector without being asked for

_NUMBERS = frozenset([int, float])


def own_vector(payload: dict[str, Any], field: str | None, *, dimension: int) -> array[float] | None:
    """Returns the vector of an item as 32-bit floats; None for an item that is to be embedded.

    Args:
        payload: What may hold it.
        field: Dotted path of it, where it may also be JSON text; None: a list in the usual field.
        dimension: Numbers of the collection's vectors; 0: any.

    Raises:
        ItemError: It is no vector of that dimension that Chroma could hold.
    """
    value = field_at(payload, field or USUAL_FIELD)
    if value is None or (field is None and type(value) is not list):
        return None
    name = f"payload.{field or USUAL_FIELD}"
    if isinstance(value, str | bytes):
        value = parse(value.encode() if isinstance(value, str) else value)
    if type(value) is not list or not _NUMBERS.issuperset(map(type, value)):
        _refuse(f"{name} is {'not only numbers' if type(value) is list else kind_of(value)}, not a vector")
    if not value or (dimension and len(value) != dimension):
        _refuse(f"{name} has {len(value)} numbers, and the collection's vectors have {dimension or 'some'}")
    try:
        vector = array("f", value)
    except OverflowError:
        _refuse(f"{name} has a number that is not finite as 32 bits")
    if not math.isfinite(sum(vector)):
        _refuse(f"{name} has a number that is not finite as 32 bits")
    if not any(vector):
        _refuse(f"{name} is all zeros, which no other vector is near to")
    return vector


def without_vector(payload: dict[str, Any], field: str | None) -> dict[str, Any]:
    """Returns a payload without the vector that it has, so that it does not become metadata."""
    return without_field(payload, field or USUAL_FIELD)


def _refuse(detail: str) -> NoReturn:
    raise ItemError(stage=Stage.READING, detail=detail)
