"""`tuner gc`: remove the files of trials that nobody needs any more."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command("gc", cls=Command, example="python -m tuner.gc --keep 5 --dry-run")
@click.option(
    "--study",
    multiple=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="Only this study; may be repeated. [default: all]",
)
@click.option(
    "--keep",
    type=whole(0),
    metavar="K",
    help="Keep the files of each study's K best trials. [default: 5]",
)
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@setting("storage")
@setting("artifacts", help="Folder, or s3://BUCKET/PREFIX, with what trials left.")
def gc(**_flags: Any) -> None:
    """Remove the files of all but the best trials of each study.

    A confirmation also keeps the best run of each configuration. What unfinished trials need to go
    on is kept, and so are files of studies that this database does not have: another one may share
    the place. It can be run while workers work.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.cleaning import clean  # noqa: PLC0415

    clean(given(), Console())


def main() -> None:
    """Entry of ``python -m tuner.gc``."""
    execute(gc)


if __name__ == "__main__":
    main()
