"""The progress of a running task: bars with counts, one clean frame at the end, and lines in a log."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.journal.conftest import start
from tests.support.journal_tasks import make_checkpoint, make_task
from tests.support.screens import Screen, shown
from tests.support.terminal import Terminal
from upsert_cli.cli.display import PLAIN_SECONDS, STAGE_BARS, Bars, PlainLines, Speed
from upsert_cli.cli.terminal import Terminal as Output
from upsert_cli.context import Progress
from upsert_cli.counts import Counts
from upsert_cli.journal.journal import Journal

Items = Callable[..., list[dict[str, Any]]]

CTRL_C = "\x03"
INTERRUPTED = -signal.SIGINT


def _bars(lines: list[str]) -> dict[str, str]:
    """Return the amounts next to the bars, each of which is drawn once."""
    found = [(line.split()[0], match[1]) for line in lines if (match := re.search(r"━ +([\d,/]+)", line))]
    assert len(found) == len(dict(found)), lines
    return dict(found)


# -- what the bars count ------------------------------------------------------------------------------------------


def test_rejected_items_are_neither_embedded_nor_written(tiny: Terminal) -> None:
    """A file of rejects is read, nothing else is done, no bar stays open, and no query is suggested."""
    tiny.write("a.jsonl", [{"object_id": f"x{n}", "payload": {"text": ""}} for n in range(30)])
    with Screen(tiny, "upsert-cli run a.jsonl", columns=100) as screen:
        lines = screen.finish(expect=3)
        assert b"\x1b[33m\x1b[1m30 rejected" in screen.drawn
    assert _bars(lines) == {"read": "30/30", "embedded": "0/0", "written": "0/0"}
    text = "".join(lines)  # a path may be so long that the line is wrapped
    assert "index" not in text
    assert "query" not in text
    assert "has no records" in text


def test_bars_count_what_was_embedded_and_what_was_written(tiny: Terminal) -> None:
    """Unchanged, repeated and rejected rows are only read; changed metadata and own vectors are written but not embedded."""
    same = [{"object_id": f"same{n}", "payload": {"text": "same"}} for n in range(4)]
    tiny.write("a.jsonl", [*same, {"object_id": "meta", "payload": {"text": "m", "n": 1}}])
    tiny.type("upsert-cli run a.jsonl -q")
    vector = [1.0] + [0.0] * 383
    rows = [
        *same,
        {"object_id": "meta", "payload": {"text": "m", "n": 2}},
        {"object_id": "own", "payload": {"text": "v", "vector": vector}},
        *[{"object_id": f"new{n}", "payload": {"text": f"new {n}"}} for n in range(3)],
        {"object_id": "new0", "payload": {"text": "the last row of an id wins"}},
        *[{"object_id": f"bad{n}", "payload": {"text": ""}} for n in range(2)],
    ]
    tiny.write("b.jsonl", rows)
    lines = shown(tiny, "upsert-cli run b.jsonl", columns=100, expect=3)
    assert _bars(lines) == {"read": "12/12", "embedded": "3/3", "written": "5/5"}
    assert "4 inserted, 1 updated, 4 unchanged, 1 duplicate, 2 rejected" in "\n".join(lines)


def test_a_split_item_is_one_item(tiny: Terminal) -> None:
    """An item counts once, however many chunks it has, even if it is longer than a batch."""
    texts = ["short", " ".join(f"word{n}." for n in range(400))]
    tiny.write("a.jsonl", [{"object_id": f"i{n}", "payload": {"text": text}} for n, text in enumerate(texts)])
    lines = shown(tiny, "upsert-cli run a.jsonl --split --max-tokens 16 --batch-size 4", columns=100)
    assert _bars(lines) == {"read": "2/2", "embedded": "2/2", "written": "2/2"}


def test_the_severity_is_the_color_of_the_rejects(tiny: Terminal) -> None:
    """The count of rejects is yellow if the load is done and red if --strict fails it; zero has no color."""
    tiny.write("bad.jsonl", [{"object_id": "a", "payload": {"text": ""}}])
    tiny.write("good.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    for line, expect, color in (
        ("upsert-cli run bad.jsonl --strict", 1, b"\x1b[31m\x1b[1m1 rejected\x1b[0m"),
        ("upsert-cli run good.jsonl", 0, b" 0 rejected"),
    ):
        with Screen(tiny, line, columns=100) as screen:
            screen.finish(expect=expect)
            assert color in screen.drawn


def test_a_load_of_unknown_length_ends_without_a_moving_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """If the number of rows is unknown, the last frame has the amounts but no moving bar."""
    progress = Progress(total=None)
    bars = Bars(Output(), STAGE_BARS)
    bars.update(progress)
    progress.read, progress.embedded, progress.written = 1_200, 1_100, 1_000
    bars.close()
    drawn = capsys.readouterr().err
    assert [line.split() for line in drawn.splitlines()] == [
        ["read", "1,200"],
        ["embedded", "1,100"],
        ["written", "1,000"],
    ]


# -- the advice at the end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "advised"),
    [
        ("", {}, []),
        ("--collection articles", {}, ["--collection", "articles"]),
        ("--chroma 'my data'", {}, ["--chroma", "{folder}/my data"]),
        ("", {"UPSERT_CLI_QUERY_CHROMA": "elsewhere"}, ["--chroma", "{folder}/chroma"]),
        ("--collection articles", {"UPSERT_CLI_QUERY_COLLECTION": "articles"}, []),
    ],
)
def test_the_suggested_query_works(tiny: Terminal, options: str, variables: dict[str, str], advised: list[str]) -> None:
    """A load ends with a `query` that finds its records, with the options that differ from the defaults of `query`."""
    tiny.env |= variables | {"UPSERT_CLI_QUERY_MODEL_PATH": tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]}
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    *_, line = tiny.type(f"upsert-cli run a.jsonl {options}").stderr.splitlines()
    command, query, text, *rest = shlex.split(line)
    assert (command, query, text) == ("upsert-cli", "query", "your text")
    assert [word for word in rest if not word.startswith(("--journal", str(tiny.journal)))] == [
        word.format(folder=tiny.folder) for word in advised
    ]
    assert "\na\t" in tiny.type(line.strip()).stdout


def test_the_suggested_query_names_the_model_folder(tiny: Terminal) -> None:
    """A query needs the model from the same folder."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    *_, line = tiny.type("upsert-cli run a.jsonl").stderr.splitlines()
    assert f"--model-path {tiny.env['UPSERT_CLI_RUN_MODEL_PATH']}" in line
    assert "\na\t" in tiny.type(line.strip()).stdout


def test_records_of_earlier_loads_can_be_queried(tiny: Terminal) -> None:
    """If a load adds nothing to a collection with records, the query is still suggested."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    tiny.write("bad.jsonl", [{"object_id": "b", "payload": {"text": ""}}])
    tiny.type("upsert-cli run a.jsonl -q")
    assert "upsert-cli query" in tiny.type("upsert-cli run bad.jsonl", expect=3).stderr


# -- one frame ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 120])
def test_an_interrupted_load_leaves_one_frame(terminal: Terminal, columns: int) -> None:
    """After Ctrl-C each bar is drawn once, echoed characters are gone, and the message is above."""
    items = ({"object_id": f"i{n}", "payload": {"text": f"hello number {n}"}} for n in range(60_000))
    terminal.write("a.jsonl", items)
    with Screen(terminal, "upsert-cli run a.jsonl --task-id t", columns=columns) as screen:
        screen.wait_for("inserted")
        screen.press(CTRL_C)
        lines = screen.finish(expect=INTERRUPTED)
        assert screen.drawn.rfind(b"\x1b[?25h") > screen.drawn.rfind(b"\x1b[?25l") >= 0
    text = "\n".join(lines)
    assert [line.split()[0] for line in lines if "━" in line] == ["read", "embedded", "written"]
    assert "^C" not in text
    assert text.index("stopping after the batch in flight") < text.index("read ")
    assert "" not in lines


def test_keys_and_messages_do_not_disturb_the_frame(terminal: Terminal) -> None:
    """Characters typed during a load vanish with the next frame."""
    journal = Journal(terminal.journal)
    journal.create(make_task("one", total=100))
    claim = start(journal, "one")
    claim.save(make_checkpoint(30))
    with Screen(terminal, "upsert-cli info one --follow", columns=80) as screen:
        screen.wait_for("30/100")
        screen.press("abc" + CTRL_C)
        lines = screen.finish(expect=INTERRUPTED)
    assert [line.split()[0] for line in lines if "━" in line] == ["rows"]
    assert not any(mark in line for line in lines for mark in ("abc", "^C"))
    with Screen(terminal, "upsert-cli list --watch 0.1", columns=80) as screen:
        screen.wait_for("30/100")
        screen.press(CTRL_C)
        lines = screen.finish(expect=INTERRUPTED)
    assert sum("30/100" in line for line in lines) == 1
    assert not any("^C" in line for line in lines)
    claim.release()


def test_events_and_bars_do_not_share_a_terminal(tiny: Terminal, make_items: Items) -> None:
    """With --json on a terminal there are no bars between the events; if stdout is elsewhere, there are bars."""
    tiny.write("a.jsonl", make_items(20))
    lines = shown(tiny, "upsert-cli run a.jsonl --json", columns=10_000)
    assert not any("━" in line for line in lines)
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert (events[0]["type"], events[-1]["type"]) == ("task", "summary")
    command = shlex.join([*tiny.arguments("upsert-cli run a.jsonl --force --json"), ">"]).replace("'>'", "> events")
    assert set(_bars(shown(tiny, f"sh -c {shlex.quote(command)}", columns=100))) == {"read", "embedded", "written"}


# -- lines in a log -----------------------------------------------------------------------------------------------


def _lines_of(capsys: pytest.CaptureFixture[str], progress: Progress, steps: Sequence[Callable[[], None]]) -> list[str]:
    """Return the log lines of a task that takes one step per second."""
    now = 0.0
    display = PlainLines(Output(progress="plain"), clock=lambda: now)
    for step in steps:
        display.update(progress)
        step()
        now += 1.0
    display.update(progress)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("total", [10_000, None])
def test_a_line_shows_rows_percent_rate_and_remaining_time(
    capsys: pytest.CaptureFixture[str], total: int | None
) -> None:
    """Every half minute a line shows the progress, the speed and, if known, the remaining time."""
    progress = Progress.at(1_000, total=total, counts=Counts(read=1_000, inserted=1_000))
    progress.stage = "loading"

    def step() -> None:
        progress.committed += 50
        progress.counts += Counts(read=50, inserted=40, failed=10)

    first, second = _lines_of(capsys, progress, [step] * int(2 * PLAIN_SECONDS))
    counts = "2,200 inserted, 0 updated, 0 unchanged, 300 rejected"
    if total is None:
        assert first == f"2,500 rows, 50 rows/s: {counts}"
        assert second.startswith("4,000 rows, 50 rows/s: ")
    else:
        assert first == f"2,500 of 10,000 rows (25%), 50 rows/s, 2:30 left: {counts}"
        assert second.startswith("4,000 of 10,000 rows (40%), 50 rows/s, 2:00 left: ")


def test_a_line_names_the_current_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """Before and after the rows a line names the stage, and the rate ignores the time before."""
    progress = Progress.at(0, total=3_600, counts=Counts())

    def idle() -> None:
        """Do nothing."""

    def step() -> None:
        progress.stage = "loading"
        progress.committed += 1

    def flush() -> None:
        progress.stage, progress.committed = "flushing", 3_600

    waiting, loading = [idle] * int(PLAIN_SECONDS), [step] * int(PLAIN_SECONDS)
    opening, going, flushing = _lines_of(capsys, progress, [*waiting, *loading, flush, *waiting])
    assert opening == "0 of 3,600 rows (0%): opening the collection and the model"
    assert going.startswith("30 of 3,600 rows (0%), 1 rows/s, 59:30 left: ")
    assert flushing == "3,600 of 3,600 rows (100%): writing the index to disk"


def test_a_speed_is_that_of_the_last_minute() -> None:
    """A rate follows a change of speed; without progress there is no rate and no remaining time."""
    now = 0.0
    speed = Speed(clock=lambda: now)
    assert (speed.rate(0), speed.remaining(0, 10)) == (None, "")
    done = 0
    for rows in [1] * 100 + [10] * 100:
        speed.add(done)
        done += rows
        now += 1.0
    assert speed.rate(done) == pytest.approx(10.0)
    assert speed.remaining(done, done + 36_000) == "1:00:00"
    assert speed.remaining(done, None) == ""
    assert Speed().remaining(0, 10) == ""


def test_the_help_names_the_option_for_logs(terminal: Terminal) -> None:
    """The help of --progress names the choice for logs."""
    text = " ".join(terminal.type("upsert-cli run --help").stdout.split())
    assert "plain (for logs)" in text
