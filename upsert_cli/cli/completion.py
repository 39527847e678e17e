"""The command that prints what a shell needs to complete our commands: `completion`."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from upsert_cli.cli.options import Invocation, common_options

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@common_options
def completion(_session: Invocation, *, shell: str) -> None:
    """Print a script that completes commands, options, task ids and models in a shell.

    SHELL is bash (4.4 or newer), zsh or fish. For this shell alone:

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
    # Not what bash's own class does before, which is to start a bash and ask for its version.
    click.echo(ShellComplete.source(completer))
