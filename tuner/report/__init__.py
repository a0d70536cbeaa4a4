"""`tuner report`: turns studies into comparisons, in words, figures and one HTML page.

In a notebook, ``results = tuner.report.load("mnist", "sqlite:///tuner.db")`` gives pandas frames,
and every function of `tuner.report.plots` makes a Plotly figure of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, setting
from tuner.values import text

if TYPE_CHECKING:
    from tuner.report.results import Results


def load(study: str, storage: str | None = None) -> "Results":
    """Read a study of any program that uses Optuna.

    Args:
        study: its name in the database.
        storage: its URL; by default as for the commands: ``OPTUNA_STORAGE``, ``tuner.toml``, or
            ``tuner.db`` in this directory.

    Raises:
        UsageError: there is no such study.
        StorageError: the database cannot be read.
    """
    from tuner.report.reading import read_one  # noqa: PLC0415 - pandas waits until it is needed

    return read_one(study, storage)


@click.command("report", cls=Command, example="python -m tuner.report --study mnist")
@click.option(
    "--study",
    type=text,
    multiple=True,
    required=True,
    metavar="NAME",
    shell_complete=study_names,
    help="The study's name in the database; give it again for several side by side.",
)
@setting("storage")
@click.option(
    "--out", type=text, metavar="FILE", help="The page. [default: report-NAME.html, here]"
)
@click.option("--csv", type=text, metavar="DIR", help="Also write all tables in full, as CSV.")
@click.option(
    "--png", type=text, metavar="DIR", help="Also write the figures as PNG (needs a browser)."
)
@click.option(
    "--publish",
    is_flag=True,
    help="Also put the verdict and the most telling figures into optuna-dashboard.",
)
def report(  # noqa: PLR0913, PLR0917 - the flags
    study: tuple[str, ...],
    storage: str | None,
    out: str | None,
    csv: str | None,
    png: str | None,
    publish: bool,  # noqa: FBT001
) -> None:
    """Turn a study into one HTML page: which technique is better, by how much, how sure is that?

    The page holds all it needs: it works without network, and can be mailed. Studies of any
    program that uses Optuna are read; no study code is run.
    """
    # Imported here, so that --help does not wait for pandas.
    from tuner.report.writing import Outputs, write  # noqa: PLC0415
    from tuner.settings import resolve_storage  # noqa: PLC0415

    outputs = Outputs(
        page=None if out is None else Path(out),
        csv=None if csv is None else Path(csv),
        png=None if png is None else Path(png),
        publish=publish,
    )
    for sentence in write(list(dict.fromkeys(study)), resolve_storage(storage), outputs):
        click.echo(sentence)


def main() -> None:
    """Entry of ``python -m tuner.report``."""
    execute(report)
