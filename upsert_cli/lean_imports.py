"""Imports of heavy packages without their telemetry, and without the command line of httpx, which nobody here needs.

`import httpx` also imports its command line if click, rich and pygments are installed. Without it, `import chromadb`
takes 1.02 instead of 1.17 s of CPU and `import fastembed` 0.93 instead of 1.10 s (lower quartiles of 15 interleaved
runs). A load pays for both, since Chroma runs in a child process. Pausing the garbage collector gains nothing
measurable, and skipping Chroma's checks of overridden methods 0.04 s, so neither is done.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HTTPX_PROGRAM = "httpx._main"  # httpx does without it where the packages that it needs are missing

TELEMETRY_SWITCHES = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime writes a device id and an event database into the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
}


def switch_off_telemetry() -> None:
    """Switch off the telemetry of all libraries before any of them is imported; child processes inherit the setting."""
    os.environ.update(TELEMETRY_SWITCHES)


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
