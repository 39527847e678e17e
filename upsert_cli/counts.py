"""Counts of rows by their outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the rows that were read."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    failed: int = 0
    deleted: int = 0
    truncated: int = 0
    """Texts longer than the model's limit, embedded up to there; they are inserted or updated as well."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: value + getattr(other, name) for name, value in self.as_json().items()})

    def reconciles(self) -> bool:
        """Tells whether every row that was read ended as exactly one thing."""
        return self.read == self.loaded + self.failed

    @property
    def loaded(self) -> int:
        """The rows that were not rejected."""
        return self.inserted + self.updated + self.unchanged + self.duplicate

    def as_json(self) -> dict[str, int]:
        """Returns the counts as plain data, in the order of the contract."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """Reads what `as_json` wrote; keys that are unknown, of a newer version, are ignored."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: number for name, number in value.items() if name in names})
