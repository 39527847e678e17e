"""`upsert-cli help`: a page of the guide, a command's help, and every variable, without a journal or a network."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.support.manual import GUIDE
from tests.support.screens import shown
from tests.support.terminal import Terminal
from upsert_cli.cli.help import TOPICS
from upsert_cli.cli.root import COMMANDS

ALL_TOPICS = [topic for topics in TOPICS.values() for topic in topics]


def test_every_page_is_listed_once_under_a_name_that_no_command_has(terminal: Terminal) -> None:
    """The list has each page with its title, and no topic hides a command."""
    assert sorted(ALL_TOPICS) == sorted(path.stem for path in GUIDE.glob("*.md"))
    assert not set(ALL_TOPICS) & set(COMMANDS)
    listed = terminal.type("upsert-cli help").stdout
    for topic in ALL_TOPICS:
        title = (GUIDE / f"{topic}.md").read_text().splitlines()[0].removeprefix("# ")
        assert re.search(rf"^  {topic} +{re.escape(title)}$", listed, re.M)


@pytest.mark.parametrize("topic", [topic for topic in ALL_TOPICS if topic != "environment"])
def test_a_page_in_a_pipe_is_its_markdown(terminal: Terminal, topic: str) -> None:
    """In a pipe a page is printed unchanged."""
    assert terminal.type(f"upsert-cli help {topic}").stdout == (GUIDE / f"{topic}.md").read_text()


def test_the_environment_page_ends_with_every_variable(terminal: Terminal) -> None:
    """The page lists the variables of all commands, those of common options once."""
    page = terminal.type("upsert-cli help environment").stdout
    assert page.startswith((GUIDE / "environment.md").read_text())
    assert "| `UPSERT_CLI_RUN_MODEL` | `--model NAME\\|none` |" in page
    assert "| `UPSERT_CLI_JOURNAL_CHECK_JSON` | `--json` |" in page
    assert page.count("| `--journal DIR` |") == 1


@pytest.mark.parametrize("command", ["run", "categories run", "models fetch", "journal", "help"])
def test_the_help_of_a_command_is_that_of_its_option(terminal: Terminal, command: str) -> None:
    """`help COMMAND` prints the same as `COMMAND --help`."""
    assert terminal.type(f"upsert-cli help {command}").stdout == terminal.type(f"upsert-cli {command} --help").stdout


@pytest.mark.parametrize(
    ("typed", "advice"),
    [
        ("corn", "did you mean `upsert-cli help cron`?"),
        ("model", "did you mean `upsert-cli help models`?"),
        ("run now", "did you mean `upsert-cli help run`?"),
        ("prometheus", "`upsert-cli help metrics` mentions it"),
        ("docker", "`upsert-cli help containers` mentions it"),
        ("parquet", "`upsert-cli help files` and `upsert-cli help"),
        ("xyzzy", "`upsert-cli help` lists the topics"),
    ],
)
def test_an_unknown_topic_names_the_nearest(terminal: Terminal, typed: str, advice: str) -> None:
    """A word that is neither a page nor a command is a usage error with a suggestion."""
    done = terminal.type(f"upsert-cli help {typed}", expect=2)
    assert done.stdout == ""
    assert advice in done.stderr


def test_a_terminal_gets_a_page_that_is_laid_out(terminal: Terminal) -> None:
    """On a terminal there is no Markdown, and links to pages are commands."""
    page = "\n".join(shown(terminal, "upsert-cli help cron", columns=90))
    assert "# Load nightly" not in page
    assert "```" not in page
    assert "upsert-cli help errors" in page
    assert ".md)" not in page


@pytest.mark.parametrize("topic", ["", "cron", "environment", "run"])
def test_help_needs_neither_a_journal_nor_heavy_packages(terminal: Terminal, topic: str) -> None:
    """Help imports no heavy package, and makes no folder."""
    heavy = ("chromadb", "fastembed", "onnxruntime", "pyarrow", "numpy", "rich")
    code = (
        "import sys\nfrom upsert_cli.cli.root import cli\n"
        f"try:\n    cli(['help', *{topic.split()!r}], prog_name='upsert-cli')\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    environment = {
        name: value for name, value in terminal.environment.items() if name not in ("HOME", "UPSERT_CLI_JOURNAL")
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=terminal.folder, capture_output=True, text=True, env=environment, check=True
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[]"
    assert list(terminal.folder.iterdir()) == []
