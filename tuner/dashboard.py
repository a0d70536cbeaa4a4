"""`tuner dashboard`: optuna-dashboard in the browser, read-only."""

from typing import Any

import click

from tuner.command import execute
from tuner.flags import Command, given, setting
from tuner.values import text, whole


@click.command("dashboard", cls=Command, example="python -m tuner.dashboard --open")
@setting("storage")
@setting("artifacts", help="Folder, or s3:// address, with the files that trials left.")
@click.option(
    "--host",
    type=text,
    metavar="ADDRESS",
    help="The address to listen at; another one than this machine's own needs --allow-remote. "
    "[default: 127.0.0.1]",
)
@click.option(
    "--port",
    type=whole(0, otherwise=" (0 takes one that is free)"),
    metavar="P",
    help="The port to listen at; 0 takes one that is free. [default: 8080]",
)
@click.option("--writable", is_flag=True, help="Let people write notes; nothing else.")
@click.option(
    "--allow-remote",
    is_flag=True,
    help="Let other machines in; a proxy that asks for a password belongs before it.",
)
@click.option(
    "--name",
    multiple=True,
    type=text,
    metavar="NAME",
    help="A name by which browsers call it, as a proxy's; may be repeated. Its addresses and this "
    "machine's own name need not be said.",
)
@click.option("--open", "open_", is_flag=True, help="Open the page in a browser, too.")
def dashboard(**_flags: Any) -> None:
    """Show all studies of a database in the browser, until a signal comes.

    It is optuna-dashboard, which changes nothing here: every request but reading is refused. Where
    the database is not there yet, it is waited for.
    """
    # Imported here, so that --help does not wait for Optuna.
    from rich.console import Console  # noqa: PLC0415

    from tuner.serving import serve  # noqa: PLC0415
    from tuner.settings import resolve_dashboard  # noqa: PLC0415

    serve(resolve_dashboard(given()), Console())


def main() -> None:
    """Entry of ``python -m tuner.dashboard``."""
    execute(dashboard)


if __name__ == "__main__":
    main()
