"""`tuner confirm`: re-run the best configurations on fresh seeds, and compare them."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command(
    "confirm", cls=Command, example="python -m tuner.confirm --study mnist --top 5 --seeds 10"
)
@click.option(
    "--study",
    required=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="The search's name in the database.",
)
@click.option(
    "--seeds",
    required=True,
    type=whole(2),
    metavar="S",
    help="Run each configuration on so many seeds, the same for all.",
)
@click.option(
    "--top",
    type=whole(1),
    metavar="K",
    help="The K configurations with the best values. [default: 5]",
)
@click.option(
    "--per-level",
    type=text,
    metavar="FACTOR",
    help="The best configuration of each level of this parameter, instead.",
)
@click.option(
    "--again",
    is_flag=True,
    help="Make another confirmation of the search, which opens the test set once more.",
)
@setting("workers")
@setting("storage")
@setting("precision", help="What layers compute in. [default: as the search]")
@setting("timeout")
@setting("trial-timeout")
@setting("max-failures")
@setting("engine")
@setting("ray-address")
@setting("cpus-per-worker")
@setting("gpus-per-worker")
@setting("artifacts")
@setting("cache-dir")
@setting("cache-gb")
@setting("quiet")
@setting("no-publish")
@click.option("-v", "--verbose", is_flag=True, help="Show the workers' output and debug log, too.")
def confirm(**_flags: Any) -> None:
    """Re-run the best configurations of a search on fresh seeds, and say which is better.

    Nothing is pruned, and all configurations share their seeds. Where the study file has a test
    set, it is opened here and nowhere else, after each run. The runs are a study of their own,
    NAME-confirm; the same command goes on where an earlier one stopped.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.confirming import confirm_study  # noqa: PLC0415

    confirm_study(given(), Console())


def main() -> None:
    """Entry of ``python -m tuner.confirm``."""
    execute(confirm)


if __name__ == "__main__":
    main()
