"""A user without a home folder, as in many containers: no HOME, and no entry in the user database."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

from tests.support.forked import run_python
from tests.support.terminal import Terminal

_PROGRAM = """
import pwd, sys
def unknown(_):
    raise KeyError
pwd.getpwuid = pwd.getpwnam = unknown
from upsert_cli.__main__ import main
main()
"""
_HOME_VARIABLES = ("HOME", "UPSERT_CLI_JOURNAL", "UPSERT_CLI_MODEL_CACHE", "XDG_STATE_HOME", "XDG_CONFIG_HOME")


def _type(terminal: Terminal, line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in terminal.environment.items() if name not in _HOME_VARIABLES}
    program = [sys.executable, "-c", _PROGRAM, *shlex.split(line)]
    raw = run_python(program, folder=terminal.folder, environment=environment | variables)
    return subprocess.CompletedProcess(raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode())


def test_a_load_needs_no_home_folder(terminal: Terminal) -> None:
    """With the journal and the model cache named, a load, its check and a query work."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    named = {"UPSERT_CLI_MODEL_CACHE": os.environ["UPSERT_CLI_MODEL_CACHE"], "UPSERT_CLI_JOURNAL": "journal"}
    for line in ("run a.jsonl --task-id t --verify -q", "query hello", "list", "info t", "collections", "models list"):
        done = _type(terminal, line, **named)
        assert (done.returncode, done.stderr) == (0, ""), line
    assert {path.name for path in terminal.folder.iterdir()} == {"a.jsonl", "chroma", "journal"}


@pytest.mark.parametrize("line", ["--help", "run --help", "--version", "config show", "completion zsh", "models list"])
def test_a_command_without_journal_needs_no_home_folder(terminal: Terminal, line: str) -> None:
    """A command that keeps no state works without any folder."""
    done = _type(terminal, line)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize("home", [None, ""])
@pytest.mark.parametrize(
    "line",
    ["list", "info t", "cancel t", "work", "prune --keep 1", "journal check", "run a.jsonl", "restart t", "verify t",
     "query hello", "collections", "report t --html page.html", "models check", "models fetch --offline",
     "list --journal ~/j", "run a.jsonl --chroma ~/c --journal j", "list --config ~/c.toml --journal j"],
)  # fmt: skip
def test_a_missing_home_folder_is_named_with_its_setting(terminal: Terminal, line: str, home: str | None) -> None:
    """Exit code 1 and one line that names the setting for the missing folder; nothing is created."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    done = _type(terminal, line, **({} if home is None else {"HOME": home}))
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert all(name in error for name in ("HOME", "--journal", "UPSERT_CLI_MODEL_CACHE"))
    assert [path.name for path in terminal.folder.iterdir()] == ["a.jsonl"]


def test_the_home_of_an_unknown_user(terminal: Terminal) -> None:
    """A path that begins with the name of a user who does not exist is a usage error, not a bug."""
    done = terminal.type("upsert-cli list --journal ~nobody-has-this-name/j", expect=2)
    assert "there is no user nobody-has-this-name" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_state_folders_may_be_named_by_the_desktop_variables(terminal: Terminal) -> None:
    """XDG_STATE_HOME names the journal's folder as well as a home folder does."""
    done = _type(terminal, "list -q", XDG_STATE_HOME=str(terminal.folder / "state"))
    assert (done.returncode, done.stderr) == (0, "")
