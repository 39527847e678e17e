"""The outcome of rows: counts, converted values, ignored fields and rejects."""

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
    """Texts that were embedded up to the model's limit; they count as inserted or updated too."""

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
        """Return counts from their JSON; unknown keys, which a newer version wrote, are ignored."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: number for name, number in value.items() if name in names})


OUTCOMES = {name: name for name in ("inserted", "updated", "unchanged", "duplicate")} | {"failed": "rejected"}
"""The outcomes of a row: the names in `Counts`, each with the word in messages."""


@dataclass(frozen=True, slots=True)
class Converted:
    """The number of values that became text because Chroma cannot hold them, by the metadata key of their field."""

    by_field: Mapping[str, int] = field(default_factory=dict)
    """The first fields in the order of their values, such as `{"tags": 3_000}`; `OTHER_FIELDS` has the rest."""

    plain: int = 0
    """The number of values that became plain text, such as dates; lists and objects become JSON text."""

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> Converted:
        """Return the counts of converted values, each with its key and its text."""
        pairs = list(texts)
        plain = sum(not text.startswith(("[", "{")) for _, text in pairs)
        return cls() + cls(Counter(key for key, _ in pairs), plain)

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
        """Return counts from the entries of a record; a record of an older version has only the number."""
        values = int(record.get("converted", 0))
        by_field = dict(record.get("converted_fields") or ({OTHER_FIELDS: values} if values else {}))
        return cls(by_field, int(record.get("converted_to_plain_text", 0)))


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """Extra fields of rows in item form, which are not stored."""

    rows: int = 0
    """Rows with such fields."""

    names: Mapping[str, None] = field(default_factory=dict)
    """The names of the first fields, in the order of their first row."""

    @classmethod
    def of(cls, names: Sequence[str]) -> IgnoredFields:
        """Return the extra fields of one item."""
        return cls(1, dict.fromkeys(names)) if names else NOTHING_IGNORED

    def __add__(self, other: IgnoredFields) -> IgnoredFields:
        if not other.rows:
            return self
        # With a name more than a warning lists, by which the warning shows that the list is incomplete.
        names = itertools.islice({**self.names, **other.names}, MAX_NAMES + 1)
        return IgnoredFields(self.rows + other.rows, dict.fromkeys(names))

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
    """The outcome of rows that are committed together."""

    counts: Counts = Counts()
    converted: Converted = Converted()
    """The converted values of the items that were written."""

    ignored: IgnoredFields = NOTHING_IGNORED
    rejects: Sequence[dict[str, Any]] = ()
    """Records of the rejects file."""

    def plus(self, other: Outcome) -> Self:
        """Return this outcome with the outcome of other rows added."""
        return replace(
            self,
            counts=self.counts + other.counts,
            converted=self.converted + other.converted,
            ignored=self.ignored + other.ignored,
            rejects=[*self.rejects, *other.rejects],
        )
