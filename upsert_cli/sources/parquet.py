"""A Parquet file -> its rows, from any row on, in batches that stay small whatever a few bytes of the file unpack to.

Dictionary and delta encoding repeat a value at no cost: a file of 1,340 bytes can hold 300 rows of 1 MB, and its footer
says 1 MB. So what a row may grow to is looked up in the pages themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from upsert_cli.errors import ItemError
from upsert_cli.sources.compression import native_file
from upsert_cli.sources.foreign import Unsuitable
from upsert_cli.sources.item import PartialRow, Row
from upsert_cli.sources.parquet_pages import Page, pages_of
from upsert_cli.sources.parquet_rows import MAX_ROW, Readings, converters_of, too_large, unpacked
from upsert_cli.sources.parquet_types import one_line
from upsert_cli.sources.remote import Place

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_BATCH_ROWS = 64  # rows; more gain nothing, 8 cost twice the CPU a row
BATCH_BYTES = 32 << 20  # bytes that a batch may unpack to at worst; pyarrow takes three times as much for a moment
READ_BUFFER = 1 << 20  # bytes; without `pre_buffer` a third of the memory, and no slower
USUAL_DICTIONARY = 2 << 20  # bytes; writers give up a dictionary at about 1 MiB
SKEW = 16  # times the mean that the largest value of a usual page is taken for
LARGE_PAGE = 64 << 20  # bytes; a page as large costs so much memory already that its rows are taken one by one
HUGE_GROUP = 1 << 30  # bytes; pyarrow unpacks pages as a whole, and a page may be as large as its row group


def read_rows(
    path: Place,
    *,
    row: int,
    offset: int,  # noqa: ARG001  # Parquet is addressed by rows
) -> Iterator[Row]:
    """Yields the rows, without reading row groups that are behind us; `formats.Reader` says the rest."""
    import pyarrow as pa

    try:
        with path.open("rb") as pages, _open(path) as file, _open_seconds(path, file) as seconds:
            _check_names(file.schema_arrow.names)
            end = 0
            for group in range(file.metadata.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if end <= row:
                    continue
                for record in _records(file, seconds, pages, group, skip=row - begin):
                    row += 1
                    yield Row(row, record, 0)
                if row != end:
                    raise OSError(f"row group {group} holds {row - begin} rows, but the footer promises {end - begin}")
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for the names of columns
        raise OSError(one_line(error)) from error


def count_rows(path: Place) -> int:
    """Returns the number of rows that the footer promises.

    Raises:
        OSError: The file is no Parquet or is cut off.
    """
    import pyarrow as pa

    try:
        with _open(path) as file:
            return int(file.metadata.num_rows)
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for the names of columns
        raise OSError(one_line(error)) from error


def cut_rows(path: Place, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields row numbers at which reading may begin: ends of row groups, and places inside of those that are large.

    Args:
        path: The file.
        rows: Rows from one place to the next at most.
        size: Bytes, unpacked, from one place to the next, as far as the footer tells.

    Yields:
        Rows that are behind each place, and 0, since Parquet is addressed by rows; the last one is the end of the file.

    Raises:
        OSError: The file is no Parquet or is cut off.
    """
    import pyarrow as pa

    try:
        with _open(path) as file:
            begin = end = 0
            for number in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(number)
                start, end = end, end + group.num_rows
                step = max(1, min(rows, size * group.num_rows // max(1, group.total_byte_size)))
                if begin < start and end - begin > step:
                    begin = start
                    yield begin, 0
                while end - begin > step:
                    begin += step
                    yield begin, 0
                if end - begin == step:
                    begin = end
                    yield begin, 0
            if begin < end:
                yield end, 0
    except (pa.ArrowException, UnicodeDecodeError) as error:  # the latter for the names of columns
        raise OSError(one_line(error)) from error


def _check_names(names: Iterable[str]) -> None:
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise OSError(f"two columns are called `{repeated[0]}`; rename one of them")


def _open(path: Place, *, int96_unit: Literal["s"] | None = None) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(
            native_file(path),
            pre_buffer=False,
            buffer_size=READ_BUFFER,
            page_checksum_verification=True,
            coerce_int96_timestamp_unit=int96_unit,
        )
    except pa.ArrowNotImplementedError as error:  # a limit of the reader, not damage
        raise Unsuitable(one_line(error), "write it again with types that pyarrow reads") from error
    try:
        _check_totals(file.metadata)
    except OSError:
        file.close(force=True)
        raise
    return file


def _check_totals(footer: pq.FileMetaData) -> None:
    found = sum(footer.row_group(group).num_rows for group in range(footer.num_row_groups))
    if found != footer.num_rows:
        raise OSError(f"its footer promises {_rows(footer.num_rows)}, and its row groups hold {found}")


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


@contextmanager
def _open_seconds(path: Place, file: pq.ParquetFile) -> Iterator[Seconds | None]:
    """Open the file again if it has INT96 timestamps, to read these in whole seconds; see `parquet_times`."""
    leaves = (file.schema.column(place) for place in range(len(file.schema)))
    if all(leaf.physical_type != "INT96" for leaf in leaves):
        yield None
        return
    # By their types, since the path of a leaf does not tell a struct's field from a column with a dot in its name.
    names = [column.name for column in file.schema_arrow if "timestamp[ns" in str(column.type)]
    with _open(path, int96_unit="s") as again:
        yield Seconds(again, names)


class Seconds(NamedTuple):
    """A file with INT96 timestamps, opened so that these are whole seconds."""

    file: pq.ParquetFile

    names: Collection[str]
    """The columns that may have such timestamps, at any depth."""

    def read(self, rows: int, group: int) -> Iterator[pa.RecordBatch] | None:
        """Return the batches of a row group with those columns, or None if there are none."""
        if not self.names:
            return None
        # A name with a dot would also select a field of a struct, so then all columns are read.
        selected = None if any("." in name for name in self.names) else list(self.names)
        batches: Iterator[pa.RecordBatch] = self.file.iter_batches(
            rows, row_groups=[group], columns=selected, use_threads=False
        )
        return batches


# -- batches ------------------------------------------------------------------------------------------------------


def _records(
    file: pq.ParquetFile,
    seconds: Seconds | None,
    pages: BinaryIO,
    group: int,
    *,
    skip: int,
) -> Iterator[dict[str, Any] | PartialRow | ItemError]:
    metadata = file.metadata.row_group(group)
    if metadata.total_byte_size > max(HUGE_GROUP, MAX_ROW * metadata.num_rows):
        return repeat(too_large(), metadata.num_rows - max(0, skip))
    # Also what is no field of an item is read: a reject keeps the whole row.
    read = partial(file.iter_batches, row_groups=[group], use_threads=False)
    # Of a damaged footer the reader says so, while the metadata's accessors end the process (pyarrow 26).
    next(read(1), None)
    _check_values(file, group)
    rows = _batch_rows(file, pages, group)
    readings = [read(rows)]
    if seconds is not None and (again := seconds.read(rows, group)) is not None:
        readings.append(again)
    converters = converters_of(file.schema_arrow)
    return chain.from_iterable(unpacked(batch, converters) for batch in _behind(zip(*readings, strict=True), skip))


def _check_values(file: pq.ParquetFile, group: int) -> None:
    """Compare the rows of a row group with the values of its columns.

    Raises:
        OSError: The footer contradicts itself.
    """
    metadata = file.metadata.row_group(group)
    for place in range(metadata.num_columns):
        column = file.schema.column(place)
        values = metadata.column(place).num_values
        # A row has a value, if only a null, in each column; where lists are, also several.
        if values != metadata.num_rows and (column.max_repetition_level == 0 or values < metadata.num_rows):
            raise OSError(
                f"the footer promises {_rows(metadata.num_rows)} in row group {group}, "
                f"and its column `{column.path}` holds {values}"
            )


def _behind(batches: Iterable[Readings], skip: int) -> Iterator[Readings]:
    """Yield what follows the first `skip` rows."""
    for readings in batches:
        rows = readings[0].num_rows
        if any(reading.num_rows != rows for reading in readings):
            raise OSError("two reads of the same rows differ in length")
        if skip < rows:
            yield tuple(reading.slice(skip) for reading in readings) if skip > 0 else readings
        skip -= rows


def _batch_rows(file: pq.ParquetFile, pages: BinaryIO, group: int) -> int:
    """Returns how many rows may be read at once."""
    metadata = file.metadata.row_group(group)
    row = 1.0
    for place in range(metadata.num_columns):
        chunk = metadata.column(place)
        values = chunk.num_values / max(1, metadata.num_rows)
        row += _largest_value(chunk, pages) * max(1.0, values)
    return max(1, min(MAX_BATCH_ROWS, int(BATCH_BYTES / row)))


def _largest_value(chunk: pq.ColumnChunkMetaData, pages: BinaryIO) -> float:
    """Returns the bytes that a value may have: one that is repeated at no cost, or that stands among small ones."""
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
        raise OSError(f"the footer promises {chunk.num_values} values of `{column}`, and its pages hold {values}")
    return max([mean, *map(_largest_of, found)])


def _largest_of(page: Page) -> float:
    """Returns the bytes that a value of a page may have; a usual page has no value that is far from the mean."""
    limit = USUAL_DICTIONARY if page.is_dictionary else LARGE_PAGE
    return page.size if page.size > limit else min(page.size, SKEW * page.size / max(1, page.values))
