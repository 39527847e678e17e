"""The program, `upsert-cli` or `python -m upsert_cli`."""

from __future__ import annotations

import gc

from upsert_cli.signals import end_at_once


def main() -> None:
    """Run the command line; a signal ends the program without a traceback, from the start."""
    end_at_once()
    gc.disable()  # until a command is loaded, since collections during imports free nothing and take 3 ms
    from upsert_cli.cli.root import main as run  # late: the handlers come first

    run()


if __name__ == "__main__":
    main()
