"""A column of a row group -> the sizes of its pages, which the footer does not tell, by the header of each.

A header is a structure in Thrift's compact form: fields with a number, each told from the one before, and a type.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

if TYPE_CHECKING:
    import pyarrow.parquet as pq

HEADER_BYTES = 1 << 10  # bytes; most headers take 50, and those with long statistics are given up
MAX_DEPTH = 8  # structures in each other; a header has two

_MORE = 0x80  # in a byte of a number: another one follows
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
_DICTIONARY_PAGE = 2
# Numbers of fields: of a page's header, and of the structure with its number of values, of each kind of page.
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_BY_KIND = {0: 5, 2: 7, 3: 8}
_VALUES = 1


class Page(NamedTuple):
    """A page of a column."""

    size: int
    """Bytes, unpacked."""

    values: int
    is_dictionary: bool


def pages_of(chunk: pq.ColumnChunkMetaData, file: BinaryIO) -> Iterator[Page]:
    """Yields the pages of a column in a row group.

    Raises:
        ValueError: A header is none, or is longer than any usual one.
    """
    begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    end = begin + chunk.total_compressed_size
    while begin < end:
        file.seek(begin)
        try:
            fields, length = _struct(file.read(HEADER_BYTES), 0, MAX_DEPTH)
            page = Page(fields[_UNPACKED], fields[_BY_KIND[fields[_KIND]]][_VALUES], fields[_KIND] == _DICTIONARY_PAGE)
            packed = fields[_PACKED]
            if min(page.size, page.values, packed) < 0:
                raise ValueError("a size is negative")
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"no header of a page at byte {begin}") from error
        yield page
        begin += length + packed


def _struct(data: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Reads a structure from `place` on, and returns its numbers and structures by field, and where it ends."""
    if not depth:
        raise ValueError("too many structures in each other")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[place]) != _STOP:
        place += 1
        step, kind = head >> 4, head & 0x0F
        if step:
            number += step
        else:
            number, place = _integer(data, place)
        fields[number], place = _value(data, place, kind, depth)
    return fields, place + 1


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, place
    if kind in _INTEGERS:
        return _integer(data, place)
    if kind == _BINARY:
        length, place = _varint(data, place)
        return None, place + length
    if kind == _STRUCT:
        return _struct(data, place, depth - 1)
    if kind in (_BYTE, _DOUBLE):
        return None, place + (1 if kind == _BYTE else 8)
    raise ValueError(f"a header has no field of type {kind}")  # lists, sets and maps are in none


def _integer(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Reads a number of seven bits a byte, low ones first."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & ~_MORE) << shift
        if not byte & _MORE:
            return value, place
        shift += 7
