"""The options of a load, in groups; `restart` and `work` take some of them."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.options.completions import files, task_ids
from upsert_cli.cli.options.option import Decorator, all_of, json_option, option, under
from upsert_cli.cli.options.param_types import chroma_filter, integer, new_task_id, number, ray_address, scope
from upsert_cli.cli.options.shared_options import (
    CHROMA_OPTION,
    EVENTS_OPTION,
    METRICS_OPTION,
    MODEL_OR_NONE_OPTIONS,
    PRECISION_OPTION,
    collection_option,
    limit_options,
)
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.formats import SUFFIXES

MAX_BATCH = 5_000  # rows; Chroma's own limit is slightly higher, and batches above 1,024 gain nothing
MAX_THREADS = 256
MAX_PREVIEW = 1_000  # rows, all of which are in memory
MAX_LIMIT = 10**15  # rows; no file has as many, and all counters of rows hold it
MAX_WORKERS = 10_000
MAX_GPUS = 1_024.0
MAX_TOKEN_BUDGET = 1 << 20
MAX_WRITERS = 10  # Chroma Cloud allows 10 concurrent writes to a collection
MAX_RETRY_FOR = 7 * 86_400  # seconds; a week
MIN_CHUNK_TOKENS = 8  # tokens; models put two or more around each text, and a character may have several

_MAPPING_OPTIONS = (
    option(
        "--format",
        type=click.Choice(list(SUFFIXES)),
        metavar="FORMAT",
        show_default="by the suffix",
        help="Format: jsonl, csv, tsv (or .gz, .zst), parquet.",
    ),
    option("--id-field", metavar="PATH", help="The id's field, in rows that are not items."),
    option("--id-from", type=click.Choice(["row", "hash"]), help="Make ids: FILENAME:ROW, or a hash of the row."),
    option(
        "--text-field",
        multiple=True,
        metavar="PATH,...",
        show_default="text",
        help="Fields with the text, dotted, joined by newlines; not repeated as metadata.",
    ),
    option("--template", metavar="TEXT", help=r"Text made of fields: 'title: {title}\n{body}'."),
    option(
        "--metadata-fields",
        multiple=True,
        metavar="PATH,...",
        show_default="all but the document's",
        help="Fields to store as metadata, dotted; may name the text's.",
    ),
    option("--vector-field", metavar="PATH", show_default="vector", help="The field with an item's own vector."),
    option("--keep-lists", is_flag=True, default=None, help="Store lists of one kind as lists, not JSON text."),
    option(
        "--map",
        "map_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read these options from a TOML file.",
    ),
)

_REFS_ROOT = option(
    "--refs-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Read the text of items without one from the files below DIR that they name.",
)

_PREFIX_OPTIONS = (
    option(
        "--passage-prefix",
        metavar="TEXT",
        show_default="by the model",
        help="Embed this before each document; not stored.",
    ),
    option("--query-prefix", metavar="TEXT", show_default="by the model", help="`query` embeds this before its text."),
)

_COLLECTION_OPTIONS = (
    option("--where", type=chroma_filter, metavar="JSON", help="Of a collection, read only the records of a filter."),
    option("--keep-vectors", is_flag=True, help="Of a collection, copy the vectors; no model is used."),
)

_EMBEDDING_OPTIONS = (
    PRECISION_OPTION,
    option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        help="Where to embed; cuda needs onnxruntime-gpu.",
    ),
    option(
        "--threads",
        type=integer(1, MAX_THREADS),
        metavar="N",
        show_default="one per processor",
        help="Threads that embed.",
    ),
    option(
        "--token-budget",
        type=integer(1, MAX_TOKEN_BUDGET),
        metavar="N",
        show_default="by device",
        help="Padded tokens per call.",
    ),
)

_LONG_TEXT_OPTIONS = (
    option("--split", is_flag=True, help="Store a long text as chunks: ID#0, ID#1."),
    option(
        "--max-tokens",
        type=integer(MIN_CHUNK_TOKENS, MAX_TOKEN_BUDGET),
        metavar="N",
        show_default="the model's limit",
        help="Tokens per chunk.",
    ),
    option(
        "--overlap", type=integer(0, MAX_TOKEN_BUDGET), default=0, metavar="N", help="Tokens shared by adjacent chunks."
    ),
    option("--average", is_flag=True, help="Also store an item's mean, as ID#average."),
)

_SERVER_OPTIONS = (
    option(
        "--batch-size",
        type=integer(1, MAX_BATCH),
        metavar="N",
        show_default="by measured speed",
        help="Items per write.",
    ),
    option("--writers", type=integer(1, MAX_WRITERS), default=1, metavar="N", help="Concurrent writes to a server."),
    option(
        "--retry-for",
        type=number(0, MAX_RETRY_FOR),
        default=RETRY_FOR,
        metavar="SECS",
        help="Retry failed requests this long.",
    ),
)

_RAY_OPTIONS = (
    option("--engine", type=click.Choice(["local", "ray"]), default="local", help="Load here, or on a Ray cluster."),
    option(
        "--ray-address",
        type=ray_address,
        default="auto",
        metavar="ADDRESS",
        help="The cluster: auto, local or HOST:PORT.",
    ),
    option(
        "--workers", type=integer(1, MAX_WORKERS), metavar="N", show_default="one per machine", help="Worker processes."
    ),
    option(
        "--num-gpus-per-worker",
        type=number(0, MAX_GPUS),
        default=0.0,
        metavar="X",
        help="GPUs per worker, for --device cuda.",
    ),
)

_TASK_OPTIONS = (
    option(
        "--task-id",
        type=new_task_id,
        metavar="ID",
        shell_complete=task_ids,
        help="Make sure that this task is done: create it, continue it, or do nothing.",
    ),
    option(
        "--if-running",
        type=click.Choice(["refuse", "wait", "skip"]),
        default="refuse",
        help="What to do if another process has the task or the folder.",
    ),
    option("--wait-timeout", type=number(0), metavar="SECS", help="With --if-running wait: give up after SECS."),
    option("--dry-run", is_flag=True, help="Read, check and compare all, but write nothing."),
    option("--no-compare", is_flag=True, help="With --dry-run: use no collection and no model."),
    option("--verify", is_flag=True, help="Read everything back after the load."),
    option("--force", is_flag=True, help="Embed and write unchanged items too."),
    option("--enqueue", is_flag=True, help="Leave the task to `upsert-cli work`."),
)


_MAX_FAILURES, _MAX_DELETE = limit_options("no limit", DEFAULT_MAX_DELETE)

_LIMIT_OPTIONS = (
    _MAX_FAILURES,
    option("--strict", is_flag=True, help="Exit with 1, not 3, if an item was rejected."),
    option(
        "--delete-missing",
        is_flag=True,
        help="After a load without rejects, delete the scope's records that the sources no longer have.",
    ),
    option(
        "--scope",
        type=scope,
        metavar="NAME",
        show_default="from the sources",
        help="Name these records as a set for --delete-missing.",
    ),
    _MAX_DELETE,
)


_SOURCES = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=files)


def preview_options() -> Decorator:
    """Return a decorator for the sources of a preview and the options that decide what its records are."""
    limit = option("--limit", type=integer(1, MAX_PREVIEW), default=3, metavar="N", help="Show the first N rows.")
    return all_of(
        [
            _SOURCES,
            *under("Input", limit, *_MAPPING_OPTIONS, _REFS_ROOT, *_COLLECTION_OPTIONS),
            *under("Model", *MODEL_OR_NONE_OPTIONS, *_PREFIX_OPTIONS),
            *under("Long texts", *_LONG_TEXT_OPTIONS),
            *under("Output", json_option("Print one JSON object per line.")),
        ]
    )


def load_options(collection: str) -> Decorator:
    """Return a decorator for the sources and options of a load, given the default collection."""
    limit = option("--limit", type=integer(1, MAX_LIMIT), metavar="N", help="Read only the first N rows.")
    return all_of(
        [
            _SOURCES,
            *under("Target", CHROMA_OPTION, collection_option("The collection to load into.", default=collection)),
            *under("Input", *_MAPPING_OPTIONS, limit, _REFS_ROOT, *_COLLECTION_OPTIONS),
            *under("Model", *MODEL_OR_NONE_OPTIONS, *_PREFIX_OPTIONS, *_EMBEDDING_OPTIONS),
            *under("Long texts", *_LONG_TEXT_OPTIONS),
            *under("Task", *_TASK_OPTIONS),
            *under("Limits", *_LIMIT_OPTIONS),
            *under("Writing and servers", *_SERVER_OPTIONS),
            *under("Ray", *_RAY_OPTIONS),
            *under("Output", EVENTS_OPTION, METRICS_OPTION),
        ]
    )
