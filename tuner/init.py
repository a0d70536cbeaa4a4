"""`tuner init`: make the tables of a database before anybody works with it."""

import contextlib

import click

from tuner.command import execute
from tuner.flags import Command, setting


@click.command("init", cls=Command, example="python -m tuner.init --storage postgresql://me@db/me")
@setting("storage")
def init(storage: str | None) -> None:
    """Wait for the database, make the tables that it lacks, and say so.

    A run makes them as well; this is for what starts before the first run, such as a service. It
    may be run again, and by several at once.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    Console().print(_prepare(storage), markup=False, highlight=False, soft_wrap=True)


def _prepare(storage: str | None) -> str:
    """Make what is missing; return what there was to do, as a sentence.

    Raises:
        UsageError: the URL is wrong.
        StorageError: the database cannot be reached, or is not ours.
    """
    from tuner.errors import NoDatabase  # noqa: PLC0415
    from tuner.settings import resolve_storage  # noqa: PLC0415
    from tuner.storage import address_of, open_database  # noqa: PLC0415

    address = address_of(resolve_storage(storage))
    try:
        with contextlib.closing(open_database(address, create=False, patient=True)) as database:
            if database.has_claims:
                return f"The database {address.shown} is ready: its tables are there already."
    except NoDatabase:
        pass
    open_database(address, patient=True).close()
    return f"The database {address.shown} is ready: its tables were made."


def main() -> None:
    """Entry of ``python -m tuner.init``."""
    execute(init)


if __name__ == "__main__":
    main()
