"""The worker of a cluster: loads units through the same stages as a local load, and returns their receipts."""

from __future__ import annotations

import os
import tempfile
import traceback
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from upsert_cli import __version__
from upsert_cli.context import RunContext
from upsert_cli.embedding.identity import Model, ModelIdentity
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Loaded, Receipt, follow
from upsert_cli.journal.task import Task
from upsert_cli.load.resources import Resources
from upsert_cli.owned_folders import own, remove_stale
from upsert_cli.pipeline.batches import Pace
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.stages import Stages
from upsert_cli.sources.rows import UNIT_ROWS, Unit
from upsert_cli.store.process import LAST_WRITE_SECONDS, StoreProcess

FOLDER_PREFIX = "upsert-cli-worker-"  # of the names of folders for a lease that nobody else has
OPEN_UNIT_ROWS = 32 * UNIT_ROWS  # rows after which a unit without a known end is split; some minutes of work


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything that a worker needs to know of a task, without secrets."""

    task: Task
    """All workers must see its files under the same paths."""

    origin: ModelIdentity
    """The model or the vectors that the process that runs the task has found; `OwnVectors`, or a model's identity."""

    secrets: tuple[str, ...] = ()
    """Names, never values, of the environment variables that hold the credentials of the target."""

    version: str = __version__


class UnitRunner:
    """A loader of units, one after the other, which keeps the model loaded and the collection open between them.

    It is an actor on Ray. Its methods return all errors in receipts, since Ray would end it for one that is raised.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._options = spec.task.options
        self._pace = Pace(self._options.batch_size)
        # Ray ends workers by killing them, so their folders are left to a later one.
        remove_stale(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"))
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX)
        self._owned = own(Path(self._folder.name))
        # The process that runs the task holds the lease on the collection; workers do not exclude each other.
        self._resources = Resources(spec.task, leases=Path(self._folder.name), found=spec.origin, machine=_here())
        self._writer: StoreProcess | None = None
        self._fault: Exception | None = None

    def prepare(self) -> None:
        """Open the collection and load the model, so that no unit waits for a slow machine."""
        try:
            writer = self._ready()
            may_be_unchanged = writer.opened().count and not self._options.force
            if isinstance(self._resources.model, Model) and not may_be_unchanged:
                self._resources.loader.embedder()
        except Exception as error:  # noqa: BLE001  # reported in the receipt of the first unit
            self._hang_up()
            self._fault = error

    def run(self, unit: Unit) -> Receipt:
        """Load a unit; its receipt reports any error."""
        try:
            return self._run(unit)
        except Exception as error:  # noqa: BLE001  # the receiver of the receipt raises it
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
        # A row that is loaded once more, since its id came again, may look unchanged and hold another row's metadata.
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
                        stages.stopping.set()  # what is being written by now still counts
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
        """Return the open collection, once this machine has the version, the credentials and the model of the task."""
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
