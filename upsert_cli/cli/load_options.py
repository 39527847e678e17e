"""The options of a load."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.completions import files
from upsert_cli.cli.options import Decorator, NewTaskId, all_of, json_option, option
from upsert_cli.cli.param_types import Number, RayAddress, Scope, Share
from upsert_cli.cli.target_options import chroma_option, model_choices
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE
from upsert_cli.retry import RETRY_FOR

MAX_BATCH = 5_000  # rows; Chroma's own limit is a little above, and nothing is gained beyond 1,024
MAX_THREADS = 256
MAX_WORKERS = 10_000
MAX_GPUS = 1_024.0
MAX_TOKEN_BUDGET = 1 << 20
MAX_WRITERS = 10  # Chroma Cloud takes so many writes to one collection at the same time
MAX_RETRY_FOR = 7 * 86_400  # seconds; a week
MIN_CHUNK_TOKENS = 8  # tokens; models put two or more around each text, and a character may have several


def engine_options() -> list[Decorator]:
    """Returns the options that say which processes load."""
    return [
        option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            help="Who loads: this process, or the workers of a Ray cluster, into a Chroma server.",
        ),
        option(
            "--ray-address",
            type=RayAddress(),
            default="auto",
            metavar="auto|local|HOST:PORT",
            help="With --engine ray: the cluster that this machine is part of, one for this load, or its head.",
        ),
        option(
            "--workers",
            type=click.IntRange(1, MAX_WORKERS),
            metavar="N",
            show_default="one a machine",
            help="With --engine ray: processes that load at the same time.",
        ),
        option(
            "--num-gpus-per-worker",
            type=Number(0, MAX_GPUS),
            default=0.0,
            metavar="X",
            help="With --engine ray: GPUs for each of them; see --device.",
        ),
    ]


def load_options(collection: str) -> Decorator:
    """Adds what defines a load: its sources, its target, its model, and how carefully it is done."""
    options: list[Decorator] = [
        click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=files),
        option(
            "--task-id",
            type=NewTaskId(),
            metavar="ID",
            help="Make sure that the task of this id is done: make it, go on with it, or do nothing.",
        ),
        chroma_option(),
        option("--collection", default=collection, metavar="NAME", help="The collection to load into."),
        *model_choices(),
        option(
            "--batch-size",
            type=click.IntRange(1, MAX_BATCH),
            metavar="N",
            show_default="by measured speed",
            help="Items in one write.",
        ),
        option(
            "--threads",
            type=click.IntRange(1, MAX_THREADS),
            metavar="N",
            show_default="one a processor",
            help="Threads that embed.",
        ),
        option(
            "--token-budget",
            type=click.IntRange(1, MAX_TOKEN_BUDGET),
            show_default="the fastest for the device",
            help="Tokens, padding included, that are embedded in one call.",
        ),
        option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help=_DEVICE_HELP),
        *split_options(),
        option(
            "--writers",
            type=click.IntRange(1, MAX_WRITERS),
            default=1,
            metavar="N",
            help="Writes at the same time; of more than one only a server gains. With --engine ray see --workers.",
        ),
        option(
            "--retry-for",
            type=Number(0, MAX_RETRY_FOR),
            default=RETRY_FOR,
            metavar="SECS",
            help="How long what fails on a server is tried again.",
        ),
        *engine_options(),
        option("--force", is_flag=True, help="Embed and write items again that have not changed."),
        option(
            "--max-failures",
            type=Share(),
            show_default="no limit",
            help=MAX_FAILURES_HELP,
        ),
        option("--scope", type=Scope(), metavar="NAME", help=_SCOPE_HELP),
        option("--delete-missing", is_flag=True, help=_DELETE_HELP),
        option("--max-delete", type=Share(), show_default=DEFAULT_MAX_DELETE, help=MAX_DELETE_HELP),
        option("--verify", is_flag=True, help="Read everything back once it is loaded; see `upsert-cli verify`."),
        option("--dry-run", is_flag=True, help="Read, check and compare everything, but write nothing."),
        option("--no-compare", is_flag=True, help="With --dry-run: without looking at the collection or the model."),
        option("--enqueue", is_flag=True, help="Leave the task to `upsert-cli work`, and print its id."),
        option("--strict", is_flag=True, help="Exit with 1 instead of 3 if an item was rejected."),
        option(
            "--if-running",
            type=click.Choice(["refuse", "wait", "skip"]),
            default="refuse",
            help="What to do when another process runs the task, or loads into the same folder.",
        ),
        option(
            "--wait-timeout",
            type=Number(0),
            metavar="SECS",
            show_default="no limit",
            help="With --if-running wait: refuse after so many seconds.",
        ),
        metrics_option(),
        json_option("Print one JSON object a line, the last one a summary."),
    ]
    return all_of(options)


def metrics_option() -> Decorator:
    """Returns the option for the metrics of a load."""
    return option(
        "--metrics-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="PATH",
        help="Tell Prometheus, by node_exporter's textfile collector, how the load ended.",
    )


def split_options() -> list[Decorator]:
    """Returns the options for texts that are longer than what the model reads."""
    return [
        option("--split", is_flag=True, help="Store each item as chunks that the model reads whole: ID#0, ID#1, ..."),
        option(
            "--max-tokens",
            type=click.IntRange(MIN_CHUNK_TOKENS, MAX_TOKEN_BUDGET),
            metavar="N",
            show_default="what the model reads",
            help="With --split: tokens of a chunk, at most.",
        ),
        option(
            "--overlap",
            type=click.IntRange(0, MAX_TOKEN_BUDGET),
            default=0,
            metavar="N",
            help="With --split: tokens that a chunk repeats of the one before, at most.",
        ),
        option("--average", is_flag=True, help="With --split: store the mean of an item's chunks too, as ID#average."),
    ]


MAX_FAILURES_HELP = "End as failed once more items than this, or than this share, are rejected."
_SCOPE_HELP = (
    "Which loads the records belong to, kept in each as `upsert_scope`; by default none, or with --delete-missing one "
    "made of the sources' names."
)
_DELETE_HELP = (
    "Delete the records of the scope that the sources no longer hold, once all rows are loaded and none was rejected."
)
MAX_DELETE_HELP = "With --delete-missing: refuse the load, before it writes, if more of the scope's records would go."
_DEVICE_HELP = "Where texts are embedded; cuda needs onnxruntime-gpu in place of onnxruntime."
