"""A kill, a full disk and a failing disk at each single system call with which the journal is written."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.journal.conftest import ROOT, acknowledged, start_process
from tests.journal.test_journal_crashes import check
from tests.support.journal_driver import INPUT
from tests.support.journal_tasks import make_task
from upsert_cli.journal.claims import request_cancel
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

CALLS = (
    *("write", "pwrite64", "fsync", "ftruncate", "openat", "flock", "mkdir", "mkdirat"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat"),
)
FAULTS = {"kill": "signal=KILL", "full disk": "error=ENOSPC", "failing disk": "error=EIO"}
POINTS = 8  # points tried by default, spread over all
_LINE = re.compile(r"(?:\[pid +\d+\] )?(\w+)\((.*)")


@dataclass(frozen=True)
class Strace:
    """A run of two tasks under strace, one of them with spooled input and a retry of its rejects."""

    code: Path
    """A copy of the sources, so that every run makes the same system calls even while the originals are edited."""

    def run(
        self, folder: Path, *options: str, step: tuple[str, str] = ("everything", "t")
    ) -> subprocess.CompletedProcess[str]:
        """Return the process's report; the system calls are in `folder/log`."""
        calls = f"trace={','.join(f'?{call}' for call in CALLS)}"
        before = ["strace", "-f", "-y", "-o", str(folder / "log"), "-e", calls, *options]
        process = start_process("driver", step[0], folder / "journal", step[1], before=before, root=self.code)
        output, problems = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, problems)


@pytest.fixture(scope="module")
def strace(tmp_path_factory: pytest.TempPathFactory) -> Strace:
    """Return the run, tried once, so that all files of Python's cache exist."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, and nothing else makes the n-th system call fail")
    code = tmp_path_factory.mktemp("code")
    for name in ("upsert_cli", "tests/journal", "tests/support"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
    (code / "tests" / "__init__.py").touch()
    tried = Strace(code)
    tried.run(tmp_path_factory.mktemp("first"))
    return tried


def calls_in(log: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the calls that concern the journal: name, and position among the process's calls of that name."""
    seen: dict[str, int] = {}
    for line in log.read_text().splitlines():
        if (match := _LINE.match(re.sub(r"^\d+ +", "", line))) is None:
            continue
        name, arguments = match.groups()
        seen[name] = seen.get(name, 0) + 1
        if str(folder) in arguments:
            yield name, seen[name]


@pytest.fixture(scope="module")
def points(strace: Strace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """Return all points of a run at which a fault can strike."""
    folder = tmp_path_factory.mktemp("points")
    done = strace.run(folder)
    assert (done.returncode, done.stderr) == (0, "")
    check_all_done(folder / "journal")
    found = list(calls_in(folder / "log", folder / "journal"))
    assert {name for name, _ in found} >= {"write", "fsync", "openat", "ftruncate", "flock"}
    assert len(found) > 150
    return found


def check_all_done(folder: Path) -> None:
    """Check that the run completed."""
    tasks = Journal(folder).list()
    assert [(task.id, task.status, task.attempt) for task in tasks] == [
        ("t-1", TaskStatus.DONE, 1),
        ("t-0", TaskStatus.DONE, 2),
    ]


def strike(strace: Strace, point: tuple[str, int], fault: str, folder: Path) -> None:
    """Let a fault strike at one point, and check the journal afterwards."""
    name, number = point
    folder.mkdir()
    done = strace.run(folder, "-e", f"inject={name}:{FAULTS[fault]}:when={number}")
    journal = Journal(folder / "journal")
    steps = acknowledged(done.stdout)
    check(journal, steps)
    if steps:
        assert (journal.files("t-0").spool / "0.jsonl").read_bytes() == INPUT
    if fault == "kill":
        assert done.returncode != 0
    else:
        assert done.returncode == 0, done.stderr
        assert "(INJECTED)" in (folder / "log").read_text()
        # The step that failed said so in one line that names the path, and succeeded when it was made again.
        assert all(str(folder / "journal") in line for line in done.stderr.splitlines())
        check_all_done(journal.folder)
    for task in journal.list():
        assert not journal.is_running(task.id)
        if not task.status.is_final:
            assert request_cancel(journal, task.id).status is TaskStatus.CANCELED
    journal.create(make_task("next"))
    assert journal.find("next") == make_task("next")
    assert damaged_files(journal) == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_some_system_calls_fail(strace: Strace, points: list[tuple[str, int]], fault: str, tmp_path: Path) -> None:
    """At points spread over a run, every acknowledged step is there, nothing is damaged, and the journal keeps working."""
    for place in range(list(FAULTS).index(fault), len(points), len(points) // POINTS):
        strike(strace, points[place], fault, tmp_path / str(place))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_system_call_fails(strace: Strace, points: list[tuple[str, int]], fault: str, tmp_path: Path) -> None:
    """The same holds at every point of a run."""
    for place, point in enumerate(points):
        strike(strace, point, fault, tmp_path / str(place))
        shutil.rmtree(tmp_path / str(place))
