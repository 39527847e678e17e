"""Workers that are actors of Ray: on this machine, or on a cluster that is there.

The only module that imports ray.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

from upsert_cli.distributed.dispatch import Died, Event, Finished, Ready
from upsert_cli.distributed.runner import Spec, UnitReceipt, UnitRunner
from upsert_cli.errors import ClusterLost, ClusterUnreachable, RayMissing, VersionsDiffer
from upsert_cli.stream.units import Unit

REASON_CHARACTERS = 300  # of what Ray says; the rest of it is advice
STEP = 0.05  # seconds between two looks around while a cluster is joined
JOIN_SECONDS = 5.0  # seconds that leaving a cluster may take; its workers are dead by then
TOKEN_BYTES = 32  # of the token of a cluster that is made for one load


def require_ray() -> None:
    """Makes sure that Ray is there, without loading it.

    Raises:
        RayMissing: It is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise RayMissing


class Worker:
    """What runs in an actor."""

    def __init__(self, spec: Spec) -> None:
        """Touches nothing: what fails here would not be told."""
        self._spec = spec
        self._runner = UnitRunner(spec)

    def version(self) -> str:
        """Returns the version of this tool that is installed where the actor runs."""
        from upsert_cli import __version__

        return __version__

    def run(self, unit: Unit) -> UnitReceipt:
        """Loads a unit."""
        return self._runner.run(unit)


class RayWorkers:
    """Actors, each with at most one unit, so that nobody suffers from what another one's unit does."""

    def __init__(self, spec: Spec, *, threads: int, gpus: float) -> None:
        """Starts nothing; a cluster is joined already.

        Args:
            spec: What the workers have to know.
            threads: Processors for each.
            gpus: GPUs for each.
        """
        import ray

        self._ray = ray
        # No restarts and no retries by Ray: what died is told to whoever gives out the units, and counted there.
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, **options)(Worker)
        self._spec = spec
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._starting: set[int] = set()
        self._next = 0

    def start(self) -> int:
        """Asks for an actor."""
        number, self._next = self._next, self._next + 1
        actor = self._actor.remote(self._spec)
        self._actors[number] = actor
        self._starting.add(number)
        self._pending[actor.version.remote()] = number  # type: ignore[attr-defined]  # added by Ray's decorator
        return number

    def give(self, worker: int, unit: Unit) -> None:
        """Gives a unit to an actor."""
        self._pending[self._actors[worker].run.remote(unit)] = worker

    def events(self, seconds: float) -> Sequence[Event]:
        """Waits for answers and deaths."""
        if not self._pending:
            return []
        done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=seconds, fetch_local=False)
        return [self._heard(answer, self._pending.pop(answer)) for answer in done]

    def _heard(self, answer: Any, worker: int) -> Event:
        from ray import exceptions

        try:
            value = self._ray.get(answer)
        except exceptions.RayTaskError as error:
            raise ClusterLost(reason=_one_line(error)) from error  # a bug: what the actor does catches all
        except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
            self._starting.discard(worker)
            with suppress(exceptions.RayError):
                self._ray.kill(self._actors.pop(worker))  # one that only cannot be reached must not go on
            return Died(worker, _one_line(error))
        except exceptions.RayError as error:
            raise ClusterLost(reason=_one_line(error)) from error
        if worker in self._starting:
            self._starting.remove(worker)
            if value != self._spec.version:
                raise VersionsDiffer(worker=f"number {worker}", had=str(value), wanted=self._spec.version)
            return Ready(worker)
        return Finished(worker, value)

    def stop(self) -> None:
        """Ends all actors at once, in the middle of what they do."""
        from ray import exceptions

        for actor in self._actors.values():
            with suppress(exceptions.RayError):
                self._ray.kill(actor)
        self._actors.clear()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.stop()


@contextmanager
def cluster(address: str, *, wait: Callable[[], None]) -> Iterator[None]:
    """Joins a cluster, or makes one on this machine, for the time inside.

    Args:
        address: `auto`, `local`, or `HOST:PORT`.
        wait: Called while that takes its time; may raise to give up.

    Raises:
        ClusterUnreachable: There is none, or it does not let us in.
    """
    membership = _Membership(address)
    try:
        membership.enter(wait)
        yield
    finally:
        membership.leave()


class _Membership(threading.Thread):
    """The thread that joins and leaves the cluster.

    Ray's own processes end with the thread that started them, so it lives as long as they are needed. And Ray would set
    a signal handler in the main thread, where ours belong.
    """

    def __init__(self, address: str) -> None:
        super().__init__(name="ray", daemon=True)
        self._address = address
        self._joined = threading.Event()
        self._leaving = threading.Event()
        self._error: BaseException | None = None

    def _connect(self) -> None:
        # Read by Ray when it is imported. It would report home, and leave a token in the home folder.
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        if self._address == "local":
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(TOKEN_BYTES)
        import ray
        import ray._private.worker as ray_worker

        logging.getLogger("ray").setLevel(logging.CRITICAL)
        # What the workers' machines say is ours to tell: Ray would print it to standard output.
        ray_worker._worker_logs_enabled = False
        ray.init(
            address=self._address,
            include_dashboard=False if self._address == "local" else None,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.CRITICAL,
        )

    def run(self) -> None:
        """Is the thread."""
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001  # handed over to the main thread, which raises it
            self._error = error
        self._joined.set()
        self._leaving.wait()
        if self._error is None:
            import ray

            ray.shutdown()

    def enter(self, wait: Callable[[], None]) -> None:
        """Waits until the cluster is joined."""
        self.start()
        while not self._joined.wait(STEP):
            wait()
        if self._error is not None:
            raise ClusterUnreachable(address=self._address, reason=_one_line(self._error)) from self._error

    def leave(self) -> None:
        """Lets go of the cluster; one that was made for this ends."""
        self._leaving.set()
        self.join(JOIN_SECONDS)


def fitting_workers(workers: int | None, threads: int | None) -> tuple[int, int]:
    """Returns how many workers a cluster that was joined has room for, and how many processors each of them gets.

    Args:
        workers: As many as the user wants; None: one a machine.
        threads: As many as the user wants; None: what the machines have, in equal parts.
    """
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    machines = [machine["Resources"].get("CPU", 0.0) for machine in nodes if machine["Alive"]]
    sizes = [int(size) for size in machines if size >= 1] or [1]
    count = workers or len(sizes)
    return count, threads or max(1, min(max(sizes), sum(sizes) // count))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:REASON_CHARACTERS] or type(error).__name__
