"""`completion SHELL`: the words that bash, zsh and fish offer, and the CPU time that this takes."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.journal_tasks import make_task, segment_at
from tests.support.terminal import Terminal
from tests.test_layers import HEAVY
from upsert_cli.cli.root import COMMANDS
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

SHELLS = ("bash", "zsh", "fish")
CPU_SECONDS = 0.15  # that a Tab may cost; asserted as a ratio, since machines differ, and printed

# In each shell: load the script as the help says, and print its offers for the line in $LINE.
ASK = {
    "bash": """
source <(upsert-cli completion bash)
COMP_LINE=$LINE; read -ra COMP_WORDS <<< "$LINE"; [[ $LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); compopt() { echo "files: $*"; }
_upsert_cli_completion upsert-cli
printf '%s\\n' "${COMPREPLY[@]}"
""",
    "zsh": """
autoload -U compinit && compinit -u -d $PWD/dump
source <(upsert-cli completion zsh)
_path_files() { echo "files: $*" }
_describe() { local name=$3; print -l -- "${(@)${(P)name}%%:*}" }
compadd() { local name=${@[-1]}; print -l -- "${(@P)name}" }
words=("${(@s: :)LINE}"); CURRENT=${#words}
_upsert_cli_completion
""",
    "fish": """
upsert-cli completion fish | source
complete --do-complete "$LINE" | string replace --regex '\\t.*' ''
""",
}


@pytest.fixture
def shell(terminal: Terminal) -> Terminal:
    """Return a terminal with tasks in every state and with our command on its path."""
    journal = Journal(terminal.journal)
    for status in TaskStatus:
        journal.create(make_task(f"{status}-1", status=status, collection="articles", model="BAAI/bge-small-en"))
    journal.create(make_task("hostile", collection="$(touch owned),`id`;x *", status=TaskStatus.DONE))
    terminal.env |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(terminal.folder)}
    return terminal


def _offered(terminal: Terminal, shell: str, line: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}, which .ci/run installs")
    terminal.env["LINE"] = line
    options = {"bash": "--noprofile --norc", "zsh": "-f", "fish": "--no-config"}[shell]
    return terminal.type(f"{shell} {options} -c {shlex.quote(ASK[shell])}").stdout.split("\n")[:-1]


@pytest.mark.parametrize("shell_name", SHELLS)
def test_a_shell_offers_what_fits(shell: Terminal, shell_name: str) -> None:
    """With the printed script, the shell offers commands and task ids, and completes files itself."""
    assert "info" in _offered(shell, shell_name, "upsert-cli in")
    offered = _offered(shell, shell_name, "upsert-cli cancel ")
    assert sorted(name for name in offered if name) == ["pending-1", "processing-1"]


def _asked(terminal: Terminal, line: str) -> list[str]:
    """Return our command's answer to fish, which has the simplest protocol."""
    word = line.rpartition(" ")[2]
    terminal.env |= {"_UPSERT_CLI_COMPLETE": "fish_complete", "COMP_WORDS": line, "COMP_CWORD": word}
    return [answer.partition(",")[2] for answer in terminal.type("upsert-cli").stdout.splitlines()]


def test_what_is_offered_comes_from_the_journal(shell: Terminal) -> None:
    """Ids with their state, statuses, collections and models are offered, but no name that a shell would interpret."""
    assert "failed-1\tfailed: 0 rows into articles" in _asked(shell, "upsert-cli info fail")
    assert _asked(shell, "upsert-cli info proc") == ["processing-1\tdied: 0 rows into articles"]
    assert _asked(shell, "upsert-cli info la") == ["latest\tthe newest task: hostile"]
    assert not any(_asked(shell, "upsert-cli run --task-id la"))
    assert _asked(shell, "upsert-cli verify ")[0] == "hostile\tdone: 0 rows into $(touch owned) `id`;x *"
    assert {answer.partition("\t")[0] for answer in _asked(shell, "upsert-cli list --status p")} == {
        "pending",
        "processing",
    }
    assert set(_asked(shell, "upsert-cli run --model ")) == {DEFAULT_MODEL, "none", "BAAI/bge-small-en"}
    assert _asked(shell, "upsert-cli run --collection ") == ["articles"]
    assert {answer.partition("\t")[0] for answer in _asked(shell, "upsert-cli ")} >= set(COMMANDS)
    assert not any(_asked(shell, f"upsert-cli info --journal {shell.folder / 'none'} "))


def test_a_damaged_journal_offers_nothing_and_prints_nothing(shell: Terminal) -> None:
    """A message would appear in the middle of the typed line; `journal check` reports the damage."""
    (shell.journal / "meta.json").write_text('{"format": 99}')
    shell.env |= {"_UPSERT_CLI_COMPLETE": "fish_complete", "COMP_WORDS": "upsert-cli info ", "COMP_CWORD": ""}
    done = shell.type("upsert-cli")
    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("line", ["upsert-cli info ", "upsert-cli run --model "])
def test_a_tab_is_cheap(shell: Terminal, line: str) -> None:
    """With 2,000 tasks in the journal, a Tab loads nothing heavy and takes a small multiple of starting Python with click."""
    journal = Journal(shell.journal)
    records = [make_task(f"old-{number:05d}", status=TaskStatus.DONE).as_record() for number in range(2_000)]
    for begin in range(0, len(records), 500):
        segment_at(journal.folder, begin // 500 + 1).insert(*records[begin : begin + 500])
    shell.env |= {"_UPSERT_CLI_COMPLETE": "fish_complete", "COMP_WORDS": line, "COMP_CWORD": ""}
    unwanted = (*HEAVY, "rich", "subprocess", "upsert_cli.sources.rows", "upsert_cli.load.run")
    code = (
        "import sys\nfrom upsert_cli.cli.root import main\n"
        f"try:\n    main()\nfinally:\n    print([name for name in {unwanted!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=shell.environment, capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr.splitlines()[-1] == "[]"
    ours = min(_cpu(["-m", "upsert_cli"], shell) for _ in range(3))
    bare = min(_cpu(["-c", "import click, tinydb"], shell) for _ in range(3))
    print(f"a Tab after `{line}`: {ours:.3f} CPU seconds, of {CPU_SECONDS}; importing click and tinydb: {bare:.3f}")
    assert ours < 3.5 * bare


def _cpu(arguments: list[str], terminal: Terminal) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], env=terminal.environment, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_an_unknown_shell_is_a_usage_error(terminal: Terminal) -> None:
    """The error lists the known shells."""
    assert "'bash', 'zsh', 'fish'" in terminal.type("upsert-cli completion tcsh", expect=2).stderr
