"""`python -m upsert_cli` is the same program as `upsert-cli`."""

from __future__ import annotations

from upsert_cli.cli import main

if __name__ == "__main__":
    main()
