"""Items to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Items = Callable[..., list[dict[str, Any]]]
"""The type of the fixtures `make_items` and `vectored`."""


def text_item(object_id: str, text: str) -> dict[str, Any]:
    """Return an item with a text alone."""
    return {"object_id": object_id, "payload": {"text": text}}


def make_some_items(count: int, *, mark: str = "first") -> list[dict[str, Any]]:
    """Return `count` items with texts of mixed length."""
    return [
        {
            "object_id": f"obj-{number:05d}",
            "payload": {"text": f"{mark} text {number} " + "and more of it " * (number % 17), "number": number},
            "item_info": {"origin": "test"},
        }
        for number in range(count)
    ]
