"""How documents are made of items: the fields, or the template, of the text, and what becomes metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from upsert_cli.documents.chunking import Splitter
from upsert_cli.embedding.catalog import DEFAULT_MODEL, embeds
from upsert_cli.errors import UsageFault

DEFAULT_TEXT_FIELDS = ("text",)

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}  # a shell passes a typed \n unchanged


@dataclass(frozen=True, kw_only=True)  # without slots, for the cached properties
class Recipe:
    """How documents are made of items; anything that it changes in a record changes the record's hash."""

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
    """The folder with the files that `item_info` may name for the text of an item without one."""

    scope: str | None = None
    """Which loads the record belongs to, and so which of them may delete it; None: none."""

    identity: str
    """The model's identity and the options of embedding."""

    model: str = DEFAULT_MODEL
    """Its name; with `none`, every item has to bring its vector, and may lack a text."""

    dimension: int = 0
    """Numbers of a vector; 0 if not known."""

    splitter: Splitter | None = None
    """Splits the text of every item into chunks; None: an item is one document."""

    average: bool = False
    """The mean of an item's chunks becomes a record too."""

    @cached_property
    def embeds(self) -> bool:
        """Whether texts are embedded by a model."""
        return embeds(self.model)

    @cached_property
    def text_paths(self) -> tuple[str, ...]:
        """The dotted paths in the payload that the text is made of, each once."""
        return tuple(dict.fromkeys(self.text_fields)) if self.template is None else template_fields(self.template)


@lru_cache(maxsize=16)
def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the literal texts of a template, each with the dotted path of the field after it; None at the end.

    A field is only ever a path of keys, unlike in Python's format strings.

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
    """Return the paths that a template names, each once."""
    return tuple(dict.fromkeys(path for _, path in parse_template(template) if path is not None))
