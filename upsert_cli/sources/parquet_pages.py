"""The number of rows of a Parquet file that may be read at once, by the sizes of its pages.

Dictionary and delta encoding repeat a value at no cost: a file of 1,340 bytes can hold 300 rows of 1 MB, for which its
footer states 1 MB. So the largest size of a row is estimated from the headers of the pages. A header is a structure in
Thrift's compact form: fields with a type and a number, which is counted from the field before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from os import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from upsert_cli.sources.formats import Unsuitable

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MAX_BATCH_ROWS = 64  # rows; more gain nothing, 8 cost twice the CPU a row
BATCH_BYTES = 32 << 20  # bytes that a batch may unpack to at worst; pyarrow takes three times as much for a moment
USUAL_DICTIONARY = 2 << 20  # bytes; writers give up a dictionary at about 1 MiB
SKEW = 16  # the largest value of a usual page is assumed to be at most this multiple of the mean
LARGE_PAGE = 64 << 20  # bytes; a page of this size costs a lot of memory already, so its rows are read one by one

# Bytes; pyarrow unpacks a page as a whole, and takes twice its size for a moment: with the model and the store, a load
# would take more than 700 MB for a larger page.
MAX_PAGE = 128 << 20
FIRST_PAGE = 4  # bytes before it
SMALLER_PAGES = (
    "`python -c 'import sys, pyarrow.parquet as p; f = p.ParquetFile(sys.argv[1]); "
    "w = p.ParquetWriter(sys.argv[2], f.schema_arrow, write_batch_size=8); "
    "[w.write_batch(b) for b in f.iter_batches(1024)]; w.close()' FILE smaller-pages.parquet` makes them smaller"
)

HEADER_BYTES = 1 << 10  # bytes; most headers take 50, and headers with longer statistics are not read
MAX_DEPTH = 8  # nested structures; a header has two
MAX_SHIFT = 63  # bits before the last byte of the largest number in Thrift

_MORE = 0x80  # in a byte of a number: another one follows
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _STRUCT = 0, 1, 2, 3, 7, 8, 12
_INTEGERS = (4, 5, 6)
_DICTIONARY_PAGE = 2
_KIND, _UNPACKED, _PACKED = 1, 2, 3  # the numbers of fields in a header
_BY_KIND = {0: 5, 2: 7, 3: 8}  # the number of the field with a structure for the kind of page, by the kind
_VALUES = 1  # the number of the field in that structure with the number of values


def rows_at_once(file: pq.ParquetFile, pages: BinaryIO, group: int) -> int:
    """Return the number of rows of a row group that may be read at once; `pages` is the same file, open as bytes."""
    metadata = file.metadata.row_group(group)
    row = 1.0
    for index in range(metadata.num_columns):
        chunk = metadata.column(index)
        values = chunk.num_values / max(1, metadata.num_rows)
        row += _largest_value(chunk, pages) * max(1.0, values)
    return max(1, min(MAX_BATCH_ROWS, int(BATCH_BYTES / row)))


def check_page_sizes(footer: pq.FileMetaData, pages: BinaryIO) -> None:
    """Check that no page takes too much memory; a file with small row groups is not searched for pages.

    The headers are followed from the first page on, without the entries of columns in the footer: if one is damaged,
    pyarrow ends the process (pyarrow 26). The pages after a gap, which a writer may leave, are not checked.

    Raises:
        Unsuitable: A page is too large.
    """
    groups = map(footer.row_group, range(footer.num_row_groups))
    if all(group.total_byte_size <= MAX_PAGE for group in groups):
        return
    size = 0
    with suppress(ValueError):
        for page in _pages_between(FIRST_PAGE, pages.seek(0, SEEK_END), pages):
            size = max(size, page.size)
    if size > MAX_PAGE:
        reason = f"one of its pages unpacks to {size / 1e6:,.0f} MB at once, and {MAX_PAGE / 1e6:,.0f} MB are allowed"
        raise Unsuitable(reason, SMALLER_PAGES)


def _largest_value(chunk: pq.ColumnChunkMetaData, pages: BinaryIO) -> float:
    """Return the most bytes that a value may have: one that is repeated at no cost, or a large one among small ones."""
    size = int(chunk.total_uncompressed_size)
    mean: float = size / max(1, chunk.num_values)
    if chunk.physical_type != "BYTE_ARRAY":
        return mean
    if "DELTA_BYTE_ARRAY" in chunk.encodings:
        return size
    try:
        found = list(pages_of(chunk, pages))
    except ValueError:
        return size
    values = sum(page.values for page in found if not page.is_dictionary)
    if values != chunk.num_values:
        column = chunk.path_in_schema
        raise OSError(f"the footer promises {chunk.num_values} values of `{column}`, but its pages hold {values}")
    return max([mean, *map(_largest_in, found)])


def _largest_in(page: Page) -> float:
    """Return the most bytes that a value of a page may have; in a usual page, no value is far from the mean."""
    limit = USUAL_DICTIONARY if page.is_dictionary else LARGE_PAGE
    return page.size if page.size > limit else min(page.size, SKEW * page.size / max(1, page.values))


# -- headers ------------------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """A page of a column."""

    size: int
    """Bytes, unpacked."""

    values: int
    is_dictionary: bool


def pages_of(chunk: pq.ColumnChunkMetaData, file: BinaryIO) -> Iterator[Page]:
    """Yield the pages of a column in a row group.

    Raises:
        ValueError: A header is missing, damaged, or longer than any usual header.
    """
    begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
    return _pages_between(begin, begin + chunk.total_compressed_size, file)


def _pages_between(begin: int, end: int, file: BinaryIO) -> Iterator[Page]:
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


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the numbers and structures in a structure, by the numbers of their fields, and the offset after it."""
    if not depth:
        raise ValueError("too many nested structures")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != _STOP:
        at += 1
        step, kind = head >> 4, head & 0x0F
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind in _INTEGERS:
        return _integer(data, at)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind == _STRUCT:
        return _struct(data, at, depth - 1)
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    raise ValueError(f"a header has no field of type {kind}")  # no header has lists, sets or maps


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number, which has seven bits in each byte, the low ones first, and the offset after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & ~_MORE) << shift
        if not byte & _MORE:
            return value, at
        shift += 7
        if shift > MAX_SHIFT:
            raise ValueError("a number has more than 64 bits")
