"""Servers of older versions of Chroma: all that they cannot do is found before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import OTHER_CHROMAS
from tests.support.chroma_server import ChromaServer
from tests.support.older_chroma import python_with
from tests.support.terminal import Terminal

COLLECTIONS = "tenants/default_tenant/databases/default_database/collections"
REASON = "this server does not store lists"


@pytest.mark.parametrize(
    "version", ["1.3.7", *(pytest.param(older, marks=pytest.mark.slow) for older in ("1.0.20", "1.4.1"))]
)
def test_a_server_that_stores_no_lists(
    tiny: Terminal, vectored: Callable[..., list[dict[str, Any]]], version: str
) -> None:
    """A load and a dry run with --keep-lists are refused before a row, and one without the option loads all of them."""
    tiny.write("a.jsonl", vectored(3, tags=["x", "y"]))
    with ChromaServer.started(python=str(python_with(version, OTHER_CHROMAS))) as server:
        load = f"upsert-cli run a.jsonl --chroma {server.url}"
        for command in (f"{load} --keep-lists", f"{load} --keep-lists --dry-run"):
            assert REASON in tiny.type(command, expect=4).stderr
            assert server.ask("GET", COLLECTIONS) == []
        tiny.type(load)
        before = server.records("default")
        assert {one["metadata"]["tags"] for one in before.values()} == {'["x","y"]'}
        for command in (f"{load} --keep-lists --force", f"{load} --keep-lists --dry-run"):
            assert REASON in tiny.type(command, expect=4).stderr
        assert server.records("default") == before


def test_a_server_that_stores_lists(
    tiny: Terminal, vectored: Callable[..., list[dict[str, Any]]], server: ChromaServer
) -> None:
    """Checking whether a server stores lists leaves nothing on it."""
    tiny.write("a.jsonl", vectored(3, tags=["x", "y"]))
    load = f"upsert-cli run a.jsonl --keep-lists --chroma {server.url}"
    tiny.type(f"{load} --dry-run")
    assert server.ask("GET", COLLECTIONS) == []
    tiny.type(load)
    found = server.records("default")
    assert (len(found), [one["metadata"]["tags"] for one in found.values()]) == (3, [["x", "y"]] * 3)
