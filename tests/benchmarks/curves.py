"""Recorded learning curves: 200 random MNIST configurations, unpruned to all seven reports.

    python -m tests.benchmarks.curves

records them by the command itself (about an hour on two cores; it goes on where it was stopped) and
writes ``curves.csv.gz`` beside this file: a line for each report. `load` gives them to what replays
them: choices of pruner and sampler, and the statistics of reports.
"""

import dataclasses
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import ROOT

TRIALS = 200
SEED = 2026
FILE = Path(__file__).with_name("curves.csv.gz")
STORAGE = "sqlite:///curves.db"
PARAMS = ("learning_rate", "optimizer", "init", "frozen_layers")


@dataclasses.dataclass(frozen=True)
class Curves:
    """Recorded curves, a row for each configuration in the order in which they were drawn.

    Attributes:
        params: the configurations: columns `PARAMS`, (n_trials, 4).
        steps: the reported steps, in quarter epochs, (n_steps,).
        errors: validation errors, (n_trials, n_steps); 1 at a divergence, and NaN after it.
        seconds: of the trial until each report, on one core, (n_trials, n_steps).
        provenance: versions, processor, precision.
    """

    params: pd.DataFrame
    steps: npt.NDArray[np.int64]
    errors: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    provenance: dict[str, Any]


def load() -> Curves:
    """Read the recorded curves."""
    with gzip.open(FILE, "rt") as file:
        provenance = json.loads(file.readline().split(" ", 2)[2])
    rows = pd.read_csv(FILE, comment="#")
    table = rows.pivot_table(index="trial", columns="step", values=["val_error", "seconds"])
    params = rows.groupby("trial")[list(PARAMS)].first()
    return Curves(
        params,
        np.array(table["val_error"].columns),
        table["val_error"].to_numpy(),
        table["seconds"].to_numpy(),
        provenance,
    )


def record() -> None:
    """Run the trials that are missing, and write the file."""
    subprocess.run(
        [sys.executable, "-m", "tuner.run", "--study", str(ROOT / "studies" / "mnist.py"),
         "--study-name", "curves", "--trials", str(TRIALS), "--seed", str(SEED),
         "--sampler", "random", "--pruner", "none", "--storage", STORAGE],
        check=True,
    )  # fmt: skip
    study = optuna.load_study(study_name="curves", storage=STORAGE)
    trials = [t for t in study.trials if t.state is not TrialState.FAIL]
    lines = [_provenance(study, trials), *_lines(trials)]
    with gzip.GzipFile(FILE, "wb", mtime=0) as file:
        file.write("\n".join([*lines, ""]).encode())


def _provenance(study: optuna.Study, trials: list[FrozenTrial]) -> str:
    """A comment that says where and how the curves were recorded."""
    attrs = trials[0].user_attrs
    environment = study.user_attrs[f"environment:{attrs['environment']}"]
    facts = {name: environment[name] for name in ("tensorflow", "keras", "commit", "cpu", "cores")}
    facts |= {name: attrs[name] for name in ("precision", "threads", "device")}
    return f"# {datetime.now(UTC):%Y-%m-%d} {json.dumps(facts)}"


def _lines(trials: list[FrozenTrial]) -> list[str]:
    lines = [",".join(("trial", "seed", *PARAMS, "step", "val_error", "seconds", "outcome"))]
    for trial in trials:
        attrs = trial.user_attrs
        for step, error in sorted(trial.intermediate_values.items()):
            values = (
                trial.number, attrs["seed"], *(trial.params[name] for name in PARAMS),
                step, round(error, 6), attrs["report_seconds"][str(step)], attrs["outcome"],
            )  # fmt: skip
            lines.append(",".join(str(value) for value in values))
    return lines


if __name__ == "__main__":
    record()
