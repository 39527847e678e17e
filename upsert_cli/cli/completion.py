"""The command `completion`."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.options.command import Command

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
def completion(_session: Session, *, shell: str) -> None:
    """Print a script that completes commands and values.

    SHELL is bash (4.4 or newer), zsh or fish. For the current shell:

    \b
    source <(upsert-cli completion bash)
    source <(upsert-cli completion zsh)
    upsert-cli completion fish | source

    To keep it, put that line into ~/.bashrc, below `compinit` into ~/.zshrc, or into ~/.config/fish/config.fish.
    """
    root = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click has all three
    completer = kind(root.command, {}, "upsert-cli", "_UPSERT_CLI_COMPLETE")
    # Click's class for bash would first start a bash to ask for its version.
    click.echo(ShellComplete.source(completer))
