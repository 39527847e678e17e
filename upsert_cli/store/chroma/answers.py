"""The forms of Chroma's answers, by which an answer of another program is recognized.

Gateways, login pages and caches may answer instead of Chroma. Such an answer confirms no write and blames no row.
chromadb uses any answer unchecked, so each one is checked here first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, BaseModel, Field, NonNegativeInt, PositiveInt, TypeAdapter

from upsert_cli.errors import NotChromasAnswer
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.json_text import parse_plain
from upsert_cli.store.chroma.faults import short_line

if TYPE_CHECKING:
    import httpx

QUOTED_CHARACTERS = 120  # characters of an answer that are shown
GOOD = (200, 201)  # the statuses of an answer to a request that was carried out
_PREFIX = "/api/v2/"


def value_of(answer: httpx.Response) -> Any:
    """Return the value of a good answer, or `error` and `message` of an error that Chroma reports.

    Raises:
        NotChromasAnswer: The answer has another form.
    """
    try:
        value: Any = parse_plain(answer.content)
    except ValueError:
        raise not_chromas(answer.request, _described(answer), may_pass=True) from None
    if answer.status_code in GOOD:
        if not _fits(value, answer.request):
            raise not_chromas(answer.request, f"{answer.status_code} with {_quoted(answer.content)}")
    elif answer.is_success or not _is_error(value):
        raise not_chromas(answer.request, _described(answer), may_pass=True)
    return value


def not_chromas(request: httpx.Request, found: str, *, may_pass: bool = False) -> NotChromasAnswer:
    """Return the error for an answer that Chroma would not give; `found` describes it."""
    path = request.url.raw_path.decode().partition("?")[0]
    return NotChromasAnswer(
        url=f"{request.url.scheme}://{request.url.netloc.decode()}",
        request=f"{request.method} {path}",
        found=short_line(found),
        may_pass=may_pass,
    )


def _is_error(value: object) -> bool:
    """Return whether a value has the form of Chroma's errors.

    Those of gateways have more fields, or a phrase such as `Bad Request` instead of the name of a class.
    """
    if not isinstance(value, dict) or value.keys() != {"error", "message"}:
        return False
    name, message = value["error"], value["message"]
    return isinstance(name, str) and name.isidentifier() and isinstance(message, str)


def message_in(answer: httpx.Response) -> str:
    """Return the message of a failure in an answer, or "" for a page for a browser."""
    with suppress(ValueError):
        value = parse_plain(answer.content)
        if isinstance(value, dict):
            return str(value.get("message") or value.get("error") or _quoted(answer.content))
    return "" if answer.content.lstrip().startswith(b"<") else _quoted(answer.content)


def _described(answer: httpx.Response) -> str:
    """Return a description of an answer that Chroma would not give, as the end of a sentence."""
    status = f"{answer.status_code} {answer.reason_phrase}".rstrip()
    if answer.is_redirect:
        where = answer.headers.get("Location", "").partition("?")[0]
        return f"{status}, which leads to {where or 'another address'}"
    text = answer.content.strip()
    if not text:
        return f"{status} without a body"
    return f"{status} with {'a page for a browser' if text.startswith(b'<') else _quoted(text)}"


def _quoted(content: bytes) -> str:
    # Masked before it is cut: half a secret would not be recognized.
    text = " ".join(without_secrets(content.decode(errors="replace")).split())
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 3]}..."


# -- forms, in the parts that are used ---------------------------------------------------------------------------------


def _require_plain_values(metadata: dict[str, Any]) -> dict[str, Any]:
    # chromadb takes every object among the values for a sparse vector.
    for each in metadata.values():
        if isinstance(each, dict):
            indices, values = _NUMBERS.validate_python([each.get("indices"), each.get("values")], strict=True)
            if len(indices) != len(values):
                raise ValueError("a sparse vector has as many indices as values")
    return metadata


def _require_true(value: bool) -> bool:  # noqa: FBT001
    if not value:
        raise ValueError("a write that is not confirmed")
    return value


_NUMBERS = TypeAdapter(list[list[float]])
_Metadata = Annotated[dict[str, Any], AfterValidator(_require_plain_values)]


class _Limits(BaseModel):
    max_batch_size: PositiveInt
    supports_base64_encoding: bool = False


class _Identity(BaseModel):
    tenant: str | None = None
    databases: list[str] | None = None


class _Database(BaseModel):
    id: str = Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
    name: str


class _Function(BaseModel):
    name: str | None = None
    config: dict[str, Any] | None = None


class _Configuration(BaseModel):
    hnsw: dict[str, Any] | None = None
    spann: dict[str, Any] | None = None
    embedding_function: _Function | None = None


class _Collection(_Database):
    tenant: str
    database: str
    dimension: NonNegativeInt | None = None
    metadata: dict[str, Any] | None = None
    index_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    configuration_json: _Configuration | None = None
    version: NonNegativeInt | None = None
    log_position: int | None = None


class _GetResult(BaseModel):
    ids: list[str]
    documents: list[str | None] | None = None
    metadatas: list[_Metadata | None] | None = None
    embeddings: list[list[float] | None] | None = None

    def fits(self, asked: Mapping[str, Any]) -> bool:
        """Return whether the answer has the requested columns, and only requested records."""
        wanted, limit = asked.get("ids"), asked.get("limit")
        return (
            len(set(self.ids)) == len(self.ids)
            and (wanted is None or set(self.ids) <= set(wanted))
            and (limit is None or len(self.ids) <= limit)
            and all(_is_column(getattr(self, name), self.ids) for name in asked.get("include") or ())
        )


class _QueryResult(BaseModel):
    ids: list[list[str]]
    documents: list[list[str | None]] | None = None
    metadatas: list[list[_Metadata | None]] | None = None
    distances: list[list[float | None]] | None = None

    def fits(self, asked: Mapping[str, Any]) -> bool:
        """Return whether the answer has the requested columns for each vector, of at most `n_results` records."""
        return (
            len(self.ids) == len(asked.get("query_embeddings") or self.ids)
            and all(len(ids) <= asked.get("n_results", len(ids)) for ids in self.ids)
            and all(
                _is_column(column := getattr(self, name), self.ids) and all(map(_is_column, column, self.ids))
                for name in asked.get("include") or ()
            )
        )


def _is_column(values: Sequence[Any] | None, ids: Sequence[Any]) -> bool:
    return values is not None and len(values) == len(ids)


_IN_DATABASE = "tenants/[^/]+/databases/[^/]+"
_IN_COLLECTION = f"{_IN_DATABASE}/collections/[^/]+"
# Chroma confirms a write by `{}`, versions before 1.0 by `true`.
_WRITTEN = Annotated[dict[str, Any], Field(max_length=0)] | Annotated[bool, AfterValidator(_require_true)]
_DELETED = Annotated[dict[Literal["deleted"], NonNegativeInt], Field(min_length=1)]
_FORMS: Sequence[tuple[str, Any]] = (
    ("GET version", str),
    ("GET pre-flight-checks", _Limits),
    ("GET auth/identity", _Identity),
    (f"GET {_IN_DATABASE}", _Database),
    (f"GET {_IN_DATABASE}/collections", list[_Collection]),
    (f"POST {_IN_DATABASE}/collections|GET {_IN_COLLECTION}", _Collection),
    (f"(PUT|DELETE) {_IN_COLLECTION}|POST {_IN_COLLECTION}/(upsert|update|add)", _WRITTEN),
    (f"GET {_IN_COLLECTION}/count", NonNegativeInt),
    (f"POST {_IN_COLLECTION}/get", _GetResult),
    (f"POST {_IN_COLLECTION}/query", _QueryResult),
    (f"POST {_IN_COLLECTION}/delete", _WRITTEN | _DELETED),
    (".*", Any),  # answers that nobody uses
)
_CHECKS = [(re.compile(route), TypeAdapter[Any](form)) for route, form in _FORMS]


def _fits(value: object, request: httpx.Request) -> bool:
    """Return whether a value has the form of Chroma's answer to a request, and answers that request."""
    path = request.url.raw_path.decode().partition("?")[0].partition(_PREFIX)[2]
    check = next(check for route, check in _CHECKS if route.fullmatch(f"{request.method} {path}"))
    try:
        found = check.validate_python(value, strict=True)
    except ValueError:
        return False
    if not isinstance(found, _GetResult | _QueryResult | _Collection):
        return True  # without parsing the request, which may be large
    asked: Any = parse_plain(request.content) if request.content else {"name": unquote(path.rpartition("/")[2])}
    return bool(found.name == asked.get("name")) if isinstance(found, _Collection) else found.fits(asked)
