"""Real Chroma servers for loads by several processes."""

from tests.servers.conftest import server, shared_server

__all__ = ["server", "shared_server"]
