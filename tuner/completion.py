"""`tuner completion`: let the shell complete commands, flags and names."""

import click
from click.shell_completion import get_completion_class

from tuner.command import execute
from tuner.flags import Command, offer
from tuner.values import one_of

SHELLS = ("bash", "zsh")
# By it the script asks `tuner` what to offer; click's own name for a program called tuner.
COMPLETION_VARIABLE = "_TUNER_COMPLETE"


@click.command("completion", cls=Command, example='eval "$(tuner completion bash)"')
@click.argument(
    "shell", type=one_of(*SHELLS), metavar="|".join(SHELLS), shell_complete=offer(SHELLS)
)
def completion(shell: str) -> None:
    """Print what makes a shell complete `tuner`: its commands, flags, studies and samplers.

    Put the example's line into ~/.bashrc, or with zsh into ~/.zshrc (after compinit).
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise RuntimeError(f"click knows no {shell}")
    anything = click.get_current_context().command  # the script names the program only
    click.echo(kind(anything, {}, "tuner", COMPLETION_VARIABLE).source())


def main() -> None:
    """Entry of ``python -m tuner.completion``."""
    execute(completion)


if __name__ == "__main__":
    main()
