"""`tuner report`: turns studies into comparisons, in words, figures and one HTML page.

In a notebook, ``results = tuner.report.load("mnist", "sqlite:///tuner.db")`` gives pandas frames,
and every function of `tuner.report.plots` makes a Plotly figure of them.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuner.command import execute
from tuner.complete import study_names
from tuner.flags import Command, given, setting
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
@setting(
    "artifacts",
    help="Folder, or s3:// address, with what trials left: the mistakes of the best one's model.",
)
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
    help="Also put the verdict, telling figures and the best model into optuna-dashboard.",
)
def report(**_flags: Any) -> None:
    """Turn a study into one HTML page: which technique is better, by how much, how sure is that?

    The page holds all it needs: it works without network, and can be mailed. Studies of any
    program that uses Optuna are read; no study code is run.
    """
    # Imported here, so that --help does not wait for pandas.
    from tuner.report.writing import Outputs, write  # noqa: PLC0415
    from tuner.settings import artifacts_of, resolve_storage  # noqa: PLC0415

    options = given()
    values = options.values
    page, csv, png = (
        None if values[name] is None else Path(values[name]) for name in ("out", "csv", "png")
    )
    artifacts = artifacts_of(options, check=False)  # what is not there is told on the page
    outputs = Outputs(page, csv, png, publish=values["publish"], artifacts=artifacts)
    studies = list(dict.fromkeys(values["study"]))
    for sentence in write(studies, resolve_storage(values["storage"]), outputs):
        click.echo(sentence)


def main() -> None:
    """Entry of ``python -m tuner.report``."""
    execute(report)
