"""Parquet: rows from any row on, in batches that stay small even if a few bytes of the file unpack to a lot.

The footer is checked first, since pyarrow trusts it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

from upsert_cli.redaction import error_line
from upsert_cli.sources.formats import GZIP, PARQUET, ZSTD, Unsuitable, check_column_names, head_of, refuse_other_kind
from upsert_cli.sources.item import MAX_ROW, Row, too_large
from upsert_cli.sources.parquet_pages import check_page_sizes, rows_at_once
from upsert_cli.sources.parquet_values import Readings, Values, converters_of, unpacked
from upsert_cli.sources.remote import FilePath, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from upsert_cli.sources.item import WrittenItem

READ_BUFFER = 1 << 20  # bytes; without `pre_buffer` a third of the memory, and no slower

Reader: TypeAlias = "Callable[..., Iterator[pa.RecordBatch]]"
"""Takes the number of rows to read at once and `row_groups`, and returns batches."""

HUGE_GROUP = 1 << 30  # bytes; pyarrow unpacks pages as a whole, and a page may be as large as its row group


@dataclass(frozen=True, slots=True)
class ParquetRows:
    """The rows of a Parquet file, which is addressed by rows; a `RowReader`."""

    path: FilePath

    def read(self, *, row: int, offset: int) -> Iterator[Row]:  # noqa: ARG002  # the offset is 0
        """Yield the rows; the row groups before the first of them are not read."""
        with self.path.open("rb") as pages, _opened(self.path) as file, _readers_of(self.path, file) as readers:
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
        """Return the number of rows in the footer."""
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
        """Yield ends of row groups, and rows inside large ones; sizes are those of the unpacked data in the footer."""
        with _opened(self.path) as file:
            begin = end = 0
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                start, end = end, end + group.num_rows
                most = max(1, min(rows, size * group.num_rows // max(1, group.total_byte_size)))
                if begin < start and end - begin > most:  # the rows before this group do not fit together with it
                    begin = start
                    yield begin, 0
                while end - begin >= most:
                    begin += most
                    yield begin, 0
            if begin < end:
                yield end, 0


# -- rows ---------------------------------------------------------------------------------------------------------


def _group_values(
    file: pq.ParquetFile, readers: Sequence[Reader], pages: BinaryIO, group: int, *, skip: int
) -> Iterator[Values]:
    """Yield the values of the rows of a row group after the first `skip` ones."""
    metadata = file.metadata.row_group(group)
    if metadata.total_byte_size > max(HUGE_GROUP, MAX_ROW * metadata.num_rows):
        return repeat(too_large(), metadata.num_rows - max(0, skip))
    # All columns are read, also those that are not fields of an item: a reject keeps the whole row.
    # A first row comes before that, since the reader reports a damaged footer, while the accessors of the metadata end
    # the process (pyarrow 26).
    next(readers[0](1, row_groups=[group]), None)
    _check_values(file, group)
    rows = rows_at_once(file, pages, group)
    batches = zip(*(reader(rows, row_groups=[group]) for reader in readers), strict=True)
    converters = converters_of(file.schema_arrow)
    return chain.from_iterable(unpacked(batch, converters) for batch in _after(batches, skip))


def _after(batches: Iterable[Readings], skip: int) -> Iterator[Readings]:
    """Yield the batches without the first `skip` rows."""
    for readings in batches:
        rows = readings[0].num_rows
        if any(reading.num_rows != rows for reading in readings):
            raise OSError("two reads of the same rows differ in length")
        if skip < rows:
            yield tuple(reading.slice(skip) for reading in readings) if skip > 0 else readings
        skip -= rows


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


# -- the file -------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: FilePath, *, int96_unit: Literal["s"] | None = None) -> Iterator[pq.ParquetFile]:
    """Open a file for the time of a `with` block; errors of pyarrow in the block become OSErrors as well.

    Raises:
        OSError: The file cannot be read, or is damaged.
        Unsuitable: The file is beyond a limit of pyarrow or of the memory.
    """
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
            check_column_names(file.schema_arrow.names)
            _check_totals(file.metadata)
            _check_pages(path, file)
            yield file
        finally:
            file.close(force=True)
    except pa.ArrowNotImplementedError as error:  # a limit of the reader, not damage
        raise Unsuitable(error_line(error), "write it again with types that pyarrow reads") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for names of columns
        raise OSError(error_line(error)) from error


@contextmanager
def _readers_of(path: FilePath, file: pq.ParquetFile) -> Iterator[Sequence[Reader]]:
    """Yield the readers of the rows: the open file, and for INT96 timestamps the same file again.

    The second reader returns these columns in seconds; see `parquet_times`.
    """
    readers = [partial(file.iter_batches, use_threads=False)]
    leaves = (file.schema.column(index) for index in range(len(file.schema)))
    # By type, since the path of a leaf is the same for a field of a struct and for a column with a dot in its name.
    names = [column.name for column in file.schema_arrow if "timestamp[ns" in str(column.type)]
    if not names or all(leaf.physical_type != "INT96" for leaf in leaves):
        yield readers
        return
    with _opened(path, int96_unit="s") as again:
        # A name with a dot would also select a field of a struct, so then all columns are read.
        selected = None if any("." in name for name in names) else names
        yield [*readers, partial(again.iter_batches, columns=selected, use_threads=False)]


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


def _check_totals(footer: pq.FileMetaData) -> None:
    found = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    if found != footer.num_rows:
        raise OSError(f"its footer promises {_rows(footer.num_rows)}, but its row groups hold {found}")


def _check_pages(path: FilePath, file: pq.ParquetFile) -> None:
    """Refuse a file with a page that takes too much memory; for a remote file, each page would cost a request."""
    if not isinstance(path, RemoteFile):
        with path.open("rb") as pages:
            check_page_sizes(file.metadata, pages)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
