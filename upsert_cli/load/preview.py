"""A preview: the first records of a load, made in the same way; nothing is compared, embedded or stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from upsert_cli.context import RunContext
from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import HASH_KEY, as_stored
from upsert_cli.errors import SourceUnreadable
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.load.inputs import check_first_inputs, find_inputs, open_inputs, spooled
from upsert_cli.load.vectors import (
    is_known,
    lacks_tokenizer,
    origin_without_weights,
    recipe_of,
    require_computable,
    token_counter,
    with_usual_prefixes,
)
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.pipeline.preflight import PROBED_ROWS
from upsert_cli.sources.item import MAX_ROW, Reject

STREAM_BYTES = 64 << 20  # bytes to read of a stream, or more if the rows may be larger

_Outcomes: TypeAlias = dict[tuple[int, int], dict[str, Document | Reject]]
"""The outcome of each row, by the index of its source and its number: the documents by their ids, or one reject."""


class Preview(NamedTuple):
    """The outcomes of the first rows."""

    entries: Sequence[dict[str, Any]]
    """Records, duplicates and rejects as plain data, in the order of their rows; an item may have several records."""

    notes: Sequence[str]
    """Messages for the user, such as why there are no tokens."""

    broken: SourceUnreadable | None
    """The error that a load would end with after these rows, if any."""


def preview(
    names: Sequence[str], options: LoadOptions, *, model_name: str, rows: int, stdin: BinaryIO, context: RunContext
) -> Preview:
    """Return the records of the first rows of some sources, without a journal, a collection or a model's weights.

    Args:
        names: Files, folders, globs, pipes, addresses; `-` is standard input.
        options: The options of the load.
        model_name: The model that would embed the records.
        rows: The number of rows to show.
        stdin: Read if a name is `-`.
        context: Reports files that are skipped in folders.

    Raises:
        UsageFault: A source does not exist, or its first rows do not fit the options.
        UpsertCliError: Texts are to be split, and the model's tokenizer is not on this machine.
    """
    require_computable(model_name, options)
    options = with_usual_prefixes(options, model_name)
    found = find_inputs(names, options, chroma=None, with_vectors=True, report=context.info)
    with ExitStack() as stack:

        def folder() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upsert-cli-preview-")))

        # At least as many rows as are checked before a load; the first of them are shown.
        limit, most = max(rows, PROBED_ROWS), max(STREAM_BYTES, (rows + 1) * MAX_ROW)
        probed = open_inputs(spooled(found, folder, stdin=stdin, limit=limit, most=most), limit=limit)
        if (note := check_first_inputs(probed, options, model=model_name)) is not None:
            context.info(note)
        sources = open_inputs(probed, limit=rows)
        origin = origin_without_weights(model_name, options, sources)
        batches = read_batches(options.rows(sources), recipe=recipe_of(options, origin))
        outcomes, broken = _outcomes(batches, [source.name for source in sources], context)
    has_hash = is_known(origin)
    notes = [_lacks(model_name, has_hash=has_hash)] if lacks_tokenizer(origin) else []
    record_of = _recorder(token_counter(origin), limit=origin.max_tokens, has_hash=has_hash)
    return Preview([*_entries(outcomes, record_of)], notes, broken)


def _outcomes(
    batches: Iterator[Batch], sources: Sequence[str], context: RunContext
) -> tuple[_Outcomes, SourceUnreadable | None]:
    """Return the outcomes of all rows of some batches, and the error of a source that breaks off."""
    outcomes: _Outcomes = {}
    ignored = broken = None
    try:
        for batch in batches:
            ignored = batch.ignored if ignored is None else ignored + batch.ignored
            replaced = [document for items in batch.earlier.values() for item in items for document in item]
            for document in (*batch.documents, *replaced):
                place = sources.index(document.item.source), document.item.row
                outcomes.setdefault(place, {})[document.id] = document
            for reject in batch.rejects:
                outcomes[sources.index(reject.source), reject.row] = {"": reject}
    except SourceUnreadable as error:
        broken = error
    if ignored is not None and (warning := ignored.warning()) is not None:
        context.warning(warning)
    return outcomes, broken


def _entries(outcomes: _Outcomes, record_of: Callable[[Document], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the outcomes in the order of their rows; of the rows with one id, all but the last are duplicates."""
    last = {
        document.item.object_id: place
        for place in sorted(outcomes)
        for document in outcomes[place].values()
        if isinstance(document, Document)
    }
    for place in sorted(outcomes):
        for outcome in outcomes[place].values():
            if isinstance(outcome, Reject):
                yield {"type": "reject"} | outcome.as_json()
            elif last[outcome.item.object_id] == place:
                yield record_of(outcome)
            else:
                item = outcome.item
                yield {"type": "duplicate", "source": item.source, "row": item.row, "object_id": item.object_id}
                break  # one entry for a row, however many chunks its item has


def _recorder(
    count: Callable[[str], int] | None, *, limit: int, has_hash: bool
) -> Callable[[Document], dict[str, Any]]:
    """Return a function that makes a record of a document, as plain data in the form in which it would be stored.

    The record has no `upsert_hash` if the model's limit, which is part of the hash, is unknown. It has no tokens if
    there is no tokenizer, or if the text is not embedded. In a text that is far longer than the model reads, only the
    beginning is counted.
    """

    def record(document: Document) -> dict[str, Any]:
        tokens: int | None = None
        is_truncated: bool | None = False
        if document.vector is None and not document.is_average:
            tokens = None if count is None else count(document.text)
            is_truncated = None if tokens is None else tokens > limit
        metadata = as_stored(document.metadata)
        return {
            "type": "record",
            "source": document.item.source,
            "row": document.item.row,
            "id": document.id,
            "document": document.text,
            "metadata": {key: value for key, value in metadata.items() if has_hash or key != HASH_KEY},
            "vector": None if document.vector is None else list(document.vector),
            "tokens": tokens,
            "max_tokens": None if count is None else limit,
            "truncated": is_truncated,
            "converted": [{"field": key, "kind": kind} for key, kind in document.converted.items()],
        }

    return record


def _lacks(model_name: str, *, has_hash: bool) -> str:
    """Return the message that the records are shown without tokens, and perhaps without their hash."""
    without = "tokens" if has_hash else f"tokens and {HASH_KEY}"
    return (
        f"shown without {without}, since the tokenizer of {model_name} is not on this machine; `upsert-cli "
        f"models fetch --model {model_name}` fetches it"
    )
