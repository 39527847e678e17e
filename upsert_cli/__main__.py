"""The program, `upsert-cli` or `python -m upsert_cli`."""

from __future__ import annotations

import gc

from upsert_cli.signals import end_at_once


def main() -> None:
    """Run the command line; from the start, a signal ends the program without a traceback."""
    end_at_once()
    gc.disable()  # until a command is loaded: collections during imports free nothing and take 3 ms
    from upsert_cli.cli.root import main as run  # takes much longer than setting the handlers

    run()


if __name__ == "__main__":
    main()
