"""Third-party packages: their settings, lean imports of the heavy ones, and commands that install missing ones.

`import httpx` also imports its command line if click, rich and pygments are installed. Without it, `import chromadb`
takes 1.02 instead of 1.17 s of CPU and `import fastembed` 0.93 instead of 1.10 s (lower quartiles of 15 interleaved
runs). A load pays for both, since Chroma runs in a child process. Where trio is installed, a load of one row takes 1.19
instead of 1.25 s without it and without pydantic's plugins (medians of 18 interleaved runs). Pausing the garbage
collector gains nothing measurable, and skipping Chroma's checks of overridden methods 0.04 s, so neither is done.

`import openvino` imports its converter of models, which sends an event to Google Analytics and keeps an id in
`~/intel`; OpenVINO does without either where they are not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = ("httpx._main", "trio", "openvino.tools.ovc", "openvino_telemetry")
"""Modules without which their packages work, as where they are not installed."""

LIBRARY_SETTINGS = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime writes a device id and an event database into the home folder
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ANONYMIZED_TELEMETRY": "False",  # chromadb
    # Such plugins report to Logfire, and to find any, pydantic reads the metadata of every installed package.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # The errors of the model hub's client come as exceptions, which are reported in one line.
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    # pyarrow's own allocator copies a Parquet page of 126 MB while the buffer for it grows. The system's moves it:
    # reading such pages takes 277 instead of 358 MB, and the same CPU (pyarrow 26).
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def configure_libraries() -> None:
    """Switch off telemetry and output, and choose allocators, before any library is imported."""
    os.environ.update(LIBRARY_SETTINGS)  # child processes inherit them


@contextmanager
def lean_imports() -> Iterator[None]:
    """Hide some modules from the imports in the block."""
    hidden = [name for name in HIDDEN if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]  # means: not to be found
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)


def is_installed(module: str) -> bool:
    """Check that a module is installed, without importing it."""
    return importlib.util.find_spec(module) is not None


def install_command(*requirements: str) -> str:
    """Return the command that installs packages for this Python."""
    program = [sys.executable, "-m", "pip", "install"]
    if not is_installed("pip"):  # as in environments that uv makes
        program = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*program, *requirements])
