"""Imports of heavy packages without the command line of httpx, which nobody here needs.

`import httpx` also imports its command line if click, rich and pygments are installed. Without it, `import chromadb`
takes 1.02 instead of 1.17 s of CPU and `import fastembed` 0.93 instead of 1.10 s (lower quartiles of 15 interleaved
runs). A load pays for both, since Chroma runs in a child process. Pausing the garbage collector gains nothing
measurable, and skipping Chroma's checks of overridden methods 0.04 s, so neither is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

HTTPX_PROGRAM = "httpx._main"  # httpx does without it where the packages that it needs are missing


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide the command line of httpx from the imports inside, and only from these."""
    program = sys.modules.get(HTTPX_PROGRAM)
    sys.modules.setdefault(HTTPX_PROGRAM, None)  # type: ignore[arg-type]  # means: not to be found
    try:
        yield
    finally:
        if program is None:
            sys.modules.pop(HTTPX_PROGRAM, None)
