"""`tuner run`: search for the best configuration of a study."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import pruners, samplers, study_files, study_names
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command(
    "run", cls=Command, example="python -m tuner.run --study mnist --trials 100 --workers 2"
)
@click.option(
    "--study",
    required=True,
    type=text,
    metavar="NAME|PATH",
    shell_complete=study_files,
    help="studies/NAME.py, or the path of a study file.",
)
@click.option(
    "--trials",
    "--n-trials",
    required=True,
    type=whole(1),
    metavar="N",
    help="Trials the study shall have in the end, finished or pruned; exactly so many.",
)
@click.option(
    "--study-name",
    type=text,
    metavar="NAME",
    help="The study's name in the database. [default: the file's name]",
)
@click.option(
    "--compare",
    type=text,
    metavar="FACTOR",
    help="Give each level of this parameter the same number of trials, searched by itself.",
)
@click.option(
    "--from-study",
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="Try the five best configurations of this study, of the same database, first.",
)
@setting("workers")
@setting("storage")
@setting("sampler", complete=samplers)
@setting("pruner", complete=pruners)
@setting("seed")
@setting("precision")
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
@click.option(
    "--detach",
    is_flag=True,
    help="Leave the trials to `python -m tuner.worker` daemons, and return at once.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the settings, the space, sample configurations and the cost; touch nothing.",
)
@setting("quiet")
@setting("no-publish")
@click.option("-v", "--verbose", is_flag=True, help="Show the workers' output and debug log, too.")
def run(**_flags: Any) -> None:
    """Search for the best configuration of a study, with parallel workers on one database.

    The same command goes on where an earlier one stopped, however it stopped. What is between
    --workers and --cache-gb, --quiet and --no-publish can also be set by an environment variable
    (TUNER_WORKERS for --workers; OPTUNA_STORAGE for --storage) or by a line in tuner.toml (workers
    = 2). A flag comes first, then the variable, then the file.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.settings import resolve_run  # noqa: PLC0415

    options = given()
    settings = resolve_run(options)
    if options.values["dry_run"]:
        from tuner.dry_run import dry_run  # noqa: PLC0415

        dry_run(settings, Console())
    else:
        from tuner.launch import run_study  # noqa: PLC0415
        from tuner.report.upkeep import keep_up  # noqa: PLC0415
        from tuner.storage import address_of  # noqa: PLC0415

        console = Console()
        address = address_of(settings.storage)  # the study's code may change the directory
        reached = run_study(settings, console)
        if reached.board.ended_here and not (settings.detach or settings.no_publish):
            keep_up(settings.study, address, settings.artifacts, console)


def main() -> None:
    """Entry of ``python -m tuner.run``."""
    execute(run)


if __name__ == "__main__":
    main()
