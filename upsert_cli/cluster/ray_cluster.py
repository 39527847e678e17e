"""Membership in a Ray cluster: an existing one, or one for this load alone."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from upsert_cli.errors import UpsertCliError
from upsert_cli.redaction import error_line

STEP = 0.05  # seconds between two checks of the context while a cluster is joined
ANSWER_SECONDS = 5.0  # seconds for a connection to a cluster's head; Ray itself would try for ever
JOIN_SECONDS = 90.0  # seconds to join a cluster; Ray would ask a server that is no head of a cluster for ever
LEAVE_SECONDS = 4.0  # seconds that leaving a cluster may take; its workers are dead by then
TOKEN_BYTES = 32  # of the token of a cluster that is made for one load


@contextmanager
def cluster(address: str, *, wait: Callable[[], None]) -> Iterator[None]:
    """Join a cluster, or start one on this machine, and leave it at the end.

    Args:
        address: `auto`, `local`, or `HOST:PORT`.
        wait: Called while that takes time; may raise to give up.

    Raises:
        UpsertCliError: There is none, or it refuses the connection.
    """
    membership = _Membership(address)
    try:
        membership.enter(wait)
        yield
    finally:
        membership.leave()


class _Membership(threading.Thread):
    """The thread that joins and leaves the cluster.

    Ray's own processes end with the thread that started them, so this thread lives as long as they are needed. In the
    main thread, Ray would also replace our signal handlers.
    """

    def __init__(self, address: str) -> None:
        super().__init__(name="ray", daemon=True)
        self._address = address
        self._joined = threading.Event()
        self._leaving = threading.Event()
        self._error: BaseException | None = None

    def _connect(self) -> None:
        # Ray reads these when it is imported. It would report usage, and leave a token in the home folder.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if self._address == "local":
            os.environ["RAY_AUTH_MODE"] = "token"
            # One token for all clusters of this process, since Ray reads it once.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(TOKEN_BYTES))
        import ray
        import ray._private.worker as ray_worker

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        _await_head(self._address)
        # Ray would print the workers' output to standard output.
        ray_worker._worker_logs_enabled = False
        ray.init(
            address=self._address,
            include_dashboard=False if self._address == "local" else None,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.CRITICAL,
        )

    def run(self) -> None:
        """Join the cluster, then leave it when asked to."""
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001  # raised in the main thread
            self._error = error
        self._joined.set()
        self._leaving.wait()
        if self._error is None:
            import ray

            ray.shutdown()

    def enter(self, wait: Callable[[], None]) -> None:
        """Wait until the cluster is joined."""
        self.start()
        until = time.monotonic() + JOIN_SECONDS
        while not self._joined.wait(STEP):
            wait()
            if self._address != "local" and time.monotonic() >= until:
                reason = f"no valid answer of Ray within {JOIN_SECONDS:.0f} s"
                raise self._unreachable(reason)
        if self._error is not None:
            raise self._unreachable(error_line(self._error)) from self._error
        handler = signal.getsignal(signal.SIGTERM)
        if handler is not None and threading.current_thread() is threading.main_thread():
            # Ray's native code has put a handler before ours, which prints a stack trace.
            signal.signal(signal.SIGTERM, handler)

    def _unreachable(self, reason: str) -> UpsertCliError:
        return UpsertCliError(
            message=f"no Ray cluster at {self._address}: {reason}; `ray start --head` starts one on this machine, "
            f"--ray-address HOST:PORT joins another (with RAY_AUTH_TOKEN, if it has a token), and --ray-address local "
            f"makes one for this load alone"
        )

    def leave(self) -> None:
        """Leave the cluster; one that was started for this load ends."""
        self._leaving.set()
        self.join(LEAVE_SECONDS)


def _await_head(address: str) -> None:
    """Check that a server answers at the address where Ray will look for a cluster.

    Raises:
        OSError: None does.
    """
    from ray._private import services

    found = services.canonicalize_bootstrap_address(address)
    if found is not None:
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """The workers to request from a cluster."""

    count: int
    threads: int
    """Processors of each worker."""

    room: int
    """Workers that fit into the cluster now; others wait until it grows."""

    @classmethod
    def fitting(cls, *, workers: int | None, threads: int | None, gpus: float) -> WorkerPlan:
        """Return the workers that fit the cluster.

        Args:
            workers: Number that the user wants; None for one per machine.
            threads: Number that the user wants; None for an equal share of the machines' processors.
            gpus: GPUs of each worker.
        """
        import ray

        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        sizes = [int(machine["CPU"]) for machine in machines] or [1]
        count = workers or len(sizes)
        threads = threads or max(1, min(max(sizes), sum(sizes) // count))
        room = 0
        for machine in machines:
            fitting = int(machine["CPU"]) // threads
            room += min(fitting, int(machine.get("GPU", 0) / gpus)) if gpus else fitting
        return cls(count=count, threads=threads, room=room)
