"""How fast is the report, beside Optuna's own frames and figures of the same study?

    python -m tests.benchmarks.report              # 100 and 10,000 trials, about 5 minutes
    python -m tests.benchmarks.report 100

Samples (`tests.samples`) with 7 steps and 12 attributes a trial, in a SQLite file; each way in a
new process, interleaved, medians of three. *Reading* is database to pandas: ours, beside
``load_study`` and ``trials_dataframe`` (which has no intermediate values). *Page* is the whole
command, beside Optuna's nine plots of one objective written to one HTML page.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests import samples
from tests.conftest import ROOT

SIZES = (100, 10_000)
REPEATS = 3


def ours_reading(url: str) -> None:
    """Frames of trials, steps, parameters and attributes."""
    samples.read(url)


def theirs_reading(url: str) -> None:
    """Optuna's frame: trials, parameters and attributes."""
    import optuna

    optuna.load_study(study_name="mnist", storage=url).trials_dataframe()


def ours_page(url: str, page: Path) -> None:
    """The command."""
    from click.testing import CliRunner

    from tuner.report import report

    done = CliRunner().invoke(report, ["--study", "mnist", "--storage", url, "--out", str(page)])
    if done.exit_code:
        raise RuntimeError(done.output)


def theirs_page(url: str, page: Path) -> None:
    """Optuna's plots in one page, plotly.js once."""
    import optuna
    from optuna import visualization as plots

    study = optuna.load_study(study_name="mnist", storage=url)
    figures = [
        plots.plot_optimization_history(study), plots.plot_intermediate_values(study),
        plots.plot_parallel_coordinate(study), plots.plot_slice(study),
        plots.plot_contour(study, params=["learning_rate", "frozen_layers"]),
        plots.plot_param_importances(study), plots.plot_rank(study), plots.plot_edf(study),
        plots.plot_timeline(study),
    ]  # fmt: skip
    first, *others = figures
    parts = [first.to_html(full_html=False, include_plotlyjs=True)]
    parts += [it.to_html(full_html=False, include_plotlyjs=False) for it in others]
    page.write_text("\n".join(parts))


WAYS: dict[str, dict[str, Callable[..., None]]] = {
    "reading": {"ours": ours_reading, "theirs": theirs_reading},
    "page": {"ours": ours_page, "theirs": theirs_page},
}


def measure(what: str, whose: str, url: str, page: Path) -> float:
    """Seconds in a new process, without its imports for reading, with them for the page."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.report", "once", what, whose, url, str(page)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def once(what: str, whose: str, url: str, page: str) -> None:
    """What the process does."""
    import pandas as pd  # noqa: F401

    import tuner.report.results  # noqa: F401

    way = WAYS[what][whose]
    start = time.perf_counter()
    if what == "reading":
        way(url)
    else:
        way(url, Path(page))
    sys.stdout.write(f"\n{json.dumps(time.perf_counter() - start)}\n")


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["once"]:
        once(*sys.argv[2:])
        return
    sizes = [int(it) for it in sys.argv[1:]] or list(SIZES)
    table = Table(title=f"Medians of {REPEATS}, interleaved")
    for column in ("trials", "what", "ours", "Optuna's", "ratio", "our page", "Optuna's page"):
        table.add_column(column, justify="right")
    for trials in sizes:
        with tempfile.TemporaryDirectory() as folder:
            url = samples.stored(Path(folder), samples.mnist_like(trials), attrs=samples.OURS)
            pages = {whose: Path(folder) / f"{whose}.html" for whose in ("ours", "theirs")}
            for what in WAYS:
                taken: dict[str, list[float]] = {"ours": [], "theirs": []}
                for _ in range(REPEATS):
                    for whose, seconds in taken.items():
                        seconds.append(measure(what, whose, url, pages[whose]))
                ours, theirs = (statistics.median(it) for it in taken.values())
                sizes_of = (
                    [f"{pages[it].stat().st_size / 1e6:.2f} MB" for it in pages]
                    if what == "page"
                    else ["", ""]
                )
                table.add_row(
                    f"{trials:,}", what, f"{ours:.2f} s", f"{theirs:.2f} s",
                    f"{theirs / ours:.1f}", *sizes_of,
                )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
