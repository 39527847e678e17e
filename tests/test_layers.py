"""The architecture: which folder may import which, and that light commands stay light."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.journal_tasks import make_task
from tests.support.terminal import Terminal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "upsert_cli"
HEAVY = (
    "chromadb", "fastembed", "onnxruntime", "onnx", "openvino", "pyarrow", "numpy", "tokenizers", "huggingface_hub", "ray",
)  # fmt: skip
LAYERS = (
    "cli", "cluster", "verify", "report", "load", "pipeline", "journal", "store", "documents", "embedding", "sources", "",
)  # fmt: skip  # from the top down; the last one is of the modules at the bottom, such as `errors`
FLOORS = ("cli", "cli.options", "cli.display")  # of the command line, from the top down
UPWARD: set[tuple[str, str]] = set()
THIRD_PARTY = {
    "chromadb", "fastembed", "onnxruntime", "onnx", "openvino", "pyarrow", "tokenizers", "tinydb", "orjson", "huggingface_hub",
    "rich", "click", "tenacity", "jinja2", "markupsafe", "httpx", "pydantic", "ray",
}  # fmt: skip  # numpy is the language of arrays, and may be spoken anywhere


@cache
def _imports(path: Path) -> tuple[tuple[str, bool], ...]:
    """Return each module that a file imports, and whether that happens when the file is loaded."""
    return tuple(_read_imports(path))


def _read_imports(path: Path, *, for_annotations: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield each module that a file imports, and whether that happens when the file is loaded.

    Imports for annotations alone are left out, unless `for_annotations` is set.
    """
    tree = ast.parse(path.read_text())
    inner = {id(node) for scope in ast.walk(tree) if isinstance(scope, ast.FunctionDef) for node in ast.walk(scope)}
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only and not for_annotations:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, id(node) not in inner
            yield from ((f"{node.module}.{alias.name}", id(node) not in inner) for alias in node.names)


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def _layer(module: str) -> str:
    """Return the folder that a module such as `upsert_cli.load.run` stands in; empty for the modules at the bottom."""
    first = module.removeprefix("upsert_cli").lstrip(".").partition(".")[0]
    return first if first in LAYERS else ""


def test_layers() -> None:
    """A module imports only from its own folder and from folders below it; only the command line knows click and rich."""
    assert [f"{_name(path)} imports {name}" for path in _modules() for name in _from_above(path)] == []


def _from_above(path: Path) -> Iterator[str]:
    """Yield the imports of a module that its layer does not allow."""
    own = _layer(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
    above = LAYERS[: LAYERS.index(own)] if path.name != "__main__.py" else ()
    for name, _ in _imports(path):
        is_ours = name.startswith("upsert_cli") and (_name(path), _layer(name)) not in UPWARD
        if (is_ours and _layer(name) in above) or (own != "cli" and name.startswith(("click", "rich"))):
            yield name


def test_floors_of_the_command_line() -> None:
    """Options import no commands, and the display imports neither."""
    upward = []
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        above = FLOORS[: FLOORS.index(_floor(".".join(path.relative_to(PACKAGE).with_suffix("").parts)))]
        names = (name for name, _ in _imports(path) if _layer(name) == "cli" and _floor(name) in above)
        upward += [f"{_name(path)} imports {name}" for name in names]
    assert upward == []


def _floor(module: str) -> str:
    """Return the folder of the command line that a module stands in."""
    below = module.removeprefix("upsert_cli.")
    return next((floor for floor in reversed(FLOORS) if f"{below}.".startswith(f"{floor}.")), FLOORS[0])


def test_no_module_leads_back_to_itself() -> None:
    """The imports of the package have no circle, not even by an import inside a function or for an annotation."""
    modules = {_module(path): path for path in _modules()}
    users = {
        module: {name for name, _ in _read_imports(path, for_annotations=True)} & set(modules)
        for module, path in modules.items()
    }
    graphlib.TopologicalSorter(users).prepare()  # raises CycleError, which names the circle


def _module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_names_mean_one_thing() -> None:
    """No two classes share a name, and no two modules outside of the command line do."""
    classes, modules = defaultdict(list), defaultdict(list)
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(_name(path))
        if not path.name.startswith("__") and PACKAGE / "cli" not in path.parents:
            modules[path.name].append(_name(path))
    assert {name: paths for name, paths in (classes | modules).items() if len(paths) > 1} == {}


def test_one_door_to_the_stores() -> None:
    """Only `store/locate.py` imports an implementation of a store from outside of it, even for an annotation."""
    others = (path for path in _modules() if path.parent != PACKAGE / "store" / "chroma")
    users = {_name(path) for path in others if "upsert_cli.store.chroma" in path.read_text()}
    assert users == {"store/locate.py"}


def test_one_module_for_each_third_party_package() -> None:
    """Each third-party package is imported by one module; click and rich throughout the command line."""
    users = defaultdict(set)
    for path in _modules():
        for name, _ in _imports(path):
            if (package := name.partition(".")[0]) in THIRD_PARTY:
                users[package].add("cli" if (PACKAGE / "cli") in path.parents else _name(path))
    assert set(users) >= {"chromadb", "fastembed", "pyarrow", "tinydb", "rich", "click", "ray"}
    shared = {package: sorted(paths) for package, paths in users.items() if len(paths) > 1}
    assert shared == ALLOWED_TWICE


# Parquet is read in four modules, and pyarrow's file systems reach the object stores.
ALLOWED_TWICE = {
    "pyarrow": [
        "sources/object_stores.py",
        "sources/parquet.py",
        "sources/parquet_times.py",
        "sources/parquet_values.py",
    ],
}


def test_heavy_packages_are_imported_late() -> None:
    """Heavy packages are imported inside the function that needs them."""
    early = [
        f"{_name(path)} imports {name}"
        for path in _modules()
        for name, on_load in _imports(path)
        if on_load and name.partition(".")[0] in HEAVY
    ]
    assert early == []


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        "run --help",
        "list",
        "list --json",
        "info done",
        "cancel nothing",
        "journal check",
        "collections",
        "report nothing --html -",
        "completion bash",
    ],
)
def test_light_commands_load_nothing_heavy(terminal: Terminal, line: str) -> None:
    """Looking at tasks, canceling them and asking for help never load Chroma, a model's library, pyarrow or rich."""
    Journal(terminal.journal).create(make_task("done", status=TaskStatus.DONE))
    light = (
        ()
        if line.startswith("collections")
        else (
            "urllib.request",
            "subprocess",
            "upsert_cli.load.run",
            "upsert_cli.sources.rows",
            "upsert_cli.sources.remote",
            "upsert_cli.sources.addresses",
        )
    )
    unwanted = (*HEAVY, "rich", *light)
    code = (
        "import sys\nfrom upsert_cli.cli.root import cli\n"
        f"try:\n    cli({line.split()!r}, prog_name='upsert-cli')\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {unwanted!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=terminal.environment, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_every_test_says_what_it_shows() -> None:
    """Every test has a docstring of one sentence."""
    silent = [
        f"{path.name}:{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []
