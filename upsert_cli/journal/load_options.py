"""The options of a load that its task keeps, so that a restart does the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from upsert_cli.embedding.catalog import NO_MODEL, POOLINGS
from upsert_cli.journal.option_field import (
    MAX_BATCH,
    MAX_GPUS,
    MAX_LIMIT,
    MAX_RETRY_FOR,
    MAX_THREADS,
    MAX_TOKEN_BUDGET,
    MAX_WORKERS,
    MAX_WRITERS,
    MIN_CHUNK_TOKENS,
    option,
)
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.formats import BINARY_FORMATS, SUFFIXES, TEXT_FORMATS

if TYPE_CHECKING:
    from upsert_cli.documents.recipe import Recipe
    from upsert_cli.embedding.catalog import GivenFolder, Pooling, Prefixes
    from upsert_cli.embedding.embedder import Device, Effort, Precision
    from upsert_cli.sources.item_mapping import IdFrom
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source

Engine = Literal["local", "ray"]

DEFAULT_MAX_DELETE = "20%"  # of the records in the scope


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The options of a load, parsed when its task is read from the journal.

    A field made by `option` is an option of `run`, whose name `flag` returns. Its text describes the field.
    """

    format: str | None = option(
        f"Format: {', '.join(TEXT_FORMATS)} (or .gz, .zst), {', '.join(BINARY_FORMATS)}.",
        maps=True,
        metavar="FORMAT",
        choices=tuple(SUFFIXES),
        usually="by the suffix",
    )
    id_field: str | None = option("The id's field, in rows that are not items.", maps=True, metavar="PATH")
    id_from: IdFrom | None = option("Make ids: FILENAME:ROW, or a hash of the row.", maps=True, choices=("row", "hash"))
    text_fields: tuple[str, ...] = option(
        "Fields with the text, dotted, joined by newlines; not repeated as metadata.",
        ("text",),
        maps=True,
        metavar="PATH,...",
        multiple=True,
        usually="text",
    )
    template: str | None = option(r"Text made of fields: 'title: {title}\n{body}'.", maps=True, metavar="TEXT")
    metadata_fields: tuple[str, ...] | None = option(
        "Fields to store as metadata, dotted; may name the text's.",
        maps=True,
        metavar="PATH,...",
        multiple=True,
        usually="all but the document's",
    )
    vector_field: str | None = option(
        "The field with an item's own vector.", maps=True, metavar="PATH", usually="vector"
    )
    keep_lists: bool = option("Store lists of one kind as lists, not JSON text.", False, maps=True)
    limit: int | None = option("Read only the first N rows.", decides=True, within=(1, MAX_LIMIT))
    """Over all sources."""

    where: dict[str, Any] | None = option(
        "Of a collection, read only the records of a filter.", decides=True, metavar="JSON"
    )
    keep_vectors: bool = option("Of a collection, copy the vectors; no model is used.", False, decides=True)
    refs_root: str | None = option(
        "Read the text of items without one from the files below DIR that they name.",
        decides=True,
        metavar="DIR",
        folder=True,
    )
    """Absolute."""

    scope: str | None = option(
        "Name these records as a set for --delete-missing.", decides=True, metavar="NAME", usually="from the sources"
    )
    """The scope of the records, if any. A task that deletes has always a scope, derived from its sources unless the
    user names one."""

    delete_missing: bool = option(
        "After a load without rejects, delete the scope's records that the sources no longer have.", False, decides=True
    )
    max_delete: str = option(
        "Refuse to delete more records.", DEFAULT_MAX_DELETE, metavar="N|N%", usually=DEFAULT_MAX_DELETE
    )
    """As `"10"` records or `"5%"` of the scope."""

    split: bool = option("Store a long text as chunks: ID#0, ID#1.", False, decides=True)
    max_tokens: int | None = option(
        "Tokens per chunk.", decides=True, within=(MIN_CHUNK_TOKENS, MAX_TOKEN_BUDGET), usually="the model's limit"
    )
    overlap: int = option("Tokens shared by adjacent chunks.", 0, decides=True, within=(0, MAX_TOKEN_BUDGET))
    average: bool = option("Also store an item's mean, as ID#average.", False, decides=True)
    model_path: str | None = option("The folder with the model's files.", decides=True, metavar="DIR", folder=True)
    pooling: Pooling | None = option(
        "mean, cls, last-token or none, for a model of your own.",
        decides=True,
        metavar="KIND",
        choices=POOLINGS,
        usually="as the files say",
    )
    no_normalize: bool = option("Keep the lengths of such a model's vectors.", False, decides=True)
    passage_prefix: str | None = option(
        "Embed this before each document; not stored.", "", decides=True, metavar="TEXT", usually="by the model"
    )
    """None only in a request, for the prefix that the model asks for; tasks of older versions have no prefix."""

    query_prefix: str | None = option(
        "`query` embeds this before its text.", "", decides=True, metavar="TEXT", usually="by the model"
    )
    offline: bool = option("Never look for the model on the network.", False)
    batch_size: int | None = option("Items per write.", within=(1, MAX_BATCH), usually="by measured speed")
    threads: int | None = option("Threads that embed.", within=(1, MAX_THREADS), usually="one per processor")
    token_budget: int | None = option("Padded tokens per call.", within=(1, MAX_TOKEN_BUDGET), usually="by device")
    precision: Precision = option(
        "Precision of the model; bf16 is faster on some processors.", "fp32", choices=("fp32", "bf16")
    )
    """The vectors of both are comparable."""

    device: Device = option("Where to embed; cuda needs onnxruntime-gpu.", "cpu", choices=("cpu", "cuda"))
    writers: int = option("Concurrent writes to a server.", 1, within=(1, MAX_WRITERS))
    retry_for: float = option("Retry failed requests this long.", RETRY_FOR, metavar="SECS", within=(0, MAX_RETRY_FOR))
    """Seconds."""

    engine: Engine = option("Load here, or on a Ray cluster.", "local", decides=True, choices=get_args(Engine))
    """A task keeps its engine, since each engine keeps files of another kind."""

    ray_address: str = option("The cluster: auto, local or HOST:PORT.", "auto", metavar="ADDRESS")
    workers: int | None = option("Worker processes.", within=(1, MAX_WORKERS), usually="one per machine")
    num_gpus_per_worker: float = option("GPUs per worker, for --device cuda.", 0.0, metavar="X", within=(0, MAX_GPUS))
    force: bool = option("Embed and write unchanged items too.", False)
    max_failures: str | None = option("Fail beyond N rejects.", metavar="N|N%", usually="no limit")
    """`"10"` items or `"5%"` of the items read."""

    strict: bool = option("Exit with 1, not 3, if an item was rejected.", False)
    verbose: bool = False

    recorded: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    """The JSON of these options in the journal, with the keys of the version that wrote it; None for new options."""

    @property
    def model_folder(self) -> Path | None:
        """The folder given for the model, if any."""
        return Path(self.model_path) if self.model_path is not None else None

    @property
    def given_model(self) -> GivenFolder | None:
        """The folder given for the model, if any, with the settings that its files may lack."""
        from upsert_cli.embedding.catalog import GivenFolder  # late: light commands only show the options

        if self.model_folder is None:
            return None
        return GivenFolder(path=self.model_folder, pooling=self.pooling, normalize=not self.no_normalize)

    @property
    def prefixes(self) -> Prefixes:
        """The texts to embed before each document and each query."""
        from upsert_cli.embedding.catalog import Prefixes  # late: light commands only show the options

        return Prefixes(self.passage_prefix or "", self.query_prefix or "")

    def with_prefixes(self, usual: Prefixes) -> LoadOptions:
        """Return the options of a request, with the usual prefixes where the user gave none."""
        return replace(
            self,
            passage_prefix=usual.passage if self.passage_prefix is None else self.passage_prefix,
            query_prefix=usual.query if self.query_prefix is None else self.query_prefix,
        )

    @property
    def effort(self) -> Effort:
        """The amount of work to embed at the same time."""
        from upsert_cli.embedding.embedder import Effort  # late: light commands only show the options

        return Effort.fitting(self.device, precision=self.precision, threads=self.threads, budget=self.token_budget)

    def exceeds_max_failures(self, failed: int, read: int, *, from_row: int) -> bool:
        """Check whether too many items were rejected; a percentage counts once `from_row` rows were read."""
        if self.max_failures is None or (self.max_failures.endswith("%") and read < max(from_row, 1)):
            return False
        return _exceeds(self.max_failures, failed, read)

    def exceeds_max_delete(self, missing: int, held: int) -> bool:
        """Check whether too many of the records in the scope would be deleted."""
        return _exceeds(self.max_delete, missing, held)

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
            if each.metadata.get("decides") and getattr(self, each.name) != getattr(other, each.name)
        )

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, as plain data."""
        usual = _DEFAULTS.as_json()
        return {name: value for name, value in self.as_json().items() if value != usual.get(name)}

    def as_json(self) -> dict[str, Any]:
        """Return plain data for the journal.

        Options from a journal keep the keys that they have there, so that a change of state neither drops the keys of a
        newer version nor adds keys that an older one did not know.
        """
        options = {name: getattr(self, name) for name in _NAMES}
        if self.recorded is not None:
            kept = {name: options.get(name, value) for name, value in self.recorded.items()}
            changed = {name: value for name, value in options.items() if value != getattr(_DEFAULTS, name)}
            options = kept | changed
        return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadOptions:
        """Return the options in their JSON; the keys of a newer version are kept, and have no effect."""
        known: dict[str, Any] = {name: value[name] for name in _NAMES if name in value}
        lists = {name: tuple(entry) for name, entry in known.items() if isinstance(entry, list)}
        return cls(**known | lists, recorded=dict(value))


_NAMES = tuple(each.name for each in fields(LoadOptions) if each.name != "recorded")
_DEFAULTS = LoadOptions()
OPTIONS = {each.name: each for each in fields(LoadOptions) if "help" in each.metadata}
"""The fields that are options of the command line, by name."""

MAPPING = tuple(name for name, each in OPTIONS.items() if each.metadata["maps"])
"""The options that say how to read rows that are not in item form."""


def _exceeds(limit: str, some: int, whole: int) -> bool:
    return some * 100 > float(limit[:-1]) * whole if limit.endswith("%") else some > int(limit)
