"""Real Chroma servers for the tests that load into one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.chroma import ChromaServer


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ChromaServer]:
    """Yields a server that is started once; each test has collections of its own names in it."""
    with ChromaServer.started() as server:
        yield server


@pytest.fixture
def server() -> Iterator[ChromaServer]:
    """Yields a server of the test's own, which may be killed."""
    with ChromaServer.started() as server:
        yield server
