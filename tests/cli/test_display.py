"""The progress of a running task: bars with counts, one clean frame at the end, and lines in a log."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from tests.journal.conftest import start
from tests.support.items import Items
from tests.support.journal_tasks import make_checkpoint, make_task
from tests.support.screens import Screen, shown
from tests.support.terminal import Terminal
from tests.support.web_servers import web_server
from upsert_cli.cli.display.progress import BAR_CELLS, PLAIN_SECONDS, STAGE_BARS, Bars, PlainLines
from upsert_cli.cli.display.remaining_time import RemainingTime, as_clock
from upsert_cli.cli.display.terminal import Terminal as Output
from upsert_cli.context import Progress
from upsert_cli.counts import Counts
from upsert_cli.journal.journal import Journal

CTRL_C = "\x03"
INTERRUPTED = -signal.SIGINT


def _bars(lines: list[str]) -> dict[str, str]:
    """Return the amounts next to the bars, each of which is drawn once."""
    found = [(line.split()[0], match[1]) for line in lines if (match := re.search(r"━ +([\d,/]+)", line))]
    assert len(found) == len(dict(found)), lines
    return dict(found)


# -- the amounts of the bars --------------------------------------------------------------------------------------


def test_rejected_items_are_neither_embedded_nor_written(tiny: Terminal) -> None:
    """A file of rejects is read, nothing else is done, no bar stays open, and no query is suggested."""
    tiny.write("a.jsonl", [{"object_id": f"x{n}", "payload": {"text": ""}} for n in range(30)])
    with Screen(tiny, "upsert-cli run a.jsonl", columns=100) as screen:
        lines = screen.finish(expect=3)
        assert b"\x1b[33m\x1b[1m30 rejected" in screen.drawn
    assert _bars(lines) == {"read": "30/30", "embedded": "0/0", "written": "0/0"}
    text = " ".join(" ".join(lines).split())  # a path may be so long that the line is wrapped
    assert "index" not in text
    assert "query" not in text
    assert "has no records" in text


def test_bars_count_embedded_and_written_rows(tiny: Terminal) -> None:
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


@pytest.mark.parametrize(
    ("line", "expect", "status", "rejected"),
    [
        ("upsert-cli run good.jsonl", 0, b"\x1b[32m\x1b[1mdone\x1b[0m: ", b" 0 rejected"),
        ("upsert-cli run bad.jsonl", 3, b"\x1b[32m\x1b[1mdone\x1b[0m: ", b"\x1b[33m\x1b[1m1 rejected\x1b[0m"),
        ("upsert-cli run bad.jsonl --strict", 1, b"\x1b[31m\x1b[1mdone\x1b[0m: ", b"\x1b[31m\x1b[1m1 rejected\x1b[0m"),
        (
            "upsert-cli run bad.jsonl --max-failures 0",
            1,
            b" \x1b[31m\x1b[1mfailed\x1b[0m: ",
            b"\x1b[31m\x1b[1m1 rejected",
        ),
    ],
)
def test_the_last_line_is_colored_by_the_result(
    tiny: Terminal, line: str, expect: int, status: bytes, rejected: bytes
) -> None:
    """A successful load is green and a failed one red; rejects are yellow in a successful load; zero has no color."""
    tiny.write("bad.jsonl", [{"object_id": "a", "payload": {"text": ""}}])
    tiny.write("good.jsonl", [{"object_id": "a", "payload": {"text": "x"}}])
    with Screen(tiny, line, columns=100) as screen:
        screen.finish(expect=expect)
        assert status in screen.drawn
        assert rejected in screen.drawn


def test_no_color_means_none(tiny: Terminal) -> None:
    """With NO_COLOR the bars still move, but nothing has a color."""
    tiny.env["NO_COLOR"] = "1"
    tiny.write("a.jsonl", [{"object_id": f"i{n}", "payload": {"text": "x" * (n % 2)}} for n in range(40)])
    with Screen(tiny, "upsert-cli run a.jsonl", columns=100) as screen:
        lines = screen.finish(expect=3)
        assert not re.search(rb"\x1b\[(\d+;)*[349][0-7](;\d+)*m", screen.drawn)
    assert _bars(lines) == {"read": "40/40", "embedded": "20/20", "written": "20/20"}


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_messages_are_wrapped_between_words(terminal: Terminal, columns: int) -> None:
    """No line of a message is wider than the terminal and no word is broken; in a pipe, a message is one line."""
    row = {"id": "a", "a rather long name of a field": "x", "title": "y", "body": "z", "department": "w"}
    terminal.write("a.jsonl", [row])
    whole = terminal.type("upsert-cli run a.jsonl --id-field id", expect=2).stderr
    lines = shown(terminal, "upsert-cli run a.jsonl --id-field id", columns=columns, expect=2)
    assert whole.count("\n") == 1
    assert " ".join(" ".join(lines).split()) == whole.rstrip("\n")
    assert (len(lines) > 1) == (len(whole) > columns)
    assert all(len(line) <= columns for line in lines)


def test_a_command_is_never_broken(tiny: Terminal) -> None:
    """A command that does not fit after its label has a line of its own, and one between backticks is one word."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": ""}}])
    lines = shown(tiny, "upsert-cli run a.jsonl --task-id nightly-2026-11-28", columns=60, expect=3)
    assert (
        lines[lines.index("  once the rejected items are corrected:") + 1]
        == "    upsert-cli restart nightly-2026-11-28 --from-start"
    )
    tiny.type("upsert-cli run a.jsonl --task-id nightly-2026-11-29 --enqueue -q")
    lines = shown(tiny, "upsert-cli cancel nightly-2026-11-29", columns=60)
    assert "  `upsert-cli restart nightly-2026-11-29` continues it" in lines


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


# -- the frame of a running load ----------------------------------------------------------------------------------


class _Load:
    """A load in simulated time, and the frames that are drawn for it."""

    def __init__(self, progress: Progress, *, columns: int = 100) -> None:
        self.progress = progress
        self.progress.began = self._now = 100.0
        self._columns = columns
        self._bars = Bars(Output(), STAGE_BARS, clock=lambda: self._now)
        self.drawn = ""
        """The newest frame, with its escape sequences."""

    def after(self, seconds: float, **changes: Any) -> list[str]:
        """Let time pass, change the progress, and return the lines of the frame."""
        self._now += seconds
        for name, value in changes.items():
            setattr(self.progress, name, value)
        self._bars.update(self.progress)
        file = io.StringIO()
        console = Console(file=file, width=self._columns, force_terminal=True, color_system="standard", highlight=False)
        for line in self._bars.lines(self._columns):
            console.print(line)
        self.drawn = file.getvalue()
        return Text.from_ansi(self.drawn).plain.splitlines()


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
@pytest.mark.parametrize("total", [3_001, 1_234_567, None])
def test_a_bar_keeps_its_width_and_calm_color(columns: int, total: int | None) -> None:
    """No amount, rate or time changes the width of a bar, none is green, and no line is wider than the terminal."""
    load = _Load(Progress(total=total), columns=columns)
    sizes = set()
    for rows in (0, 1, 64, 999, 2_000, 3_001):
        lines = load.after(7.0, stage="loading", read=rows, embedding_passed=rows, embedded=rows, committed=rows // 2)
        assert [line.split()[0] for line in lines[:3]] == ["read", "embedded", "written"]
        sizes |= {len(re.findall("[━╸╺]", line)) for line in lines[:3]}
        assert max(map(len, lines)) <= columns
        assert "\x1b[32" not in load.drawn
        assert "\x1b[92" not in load.drawn
    (size,) = sizes
    assert size <= BAR_CELLS


def test_a_frame_has_one_remaining_time_and_the_elapsed_time() -> None:
    """The remaining time is for the whole load, and it is shown only when known, like the rate."""
    load = _Load(Progress(total=1_000))
    assert load.after(2.0)[3] == "⠋ opening the collection and the model, 0:02 elapsed"
    assert (
        load.after(3.0, stage="loading", read=1_000, busy_now={"loading"})[3][2:] == "loading the model, 0:05 elapsed"
    )
    assert load.after(1.0, busy_now=set())[3][2:] == "0%, 0:06 elapsed"
    assert load.after(1.0, committed=10)[3][2:] == "1%, 0:07 elapsed"
    for committed in range(20, 410, 10):
        lines = load.after(1.0, committed=committed, counts=Counts(read=committed, inserted=committed - 2, failed=2))
    assert lines[3][2:] == "40%, 0:46 elapsed, 10 rows/s, 1:00 left"
    assert lines[4] == "  398 inserted, 0 updated, 0 unchanged, 2 rejected"
    assert "\x1b[2;33m2 rejected" in load.drawn
    assert load.after(60.0, stage="flushing")[3][2:] == "writing the index to disk, 1:46 elapsed"


@pytest.mark.parametrize("stage", ["starting", "searching", "loading", "repeats", "deleting", "flushing"])
def test_something_moves_while_a_stage_works(stage: str) -> None:
    """A stage may take minutes without any number that changes."""
    load = _Load(Progress(total=1_000, stage=stage, busy_now={"loading"}))
    marks = {load.after(0.125)[3][0] for _ in range(16)}
    assert len(marks) > 4


def test_a_load_of_unknown_length_shows_rows_and_rate() -> None:
    """A stream has no percentage and no remaining time until it has been read to its end."""
    load = _Load(Progress(total=None, stage="loading"))
    for committed in range(0, 1_000, 50):
        lines = load.after(1.0, read=committed + 50, committed=committed, written=committed)
    assert lines[3][2:] == "950 rows, 0:20 elapsed, 50 rows/s"
    assert (lines[0].split()[-1], lines[2].split()[-1]) == ("1,000", "950")
    cells = len(re.findall("[━╸╺]", lines[0]))
    lines = load.after(1.0, total=2_000, committed=1_000)
    assert lines[3][2:] == "50%, 0:21 elapsed, 50 rows/s, 0:20 left"
    assert len(re.findall("[━╸╺]", lines[0])) == cells


def test_the_end_of_a_stream_is_its_length(tiny: Terminal, make_items: Items) -> None:
    """The rows of an address are not counted beforehand; once all are read, the bars have an end."""
    rows = tiny.write("a.jsonl", make_items(200)).read_bytes()
    with web_server() as web:
        web.files["/a.jsonl"] = rows
        lines = shown(tiny, f"upsert-cli run {web.address}/a.jsonl", columns=80)
    assert _bars(lines) == {"read": "200/200", "embedded": "200/200", "written": "200/200"}


def test_bars_of_a_restarted_task_are_those_of_the_task() -> None:
    """Rows of earlier attempts count in all bars, so that the last frame agrees with the summary."""
    progress = Progress(total=100)
    progress.continue_after(60, Counts(read=60, inserted=40, updated=5, unchanged=10, failed=5))
    assert {name: bar(progress) for name, bar in STAGE_BARS.items()} == {
        "read": (60, 100),
        "embedded": (45, 85),
        "written": (45, 85),
    }
    progress.continue_after(2, Counts(read=60, inserted=40, failed=20))  # a retry of the rejects
    assert STAGE_BARS["written"](progress) == (0, 98)


def test_an_interrupted_and_restarted_load_has_full_bars(tiny: Terminal, make_items: Items) -> None:
    """The bars of the second attempt count what the first one loaded, and the elapsed time includes its time."""
    tiny.write("a.jsonl", make_items(600))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 50")
    tiny.halt_when(process, "t")
    process.terminate()
    tiny.go_on(process)
    process.communicate()
    lines = shown(tiny, "upsert-cli restart t", columns=100)
    assert _bars(lines) == {"read": "600/600", "embedded": "600/600", "written": "600/600"}


# -- the remaining time -------------------------------------------------------------------------------------------


def _remaining(batches: Sequence[tuple[float, int]], *, total: int | None) -> list[tuple[float, float | None]]:
    """Return moments and remaining times of a load of batches, each a pair of seconds and rows, four times a second."""
    now, done = 0.0, 0
    left = RemainingTime(clock=lambda: now)
    left.update(done, total)
    shown: list[tuple[float, float | None]] = []
    for seconds, rows in batches:
        for _ in range(int(4 * seconds)):
            now += 0.25
            left.update(done, total)
            shown.append((now, left.seconds))
        done += rows
    left.update(done, total)
    return [*shown, (now, left.seconds)]


def test_the_remaining_time_counts_down_between_batches() -> None:
    """The remaining time appears from the second batch on, decreases, and is right for any size of batches."""
    times = _remaining([(9.0, 64)] + [(5.0, 500)] * 40, total=64 + 500 * 40)
    end = times[-1][0]
    assert all(seconds is None for now, seconds in times if now < 9.0 + 5.0)
    known = [(now, seconds) for now, seconds in times if seconds is not None]
    assert known[0][0] == 9.0 + 5.0 + 0.25
    assert all(abs(now + seconds - end) < 0.5 for now, seconds in known)


def test_uneven_batches_do_not_make_the_remaining_time_jump() -> None:
    """Batches that take between 2 and 20 seconds change the expected end a little at a time."""
    pattern = [2.0, 8.0, 5.0, 3.0, 7.0, 5.0, 20.0, 4.0, 6.0]
    batches = [(3.0, 64)] + [(seconds, 500) for seconds in pattern * 12]
    times = _remaining(batches, total=64 + 500 * (len(batches) - 1))
    ends = [now + seconds for now, seconds in times if seconds is not None and now > 30.0]
    assert max(abs(after - before) for before, after in pairwise(ends)) < 0.02 * times[-1][0]
    assert all(abs(end - times[-1][0]) < 0.35 * times[-1][0] for end in ends)
    assert times[-1][1] == pytest.approx(0.0, abs=2.0)


def test_the_remaining_time_follows_a_change_of_speed() -> None:
    """After rows that are unchanged come rows to embed: within a minute the estimate is that of the new rate."""
    batches = [(1.0, 1_000)] * 20 + [(1.0, 100)] * 120
    left = dict(_remaining(batches, total=100_000))
    assert left[20.0] == pytest.approx(80.0, rel=0.1)
    remaining = left[140.0]
    assert remaining is not None
    assert remaining == pytest.approx((100_000 - 32_000) / 100, rel=0.2)


def test_a_batch_that_is_late_raises_the_remaining_time() -> None:
    """A load that hangs never promises to be done in a moment."""
    times = dict(_remaining([(1.0, 100)] * 10 + [(300.0, 100)], total=2_000))
    first, later = times[30.0], times[300.0]
    assert first is not None
    assert later is not None
    assert 10.0 < first < later


def test_a_time_that_is_not_known_is_not_shown() -> None:
    """Without a total, without rows and before two batches there is no remaining time."""
    assert {seconds for _, seconds in _remaining([(1.0, 10)] * 30, total=None)} == {None}
    assert {seconds for _, seconds in _remaining([(30.0, 0)], total=10)} == {None}
    assert {seconds for _, seconds in _remaining([(30.0, 5), (0.0, 5)], total=10)} == {None}
    assert [as_clock(seconds) for seconds in (0.4, 35.0, 3_723.0)] == ["0:00", "0:35", "1:02:03"]


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
    """A load ends with a `query` for words of its own, with the options that differ from the defaults of `query`."""
    tiny.env |= variables | {"UPSERT_CLI_QUERY_MODEL_PATH": tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]}
    text = "the `first` words\x1b of a $(text), not: all!"
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": text}}])
    *_, line = tiny.type(f"upsert-cli run a.jsonl {options}").stderr.splitlines()
    command, query, text, *rest = shlex.split(line)
    assert (command, query, text) == ("upsert-cli", "query", "the first words of")
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
    with (tiny.folder / "events").open("w") as output:
        lines = shown(tiny, "upsert-cli run a.jsonl --force --json", columns=100, output=output)
    assert set(_bars(lines)) == {"read", "embedded", "written"}


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
    progress = Progress(total=total, stage="loading")
    progress.continue_after(1_000, Counts(read=1_000, inserted=1_000))

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
    progress = Progress(total=3_600)

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


def test_the_help_names_the_option_for_logs(terminal: Terminal) -> None:
    """The help of --progress names the choice for logs."""
    text = " ".join(terminal.type("upsert-cli run --help").stdout.split())
    assert "plain (for logs)" in text
