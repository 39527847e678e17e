"""The model hub: it is asked only if it is reachable, and fetched models are found again without a network."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import run_python
from upsert_cli.embedding import fetching
from upsert_cli.embedding.catalog import DEFAULT_ENTRY, DEFAULT_MODEL
from upsert_cli.embedding.fastembed import supported_models
from upsert_cli.embedding.fetching import check_hub, check_reachable
from upsert_cli.errors import ModelUnavailable

REVISION = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER = {"tokenizer.json": b"{}", "tokenizer_config.json": b'{"model_max_length": 512}', "config.json": b"{}"}


def etag(content: bytes) -> str:
    """Return the hub's tag for a file's content."""
    return sha256(content).hexdigest()[:40]


class Hub:
    """A model hub on this machine with as much of the protocol as a download needs."""

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        self.repository = repository
        self.files = files
        self.cut: set[str] = set()
        """Files whose download breaks off half-way."""

        self.asked = 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
            for name, content in self.files.items()
        ]

    def _handler(hub) -> type[http.server.BaseHTTPRequestHandler]:
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                hub.asked += 1
                path = self.path.partition("?")[0]
                siblings = [{"rfilename": name, "size": len(content)} for name, content in hub.files.items()]
                about = {"id": hub.repository, "sha": REVISION, "siblings": siblings}
                start = f"/{hub.repository}/resolve/{REVISION}/"
                if path.startswith(f"/api/models/{hub.repository}/tree/"):
                    self._send(json.dumps(hub.tree()).encode())
                elif path.startswith(f"/api/models/{hub.repository}"):
                    self._send(json.dumps(about).encode())
                elif path.startswith(start) and (name := path.removeprefix(start)) in hub.files:
                    self._send(hub.files[name], cut=name in hub.cut)
                else:
                    self.send_error(404)

            def _send(self, content: bytes, *, cut: bool = False) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("ETag", f'"{etag(content)}"')
                self.send_header("X-Repo-Commit", REVISION)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content[: len(content) // 2] if cut else content)
                if cut:
                    self.close_connection = True

            def log_message(self, *_arguments: Any) -> None:
                pass

        return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Return a hub with files that look like the model BAAI/bge-small-zh-v1.5 to a download."""
    hub = Hub("Qdrant/bge-small-zh-v1.5", {"model_optimized.onnx": b"weights" * 1000, **TOKENIZER})
    yield hub
    hub.stop()


def find(name: str, cache: Path, hub: Hub, *, offline: bool = False) -> dict[str, Any]:
    """Find a model in a separate process, since the hub's client reads its settings when it is imported."""
    code = (
        "import json, sys\n"
        "from upsert_cli.packages import configure_libraries\n"
        "configure_libraries()\n"
        "from upsert_cli.errors import UpsertCliError\n"
        "from upsert_cli.embedding.models import find_model\n"
        f"try:\n    print(json.dumps(find_model({name!r}, offline={offline}).as_json()))\n"
        "except UpsertCliError as error:\n    print(json.dumps({'error': str(error)}))\n"
    )
    env = os.environ | {"UPSERT_CLI_MODEL_CACHE": str(cache)}
    if not offline:  # otherwise no setting of the hub's client matters, and the process may be forked
        env |= {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    done = run_python([sys.executable, "-c", code], folder=cache.parent, environment=env)
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value | {"stderr": done.stderr.decode()}


def test_a_model_of_the_hub_is_found_again_without_it(hub: Hub, tmp_path: Path) -> None:
    """A downloaded model is complete, and is found again without a request."""
    first = find("baai/BGE-small-zh-v1.5", tmp_path, hub)
    assert (first["name"], first["dimension"], first["max_tokens"]) == ("BAAI/bge-small-zh-v1.5", 512, 512)
    assert (first["source"], first["stderr"]) == ("model hub", "")
    assert (Path(first["folder"]) / "model_optimized.onnx").read_bytes() == hub.files["model_optimized.onnx"]
    requests = hub.asked
    again = find("BAAI/bge-small-zh-v1.5", tmp_path, hub, offline=True)
    assert again == first | {"source": "cache"}
    assert hub.asked == requests


def test_a_cache_may_be_a_link_and_may_move(hub: Hub, tmp_path: Path) -> None:
    """A cache may be a link to another folder, and its models survive a move."""
    (tmp_path / "far" / "away" / "disk").mkdir(parents=True)
    (tmp_path / "cache").symlink_to(tmp_path / "far" / "away" / "disk")
    assert find("BAAI/bge-small-zh-v1.5", tmp_path / "cache", hub)["source"] == "model hub"
    (tmp_path / "far" / "away" / "disk").rename(tmp_path / "moved")
    found = find("BAAI/bge-small-zh-v1.5", tmp_path / "moved", hub, offline=True)
    assert tmp_path / "moved" in Path(found["folder"]).parents


def test_a_download_that_breaks_off_leaves_no_model(hub: Hub, tmp_path: Path) -> None:
    """A model whose weights arrived half-way is not in the cache, and the next fetch completes it."""
    hub.cut.add("model_optimized.onnx")
    broken = find("BAAI/bge-small-zh-v1.5", tmp_path, hub)
    assert "was not found" in broken["error"] and "RemoteProtocolError" in broken["error"] and broken["stderr"] == ""
    assert "was not found" in find("BAAI/bge-small-zh-v1.5", tmp_path, hub, offline=True)["error"]
    hub.cut.clear()
    whole = find("BAAI/bge-small-zh-v1.5", tmp_path, hub)
    assert (Path(whole["folder"]) / "model_optimized.onnx").read_bytes() == hub.files["model_optimized.onnx"]


@pytest.mark.parametrize("size", [0, 100])
def test_a_file_that_lost_bytes_is_fetched_again(hub: Hub, tmp_path: Path, size: int) -> None:
    """A damaged file in the folder of the hub's client is not taken for the model's."""
    folder = Path(find("BAAI/bge-small-zh-v1.5", tmp_path, hub)["folder"])
    os.truncate((folder / "model_optimized.onnx").resolve(), size)
    shutil.rmtree(folder)  # as the error of a model that cannot be loaded says
    again = find("BAAI/bge-small-zh-v1.5", tmp_path, hub)
    assert again.get("source") == "model hub", again
    assert (folder / "model_optimized.onnx").read_bytes() == hub.files["model_optimized.onnx"]


def test_a_repository_that_lacks_files_is_refused(hub: Hub, tmp_path: Path) -> None:
    """A repository without all files that the model needs is refused, and nothing is left in the cache."""
    del hub.files["tokenizer_config.json"]
    found = find("BAAI/bge-small-zh-v1.5", tmp_path, hub)
    assert "Qdrant/bge-small-zh-v1.5 lacks tokenizer_config.json" in found["error"]
    assert not list(tmp_path.glob("models--*")) and not list(tmp_path.glob(".fetch-*"))


def test_the_default_entry_equals_fastembeds() -> None:
    """The entry that saves importing fastembed agrees with its list."""
    (listed,) = [entry for entry in supported_models() if entry.name == DEFAULT_MODEL]
    assert (listed.dimension, listed.repository, listed.files) == (
        DEFAULT_ENTRY.dimension,
        DEFAULT_ENTRY.repository,
        DEFAULT_ENTRY.files,
    )


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the machine's proxies."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port that refuses connections, since its socket does not listen."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def listening_port() -> Iterator[int]:
    """Return a port that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def black_hole(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return a port that never answers: its queue is full, so the kernel drops every packet."""
    monkeypatch.setattr(fetching, "REACH_SECONDS", 0.3)
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = server.getsockname()[1]
        for _ in range(8):
            try:
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=0.2))
            except TimeoutError:
                break
        else:
            pytest.skip("this system keeps on taking connections that nobody accepts")
        yield port


@pytest.mark.usefixtures("no_proxy")
def test_a_host_that_accepts_connections_is_reachable(listening_port: int) -> None:
    """An accepted connection is enough."""
    check_reachable(f"http://127.0.0.1:{listening_port}/hub")


@pytest.mark.usefixtures("no_proxy")
def test_a_host_that_refuses_is_named(closed_port: int) -> None:
    """The reason has the host, the port and the system's answer."""
    with pytest.raises(ModelUnavailable, match=rf"127\.0\.0\.1:{closed_port} cannot be reached \(.*refused"):
        check_reachable(f"https://127.0.0.1:{closed_port}")


@pytest.mark.usefixtures("no_proxy")
def test_a_host_that_never_answers_is_given_up(black_hole: int) -> None:
    """A host that drops packets is given up after the limit; the kernel would try for two minutes."""
    with pytest.raises(ModelUnavailable, match=f"{black_hole} (did not answer|cannot be reached .timed out)"):
        check_reachable(f"https://127.0.0.1:{black_hole}")


@pytest.mark.usefixtures("no_proxy")
def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit covers resolving the name as well, which no socket timeout does."""
    never = threading.Event()
    monkeypatch.setattr(fetching, "REACH_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: never.wait() and [])
    with pytest.raises(ModelUnavailable, match=r"hub\.invalid:443 did not answer within 0\.2 seconds"):
        check_reachable("https://hub.invalid")
    never.set()


@pytest.mark.usefixtures("no_proxy")
def test_behind_a_proxy_only_the_proxy_has_to_answer(
    monkeypatch: pytest.MonkeyPatch, listening_port: int, closed_port: int
) -> None:
    """With a proxy, the host itself is not resolved; hosts in NO_PROXY are contacted directly."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listening_port}")
    check_reachable("https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", f"user:secret@127.0.0.1:{closed_port}")
    with pytest.raises(ModelUnavailable, match=str(closed_port)) as caught:
        check_reachable("https://hub.invalid")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    check_reachable(f"https://127.0.0.1:{listening_port}")


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("address", ["hub.example", "https://", "https://user:secret@host:many"])
def test_a_malformed_address_is_named_by_its_setting(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """A mistake in HF_ENDPOINT is a reason like any other, and no password is shown."""
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ModelUnavailable, match="the address in HF_ENDPOINT is not a URL") as caught:
        check_hub()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """With HF_HUB_OFFLINE not even a connection is tried."""
    monkeypatch.setenv("HF_HUB_OFFLINE", word)
    monkeypatch.setattr(fetching, "check_reachable", lambda _url: pytest.fail("the hub was asked"))
    with pytest.raises(ModelUnavailable, match="HF_HUB_OFFLINE"):
        check_hub()
