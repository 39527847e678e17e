"""The manual page, which is made from the help texts, has no errors, and is in the wheel."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from upsert_cli.cli.help import manual_page
from upsert_cli.cli.root import COMMANDS, cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page as a file."""
    path = tmp_path_factory.mktemp("man") / "upsert-cli.1"
    path.write_text(manual_page(cli), encoding="ascii")
    return path


def _shown(page: Path) -> str:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc, which .ci/run installs")
    done = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=100", page], capture_output=True, text=True, check=True
    )
    return re.sub(r".\x08", "", done.stdout)


def test_the_manual_is_sound(page: Path) -> None:
    """Mandoc has no warnings."""
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc, which .ci/run installs")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


def test_the_manual_has_every_command_with_its_options_and_examples(page: Path) -> None:
    """The page has the commands, options with their variables, exit codes and examples of `--help`, and common options once."""
    shown = _shown(page)
    for name in COMMANDS:
        assert re.search(rf"^ +upsert-cli {name}\b", shown, re.M), name
    assert "--metrics-file PATH" in shown
    assert "UPSERT_CLI_RUN_MODEL" in shown
    assert "upsert-cli run articles.jsonl --chroma ./chroma\n" in shown
    assert "Exit codes: 0 done" in shown
    assert len(re.findall(r"^ +-q, --quiet", shown, re.M)) == 1
    assert str(Path.home()) not in shown


def test_the_manual_is_in_the_wheel(tmp_path: Path) -> None:
    """A wheel has the page where `man` finds it, and the report's files, the schemas and the guide in the package."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "upsert_cli", source / "upsert_cli", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Without isolation, since everything for a build is installed; the README's first command builds isolated.
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(command, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".data/data/share/man/man1/upsert-cli.1") for name in names)
    for part in (
        "schema/events.json",
        "report/page.html.jinja",
        "report/page.css",
        "report/page.js",
        "guide/cron.md",
        "guide/images/load.svg",
        "py.typed",
    ):
        assert f"upsert_cli/{part}" in names
