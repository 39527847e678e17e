"""The identity of a model: vectors of equal identities can be compared, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from upsert_cli.embedding.catalog import (
    DEFAULT_ENTRY,
    DEFAULT_MODEL,
    MAX_TOKENS,
    NO_MODEL,
    NO_PREFIXES,
    ModelEntry,
    Prefixes,
    embeds,
)
from upsert_cli.errors import UpsertCliError
from upsert_cli.limits import library_fault

Origin: TypeAlias = Literal["given folder", "cache", "model hub", "package index"]
"""The origin of a model's files."""

_PUBLISHED = "published"


class Weights(NamedTuple):
    """The weights of a model, by the content of its files."""

    digest: str
    """By `weights.digest_of`; empty if not known."""

    is_published: bool
    """Whether they are the published weights of the model's name. These come in several forms that give the same
    vectors, such as the graph of the model hub and the graph that is built from the package index."""

    def is_same(self, other: Weights) -> bool:
        """Check that both give the same vectors."""
        return self.digest == other.digest or (self.is_published and other.is_published)

    def __str__(self) -> str:
        """Return one word or two for the stamp of a collection, such as `published 0f3a...`."""
        return f"{_PUBLISHED} {self.digest}" if self.is_published else self.digest

    @classmethod
    def parsed(cls, text: str) -> Weights:
        """Return the weights in the stamp of a collection."""
        published, _, digest = text.rpartition(" ")
        return cls(digest, published == _PUBLISHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The identity of a model, as far as known."""

    name: str
    """In fastembed's spelling; empty if not known."""

    dimension: int
    """Numbers of a vector; 0 if not known."""

    max_tokens: int
    """The tokens of a text that the model reads, including the special tokens; 0 if not known."""

    prefixes: Prefixes = NO_PREFIXES
    pooling: str = ""
    """The steps from the model's output to a vector, such as `mean, normalized`; empty for a model of fastembed."""

    weights: Weights | None = None
    """None if not known, as in collections of older versions."""

    @property
    def identity(self) -> ModelIdentity:
        """Return the identity without the files of a model."""
        return ModelIdentity(**{field.name: getattr(self, field.name) for field in fields(ModelIdentity)})

    @property
    def hashed(self) -> str:
        """Return the text that stands for the model in the hash of a record.

        The weights are not part of the text: all records of a collection have the same, and its stamp names them.
        """
        if not embeds(self.name):
            return NO_MODEL  # the hash covers the item's own vector
        pooling = f"|pooling: {self.pooling}" if self.pooling else ""
        passage = f"|{self.prefixes.passage}" if self.prefixes.passage else ""
        return f"{self.name}|{self.dimension}|{self.max_tokens}{pooling}{passage}"

    @property
    def is_chromas_default(self) -> bool:
        """Check that the model gives the same vectors as Chroma's default embedding function."""
        is_published = self.weights is None or self.weights.is_published
        return self.name == DEFAULT_MODEL and self.prefixes == NO_PREFIXES and is_published

    def differences(self, asked: ModelIdentity) -> Iterator[tuple[str, str, str]]:
        """Yield the differences between this model, which made a collection, and the model that is asked for.

        Each is the name of a part with both values, such as `("dimension", "384", "512")`.
        """
        for part, had, wanted in (
            ("model", self.name, asked.name),
            ("dimension", self.dimension, asked.dimension),
            ("token limit", self.max_tokens, asked.max_tokens),
            ("pooling", self.pooling, asked.pooling),
        ):
            if had and wanted and str(had).lower() != str(wanted).lower():  # names are compared without case
                yield part, str(had), str(wanted)
        if self.prefixes != asked.prefixes:
            yield "prefixes", self.prefixes.as_arguments(), asked.prefixes.as_arguments()
        if self.weights and asked.weights and not self.weights.is_same(asked.weights):
            yield "weights", self.weights.digest, asked.weights.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(ModelIdentity):
    """A model whose files are on this machine."""

    folder: Path
    source: Origin
    entry: ModelEntry

    @property
    def is_given(self) -> bool:
        """Check that the folder belongs to the user, so that it must not be removed."""
        return self.source == "given folder"

    @property
    def network(self) -> Path:
        """Return the file with the model's network, or with its table of vectors."""
        return self.folder / self.entry.weights[0]

    def not_loadable(self, error: Exception) -> UpsertCliError:
        """Return the error for a failure of a library to load the model."""
        remedy = "give --model-path another folder" if self.is_given else "remove the folder, and it is fetched again"
        return library_fault(error, problem=f"the model {self.name} in {self.folder} cannot be loaded", remedy=remedy)

    def as_json(self) -> dict[str, Any]:
        """Return the model as a JSON object."""
        return {
            "name": self.name,
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            **({"pooling": self.pooling, "graph": self.entry.weights[0]} if self.pooling else {}),
            **self.prefixes.as_json(),
            "folder": str(self.folder),
            "source": self.source,
            "weights": None if self.weights is None else self.weights.digest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnVectors(ModelIdentity):
    """Vectors that the items bring or that are kept from a collection, in place of a model."""

    name: str = NO_MODEL
    """`none`, or the model that the collection names for the vectors that are kept."""

    max_tokens: int = 0
    space: str | None = None
    """The distance of the collection whose vectors are kept: `cosine`, `l2` or `ip`; None for vectors of items."""

    function: str | None = None
    """The model of that collection's embedding function, where the collection names no other."""

    @classmethod
    def of(cls, model: ModelIdentity, *, space: str | None, function: str | None = None) -> OwnVectors:
        """Return the vectors of a model that are kept from a collection."""
        identity = {field.name: getattr(model, field.name) for field in fields(ModelIdentity)}
        return cls(**identity, space=space, function=function)


CHROMAS_DEFAULT = ModelIdentity(
    name=DEFAULT_MODEL,
    dimension=DEFAULT_ENTRY.dimension,
    max_tokens=MAX_TOKENS,
    weights=Weights("", is_published=True),
)
"""The model of Chroma's default embedding function."""


def identity_if_known(name: str, prefixes: Prefixes) -> ModelIdentity | None:
    """Return the identity of the default model, which is known without its files; None for any other name."""
    return replace(CHROMAS_DEFAULT, prefixes=prefixes) if name.lower() == DEFAULT_MODEL.lower() else None
