"""`tuner status`: what the studies of a database have come to, and who works on them."""

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, setting
from tuner.values import text


@click.command("status", cls=Command, example="python -m tuner.status --study mnist")
@click.option(
    "--study",
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="This study only. [default: all]",
)
@setting("storage")
@setting("format")
def status(study: str | None, storage: str | None, format: str | None) -> None:  # noqa: A002 - the flag
    """Show the studies of a database, and the workers that run trials of them.

    "done" counts the trials that are complete or pruned, out of the target. "/hour" says how
    many of them ended an hour: over the last one, or since the first of its trials was started.
    Studies of any program that uses Optuna are shown.
    """
    # Imported here, so that --help does not wait for Optuna.
    import contextlib  # noqa: PLC0415
    import json  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415

    from tuner.columns import as_json, as_tables  # noqa: PLC0415
    from tuner.settings import resolve_storage  # noqa: PLC0415
    from tuner.storage import find_study, open_database, read_overviews  # noqa: PLC0415

    with contextlib.closing(open_database(resolve_storage(storage), read_only=True)) as database:
        study_id = None if study is None else find_study(database, study)
        studies = read_overviews(database, study_id)
    if format == "json":
        click.echo(json.dumps(as_json(studies), indent=2, allow_nan=False))
    elif studies:
        Console().print(as_tables(studies))
    else:
        click.echo(
            f"{database.url} holds no study yet; begin one with: "
            "python -m tuner.run --study NAME --trials N"
        )


def main() -> None:
    """Entry of ``python -m tuner.status``."""
    execute(status)


if __name__ == "__main__":
    main()
