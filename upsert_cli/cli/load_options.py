"""The options of a load, in groups; `restart` and `work` take some of them."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.completion import files
from upsert_cli.cli.options import HOW_TO_REPEAT, Decorator, all_of, json_option, option
from upsert_cli.cli.param_types import NewTaskId, Number, RayAddress, Scope, Share
from upsert_cli.cli.target_options import MODEL_OPTIONS, chroma_option
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.formats import SUFFIXES

MAX_BATCH = 5_000  # rows; Chroma's own limit is slightly higher, and batches above 1,024 gain nothing
MAX_THREADS = 256
MAX_LIMIT = 10**15  # rows; no file has as many, and all counters of rows hold it
MAX_WORKERS = 10_000
MAX_GPUS = 1_024.0
MAX_TOKEN_BUDGET = 1 << 20
MAX_WRITERS = 10  # Chroma Cloud allows 10 concurrent writes to a collection
MAX_RETRY_FOR = 7 * 86_400  # seconds; a week
MIN_CHUNK_TOKENS = 8  # tokens; models put two or more around each text, and a character may have several

METRICS_OPTION = option(
    "--metrics-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write the outcome of the load for Prometheus (the textfile collector of node_exporter).",
)

EVENTS_OPTION = json_option("Print one JSON object per line, the last one a summary.")

_EMBEDDING_OPTIONS = (
    option(
        "--batch-size",
        type=click.IntRange(1, MAX_BATCH),
        metavar="N",
        show_default="by measured speed",
        help="Items per write.",
    ),
    option(
        "--threads",
        type=click.IntRange(1, MAX_THREADS),
        metavar="N",
        show_default="one per processor",
        help="Threads that embed.",
    ),
    option(
        "--token-budget",
        type=click.IntRange(1, MAX_TOKEN_BUDGET),
        show_default="the fastest for the device",
        help="Tokens, padding included, that are embedded in one call.",
    ),
    option(
        "--device",
        type=click.Choice(["cpu", "cuda"]),
        default="cpu",
        help="Where texts are embedded; cuda needs onnxruntime-gpu in place of onnxruntime.",
    ),
)

_LONG_TEXT_OPTIONS = (
    option("--split", is_flag=True, help="Store each item as chunks that fit into the model: ID#0, ID#1, ..."),
    option(
        "--max-tokens",
        type=click.IntRange(MIN_CHUNK_TOKENS, MAX_TOKEN_BUDGET),
        metavar="N",
        show_default="the model's limit",
        help="With --split: the most tokens of a chunk.",
    ),
    option(
        "--overlap",
        type=click.IntRange(0, MAX_TOKEN_BUDGET),
        default=0,
        metavar="N",
        help="With --split: the most tokens that a chunk repeats of the previous one.",
    ),
    option("--average", is_flag=True, help="With --split: also store the mean of an item's chunks, as ID#average."),
)

_SERVER_OPTIONS = (
    option(
        "--writers",
        type=click.IntRange(1, MAX_WRITERS),
        default=1,
        metavar="N",
        help="Concurrent writes; more than one only helps with a server. With --engine ray see --workers.",
    ),
    option(
        "--retry-for",
        type=Number(0, MAX_RETRY_FOR),
        default=RETRY_FOR,
        metavar="SECS",
        help="How long to keep retrying failed server requests.",
    ),
)

_RAY_OPTIONS = (
    option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        help="Load in this process, or in the workers of a Ray cluster, which need a Chroma server.",
    ),
    option(
        "--ray-address",
        type=RayAddress(),
        default="auto",
        metavar="auto|local|HOST:PORT",
        help="With --engine ray: the cluster of this machine, a new one for this load, or a cluster by its head.",
    ),
    option(
        "--workers",
        type=click.IntRange(1, MAX_WORKERS),
        metavar="N",
        show_default="one per machine",
        help="With --engine ray: processes that load concurrently.",
    ),
    option(
        "--num-gpus-per-worker",
        type=Number(0, MAX_GPUS),
        default=0.0,
        metavar="X",
        help="With --engine ray: GPUs per worker; see --device.",
    ),
)


def limit_options(default_failures: str, default_deletions: str) -> tuple[Decorator, Decorator]:
    """Return the options for the limits of a load, given their defaults in words."""
    return (
        option(
            "--max-failures",
            type=Share(),
            show_default=default_failures,
            help="Fail once more items than this number or share are rejected.",
        ),
        option(
            "--max-delete",
            type=Share(),
            show_default=default_deletions,
            help="With --delete-missing: refuse the load, before it writes, if more of the scope's records would go.",
        ),
    )


_MAX_FAILURES, _MAX_DELETE = limit_options("no limit", DEFAULT_MAX_DELETE)

_CHANGE_OPTIONS = (
    option("--force", is_flag=True, help="Embed and write unchanged items again."),
    _MAX_FAILURES,
    option(
        "--scope",
        type=Scope(),
        metavar="NAME",
        help="A name for the records of these sources, stored in each as `upsert_scope`; with --delete-missing the "
        "default is made of the sources' names.",
    ),
    option(
        "--delete-missing",
        is_flag=True,
        help="Delete the records of the scope that are missing from the sources, after all rows are loaded and if none "
        "was rejected.",
    ),
    _MAX_DELETE,
)

_TASK_OPTIONS = (
    option("--verify", is_flag=True, help="Read everything back after the load; see `upsert-cli verify`."),
    option("--dry-run", is_flag=True, help="Read, check and compare everything, but write nothing."),
    option("--no-compare", is_flag=True, help="With --dry-run: use neither the collection nor the model."),
    option("--enqueue", is_flag=True, help="Leave the task to `upsert-cli work`, and print its id."),
    option("--strict", is_flag=True, help="Exit with 1 instead of 3 if an item was rejected."),
    option(
        "--if-running",
        type=click.Choice(["refuse", "wait", "skip"]),
        default="refuse",
        help="What to do if another process runs the task, or loads into the same folder.",
    ),
    option(
        "--wait-timeout",
        type=Number(0),
        metavar="SECS",
        show_default="no limit",
        help="With --if-running wait: refuse after this many seconds.",
    ),
)

_MAPPING_OPTIONS = (
    option(
        "--format",
        type=click.Choice(list(SUFFIXES)),
        show_default="by the suffix",
        help="The format of all sources, whatever their names; also for standard input.",
    ),
    option("--id-field", metavar="PATH", help="The field with the id of a row that is not in item form."),
    option(
        "--id-from",
        type=click.Choice(["row", "hash"]),
        help="Make ids for rows that have none: FILENAME:ROW, or a hash of the row's content.",
    ),
    option(
        "--text-field",
        multiple=True,
        metavar="PATH,...",
        show_default="text",
        help=f"The field of the payload with the text, dotted; several are joined by newlines. {HOW_TO_REPEAT}",
    ),
    option(
        "--template",
        metavar="TEXT",
        help=r"Make the text from several fields, such as 'title: {title}\n{body.plain}'; {{ and }} are braces.",
    ),
    option(
        "--metadata-fields",
        multiple=True,
        metavar="PATH,...",
        show_default="the whole payload",
        help=f"The fields of the payload that become metadata, dotted. {HOW_TO_REPEAT}",
    ),
    option(
        "--vector-field",
        metavar="PATH",
        show_default="vector, if it is a list",
        help="The field with an item's own vector, dotted; such an item is not embedded.",
    ),
    option("--keep-lists", is_flag=True, default=None, help="Store lists of one scalar kind as lists, not JSON text."),
    option(
        "--refs-root",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="Read the text of an item without one from the file below DIR that its item_info names.",
    ),
    option(
        "--map",
        "map_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="TOML file with any of these under the same names; options beat it.",
    ),
)


def load_options(collection: str) -> Decorator:
    """Return a decorator for the sources and options of a load, given the default collection."""
    return all_of(
        [
            click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=files),
            option(
                "--task-id",
                type=NewTaskId(),
                metavar="ID",
                help="Make sure that the task with this id is done: create it, continue it, or do nothing.",
            ),
            chroma_option(),
            option("--collection", default=collection, metavar="NAME", help="The collection to load into."),
            option(
                "--limit",
                type=click.IntRange(1, MAX_LIMIT),
                metavar="N",
                show_default="no limit",
                help="Read only the first N rows of the sources.",
            ),
            *MODEL_OPTIONS,
            *_EMBEDDING_OPTIONS,
            *_LONG_TEXT_OPTIONS,
            *_SERVER_OPTIONS,
            *_RAY_OPTIONS,
            *_CHANGE_OPTIONS,
            *_TASK_OPTIONS,
            METRICS_OPTION,
            EVENTS_OPTION,
            *_MAPPING_OPTIONS,
        ]
    )
