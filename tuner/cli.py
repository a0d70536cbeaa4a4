"""The console script: ``tuner COMMAND`` is ``python -m tuner.COMMAND``."""

import importlib

import click

from tuner import __version__
from tuner.command import execute

# Command -> what it does in one line. The module of the same name holds it.
COMMANDS = {
    "run": "Search for the best configuration of a study.",
    "worker": "Help with the studies that runs on any host have asked for.",
    "dashboard": "Show the studies of a database in the browser.",
    "init": "Make the tables of a database, once it is there.",
    "status": "Show the studies of a database, and who works on them.",
    "control": "Pause, resume or stop a study.",
    "confirm": "Re-run the best configurations on fresh seeds, and compare them.",
    "export": "Write the best model with its card into a folder.",
    "replay": "Run a trial again, and say whether it gives the same.",
    "report": "Turn a study into one page of comparisons.",
    "gc": "Remove the files of trials that nobody needs any more.",
    "completion": "Print what makes a shell complete these commands.",
}


class _Lazy(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"tuner.{cmd_name}"), cmd_name)
        command.short_help = COMMANDS[cmd_name]
        return command


@click.group(
    cls=_Lazy,
    context_settings={"max_content_width": 100},
    epilog="Example: tuner run --study mnist --trials 100",
)
@click.version_option(__version__, prog_name="tuner")
def tuner() -> None:
    """Hyperparameter search for fine-tuning image classifiers."""


def main() -> None:
    """Entry of the console script."""
    execute(tuner)


if __name__ == "__main__":
    main()
