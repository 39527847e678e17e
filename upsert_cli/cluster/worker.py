"""The worker of a cluster: loads units through the same stages as a local load, and returns their receipts."""

from __future__ import annotations

import os
import platform
import tempfile
import traceback
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from upsert_cli import __version__
from upsert_cli.context import RunContext
from upsert_cli.embedding import require_precision
from upsert_cli.embedding.catalog import embeds
from upsert_cli.embedding.embedder import Embedder, Loader
from upsert_cli.embedding.identity import Model, OwnVectors
from upsert_cli.errors import Refusal, SourceUnreadable, UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.receipts import Loaded, Receipt, follow
from upsert_cli.load.resources import load_embedder, model_of, recipe_of, stored_sources
from upsert_cli.pipeline.batches import Pace
from upsert_cli.pipeline.id_set import digest_of
from upsert_cli.pipeline.stages import Stages
from upsert_cli.sources.rows import UNIT_ROWS, Unit
from upsert_cli.sources.source import Source
from upsert_cli.store.base import Target
from upsert_cli.store.process import LAST_WRITE_SECONDS, StoreProcess

OPEN_UNIT_ROWS = 32 * UNIT_ROWS  # rows after which a unit without a known end is split; some minutes of work


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """Everything that a worker needs to know of a task, as plain data without secrets."""

    task_id: str
    target: Target
    options: dict[str, Any]
    """The result of `LoadOptions.as_json`."""

    sources: tuple[dict[str, Any], ...]
    """Results of `Source.as_json`; all workers must see each file under the same path."""

    secrets: tuple[str, ...] = ()
    """Names, never values, of the environment variables that hold the credentials of the target."""

    version: str = __version__


class UnitRunner:
    """A loader of units, one after the other, which keeps the model loaded and the collection open between them.

    It is an actor on Ray. Its methods return all errors in receipts, since Ray would end it for one that is raised.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._options = LoadOptions.from_json(spec.options)
        self._sources = stored_sources(spec.sources, self._options, chroma=spec.target.path)
        self._pace = Pace(self._options.batch_size)
        self._unchanged: dict[int, tuple[int, int]] = {}
        self._model: Model | OwnVectors | None = None
        self._loader = Loader(self._load_model)
        self._writer: StoreProcess | None = None
        self._fault: Exception | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="upsert-cli-worker-")

    def prepare(self) -> None:
        """Open the collection and load the model, so that no unit waits for a slow machine."""
        try:
            model, writer = self._ready()
            may_be_unchanged = writer.opened().count and not self._options.force
            if isinstance(model, Model) and not may_be_unchanged:
                self._loader.embedder()
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
        self._check_unchanged(unit.start.source)
        model, writer = self._ready()
        written_before = writer.seconds["writing"]
        # A row that is loaded once more, since its id came again, may look unchanged and hold another row's metadata.
        options = self._options if unit.only is None else replace(self._options, force=True)
        context = RunContext()
        stages = Stages(options, context, self._loader, pace=self._pace)
        batches = stages.read_ahead(options.rows(self._sources).of(unit), recipe_of(options, model))
        done, after = Receipt(unit=unit), unit.start
        ids: dict[bytes, Loaded] = {}
        with closing(stages.run(batches, [writer])) as outcomes:
            try:
                for outcome in outcomes:
                    done, after = done.plus(outcome), outcome.after
                    follow(ids, {digest_of(object_id): one for object_id, one in outcome.loaded})
                    if unit.end is None and done.counts.read >= OPEN_UNIT_ROWS:
                        done = replace(done, rest=unit.rest_from(after))
                        break
            except SourceUnreadable as error:
                done = replace(done, rest=unit.rest_from(after), error=error)
        context.progress.add("writing", writer.seconds["writing"] - written_before)
        return replace(
            done,
            rejects=sorted(done.rejects, key=itemgetter("row")),
            ids=tuple(ids.items()),
            embedded=context.progress.embedded,
            seconds=context.progress.seconds,
        )

    def _check_unchanged(self, index: int) -> None:
        """Check the fingerprint of a file once, and later only its size and modification time."""
        source = self._sources[index]
        now = _touched(source)
        if now is None or self._unchanged.get(index) != now:
            source.check_unchanged(task_id=self._spec.task_id)
        if now is not None:
            self._unchanged[index] = now

    def _ready(self) -> tuple[Model | OwnVectors, StoreProcess]:
        spec = self._spec
        if spec.version != __version__:
            raise UpsertCliError(
                message=f"the worker {_here()} has upsert-cli {__version__}, and the task is run by {spec.version}; "
                f"install the same version there"
            )
        for name in spec.secrets:
            if not os.environ.get(name):
                raise UpsertCliError(
                    message=f"{name} is set here, but not for the worker {_here()}; set it where Ray is started on "
                    f"that machine, since a task carries only the names of such variables"
                )
        model = self._found_model()
        if self._writer is None:
            # The process that runs the task holds the lease on the collection; workers do not exclude each other.
            target = replace(spec.target, leases=self._folder.name) if spec.target.leases else spec.target
            self._writer = StoreProcess(target, task_id=spec.task_id)
            self._writer.opened()
        return model, self._writer

    def _found_model(self) -> Model | OwnVectors:
        if self._model is None:
            wanted = self._spec.target.model
            is_found = embeds(wanted.name) and not self._options.keep_vectors
            self._model = self._same_model() if is_found else OwnVectors.of(wanted, space=self._spec.target.space)
        return self._model

    def _same_model(self) -> Model:
        """Find the model on this machine; it has to be the one of the process that runs the task."""
        wanted = self._spec.target.model
        require_precision(self._options.precision, wanted.name, given=self._options.given_model)
        found = model_of(wanted.name, self._options)
        for what, had, asked in wanted.differences(found):
            raise Refusal(
                message=f"the {what} of {found.name} in {found.folder} of the worker {_here()} is {asked}, and "
                f"{had} where the task is run; put the same files on each machine, then restart the task"
            )
        return found

    def _load_model(self) -> Embedder:
        return load_embedder(self._found_model(), self._options)


def _touched(source: Source) -> tuple[int, int] | None:
    if not isinstance(source.path, Path):
        return None
    try:
        status = source.path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _here() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled; an unexpected one carries its traceback as text."""
    if isinstance(error, UpsertCliError):
        return error
    return RuntimeError(f"a worker failed at {_here()}: {''.join(traceback.format_exception(error)).strip()}")
