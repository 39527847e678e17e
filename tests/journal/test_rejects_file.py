"""JSONL files are appended to at a known length, replaced whole or not at all, and damaged lines are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.rejects import JsonLines, read_json_lines


def _read(path: Path, *, length: int | None = None) -> list[Any]:
    return [value for value, _ in read_json_lines(path, lambda value: value, length=length)]


def test_values_are_appended_after_a_known_length(tmp_path: Path) -> None:
    """Opening at a length drops the rest of the file; reading stops at a length or before half a line."""
    path = tmp_path / "new" / "values.jsonl"
    with JsonLines.open_at(path, 0) as file:
        length = file.append([["a", 1]])
        file.append([["b", 2]])
    assert _read(path) == [["a", 1], ["b", 2]]
    assert _read(path, length=length) == [["a", 1]]
    with JsonLines.open_at(path, length) as file:
        assert file.append([["c\ud800", 3]]) == path.stat().st_size
    with path.open("ab") as torn:
        torn.write(b'["half')
    assert _read(path) == [["a", 1], ["c\ufffd", 3]]


def test_a_file_is_rewritten_whole_or_not_at_all(tmp_path: Path) -> None:
    """The new content is complete when the block ends; an error in the block keeps the old content."""
    path = tmp_path / "values.jsonl"
    with JsonLines.rewriting(path) as file:
        file.append([1, 2])
    with pytest.raises(FileNotFoundError, match="of the caller"), JsonLines.rewriting(path) as file:
        file.append([3])
        raise FileNotFoundError("of the caller")
    assert _read(path) == [1, 2]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    with JsonLines.rewriting(path):
        pass
    assert _read(path) == []


def test_a_missing_file_has_no_values(tmp_path: Path) -> None:
    """Reading creates nothing."""
    assert _read(tmp_path / "values.jsonl") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line", [b"{", b"\0\0\0", b"\xff", b"null"], ids=["torn", "zeros", "not ASCII", "another shape"]
)
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    """The error has the path and the number of the line; the lines before it are read."""
    path = tmp_path / "values.jsonl"
    path.write_bytes(b"1\n" + line + b"\n3\n")
    values = read_json_lines(path, lambda value: value)
    assert next(values) == (1, 2)
    with pytest.raises(JournalDamaged, match=r"values\.jsonl is damaged \(line 2 is not"):
        next(values)
