"""`tuner export`: the best model as a folder that needs no tuner."""

from typing import Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command("export", cls=Command, example="python -m tuner.export --study mnist --out model")
@click.option(
    "--study",
    required=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="The study's name in the database.",
)
@click.option(
    "--out",
    required=True,
    type=text,
    metavar="DIR",
    help="The folder to write; an earlier export there is replaced.",
)
@click.option(
    "--trial",
    type=whole(0),
    metavar="N",
    help="This trial's model. [default: the confirmed winner's, else the best trial's]",
)
@click.option(
    "--final",
    is_flag=True,
    help="Train its configuration once more, on training and validation data.",
)
@setting("storage")
@setting("artifacts", help="Folder, or s3://BUCKET/PREFIX, with what trials left.")
@setting("cache-dir")
@setting("cache-gb")
@setting("quiet")
@click.option("-v", "--verbose", is_flag=True, help="Show the worker's output and debug log, too.")
def export(**_flags: Any) -> None:
    """Write a model, its configuration, its errors and a model card into a folder.

    The model is of stock Keras layers. Where its file is no longer kept, its trial is run again.
    The test set is not opened: the card has what a confirmation measured.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.exporting import export_model  # noqa: PLC0415

    export_model(given(), Console())


def main() -> None:
    """Entry of ``python -m tuner.export``."""
    execute(export)


if __name__ == "__main__":
    main()
