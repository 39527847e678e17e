"""Settings files: precedence, errors, and `config show`, which names the origin of each setting."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal


def _file(terminal: Terminal, text: str, name: str = "upsert-cli.toml") -> Path:
    path = terminal.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def _shown(terminal: Terminal, options: str = "") -> dict[str, tuple[Any, str]]:
    shown = json.loads(terminal.type(f"upsert-cli config show --json {options}").stdout)
    return {each["setting"]: (each["value"], each["where"] or each["origin"]) for each in shown["settings"]}


def test_options_beat_the_environment_which_beats_files(terminal: Terminal) -> None:
    """Option, variable, profile, file of the folder, file of the user, default: each beats the following ones."""
    home = terminal.folder / "home"
    terminal.env["HOME"] = str(home)
    user = _file(
        terminal,
        'color = "never"\n[run]\nmodel = "of the user"\nthreads = 2\n[list]\nlimit = 7\n[profile.night.run]\ndevice = "cuda"\n',
        "home/.config/upsert-cli/config.toml",
    )
    mine = _file(
        terminal,
        'quiet = true\nprogress = "none"\n[run]\nmodel = "of the folder"\nbatch_size = 5\nchroma = "data"\n'
        '[categories.run]\nbatch-size = 6\n[profile.night]\nprogress = "bar"\n[profile.night.run]\nmodel = "of the night"\n',
    )
    shown = _shown(terminal)
    assert shown["color"] == ("never", str(user))
    assert shown["run.model"] == ("of the folder", f"[run] of {mine}")
    assert shown["run.threads"] == (2, f"[run] of {user}")
    assert shown["run.batch-size"] == (5, f"[run] of {mine}")
    assert shown["categories.run.batch-size"] == (6, f"[categories.run] of {mine}")
    assert shown["categories.run.model"] == ("of the folder", f"[run] of {mine}")
    assert shown["run.chroma"] == (str(terminal.folder / "data"), f"[run] of {mine}")
    assert shown["run.device"] == ("cpu", "default")
    assert shown["list.limit"] == (7, f"[list] of {user}")
    assert shown["run.token-budget"] == (None, "default")
    terminal.env |= {"UPSERT_CLI_QUIET": "0", "UPSERT_CLI_RUN_THREADS": "3"}
    shown = _shown(terminal, "--profile night --color always")
    assert shown["quiet"] == (False, "UPSERT_CLI_QUIET")
    assert shown["color"] == ("always", "option")
    assert shown["progress"] == ("bar", f"[profile.night] of {mine}")
    assert shown["run.model"] == ("of the night", f"[profile.night.run] of {mine}")
    assert shown["run.device"] == ("cuda", f"[profile.night.run] of {user}")
    assert shown["run.threads"] == (3, "UPSERT_CLI_RUN_THREADS")
    alone = _file(terminal, "[list]\nlimit = 1\n", "elsewhere/alone.toml")
    terminal.env["UPSERT_CLI_CONFIG"] = str(alone)
    shown = _shown(terminal)
    assert shown["list.limit"] == (1, f"[list] of {alone}")
    assert shown["run.model"][1] == "default"


def test_settings_are_options(tiny: Terminal, make_items: Items) -> None:
    """A file sets mapping, collection and flags of a load; `categories run` shares all but collection and task id."""
    tiny.write("a.jsonl", [{"key": "k", "title": "t", "body": "b", "n": 1}])
    _file(
        tiny,
        '[run]\ncollection = "mine"\ntask-id = "one"\nid-field = "key"\ntext-field = ["title", "body"]\n'
        'metadata-fields = ["title", "n"]\n',
    )
    tiny.type("upsert-cli run a.jsonl")
    tiny.type("upsert-cli categories run a.jsonl --id-from row --task-id two")
    assert tiny.info("one")["collection"] == "mine"
    (record,) = tiny.records("mine").values()
    assert (record["document"], record["metadata"]["n"]) == ("t\nb", 1)
    assert "body" not in record["metadata"]
    assert (tiny.info("two")["collection"], tiny.info("two")["counts"]["inserted"]) == ("categories", 1)


def test_a_typed_map_file_beats_the_settings_file(tiny: Terminal) -> None:
    """`--map` on the command line beats the settings, and an option beats `--map`."""
    tiny.write("a.jsonl", [{"key": "k", "other": "o", "title": "t", "body": "b"}])
    _file(tiny, '[run]\nid-field = "key"\ntext-field = "title"\n')
    _file(tiny, 'id-field = "other"\ntext-field = "body"\n', "map.toml")
    tiny.type("upsert-cli run a.jsonl --map map.toml --id-field title")
    assert {name: each["document"] for name, each in tiny.records().items()} == {"t": "b"}


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("quite = true\n", "list", "`quite` in {} is not a setting, did you mean `quiet`?"),
        ("[list]\nlimits = 3\n", "list", "`limits` in [list] of {} is not a setting, did you mean `limit`?"),
        ("[lists]\nlimit = 3\n", "info t", "`lists` in {} is not a setting, did you mean `list`?"),
        ("[run]\nbatchsize = 3\n", "categories run a", "`batchsize` in [run] of {}"),
        ("[categories.runs]\nstrict = true\n", "categories run a", "did you mean `run`?"),
        ("[profile.x.list]\nlimt = 3\n", "list", "`limt` in [profile.x.list] of {} is not a setting, did you mean `limit`?"),
        ("list = 3\n", "list", "`list` in {} has to be a table, such as [list]"),
        ("quiet = 1\n", "list", "`quiet` in {} has to be true or false"),
        ("[quiet]\nx = 1\n", "list", "`quiet` in {} has to be a value, not a table"),
        ("[list]\nlimit = true\n", "list", "`limit` in [list] of {} has to be a text or a number"),
        ("[list]\nlimit = [1]\n", "list", "one text or number, not a list"),
        ('[list]\nlimit = "many"\n', "list", "Invalid value for `limit` in [list] of {}"),
        ("[list\n", "list", "{} cannot be read ("),
        ("", "list --profile x", "no profile 'x' in {}"),
        ("[profile.night]\n", "list --profile nigth", "did you mean `night`?"),
        ("[run]\nbatch-size = 3\nbatch_size = 4\n", "run a", "`batch-size` and `batch_size` in [run] of {} are one setting"),
        ("[run]\nbatchsize = 3\n", "config show", "did you mean `batch-size`?"),
        ('[run]\nmax-failures = "many"\n', "config show", "Invalid value for `max-failures` in [run] of {}"),
    ],
)  # fmt: skip
def test_unknown_keys_and_wrong_values_are_refused(terminal: Terminal, text: str, line: str, said: str) -> None:
    """The exit code is 2, and one line names the file, the table and the most similar key."""
    path = _file(terminal, text)
    done = terminal.type(f"upsert-cli {line}", expect=2)
    assert said.format(path) in done.stderr
    assert done.stderr.count("\n") == 1


def test_errors_in_the_table_of_another_command_are_ignored(terminal: Terminal) -> None:
    """`list` works although the table of `run` has an error, for which `run` fails."""
    _file(terminal, "[run]\nbatchsize = 3\n")
    terminal.type("upsert-cli list")
    done = terminal.type("upsert-cli run a.jsonl --json", expect=2)
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["error", "summary"]


def test_a_file_that_others_may_write_is_refused(terminal: Terminal) -> None:
    """A settings file that was found, not named, must belong to this user or root and not be writable by others."""
    path = _file(terminal, "quiet = true\n")
    path.chmod(0o666)
    assert f"{path} is not used because everybody may write to it" in terminal.type("upsert-cli list", expect=2).stderr
    terminal.type(f"upsert-cli list --config {path}")
    terminal.type("upsert-cli list --config /dev/null")
    path.chmod(0o600)
    terminal.type("upsert-cli list")
    assert "No such file" in terminal.type("upsert-cli list --config none.toml", expect=2).stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_another_user_is_refused(terminal: Terminal) -> None:
    """A file, or a link to one, that belongs to neither this user nor root is never used."""
    path = _file(terminal, "quiet = true\n")
    os.chown(path, 65_534, 65_534)
    assert "it belongs to another user" in terminal.type("upsert-cli list", expect=2).stderr
    mine = _file(terminal, "quiet = true\n", "mine.toml")
    path.unlink()
    path.symlink_to(mine)
    os.chown(path, 65_534, 65_534, follow_symlinks=False)
    assert "it belongs to another user" in terminal.type("upsert-cli list", expect=2).stderr
