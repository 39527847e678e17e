"""Output: data goes to stdout, everything else to stderr, and logs and pipes get plain text."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal, read_drawn
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import read_checkpoint

NASTY = "\x1b[31m[bold]::error file=x\u202e\x9b1m"


def _events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_quiet_success_prints_nothing(tiny: Terminal, make_items: Items) -> None:
    """With -q a successful load prints nothing, also if there was nothing to do."""
    tiny.write("a.jsonl", make_items(5))
    for _ in range(2):
        done = tiny.type("upsert-cli run a.jsonl --task-id t -q")
        assert (done.stdout, done.stderr) == ("", "")


def test_quiet_failure_prints_a_complete_report(tiny: Terminal, make_items: Items) -> None:
    """With -q a failed load names the task, the counts, the first ten rejects and the restart command."""
    tiny.write("a.jsonl", [*make_items(5), *[{"object_id": ""}] * 12])
    done = tiny.type("upsert-cli run a.jsonl --task-id t -q --max-failures 3", expect=1)
    assert done.stdout == ""
    assert "task t failed" in done.stderr
    assert "5 inserted" in done.stderr
    assert len(re.findall(r"a\.jsonl:\d+: on_reading", done.stderr)) == 10
    assert "upsert-cli restart t" in done.stderr
    assert "error: " in done.stderr


def test_quiet_rejects_are_a_complete_report(tiny: Terminal, make_items: Items) -> None:
    """With -q a load with rejects names the task, the counts, ten rejects and the next command."""
    tiny.write("a.jsonl", [*make_items(2), *[{"object_id": ""}] * 12])
    done = tiny.type("upsert-cli run a.jsonl --task-id t -q", expect=3)
    first, *described, where, again = done.stderr.splitlines()
    assert (done.stdout, sum(" on_reading: " in line for line in described)) == ("", 10)
    assert first.startswith("task t done: 2 inserted, 0 updated, 0 unchanged, 12 rejected")
    assert where == "  2 more; all of them: upsert-cli info t --failed"
    assert again == "  once the rejected items are corrected: upsert-cli restart t --from-start"


REPORTED = ["exit code", "sources", "target", "model", "host", "created", "started", "finished", "took"]


def test_a_quiet_report_is_as_complete_when_the_task_was_done_before(tiny: Terminal) -> None:
    """The second night's email is as complete as the first."""
    tiny.write("a.jsonl", [{"object_id": str(number), "payload": {"text": ""}} for number in range(12)])
    for begins in ("task t done: 0 inserted", "task t is done already: 0 inserted"):
        done = tiny.type("upsert-cli run a.jsonl --task-id t -q", expect=3)
        first, *described = done.stderr.splitlines()
        assert first.startswith(begins)
        assert [line[2:11].strip() for line in described[: len(REPORTED)]] == REPORTED
        assert f"  sources    {tiny.folder / 'a.jsonl'}" in described
        assert f"  target     collection default in {tiny.folder / 'chroma'}" in described
        assert sum("a.jsonl:" in line and "on_reading" in line for line in described) == 10
        assert described[-2:] == [
            "  2 more; all of them: upsert-cli info t --failed",
            "  once the rejected items are corrected: upsert-cli restart t --from-start",
        ]


def test_a_quiet_report_of_a_restarted_task_has_the_time_of_all_attempts(tiny: Terminal, make_items: Items) -> None:
    """The elapsed time in the email includes all attempts."""
    tiny.write("a.jsonl", [*make_items(600), {"object_id": ""}])
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 50")
    tiny.halt_when(process, "t")
    process.terminate()
    tiny.go_on(process)
    process.communicate()
    first, *described = tiny.type("upsert-cli restart t -q", expect=3).stderr.splitlines()
    took = first.rpartition(" in ")[2]
    assert took.endswith(" over 2 attempts")
    assert f"  took       {took}" in described
    assert f"  took       {took}" in tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 50 -q", expect=3).stderr


@pytest.mark.parametrize(
    ("first", "code", "remedy"),
    [
        ("upsert-cli run a.jsonl --task-id t -q --strict", 1, "restart t --from-start"),
        ("upsert-cli run a.jsonl --task-id t -q --max-failures 0", 1, "restart t --from-start"),
    ],
)
def test_a_quiet_report_of_a_failure_names_load_and_remedy(tiny: Terminal, first: str, code: int, remedy: str) -> None:
    """The report is complete for every exit code other than 0."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": ""}}])
    for _ in range(2):
        said = tiny.type(first, expect=code).stderr
        assert {line[2:11].strip() for line in said.splitlines()} >= set(REPORTED)
        assert remedy in said


def test_a_quiet_report_of_a_canceled_task_says_how_to_continue(tiny: Terminal, make_items: Items) -> None:
    """The task stays canceled, so every email says so."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id t --enqueue -q")
    tiny.type("upsert-cli cancel t")
    for _ in range(2):
        said = tiny.type("upsert-cli run a.jsonl --task-id t -q", expect=5).stderr
        assert "task t is canceled already" in said
        assert "  sources " in said
        assert said.endswith("upsert-cli restart t\n")


def test_counts_and_time_of_a_restarted_task_are_those_of_the_task(tiny: Terminal, make_items: Items) -> None:
    """After an interruption, the counts, the converted values and the time are of all attempts, and labelled."""
    items = make_items(600)
    for item in items:
        item["payload"]["tags"] = ["a"]
    tiny.write("a.jsonl", items)
    tiny.env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tiny.folder / "summary.md")}
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 50")
    tiny.halt_when(process, "t")
    process.terminate()
    tiny.go_on(process)
    process.communicate()
    before = tiny.info("t")
    assert before["counts"]["inserted"] < 600
    said = tiny.type("upsert-cli restart t").stderr.splitlines()
    line = next(line for line in said if line.startswith("done: 600 inserted"))
    assert re.fullmatch(
        r"done: 600 inserted, 0 updated, 0 unchanged, 0 rejected in (\d+ min )?[\d.]+ s over 2 attempts", line
    )
    assert "  600 values stored as JSON text: tags" in said
    took = line.rpartition(" in ")[2]
    assert (
        f"600 rows of 1 source into the collection default, in {took}."
        in tiny.type("upsert-cli report t --html -").stdout
    )
    assert f", {took}, exit code 0" in (tiny.folder / "summary.md").read_text()
    assert re.search(r"^seconds\t.*\(attempt 2\)$", tiny.type("upsert-cli info t").stdout, re.MULTILINE)
    again = tiny.type("upsert-cli restart t --from-start").stderr
    assert re.search(r"done: 0 inserted, 0 updated, 600 unchanged, 0 rejected in [\d.]+ s$", again, re.MULTILINE)


def test_the_time_of_a_killed_attempt_counts_up_to_its_last_checkpoint(tiny: Terminal, make_items: Items) -> None:
    """An attempt whose process was killed counts up to its last checkpoint."""
    tiny.write("a.jsonl", make_items(600))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 50")
    tiny.halt_when(process, "t")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    checkpoint = read_checkpoint(tiny.journal / "active" / "t.progress")
    assert checkpoint is not None
    tiny.type("upsert-cli restart t")
    task = Journal(tiny.journal).find("t")
    assert task.load_seconds == pytest.approx(checkpoint.seconds + task.seconds["total"], abs=0.1)
    assert checkpoint.seconds > 0


def test_converted_values_are_reported_with_their_fields(tiny: Terminal) -> None:
    """The terminal and the page name the fields, nulls are not converted, and a field's name acts nowhere."""
    payload = {"text": "x", "tags": ["p", "q"], "none": None, "o": [{"k": 1}], "::error::<b>\x1b[1m": []}
    items = [{"object_id": f"i{n}", "payload": payload, "item_info": {"seen": [n]}} for n in range(2)]
    tiny.write("v.jsonl", items)
    said = tiny.type("upsert-cli run v.jsonl --task-id t").stderr
    assert "  8 values stored as JSON text: tags, o, ::error::<b>\\x1b[1m, item_info.seen\n" in said
    assert tiny.info("t")["converted"] == 8
    page = tiny.type("upsert-cli report t --html -").stdout
    shown = ["tags", "o", "\\x3a:error::&lt;b&gt;\\x1b[1m", "item_info.seen"]
    assert re.findall(r"<code>([^<]*)</code> 2[,.]", page) == shown
    assert "JSON text" not in tiny.type("upsert-cli run v.jsonl").stderr


def test_a_date_is_not_called_json_text(tiny: Terminal) -> None:
    """A list and an object become JSON text, and a timestamp of Parquet plain text; both are converted values."""
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    rows = pa.table({"id": ["a", "b"], "text": ["x", "y"], "created_at": [moment] * 2, "tags": [["p"]] * 2})
    pq.write_table(rows, tiny.folder / "v.parquet")
    said = tiny.type("upsert-cli run v.parquet --id-field id --task-id t").stderr
    assert "  4 values stored as text: created_at, tags\n" in said
    assert "4 values stored as text, by field" in tiny.type("upsert-cli report t --html -").stdout


def test_a_substituted_process_keeps_its_name(tiny: Terminal) -> None:
    """The path that the shell passes for `<(...)` appears unchanged in the first line and in rejects."""
    command = " ".join(map(shlex.quote, tiny.arguments("upsert-cli run")))
    done = tiny.type(f"bash -c {shlex.quote(f'{command} <(echo none)')}", expect=3)
    first, _, reject, *_ = done.stderr.splitlines()
    assert re.search(r": /dev/fd/\d+ -> ", first)
    assert re.match(r"  /dev/fd/\d+:1: on_reading: not JSON", reject)


def test_json_is_one_object_per_line_and_a_summary_last(tiny: Terminal, make_items: Items) -> None:
    """`run --json` begins with the task, ends with the summary, and every line parses."""
    tiny.write("a.jsonl", [*make_items(5), {"object_id": NASTY, "payload": {"text": ""}}])
    events = _events(tiny.type("upsert-cli run a.jsonl --json", expect=3).stdout)
    assert events[0]["type"] == "task"
    assert [event["object_id"] for event in events if event["type"] == "reject"] == [NASTY]
    assert events[-1]["type"] == "summary"
    assert events[-1]["exit_code"] == 3
    assert events[-1]["counts"]["inserted"] == 5


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("upsert-cli run missing.jsonl --json", 2),
        ("upsert-cli run a.jsonl --json --max-failures 0 --task-id t", 1),
        ("upsert-cli restart nothing --json", 1),
    ],
)
def test_json_ends_with_a_summary_also_on_failure(tiny: Terminal, line: str, code: int) -> None:
    """The last line is a summary with the exit code, and the line before it the error."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}, {"object_id": ""}])
    events = _events(tiny.type(line, expect=code).stdout)
    assert [event["type"] for event in events[-2:]] == ["error", "summary"]
    assert events[-1]["exit_code"] == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_json_ends_with_a_summary_also_when_stopped_early(tiny: Terminal, number: signal.Signals) -> None:
    """A signal that arrives while standard input is read, before the task exists, is an error with a summary too."""
    process = tiny.start("upsert-cli run - --json", stdin=subprocess.PIPE)
    while not list(tiny.journal.glob("spool/.incoming-*/*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == -number
    assert [(event["type"], event["exit_code"]) for event in _events(output)] == [
        ("error", 128 + number),
        ("summary", 128 + number),
    ]
    assert "Traceback" not in errors


@pytest.mark.parametrize("name", ["FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "NO_COLOR", "CI"])
def test_a_pipe_gets_no_escapes(tiny: Terminal, make_items: Items, name: str) -> None:
    """In any environment, a pipe gets no color, no bar and no cursor movement."""
    tiny.env |= {name: "1", "TERM": "xterm-256color"}
    tiny.write("a.jsonl", [*make_items(3), {"object_id": ""}])
    done = tiny.type("upsert-cli run a.jsonl", expect=3)
    listed = tiny.type("upsert-cli list")
    assert "\x1b" not in done.stdout + done.stderr + listed.stdout + listed.stderr
    assert done.stdout == ""


def test_every_command_keeps_to_its_streams(tiny: Terminal, make_items: Items) -> None:
    """In any environment, data goes to stdout without escapes in a pipe, and nothing goes to stderr with -q."""
    tiny.env |= {"FORCE_COLOR": "1", "TERM": "xterm-256color", "CI": "true", "GITHUB_ACTIONS": "true"}
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id t -q")
    for command in (
        "list", "list --json", "info t", "info t --json", "report t --html -", "journal check --json", "config show",
        "completion bash", "models list", "--help",
    ):  # fmt: skip
        done = tiny.type(f"upsert-cli {command}{'' if command == '--help' else ' -q'}")
        assert done.stdout.strip(), command
        assert done.stderr == "", command
        assert "\x1b" not in done.stdout, command
        if command.endswith("--json"):
            json.loads(done.stdout)
    for command in ("cancel t", "restart missing", "report missing --html a.html", "info missing", "list --status x"):
        done = tiny.type(f"upsert-cli {command} -q", expect=None)
        assert done.returncode in (1, 2), command
        assert done.stdout == "", command
        # A later look at a task that was never made names it only in the log.
        looks_back = command.startswith(("report", "info"))
        assert done.stderr.startswith("error: " if looks_back else "::error::"), command
        assert done.stderr.count("\n") == 1, command


def test_a_terminal_gets_bars_and_its_cursor_back(tiny: Terminal, make_items: Items) -> None:
    """On a terminal there is a bar for each stage, and at the end the cursor is shown again."""
    tiny.write("a.jsonl", make_items(200))
    text = _in_a_terminal(tiny, "upsert-cli run a.jsonl")
    for stage in ("read", "embedded", "written"):
        assert stage in text
    assert "200/200" in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


def test_stdout_may_be_closed_early(tiny: Terminal, make_items: Items) -> None:
    """A reader that leaves after the first line gets no traceback."""
    tiny.write("a.jsonl", make_items(2))
    for number in range(3):
        tiny.type(f"upsert-cli run a.jsonl --task-id t{number}")
    process = tiny.start("upsert-cli list --json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.wait(30)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("line", ["--help", "list", "models list --json"])
def test_a_disk_that_takes_no_output(terminal: Terminal, line: str, unbuffered: str) -> None:
    """If data cannot be printed, every command fails with exit code 1 and one line."""
    terminal.env["PYTHONUNBUFFERED"] = unbuffered
    with Path("/dev/full").open("w") as full:
        process = terminal.start(f"upsert-cli {line}", stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    (told,) = errors.splitlines()
    assert told.startswith("error: standard output cannot be written (No space left on device)")


@pytest.mark.parametrize("output", ["a reader that left", "/dev/full"])
def test_unwritable_events_do_not_change_the_exit_code(tiny: Terminal, make_items: Items, output: str) -> None:
    """With --json, unwritable events cause a warning, and the exit code is still that of the load."""
    tiny.write("a.jsonl", [*make_items(5), {"object_id": ""}])
    end = os.open("/dev/full", os.O_WRONLY)
    if output != "/dev/full":
        reading, end = os.pipe()
        os.close(reading)
    process = tiny.start("upsert-cli run a.jsonl --task-id t --json", stdout=end)
    os.close(end)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert errors.count("the JSON events cannot be written any more") == 1
    assert "Exception" not in errors
    assert tiny.info("t")["status"] == "done"
    assert len(tiny.records()) == 5


def test_cron_needs_no_home_and_no_terminal(tiny: Terminal, make_items: Items) -> None:
    """With an empty environment a load works, and uses the journal that --journal names."""
    tiny.write("a.jsonl", make_items(2))
    arguments = tiny.arguments(
        f"upsert-cli run a.jsonl --journal {tiny.journal} --model-path {tiny.env['UPSERT_CLI_RUN_MODEL_PATH']} -q"
    )
    done = subprocess.run(arguments, cwd=tiny.folder, env={}, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert tiny.only_task()["status"] == "done"


def _in_a_terminal(terminal: Terminal, line: str) -> str:
    """Run a command with a terminal of 80 columns for stderr, and return its drawing."""
    process, ours = terminal.start_drawn(line, columns=80)
    drawn = read_drawn(ours)
    assert process.wait() == 0
    return drawn.decode()
