"""The types of a Parquet file -> types that Python can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from upsert_cli.stream.items.json_text import JSON_FIELDS

if TYPE_CHECKING:
    import pyarrow as pa


def readable(schema: pa.Schema) -> pa.Schema:
    """Returns a schema with JSON as bytes, which need not be decoded twice, and types that Python can hold."""
    import pyarrow as pa

    return pa.schema(
        field.with_type(pa.large_binary() if field.name in JSON_FIELDS and _is_text(field.type) else _held(field.type))
        for field in schema
    )


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    return text in (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary())


def _held(kind: pa.DataType) -> pa.DataType:
    """Returns a type with microseconds for nanoseconds: Python's own types hold no more."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return pa.struct([field.with_type(_held(field.type)) for field in fields])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _held(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _list_like(kind, kind.value_field.with_type(_held(kind.value_type)))
    if getattr(kind, "unit", None) != "ns":
        return kind
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")


def _list_like(kind: pa.DataType, inner: pa.Field) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)
