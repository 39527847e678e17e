"""Checks of the first rows before a task is created: do they have the ids, texts and fields that the options name?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from upsert_cli.documents.document import make_document
from upsert_cli.documents.metadata import SHOWN_KEY
from upsert_cli.documents.recipe import DEFAULT_TEXT_FIELDS, VECTOR_FIELD, Recipe, template_fields
from upsert_cli.documents.references import reference_field
from upsert_cli.errors import ItemError, SourceUnreadable, UsageFault
from upsert_cli.sources.item import DEFAULT_ID_FIELD, ITEM_FIELDS, REJECT_FIELDS, Item, Reject
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source
from upsert_cli.sources.values import field_at

PROBED_ROWS = 1_000  # rows; the first ones may be broken, and a field may be absent from some
SHOWN_FIELDS = 20  # fields in a message

_ABSENT = object()


def check_first_rows(rows: Rows, *, recipe: Recipe) -> str | None:
    """Check that the first rows have ids, texts, and every field that an option names; return a note or None.

    Raises:
        UsageFault: No row has the id field, the first item has no text field, no item has a field that an option names,
            or two files of one name would get the same row ids.
        SourceUnreadable: The first file cannot be read.
    """
    if rows.id_from == "row":
        _check_file_names(rows.sources)
    probed = itertools.islice(rows.probe(), PROBED_ROWS)
    found = _first_item(probed, id_field=None if rows.id_from is not None else rows.id_field or DEFAULT_ID_FIELD)
    if found is None:
        return None
    row, first = found
    note = None
    if recipe.template is None and isinstance(row, dict):
        try:
            _check_text_fields(first, row, recipe)
        except UsageFault as error:
            if recipe.embeds or recipe.text_fields != DEFAULT_TEXT_FIELDS:
                raise
            note = f"{error}; records without a text get no document"
    _check_named_fields(first, (item for _, item in probed if isinstance(item, Item)), recipe)
    return note


def _first_item(probed: Iterable[tuple[object, Item | Reject]], *, id_field: str | None) -> tuple[object, Item] | None:
    """Return the first item with its row, or None; `id_field` is None if ids are made from the rows.

    Raises:
        UsageFault: There are only rows without the id field.
    """
    without_id: tuple[Reject, dict[str, Any]] | None = None
    is_found = False  # whether a row has the field, so that only the ids of single rows are at fault
    for row, item in probed:
        if isinstance(item, Item):
            return row, item
        if id_field is not None and isinstance(row, dict):
            if field_at(row, id_field, _ABSENT) is not _ABSENT:
                is_found = True
            else:
                without_id = without_id or (item, row)
    if without_id is None or is_found:
        return None
    reject, fields = without_id
    raise UsageFault(
        message=f"{reject.source}, row {reject.row}: there is no `{id_field}`, {_has(fields)}; "
        f"--id-field names the id, --id-from row or hash makes one for each row"
    )


def _check_text_fields(item: Item, row: dict[str, Any], recipe: Recipe) -> None:
    payload = item.payload or {}
    if recipe.refs_root is not None and reference_field(item.item_info) is not None:
        return
    if any(field_at(payload, name, _ABSENT) is not _ABSENT for name in recipe.text_fields):
        return
    where, wanted = f"{item.source}, row {item.row}", " or ".join(f"`{name}`" for name in recipe.text_fields)
    own = (*ITEM_FIELDS, *REJECT_FIELDS) if row.keys() >= REJECT_FIELDS else ITEM_FIELDS
    other_fields = {name: value for name, value in row.items() if name not in own}
    if other_fields and not payload:
        raise UsageFault(
            message=f"{where}: it has no payload with {wanted}, but {_quoted(_first_paths(other_fields))}; "
            f"--id-field object_id takes them as the payload, and --text-field names the text"
        )
    raise UsageFault(message=f"{where}: the payload has no {wanted}, {_has(payload)}; --text-field names the text")


def _check_named_fields(first: Item, others: Iterator[Item], recipe: Recipe) -> None:
    """Check that each field that an option names is in one of the items."""
    missing = dict.fromkeys(recipe.metadata_fields or (), "--metadata-fields")
    if recipe.template is not None:
        missing |= dict.fromkeys(template_fields(recipe.template), "--template")
    if recipe.vector_field is not None or (not recipe.embeds and first.stored is None):
        missing[recipe.vector_field or VECTOR_FIELD] = "--vector-field"
    for item in itertools.chain([first], others):
        payload = item.payload or {}
        missing = {path: option for path, option in missing.items() if field_at(payload, path, _ABSENT) is _ABSENT}
        if not missing:
            return
    option = next(iter(missing.values()))
    wanted = _quoted(path for path, why in missing.items() if why == option)
    raise UsageFault(
        message=f"{first.source}, row {first.row}: the payload has no {wanted}, {_has(first.payload or {})}; "
        f"correct {option}, which takes dotted paths"
    )


def first_dimension(rows: Rows, *, recipe: Recipe) -> int:
    """Return the length of the first valid vector that an item brings, or 0."""
    with suppress(SourceUnreadable):  # the load reports it after the rows before it
        for row, _ in rows:
            with suppress(ItemError):
                if isinstance(row, Item) and (vector := make_document(row, recipe).vector) is not None:
                    return len(vector)
    return 0


def _check_file_names(sources: Sequence[Source]) -> None:
    names = Counter(PurePath(source.name).name for source in sources)
    if repeated := [name for name, times in names.items() if times > 1]:
        raise UsageFault(
            message=f"two files are called {repeated[0]}, so --id-from row would give their rows the same ids; "
            f"rename one of them, or use --id-from hash"
        )


def _has(fields: dict[str, Any]) -> str:
    paths = _first_paths(fields)
    return f"it has {_quoted(paths)}" if paths else "it is empty"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _first_paths(values: dict[str, Any]) -> list[str]:
    return list(itertools.islice(_paths(values), SHOWN_FIELDS))


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of each field, as an option would name it."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"[:SHOWN_KEY]
