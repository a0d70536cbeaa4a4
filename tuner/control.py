"""`tuner control`: pause, resume or stop a study, wherever its workers are."""

import click

from tuner.command import execute


@click.command(
    "control",
    context_settings={"max_content_width": 100, "show_default": True},
    epilog="Example: python -m tuner.control pause --study mnist",
)
@click.argument("wish", type=click.Choice(["pause", "resume", "stop"]))
@click.option("--study", required=True, metavar="NAME", help="Its name in the database.")
@click.option(
    "--storage", metavar="URL", help="Database. [default: $OPTUNA_STORAGE, else sqlite:///tuner.db]"
)
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

    click.echo(steer(wish, study, storage))


def main() -> None:
    """Entry of ``python -m tuner.control``."""
    execute(control)


if __name__ == "__main__":
    main()
