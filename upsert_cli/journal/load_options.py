"""The options of a load that its task keeps, so that a restart does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from upsert_cli.counts import Counts
from upsert_cli.embedding.catalog import NO_MODEL
from upsert_cli.errors import SOME_REJECTED, UpsertCliError
from upsert_cli.retry import RETRY_FOR

if TYPE_CHECKING:
    from upsert_cli.documents.recipe import Recipe
    from upsert_cli.embedding.catalog import GivenFolder, Pooling, Prefixes
    from upsert_cli.embedding.embedder import Device, Effort, Precision
    from upsert_cli.sources.item_mapping import IdFrom
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source

Engine = Literal["local", "ray"]

DEFAULT_MAX_DELETE = "20%"  # of the records in the scope

_DECIDES = {"decides": True}  # marks a field on which the stored records depend; the others only say how to load
_MAPS = {"maps": True} | _DECIDES  # marks a field that says how to read rows that are not in item form


def flag(name: str) -> str:
    """Return the command-line option that sets a field."""
    return "--text-field" if name == "text_fields" else f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The options of a load, parsed when its task is read from the journal."""

    format: str | None = field(default=None, metadata=_MAPS)
    """A key of `formats.SUFFIXES`, which beats the suffixes of the sources."""

    id_field: str | None = field(default=None, metadata=_MAPS)
    id_from: IdFrom | None = field(default=None, metadata=_MAPS)
    text_fields: tuple[str, ...] = field(default=("text",), metadata=_MAPS)
    template: str | None = field(default=None, metadata=_MAPS)
    metadata_fields: tuple[str, ...] | None = field(default=None, metadata=_MAPS)
    vector_field: str | None = field(default=None, metadata=_MAPS)
    keep_lists: bool = field(default=False, metadata=_MAPS)
    limit: int | None = field(default=None, metadata=_DECIDES)
    """The most rows to read, over all sources; None for all of them."""

    where: dict[str, Any] | None = field(default=None, metadata=_DECIDES)
    """Chroma's filter on the metadata of the collections that are sources; None for all their records."""

    keep_vectors: bool = field(default=False, metadata=_DECIDES)
    """Whether the records of collections keep their vectors."""

    refs_root: str | None = field(default=None, metadata=_DECIDES)
    """Absolute."""

    scope: str | None = field(default=None, metadata=_DECIDES)
    """The scope that the records belong to, or None. A task that deletes always has one, derived from its sources
    unless the user named it."""

    delete_missing: bool = field(default=False, metadata=_DECIDES)
    """Whether to delete the records of the scope that the sources no longer hold."""

    max_delete: str = DEFAULT_MAX_DELETE
    """How many of them at most, as `"10"` records or `"5%"` of the scope; more are refused."""

    split: bool = field(default=False, metadata=_DECIDES)
    """Whether to store every item as chunks that the model reads whole."""

    max_tokens: int | None = field(default=None, metadata=_DECIDES)
    """Tokens in a chunk; None: as many as the model reads."""

    overlap: int = field(default=0, metadata=_DECIDES)
    """Tokens that a chunk repeats from the previous one."""

    average: bool = field(default=False, metadata=_DECIDES)
    """Whether to store the mean of an item's chunks as well."""

    model_path: str | None = field(default=None, metadata=_DECIDES)
    pooling: Pooling | None = field(default=None, metadata=_DECIDES)
    """How a model that fastembed does not list makes one vector of its tokens'; None: as its files say."""

    no_normalize: bool = field(default=False, metadata=_DECIDES)
    """Whether the vectors of such a model keep their lengths."""

    passage_prefix: str | None = field(default="", metadata=_DECIDES)
    """Text before each document that is embedded. Tasks of older versions have none. None, in a request alone: the one
    that the model asks for."""

    query_prefix: str | None = field(default="", metadata=_DECIDES)
    """The same for the search texts of the collection."""

    offline: bool = False
    batch_size: int | None = None
    """Items in a write; None: adapted to the measured speed."""

    threads: int | None = None
    """Micro-batches to embed at the same time; None: one per processor."""

    token_budget: int | None = None
    """Padded tokens in a micro-batch; None: the number that was measured to be fastest."""

    precision: Precision = "fp32"
    """Of the model's products; the vectors of both are comparable."""

    device: Device = "cpu"
    writers: int = 1
    """Concurrent writes; more than one only helps with a server."""

    retry_for: float = RETRY_FOR
    """How long to keep retrying failed server requests, in seconds."""

    engine: Engine = field(default="local", metadata=_DECIDES)
    """What runs the load. The two keep different files, so a task keeps its engine."""

    ray_address: str = "auto"
    """`auto`, `local` or `HOST:PORT`."""

    workers: int | None = None
    """Processes that load at the same time; None: one per machine of the cluster."""

    num_gpus_per_worker: float = 0.0
    force: bool = False
    max_failures: str | None = None
    """`"10"` items or `"5%"` of the items read; None: no limit."""

    strict: bool = False
    verbose: bool = False

    recorded: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """The JSON that these options were read from, with the keys that its version wrote; None for new options."""

    @property
    def model_folder(self) -> Path | None:
        """The folder given for the model, if any."""
        return Path(self.model_path) if self.model_path is not None else None

    @property
    def given_model(self) -> GivenFolder | None:
        """The folder given for the model, with settings that its files may lack."""
        from upsert_cli.embedding.catalog import GivenFolder  # late: light commands only show the options

        if self.model_folder is None:
            return None
        return GivenFolder(path=self.model_folder, pooling=self.pooling, normalize=not self.no_normalize)

    @property
    def prefixes(self) -> Prefixes:
        """The texts before those that are embedded."""
        from upsert_cli.embedding.catalog import Prefixes  # late, as below

        return Prefixes(self.passage_prefix or "", self.query_prefix or "")

    def with_prefixes(self, usual: Prefixes) -> LoadOptions:
        """Return the options of a request with the usual prefixes where it gives none."""
        return replace(
            self,
            passage_prefix=usual.passage if self.passage_prefix is None else self.passage_prefix,
            query_prefix=usual.query if self.query_prefix is None else self.query_prefix,
        )

    @property
    def effort(self) -> Effort:
        """How much is embedded at the same time."""
        from upsert_cli.embedding.embedder import Effort  # late: light commands only show the options

        return Effort.fitting(self.device, precision=self.precision, threads=self.threads, budget=self.token_budget)

    def exceeds_max_failures(self, failed: int, read: int, *, from_row: int) -> bool:
        """Check whether too many items were rejected; a percentage counts only from the `from_row`-th row on."""
        if self.max_failures is None or (self.max_failures.endswith("%") and read < max(from_row, 1)):
            return False
        return _exceeds(self.max_failures, failed, read)

    def exceeds_max_delete(self, missing: int, held: int) -> bool:
        """Check whether too many of the records in the scope would be deleted."""
        return _exceeds(self.max_delete, missing, held)

    def done_code(self, counts: Counts) -> int:
        """Return the exit code of a load that reached the end of its sources."""
        if not counts.failed:
            return 0
        too_many = self.exceeds_max_failures(counts.failed, counts.read, from_row=0)
        return UpsertCliError.exit_code if self.strict or too_many else SOME_REJECTED

    def rows(self, sources: Sequence[Source]) -> Rows:
        """Return all rows of the sources, to be read as these options say."""
        from upsert_cli.sources.rows import Rows

        return Rows(sources=sources, id_field=self.id_field, id_from=self.id_from)

    def recipe(self, model: str, *, identity: str, dimension: int = 0) -> Recipe:
        """Return how to make documents of items, for a model's name, its identity and the dimension of its vectors."""
        from upsert_cli.documents.recipe import Recipe

        return Recipe(
            text_fields=self.text_fields,
            template=self.template,
            metadata_fields=self.metadata_fields,
            vector_field=self.vector_field,
            keep_lists=self.keep_lists,
            refs_root=None if self.refs_root is None else Path(self.refs_root),
            scope=self.scope,
            model=NO_MODEL if self.keep_vectors else model,
            identity=identity,
            dimension=dimension,
        )

    def differing(self, other: LoadOptions) -> tuple[str, ...]:
        """Return the names of the fields that make a load with `other` store other records."""
        return tuple(
            each.name
            for each in fields(self)
            if "decides" in each.metadata and getattr(self, each.name) != getattr(other, each.name)
        )

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, as plain data."""
        usual = _DEFAULTS.as_json()
        return {name: value for name, value in self.as_json().items() if value != usual.get(name)}

    def as_json(self) -> dict[str, Any]:
        """Return plain data for the journal.

        Options that were read from a journal keep the keys that they had there, so that a change of state neither drops
        keys of a newer version nor adds keys that an older one did not have.
        """
        options = {name: getattr(self, name) for name in _NAMES}
        if self.recorded is not None:
            kept = {name: options.get(name, value) for name, value in self.recorded.items()}
            changed = {name: value for name, value in options.items() if value != getattr(_DEFAULTS, name)}
            options = kept | changed
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadOptions:
        """Make options from their JSON; unknown keys, written by a newer version, are kept but have no effect."""
        known: dict[str, Any] = {name: value[name] for name in _NAMES if name in value}
        lists = {name: tuple(entry) for name, entry in known.items() if isinstance(entry, list)}
        return cls(**known | lists, recorded=dict(value))


_NAMES = tuple(each.name for each in fields(LoadOptions) if each.name != "recorded")
_DEFAULTS = LoadOptions()
MAPPING = tuple(each.name for each in fields(LoadOptions) if "maps" in each.metadata)
"""The options that say how to read rows that are not in item form."""


def _exceeds(limit: str, some: int, whole: int) -> bool:
    return some * 100 > float(limit[:-1]) * whole if limit.endswith("%") else some > int(limit)
