"""Draws the picture of a load in the guide: `python -m tests.support.picture` writes it as an SVG.

It shows the screen of the real command, in the middle of the load and at its end, in turn; where a reader has asked
for less motion, only the end.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.manual import GUIDE
from tests.support.screens import Screen
from tests.support.terminal import SAMPLES, Terminal

PICTURE = GUIDE / "images" / "load.svg"
LINE = "upsert-cli run articles.jsonl --task-id articles"
SHOWN_FOLDER = "/home/ann/articles"  # as in the guide; as long as the name of the temporary folder
COLUMNS = 92
COPIES = 3  # of each sample article, so that the load takes long enough to be looked at
BATCH_ROWS = 48  # so few that a fast machine writes some batches before the middle of the load, too
SHOW_SECONDS = 4  # seconds for which each of the two screens is shown

_SWITCHING = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" aria-label="{title}">
<title>{title}</title>
<style>
@keyframes shown {{ 0%, 50% {{ visibility: visible }} 50.01%, 100% {{ visibility: hidden }} }}
.middle, .end {{ animation: shown {seconds}s infinite }}
.end {{ animation-delay: -{half}s }}
@media (prefers-reduced-motion) {{ .middle {{ display: none }} .end {{ animation: none }} }}
</style>
<g class="middle">{middle}</g>
<g class="end">{end}</g>
</svg>
"""


def draw_load(terminal: Terminal, line: str, *, middle: str, expect: int = 0) -> str:
    """Return the picture of a load.

    Args:
        terminal: Where to type the command.
        line: The command.
        middle: Matches the screen at the moment that is shown before the end.
        expect: The exit code.
    """
    with Screen(terminal, line, columns=COLUMNS) as screen:
        screen.wait_for_match(middle)
        running = screen.styled_lines
        screen.finish(expect=expect)
        ended = screen.styled_lines
    height = max(len(running), len(ended))
    first, second = (_svg(line, lines, height, name) for name, lines in (("middle", running), ("end", ended)))
    (box,) = re.findall(r'viewBox="([^"]*)"', first)
    seconds = 2 * SHOW_SECONDS
    return _SWITCHING.format(
        box=box, title=f"The screen of {line}", seconds=seconds, half=SHOW_SECONDS, middle=first, end=second
    )


def _svg(line: str, lines: Sequence[Text], height: int, name: str) -> str:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    for shown in (Text.assemble(("$ ", "bold"), line), *lines, *[Text()] * (height - len(lines))):
        console.print(shown, no_wrap=True)
    picture = console.export_svg(title="upsert-cli", unique_id=name)
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # rich's font would come from elsewhere


def _articles() -> Iterator[str]:
    """Yield the rows of the sample articles several times under other ids, and a row to reject."""
    for copy in range(COPIES):
        for row in (SAMPLES / "articles.jsonl").read_text(encoding="utf-8").splitlines():
            item = json.loads(row)
            yield json.dumps(item | {"object_id": f"{item['object_id']}-{copy}"})
    yield json.dumps({"object_id": "draft-001", "payload": {"text": "", "title": "Not written yet"}})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="load-", dir="/tmp") as folder:
        Path(folder, "articles.jsonl").write_text("".join(f"{row}\n" for row in _articles()))
        terminal = Terminal(Path(folder), env={"UPSERT_CLI_RUN_BATCH_SIZE": str(BATCH_ROWS)})
        picture = draw_load(terminal, LINE, middle="[56][0-9]%.* left", expect=3)
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture.replace(folder, SHOWN_FOLDER))
