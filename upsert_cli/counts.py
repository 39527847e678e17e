"""The outcome of rows: counts, values that were converted, fields that are not stored, and rejects."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

MAX_FIELDS = 20  # fields whose converted values are counted separately, so that a task's record stays small
MAX_FIELD_NAME = 100  # characters; longer names would fill the record too
OTHER_FIELDS = ""  # counts the values of all other fields; no metadata key is empty
MAX_NAMES = 20  # names of ignored fields in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The outcomes of the rows that were read."""

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
        """Check that every row that was read has exactly one outcome."""
        return self.read == self.loaded + self.failed

    @property
    def loaded(self) -> int:
        """Return the number of rows that were not rejected."""
        return self.inserted + self.updated + self.unchanged + self.duplicate

    def as_json(self) -> dict[str, int]:
        """Return the counts as plain data, in the order of the contract."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """Return the counts of `as_json`; unknown keys, of a newer version, are ignored."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: number for name, number in value.items() if name in names})


OUTCOMES = {name: name for name in ("inserted", "updated", "unchanged", "duplicate")} | {"failed": "rejected"}
"""The outcomes of a row by their names in `Counts`, each with the word for people."""


@dataclass(frozen=True, slots=True)
class Converted:
    """Values that became text because Chroma cannot hold them, counted by the metadata key of their field."""

    by_field: Mapping[str, int] = field(default_factory=dict)
    """The first fields in the order of their values, such as `{"tags": 3_000}`; `OTHER_FIELDS` has the rest."""

    plain: int = 0
    """The number of values that are plain text, such as dates; lists and objects are JSON text."""

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> Converted:
        """Return the counts of converted values, given the key and the text of each."""
        keys, values = zip(*texts, strict=True) if (texts := [*texts]) else ((), ())
        return cls() + cls(Counter(keys), sum(not value.startswith(("[", "{")) for value in values))

    def __add__(self, other: Converted) -> Converted:
        if not other.by_field:
            return self
        added = dict(self.by_field)
        for key, values in other.by_field.items():
            is_listed = key in added or (len(added) < MAX_FIELDS and len(key) <= MAX_FIELD_NAME)
            name = key if is_listed else OTHER_FIELDS
            added[name] = added.get(name, 0) + values
        return Converted(added, self.plain + other.plain)

    @property
    def values(self) -> int:
        """The number of values."""
        return sum(self.by_field.values())

    def as_json(self) -> dict[str, Any]:
        """Return the counts as entries of a record."""
        return {
            "converted": self.values,
            "converted_fields": dict(self.by_field),
            "converted_to_plain_text": self.plain,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Converted:
        """Make counts from the entries of a record; one of an older version has only the number."""
        values = int(record.get("converted", 0))
        by_field = dict(record.get("converted_fields") or ({OTHER_FIELDS: values} if values else {}))
        return cls(by_field, int(record.get("converted_to_plain_text", 0)))


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """Extra fields of rows in item form, which are not stored: the number of such rows, and the fields' names."""

    rows: int = 0
    names: Mapping[str, None] = field(default_factory=dict)
    """The first names, in the order of their first row."""

    @classmethod
    def of(cls, names: Sequence[str]) -> IgnoredFields:
        """Return the extra fields of one item."""
        return cls(1, dict.fromkeys(names)) if names else NOTHING_IGNORED

    def __add__(self, other: IgnoredFields) -> IgnoredFields:
        if not other.rows:
            return self
        names = {**self.names, **other.names} if other.names.keys() - self.names.keys() else self.names
        return IgnoredFields(self.rows + other.rows, dict.fromkeys(itertools.islice(names, MAX_NAMES + 1)))

    def warning(self) -> str | None:
        """Return a warning of one line, or None if no row has extra fields."""
        if not self.rows:
            return None
        names = ", ".join(f"`{name}`" for name in itertools.islice(self.names, MAX_NAMES))
        more = ", ..." if len(self.names) > MAX_NAMES else ""
        rows = "1 row in item form has" if self.rows == 1 else f"{self.rows:,} rows in item form have"
        return f"{rows} fields that are not stored: {names}{more}; put the fields of an item into its payload"


NOTHING_IGNORED = IgnoredFields()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of rows that are loaded together, to be committed."""

    counts: Counts = Counts()
    converted: Converted = Converted()
    """Of the items that were written."""

    ignored: IgnoredFields = NOTHING_IGNORED
    rejects: Sequence[dict[str, Any]] = ()
    """Records of the rejects file."""

    def plus(self, other: Outcome) -> Self:
        """Return this outcome with that of other rows added."""
        return replace(
            self,
            counts=self.counts + other.counts,
            converted=self.converted + other.converted,
            ignored=self.ignored + other.ignored,
            rejects=[*self.rejects, *other.rejects],
        )
