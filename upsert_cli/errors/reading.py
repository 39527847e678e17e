"""What is wrong with a collection that is verified or asked."""

from __future__ import annotations

import json
import shlex
from typing import Any

from upsert_cli.errors.base import Refusal, UpsertCliError, UsageFault

# -- verification ------------------------------------------------------------------------------------------------------


class ChromaNotFound(UpsertCliError):
    """Raised when the collections of a folder are asked for that has none, nor ever had."""

    path: str

    def __str__(self) -> str:
        return f"there is no Chroma in {self.path}; --chroma names another folder, `upsert-cli run` makes one"


class CollectionNotFound(UpsertCliError):
    """Raised when a collection that is to be read is not there."""

    path: str
    collection: str

    def __str__(self) -> str:
        return (
            f"there is no collection {self.collection} in {self.path}; --collection and --chroma name another one, "
            f"`upsert-cli run` makes it"
        )


class ModelUnknown(Refusal):
    """Raised when vectors are to be made, for records or for a query, and nothing says by which model."""

    path: str
    collection: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} does not say which model made its vectors, "
            f"so no vector was made; load it anew into a collection of this tool's own"
        )


# -- queries -----------------------------------------------------------------------------------------------------------


class CollectionEmpty(UpsertCliError):
    """Raised when a collection that is to be queried holds no record."""

    path: str
    collection: str

    def __str__(self) -> str:
        return f"the collection {self.collection} in {self.path} holds no record; `upsert-cli run` loads into it"


class QueryDimensionMismatch(Refusal):
    """Raised when a collection holds vectors of another length than those of the model that it names."""

    path: str
    collection: str
    had: int
    gives: int
    model: str

    def __str__(self) -> str:
        return (
            f"the collection {self.collection} in {self.path} holds vectors of {self.had} numbers, and {self.model} "
            f"gives {self.gives}; query it by the program that filled it, or name another --collection"
        )


class BlankQuery(UsageFault):
    """Raised when there is no text to query for."""

    def __str__(self) -> str:
        return "the text to query for is blank; give some words, in quotes"


class BadFilter(UsageFault):
    """Raised when Chroma does not understand the filter of a query."""

    given: dict[str, Any]
    reason: str

    def __str__(self) -> str:
        return (
            f"--where {json.dumps(self.given)}: {self.reason}; it takes a filter of Chroma's on the metadata, "
            f'such as \'{{"year": 2024}}\' or \'{{"year": {{"$gte": 2024}}}}\''
        )


def _repair_command(collection: str, path: str) -> str:
    return f"upsert-cli verify --repair --collection {shlex.quote(collection)} --chroma {shlex.quote(path)}"
