"""`tuner worker`: a daemon that helps with the studies of a database."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
from tuner.values import amount, text, whole


@click.command(
    "worker", cls=Command, example="python -m tuner.worker --storage postgresql://tuner@db/tuner"
)
@setting("storage")
@click.option(
    "--study",
    multiple=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="Serve this study only, by its name in the database; may be repeated. [default: all]",
)
@setting("workers", type=whole(1), help="Worker processes.")
@click.option(
    "--idle",
    type=amount("seconds"),
    metavar="SECONDS",
    help="End after so long without an open request, as a job of a cluster has to; then a signal "
    "ends it with exit code 130. [default: wait for ever]",
)
@setting("artifacts")
@setting("cache-dir")
@setting("cache-gb")
@click.option("-v", "--verbose", is_flag=True, help="Show the workers' output and debug log, too.")
def worker(**_flags: Any) -> None:
    """Serve the open requests of a database, oldest first, until a signal comes.

    A run opens a request (with --detach it leaves all its trials to daemons). Each daemon needs the
    study's file in the same version.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.daemon import serve  # noqa: PLC0415
    from tuner.settings import resolve_daemon  # noqa: PLC0415

    serve(resolve_daemon(given()), Console())


def main() -> None:
    """Entry of ``python -m tuner.worker``."""
    execute(worker)


if __name__ == "__main__":
    main()
