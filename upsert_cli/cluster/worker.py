"""The worker of a cluster: loads units through the same stages as a local load, and returns their receipts."""

from __future__ import annotations

import os
import traceback
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from upsert_cli import __version__
from upsert_cli.context import RunContext
from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Loaded, Receipt, follow
from upsert_cli.journal.task import Task
from upsert_cli.load.resources import Resources
from upsert_cli.owned_folders import owned_folder
from upsert_cli.pipeline.batches import Pace
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.stages import Stages
from upsert_cli.sources.rows import UNIT_ROWS, Unit
from upsert_cli.store.process import LAST_WRITE_SECONDS, StoreProcess

FOLDER_PREFIX = "upsert-cli-worker-"  # begins the names of folders with the lease of one worker
OPEN_UNIT_ROWS = 32 * UNIT_ROWS  # rows, some minutes of work, after which a unit without a known end is split


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The specification of a task for its workers, without secrets."""

    task: Task
    """All workers must find its files at the same paths."""

    origin: ModelIdentity
    """The origin of the vectors that the process which runs the task has found: a model's identity, or `OwnVectors`."""

    secrets: tuple[str, ...] = ()
    """The names, but not the values, of the environment variables with the credentials of the target."""

    version: str = __version__


class UnitRunner:
    """A loader of units, one after the other, which keeps the model loaded and the collection open between them.

    On Ray it is an actor. It returns all errors in receipts, since Ray would end an actor that raises an error.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._options = spec.task.options
        self._pace = Pace(self._options.batch_size)
        # The process that runs the task has the lease on the collection. Each worker has a folder of leases to itself,
        # since workers do not exclude each other. Ray kills workers, so a later worker removes the folder.
        self._folders = ExitStack()
        leases = self._folders.enter_context(owned_folder(FOLDER_PREFIX))
        self._resources = Resources(spec.task, leases=leases, found=spec.origin, machine=_here())
        self._writer: StoreProcess | None = None
        self._fault: Exception | None = None

    def prepare(self) -> None:
        """Open the collection and load the model, so that no unit waits for a slow machine."""
        try:
            writer = self._ready()
            may_be_unchanged = writer.opened().count and not self._options.force
            if not may_be_unchanged:
                self._resources.load_model()
        except Exception as error:  # noqa: BLE001  # the receipt of the first unit reports it
            self._hang_up()
            self._fault = error

    def run(self, unit: Unit) -> Receipt:
        """Load a unit; its receipt reports any error."""
        try:
            return self._run(unit)
        except Exception as error:  # noqa: BLE001  # the process that runs the task raises it
            self._hang_up()
            return Receipt(unit=unit, error=_portable(error))

    def close(self) -> None:
        """Close the collection; the next unit opens it again."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _hang_up(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.abandon()
            writer.await_end(LAST_WRITE_SECONDS)

    def _run(self, unit: Unit) -> Receipt:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise fault
        resources, writer = self._resources, self._ready()
        resources.check_source(unit.start.source)
        written_before = writer.seconds["writing"]
        # The last row of a repeated id is written even if it looks unchanged: the metadata may be another row's.
        options = self._options if unit.only is None else replace(self._options, force=True)
        context = RunContext()
        stages = Stages(options, context, resources.loader, pace=self._pace)
        batches = stages.read_ahead(resources.rows.of(unit), resources.recipe)
        done, after = Receipt(unit=unit), unit.start
        ids: dict[bytes, Loaded] = {}
        is_long = False
        with closing(stages.run(batches, [writer])) as outcomes:
            try:
                for outcome in outcomes:
                    done, after = done.plus(outcome), outcome.after
                    follow(ids, outcome.loaded)
                    if is_long := unit.end is None and done.counts.read >= OPEN_UNIT_ROWS:
                        stages.stopping.set()  # the batches that are being written are still yielded
            except (SourceUnreadable, StageStopped) as error:
                done = replace(done, rest=unit.rest_from(after), error=None if is_long else error)
        context.progress.add("writing", writer.seconds["writing"] - written_before)
        return replace(
            done,
            rejects=sorted(done.rejects, key=lambda reject: int(reject["row"])),
            ids=tuple(ids.items()),
            embedded=context.progress.embedded,
            seconds=context.progress.seconds,
        )

    def _ready(self) -> StoreProcess:
        """Return the open collection; check first that this machine has the task's version, credentials and model."""
        spec, here = self._spec, _here()
        if spec.version != __version__:
            raise UpsertCliError(
                message=f"the worker {here} has upsert-cli {__version__}, and the task is run by {spec.version}; "
                f"install the same version there"
            )
        for name in spec.secrets:
            if not os.environ.get(name):
                raise UpsertCliError(
                    message=f"{name} is set here, but not for the worker {here}; set it where Ray is started on "
                    f"that machine, since a task carries only the names of such variables"
                )
        _ = self._resources.recipe
        if self._writer is None:
            self._writer = self._resources.start_store()
            self._writer.opened()
        return self._writer


def _here() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled; an unexpected one carries its traceback as text."""
    if isinstance(error, UpsertCliError):
        return error
    return RuntimeError(f"a worker failed at {_here()}: {''.join(traceback.format_exception(error)).strip()}")
