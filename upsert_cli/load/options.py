"""What a user asks for, the load and its options, and the exit code that answers it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upsert_cli.counts import Counts
from upsert_cli.errors import SOME_REJECTED, Canceled, Refusal, UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.retry import RETRY_FOR

if TYPE_CHECKING:
    from upsert_cli.documents.document import Recipe
    from upsert_cli.embedding.embedder import Device, Effort
    from upsert_cli.sources.forms import IdFrom
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source

Kind = Literal["default", "categories"]
IfRunning = Literal["refuse", "wait", "skip"]
Engine = Literal["local", "ray"]

MAPPING = {
    "format": "--format",
    "id_field": "--id-field",
    "id_from": "--id-from",
    "text_fields": "--text-field",
    "template": "--template",
    "metadata_fields": "--metadata-fields",
    "vector_field": "--vector-field",
    "keep_lists": "--keep-lists",
}
"""The options that say how to read a file which is not in our form, by field."""

# The options that decide what is stored; the others only say how to go about it.
RESULT_FIELDS = MAPPING | {
    "model_path": "--model-path",
    "refs_root": "--refs-root",
    "engine": "--engine",
    "scope": "--scope",
    "delete_missing": "--delete-missing",
    "split": "--split",
    "max_tokens": "--max-tokens",
    "overlap": "--overlap",
    "average": "--average",
}

DEFAULT_MAX_DELETE = "20%"  # of the records that a scope holds


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The options of a run that its task keeps, so that a restart does the same."""

    format: str | None = None
    """A key of `FORMATS`, whatever the suffixes of the sources say."""

    id_field: str | None = None
    id_from: IdFrom | None = None
    text_fields: tuple[str, ...] = ("text",)
    template: str | None = None
    metadata_fields: tuple[str, ...] | None = None
    vector_field: str | None = None
    keep_lists: bool = False
    refs_root: str | None = None
    """Absolute."""

    scope: str | None = None
    """Which loads the records belong to; None: none. A task that deletes has one, by its sources if by no name."""

    delete_missing: bool = False
    """Whether records of the scope are deleted that the sources no longer hold."""

    max_delete: str = DEFAULT_MAX_DELETE
    """Of these at most `"10"` records or `"5%"` of the scope's; more are a refusal."""
    split: bool = False
    """Every item is stored as parts that the model reads whole."""

    max_tokens: int | None = None
    """Tokens of a part; None: as many as the model reads."""

    overlap: int = 0
    """Tokens that a part repeats of the one before."""

    average: bool = False
    """The mean of an item's parts is stored as well."""

    model_path: str | None = None
    offline: bool = False
    batch_size: int | None = None
    """Items a write; None: by measured speed."""

    threads: int | None = None
    """Micro-batches embedded at the same time; None: one a processor."""

    token_budget: int | None = None
    """Padded tokens of a micro-batch; None: what was measured to be fastest."""

    device: Device = "cpu"
    writers: int = 1
    """Batches that are written at the same time; a folder takes one."""

    retry_for: float = RETRY_FOR
    """Seconds for which a request that a server fails on is made again."""

    engine: Engine = "local"
    """Who does the work; what is done is written down differently, so a task keeps its engine."""

    ray_address: str = "auto"
    """`auto`, `local` or `HOST:PORT`."""

    workers: int | None = None
    """Processes that load at the same time; None: one a machine of the cluster."""

    num_gpus_per_worker: float = 0.0
    force: bool = False
    max_failures: str | None = None
    """`"10"` items or `"5%"` of the items read; None: no limit."""

    strict: bool = False
    verbose: bool = False

    @property
    def model_folder(self) -> Path | None:
        """The folder given for the model, if any."""
        return Path(self.model_path) if self.model_path is not None else None

    @property
    def effort(self) -> Effort:
        """How much is embedded at the same time."""
        from upsert_cli.embedding.embedder import Effort  # late: `list` and `info` need the exit codes alone

        return Effort.fitting(self.device, threads=self.threads, budget=self.token_budget)

    def exceeds_max_failures(self, failed: int, read: int, *, settled: int) -> bool:
        """Tells whether too many items were rejected; a percentage is looked at from `settled` rows on."""
        if self.max_failures is None or (self.max_failures.endswith("%") and read < max(settled, 1)):
            return False
        return _exceeds(self.max_failures, failed, read)

    def exceeds_max_delete(self, missing: int, held: int) -> bool:
        """Tells whether too many of the records that the scope holds are to be deleted."""
        return _exceeds(self.max_delete, missing, held)

    def done_code(self, counts: Counts) -> int:
        """Returns the exit code of a load that came to its end."""
        if not counts.failed:
            return 0
        too_many = self.exceeds_max_failures(counts.failed, counts.read, settled=0)
        return UpsertCliError.exit_code if self.strict or too_many else SOME_REJECTED

    def rows(self, sources: Sequence[Source]) -> Rows:
        """Return all rows of some sources, as these options say that they are to be read."""
        from upsert_cli.sources.rows import Rows  # late, for the same reason

        return Rows(sources=sources, id_field=self.id_field, id_from=self.id_from)

    def recipe(self, *, identity: str, dimension: int = 0) -> Recipe:
        """Returns how documents are made of items, for a model's identity and the numbers of its vectors."""
        from upsert_cli.documents.document import Recipe

        return Recipe(
            text_fields=self.text_fields,
            template=self.template,
            metadata_fields=self.metadata_fields,
            vector_field=self.vector_field,
            keep_lists=self.keep_lists,
            refs_root=None if self.refs_root is None else Path(self.refs_root),
            scope=self.scope,
            identity=identity,
            dimension=dimension,
        )

    def differing(self, other: LoadOptions) -> tuple[str, ...]:
        """Returns the names of the fields by which a load with `other` would store other records."""
        return tuple(name for name in RESULT_FIELDS if getattr(self, name) != getattr(other, name))

    def as_json(self) -> dict[str, Any]:
        """Returns the options as plain data, for the journal."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LoadOptions:
        """Reads what `as_json` wrote; keys that are unknown, of a newer version, are ignored."""
        known: dict[str, Any] = {name: value[name] for name in (field.name for field in fields(cls)) if name in value}
        lists = {name: tuple(one) for name, one in known.items() if isinstance(one, list)}
        return cls(**(known | lists))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A load as it was asked for."""

    kind: Kind
    names: tuple[str, ...]
    """Sources as typed; `-` is standard input."""

    chroma: str
    """Where to load into, as `address.place_named` spells it."""

    collection: str
    model: str
    options: LoadOptions
    task_id: str | None = None
    enqueue: bool = False
    """The task is left to `upsert-cli work`."""


def _exceeds(limit: str, part: int, whole: int) -> bool:
    return part * 100 > float(limit[:-1]) * whole if limit.endswith("%") else part > int(limit)


def describe_options(value: str | int | tuple[str, ...] | None) -> str:
    """Returns an option's value as a user would give it."""
    if value is None or value is False:
        return "not given"
    return "given" if value is True else ", ".join(value) if isinstance(value, tuple) else str(value)


GRAVITY = (UpsertCliError.exit_code, Refusal.exit_code, Canceled.exit_code, SOME_REJECTED, 0)
"""The exit codes of tasks, the gravest first; a signal is graver than all of them."""


def worst_exit_code(codes: Iterable[int]) -> int:
    """Returns the exit code that stands for several tasks."""
    return min(codes, key=GRAVITY.index, default=0)


def exit_code(task: Task) -> int:
    """Returns the exit code that stands for a task's state; 0 while nothing has gone wrong yet."""
    options = LoadOptions.from_json(task.options)
    match task.status:
        case TaskStatus.DONE:
            return options.done_code(task.counts)
        case TaskStatus.FAILED:
            return UpsertCliError.exit_code
        case TaskStatus.REFUSED:
            return Refusal.exit_code
        case TaskStatus.CANCELED:
            return Canceled.exit_code
    return 0
