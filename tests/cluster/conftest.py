"""Real Chroma servers for loads by several processes, and real Ray clusters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.conftest import server, shared_server
from tests.support.raylets import Raylets

__all__ = ["server", "shared_server"]


@pytest.fixture(scope="module")
def head() -> Iterator[Raylets]:
    """Yield a cluster of one machine, which costs the CPU of one."""
    with Raylets.started(0, head_processors=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def raylets() -> Iterator[Raylets]:
    """Yield a cluster whose workers are on two raylets, which may be killed."""
    with Raylets.started(2) as cluster:
        yield cluster
