"""`report TASK_ID --html FILE`: the content of the page, in which data is never more than text."""

from __future__ import annotations

import html
import json
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from tests.support.items import Items
from tests.support.terminal import Terminal
from upsert_cli.counts import Counts
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.progress import Point, Timeline
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.report.charts import draw
from upsert_cli.report.page import PAGE_REJECTS, render_page
from upsert_cli.report.printed_commands import NextStep

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MADE_AT = r"at <time.*?</time>"  # the time at which a page was made
HOSTILE = (
    "<script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">{{ 7*7 }}\x1b[31m\u202e"
)


def _task(**fields: Any) -> Task:
    made: dict[str, Any] = {
        "id": "nightly",
        "status": TaskStatus.DONE,
        "created_at": "2026-11-25T03:00:00Z",
        "updated_at": "2026-11-25T03:01:00Z",
        "kind": "default",
        "collection": "default",
        "chroma": "/data/chroma",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "sources": ("/data/a.jsonl",),
    }
    return Task(**(made | fields))


def _reject(row: int, **fields: Any) -> dict[str, Any]:
    made = {"object_id": f"obj-{row}", "payload": {"text": ""}, "item_info": None, "detail": "payload.text is empty",
            "failure_stage": "on_reading", "source": "data/a.jsonl", "row": row}  # fmt: skip
    return made | fields


def _course(*written: int, attempt: int = 1) -> list[Point]:
    return [
        Point(
            attempt=attempt,
            seconds=float(second),
            read=rows,
            embedded=rows,
            written=rows,
            busy={"embedding": second / 2},
        )
        for second, rows in enumerate(written)
    ]


def test_a_page_describes_a_load(tiny: Terminal, make_items: Items) -> None:
    """The page of a real load names sources, target, counts and every reject, and has a chart."""
    tiny.write("a.jsonl", [*make_items(150), {"object_id": "bad & <worse>", "payload": {"text": ""}}])
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 50", expect=3)
    done = tiny.type("upsert-cli report t --html out.html")
    assert (done.stdout, done.stderr) == ("", "the page of task t is in out.html\n")
    page = (tiny.folder / "out.html").read_text()
    for told in (str(tiny.folder / "a.jsonl"), str(tiny.folder / "chroma"), "<b>150</b> inserted", "<b>1</b> rejected"):
        assert told in page
    assert "bad &amp; &lt;worse&gt;" in page
    assert "a.jsonl:151" in page
    assert page.count('class="step"') >= 1
    assert "when embedding was busy" in page
    assert "".join(re.split(MADE_AT, tiny.type("upsert-cli report t --html -").stdout)).rstrip() == "".join(
        re.split(MADE_AT, page)
    )
    assert stat.S_IMODE((tiny.folder / "out.html").stat().st_mode) & 0o400
    assert not list(tiny.folder.glob(".out*"))


def test_a_page_that_cannot_be_written_or_made_is_an_error(terminal: Terminal) -> None:
    """The error names the missing package or folder, and no partial page is left."""
    assert "missing" in terminal.type("upsert-cli report missing --html a.html", expect=1).stderr
    assert "--html" in terminal.type("upsert-cli report missing", expect=2).stderr
    assert list(terminal.folder.iterdir()) == []


def test_everything_from_outside_is_text(tmp_path: Path) -> None:
    """Names, messages and items with markup, scripts, templates and escape sequences are shown as they are."""
    record = _reject(1, object_id=HOSTILE, detail=HOSTILE, source=f"/x/{HOSTILE}", payload={HOSTILE: HOSTILE})
    page = render_page(
        _task(detail=HOSTILE, sources=(HOSTILE,), collection=HOSTILE, counts=Counts(read=1, failed=1)),
        rejects=[record, _reject(2, line=HOSTILE)],
        course=Timeline(),
    )
    assert "<img" not in page
    assert page.count("<script>") == 1
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "{{ 7*7 }}" in html.unescape(page)
    assert "passw0rd" not in render_page(
        _task(sources=("https://ann:passw0rd@example.org/a.jsonl",)), rejects=[], course=Timeline()
    )


def test_a_page_names_the_next_commands(tiny: Terminal) -> None:
    """The page of a load with rejects has the commands that correct and query it, for the journal that was typed."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}, {"object_id": "b", "payload": {"text": ""}}])
    tiny.type("upsert-cli run a.jsonl --task-id t --journal own", expect=3)
    page = html.unescape(tiny.type("upsert-cli report t --journal own --html -").stdout)
    steps = re.findall(r"<dt>([^<]*)</dt>\s*<dd><code>(upsert-cli [^<]*)</code>", page)
    assert [label for label, _ in steps] == ["Once the rejected items are corrected", "To query it"]
    for (_, command), code in zip(steps, (3, 0), strict=True):
        assert command.endswith("--journal own")
        tiny.type(command, expect=code)
    assert 'id="next"' not in render_page(_task(status=TaskStatus.REFUSED), rejects=[], course=Timeline())


def test_only_options_that_were_given_are_shown() -> None:
    """Defaults would hide the options of this load."""
    options = LoadOptions(force=True, text_fields=("title", "body"))
    page = render_page(_task(options=options), rejects=[], course=Timeline())
    shown = re.findall(r"<dt>([\w-]+)</dt>\s*<dd><code>", page)
    assert sorted(shown) == ["force", "from", "text-fields"]


def test_the_rejects_of_a_page_are_bounded() -> None:
    """A page of a load that rejected everything can still be opened, and says that there are more rejects."""
    failed = 3 * PAGE_REJECTS
    rejects = (_reject(row, payload={"text": "x" * 100_000}) for row in range(1, failed + 1))
    page = render_page(_task(counts=Counts(read=failed, failed=failed)), rejects=rejects, course=Timeline())
    assert page.count("<tr><td") == PAGE_REJECTS
    assert f"The first {PAGE_REJECTS:,} of {failed:,}" in page
    assert len(page) < 4_000_000


@pytest.mark.parametrize(
    ("status", "running", "told"),
    [
        (TaskStatus.PENDING, False, "pending"),
        (TaskStatus.PROCESSING, True, "processing"),
        (TaskStatus.PROCESSING, False, "died"),
        (TaskStatus.FAILED, False, "failed"),
        (TaskStatus.DONE, False, "done"),
    ],
)
def test_a_task_in_any_state_has_a_page(status: TaskStatus, running: bool, told: str) -> None:
    """A task that has not started, runs or died has a page too."""
    page = render_page(_task(status=status, running=running), rejects=[], course=Timeline())
    assert re.search(rf'class="state \w+">{told}</span>', page)


def test_a_chart_shows_commits_and_busy_stages() -> None:
    """Speed is rows by the time between two commits; attempts follow each other without the pause between them."""
    chart = draw(Timeline(points=_course(0, 0, 100, 100, 150) + _course(150, 250, attempt=2)))
    assert chart is not None
    assert [(step.rows, step.rate) for step in chart.steps] == [(100, 50.0), (50, 25.0), (100, 100.0)]
    assert chart.top == 100.0
    assert [(chart.left(step.begin), chart.width(step)) for step in chart.steps] == [
        (0.0, 40.0),
        (40.0, 40.0),
        (80.0, 20.0),
    ]
    assert [chart.left(moment) for moment in chart.restarts] == [80.0]
    (lane,) = chart.lanes
    assert lane.seconds == 2.5
    assert sum(map(chart.width, lane.stretches)) == pytest.approx(50.0)
    assert chart.ticks == (0.0, 2.0, 4.0)
    assert draw(Timeline()) is None
    assert draw(Timeline(points=_course(0, 0, 0))) is None


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Return a headless Chromium."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver, which .ci/run installs")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def _log(browser: webdriver.Chrome, name: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = browser.execute("getLog", {"type": name})["value"]
    return entries


def _look(browser: webdriver.Chrome, path: Path, *, width: int, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())


def test_a_page_works_in_a_browser_from_a_file(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """In Chromium, on phone and desktop, light and dark, nothing overflows, no foreign script runs, and the search works."""
    rejects = [
        *[_reject(row, source="data/articles-of-2026-11.jsonl") for row in range(1, 30)],
        _reject(30, object_id=HOSTILE, detail=HOSTILE, failure_stage="on_upsert", source=HOSTILE * 9),
        _reject(31, detail="a very peculiar reason", payload={"text": "y" * 5_000}),
    ]
    path = tmp_path / "page.html"
    task = _task(detail=HOSTILE, sources=("/data/" + "deep/" * 60,), counts=Counts(read=100, inserted=69, failed=31))
    page = render_page(
        task,
        rejects=rejects,
        course=Timeline(points=_course(0, 0, 60, 100)),
        steps=[NextStep("to query it", f"upsert-cli query x --chroma {'/deep' * 60}")],
    )
    path.write_text(page)
    grounds = set()
    for width in (360, 375, 1_200):
        for scheme in ("light", "dark"):
            _look(browser, path, width=width, scheme=scheme)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width
            grounds.add(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
            assert browser.title == "nightly: done, 31 rejected"
            place = browser.find_element(By.CSS_SELECTOR, "tbody td:first-child code")
            assert place.size["height"] < 30, "a file and its row are on one line"
    assert len(grounds) == 2
    bars = browser.find_elements(By.CSS_SELECTOR, "rect.step, rect.span")
    assert len(bars) >= 3
    assert all(bar.size["height"] > 5 for bar in bars)
    _search(browser)
    asked_for = [
        message["params"]["request"]["url"]
        for entry in _log(browser, "performance")
        if (message := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in asked_for if not url.startswith("data:")} == {path.as_uri()}
    assert _log(browser, "browser") == []


def _search(browser: webdriver.Chrome) -> None:
    words, found = browser.find_element(By.ID, "words"), browser.find_element(By.ID, "found")

    def shown() -> list[str]:
        rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
        return [row.find_element(By.TAG_NAME, "code").text for row in rows if row.is_displayed()]

    assert len(shown()) == 31
    words.send_keys("PECULIAR very")
    assert shown() == ["a.jsonl:31"]
    assert found.text == "1 of 31"
    words.clear()
    words.send_keys("nothing of that kind")
    assert shown() == []
    words.clear()
    words.send_keys(" ")
    Select(browser.find_element(By.ID, "stage")).select_by_visible_text("on_upsert")
    assert found.text == "1 of 31"
    row = next(row for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr") if row.is_displayed())
    assert "<script>document.title='owned'</script>" in row.text
    row.find_element(By.TAG_NAME, "summary").click()
    assert '{"payload": {"text": ""}}' in row.text
