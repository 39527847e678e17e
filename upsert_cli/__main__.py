"""The program: `upsert-cli`, and the same as `python -m upsert_cli`."""

from __future__ import annotations

from upsert_cli.signals import end_at_once


def main() -> None:
    """Run the command line; a signal ends the program from its first moment on, and prints no traceback."""
    end_at_once()
    from upsert_cli.cli import main as run  # takes much longer than setting the handlers

    run()


if __name__ == "__main__":
    main()
