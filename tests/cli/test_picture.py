"""The picture of a load in the guide: the script that draws it, and the file."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree as ET

from tests.support.items import Items
from tests.support.picture import LINE, PICTURE, draw_load
from tests.support.terminal import Terminal

MAX_BYTES = 100_000  # a page that shows it stays fast


def _words(picture: str) -> str:
    return unescape(re.sub("<[^>]*>", " ", picture)).replace("\xa0", " ")


def test_a_load_can_be_drawn(tiny: Terminal, make_items: Items) -> None:
    """The script draws a real load, with its bars in the middle and the colored result at the end."""
    tiny.write("articles.jsonl", [*make_items(400), {"object_id": "bad", "payload": {"text": ""}}])
    picture = draw_load(tiny, LINE, middle="[0-9]+%, ", expect=3)
    ET.fromstring(picture)  # noqa: S314  # our own file
    words = _words(picture)
    assert LINE in words
    assert "401/401" in words
    assert "elapsed" in words
    assert "400 inserted" in words


def test_the_picture_is_one_small_file_of_todays_output() -> None:
    """It loads nothing, and shows the words that a load prints today."""
    picture = PICTURE.read_text()
    assert len(picture.encode()) < MAX_BYTES
    ET.fromstring(picture)  # noqa: S314  # our own file
    assert not re.search(r"url\((?!#)|@import|<image|<script|href=", picture)
    words = _words(picture)
    for word in ("read", "embedded", "written", "elapsed", "left", "done", "1 rejected", "as JSON text", "to query it"):
        assert word in words
