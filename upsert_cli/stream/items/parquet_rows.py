"""A batch of a Parquet file -> its rows as Python values; those that cannot be read are errors in their place."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import ItemError, Stage
from upsert_cli.stream.items.json_text import JSON_FIELDS, parse

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW = 8 << 20  # bytes; as a line of JSONL
AT_ONCE_BYTES = 8 << 20  # bytes of a batch up to which all its rows become Python values at once


def unpacked(batch: pa.RecordBatch, *, mapped: bool) -> Iterable[dict[str, Any] | ItemError]:
    """Returns the rows as Python values: one by one where they are large, or where one of them is broken."""
    if batch.nbytes <= AT_ONCE_BYTES:
        # A text that is not UTF-8, a date that Python cannot hold; pyarrow raises errors of many kinds for them.
        with suppress(Exception):
            return _as_dicts(batch, mapped=mapped)
    return (_single(batch.slice(place, 1), mapped=mapped) for place in range(batch.num_rows))


def _single(row: pa.RecordBatch, *, mapped: bool) -> dict[str, Any] | ItemError:
    if row.nbytes > MAX_ROW:
        return too_large()
    try:
        return _as_dicts(row, mapped=mapped)[0]
    except Exception as error:  # noqa: BLE001  # as above; here it is known whose fault it is
        return _fault(f"a value cannot be read: {one_line(error)}")


def _as_dicts(batch: pa.RecordBatch, *, mapped: bool) -> list[dict[str, Any]]:
    names = batch.schema.names
    columns = [_values(column, name, mapped=mapped) for name, column in zip(names, batch.columns, strict=True)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.Array, name: str, *, mapped: bool) -> list[Any]:
    import pyarrow as pa

    values: list[Any] = column.to_pylist()
    if name in JSON_FIELDS and pa.types.is_large_binary(column.type):
        return [text if text is None else _parsed(text, mapped=mapped) for text in values]
    if pa.types.is_map(column.type):
        return [None if value is None else {str(key): inner for key, inner in value} for value in values]
    return values


def _parsed(text: bytes, *, mapped: bool) -> object:
    """Returns what a text column holds as JSON; where fields are mapped, it may as well be any text."""
    if mapped and text.lstrip()[:1] != b"{":
        return text.decode()
    try:
        return parse(text)
    except ItemError as error:
        return error


def too_large() -> ItemError:
    """Returns what is wrong with a row that is not made."""
    return _fault(f"the row is larger than {MAX_ROW >> 20} MiB, the limit; divide its text into several items")


def _fault(detail: str) -> ItemError:
    return ItemError(stage=Stage.READING, detail=detail)


def one_line(error: BaseException) -> str:
    """Returns what pyarrow says, in one line that is not too long."""
    return " ".join(str(error).split())[:300]
