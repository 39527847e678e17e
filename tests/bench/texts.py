"""Texts of mixed lengths without a download: the docstrings of the standard library, in an order that never changes."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
SHORTEST = 20  # characters; shorter texts are titles
TOPICS = 7  # values of a metadata field, as a real payload has some that repeat

Item = dict[str, Any]


def texts(count: int) -> Iterator[str]:
    """Yield `count` texts; once all are used, they come again with a number, so that no two are the same."""
    used = []
    for text in itertools.islice(docstrings(), count):
        used.append(text)
        yield text
    for number in range(len(used), count):
        yield f"{used[number % len(used)]} ({number // len(used)})"


def docstrings() -> Iterator[str]:
    """Yield the docstrings of this Python's standard library, each once, file by file in the order of their hashes."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = [path.relative_to(root) for path in root.rglob("*.py")]
    kept = [name for name in names if LEFT_OUT.isdisjoint(name.parts)]
    seen: set[str] = set()
    for name in sorted(kept, key=lambda name: hashlib.sha256(name.as_posix().encode()).digest()):
        for text in _docstrings_in(root / name):
            if len(text) >= SHORTEST and text not in seen:
                seen.add(text)
                yield text


def items(count: int, *, revision: int = 0, changed: int = 0) -> Iterator[Item]:
    """Yield items for `run`.

    Args:
        count: Items.
        revision: A metadata value of every item, so that another one changes all metadata and no text.
        changed: Items, evenly spread, whose text is another than usual.
    """
    step = count // changed if changed else 0
    for number, text in enumerate(texts(count)):
        is_changed = step and number % step == 0 and number // step < changed
        yield {
            "object_id": f"doc-{number:08d}",
            "payload": {
                "text": f"Changed: {text}" if is_changed else text,
                "topic": f"topic {number % TOPICS}",
                "number": number,
                "revision": revision,
            },
        }


def write_jsonl(path: Path, rows: Iterator[Item]) -> Path:
    """Write items as JSONL and returns the path."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def _docstrings_in(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in strings of others
            tree = ast.parse(path.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and "\0" not in text:
                yield text
