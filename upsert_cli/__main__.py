"""The program, `upsert-cli` or `python -m upsert_cli`."""

from __future__ import annotations

from upsert_cli.signals import end_at_once


def main() -> None:
    """Run the command line; from the start, a signal ends the program without a traceback."""
    end_at_once()
    from upsert_cli.cli.root import main as run  # takes much longer than setting the handlers

    run()


if __name__ == "__main__":
    main()
