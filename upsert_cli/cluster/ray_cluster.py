"""A Ray cluster, either an existing one or one for this load alone, and the actors in it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from typing import Any

from upsert_cli.cluster.scheduler import Event
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.errors import UpsertCliError
from upsert_cli.redaction import error_line
from upsert_cli.sources.rows import Unit

STEP = 0.05  # seconds between two checks of the context while joining a cluster
ANSWER_SECONDS = 5.0  # seconds for a connection to a cluster's head; Ray itself would try forever
JOIN_SECONDS = 90.0  # seconds to join a cluster; Ray would ask a server that is no head forever
LEAVE_SECONDS = 4.0  # seconds that leaving a cluster may take; its workers are dead by then
TOKEN_BYTES = 32  # of the token for a cluster that is started for one load


@contextmanager
def cluster(address: str, *, wait: Callable[[], None]) -> Iterator[None]:
    """Join a cluster, or start one on this machine, and leave it at the end.

    Args:
        address: `auto`, `local`, or `HOST:PORT`.
        wait: Called again and again until the cluster is joined; may raise to give up.

    Raises:
        UpsertCliError: No cluster answers, or it refuses the connection.
    """
    joined: Future[None] = Future()
    leaving = threading.Event()

    def be_member() -> None:
        try:
            _connect(address)
        except BaseException as error:  # noqa: BLE001  # raised in the main thread
            joined.set_exception(error)
            return
        joined.set_result(None)
        leaving.wait()
        import ray

        ray.shutdown()

    # Ray's processes end with the thread that started them, so this thread lives as long as they are needed. In the
    # main thread, Ray would also replace our signal handlers.
    member = threading.Thread(target=be_member, name="ray", daemon=True)
    member.start()
    try:
        _await_joined(joined, address, wait)
        yield
    finally:
        leaving.set()
        member.join(LEAVE_SECONDS)


def _connect(address: str) -> None:
    # Ray reads these variables when it is imported. Otherwise it reports usage, and leaves a token in the home folder.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == "local":
        os.environ["RAY_AUTH_MODE"] = "token"
        # One token for all clusters of this process, since Ray reads it once.
        os.environ.setdefault("RAY_AUTH_TOKEN", os.urandom(TOKEN_BYTES).hex())
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    _check_head(address)
    ray._private.worker._worker_logs_enabled = False  # or Ray prints the workers' output to standard output
    ray.init(
        address=address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.CRITICAL,
    )


def _await_joined(joined: Future[None], address: str, wait: Callable[[], None]) -> None:
    """Wait until the thread of the cluster has joined it, and then handle SIGTERM as before."""
    until = time.monotonic() + JOIN_SECONDS
    while not joined.done():
        wait_for([joined], timeout=STEP)
        wait()
        if not joined.done() and address != "local" and time.monotonic() >= until:
            raise _unreachable(address, f"no valid answer of Ray within {JOIN_SECONDS:.0f} s")
    if (error := joined.exception()) is not None:
        raise _unreachable(address, error_line(error)) from error
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        # Ray's native code has replaced our handler by one that prints a stack trace.
        signal.signal(signal.SIGTERM, handler)


def _unreachable(address: str, reason: str) -> UpsertCliError:
    return UpsertCliError(
        message=f"no Ray cluster at {address}: {reason}; `ray start --head` starts one on this machine, "
        f"--ray-address HOST:PORT joins another (with RAY_AUTH_TOKEN, if it has a token), and --ray-address local "
        f"makes one for this load alone"
    )


def _check_head(address: str) -> None:
    """Check that a server answers at the address where Ray will look for a cluster.

    Raises:
        OSError: No server answers.
    """
    import ray

    found = ray._private.services.canonicalize_bootstrap_address(address)
    if found is not None:
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


def plan_workers(workers: int | None, threads: int | None, *, gpus: float) -> tuple[int, int, int]:
    """Plan the workers to request: by default one per machine, with an equal share of the processors.

    Args:
        workers: The number of workers that the user asks for, if any.
        threads: The processors of each worker that the user asks for, if any.
        gpus: The GPUs of each worker.

    Returns:
        The number of workers, the processors of each, and the number of workers that fit into the cluster now; the
        others wait until it grows.
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
    return count, threads, room


class RayWorkers:
    """Actors with at most one unit each, so that a unit that kills its worker harms no other unit."""

    def __init__(self, spec: Spec, *, threads: int, gpus: float) -> None:
        """Start no actor yet, in a cluster that was joined; each actor gets `threads` processors and `gpus` GPUs."""
        import ray

        self._ray = ray
        # Without restarts and retries by Ray, since only the scheduler knows which units have a receipt.
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, **options)(UnitRunner)
        self._spec = spec
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._next = 0

    def start(self) -> int:
        """Request an actor."""
        number, self._next = self._next, self._next + 1
        self._actors[number] = actor = self._actor.remote(self._spec)
        self._pending[actor.prepare.remote()] = number  # type: ignore[attr-defined]  # added by Ray's decorator
        return number

    def give(self, worker: int, unit: Unit) -> None:
        """Give a unit to an actor."""
        self._pending[self._actors[worker].run.remote(unit)] = worker

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait for answers and deaths."""
        if not self._pending:
            return []
        done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=seconds, fetch_local=False)
        return [self._event(answer, self._pending.pop(answer)) for answer in done]

    def _event(self, answer: Any, worker: int) -> Event:
        from ray import exceptions

        try:
            return Event(worker, receipt=self._ray.get(answer))
        except exceptions.RayTaskError as error:
            raise _cluster_lost(error) from error  # the methods of the actor catch all other errors
        except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
            with suppress(exceptions.RayError):
                self._ray.kill(self._actors.pop(worker))  # the actor may still run, and only be out of reach
            return Event(worker, death=error_line(error))
        except exceptions.RayError as error:
            raise _cluster_lost(error) from error

    def stop(self) -> None:
        """Kill all actors, even in the middle of their work."""
        from ray import exceptions

        for actor in self._actors.values():
            with suppress(exceptions.RayError):
                self._ray.kill(actor)
        self._actors.clear()


def _cluster_lost(error: BaseException) -> UpsertCliError:
    return UpsertCliError(
        message=f"the Ray cluster was lost: {error_line(error)}; finished units are kept, so restart the task once the "
        f"cluster is back"
    )
