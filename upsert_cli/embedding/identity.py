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

Origin: TypeAlias = Literal["given folder", "cache", "model hub", "package index"]

_PUBLISHED = "published"


class Weights(NamedTuple):
    """The content of a model's files."""

    digest: str
    """Of `weights.digest_of`; empty if not known."""

    is_published: bool
    """Whether they are known as the published ones of the model's name. These may come in several forms, such as the
    graph of the model hub and the one that is built from the package index, which give the same vectors."""

    def is_same(self, other: Weights) -> bool:
        """Check that both give the same vectors."""
        return self.digest == other.digest or (self.is_published and other.is_published)

    def __str__(self) -> str:
        """Return them as one word or two, for the stamp of a collection."""
        return f"{_PUBLISHED} {self.digest}" if self.is_published else self.digest

    @classmethod
    def parsed(cls, text: str) -> Weights:
        """Return the weights of a stamp."""
        published, _, digest = text.rpartition(" ")
        return cls(digest, published == _PUBLISHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """The identity of a model, as far as it is known."""

    name: str
    """As fastembed spells it; empty if not known."""

    dimension: int
    """Numbers of a vector; 0 if not known."""

    max_tokens: int
    """Tokens of a text that the model reads, special tokens included; the rest is truncated. 0 if not known."""

    prefixes: Prefixes = NO_PREFIXES
    pooling: str = ""
    """How vectors are made of the model's output, of a model that fastembed does not list."""

    weights: Weights | None = None
    """None if not known, as in collections of older versions."""

    @property
    def identity(self) -> ModelIdentity:
        """Return the identity alone, without the files of a model."""
        return ModelIdentity(**{field.name: getattr(self, field.name) for field in fields(ModelIdentity)})

    @property
    def hashed(self) -> str:
        """Return the part that decides a document's vector, for the hash of its record.

        Without the weights: a collection has the same ones for all of its records, and its stamp names them.
        """
        if not embeds(self.name):
            return NO_MODEL  # a vector that an item brings is hashed itself
        identity = f"{self.name}|{self.dimension}|{self.max_tokens}"
        pooling = f"|pooling: {self.pooling}" if self.pooling else ""
        return f"{identity}{pooling}" + (f"|{self.prefixes.passage}" if self.prefixes.passage else "")

    @property
    def is_chromas_default(self) -> bool:
        """Check that the model gives the vectors of Chroma's own default embedding function."""
        is_published = self.weights is None or self.weights.is_published
        return self.name == DEFAULT_MODEL and self.prefixes == NO_PREFIXES and is_published

    def differences(self, asked: ModelIdentity) -> Iterator[tuple[str, str, str]]:
        """Yield the differences between this model, which made a collection, and one that is asked for.

        Each has the name of the part and both values, such as `("dimension", "384", "512")`.
        """
        for what, had, wanted in (
            ("model", self.name, asked.name),
            ("dimension", self.dimension, asked.dimension),
            ("token limit", self.max_tokens, asked.max_tokens),
            ("pooling", self.pooling, asked.pooling),
        ):
            if had and wanted and str(had).lower() != str(wanted).lower():  # a model's name in any case of letters
                yield what, str(had), str(wanted)
        if self.prefixes != asked.prefixes:
            yield "prefixes", self.prefixes.as_arguments(), asked.prefixes.as_arguments()
        if self.weights and asked.weights and not self.weights.is_same(asked.weights):
            yield "weights", self.weights.digest, asked.weights.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(ModelIdentity):
    """A model whose files are on this machine."""

    folder: Path
    """fastembed's `specific_model_path`."""

    source: Origin
    entry: ModelEntry

    @property
    def is_given(self) -> bool:
        """Check that the user keeps the folder, so that it must not be removed."""
        return self.source == "given folder"

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
    """The vectors that the items bring, in place of a model: nothing is looked for, loaded or embedded."""

    name: str = NO_MODEL
    """`none`, or the model that made the vectors of a collection, where that names it and they are kept."""

    max_tokens: int = 0
    space: str | None = None
    """How distances are measured in the collection that they are kept from; None if they come from items."""

    function: str | None = None
    """The model of that collection's embedding function, where nothing else names one."""

    @classmethod
    def of(cls, model: ModelIdentity, *, space: str | None, function: str | None = None) -> OwnVectors:
        """Return the vectors that a model made, which are kept."""
        identity = {field.name: getattr(model, field.name) for field in fields(ModelIdentity)}
        return cls(**identity, space=space, function=function)


CHROMAS_DEFAULT = ModelIdentity(
    name=DEFAULT_MODEL,
    dimension=DEFAULT_ENTRY.dimension,
    max_tokens=MAX_TOKENS,
    weights=Weights("", is_published=True),
)
"""The model of Chroma's own default embedding function."""


def identity_if_known(name: str, prefixes: Prefixes) -> ModelIdentity | None:
    """Return the identity of a model if it is known without any file, as that of the default model is."""
    return replace(CHROMAS_DEFAULT, prefixes=prefixes) if name.lower() == DEFAULT_MODEL.lower() else None
