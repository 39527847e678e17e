"""The forms of Chroma's answers, by which an answer from something else is recognized.

Gateways, login pages and caches may answer instead of Chroma. Such an answer confirms no write and says nothing about a
row, so each answer is checked before it is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard
from urllib.parse import unquote

from upsert_cli.sources.json_text import parse_plain

if TYPE_CHECKING:
    from upsert_cli.store.chroma.exchange import ServerAnswer

QUOTED_CHARACTERS = 120  # characters of an answer that are shown
_PREFIX = "/api/v2/"
_DATABASE = 4  # parts of the path of a database: `tenants`, a name, `databases`, a name
_COLLECTION = 6
_REDIRECTS = range(300, 400)

NOTHING: Mapping[str, Any] = {}

Check: TypeAlias = Callable[[Any, Mapping[str, Any]], bool]


class NotChromas(ValueError):
    """Raised for an answer that Chroma would not give; its text describes the answer, as the end of a sentence."""

    def __init__(self, found: str, *, may_pass: bool) -> None:
        """Take what was found, and whether the same request may get an answer of Chroma's a moment later."""
        super().__init__(found)
        self.may_pass = may_pass


def value_of(answer: ServerAnswer, asked: bytes) -> Any:
    """Return the value of an answer, in the form that Chroma gives to this request, or of an error of Chroma's.

    Args:
        answer: To a request to the server.
        asked: The body of the request.

    Raises:
        NotChromas: It has another form.
    """
    try:
        value = parse_plain(answer.content)
    except ValueError:
        raise NotChromas(described(answer), may_pass=True) from None
    if not answer.is_good:
        if error_in(value) is None:
            raise NotChromas(described(answer), may_pass=True)
        return value
    check = _check_of(answer.method, answer.path)
    if not check(value, _asked(asked)):
        raise NotChromas(f"{answer.status} with {_quoted(answer.content)}", may_pass=False)
    return value


def error_in(value: Any) -> tuple[str, str] | None:
    """Return name and message of an error in Chroma's own format; None for anything else."""
    # Gateways have more fields, or a phrase such as `Bad Request` instead of the name of a class.
    if not isinstance(value, dict) or value.keys() != {"error", "message"}:
        return None
    name, message = value["error"], value["message"]
    if not isinstance(name, str) or not isinstance(message, str) or not name.isidentifier():
        return None
    return name, message


def message_in(answer: ServerAnswer) -> str:
    """Return the message of a failure in an answer, or "" for a page for a browser."""
    with suppress(ValueError):
        value = parse_plain(answer.content)
        if isinstance(value, dict):
            return str(value.get("message") or value.get("error") or _quoted(answer.content))
    return "" if answer.content.lstrip().startswith(b"<") else _quoted(answer.content)


def described(answer: ServerAnswer) -> str:
    """Return a description of an answer that Chroma would not give, as the end of a sentence."""
    status = f"{answer.status} {answer.reason}".rstrip()
    if answer.status in _REDIRECTS:
        where = answer.headers.get("Location", "").partition("?")[0]
        return f"{status}, which leads to {where or 'another address'}"
    text = answer.content.strip()
    if not text:
        return f"{status} without a body"
    if text.startswith(b"<"):
        return f"{status} with a page for a browser"
    return f"{status} with {_quoted(text)}"


def _quoted(content: bytes) -> str:
    text = " ".join(content[: QUOTED_CHARACTERS * 4].decode(errors="replace").split())
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 3]}..."


def _asked(body: bytes) -> Mapping[str, Any]:
    value: object = None
    with suppress(ValueError):  # a request without a body
        value = parse_plain(body)
    return value if isinstance(value, dict) else {}


def _check_of(method: str, path: str) -> Check:
    """Return the check for the answers to a request; an answer that is not used may be any JSON."""
    parts = path.partition(_PREFIX)[2].split("/")
    if parts[0] != "tenants" or len(parts) < _DATABASE:
        return _CHECKS.get((method, "/".join(parts)), _anything)
    if len(parts) == _DATABASE:
        return _CHECKS.get((method, "database"), _anything)
    if len(parts) == _COLLECTION:
        name = unquote(parts[-1])
        return _named(name) if method == "GET" else _CHECKS.get((method, "collection"), _anything)
    return _CHECKS.get((method, parts[-1]), _anything)


def _anything(_: Any, __: Mapping[str, Any]) -> bool:
    return True


def _is_text(value: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(value, str)


def _is_count(value: Any, _: Mapping[str, Any] = NOTHING) -> bool:
    return type(value) is int and value >= 0


def _is_done(value: Any, _: Mapping[str, Any]) -> bool:
    """Tell whether an answer confirms that something was written, as Chroma 1.x does or as earlier ones did."""
    return value is True or value == {}


def _is_deleted(value: Any, asked: Mapping[str, Any]) -> bool:
    return _is_done(value, asked) or (
        isinstance(value, dict) and value.keys() == {"deleted"} and _is_count(value["deleted"])
    )


def _is_limits(value: Any, _: Mapping[str, Any]) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("supports_base64_encoding", False), bool):
        return False
    return _is_count(size := value.get("max_batch_size")) and size != 0


def _is_identity(value: Any, _: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("tenant"), str | None)
        and _is_texts(value.get("databases") or [])
    )


def _is_database(value: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(value, dict) and _is_uuid(value.get("id")) and isinstance(value.get("name"), str)


def _is_collection(value: Any) -> bool:
    """Tell whether a value describes a collection in the parts that are used."""
    return (
        isinstance(value, dict)
        and _is_uuid(value.get("id"))
        and all(isinstance(value.get(key), str) for key in ("name", "tenant", "database"))
        and (value.get("dimension") is None or _is_count(value["dimension"]))
        and all(isinstance(value.get(key), dict | None) for key in ("metadata", "schema"))
        and _is_configuration(value.get("configuration_json"))
    )


def _is_configuration(value: Any) -> bool:
    if value is None:
        return True
    keys = ("hnsw", "spann", "embedding_function")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), dict | None) for key in keys):
        return False
    function = value.get("embedding_function") or {}
    return isinstance(function.get("name"), str | None) and isinstance(function.get("config"), dict | None)


def _named(name: str) -> Check:
    return lambda value, _: _is_collection(value) and value["name"] == name


def _is_made(value: Any, asked: Mapping[str, Any]) -> bool:
    return _is_collection(value) and value["name"] == asked.get("name")


def _is_collections(value: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and all(map(_is_collection, value))


def _is_records(value: Any, asked: Mapping[str, Any]) -> bool:
    """Tell whether an answer has the requested columns, and no other records than those requested."""
    if not isinstance(value, dict) or not _is_texts(ids := value.get("ids")) or len(set(ids)) != len(ids):
        return False
    wanted, limit = asked.get("ids"), asked.get("limit")
    if (wanted is not None and not set(ids) <= set(wanted)) or (limit is not None and len(ids) > limit):
        return False
    return _has_columns(value, asked, len(ids))


def _is_nearest(value: Any, asked: Mapping[str, Any]) -> bool:
    """Tell whether an answer has the requested columns for each vector, of at most `n_results` records."""
    if not isinstance(value, dict) or not isinstance(groups := value.get("ids"), list):
        return False
    if len(groups) != len(asked.get("query_embeddings") or groups):
        return False
    columns = {name: value.get(name) for name in asked.get("include") or ()}
    if any(not isinstance(column, list) or len(column) != len(groups) for column in columns.values()):
        return False
    return all(
        _is_texts(ids)
        and len(ids) <= asked.get("n_results", len(ids))
        and _has_columns({name: column[group] for name, column in columns.items() if column}, asked, len(ids))
        for group, ids in enumerate(groups)
    )


def _has_columns(value: Mapping[str, Any], asked: Mapping[str, Any], rows: int) -> bool:
    for name in asked.get("include") or ():
        column = value.get(name)
        if not isinstance(column, list) or len(column) != rows:
            return False
        if not all(each is None or _COLUMNS[name](each) for each in column):
            return False
    return True


def _is_metadata(value: Any) -> bool:
    # chromadb takes an object as a value to be a sparse vector.
    return isinstance(value, dict) and not any(
        isinstance(each, dict) and not _is_sparse(each) for each in value.values()
    )


def _is_sparse(value: Mapping[str, Any]) -> bool:
    places, numbers = value.get("indices"), value.get("values")
    return _is_vector(places) and _is_vector(numbers) and len(places) == len(numbers)


def _is_vector(value: Any) -> TypeGuard[list[float]]:
    return isinstance(value, list) and set(map(type, value)) <= {float, int}


def _is_distance(value: Any) -> bool:
    return type(value) in (float, int)


def _is_document(value: Any) -> bool:
    return isinstance(value, str)


_COLUMNS: dict[str, Callable[[Any], bool]] = {
    "documents": _is_document,
    "metadatas": _is_metadata,
    "embeddings": _is_vector,
    "distances": _is_distance,
}


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_uuid(value: Any) -> bool:
    with suppress(ValueError):
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    return False


_CHECKS: dict[tuple[str, str], Check] = {
    ("GET", "version"): _is_text,
    ("GET", "pre-flight-checks"): _is_limits,
    ("GET", "auth/identity"): _is_identity,
    ("GET", "database"): _is_database,
    ("GET", "collections"): _is_collections,
    ("POST", "collections"): _is_made,
    ("PUT", "collection"): _is_done,
    ("DELETE", "collection"): _is_done,
    ("GET", "count"): _is_count,
    ("POST", "get"): _is_records,
    ("POST", "query"): _is_nearest,
    ("POST", "upsert"): _is_done,
    ("POST", "update"): _is_done,
    ("POST", "add"): _is_done,
    ("POST", "delete"): _is_deleted,
}
