"""Makes the tiny model: `python -m tests.bench.tiny FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.tiny_model import build_tiny_model
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.models import find_model

if __name__ == "__main__":
    build_tiny_model(find_model(DEFAULT_MODEL), Path(sys.argv[1]))
