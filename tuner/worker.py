"""`tuner worker`: a daemon that helps with the studies of a database."""

from typing import Any

import click

from tuner.command import execute


@click.command(
    "worker",
    context_settings={"max_content_width": 100, "show_default": True},
    epilog="Example: python -m tuner.worker --storage postgresql://tuner@db/tuner",
)
@click.option(
    "--storage", metavar="URL", help="Database. [default: $OPTUNA_STORAGE, else sqlite:///tuner.db]"
)
@click.option(
    "--study",
    multiple=True,
    metavar="NAME",
    help="Serve this study only, by its name in the database; may be repeated. [default: all]",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="W",
    help="Worker processes. [default: one a core, as far as the memory goes]",
)
@click.option(
    "--artifacts",
    metavar="DIR",
    help="Folder for checkpoints of unfinished trials; one that all hosts share lets any of them "
    "go on. [default: $TUNER_ARTIFACTS, else tuner-artifacts]",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the workers' debug log as well.")
def worker(**flags: Any) -> None:
    """Serve the open requests of a database, oldest first, until a signal comes.

    A run opens a request (with --detach it leaves all its trials to daemons). Each daemon needs the
    study's file in the same version.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.daemon import serve  # noqa: PLC0415
    from tuner.settings import resolve_daemon  # noqa: PLC0415

    serve(resolve_daemon(flags), Console())


def main() -> None:
    """Entry of ``python -m tuner.worker``."""
    execute(worker)


if __name__ == "__main__":
    main()
