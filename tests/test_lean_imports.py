"""Heavy packages are imported without the command line of httpx, which can still be imported afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from upsert_cli.packages import HIDDEN, lean_imports

PROGRAM = """
import sys
from upsert_cli.packages import lean_imports
with lean_imports():
    import chromadb, fastembed
assert "rich" not in sys.modules
import httpx._main
assert callable(httpx._main.main)
assert chromadb.EphemeralClient().heartbeat() > 0
"""


def test_nothing_is_missing_after_a_lean_import() -> None:
    """Chroma works after a lean import, and the command line of httpx can still be imported."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_a_failed_import_restores_the_table_of_modules() -> None:
    """A package that cannot be imported leaves `sys.modules` unchanged."""
    before = [sys.modules.get(name) for name in HIDDEN]
    with pytest.raises(ImportError), lean_imports():
        raise ImportError
    assert [sys.modules.get(name) for name in HIDDEN] == before
