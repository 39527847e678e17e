"""The names that a user gives -> the sources of a load: found, spooled, fingerprinted, and cut at `--limit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeVar

from upsert_cli.context import RunContext
from upsert_cli.errors import UpsertCliError, UsageFault
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.spool import spool
from upsert_cli.pipeline.preflight import check_first_rows
from upsert_cli.sources.find import STDIN, FoundFile, find_files
from upsert_cli.sources.formats import has_row_on_each_line, is_read_from_its_end
from upsert_cli.sources.source import Source
from upsert_cli.sources.source_path import CollectionReader
from upsert_cli.store.collection_source import StoredCollection, collection_named

FIRST_CONTACT = 60.0  # seconds; the longest that requests for a source are repeated before there is a task

_File = TypeVar("_File")


def find_inputs(
    names: Sequence[str],
    options: LoadOptions,
    *,
    chroma: str | None,
    with_vectors: bool = False,
    report: Callable[[str], object] = lambda _: None,
) -> list[FoundFile]:
    """Return the files and collections that names stand for.

    Args:
        names: As the user types them.
        options: Those of the load.
        chroma: Its target; None for a preview.
        with_vectors: Read the vectors of collections that are to be kept, which a look at the first rows does not need.
        report: Called with notes, such as how many files were skipped.
    """
    # An address may be misspelled, and no progress shows yet that the load waits for it.
    patience = min(options.retry_for, FIRST_CONTACT)
    options = replace(options, retry_for=patience)
    return find_files(
        names,
        collection_at=collections_for(options, chroma=chroma, with_vectors=with_vectors),
        format_name=options.format,
        retry_for=patience,
        report=report,
    )


def collections_for(
    options: LoadOptions, *, chroma: str | None, with_vectors: bool = True
) -> Callable[[str], StoredCollection]:
    """Return the function that returns the reader of a collection for a load into `chroma`, by its name."""
    return lambda name: replace(
        collection_named(name),
        target=chroma,
        where=options.where,
        with_vectors=options.keep_vectors and with_vectors,
        joins_chunks=not options.keep_vectors,
        retry_for=options.retry_for,
    )


def refuse_target_as_source(found: Iterable[FoundFile], *, chroma: str, collection: str) -> None:
    """Check that no source of a load is its target.

    Raises:
        UsageFault: One is.
    """
    for file in found:
        if isinstance(file.path, StoredCollection) and file.path.is_same_as(chroma, collection):
            raise UsageFault(
                message=f"{file.name} is the collection to load into; load into another --collection, and give it the "
                f"old name once it is complete"
            )


def notes_on_chunks(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a message for each collection that holds chunks, which a load joins as far as that is certain."""
    for source in sources:
        if isinstance(source.path, StoredCollection) and source.path.has_chunks():
            yield (
                f"{source.name} holds chunks of --split; those of an item are joined to its text, except where they "
                f"overlap or one is missing: they are loaded as they are, under ids such as ID#0"
            )


def open_inputs(
    found: Iterable[FoundFile],
    *,
    limit: int | None,
    spool_folder: Callable[[], Path],
    stdin: BinaryIO,
    most_spooled: int | None = None,
) -> list[Source]:
    """Return the sources of files, each with its fingerprint; streams are first copied into a folder.

    Args:
        found: In the order in which they are read.
        limit: The most rows of all of them together, or None.
        spool_folder: Returns the folder for copies of streams; called only if there is one to copy.
        stdin: Read where a file is `-`.
        most_spooled: Bytes of a stream to copy, unless its format needs the end; None for all of it.
    """

    def source_of(numbered: tuple[int, FoundFile], left: int | None) -> Source:
        number, file = numbered
        if not file.spooled:
            return Source.of(file, limit=left)
        path = spool_folder() / f"{number}.{file.format}"
        most = None if is_read_from_its_end(file.format) else most_spooled
        # All of the limit: files before this one may have fewer rows when the task starts again.
        lines = limit if has_row_on_each_line(file.format) else None
        if file.name == STDIN:
            spool(stdin, path, name=file.name, most=most, lines=lines)
        elif not isinstance(file.path, CollectionReader):
            with file.path.open("rb") as stream:
                spool(stream, path, name=file.name, most=most, lines=lines)
        return Source.of(replace(file, path=path), limit=left)

    return first_inputs(enumerate(found), source_of, limit=limit)


def open_again(files: Iterable[FoundFile], *, limit: int | None) -> list[Source]:
    """Return the sources of files, among which sources that were spooled stay as they are, up to a limit of rows."""

    def source_of(file: FoundFile, limit: int | None) -> Source:
        if not isinstance(file, Source):
            return Source.of(file, limit=limit)
        return file if limit is None else file.first(limit)

    return first_inputs(files, source_of, limit=limit)


def first_inputs(
    files: Iterable[_File], source_of: Callable[[_File, int | None], Source], *, limit: int | None
) -> list[Source]:
    """Return the sources of files up to a limit of rows; the files after it are not even opened.

    Args:
        files: In the order in which they are read.
        source_of: Returns the source of a file with that number of its first rows, or with all of them.
        limit: The most rows of all sources together, or None.
    """
    sources: list[Source] = []
    for file in files:
        source = source_of(file, limit)
        sources.append(source)
        if limit is not None:
            if source.total is None:  # it breaks off, and the load ends there
                break
            limit -= source.total
            if limit == 0:
                break
    return sources


def check_first_inputs(sources: Sequence[Source], options: LoadOptions, *, model: str) -> str | None:
    """Check the first rows of sources against the options and the model's name; see `check_first_rows`."""
    return check_first_rows(options.rows(sources), recipe=options.recipe(model, identity=""))


def check_read_inputs(sources: Sequence[Source], *, task_id: str, context: RunContext) -> None:
    """Check that the files are still the ones that were read; warn of a change that may have cost no row.

    Raises:
        UpsertCliError: A file became shorter.
    """
    for source in sources:
        if (change := source.change()) is None:
            continue
        if source.is_shorter():
            raise UpsertCliError(
                message=f"{source.name} became shorter while it was being read ({change}), so rows may be missing; "
                f"once it is whole, load it with `upsert-cli restart {task_id} --from-start`"
            )
        context.warning(f"{source.name} changed while it was being read ({change}); load it again")
