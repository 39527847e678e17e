"""Makes the tiny model: `python -m tests.bench.tiny FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.tiny_model import build_tiny_model
from upsert_cli.models import DEFAULT_MODEL, find_model

if __name__ == "__main__":
    build_tiny_model(find_model(DEFAULT_MODEL), Path(sys.argv[1]))
