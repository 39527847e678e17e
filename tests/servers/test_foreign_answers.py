"""Answers that are not Chroma's: they confirm nothing, blame no row, and take no more than their share of time and memory."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.items import Items
from tests.support.proxy import Call, Fault, Proxy
from tests.support.terminal import Terminal
from upsert_cli.errors import NotChromasAnswer, UpsertCliError
from upsert_cli.store.address import Access
from upsert_cli.store.chroma import http_exchange, http_session
from upsert_cli.store.chroma.answers import value_of
from upsert_cli.store.chroma.http_session import HttpSession, Unacceptable

DATABASE = "/api/v2/tenants/default_tenant/databases/default_database"
COLLECTION = f"{DATABASE}/collections/00000000-0000-4000-8000-000000000000"
LIMIT = 1 << 20  # bytes of an answer, in these tests
SILENCE = 0.4  # seconds for a request, in these tests

LOGIN = Fault(status=200, body=b"<html>log in to the network</html>")
FOREIGN = {
    "login page": LOGIN,
    "empty 200": Fault(status=200, body=b""),
    "empty 201": Fault(status=201, body=b""),
    "empty 204": Fault(status=204, body=b""),
    "accepted": Fault(status=202, body=b"{}"),
    "redirect": Fault(status=302, headers={"Location": "https://login.example/?next=a"}, body=b""),
    "text": Fault(status=200, body=b"OK"),
    "broken JSON": Fault(status=200, body=b'{"a":'),
    "another JSON": Fault(status=200, body=b'{"status":"ok"}'),
    "an error with 200": Fault(status=200, message="a row is wrong"),
    "null": Fault(status=200, body=b"null"),
    "not a number": Fault(status=200, body=b"NaN"),
    "gateway, 400": Fault(status=400, body=b'{"message":"Bad Request"}'),
    "Spring, 422": Fault(status=422, body=b'{"timestamp":1,"error":"Invalid","message":"no","path":"/"}'),
    "FastAPI, 422": Fault(status=422, body=b'{"detail":[{"loc":["body"],"msg":"field required"}]}'),
    "page, 400": Fault(status=400, body=b"<html>400</html>"),
    "page, 413": Fault(status=413, body=b"<html>413</html>"),
    "text, 404": Fault(status=404, body=b"default backend - 404"),
    "page, 520": Fault(status=520, body=b"<html>unknown error</html>"),
    "packed in another way": Fault(status=200, headers={"Content-Encoding": "br"}, body=b"{}"),
    "broken gzip": Fault(status=200, headers={"Content-Encoding": "gzip"}, body=b"{}"),
}


def on(ending: str, fault: Fault, method: str = "POST") -> Callable[[Call], Fault | None]:
    """Return a plan that does the same to all requests of a kind."""
    return lambda call: fault if call.method == method and call.path.partition("?")[0].endswith(ending) else None


@pytest.fixture
def asking(proxy: Proxy) -> Iterator[HttpSession]:
    """Yield a session that has found Chroma at its address, and has little patience."""
    with closing(HttpSession(proxy.url, Access(), retry_for=0.3, notify=lambda _: None)) as asking:
        asking.request("GET", f"{proxy.url}/api/v2/version")
        yield asking


@pytest.mark.parametrize("kind", FOREIGN)
def test_an_answer_that_is_not_chromas_confirms_no_write(proxy: Proxy, asking: HttpSession, kind: str) -> None:
    """An answer to a write that is not Chroma's is an error that names the request, and never a row's fault."""
    proxy.plan = on("/upsert", FOREIGN[kind])
    with pytest.raises(NotChromasAnswer) as failed:
        asking.request("POST", f"{proxy.url}{COLLECTION}/upsert", content=b'{"ids": []}')
    said = str(failed.value)
    assert f"{proxy.url}: the answer to POST {COLLECTION}/upsert is not Chroma's" in said
    assert "next=a" not in said


def test_a_gateway_that_answers_for_a_moment_is_waited_for(proxy: Proxy) -> None:
    """A request that a gateway answers itself is made again, and Chroma's answer counts."""
    proxy.plan = lambda call: FOREIGN["text, 404"] if call.number in {2, 3} else None
    messages: list[str] = []
    with closing(HttpSession(proxy.url, Access(), retry_for=60.0, notify=messages.append)) as asking:
        asking.request("GET", f"{proxy.url}/api/v2/version")
        assert asking.request("GET", f"{proxy.url}/api/v2/pre-flight-checks").json()["max_batch_size"] > 0
    assert proxy.faults == 2
    (message,) = messages
    assert message.startswith(f"{proxy.url}: 404 ")
    assert message.count(proxy.url) == 1
    assert "then try again" not in message


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=422, message="a value of another type"),
        Fault(status=413, body=b"Payload too large"),
        Fault(status=413, body=b'{"error":"BatchSizeExceededError","message":"too many"}'),
    ],
)
def test_an_error_about_data_in_chromas_words_may_blame_a_row(proxy: Proxy, asking: HttpSession, fault: Fault) -> None:
    """An error in Chroma's own form is about the rows of its request."""
    proxy.plan = on("/upsert", fault)
    with pytest.raises(Unacceptable):
        asking.request("POST", f"{proxy.url}{COLLECTION}/upsert", content=b'{"ids": []}')


IDENTITY = "00000000-0000-4000-8000-000000000000"
DESCRIPTION: dict[str, Any] = {
    "id": IDENTITY,
    "name": "one",
    "tenant": "t",
    "database": "d",
    "dimension": None,
    "metadata": None,
    "configuration_json": {"hnsw": {"space": "cosine"}, "spann": None, "embedding_function": None},
}
GET = {"ids": ["a", "b"], "include": ["documents", "metadatas"]}
QUERY = {"query_embeddings": [[1.0]], "n_results": 1, "include": ["documents", "metadatas", "distances"]}
RIGHT: list[tuple[str, str, Any, Any]] = [
    ("GET", "/api/v2/version", None, "1.0.0"),
    ("GET", "/api/v2/pre-flight-checks", None, {"max_batch_size": 5461, "supports_base64_encoding": True}),
    ("GET", "/api/v2/pre-flight-checks", None, {"max_batch_size": 166}),
    ("GET", "/api/v2/auth/identity", None, {"user_id": "", "tenant": "t", "databases": ["d"]}),
    ("GET", DATABASE, None, {"id": IDENTITY, "name": "d", "tenant": "t"}),
    ("GET", f"{DATABASE}/collections", None, [DESCRIPTION]),
    ("GET", f"{DATABASE}/collections/one", None, DESCRIPTION),
    ("POST", f"{DATABASE}/collections", {"name": "one"}, DESCRIPTION),
    ("GET", f"{COLLECTION}/count", None, 0),
    ("POST", f"{COLLECTION}/upsert", None, {}),
    ("POST", f"{COLLECTION}/upsert", None, True),
    ("POST", f"{COLLECTION}/delete", None, {"deleted": 2}),
    ("POST", f"{COLLECTION}/get", GET, {"ids": ["b"], "documents": [None], "metadatas": [{"n": [1, 2]}]}),
    ("POST", f"{COLLECTION}/query", QUERY, {"ids": [[]], "documents": [[]], "metadatas": [[]], "distances": [[]]}),
]
WRONG: list[tuple[str, str, Any, list[Any]]] = [
    ("GET", "/api/v2/version", None, [{"version": "1.0.0"}, 1]),
    (
        "GET",
        "/api/v2/pre-flight-checks",
        None,
        [
            {"max_batch_size": 0},
            {"max_batch_size": -1},
            {"max_batch_size": "x"},
            {"max_batch_size": True},
            {"max_batch_size": 5, "supports_base64_encoding": "no"},
            {},
            [],
            None,
        ],
    ),
    ("GET", "/api/v2/auth/identity", None, [{"tenant": 5, "databases": []}, {"tenant": "t", "databases": "d"}]),
    ("GET", DATABASE, None, [{"name": "d"}, [], "d"]),
    ("GET", f"{DATABASE}/collections", None, [{"collections": []}, ["one"], None]),
    (
        "GET",
        f"{DATABASE}/collections/one",
        None,
        [
            "one",
            DESCRIPTION | {"name": "another"},
            DESCRIPTION | {"id": "x"},
            DESCRIPTION | {"id": None},
            DESCRIPTION | {"dimension": "384"},
            DESCRIPTION | {"metadata": []},
            DESCRIPTION | {"configuration_json": "{}"},
            DESCRIPTION | {"configuration_json": {"hnsw": []}},
            DESCRIPTION | {"configuration_json": {"embedding_function": {"name": 1}}},
        ],
    ),
    ("POST", f"{DATABASE}/collections", {"name": "two"}, [DESCRIPTION, {}]),
    ("GET", f"{COLLECTION}/count", None, ["1", -1, 1.5, True, None, {"count": 1}]),
    ("POST", f"{COLLECTION}/upsert", None, [[], "ok", 1, False, {"ids": []}, {"deleted": 1}]),
    ("POST", f"{COLLECTION}/delete", None, [{"deleted": "2"}, ["a"]]),
    (
        "POST",
        f"{COLLECTION}/get",
        GET,
        [
            {"x": 1},
            {"ids": None, "documents": [], "metadatas": []},
            {"ids": "ab", "documents": ["x", "y"], "metadatas": [None, None]},
            {"ids": ["a"], "documents": None, "metadatas": [None]},
            {"ids": ["a"], "documents": ["x"]},
            {"ids": ["a"], "documents": [1], "metadatas": [None]},
            {"ids": ["a"], "documents": ["x"], "metadatas": ["x"]},
            {"ids": ["a"], "documents": ["x"], "metadatas": [{"n": {"#type": "sparse_vector"}}]},
            {"ids": ["a", "b"], "documents": ["x"], "metadatas": [None]},
            {"ids": ["a", "a"], "documents": ["x", "x"], "metadatas": [None, None]},
            {"ids": ["c"], "documents": ["x"], "metadatas": [None]},
        ],
    ),
    (
        "POST",
        f"{COLLECTION}/get",
        {"include": ["embeddings"], "limit": 1},
        [
            {"ids": ["a"], "embeddings": [["1"]]},
            {"ids": ["a"], "embeddings": ["AAAA"]},
            {"ids": ["a"], "embeddings": []},
            {"ids": ["a", "b"], "embeddings": [[1.0], [1.0]]},
        ],
    ),
    (
        "POST",
        f"{COLLECTION}/query",
        QUERY,
        [
            {"ids": ["a"], "documents": ["x"], "metadatas": [None], "distances": [0]},
            {"ids": [], "documents": [], "metadatas": [], "distances": []},
            {"ids": [["a"]], "documents": [["x"]], "metadatas": [[None]]},
            {"ids": [["a"]], "documents": [["x"]], "metadatas": [[None]], "distances": [["0"]]},
            {"ids": [["a", "b"]], "documents": [["x", "y"]], "metadatas": [[None] * 2], "distances": [[0.0, 1.0]]},
        ],
    ),
]


def _answered(method: str, path: str, asked: Any, value: Any) -> Any:
    body = None if asked is None else json.dumps(asked)
    request = httpx.Request(method, f"http://server{path}", content=body)
    return value_of(httpx.Response(200, json=value, request=request))


@pytest.mark.parametrize(("method", "path", "asked", "value"), RIGHT)
def test_chromas_own_answers_are_taken(method: str, path: str, asked: Any, value: Any) -> None:
    """The forms that servers of Chroma 1.x give to their answers are known."""
    assert _answered(method, path, asked, value) == value


@pytest.mark.parametrize(
    ("method", "path", "asked", "value"),
    [(method, path, asked, value) for method, path, asked, values in WRONG for value in values],
)
def test_answers_of_another_form_are_not_chromas(method: str, path: str, asked: Any, value: Any) -> None:
    """An answer whose form does not fit its request is refused before it is used."""
    with pytest.raises(NotChromasAnswer):
        _answered(method, path, asked, value)


@pytest.mark.parametrize("what", ["headers", "body"])
def test_a_request_as_a_whole_is_bounded(monkeypatch: pytest.MonkeyPatch, proxy: Proxy, what: Any) -> None:
    """An answer that goes on a few bytes at a time ends with the time for the request, also before any other came."""
    monkeypatch.setattr(http_session, "SHORTEST_SILENCE", SILENCE)
    with closing(HttpSession(proxy.url, Access(), retry_for=SILENCE, notify=lambda _: None)) as asking:
        asking.request("GET", f"{proxy.url}/api/v2/version")
        proxy.plan = lambda _: Fault(drips=what)
        with pytest.raises(UpsertCliError, match="does not end" if what == "body" else "does not come"):
            asking.request("GET", f"{proxy.url}{COLLECTION}/count")
        proxy.plan = lambda _: None
        assert asking.request("GET", f"{proxy.url}/api/v2/version").json()
    proxy.plan = lambda _: Fault(drips=what)
    first = HttpSession(proxy.url, Access(), retry_for=SILENCE, notify=lambda _: None)
    with closing(first), pytest.raises(UpsertCliError, match="cannot be reached"):
        first.request("GET", f"{proxy.url}/api/v2/version")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=200, body=b" " * (LIMIT + 1)),
        Fault(status=200, body=gzip.compress(b" " * 8 * LIMIT), headers={"Content-Encoding": "gzip"}),
        Fault(status=500, body=gzip.compress(b" " * 8 * LIMIT), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_an_answer_has_a_size_limit(
    monkeypatch: pytest.MonkeyPatch, proxy: Proxy, asking: HttpSession, fault: Fault
) -> None:
    """An answer that is too large, as sent or unpacked, is given up and named."""
    monkeypatch.setattr(http_exchange, "LARGEST_ANSWER", LIMIT)
    proxy.plan = lambda _: fault
    with pytest.raises(NotChromasAnswer, match="it is larger than 1 MiB"):
        asking.request("GET", f"{proxy.url}{COLLECTION}/count")


def test_a_load_blames_no_row_and_restarts(
    tiny: Terminal, shared_server: ChromaServer, proxy: Proxy, vectored: Items
) -> None:
    """A login page as the answer ends the task with 1 and no reject, in few requests; a restart loads all rows."""
    tiny.write("a.jsonl", vectored(20))
    proxy.plan = on("/upsert", LOGIN)
    where = f"--chroma {proxy.url} --collection login --retry-for 1"
    failed = tiny.type(f"upsert-cli run a.jsonl --task-id t {where}", expect=1)
    assert "is not Chroma's (200 OK with a page for a browser)" in failed.stderr.splitlines()[-1]
    task = tiny.info("t")
    assert (task["status"], task["counts"]["failed"]) == ("failed", 0)
    assert {len(call.ids) for call in proxy.writes} == {20}
    proxy.plan = lambda _: None
    tiny.type("upsert-cli restart t")
    assert len(shared_server.records("login")) == 20


MANGLED = [
    ("run a.jsonl --collection mangled", "/get", "POST", Fault(status=200, body=b'{"x":1}')),
    ("run a.jsonl --collection mangled --dry-run", "/get", "POST", LOGIN),
    ("run a.jsonl --collection mangled", "/pre-flight-checks", "GET", Fault(status=200, body=b'{"max_batch_size":0}')),
    ("run a.jsonl --collection mangled", "/collections/mangled", "GET", Fault(status=200, body=b'"a"')),
    (
        "run b.jsonl --collection mangled --delete-missing --scope s --max-delete 9",
        "/delete",
        "POST",
        Fault(status=204, body=b""),
    ),
    ("verify --collection mangled", "/get", "POST", Fault(status=200, body=b'{"ids": null}')),
    ("query text --collection mangled", "/query", "POST", Fault(status=200, body=b"[]")),
    ("collections", "/count", "GET", Fault(status=200, body=b"true")),
    ("collections", "/collections", "GET", Fault(status=200, body=b"{}")),
    ("collections", "/default_database", "GET", Fault(status=200, body=b"[]")),
]


def test_no_command_calls_the_servers_fault_a_bug(tiny: Terminal, proxy: Proxy, vectored: Items) -> None:
    """For any command, an answer of another form ends it with exit code 1 and one line, and nothing is written."""
    tiny.write("a.jsonl", vectored(3))
    tiny.write("b.jsonl", vectored(2))
    tiny.type(f"upsert-cli run a.jsonl --collection mangled --delete-missing --scope s --chroma {proxy.url}")
    written = len(proxy.writes)
    model = tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]
    for line, ending, method, fault in MANGLED:
        proxy.plan = on(ending, fault, method)
        more = " --retry-for 0" if line.startswith("run") else f" --model-path {model}" if "query" in line else ""
        failed = tiny.type(f"upsert-cli {line} --chroma {proxy.url}{more}", expect=1)
        assert f"{proxy.url}: the answer to {method} /api/v2/" in failed.stderr.splitlines()[-1], line
        assert "is not Chroma's" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert "bug" not in failed.stderr
    assert len(proxy.writes) == written


@pytest.mark.parametrize("ending", ["/get", "/count", "/collections/limited", "/default_database"])
@pytest.mark.parametrize("status", [413, 422])
def test_a_source_that_refuses_a_request_is_no_bug(
    terminal: Terminal, shared_server: ChromaServer, proxy: Proxy, ending: str, status: int
) -> None:
    """A request to a source has no rows to blame, so a quota or a limit of its server is the server's fault."""
    collections = "tenants/default_tenant/databases/default_database/collections"
    shared_server.ask("POST", collections, {"name": "limited", "get_or_create": True})
    quota = json.dumps({"error": "QuotaError", "message": "Quota exceeded: reads"}).encode()
    fault = Fault(status=status, body=quota if status == 422 else b"Payload too large")
    proxy.plan = lambda call: fault if call.path.partition("?")[0].endswith(ending) else None
    failed = terminal.type(f"upsert-cli run chroma:{proxy.url}#limited --keep-vectors --collection docs", expect=1)
    assert failed.stderr.startswith(f"error: {proxy.url} fails")
    assert ("Quota exceeded: reads" if status == 422 else "too large (413)") in failed.stderr
