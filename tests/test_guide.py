"""The README and the guide are true: commands run as shown, options and variables exist, and links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.manual import GUIDE, PAGES, README, ROOT, blocks, manual_text
from tests.support.older_chroma import older_folder
from tests.support.screens import shown
from tests.support.terminal import SAMPLES, Terminal
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.options.settings import commands_below
from upsert_cli.cli.root import cli
from upsert_cli.store.address import OF_SOURCE, OF_TARGET, SECRET_VARIABLES

SERVER = "http://localhost:8000"  # in the pages, a server of the reader's own
HOME = "/home/ann"  # in the pages, the folder in which everything happens
VOLATILE = (
    (r"\b\d{8}-\d{6}-[a-z0-9]{4}\b", "ID"),
    (r"\b\d{4}-\d\d-\d\d[T ][\d:]+Z?|\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b", "TIME"),
    (r"\b\d{8}T\d{6}Z\b", "TIME"),
    (r"\b(in|about) [\d.]+ (s|min|h)\b", r"\1 a while"),
    (r"\s+", " "),
)
"""What differs between two runs, and what replaces it before they are compared."""

FOREIGN_OPTIONS = {
    "--address", "--head", "--port", "--path", "--rm", "--read-only", "--tmpfs", "--no-cache-dir",
}  # fmt: skip  # of docker, pip, ray and chroma
FOREIGN_COMMANDS = ("chroma ", "docker ", "ray ", "pip ")
COLUMNS = 400  # of the terminal on which the sessions run: nothing is shortened
LINE = 120  # characters; the pages are read in a terminal, too
TYPED = 78  # characters of a command, which `help` would otherwise break on a terminal of 80 columns
SHORT = 150  # lines of a page


def _sessions() -> list[Path]:
    return [page for page in PAGES if blocks(page, "console")]


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the address of a server if the page needs one."""
    if SERVER not in "".join(blocks(request.getfixturevalue("page"), "console")):
        yield SERVER
        return
    with ChromaServer.started() as server:
        yield server.url


@pytest.mark.parametrize("page", _sessions(), ids=lambda page: page.stem)
def test_sessions_run_as_shown(
    page: Path, address: str, terminal: Terminal, tiny_model: Path, request: pytest.FixtureRequest
) -> None:
    """The sessions of a page run from the first to the last command, with the output and exit codes that it shows."""
    queries = re.findall(r"^\$ upsert-cli query .*$", "".join(blocks(page, "console")), re.M)
    if all("--model-path" in line for line in queries):
        terminal.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(tiny_model)  # it has the real one's name, and loads faster
    shutil.copytree(SAMPLES, terminal.folder / "sample_data")
    if "./my-model" in "".join(blocks(page, "console")):
        shutil.copytree(request.getfixturevalue("model").folder, terminal.folder / "my-model")
    if "./old" in "".join(blocks(page, "console")):
        older_folder("0.6.3", terminal.folder / "old")
    for session in blocks(page, "console"):
        commands = re.split(r"^\$ ", session, flags=re.M)
        assert commands[0] == ""
        for command in commands[1:]:
            typed, _, output = command.partition("\n")
            line, _, code = typed.partition("  # exits with ")
            said = _type(terminal, line.replace(SERVER, address), expect=int(code or 0))
            said = said.replace(str(terminal.journal), f"{HOME}/.local/state/upsert-cli")
            _compare(output, said.replace(str(terminal.folder), HOME).replace(address, SERVER), line)


def _type(terminal: Terminal, line: str, *, expect: int) -> str:
    """Return the output of a line on a terminal; a line that is more than a command of ours is run by a shell."""
    if line.startswith("upsert-cli ") and not re.search(r"[|<>] ", line):
        terminal.env["UPSERT_CLI_PROGRESS"] = "none"
        return "\n".join(shown(terminal, line, columns=COLUMNS, expect=expect))
    environment = terminal.environment | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", line], cwd=terminal.folder, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    said = done.stderr + done.stdout
    assert done.returncode == expect, f"{line}\n{said}"
    return said


def _compare(output: str, said: str, line: str) -> None:
    """Check that each line of a page is printed; `...` stands for other lines, `…` for the rest of a text."""
    lines = [_stable(each) for each in said.splitlines()]
    for expected in output.splitlines():
        if expected.strip() in ("", "..."):
            continue
        pattern = ".*".join(re.escape(_stable(part)) for part in re.split(r"…|\.\.\.$", expected))
        assert any(re.fullmatch(pattern, each) for each in lines), f"{line}\nshown: {expected}\nsaid:\n{said}"


def _stable(text: str) -> str:
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def _examples() -> list[str]:
    """Return the commands in the manual that are not part of a session, and those in the help texts."""
    helps = [ctx.command.help or "" for ctx in commands_below(click.Context(cli))]
    lines = re.findall(r"^ *(upsert-cli [a-z].*)$", "\n".join([manual_text(), *helps]), re.M)
    return sorted({re.split(r"  #| [<|>]+ ", line)[0] for line in lines})


@pytest.mark.parametrize("line", _examples())
def test_examples_can_be_typed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an example names files and servers of the reader's own, its command and options exist."""
    monkeypatch.chdir(tmp_path)
    line = line.replace("$TASK_ID", "load-1")
    values = {"--refs-root": tmp_path, "--model-path": tmp_path, "--map": README, "--vector": "[1]"}
    for option, value in values.items():
        for named in re.findall(rf"{option} ([^\s']+)", line):
            line = line.replace(named, str(value))
    command: click.Command = cli
    ctx, rest = None, shlex.split(line)[1:]
    while isinstance(command, click.Group):
        ctx = command.make_context("upsert-cli", [], parent=ctx, resilient_parsing=True)
        _, found, rest = command.resolve_command(ctx, rest)
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=ctx)


def _options() -> dict[str, list[str]]:
    """Return every option with the variables that set it."""
    options: dict[str, list[str]] = {"--help": [], "--version": []}
    for ctx in commands_below(cli.make_context("upsert-cli", [], resilient_parsing=True)):
        for param in ctx.command.params:
            if isinstance(param, Option):
                options.setdefault(max(param.opts, key=len), []).extend(param.variables(ctx))
    return options


def test_every_option_is_in_the_manual() -> None:
    """The manual mentions each option of each command."""
    text = manual_text()
    missing = [name for name in _options() if not re.search(rf"{re.escape(name)}(?![\w-])", text)]
    assert missing == []


def test_every_option_of_the_manual_exists() -> None:
    """The manual mentions no option that no command has."""
    lines = [
        line for line in manual_text().splitlines() if not any(each in line for each in FOREIGN_COMMANDS if "-- upsert-cli" not in line)
    ]  # fmt: skip
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", "\n".join(lines)))
    assert named - set(_options()) - FOREIGN_OPTIONS == set()


def test_the_variables_of_the_manual_are_those_that_exist() -> None:
    """Each variable of the manual exists, and each one that is not an option's is in the manual."""
    of_options = {variable for variables in _options().values() for variable in variables}
    composed = {"UPSERT_CLI_CHROMA_TENANT", "UPSERT_CLI_CHROMA_DATABASE"}
    composed |= {*SECRET_VARIABLES}
    source = "".join(path.read_text() for path in (ROOT / "upsert_cli").rglob("*.py"))
    of_code = set(re.findall(r"\"((?:UPSERT_CLI|CHROMA|HF|AWS|AZURE)_[A-Z_]*[A-Z])\"", source)) - {
        "UPSERT_CLI_",
        OF_TARGET,
        OF_SOURCE,
    }
    named = set(re.findall(r"\bUPSERT_CLI_[A-Z_]*[A-Z]\b(?!_?\.\.\.)", manual_text()))
    assert named - of_options - of_code - composed - {"UPSERT_CLI_RUN", "UPSERT_CLI_CATEGORIES_RUN"} == set()
    ours = {name for name in of_code | composed if name.startswith("UPSERT_CLI_")}
    assert ours - of_options - named == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link of a page leads to a file, and its anchor to a heading there."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        headings = [re.sub(r"[^\w -]", "", line).lower() for line in re.findall(r"^#+ (.*)$", there.read_text(), re.M)]
        assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings], target


@pytest.mark.parametrize("page", sorted(GUIDE.glob("*.md")), ids=lambda page: page.stem)
def test_pages_are_short_and_fit_a_terminal(page: Path) -> None:
    """A page has one title, few lines, and no line of prose that is wider than a terminal."""
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) <= SHORT
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M).splitlines()
    assert [line for line in prose if len(line) > LINE and not line.startswith("|")] == []
    assert [line for line in lines if line.startswith("$ ") and len(line) > TYPED] == []


def test_the_map_for_contributors_is_true() -> None:
    """Each module and folder of CONTRIBUTING exists, with the names in it, and so does each module that tests share."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`([\w./]+(?:\.py|/))`", text):
        assert (ROOT / name).exists() or (ROOT / "upsert_cli" / name).exists() or name == "chroma/", name
    listed = re.findall(r"(\w+)/  +([\w, ]+)$", text, re.M)
    drawn = [(folder, name) for folder, names in listed for name in names.split(", ")]
    for folder, name in drawn + re.findall(r"(load|pipeline)/(\w+) ", text):
        assert (ROOT / "upsert_cli" / folder / f"{name}.py").exists(), name
    for names, module in re.findall(r"((?:`[\w.]+` (?:and |or )?)+)(?:of|in) `([\w/]+\.py)`", text):
        code = (ROOT / "upsert_cli" / module.removeprefix("upsert_cli/")).read_text()
        assert [name for name in re.findall(r"`(\w+)`", names) if name not in code] == [], module
    support = {path.stem for path in (ROOT / "tests" / "support").glob("[a-z]*.py")}
    _, table = text.split("| module of `tests/support/` |")
    rows = re.findall(r"^\| (`.*?) \|", table.split("\n\n")[0], re.M)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == support


def test_the_readme_links_every_page() -> None:
    """A reader of the repository finds each page of the guide."""
    linked = re.findall(r"\]\(upsert_cli/guide/([\w-]+)\.md\)", README.read_text())
    assert sorted(linked) == sorted(page.stem for page in GUIDE.glob("*.md"))


def test_the_readme_has_two_commands_and_is_short() -> None:
    """The two commands are there, the second one for continuous integration, and the README fits on a few screens."""
    assert len(re.findall(r"^```sh$", README.read_text(), re.M)) == 2
    assert len(README.read_text().splitlines()) <= 200
