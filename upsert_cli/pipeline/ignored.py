"""Extra fields of rows in item form: they are not stored, so their names are reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from upsert_cli.sources.item import Item

MAX_NAMES = 20  # names in the message


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """The number of rows with extra fields, and the names of these fields."""

    rows: int = 0
    names: Mapping[str, None] = field(default_factory=dict)
    """The first names, in the order of their first row."""

    @classmethod
    def of(cls, item: Item) -> IgnoredFields:
        """Return the extra fields of one item."""
        return cls(1, dict.fromkeys(item.ignored)) if item.ignored else NOTHING_IGNORED

    def __add__(self, other: IgnoredFields) -> IgnoredFields:
        if not other.rows:
            return self
        names = {**self.names, **other.names} if other.names.keys() - self.names.keys() else self.names
        kept = names if len(names) <= MAX_NAMES + 1 else dict.fromkeys(islice(names, MAX_NAMES + 1))
        return IgnoredFields(self.rows + other.rows, kept)

    def warning(self) -> str | None:
        """Return a warning of one line, or None if no row has extra fields."""
        if not self.rows:
            return None
        names = ", ".join(f"`{name}`" for name in islice(self.names, MAX_NAMES))
        more = ", ..." if len(self.names) > MAX_NAMES else ""
        rows = "1 row in item form has" if self.rows == 1 else f"{self.rows:,} rows in item form have"
        return f"{rows} fields that are not stored: {names}{more}; put the fields of an item into its payload"


NOTHING_IGNORED = IgnoredFields()
