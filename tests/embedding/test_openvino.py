"""`--precision bf16`: the same neighbours by OpenVINO, nothing sent home, and a refusal where it cannot be had."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench.texts import docstrings
from tests.support.items import Items
from tests.support.terminal import Terminal
from upsert_cli.embedding.catalog import DEFAULT_MODEL, GivenFolder
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model
from upsert_cli.embedding.openvino import bf16_fault
from upsert_cli.errors import UpsertCliError

STATIC_MODEL = "minishlab/potion-base-8M"
LEAST_COSINE = 0.9999  # of a vector to the fp32 vector
SAME_NEIGHBOURS = 0.995  # of the ten nearest
FAKE_OPENVINO = """
class Core:
    def get_property(self, device, name):
        return {"OPTIMIZATION_CAPABILITIES": ["FP32", "INT8"], "FULL_DEVICE_NAME": "Pentium"}[name]
"""
NOT_INSTALLED = """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "openvino" else find(name, *rest)
"""
SILENT_PROGRAM = """
import sys
connected = []
sys.addaudithook(lambda event, args: connected.append(args) if event == "socket.connect" else None)
from upsert_cli.embedding.openvino import bf16_fault
bf16_fault()
import threading
assert threading.active_count() == 1
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not connected
"""


@pytest.fixture
def bf16() -> None:
    """Skip a test where the processor has no bf16."""
    if (fault := bf16_fault()) is not None:
        pytest.skip(fault)


def test_the_neighbours_are_those_of_fp32(bf16: None, model: Model) -> None:
    """Texts of mixed length get nearly the same vectors, and searches in fp32 find the same records."""
    texts = list(itertools.islice(docstrings(), 200))
    precise, fast = (_embedded(model, precision, texts) for precision in ("fp32", "bf16"))
    assert (precise * fast).sum(axis=1).min() >= LEAST_COSINE
    wanted, found = (np.argsort(-(precise @ each.T), axis=1)[:, :10] for each in (precise, fast))
    same = [len(set(one) & set(other)) for one, other in zip(wanted, found, strict=True)]
    assert sum(same) >= SAME_NEIGHBOURS * 10 * len(texts)


def test_a_load_that_is_killed_ends_like_one_in_fp32(bf16: None, tiny: Terminal, make_items: Items) -> None:
    """Kill a load in bf16 and restart it: the records are the same, and the vectors nearly."""
    tiny.write("a.jsonl", make_items(1_000))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --precision bf16 --batch-size 10")
    tiny.halt_when(process, "t")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    tiny.type("upsert-cli restart t")
    counts = tiny.info("t")["counts"]
    assert counts["inserted"] + counts["unchanged"] == 1_000, counts  # a batch written without its checkpoint repeats
    tiny.type("upsert-cli verify t")
    tiny.type("upsert-cli run a.jsonl --collection precise")
    fast, precise = (tiny.records(name, vectors=True) for name in ("default", "precise"))
    for object_id, record in precise.items():
        assert np.dot(record.pop("vector"), fast[object_id].pop("vector")) >= LEAST_COSINE
    assert fast == precise


def test_the_precision_is_an_option_of_the_task_and_not_of_the_records(
    bf16: None, tiny: Terminal, make_items: Items
) -> None:
    """`info` shows it, rows stay unchanged with the other one, and so does the meaning of a task's id."""
    tiny.write("a.jsonl", make_items(20))
    tiny.type("upsert-cli run a.jsonl --task-id t --precision bf16 --threads 1")
    assert "bf16" in tiny.type("upsert-cli info t").stdout
    tiny.type("upsert-cli run a.jsonl --task-id queued --precision bf16 --enqueue")
    tiny.type("upsert-cli work")
    assert tiny.info("queued")["counts"]["unchanged"] == 20
    tiny.type("upsert-cli run a.jsonl --task-id t --precision fp32")
    tiny.type("upsert-cli run a.jsonl --task-id u")
    assert tiny.info("u")["counts"]["unchanged"] == 20
    tiny.type("upsert-cli verify t --repair")


@pytest.mark.parametrize("layout", ["whole", "external data"])
def test_the_weights_may_have_a_file_of_their_own(bf16: None, tiny_model: Path, tmp_path: Path, layout: str) -> None:
    """Large models keep their weights in a second file, which OpenVINO finds as onnxruntime does."""
    import onnx

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    if layout == "external data":
        graph = onnx.load(folder / "model.onnx")
        onnx.save(graph, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data")
        assert (folder / "model.onnx_data").exists()
    found = find_model(DEFAULT_MODEL, given=GivenFolder(path=folder))
    precise, fast = (_embedded(found, precision, ["hello", "wide world"]) for precision in ("fp32", "bf16"))
    assert (precise * fast).sum(axis=1).min() >= LEAST_COSINE


@pytest.mark.parametrize("damage", ["operator", "no graph"])
def test_a_graph_that_openvino_cannot_compile(bf16: None, tiny_model: Path, tmp_path: Path, damage: str) -> None:
    """The error is one line that names the file and a precision that works."""
    import onnx

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    if damage == "operator":
        graph = onnx.load(folder / "model.onnx")
        graph.graph.node[-1].domain = "nobody.knows"
        onnx.save(graph, folder / "model.onnx")
    else:
        (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UpsertCliError, match=r"OpenVINO cannot compile .*model\.onnx .*use --precision fp32") as caught:
        load_model(find_model(DEFAULT_MODEL, given=GivenFolder(path=folder)), precision="bf16")
    assert "\n" not in str(caught.value)


def test_nothing_is_sent_and_nothing_kept_in_the_home_folder(tmp_path: Path) -> None:
    """`import openvino` would send an event and keep an id; here it does neither."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", SILENT_PROGRAM], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []


def _not_installed(_: Path) -> str:
    return NOT_INSTALLED


def _old_processor(folder: Path) -> str:
    (folder / "path" / "openvino").mkdir(parents=True)
    (folder / "path" / "openvino" / "__init__.py").write_text(FAKE_OPENVINO)
    return f"import sys\nsys.path.insert(0, {str(folder / 'path')!r})\n"


def _type_on(machine: str, terminal: Terminal, line: str, *, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Type a command on a machine that some lines of Python make."""
    program = f"{machine}from upsert_cli.__main__ import main\nmain()"
    return terminal.type(shlex.join([sys.executable, "-c", program, *shlex.split(line)]), expect=expect)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [(_not_installed, "-m pip install 'openvino>=2025.0'`"), (_old_processor, "Pentium, has no bf16")],
)
def test_a_machine_without_it_refuses_before_there_is_a_task(
    tiny: Terminal, make_items: Items, prepare: Callable[[Path], str], reason: str
) -> None:
    """The error names package and processor, the journal stays empty, and another machine's task keeps its state."""
    tiny.write("a.jsonl", make_items(3))
    machine = prepare(tiny.folder)
    for line in ("run a.jsonl --dry-run", "run a.jsonl --enqueue", "models check"):
        assert reason in _type_on(machine, tiny, f"{line} --precision bf16", expect=4).stderr
    checked: dict[str, Any] = json.loads(_type_on(machine, tiny, "models check --json").stdout)
    assert reason.rstrip("`") in checked["bf16"]
    assert tiny.type("upsert-cli list --json").stdout.strip() == "[]"
    assert not (tiny.folder / "chroma").exists()


def test_a_task_that_comes_to_a_machine_without_it(bf16: None, tiny: Terminal, make_items: Items) -> None:
    """`restart` leaves the task unchanged, a worker refuses it, and `run` with the same id continues it in fp32."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id queued --precision bf16 --collection other --enqueue")
    tiny.type("upsert-cli run a.jsonl --task-id done --precision bf16")
    machine = _old_processor(tiny.folder)
    assert "has no bf16" in _type_on(machine, tiny, "restart done --from-start", expect=4).stderr
    assert tiny.info("done")["status"] == "done"
    _type_on(machine, tiny, "work", expect=4)
    assert tiny.info("queued")["status"] == "refused"
    assert "has no bf16" in tiny.info("queued")["detail"]
    _type_on(machine, tiny, "run a.jsonl --task-id queued --collection other --precision fp32")
    assert tiny.info("queued")["status"] == "done"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--device cuda", "--device cuda computes in fp32"),
        (f"--model {STATIC_MODEL}", "is a table of vectors"),
        ("--model none", "--model none embeds nothing"),
    ],
)
def test_options_that_do_not_go_with_it(tiny: Terminal, make_items: Items, options: str, reason: str) -> None:
    """Each combination is a usage error, and no task is created."""
    tiny.write("a.jsonl", make_items(3))
    assert reason in tiny.type(f"upsert-cli run a.jsonl --precision bf16 {options}", expect=2).stderr
    assert tiny.type("upsert-cli list --json").stdout.strip() == "[]"


def _embedded(model: Model, precision: Any, texts: list[str]) -> Any:
    """Return the vectors of texts, embedded in small calls of texts of one length."""
    embedder = load_model(model, precision=precision, threads=2)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.empty((len(texts), model.dimension), dtype=np.float32)
    for start in range(0, len(order), 10):
        rows = order[start : start + 10]
        vectors[rows] = embedder.embed([texts[row] for row in rows])
    return vectors
