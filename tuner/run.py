"""`tuner run`: search for the best configuration of a study."""

from typing import Any

import click

from tuner.command import execute


@click.command(
    "run",
    context_settings={"max_content_width": 100, "show_default": True},
    epilog="Example: python -m tuner.run --study mnist --trials 100",
)
@click.option(
    "--study",
    required=True,
    metavar="NAME|PATH",
    help="studies/NAME.py, or the path of a study file.",
)
@click.option(
    "--trials",
    "--n-trials",
    required=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Trials the study shall have in the end, finished or pruned; exactly so many.",
)
@click.option(
    "--workers",
    type=int,
    metavar="W",
    help="Worker processes; 0 runs the trials in this process, for a debugger. "
    "[default: one a core, as far as the memory goes]",
)
@click.option(
    "--storage", metavar="URL", help="Database. [default: $OPTUNA_STORAGE, else sqlite:///tuner.db]"
)
@click.option(
    "--study-name",
    metavar="NAME",
    help="The study's name in the database. [default: the file's name]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**31 - 1),
    metavar="S",
    help="Seed of the whole study. [default: drawn once and kept]",
)
@click.option(
    "--sampler", metavar="NAME", help="tpe, random, qmc, gp, cmaes, grid or nsga2. [default: tpe]"
)
@click.option(
    "--pruner",
    metavar="NAME",
    help="asha, percentile, median, patient, hyperband or none. [default: asha]",
)
@click.option(
    "--precision",
    metavar="NAME",
    help="What layers compute in: float32, bfloat16, or auto (bfloat16 where the processor has "
    "instructions for it). [default: $TUNER_PRECISION, else auto]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop after so long, hand running trials back, and exit 5.",
)
@click.option(
    "--trial-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Kill the worker of a trial that takes longer; the trial is retried twice, then fails.",
)
@click.option(
    "--artifacts",
    metavar="DIR",
    help="Folder for checkpoints of unfinished trials. [default: $TUNER_ARTIFACTS, else "
    "tuner-artifacts]",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Leave the trials to `python -m tuner.worker` daemons, and return at once.",
)
@click.option(
    "--max-failures",
    type=int,
    metavar="F",
    help="Give up (exit 4) when more trials fail. [default: 5, or 10 % of N if more]",
)
@click.option("--quiet", is_flag=True, help="One plain line a trial, also on a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Show the workers' debug log as well.")
def run(**flags: Any) -> None:
    """Search for the best configuration of a study, with parallel workers on one database.

    The same command goes on where an earlier one stopped, however it stopped.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.launch import run_study  # noqa: PLC0415
    from tuner.settings import resolve_run  # noqa: PLC0415

    run_study(resolve_run(flags), Console())


def main() -> None:
    """Entry of ``python -m tuner.run``."""
    execute(run)


if __name__ == "__main__":
    main()
