"""Does bfloat16 cost accuracy? The same twenty configurations in float32 and in bfloat16.

    python -m tests.benchmarks.precision

Random configurations of the MNIST study, all five epochs: those with bfloat16 are the first of the
recorded curves (`tests.benchmarks.curves`), those with float32 are run here with the same seeds
(about ten minutes on two cores). Each precision has a base of its own, as in a real study.
"""

import subprocess
import sys

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table
from scipy import stats

from tests.benchmarks.curves import SEED, load
from tests.conftest import ROOT

TRIALS = 20
STORAGE = "sqlite:///precision.db"
VALIDATION_IMAGES = 10_000


def run() -> list[optuna.trial.FrozenTrial]:
    """Run the trials in float32 that are missing; return all."""
    subprocess.run(
        [sys.executable, "-m", "tuner.run", "--study", str(ROOT / "studies" / "mnist.py"),
         "--study-name", "precision", "--trials", str(TRIALS), "--seed", str(SEED),
         "--sampler", "random", "--pruner", "none", "--precision", "float32", "--storage", STORAGE],
        check=True,
    )  # fmt: skip
    return optuna.load_study(study_name="precision", storage=STORAGE).trials


def main() -> None:
    """Run and print."""
    console, curves, pairs = Console(), load(), []
    assert curves.provenance["precision"] == "bfloat16"
    table = Table(title="Final validation error of the same configurations and seeds")
    for column in ("trial", "configuration", "float32", "bfloat16", "difference", "seconds, ratio"):
        table.add_column(column, justify="left" if column == "configuration" else "right")
    for trial in run():
        row = curves.params.index.get_loc(trial.number)
        assert curves.params.loc[trial.number].to_dict() == trial.params, "not the same space"
        errors = curves.errors[row]
        diverged = trial.user_attrs["outcome"] == "diverged"
        halves = errors[-1], np.nan if diverged else trial.value
        name = " ".join(f"{value:.3g}" if isinstance(value, float) else str(value)
                        for value in trial.params.values())  # fmt: skip
        if np.isnan(halves).any():
            both = np.isnan(halves).all()
            table.add_row(str(trial.number), name, "diverged" if both else "diverged in one only")
            continue
        pairs.append(halves)
        seconds = sum(trial.user_attrs["seconds"].values())
        table.add_row(
            str(trial.number), name, f"{halves[1]:.2%}", f"{halves[0]:.2%}",
            f"{halves[0] - halves[1]:+.2%}", f"{seconds / curves.seconds[row][-1]:.2f}",
        )  # fmt: skip
    console.print(table)
    bfloat16, float32 = np.array(pairs).T
    differences = bfloat16 - float32
    low, high = stats.t.interval(0.95, len(pairs) - 1, differences.mean(), stats.sem(differences))
    good = float32 < 0.02
    noise = np.sqrt(2 * np.mean(float32[good] * (1 - float32[good])) / VALIDATION_IMAGES)
    console.print(
        f"{len(pairs)} pairs: mean difference {differences.mean():+.3%} "
        f"(95 % interval {low:+.3%} to {high:+.3%}); "
        f"Kendall's tau {stats.kendalltau(float32, bfloat16).statistic:.2f}\n"
        f"{good.sum()} of them below an error of 2 %: mean difference "
        f"{differences[good].mean():+.3%}, standard deviation {differences[good].std(ddof=1):.3%} "
        f"(with {VALIDATION_IMAGES:,} other images, two validations would differ by {noise:.3%} by "
        f"chance); "
        f"tau {stats.kendalltau(float32[good], bfloat16[good]).statistic:.2f}"
    )


if __name__ == "__main__":
    main()
