"""Whether the model hub may be asked and answers, which is found out within seconds."""

from __future__ import annotations

import os
import queue
import socket
import threading
from urllib.parse import urlsplit

from upsert_cli.errors import PlaceUnusable

HUB = "https://huggingface.co"
REACH_SECONDS = 3.0  # left alone, fastembed retries an unreachable hub for 40 seconds
PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
TRUE_WORDS = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches


def check_hub() -> None:
    """Makes sure that the model hub may and can be asked.

    Raises:
        PlaceUnusable: It is switched off, or takes no connection.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in TRUE_WORDS:
        raise PlaceUnusable(reason="not asked, since HF_HUB_OFFLINE is set")
    check_reachable(os.environ.get("HF_ENDPOINT") or HUB)


def check_reachable(url: str) -> None:
    """Makes sure that the host of a URL, or the proxy on the way there, takes a connection.

    Raises:
        PlaceUnusable: It did not within `REACH_SECONDS`, the look-up of its name included.
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

    # A socket's timeout covers neither the look-up of the name nor the sum over several addresses, hence a thread; it
    # must not keep the process alive while it hangs.
    threading.Thread(target=connect, name="reach", daemon=True).start()
    try:
        error = outcome.get(timeout=REACH_SECONDS)
    except queue.Empty:
        raise PlaceUnusable(reason=f"{host}:{port} did not answer within {REACH_SECONDS:g} seconds") from None
    if error is not None:
        raise PlaceUnusable(reason=f"{host}:{port} cannot be reached ({error.strerror or error})") from error


def _first_hop(url: str) -> tuple[str, int]:
    """Returns host and port of the first connection that a request for `url` makes."""
    from urllib.request import getproxies, proxy_bypass  # 20 ms, for what only a fetch needs

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
        raise PlaceUnusable(reason=f"the address in {setting} is no URL")
    return host, port
