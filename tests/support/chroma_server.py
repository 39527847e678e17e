"""A real `chroma run` server, and a look into it by its own interface alone."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from tests.support.forked import start_python

BLOCK_ROWS = 1_000  # records read at once
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the usual ones at each request costs 20 ms of CPU
START_SECONDS = 60.0  # seconds for a server to come up on a busy machine


class ChromaServer:
    """A server in a folder of its own, at a port of its own."""

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self._folder = folder
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @contextmanager
    def started(cls, *, python: str = sys.executable) -> Iterator[ChromaServer]:
        """Yield a server that listens, of the Chroma that a Python has, and end it."""
        folder = Path(tempfile.mkdtemp(prefix="chroma-server-"))
        server = cls(folder, python=python)
        try:
            server.start()
            yield server
        finally:
            server.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, or start it again after a kill, and wait until it answers."""
        program = "from chromadb.cli.cli import app; app()"  # the content of the script `chroma`
        self._process = start_python(
            [self._python, "-c", program, "run", "--path", str(self._folder), "--port", str(self.port)],
            folder=self._folder,
            environment=os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("GET", "heartbeat")
            except httpx.HTTPError:
                assert self._process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def records(self, collection: str, *, database: str = "default_database") -> dict[str, dict[str, Any]]:
        """Read a collection back with vectors: id -> document, metadata, vector."""
        place = f"tenants/default_tenant/databases/{database}/collections"
        place += "/" + self.ask("GET", f"{place}/{collection}")["id"]
        found: dict[str, dict[str, Any]] = {}
        for offset in range(0, self.ask("GET", f"{place}/count"), BLOCK_ROWS):
            block = {"limit": BLOCK_ROWS, "offset": offset, "include": ["documents", "metadatas", "embeddings"]}
            part = self.ask("POST", f"{place}/get", block)
            for one, document, metadata, vector in zip(
                part["ids"], part["documents"], part["metadatas"], part["embeddings"], strict=True
            ):
                assert one not in found
                found[one] = {"document": document, "metadata": metadata, "vector": vector}
        return found

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the server's own interface."""
        address = f"{self.url}/api/v2/{path}"
        answer = httpx.request(method, address, json=body, timeout=60.0, trust_env=False, verify=NO_CERTIFICATES)
        answer.raise_for_status()
        return orjson.loads(answer.content)


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
