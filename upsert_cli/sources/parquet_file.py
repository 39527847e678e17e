"""A Parquet file that pyarrow has opened, with checks of its footer, which pyarrow trusts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from upsert_cli.redaction import error_line
from upsert_cli.sources.file_kinds import Unsuitable
from upsert_cli.sources.formats import check_column_names
from upsert_cli.sources.parquet_pages import check_page_sizes
from upsert_cli.sources.remote import FilePath, RemoteFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

READ_BUFFER = 1 << 20  # bytes; without `pre_buffer` a third of the memory, and no slower

Reader: TypeAlias = "Callable[..., Iterator[pa.RecordBatch]]"
"""Takes the number of rows to read at once and `row_groups`, and returns batches."""


@contextmanager
def opened(path: FilePath, *, int96_unit: Literal["s"] | None = None) -> Iterator[pq.ParquetFile]:
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
def readers_of(path: FilePath, file: pq.ParquetFile) -> Iterator[Sequence[Reader]]:
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
    with opened(path, int96_unit="s") as again:
        # A name with a dot would also select a field of a struct, so then all columns are read.
        selected = None if any("." in name for name in names) else names
        yield [*readers, partial(again.iter_batches, columns=selected, use_threads=False)]


def check_values(file: pq.ParquetFile, group: int) -> None:
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
