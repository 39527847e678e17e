"""File references: a text is read only from below one folder, whatever path an item names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal
from upsert_cli.documents.references import MAX_REFERENCE, read_reference, reference_of
from upsert_cli.errors import ItemError, Stage


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with texts; next to it are secrets."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    root = tmp_path / "texts"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "deep" / "er" / "b.txt").write_bytes(b"\xef\xbb\xbftwo \xc3\xa4")
    (root / "link").symlink_to("../secret")
    (root / "inner-link").symlink_to("a.txt")
    (root / "folder-link").symlink_to("../outside")
    (root / "blank").write_text(" \n")
    (root / "latin").write_bytes(b"caf\xe9")
    os.mkfifo(root / "pipe")
    with (root / "large").open("wb") as file:
        file.truncate(MAX_REFERENCE + 1)
    return root


@pytest.mark.parametrize(
    ("path", "text"),
    [("a.txt", "one"), ("./a.txt", "one"), ("deep//er/b.txt", "two ä")],
)
def test_a_file_below_the_root_is_read(root: Path, path: str, text: str) -> None:
    """A relative path leads to its text, without a byte-order mark."""
    assert read_reference(root, path) == text


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../secret", "leads out"),
        ("deep/../../secret", "leads out"),
        ("deep/../a.txt", "leads out"),
        ("/etc/passwd", "is absolute"),
        ("file:///etc/passwd", "is an address"),
        ("FILE:secret", "is an address"),
        ("https://example.org/a.txt", "is an address"),
        ("link", "symbolic link"),
        ("inner-link", "symbolic link"),
        ("folder-link/secret", "symbolic link"),
        ("a.txt/b", "symbolic link or a file"),
        ("a\0.txt", "NUL"),
        ("", "names no file"),
        (".", "names no file"),
        ("deep", "not a regular file"),
        ("pipe", "not a regular file"),
        ("none.txt", "is not there"),
        ("large", "larger than 8 MiB"),
        ("blank", "is empty"),
        ("latin", "not UTF-8: byte 0xe9 at byte 4"),
        ("\ud800", "not a name that the file system allows"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_every_other_path_is_rejected(root: Path, path: str, reason: str) -> None:
    """A path that leads out of the folder, or to anything but a text file of a limited size, is rejected at its own stage."""
    with pytest.raises(ItemError) as caught:
        read_reference(root, path)
    assert caught.value.stage is Stage.DOWNLOADING
    assert reason in caught.value.detail
    assert len(caught.value.detail) < 400


def test_a_device_is_never_read(tmp_path: Path) -> None:
    """A device below the root is not a regular file."""
    if os.geteuid() != 0:
        pytest.skip("only root may make a device")
    os.mknod(tmp_path / "zero", 0o600 | 0o020000, os.makedev(1, 5))
    with pytest.raises(ItemError, match=r"not a regular file|cannot be read"):
        read_reference(tmp_path, "zero")


def test_the_root_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """The user who names the root decides where it leads."""
    (tmp_path / "alias").symlink_to(root)
    assert read_reference(tmp_path / "alias", "a.txt") == "one"


def test_items_that_point_to_their_texts(tiny: Terminal) -> None:
    """With --refs-root such items load, bad references are rejected, and verify agrees; without it, nothing starts."""
    texts = tiny.folder / "texts"
    texts.mkdir()
    for number in range(4):
        (texts / f"{number}.txt").write_text(f"text {number}")
    items: list[dict[str, Any]] = [
        {"object_id": f"{number}", "item_info": {"file_path": f"{number}.txt"}} for number in range(4)
    ]
    items.append({"object_id": "out", "item_info": {"file_path": "../a.jsonl"}})
    items.append({"object_id": "own", "payload": {"text": "its own"}, "item_info": {"file_path": "1.txt"}})
    tiny.write("a.jsonl", items)
    assert "text" in tiny.type("upsert-cli run a.jsonl", expect=2).stderr
    tiny.type("upsert-cli run a.jsonl --task-id t --refs-root texts", expect=3)
    (failed,) = tiny.info("t")["failed_items"]
    assert (failed["object_id"], failed["failure_stage"], failed["row"]) == ("out", "on_downloading", 5)
    records = tiny.records()
    assert {one: record["document"] for one, record in records.items()} == {
        **{f"{number}": f"text {number}" for number in range(4)},
        "own": "its own",
    }
    assert "text" not in records["0"]["metadata"]
    tiny.type("upsert-cli verify t")
    (texts / "2.txt").write_text("another text")
    tiny.type("upsert-cli run a.jsonl --task-id t2 --refs-root texts", expect=3)
    counts = tiny.info("t2")["counts"]
    assert (counts["updated"], counts["unchanged"], counts["failed"]) == (1, 4, 1)


def test_file_path_comes_before_url() -> None:
    """`file_path` comes before `url`; a value that is not text is ignored."""
    assert reference_of({"file_path": "a", "url": "b"}) == "a"
    assert reference_of({"file_path": 3, "url": "b"}) == "b"
    assert reference_of({"file_path": ""}) is None
    assert reference_of(None) is None
