"""GitHub Actions, GitLab and Jenkins: annotations, the summary of the step, and data that never acts as a command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support.journal_tasks import make_reject, make_task
from tests.support.manual import GUIDE, blocks
from tests.support.terminal import SAMPLES, Terminal
from upsert_cli.counts import Counts
from upsert_cli.journal.task import TaskStatus
from upsert_cli.report.github import annotation, append_summary
from upsert_cli.text import safe, safe_json

WORKFLOW, GITLAB = (yaml.safe_load(text) for text in blocks(GUIDE / "ci.md", "yaml"))
STEPS = WORKFLOW["jobs"]["load"]["steps"]
HOSTILE = "100%\r\n::error::x | <b>&amp; `a` [l](u) https://x.y *s* _e_ # ##[error]x \\| @me"


def _written(path: Path, monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> str:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    append_summary(*args, **kwargs)
    return path.read_text(encoding="utf-8")


def test_an_annotation_points_at_the_line_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An annotation names a file relative to the checkout, and the line if rows are lines; everything is escaped by GitHub's rules."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert annotation("error", "why", source="data/a.jsonl", row=7) == "::error file=data/a.jsonl,line=7::why"
    assert annotation("error", "why", source=str(tmp_path / "b.parquet"), row=7) == "::error file=b.parquet::why"
    assert annotation("error", "why", source="/else/a.jsonl", row=7) == "::error file=/else/a.jsonl,line=7::why"
    assert annotation("warning", "100% of\nit") == "::warning::100%25 of\\nit"
    assert annotation("error", "x", source="a:b,c%.jsonl") == "::error file=a%3Ab%2Cc%25.jsonl::x"


@given(message=st.text(), source=st.text(min_size=1))
def test_text_cannot_break_out_of_an_annotation(message: str, source: str) -> None:
    """No message and no name ends the command, adds a property or starts another command."""
    line = annotation("error", message, source=source, row=1)
    assert "\n" not in line
    assert "\r" not in line
    match = re.fullmatch(r"::error file=([^,:]*)(,line=1)?::(.*)", line)
    assert match
    assert not re.search(r"%(?!25|3A|2C)", line)
    assert "##[" not in line


@pytest.mark.parametrize(
    "text", ["##[error]x", "a ##[group]b", "##vso[task.x]y", "###[command]", "##teamcity[m]", "\\##[x"]
)
def test_old_runner_commands_are_escaped_everywhere(text: str) -> None:
    """Older runners, Azure and TeamCity look for `##` anywhere in a line, so it is escaped, also in JSON."""
    for shown in (safe(text), safe_json({"a": text})):
        assert not re.search(r"##\w*\[", shown)
    assert safe("a # b ## c [d]") == "a # b ## c [d]"


def test_data_in_a_summary_is_plain_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Counts and rejects keep their table columns whatever characters names and messages contain."""
    task = make_task(
        status=TaskStatus.DONE,
        sources=(HOSTILE,),
        collection=HOSTILE,
        detail=HOSTILE,
        counts=Counts(read=1_234, inserted=1_222, failed=12),
        failed_items=(make_reject(1) | {"source": HOSTILE, "detail": HOSTILE},),
    )
    path = tmp_path / "summary.md"
    path.write_text("of a step before\n")
    text = _written(path, monkeypatch, task, exit_code=3, seconds=2.0, detail=None)
    assert text.startswith("of a step before\n### ")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in tables] == [8, 8, 8, 4, 4, 4]
    assert "| 1,234 | 1,222 |" in tables[2]
    data = tables[5].split("|")[3]
    assert not re.search(r"[^\w\s&#;]", data)  # nothing but letters and character references
    assert safe(HOSTILE) in unescape(text)
    assert "11 more" in text


def test_a_load_without_a_task_has_a_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A load that fails before its task exists is summarized with its exit code and reason."""
    path = tmp_path / "summary.md"
    text = _written(path, monkeypatch, None, exit_code=4, seconds=0.1, detail="busy")
    assert "exit code 4" in text
    assert "busy" in text


def test_a_step_is_annotated_and_summarized(tiny: Terminal, tmp_path: Path) -> None:
    """Rejects and the final error are annotations, at most ten; the rest of the output is unchanged."""
    tiny.env |= {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(tiny.folder), "CI": "true"}
    tiny.env["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    tiny.write("a.jsonl", [{"object_id": "::error::x", "payload": {"text": ""}}, *[{"object_id": "##[error]"}] * 14])
    done = tiny.type("upsert-cli run a.jsonl --task-id t --max-failures 3", expect=1)
    commands = [line for line in done.stderr.splitlines() if line.lstrip().startswith("::")]
    assert len(commands) == 10
    assert commands[0].startswith("::error file=a.jsonl,line=1::a.jsonl:1: on_reading: ")
    assert commands[-1].startswith("::error::more than --max-failures") or "max-failures" in commands[-1]
    assert "  a.jsonl:10: on_reading" in done.stderr
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("### ❌ upsert-cli: task t failed\n")
    assert summary.count("| a&#46;jsonl") == 10
    assert "* Once the cause" not in summary  # the reason names the restart
    tiny.env["GITHUB_STEP_SUMMARY"] = str(tmp_path)
    unwritable = tiny.type("upsert-cli run a.jsonl --task-id u", expect=3)
    assert "::warning::the summary of the step cannot be written" in unwritable.stderr


def _run_steps(terminal: Terminal, environment: dict[str, str]) -> list[tuple[str, int, str]]:
    """Run the steps of the workflow that call upsert-cli as GitHub would; return each name with exit code and output."""
    ran, failed = [], False
    for step in STEPS:
        if "upsert-cli " not in step.get("run", "") or "pip install" in step["run"]:
            continue
        if failed and step.get("if") != "always()":
            continue
        script = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
        done = subprocess.run(
            script, cwd=terminal.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )  # fmt: skip
        failed = failed or done.returncode != 0
        ran.append((step["name"], done.returncode, done.stdout))
    return ran


def _runner(terminal: Terminal) -> dict[str, str]:
    """Return the environment of a step; the target is a folder."""
    variables = {
        "GITHUB_ACTIONS": "true",
        "CI": "true",
        "GITHUB_WORKSPACE": str(terminal.folder),
        "GITHUB_STEP_SUMMARY": str(terminal.folder / "summary.md"),
        "TASK_ID": "load-1a2b3c",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return terminal.environment | variables


def test_the_workflow_is_one_that_github_takes() -> None:
    """The workflow has a job with steps that each run or use something, names our variables, and needs no secret to check out."""
    assert set(WORKFLOW) == {
        "name",
        True,
        "permissions",
        "concurrency",
        "jobs",
    }  # YAML 1.1 takes `on` for a truth value
    job = WORKFLOW["jobs"]["load"]
    assert job["runs-on"] == "ubuntu-latest"
    assert all(("run" in step) != ("uses" in step) for step in STEPS)
    assert all(re.fullmatch(r"actions/[\w/-]+@v\d+", step["uses"]) for step in STEPS if "uses" in step)
    assert job["env"]["UPSERT_CLI_RUN_CHROMA"].startswith("https://")
    kept = {step["with"]["path"] for step in STEPS if "cache" in step.get("uses", "")}
    named = {job["env"][name].partition("/")[2] for name in ("UPSERT_CLI_JOURNAL", "UPSERT_CLI_MODEL_CACHE")}
    assert kept == named


@pytest.mark.parametrize(
    ("number", "schema"), [(0, ["vendor.github-workflows"]), (1, ["vendor.gitlab-ci", "--data-transform", "gitlab-ci"])]
)
def test_the_examples_for_ci_are_valid(number: int, schema: list[str], tmp_path: Path) -> None:
    """The workflow and the GitLab job follow the schemas that GitHub and GitLab publish."""
    pytest.importorskip("check_jsonschema")
    path = tmp_path / "example.yml"
    path.write_text(blocks(GUIDE / "ci.md", "yaml")[number])
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", *schema, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_rejected_rows_are_a_warning_in_the_workflow(tiny: Terminal) -> None:
    """A load with rejects does not fail the job, and the artifact has the page and the rejects."""
    (tiny.folder / "data").mkdir()
    shutil.copy(SAMPLES / "mixed_errors.jsonl", tiny.folder / "data")
    (_, load_code, log), (_, report_code, _) = _run_steps(tiny, _runner(tiny))
    assert (load_code, report_code) == (0, 0)
    assert "::warning::some rows were rejected" in log
    assert "::error" not in log
    (artifact,) = (step["with"]["path"].split() for step in STEPS if "upload-artifact" in step.get("uses", ""))
    assert "Task load-1a2b3c" in (tiny.folder / artifact[0]).read_text()
    assert len((tiny.folder / artifact[1]).read_text().splitlines()) == 35
    assert "task load&#45;1a2b3c done" in (tiny.folder / "summary.md").read_text()


def test_a_load_that_creates_no_task_has_one_annotation_in_the_workflow(tiny: Terminal) -> None:
    """The step that writes the report adds no error to that of the load."""
    (_, load_code, log), (_, report_code, more) = _run_steps(tiny, _runner(tiny))
    assert (load_code, report_code) == (2, 0)
    assert len(re.findall(r"^::error", log + more, re.M)) == 1


def test_other_systems_need_nothing_special(tiny: Terminal) -> None:
    """The script of the guide's GitLab job runs unchanged, prints no command and no escape, and leaves its artifact."""
    job = GITLAB["load"]
    (tiny.folder / "data").mkdir()
    tiny.write("data/a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    systems = {"GITLAB_CI": "true", "JENKINS_URL": "http://ci/"}
    bare = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CI": "true", "CI_COMMIT_SHORT_SHA": "abc"}
    for line in (*job["script"], *job["after_script"]):
        done = subprocess.run(
            ["sh", "-ec", line],
            cwd=tiny.folder,
            env=tiny.environment | bare | systems,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "\x1b" not in done.stdout + done.stderr
        assert not re.search(r"^\s*::", done.stdout + done.stderr, re.M)
    assert all((tiny.folder / path).exists() for path in job["artifacts"]["paths"])


@pytest.mark.parametrize(
    ("options", "code", "level"),
    [
        ("", 3, "warning"),
        ("--dry-run", 3, "warning"),
        ("--strict", 1, "error"),
        ("--strict --dry-run", 1, "error"),
        ("--max-failures 1", 1, "error"),
    ],
)
def test_the_result_sets_the_level_of_annotations(tiny: Terminal, options: str, code: int, level: str) -> None:
    """Rejects are warnings if the load exits with 3, and errors if it failed or --strict makes it exit with 1."""
    tiny.env["GITHUB_ACTIONS"] = "true"
    good = {"object_id": "a", "payload": {"text": "x"}}
    tiny.write("a.jsonl", [good, *[{"object_id": f"bad{n}", "payload": {"text": ""}} for n in range(2)]])
    for command in ("run a.jsonl", "categories run a.jsonl"):
        done = tiny.type(f"upsert-cli {command} {options}", expect=code)
        annotated = [line for line in done.stderr.splitlines() if line.startswith("::")]
        rejects = [line for line in annotated if "file=a.jsonl" in line]
        assert len(rejects) == 2
        assert all(line.startswith(f"::{level} file=a.jsonl,line=") for line in rejects)
        assert level == "error" or annotated == rejects


def test_a_worker_annotates_each_task_by_its_result(tiny: Terminal) -> None:
    """`work` marks the rejects of a task that is done as warnings, and those of one that failed as errors."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": ""}}])
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id done")
    tiny.type("upsert-cli run a.jsonl --enqueue --task-id failed --max-failures 0 --collection other")
    tiny.env["GITHUB_ACTIONS"] = "true"
    annotated = [line for line in tiny.type("upsert-cli work", expect=1).stderr.splitlines() if "file=" in line]
    assert [line.partition(" ")[0] for line in annotated] == ["::warning", "::error"]


@pytest.mark.parametrize("line", ["report gone --html r.html", "info gone", "info gone --exit-status", "verify gone"])
def test_a_task_that_was_never_created_gets_one_annotation(terminal: Terminal, line: str) -> None:
    """The failed load has the annotation with the cause; a later step only logs that the task is missing."""
    terminal.env["GITHUB_ACTIONS"] = "true"
    first = terminal.type("upsert-cli run no-such.jsonl --task-id gone", expect=2).stderr
    second = terminal.type(f"upsert-cli {line}", expect=1).stderr
    assert (first + second).count("::error") == 1
    assert "error: there is no task 'gone'" in second


def test_a_command_that_acts_on_a_missing_task_has_an_annotation(terminal: Terminal) -> None:
    """It may be the only step, so that nothing else would report the error."""
    terminal.env["GITHUB_ACTIONS"] = "true"
    for command in ("restart", "cancel"):
        said = terminal.type(f"upsert-cli {command} gone", expect=1).stderr
        assert said.startswith("::error::there is no task 'gone'")
