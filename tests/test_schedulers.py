"""The examples for cron and systemd in the guide, each run as the scheduler would: no terminal, next to no environment."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from tests.support.manual import GUIDE, blocks
from tests.support.terminal import Terminal

PAGE = GUIDE / "cron.md"
ITEM = {"object_id": "a", "payload": {"text": "x"}}
BARE = {"PATH": "/usr/bin:/bin", "LOGNAME": "articles"}


def _here(command: str, terminal: Terminal) -> str:
    """Return a command of the guide with the folders of this test."""
    tool = shlex.join([sys.executable, "-m", "upsert_cli"])
    return command.replace("/opt/upsert-cli/bin/upsert-cli", tool).replace("/srv/articles", str(terminal.folder))


def _run(command: list[str], terminal: Terminal, env: dict[str, str]) -> tuple[int, str]:
    """Run a command with nothing but `env` in its own session; return its exit code and its output."""
    env = BARE | {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ} | env
    env["UPSERT_CLI_RUN_MODEL_PATH"] = terminal.env["UPSERT_CLI_RUN_MODEL_PATH"]
    done = subprocess.run(
        command, cwd=terminal.folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def _tasks(folder: Path, terminal: Terminal) -> list[dict[str, object]]:
    tasks: list[dict[str, object]] = json.loads(terminal.type(f"upsert-cli list --json --journal {folder}").stdout)
    return tasks


def test_the_line_of_the_crontab_works(tiny: Terminal) -> None:
    """Run as cron does, whose home folder need not be there yet: silent, once a day, and a changed source is a report."""
    (block,) = blocks(PAGE, "crontab")
    (line,) = block.strip().splitlines()
    fields = line.split(None, 5)
    assert not re.search(r"(?<!\\)%", fields[5])  # cron takes a bare one for a line break
    command = ["/bin/sh", "-c", _here(fields[5].replace("\\%", "%"), tiny)]
    home = tiny.folder / "home" / "articles"
    (tiny.folder / "nightly").mkdir()
    tiny.write("nightly/a.jsonl", [ITEM])
    for _ in range(2):
        assert _run(command, tiny, {"HOME": str(home), "SHELL": "/bin/sh"}) == (0, "")
    (task,) = _tasks(home / ".local" / "state" / "upsert-cli", tiny)
    assert (task["status"], task["attempt"]) == ("done", 1)
    assert str(task["id"]).startswith(f"nightly-{date.today().year}-")
    tiny.write("nightly/a.jsonl", [ITEM, ITEM | {"object_id": "b"}])
    code, mail = _run(command, tiny, {"HOME": str(home)})
    assert code == 4
    assert "another load" in mail
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", mail)


def test_the_service_and_the_timer_work(tiny: Terminal) -> None:
    """The service's command runs without a home and with only its own variables, and systemd accepts both files."""
    service, timer = (configparser.ConfigParser(interpolation=None, strict=False) for _ in range(2))
    service.optionxform = timer.optionxform = str  # type: ignore[assignment, method-assign]
    for parser, text in zip((service, timer), blocks(PAGE, "ini"), strict=True):
        parser.read_string(text)
    assert timer["Timer"]["OnCalendar"]
    state, cache = tiny.folder / "var-lib", tiny.folder / "var-cache"
    variables = service["Service"]["Environment"].replace("%S", str(state)).replace("%C", str(cache))
    env = dict(each.split("=", 1) for each in variables.split())
    assert set(env) == {"UPSERT_CLI_JOURNAL", "UPSERT_CLI_MODEL_CACHE"}
    start = _here(service["Service"]["ExecStart"], tiny)
    assert not re.search(r"(?<!%)%(?!%)|(?<!\$)\$(?!\$)", start)  # systemd would put something else in its place
    command = shlex.split(start.replace("%%", "%").replace("$$", "$"))
    (tiny.folder / "nightly").mkdir()
    tiny.write("nightly/a.jsonl", [ITEM, {"object_id": ""}])
    code, log = _run(command, tiny, env)
    assert code == int(service["Service"]["SuccessExitStatus"])
    assert "1 rejected" in log
    (task,) = _tasks(state / "upsert-cli", tiny)
    assert task["status"] == "done"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, which only asks for more")
def test_systemd_takes_the_service_and_the_timer(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say against the two files."""
    for text in blocks(PAGE, "ini"):
        name = re.findall(r"^# .*/(\S+)$", text, re.M)[0]
        (tmp_path / name).write_text(text.replace("/opt/upsert-cli/bin/upsert-cli", sys.executable))
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "upsert-nightly" in line]
    assert ours == []


@pytest.mark.parametrize("command", ["run a.jsonl -q", "list", "work -q"])
def test_a_home_that_cannot_be_is_named_with_the_way_out(tiny: Terminal, command: str) -> None:
    """Where there can be no home folder, the error names the path and --journal, and nothing is written."""
    tiny.write("a.jsonl", [ITEM])
    code, said = _run([sys.executable, "-m", "upsert_cli", *command.split()], tiny, {"HOME": "/dev/null/nobody"})
    assert code == 1
    assert re.fullmatch(
        r"error: the journal cannot be \w+: /dev/null/nobody/\S+: Not a directory; .* --journal\n", said
    )
    assert not (tiny.folder / "chroma").exists()
