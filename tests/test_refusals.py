"""The advice in a refusal can be pasted and succeeds, and fits the command that was given."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal

COMMAND = re.compile(r"`(upsert-cli [^`]+)`")


def _advised(said: str, wanted: str) -> str:
    (command,) = [command for command in COMMAND.findall(said) if wanted in command]
    return str(command)


@pytest.mark.parametrize("again", ["run b.jsonl --delete-missing --scope s --task-id d", "restart d"])
def test_a_deletion_that_was_refused_names_the_limit_that_suffices(
    tiny: Terminal, make_items: Items, again: str
) -> None:
    """Even after several refusals, the printed command ends with 0 and keeps the new limit."""
    tiny.write("b.jsonl", make_items(20))
    tiny.type("upsert-cli run b.jsonl --delete-missing --scope s -q")
    tiny.write("b.jsonl", make_items(2))
    tiny.type("upsert-cli run b.jsonl --delete-missing --scope s --task-id d", expect=4)
    said = tiny.type(f"upsert-cli {again}", expect=4).stderr
    command = _advised(said, "--max-delete")
    assert command == "upsert-cli restart d --max-delete 18"
    assert "18 deleted" in tiny.type(command).stderr
    assert len(tiny.records()) == 2
    assert tiny.info("d")["options"]["max_delete"] == "18"


def test_a_rehearsal_of_too_many_deletions_names_no_task(tiny: Terminal, make_items: Items) -> None:
    """A dry run has no task to restart, but names the sufficient limit."""
    tiny.write("b.jsonl", make_items(20))
    tiny.type("upsert-cli run b.jsonl --delete-missing --scope s -q")
    tiny.write("b.jsonl", make_items(5))
    line = "upsert-cli run b.jsonl --delete-missing --scope s --task-id d --dry-run"
    said = tiny.type(line, expect=4).stderr
    assert "restart" not in said
    assert "--max-delete 15 allows it" in said
    tiny.type(f"{line} --max-delete 15")


@pytest.mark.parametrize(("limit", "rejected"), [("0", 1), ("1", 2), ("10%", 3)])
def test_a_load_with_too_many_rejects_names_the_restart_that_continues(
    tiny: Terminal, make_items: Items, limit: str, rejected: int
) -> None:
    """With the same limit it would fail again."""
    tiny.write("a.jsonl", [*[{"object_id": ""}] * rejected, *make_items(10)])
    said = tiny.type(f"upsert-cli run a.jsonl --task-id t --max-failures {limit}", expect=1).stderr
    tiny.type("upsert-cli restart t", expect=1)
    tiny.type(_advised(said, "--max-failures"), expect=3)
    assert tiny.info("t")["counts"]["inserted"] == 10


def test_a_retry_before_all_rows_were_read_names_the_restart_that_reads_them(tiny: Terminal, make_items: Items) -> None:
    """Where the limit of rejects stopped the load, that is a restart with another limit."""
    tiny.write("a.jsonl", [{"object_id": ""}, *make_items(600)])
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 16 --max-failures 0", expect=1)
    said = tiny.type("upsert-cli restart t --failed-only", expect=4).stderr
    tiny.type(_advised(said, "restart t"), expect=3)
    tiny.type("upsert-cli restart t --failed-only", expect=3)


def test_a_limit_can_be_tightened_and_is_kept_by_a_queued_task(tiny: Terminal) -> None:
    """A worker runs the task with the limit that the restart gave."""
    tiny.write("a.jsonl", [{"object_id": ""}, {"object_id": "a", "payload": {"text": "x"}}])
    tiny.type("upsert-cli run a.jsonl --task-id t", expect=3)
    tiny.type("upsert-cli restart t --max-failures 0 --enqueue")
    tiny.type("upsert-cli work", expect=1)
    assert "--max-failures 0" in tiny.info("t")["detail"]


def test_a_limit_that_is_of_no_use_to_a_task_is_a_usage_error(tiny: Terminal, make_items: Items) -> None:
    """A limit that has no effect on a task is a usage error as for `run`, and nothing is changed."""
    tiny.write("a.jsonl", make_items(2))
    tiny.type("upsert-cli run a.jsonl --task-id t")
    assert "deletes nothing" in tiny.type("upsert-cli restart t --max-delete 5", expect=2).stderr
    tiny.type("upsert-cli restart t --max-failures many", expect=2)
    assert (tiny.info("t")["status"], tiny.info("t")["attempt"]) == ("done", 1)


def test_the_help_of_failed_only_says_when_it_applies(terminal: Terminal) -> None:
    """The help says that --failed-only does not reload a corrected source."""
    help_text = " ".join(terminal.type("upsert-cli restart --help").stdout.split())
    assert "once a cause outside the sources is removed" in help_text
    assert "If the sources changed, use --from-start" in help_text


@pytest.mark.parametrize("line", ["verify d", "verify d --repair", "verify d --json"])
@pytest.mark.parametrize("change", ["grown", "gone"])
def test_verify_of_a_changed_source_says_what_can_still_be_verified(
    tiny: Terminal, make_items: Items, line: str, change: str
) -> None:
    """The message says what can still be verified rather than how to load the source again, and its advice works."""
    path = tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id d -q")
    tiny.write("a.jsonl", make_items(5)) if change == "grown" else path.unlink()
    done = tiny.type(f"upsert-cli {line}", expect=4)
    said = json.loads(done.stdout)["error"] if "--json" in line else done.stderr
    assert "a.jsonl changed since task d was last run" in said
    assert "checkpoint" not in said
    assert "restart" not in said
    assert tiny.type(_advised(said, "verify --collection default")).returncode == 0


def test_an_unknown_setting_names_a_command_that_does_not_read_it(terminal: Terminal) -> None:
    """With the same file `config show` would be refused for the same reason."""
    (terminal.folder / "set.toml").write_text("colour = 1\n[profile.p]\n")
    said = terminal.type("upsert-cli list --config set.toml --profile p", expect=2).stderr
    assert "color" in terminal.type(_advised(said, "config show")).stdout


@pytest.mark.parametrize("chroma", ["file", "file/below", "dangling"])
def test_a_target_that_cannot_be_a_folder(tiny: Terminal, make_items: Items, chroma: str) -> None:
    """The remedy is another folder; more access to a file, or to a link that leads nowhere, would not help."""
    tiny.write("a.jsonl", make_items(1))
    (tiny.folder / "file").touch()
    (tiny.folder / "dangling").symlink_to("nowhere")
    error = tiny.type(f"upsert-cli run a.jsonl --chroma {chroma}", expect=1).stderr.splitlines()[-1]
    assert "part of the path is not a folder; choose another folder with --chroma" in error
