"""The recipe by which items become documents, and the templates of their texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.embedding.catalog import DEFAULT_MODEL, embeds
from upsert_cli.errors import UsageFault

if TYPE_CHECKING:
    from upsert_cli.documents.splitter import Splitter

TEXT_FIELD = "text"  # of the payload; holds the document of a stored record
DEFAULT_TEXT_FIELDS = (TEXT_FIELD,)
VECTOR_FIELD = "vector"  # of the payload; a list in it is a vector, without an option

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}  # a shell passes a typed \n unchanged


@dataclass(frozen=True, kw_only=True)  # without slots, for the cached properties
class Recipe:
    """The options by which items become documents. All that a recipe decides about a record is part of its hash."""

    text_fields: tuple[str, ...] = DEFAULT_TEXT_FIELDS
    """Dotted paths in the payload; their texts are joined by line breaks."""

    template: str | None = None
    """Such as `title: {title}\\n{body}`; takes precedence over the text fields."""

    metadata_fields: tuple[str, ...] | None = None
    """Dotted paths in the payload of the fields that become metadata; None: all that do not make up the document."""

    vector_field: str | None = None
    """Dotted path in the payload of the vector that an item may bring; None: `vector`, where that is a list."""

    keep_lists: bool = False
    """Lists of one scalar kind stay lists."""

    refs_root: Path | None = None
    """The folder of the files from which items without a text may take it; their `item_info` names the file."""

    scope: str | None = None
    """The loads that may delete the record when it is gone from their sources; None: no load may."""

    identity: str
    """The model's identity and the options of embedding."""

    model: str = DEFAULT_MODEL
    """The model's name. With `none`, every item has to bring its vector, and may lack a text."""

    dimension: int = 0
    """Numbers of a vector; 0 while unknown."""

    splitter: Splitter | None = None
    """The splitter of every text; None: an item is one document."""

    average: bool = False
    """The mean of an item's chunks becomes a record too."""

    @cached_property
    def embeds(self) -> bool:
        """Whether a model embeds the texts."""
        return embeds(self.model)

    @cached_property
    def text_paths(self) -> tuple[str, ...]:
        """The dotted paths in the payload of the fields that make up the text, each once."""
        return tuple(dict.fromkeys(self.text_fields)) if self.template is None else template_fields(self.template)


# -- templates ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the literal texts of a template, each with the dotted path of the field after it; None at the end.

    Unlike in Python's format strings, a field is a path of keys and nothing else.

    Raises:
        UsageFault: A brace has no partner, or the template names no field.
    """
    parts: list[tuple[str, str | None]] = []
    literal, end = "", 0
    for token in _TOKEN.finditer(template):
        literal += template[end : token.start()]
        end = token.end()
        if token[0] in _ESCAPES:
            literal += _ESCAPES[token[0]]
            continue
        path = (token["path"] or "").strip()
        if not path:
            raise _bad_template(template, f"`{token[0]}` at character {token.start() + 1} names no field")
        parts.append((literal, path))
        literal = ""
    if not parts:
        raise _bad_template(template, "it names no field")
    return (*parts, (literal + template[end:], None))


def _bad_template(template: str, reason: str) -> UsageFault:
    return UsageFault(
        message=f"--template {template!r}: {reason}; it takes `{{field}}` or `{{outer.inner}}`, and `{{{{` and `}}}}` "
        "for the braces themselves"
    )


@lru_cache(maxsize=16)
def template_fields(template: str) -> tuple[str, ...]:
    """Return the paths of the fields in a template, each once."""
    return tuple(dict.fromkeys(path for _, path in parse_template(template) if path is not None))
