"""The metadata of the package: its requirements match the code, and the documents name the same ones."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from configparser import ConfigParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
EXTRAS = SETUP["options.extras_require"]
TYPING_ONLY = {"_typeshed"}  # which exists for type checkers alone


def _requirements(lines: str) -> dict[str, Requirement]:
    """Return the requirements of a setting by name."""
    found = [Requirement(line) for line in lines.split("\n") if line and not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in found}


REQUIRED = _requirements(SETUP["options"]["install_requires"])
ALL = REQUIRED | {name: each for extra in EXTRAS for name, each in _requirements(EXTRAS[extra]).items()}


def _imported(folder: Path) -> set[str]:
    """Return the top-level names of all modules that are imported in a folder."""
    nodes = [node for path in folder.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - TYPING_ONLY - {"upsert_cli", "tests"}


@pytest.mark.parametrize("folder", ["upsert_cli", "tests"])
def test_every_import_is_declared(folder: str) -> None:
    """Each package that the code or a test imports is a direct requirement, even if another package requires it."""
    distributions = packages_distributions()
    undeclared = {
        name
        for name in _imported(ROOT / folder)
        if not {canonicalize_name(each) for each in distributions.get(name, [name])} & set(ALL)
    }
    assert undeclared == set()


def test_every_requirement_is_imported() -> None:
    """No package is required that the code does not import."""
    imported = _imported(ROOT / "upsert_cli")
    provided = {
        canonicalize_name(distribution)
        for name, distributions in packages_distributions().items()
        if name in imported
        for distribution in distributions
    }
    assert set(REQUIRED) - provided == set()


def test_requirements_have_tested_bounds() -> None:
    """Each requirement has a lower bound, and packages whose private names are used have an upper one."""
    bounds = {name: {each.operator for each in requirement.specifier} for name, requirement in ALL.items()}
    assert [name for name, operators in bounds.items() if ">=" not in operators] == []
    assert [name for name, operators in bounds.items() if "<" in operators] == ["chromadb", "fastembed"]


def test_building_needs_no_other_versions() -> None:
    """The packages that a build imports have the bounds of the installed program."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    needed = [Requirement(line) for line in project["build-system"]["requires"]]
    assert {str(each) for each in needed} <= {str(each) for each in ALL.values()}


def test_the_readme_lists_the_extras() -> None:
    """The table of extras has a row for each extra, and each extra has a package."""
    table = (ROOT / "README.md").read_text("utf-8").partition("## Extras")[2].partition("## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.+) \|$", table, flags=re.MULTILINE))
    assert set(rows) == set(EXTRAS)
    assert [extra for extra in EXTRAS if not _requirements(EXTRAS[extra])] == []


def test_printed_requirements_are_those_of_the_package() -> None:
    """Where a message or the guide names a package to install, it names the bound of `setup.cfg`."""
    pages = [*(ROOT / "upsert_cli").rglob("*.py"), *(ROOT / "upsert_cli").rglob("*.md"), ROOT / "README.md"]
    printed = [found for page in pages for found in re.findall(r"['\"]([\w-]+>=[\w.]+)['\"]", page.read_text("utf-8"))]
    assert printed
    assert [each for each in printed if str(ALL.get(canonicalize_name(Requirement(each).name))) != each] == []


def test_the_source_distribution_can_be_tested(tmp_path: Path) -> None:
    """The sdist has all tests, samples and documents, and no build leftovers; its licence is an SPDX expression."""
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".venv", ".git", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=unwanted)
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        root, names = opened.getnames()[0], set(opened.getnames())
        about = opened.extractfile(f"{root}/PKG-INFO")
        assert about is not None
        metadata = about.read().decode()
    tested = [path for folder in ("tests", "sample_data", ".ci", ".github") for path in (ROOT / folder).rglob("*")]
    wanted = [path for path in tested if path.is_file() and "__pycache__" not in path.parts]
    wanted += [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "setup.py")]
    assert {str(path.relative_to(ROOT)) for path in wanted} - {name.partition("/")[2] for name in names} == set()
    assert not [name for name in names if "__pycache__" in name]
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_the_hooks_and_the_workflow_run_the_commands_of_ci() -> None:
    """Each line of a hook is a line of `.ci/run`, and the workflow is valid and tests each supported Python."""
    script = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks if hook["entry"] not in script] == []
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow)]
    subprocess.run(command, check=True, capture_output=True)
    versions = yaml.safe_load(workflow.read_text("utf-8"))["jobs"]["test"]["strategy"]["matrix"]["python"]
    prefix = "Programming Language :: Python :: 3."
    supported = [line.rpartition(" ")[2] for line in SETUP["metadata"]["classifiers"].split("\n") if prefix in line]
    assert versions == supported
