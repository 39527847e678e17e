"""The names that a user gives become the sources of a load: found, spooled, fingerprinted, and cut at `--limit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.errors import UsageFault
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.spool import spool
from upsert_cli.pipeline.preflight import check_first_rows
from upsert_cli.sources.addresses import is_address, source_name
from upsert_cli.sources.find import find_files
from upsert_cli.sources.formats import STDIN, is_collection, is_read_from_its_end
from upsert_cli.sources.readers import reader_of
from upsert_cli.sources.source import CollectionReader, FoundFile, Source
from upsert_cli.sources.text_format import TextFile
from upsert_cli.store.collection_source import StoredCollection, collection_named

FIRST_CONTACT = 60.0  # seconds for which requests to a source are retried at most, before there is a task


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
        names: The names as the user types them.
        options: The options of the load.
        chroma: The target of the load; None for a preview.
        with_vectors: Whether to read the vectors that `--keep-vectors` keeps; checks of the first rows need none.
        report: Called with messages, such as the number of skipped files.
    """
    # An address may be misspelled, and nothing shows yet that the load waits for an answer.
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
    """Return a function from the name of a collection to its reader for a load into `chroma`."""
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
        UsageFault: A source is the target.
    """
    for file in found:
        if isinstance(file.path, StoredCollection) and file.path.is_same_as(chroma, collection):
            raise UsageFault(
                message=f"{file.name} is the collection to load into; load into another --collection, and give it the "
                f"old name once it is complete"
            )


def notes_on_chunks(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a message for each collection that holds chunks, which a load joins where their text is certain."""
    for source in sources:
        if isinstance(source.path, StoredCollection) and source.path.has_chunks():
            yield (
                f"{source.name} holds chunks of --split; those of an item are joined to its text, except where they "
                f"overlap or one is missing: they are loaded as they are, under ids such as ID#0"
            )


def spooled(
    found: Iterable[FoundFile],
    folder: Callable[[], Path],
    *,
    stdin: BinaryIO,
    limit: int | None,
    most: int | None = None,
) -> Iterator[FoundFile]:
    """Yield files, with a copy in place of each stream.

    Args:
        found: The files in the order in which they are read.
        folder: Returns the folder for the copies; called only if there is a stream.
        stdin: Copied if a file is `-`.
        limit: The number of rows to copy, if the format shows where they end; None for all rows.
        most: The number of bytes to copy, unless the format is read from its end; None for all bytes.
    """
    for number, file in enumerate(found):
        if file.spooled:
            path = folder() / f"{number}.{file.format}"
            _spool(file, path, stdin=stdin, limit=limit, most=most)
            yield replace(file, path=path)
        else:
            yield file


def _spool(file: FoundFile, path: Path, *, stdin: BinaryIO, limit: int | None, most: int | None) -> None:
    """Copy a stream to a path; see `spooled` about the other arguments."""
    text = reader_of(path, file.format)
    # The whole limit, since the files before may have fewer rows when the task starts over.
    end_in = partial(text.end_of_rows, rows=limit) if limit and isinstance(text, TextFile) else None
    if is_read_from_its_end(file.format):
        most = None
    if file.name == STDIN:
        spool(stdin, path, name=file.name, most=most, end_in=end_in)
    elif not isinstance(file.path, CollectionReader):
        with file.path.open("rb") as stream:
            spool(stream, path, name=file.name, most=most, end_in=end_in)


def open_inputs(files: Iterable[FoundFile], *, limit: int | None) -> list[Source]:
    """Return the sources of files, each with its fingerprint, up to a limit of rows in all of them together.

    Files after the limit are not opened. A file that is a source already is only cut.
    """
    sources: list[Source] = []
    for file in files:
        if not isinstance(file, Source):
            source = Source.of(file, limit=limit)
        else:
            source = file if limit is None else file.first(limit)
        sources.append(source)
        if limit is not None:
            if source.total is None:  # the source breaks off, so the load ends there
                break
            limit -= source.total
            if limit == 0:
                break
    return sources


def fields_of(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the fields of a task that describe its sources."""
    totals = [source.total for source in sources if source.total is not None]
    return {
        "inputs": tuple(source.as_json() for source in sources),
        "total": sum(totals) if len(totals) == len(sources) else None,
    }


def absolute_name(name: str) -> str:
    """Return the name of a source as a task keeps it, which does not depend on the working folder."""
    if is_collection(name):
        return str(collection_named(name))
    if is_address(name):
        return source_name(name)
    return name if name == STDIN else str(Path(name).absolute())


def check_first_inputs(sources: Sequence[Source], options: LoadOptions, *, model: str) -> str | None:
    """Check the first rows of sources against the options and the model's name; see `check_first_rows`."""
    return check_first_rows(options.rows(sources), recipe=options.recipe(model, identity=""))
