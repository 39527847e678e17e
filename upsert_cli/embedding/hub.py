"""Fetching a model from the model hub, which is given up within seconds if it cannot be reached."""

from __future__ import annotations

import os
import queue
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from upsert_cli.context import RunContext
from upsert_cli.embedding.cache import downloading, missing_files, publish, staging
from upsert_cli.embedding.catalog import ModelEntry
from upsert_cli.errors import ModelUnavailable

HUB = "https://huggingface.co"
REACH_SECONDS = 3.0  # left alone, fastembed retries an unreachable hub for 40 seconds
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
TRUE_WORDS = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches


def fetch(entry: ModelEntry, target: Path, *, context: RunContext) -> None:
    """Download a model and put a link to it at `target` in the cache.

    Raises:
        ModelUnavailable: The hub is switched off, cannot be reached, or does not have all files.
        OSError: The cache cannot be written.
    """
    from upsert_cli.embedding.fastembed import download

    check_hub()
    context.info(f"fetching {entry.name} from the model hub")
    with downloading() as folder:
        snapshot = download(entry, folder)
    if missing := missing_files(snapshot, entry.files):
        raise ModelUnavailable(reason=f"{entry.repository} lacks {', '.join(missing)}")
    with staging() as folder:
        link = folder / "model"
        # Relative, so that the cache can be copied; resolved, since a link is followed from where it really is.
        link.symlink_to(os.path.relpath(snapshot.resolve(), target.parent.resolve()))
        publish(link, target, files=entry.files)


def check_hub() -> None:
    """Check that the model hub may be asked and answers.

    Raises:
        ModelUnavailable: It is switched off, or accepts no connection.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE_WORDS:
        raise ModelUnavailable(reason="not asked, because HF_HUB_OFFLINE is set")
    check_reachable(os.environ.get("HF_ENDPOINT") or HUB)


def check_reachable(url: str) -> None:
    """Check that the host of a URL, or the proxy in front of it, accepts a connection.

    Raises:
        ModelUnavailable: It did not within `REACH_SECONDS`, resolving its name included.
    """
    host, port = _first_hop(url)
    outcome: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
        except OSError as error:
            outcome.put(error)
        else:
            outcome.put(None)

    # A socket's timeout covers neither resolving the name nor the sum over several addresses, hence a thread. As a
    # daemon it does not keep the process alive while it hangs.
    threading.Thread(target=connect, name="reach", daemon=True).start()
    try:
        error = outcome.get(timeout=REACH_SECONDS)
    except queue.Empty:
        raise ModelUnavailable(reason=f"{host}:{port} did not answer within {REACH_SECONDS:g} seconds") from None
    if error is not None:
        raise ModelUnavailable(reason=f"{host}:{port} cannot be reached ({error.strerror or error})") from error


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
        # Without the URL, since that of a proxy may hold a password.
        raise ModelUnavailable(reason=f"the address in {setting} is not a URL")
    return host, port
