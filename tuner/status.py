"""`tuner status`: what the studies of a database have come to, and who works on them."""

import click

from tuner.command import execute


@click.command(
    "status",
    context_settings={"max_content_width": 100, "show_default": True},
    epilog="Example: python -m tuner.status --study mnist",
)
@click.option("--study", metavar="NAME", help="This study only. [default: all]")
@click.option(
    "--storage", metavar="URL", help="Database. [default: $OPTUNA_STORAGE, else sqlite:///tuner.db]"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Tables for people, or one JSON document for programs.",
)
def status(study: str | None, storage: str | None, form: str) -> None:
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

    with contextlib.closing(open_database(resolve_storage(storage), create=False)) as database:
        study_id = None if study is None else find_study(database, study)
        studies = read_overviews(database, study_id)
    if form == "json":
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
