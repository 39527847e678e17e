"""Files that the user names are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from upsert_cli.atomic import write_out, writing_out


def test_a_process_with_the_id_of_a_killed_one_writes_its_file(tmp_path: Path) -> None:
    """In a container every run may have the same id, and a kill leaves a temporary file."""
    path = tmp_path / "metrics.prom"
    (tmp_path / f".metrics.prom.{os.getpid()}.tmp").write_text("half of")
    write_out(path, "all of it")
    assert path.read_text() == "all of it"


def test_old_temporary_files_are_removed(tmp_path: Path) -> None:
    """A writer removes temporary files of its own target that are a day old."""
    names = [".a[1].json.0123456789abcdef.tmp", ".b.json.0123456789abcdef.tmp", ".a[1].json.mine.tmp"]
    for name in names:
        (tmp_path / name).write_text("half of")
        os.utime(tmp_path / name, (0, 0))
    young = tmp_path / ".a[1].json.fedcba9876543210.tmp"
    young.write_text("half of")
    write_out(tmp_path / "a[1].json", "all of it")
    assert {each.name for each in tmp_path.iterdir()} == {"a[1].json", young.name, *names[1:]}


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The old content stays, and nothing else is left in the folder."""
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="broken"), writing_out(path) as file:
        file.write(b"new")
        raise ValueError("broken")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"
