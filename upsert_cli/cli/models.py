"""The commands about models: `models list`, `models fetch`, `models check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upsert_cli import embedding
from upsert_cli.cli.options import Invocation, common_options, json_option
from upsert_cli.cli.tables import Column, print_pairs, print_table
from upsert_cli.cli.target_options import model_options
from upsert_cli.context import Unattended
from upsert_cli.embedding.embedder import PROBE_TEXT
from upsert_cli.embedding.models import find_model, list_models
from upsert_cli.limits import require_resources
from upsert_cli.text import safe_json

_COLUMNS = (
    Column(title="NAME"),
    Column(title="DIMENSION", number=True),
    Column(title="MAX_TOKENS", number=True),
    Column(title="SIZE_GB", number=True),
    Column(title="CACHED"),
)


@click.group()
def models() -> None:
    """See, fetch and check embedding models."""


@models.command("list")
@json_option("Print an array of models.")
@common_options
def list_all(session: Invocation, *, json: bool) -> None:
    """List the dense text models that --model takes."""
    known = list_models()
    if json:
        click.echo(safe_json([model.as_json() for model in known]))
        return
    rows = [
        (
            model.name,
            str(model.dimension),
            str(model.max_tokens or ""),
            str(model.size_gb),
            "yes" if model.cached else "no",
        )
        for model in known
    ]
    print_table(session.terminal, _COLUMNS, rows)


@models.command()
@model_options()
@json_option("Print the model as one JSON object.")
@common_options
def fetch(session: Invocation, *, model: str, model_path: Path | None, offline: bool, json: bool) -> None:
    """Make a model available ahead of time, for an image build or an air-gapped machine.

    The files go into the user's cache folder, or where UPSERT_CLI_MODEL_CACHE points.
    """
    found = find_model(model, folder=model_path, offline=offline, context=Unattended(session.terminal.say))
    _show(found.as_json(), json=json)


@models.command()
@model_options()
@json_option("Print the model as one JSON object.")
@common_options
def check(session: Invocation, *, model: str, model_path: Path | None, offline: bool, json: bool) -> None:
    """Load a model, embed a text, and say its dimension, limit, source and path."""
    found = find_model(model, folder=model_path, offline=offline, context=Unattended(session.terminal.say))
    require_resources()
    vector = embedding.load(found).embed([PROBE_TEXT])[0]
    _show(found.as_json() | {PROBE_TEXT: [round(float(value), 6) for value in vector[:5]]}, json=json)


def _show(fields: dict[str, Any], *, json: bool) -> None:
    if json:
        click.echo(safe_json(fields))
    else:
        print_pairs(fields.items())
