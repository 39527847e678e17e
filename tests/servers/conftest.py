"""Real Chroma servers for the tests that load into one, and a proxy that makes faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.proxy import Proxy

DIMENSION = 384  # of the default model


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ChromaServer]:
    """Yield one server for all tests; each test uses its own collection names."""
    with ChromaServer.started() as server:
        yield server


@pytest.fixture
def server() -> Iterator[ChromaServer]:
    """Yield a server of the test's own, which may be killed."""
    with ChromaServer.started() as server:
        yield server


@pytest.fixture
def proxy(shared_server: ChromaServer) -> Iterator[Proxy]:
    """Yield a proxy before the shared server."""
    with Proxy(shared_server.port).running() as proxy:
        yield proxy


@pytest.fixture
def vectored() -> Callable[..., list[dict[str, Any]]]:
    """Return a maker of items with their own vectors, for which no model has to be loaded."""

    def make(count: int, *, mark: str = "first", **payload: Any) -> list[dict[str, Any]]:
        vectors = np.random.default_rng(len(mark)).standard_normal((count, DIMENSION)).round(3)
        return [
            {
                "object_id": f"obj-{number:05d}",
                "payload": {"text": f"{mark} text {number}", "vector": vectors[number].tolist(), **payload},
            }
            for number in range(count)
        ]

    return make
