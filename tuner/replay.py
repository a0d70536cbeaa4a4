"""`tuner replay`: run a trial again, and say whether it gives the same."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command("replay", cls=Command, example="python -m tuner.replay --study mnist --trial 12")
@click.option(
    "--study",
    required=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="The study's name in the database.",
)
@click.option(
    "--trial",
    required=True,
    type=whole(0),
    metavar="N",
    help="The trial's number; one that is COMPLETE or PRUNED.",
)
@setting("storage")
@setting("cache-dir")
@setting("cache-gb")
@setting("quiet")
@click.option("-v", "--verbose", is_flag=True, help="Show the worker's output and debug log, too.")
def replay(**_flags: Any) -> None:
    """Run a trial again, alone, and say whether it gives the same.

    It has its recorded parameters, seed, number of threads and precision, and writes nothing into
    the database. The answer is: bit for bit the same, the same within rounding, or different (exit
    code 1) with all that is not as it was: processor, versions, source, pretrained base.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.replaying import replay_trial  # noqa: PLC0415

    replay_trial(given(), Console())


def main() -> None:
    """Entry of ``python -m tuner.replay``."""
    execute(replay)


if __name__ == "__main__":
    main()
