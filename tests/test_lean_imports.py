"""Importing the heavy packages costs less, and leaves nothing behind that others could notice."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from upsert_cli.lean_imports import HTTPX_PROGRAM, lean_imports, unchecked_overrides

PROGRAM = """
import sys
from upsert_cli.lean_imports import lean_imports, unchecked_overrides
with lean_imports(), unchecked_overrides():
    import chromadb, fastembed
assert "rich" not in sys.modules
import overrides
class Base:
    def method(self, one): ...
try:
    class Derived(Base):
        @overrides.override
        def other(self): ...
except TypeError:
    pass
else:
    sys.exit("overrides checks nothing any more")
import httpx._main
assert callable(httpx._main.main)
assert chromadb.EphemeralClient().heartbeat() > 0
"""


def test_nothing_is_missing_afterwards() -> None:
    """Chroma works after a lean import, httpx's program can still be imported, and `override` checks again."""
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_state_is_put_back_after_an_error() -> None:
    """A package that cannot be imported leaves the collector and the table of modules as they were."""
    before = sys.modules.get(HTTPX_PROGRAM)
    with pytest.raises(ImportError), lean_imports(), unchecked_overrides():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    assert sys.modules.get(HTTPX_PROGRAM) is before
