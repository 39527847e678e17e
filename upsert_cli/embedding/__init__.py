"""Turns text into vectors, and finds the model that does it; `load` is the way to an `Embedder`.

A new library takes a module with an implementation, a line in `load` and an extra in setup.cfg.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from upsert_cli.errors import UsageFault

if TYPE_CHECKING:
    from upsert_cli.embedding.catalog import GivenFolder
    from upsert_cli.embedding.embedder import Device, Embedder, Precision
    from upsert_cli.embedding.identity import Model, OwnVectors


def load(
    model: Model | OwnVectors, *, device: Device = "cpu", precision: Precision = "fp32", threads: int | None = None
) -> Embedder:
    """Load a model, which takes about a second of CPU.

    Args:
        model: A model whose files are here.
        device: Where it computes.
        precision: Of the network's products; the vectors of both precisions are comparable.
        threads: Calls of `embed` at the same time; None: one per processor. Only bf16 needs to know.

    Raises:
        Refusal: This machine does not compute in bf16.
        UpsertCliError: The files cannot be loaded, the device cannot be used, or memory or open files run out.
    """
    from upsert_cli.embedding.embedder import usable_processors
    from upsert_cli.embedding.fastembed import FastEmbedder
    from upsert_cli.embedding.identity import Model
    from upsert_cli.embedding.openvino import OpenVinoSession, require_bf16

    if not isinstance(model, Model):
        raise TypeError("an item without a vector reached the embedder, although no model is used")
    if precision == "fp32":
        return FastEmbedder(model, device=device)
    require_bf16()
    return FastEmbedder(model, device=device, compiled=partial(OpenVinoSession, threads=threads or usable_processors()))


def require_precision(precision: Precision, model: str, *, given: GivenFolder | None = None, here: bool = True) -> None:
    """Check that a model can be computed in a precision, before anything is read or written.

    Args:
        precision: The one that is asked for.
        model: The name of a model.
        given: The folder that the user names for it.
        here: Whether this machine computes it.

    Raises:
        UsageFault: The model has no network, or is unknown.
        Refusal: This machine does not compute in bf16.
    """
    if precision == "fp32":
        return
    from upsert_cli.embedding.catalog import embeds
    from upsert_cli.embedding.models import find_entry
    from upsert_cli.embedding.openvino import require_bf16

    if not embeds(model):
        raise UsageFault(message="--precision bf16 goes with a model, and --model none embeds nothing")
    if find_entry(model, given=given).is_static:
        raise UsageFault(
            message=f"--precision bf16 is for models with a network, and {model} is a table of vectors; use "
            "--precision fp32"
        )
    if here:
        require_bf16()
