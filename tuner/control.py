"""`tuner control`: pause, resume or stop a study, wherever its workers are."""

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, offer, setting
from tuner.values import one_of, text

_WISHES = ("pause", "resume", "stop")  # see tuner/steer.py: WISHES


@click.command("control", cls=Command, example="python -m tuner.control pause --study mnist")
@click.argument(
    "wish", type=one_of(*_WISHES), metavar="|".join(_WISHES), shell_complete=offer(_WISHES)
)
@click.option(
    "--study",
    required=True,
    type=text,
    metavar="NAME",
    shell_complete=study_names,
    help="Its name in the database.",
)
@setting("storage")
def control(wish: str, study: str, storage: str | None) -> None:
    """Pause, resume or stop a study, whichever hosts work on it.

    \b
    pause    its workers hand their trials back at their next report, and wait
    resume   a paused study is worked on again
    stop     as pause, and its runs end; only another run goes on

    Nothing is lost: a trial that was handed back keeps its number, parameters and values.
    """  # noqa: D301 - click's mark for lines that it shall not join
    # Imported here, so that --help does not wait for Optuna.
    from tuner.steer import steer  # noqa: PLC0415

    click.echo(steer(wish, study, storage, by_flag=given().by_flag("storage")))


def main() -> None:
    """Entry of ``python -m tuner.control``."""
    execute(control)


if __name__ == "__main__":
    main()
