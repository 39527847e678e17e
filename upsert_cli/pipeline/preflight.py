"""The first rows of the sources -> whether the mapping fits them, before there is a task."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from upsert_cli.documents.document import Recipe
from upsert_cli.documents.metadata import SHOWN_KEY
from upsert_cli.documents.references import names_reference
from upsert_cli.documents.text_fields import template_fields
from upsert_cli.errors import FieldsMissing, IdFieldMissing, RowIdsRepeat, TextFieldMissing
from upsert_cli.sources.forms import DEFAULT_ID_FIELD, ITEM_FIELDS
from upsert_cli.sources.item import Item, Reject, field_at
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

PROBED_ROWS = 1_000  # rows; a file may begin with a few broken ones, and a field may be absent from some
SHOWN_FIELDS = 20  # fields in a message

_ABSENT = object()


def check_first_rows(rows: Rows, *, recipe: Recipe) -> None:
    """Makes sure that ids and texts are where they are looked for, and that every field that is named is there.

    Args:
        rows: What is to be loaded.
        recipe: What else of the mapping there is.

    Raises:
        TextFieldMissing: The first item has none of the text fields.
        IdFieldMissing: None of the first rows has the field of the id.
        FieldsMissing: None of the first items has a field that an option names.
        RowIdsRepeat: Ids are to be made of file and row, and two files have the same name.
        SourceUnreadable: The first file cannot be read at all.
    """
    id_field = rows.id_field or DEFAULT_ID_FIELD
    if rows.id_from == "row":
        _check_names(rows.sources)
    unseen = _named_fields(recipe)
    first: Item | None = None
    without_id: tuple[Reject, dict[str, Any]] | None = None
    id_seen = False
    for record, item in itertools.islice(rows.probe(), PROBED_ROWS):
        if isinstance(item, Item):
            if first is None and recipe.template is None and isinstance(record, dict):
                _check_text_fields(item, record, recipe)
            first = first or item
            payload = item.payload or {}
            unseen = {path: why for path, why in unseen.items() if field_at(payload, path, _ABSENT) is _ABSENT}
            if not unseen:
                return
        elif not isinstance(record, dict):
            continue
        elif field_at(record, id_field, _ABSENT) is not _ABSENT:
            id_seen = True
        else:
            without_id = without_id or (item, record)
    if first is not None:
        _refuse_unseen(first, unseen)
    if without_id is not None and not id_seen and rows.id_from is None:
        reject, record = without_id
        raise IdFieldMissing(source=reject.source, row=reject.row, wanted=id_field, there=_first_paths(record))


def _named_fields(recipe: Recipe) -> dict[str, str]:
    """Returns the fields that have to be there, and which option names each."""
    named = dict.fromkeys(recipe.metadata_fields or (), "--metadata-fields")
    if recipe.template is not None:
        named |= dict.fromkeys(template_fields(recipe.template), "--template")
    if recipe.vector_field is not None:
        named[recipe.vector_field] = "--vector-field"
    return named


def _refuse_unseen(first: Item, unseen: dict[str, str]) -> None:
    if unseen:
        option = next(iter(unseen.values()))
        raise FieldsMissing(
            source=first.source,
            row=first.row,
            option=option,
            wanted=tuple(path for path, why in unseen.items() if why == option),
            there=_first_paths(first.payload or {}),
        )


def _check_text_fields(item: Item, record: dict[str, Any], recipe: Recipe) -> None:
    payload = item.payload or {}
    if recipe.refs_root is not None and names_reference(item.item_info):
        return
    if all(field_at(payload, name, _ABSENT) is _ABSENT for name in recipe.text_fields):
        beside = {name: value for name, value in record.items() if name not in ITEM_FIELDS}
        raise TextFieldMissing(
            source=item.source,
            row=item.row,
            wanted=recipe.text_fields,
            there=_first_paths(payload),
            beside=() if payload else _first_paths(beside),
        )


def _check_names(sources: Sequence[Source]) -> None:
    names = Counter(PurePath(source.name).name for source in sources)
    repeated = [name for name, times in names.items() if times > 1]
    if repeated:
        raise RowIdsRepeat(name=repeated[0])


def _first_paths(values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(itertools.islice(_paths(values), SHOWN_FIELDS))


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields what an option could name."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"[:SHOWN_KEY]
