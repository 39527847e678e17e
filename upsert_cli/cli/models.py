"""The commands `models list`, `models fetch` and `models check`."""

from __future__ import annotations

from typing import Any

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_pairs, print_table
from upsert_cli.cli.options.command import Group
from upsert_cli.cli.options.option import all_of, json_option
from upsert_cli.cli.options.shared_options import MODEL_OPTIONS, load_option, model_options
from upsert_cli.embedding.embedder import PROBE_TEXT, Precision, load_model, require_precision
from upsert_cli.embedding.models import find_model, list_models
from upsert_cli.embedding.openvino import bf16_fault
from upsert_cli.limits import require_resources

_COLUMNS = (
    Column("NAME"),
    Column("DIMENSION", number=True),
    Column("MAX_TOKENS", number=True),
    Column("SIZE_GB", number=True),
    Column("CACHED"),
    Column("PASSAGE_PREFIX", order=2, widths=(20, 14)),
    Column("QUERY_PREFIX", order=1, widths=(20, 12)),
)


@click.group(cls=Group)
def models() -> None:
    """List, fetch and check embedding models."""


@models.command("list")
@json_option("Print a JSON array.")
def list_all(session: Session, *, json: bool) -> None:
    """List the dense text models that --model takes."""
    known = list_models()
    if json:
        session.print_json([model.as_json() for model in known])
        return
    rows = [
        (
            model.name,
            str(model.dimension),
            str(model.max_tokens or ""),
            str(model.size_gb),
            "yes" if model.cached else "no",
            *model.prefixes,
        )
        for model in known
    ]
    print_table(session.terminal, _COLUMNS, rows)


@models.command()
@all_of(MODEL_OPTIONS)
@json_option("Print the model as JSON.")
def fetch(session: Session, *, model: str, json: bool, **files: Any) -> None:
    """Fetch a model ahead of time, for a machine without network.

    The files go into the user's cache folder, or where UPSERT_CLI_MODEL_CACHE points.
    """
    options = model_options(**files)
    found = find_model(model, given=options.given_model, offline=options.offline, context=session)
    _show(session, found.as_json(), json=json)


@models.command()
@all_of(MODEL_OPTIONS)
@load_option("precision")
@json_option("Print the model as JSON.")
def check(session: Session, *, model: str, precision: Precision, json: bool, **files: Any) -> None:
    """Load a model and show what it and this machine can do."""
    options = model_options(**files)
    require_precision(precision, model, given=options.given_model)
    found = find_model(model, given=options.given_model, offline=options.offline, context=session)
    require_resources()
    vector = load_model(found, precision=precision).embed([PROBE_TEXT])[0]
    shown = {"bf16": bf16_fault() or "available", PROBE_TEXT: [round(float(value), 6) for value in vector[:5]]}
    _show(session, found.as_json() | shown, json=json)


def _show(session: Session, fields: dict[str, Any], *, json: bool) -> None:
    if json:
        session.print_json(fields)
    else:
        print_pairs(fields.items())
