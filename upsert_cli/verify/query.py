"""Finds the records of a collection that are nearest to a vector, or to a text that the collection's model embeds.

A query writes nothing and takes no lease, so a load can begin while it runs.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import embeds
from upsert_cli.embedding.embedder import check_vectors, load_model
from upsert_cli.errors import Refusal, TargetDamaged, UpsertCliError, UsageFault
from upsert_cli.store.base import Record
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.subject import Subject

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

TRIES = 3  # while a load runs, since it may be writing the index files at that moment


def nearest(
    subject: Subject, asked: str | array[float], *, rows: int, where: dict[str, Any] | None, context: RunContext
) -> tuple[int, Sequence[Record]]:
    """Return the number of records in a collection, and the records nearest to a text or a vector, nearest first.

    Args:
        subject: The collection.
        asked: The text or the vector to query for.
        rows: The number of records to find.
        where: Chroma's filter on the metadata, such as `{"year": {"$gte": 2024}}`.
        context: Checked in the waits.

    Raises:
        UsageFault: The text is blank, the vector has another dimension, or Chroma does not understand the filter.
        Refusal: A text was given, and no model is known whose vectors fit the collection.
        UpsertCliError: The collection is empty.
        TargetInUse: A load is writing the index files.
    """
    _check_asked(subject, asked)
    vector = cache(lambda: _embed(subject, asked, context) if isinstance(asked, str) else _as_row(asked))
    location = subject.location()

    def ask() -> tuple[int, Sequence[Record]]:
        # If reading would flush the index, no other process may write at the same time.
        beside_others = not location.reading_flushes()
        reader = replace(subject.target, beside_others=beside_others, reads_only=True, examined=False)
        with StoreProcess(reader, context=context) as store:
            row = vector()  # while the process opens the collection
            if not (records := store.opened().count):
                raise UpsertCliError(
                    message=f"the collection {reader.collection} in {reader.path} holds no record; `upsert-cli run` "
                    f"loads into it"
                )
            return records, store.query(row, rows=rows, where=where)

    for tries_left in reversed(range(TRIES)):
        try:
            return ask()
        except TargetDamaged as error:
            if location.holder() is None:
                raise
            holder = location.await_orphan(context.check)
            if holder is not None and tries_left == 0:
                raise location.in_use(holder) from error
    return ask()  # the process that had the files is gone


def _check_asked(subject: Subject, asked: str | array[float]) -> None:
    """Check that a text has words, and that a vector has the dimension of the collection."""
    target = subject.target
    if isinstance(asked, str):
        if not asked.strip():
            raise UsageFault(message="the text to query for is blank; give some words, in quotes")
    elif target.model.dimension not in (0, len(asked)):
        raise UsageFault(
            message=f"--vector has {len(asked)} numbers, and the vectors of the collection {target.collection} in "
            f"{target.path} have {target.model.dimension}"
        )


def _as_row(vector: array[float]) -> Vectors:
    """Return a vector as float32, `(1, dimension)`."""
    import numpy as np

    return np.asarray(vector, dtype=np.float32).reshape(1, -1)


def _embed(subject: Subject, text: str, context: RunContext) -> Vectors:
    """Embed a text with the model that made the vectors of the collection.

    Raises:
        Refusal: No model is known, or the known one gives vectors of another dimension.
    """
    target = subject.target
    if not target.model.name:
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} does not say which model made its vectors; "
            f"name it by --model NAME, or give a vector by --vector FILE"
        )
    if subject.named is None and not embeds(target.model.name):
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} holds the vectors that its items brought, "
            f"and nothing says which model made them; `query --vector FILE` takes a vector of "
            f"{target.model.dimension} numbers, --model NAME embeds the text with a model that made them"
        )
    model = subject.model(context=context)
    if target.model.dimension not in (0, model.dimension):
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} holds vectors of {target.model.dimension} "
            f"numbers, and {model.name} gives {model.dimension}; query it by the program that filled it, or name "
            f"another --collection"
        )
    max_tokens = target.model.max_tokens or model.max_tokens
    embedder = load_model(replace(model, max_tokens=max_tokens))
    tokens = embedder.count_query(text)
    if tokens > max_tokens:
        context.warning(f"the text has more than the {max_tokens} tokens that the model reads; the rest is ignored")
    return check_vectors(embedder.embed_query(text), texts=1, dimension=embedder.dimension)
