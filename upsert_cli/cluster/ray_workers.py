"""Workers that are Ray actors on any machine of the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from upsert_cli.cluster.scheduler import Event, Finished, Ready, WorkerFailure
from upsert_cli.cluster.worker import Spec, UnitReceipt, UnitRunner
from upsert_cli.errors import UpsertCliError
from upsert_cli.redaction import error_line
from upsert_cli.sources.units import Unit


class Worker:
    """The actor."""

    def __init__(self, spec: Spec) -> None:
        """Do nothing that can fail, since an error here would not be reported."""
        self._spec = spec
        self._runner = UnitRunner(spec)

    def version(self) -> str:
        """Return the version of this tool on the machine of the actor."""
        from upsert_cli import __version__

        return __version__

    def prepare(self) -> None:
        """Prepare for the first unit."""
        self._runner.prepare()

    def run(self, unit: Unit) -> UnitReceipt:
        """Load a unit."""
        return self._runner.run(unit)


class RayWorkers:
    """Actors with at most one unit each, so that a unit that kills its worker harms no other unit."""

    def __init__(self, spec: Spec, *, threads: int, gpus: float) -> None:
        """Start nothing yet; a cluster is joined already.

        Args:
            spec: The task, for the workers.
            threads: Processors of each worker.
            gpus: GPUs of each worker.
        """
        import ray

        self._ray = ray
        # Without restarts and retries by Ray: only the scheduler knows which units have a receipt, and which row kills
        # a worker.
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(num_cpus=threads, num_gpus=gpus, **options)(Worker)
        self._spec = spec
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}
        self._starting: set[int] = set()
        self._preparing: set[int] = set()
        self._next = 0

    def start(self) -> int:
        """Request an actor."""
        number, self._next = self._next, self._next + 1
        actor = self._actor.remote(self._spec)
        self._actors[number] = actor
        self._starting.add(number)
        self._pending[actor.version.remote()] = number  # type: ignore[attr-defined]  # added by Ray's decorator
        return number

    def give(self, worker: int, unit: Unit) -> None:
        """Give a unit to an actor."""
        self._pending[self._actors[worker].run.remote(unit)] = worker

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait for answers and deaths."""
        if not self._pending:
            return []
        done, _ = self._ray.wait(list(self._pending), num_returns=1, timeout=seconds, fetch_local=False)
        events = [self._event(answer, self._pending.pop(answer)) for answer in done]
        return [event for event in events if event is not None]

    def _event(self, answer: Any, worker: int) -> Event | None:
        from ray import exceptions

        try:
            value = self._ray.get(answer)
        except exceptions.RayTaskError as error:
            raise _cluster_lost(error) from error  # the methods of the actor catch all other errors
        except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
            self._starting.discard(worker)
            self._preparing.discard(worker)
            with suppress(exceptions.RayError):
                self._ray.kill(self._actors.pop(worker))  # an actor that only cannot be reached must not continue
            return WorkerFailure(worker, error_line(error))
        except exceptions.RayError as error:
            raise _cluster_lost(error) from error
        if worker in self._starting:
            self._starting.remove(worker)
            if value != self._spec.version:
                raise UpsertCliError(
                    message=f"worker number {worker} has upsert-cli {value}, and this is {self._spec.version}; install "
                    f"the same version there"
                )
            self._preparing.add(worker)
            self._pending[self._actors[worker].prepare.remote()] = worker
            return None
        if worker in self._preparing:
            self._preparing.remove(worker)
            return Ready(worker)
        return Finished(worker, value)

    def stop(self) -> None:
        """Kill all actors, in the middle of their work."""
        from ray import exceptions

        for actor in self._actors.values():
            with suppress(exceptions.RayError):
                self._ray.kill(actor)
        self._actors.clear()

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self.stop()


def _cluster_lost(error: BaseException) -> UpsertCliError:
    return UpsertCliError(
        message=f"the Ray cluster was lost: {error_line(error)}; finished units are kept, so restart the task once the "
        f"cluster is back"
    )
