"""The manual: the README and the pages of the guide, and their blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "upsert_cli" / "guide"
README = ROOT / "README.md"
PAGES = [README, *sorted(GUIDE.glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a page that are marked with a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", _joined(page.read_text()), re.S | re.M)


def manual_text() -> str:
    """Return the text of all pages."""
    return "\n".join(_joined(page.read_text()) for page in PAGES)


def _joined(text: str) -> str:
    """Return text with each command on one line, also where a page continues it on the next."""
    return re.sub(r" \\\n +", " ", text)
