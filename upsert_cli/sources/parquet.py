"""Parquet: rows from any row on, in batches that stay small even if a few bytes of the file unpack to a lot."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from upsert_cli.errors import ItemError
from upsert_cli.redaction import error_line
from upsert_cli.sources.file_kinds import GZIP, PARQUET, ZSTD, Unsuitable, head_of, refuse_other_kind
from upsert_cli.sources.formats import check_column_names
from upsert_cli.sources.item import MAX_ROW, PartialRow, Row, too_large
from upsert_cli.sources.parquet_pages import check_page_sizes, rows_at_once
from upsert_cli.sources.parquet_values import Column, Convert, UnreadableValue, converter, values_of
from upsert_cli.sources.remote import FilePath, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from upsert_cli.sources.item import WrittenItem

READ_BUFFER = 1 << 20  # bytes; without `pre_buffer` a third of the memory, and no slower
HUGE_GROUP = 1 << 30  # bytes; pyarrow unpacks pages as a whole, and a page may be as large as its row group
AT_ONCE_BYTES = 8 << 20  # bytes of a batch up to which all its rows become Python values at once
SHOWN_FAULTS = 3  # unreadable columns in the message of a row

Reader: TypeAlias = "Callable[..., Iterator[pa.RecordBatch]]"
"""Takes how many rows to read at once and `row_groups`, and returns batches."""

Readings: TypeAlias = "tuple[pa.RecordBatch, ...]"
"""A batch as the reader returned it; of a file with INT96 timestamps, also those columns in seconds."""

Values: TypeAlias = "dict[str, Any] | PartialRow | ItemError"
"""The values of a row, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """The rows of a Parquet file, which is addressed by rows; a `RowReader`."""

    path: FilePath

    def read(self, *, row: int, offset: int) -> Iterator[Row]:  # noqa: ARG002  # the offset is 0
        """Yield the rows, without reading the row groups before them."""
        with self.path.open("rb") as pages, _opened(self.path) as file, _readers(self.path, file) as readers:
            check_column_names(file.schema_arrow.names)
            end = 0
            for group in range(file.metadata.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if end <= row:
                    continue
                for values in _group_values(file, readers, pages, group, skip=row - begin):
                    row += 1
                    yield Row(row, values, 0)
                if row != end:
                    raise OSError(f"row group {group} holds {row - begin} rows, but the footer promises {end - begin}")

    def count(self) -> int:
        """Return the number of rows that the footer promises."""
        try:
            with _opened(self.path) as file:
                return int(file.metadata.num_rows)
        except Unsuitable:
            raise
        except OSError:
            head = head_of(self.path)
            if head.startswith((GZIP, ZSTD)):
                raise Unsuitable("it is compressed as a whole", "unpack it; Parquet is compressed inside") from None
            if not head.startswith(PARQUET):
                refuse_other_kind(head)
            raise

    def boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield ends of row groups, and rows inside large ones; the size is unpacked, as far as the footer tells."""
        with _opened(self.path) as file:
            begin = end = 0
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                start, end = end, end + group.num_rows
                step = max(1, min(rows, size * group.num_rows // max(1, group.total_byte_size)))
                if begin < start and end - begin > step:
                    begin = start
                    yield begin, 0
                while end - begin >= step:
                    begin += step
                    yield begin, 0
            if begin < end:
                yield end, 0


# -- the file -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: FilePath, *, int96_unit: Literal["s"] | None = None) -> Iterator[pq.ParquetFile]:
    """Open a file for the time of a `with` block; what pyarrow raises in the block becomes an OSError as well."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(
            # By bytes: pyarrow takes every path in text for UTF-8.
            pa.PythonFile(path.open()) if isinstance(path, RemoteFile) else pa.OSFile(os.fsencode(path)),
            pre_buffer=False,
            buffer_size=READ_BUFFER,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=int96_unit,
        )
        try:
            _check_totals(file.metadata)
            _check_pages(path, file)
            yield file
        finally:
            file.close(force=True)
    except pa.ArrowNotImplementedError as error:  # a limit of the reader, not damage
        raise Unsuitable(error_line(error), "write it again with types that pyarrow reads") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for names of columns
        raise OSError(error_line(error)) from error


def _check_pages(path: FilePath, file: pq.ParquetFile) -> None:
    """Refuse a file with a page that takes too much memory; of a remote file, each look would be a request."""
    if not isinstance(path, RemoteFile):
        with path.open("rb") as pages:
            check_page_sizes(file.metadata, pages)


def _check_totals(footer: pq.FileMetaData) -> None:
    found = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    if found != footer.num_rows:
        raise OSError(f"its footer promises {_rows(footer.num_rows)}, but its row groups hold {found}")


def _check_values(file: pq.ParquetFile, group: int) -> None:
    """Raise OSError if the values of a column contradict the number of rows in a row group."""
    metadata = file.metadata.row_group(group)
    for index in range(metadata.num_columns):
        column = file.schema.column(index)
        values = metadata.column(index).num_values
        # A row has a value, if only a null, in each column; a column of lists may have several.
        if values != metadata.num_rows and (column.max_repetition_level == 0 or values < metadata.num_rows):
            raise OSError(
                f"the footer promises {_rows(metadata.num_rows)} in row group {group}, "
                f"but its column `{column.path}` holds {values}"
            )


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


@contextmanager
def _readers(path: FilePath, file: pq.ParquetFile) -> Iterator[Sequence[Reader]]:
    """Yield what reads the rows: the open file, and for INT96 timestamps the same file again; see `parquet_values`."""
    readers = [partial(file.iter_batches, use_threads=False)]
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    # By type, since the path of a leaf does not tell a struct's field from a column with a dot in its name.
    names = [column.name for column in file.schema_arrow if "timestamp[ns" in str(column.type)]
    if not names or all(leaf.physical_type != "INT96" for leaf in leaves):
        yield readers
        return
    with _opened(path, int96_unit="s") as again:
        # A name with a dot would also select a field of a struct, so then all columns are read.
        selected = None if any("." in name for name in names) else names
        yield [*readers, partial(again.iter_batches, columns=selected, use_threads=False)]


# -- rows ---------------------------------------------------------------------------------------------------------


def _group_values(
    file: pq.ParquetFile, readers: Sequence[Reader], pages: BinaryIO, group: int, *, skip: int
) -> Iterator[Values]:
    """Yield the values of the rows of a row group after the first `skip` ones."""
    metadata = file.metadata.row_group(group)
    if metadata.total_byte_size > max(HUGE_GROUP, MAX_ROW * metadata.num_rows):
        return repeat(too_large(), metadata.num_rows - max(0, skip))
    # All columns are read, also those that are not fields of an item: a reject keeps the whole row.
    # The reader reports a damaged footer, while the metadata's accessors end the process (pyarrow 26).
    next(readers[0](1, row_groups=[group]), None)
    _check_values(file, group)
    rows = rows_at_once(file, pages, group)
    batches = zip(*(reader(rows, row_groups=[group]) for reader in readers), strict=True)
    converters = converters_of(file.schema_arrow)
    return chain.from_iterable(unpacked(batch, converters) for batch in _after(batches, skip))


def _after(batches: Iterable[Readings], skip: int) -> Iterator[Readings]:
    """Yield what follows the first `skip` rows."""
    for readings in batches:
        rows = readings[0].num_rows
        if any(reading.num_rows != rows for reading in readings):
            raise OSError("two reads of the same rows differ in length")
        if skip < rows:
            yield tuple(reading.slice(skip) for reading in readings) if skip > 0 else readings
        skip -= rows


def converters_of(schema: pa.Schema) -> Sequence[Convert]:
    """Return the function that makes the values of each column."""
    return [converter(field.type) for field in schema]


def unpacked(readings: Readings, converters: Sequence[Convert]) -> Iterable[Values]:
    """Return the values of the rows: one by one if they are large or one of them is unreadable."""
    if readings[0].nbytes <= AT_ONCE_BYTES:
        with suppress(UnreadableValue):
            return _as_dicts(readings, converters)
    rows = range(readings[0].num_rows)
    return (_single(tuple(reading.slice(row, 1) for reading in readings), converters) for row in rows)


def _single(row: Readings, converters: Sequence[Convert]) -> Values:
    if row[0].nbytes > MAX_ROW:
        return too_large()
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for index, name in enumerate(row[0].schema.names):
        try:
            [values[name]] = values_of(name, converters[index], _column(row, index))
        except UnreadableValue as error:
            faults[name] = str(error)
    if not faults:
        return values
    return PartialRow(values, tuple(faults), "; ".join(islice(faults.values(), SHOWN_FAULTS)))


def _as_dicts(readings: Readings, converters: Sequence[Convert]) -> list[dict[str, Any]]:
    names = readings[0].schema.names
    columns = [values_of(name, converters[index], _column(readings, index)) for index, name in enumerate(names)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(readings: Readings, index: int) -> Column:
    """Return a column in each reading that has it."""
    first, *others = readings
    name = first.schema.names[index]
    found = [(other, other.schema.get_field_index(name)) for other in others]
    return (first.column(index), *(other.column(at) for other, at in found if at >= 0))


@contextmanager
def writing_items(file: BinaryIO) -> Iterator[Callable[[Sequence[WrittenItem]], object]]:
    """Yield a function that writes items as a row group, with payload and info as JSON text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [pa.field("object_id", pa.string(), nullable=False), ("payload", pa.string()), ("item_info", pa.string())]
    )
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def write(items: Sequence[WrittenItem]) -> None:
            columns = [
                pa.array(column, schema.field(place).type) for place, column in enumerate(zip(*items, strict=True))
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, len(items)))

        yield write
