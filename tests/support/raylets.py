"""A real Ray cluster of several raylets on this machine, each of which can be killed like a machine that goes away."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TOKEN = secrets.token_hex(32)  # of all clusters of this process, which reads it once
START_SECONDS = 120.0  # seconds for a worker to come up on a busy machine


class Raylets:
    """A cluster of a head and other raylets; if the head has no processors, all workers are on the others."""

    def __init__(self, *, head_processors: int, processors: int) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": head_processors, "include_dashboard": False}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
        self._nodes: list[Any] = []
        self._processors = processors

    @classmethod
    @contextmanager
    def started(cls, count: int, *, head_processors: int = 0, processors: int = 1) -> Iterator[Raylets]:
        """Yield a cluster with that number of raylets next to its head, and end it."""
        before = dict(os.environ)
        # The token in their environment identifies all processes of the cluster.
        os.environ |= {
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
        }
        raylets = cls(head_processors=head_processors, processors=processors)
        try:
            raylets.have(count)
            yield raylets
        finally:
            raylets._cluster.shutdown()
            for name in os.environ.keys() - before.keys():  # Ray sets more of them
                del os.environ[name]

    @property
    def address(self) -> str:
        """The value for `--ray-address`."""
        return str(self._cluster.address)

    def have(self, count: int) -> None:
        """Start the raylets that are missing."""
        while len(self._nodes) < count:
            self._nodes.append(self._cluster.add_node(num_cpus=self._processors))

    def kill_one(self) -> None:
        """Kill a raylet, and with it its workers."""
        self._cluster.remove_node(self._nodes.pop(), allow_graceful=False)

    def kill_worker(self) -> None:
        """Kill a working actor."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            for pid in self._workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return
            time.sleep(0.05)
        raise AssertionError("no worker was ever at work")

    def _workers(self) -> list[int]:
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if (
                    process.name.isdigit()
                    and b"UnitRunner.run" in (process / "cmdline").read_bytes()
                    and TOKEN.encode() in (process / "environ").read_bytes()
                ):
                    found.append(int(process.name))
        return found
