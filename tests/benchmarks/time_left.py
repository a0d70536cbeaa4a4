"""Is the time left honest? Replays of the recorded curves (`tests.benchmarks.curves`).

    python -m tests.benchmarks.time_left

Searches of 100 trials by two workers in simulated time, see `tests.benchmarks.replay`, with 100
seeds. When 5, 10, 25, 50 and 75 % of the trials have ended, the range that a person would be shown
is held against what the search then really took: how often the truth lies within (it should be
about 80 %), and the median of the range's (geometric) middle over the truth.
"""

import functools
import math
import warnings

import numpy as np
import numpy.typing as npt
import optuna
from rich.console import Console
from rich.table import Table

from tests.benchmarks import replay
from tests.benchmarks.curves import load
from tuner.time_left import Ended, estimate

SHARES = (5, 10, 25, 50, 75)  # percent of the trials that have ended
PRUNERS = ("our asha", "our hyperband", "our percentile", "our median", "none")

Seconds = npt.NDArray[np.float64]


def starts_and_ends(found: replay.Search) -> tuple[Seconds, Seconds]:
    """When each of the first trials began and ended: one begins whenever another one ends."""
    starts = np.concatenate([np.zeros(replay.WORKERS), np.sort(found.after)])
    return starts[: replay.TRIALS], found.after[: replay.TRIALS]


def look(starts: Seconds, ends: Seconds, share: int) -> tuple[bool, float, float]:
    """What is shown when a share of the trials has ended.

    Returns:
        Whether the truth lies within, the middle over the truth, and the upper end over the lower.
    """
    order = np.argsort(ends)
    done = order[: len(ends) * share // 100]
    now = ends[done[-1]]
    truth = ends.max() - now
    runs = (starts <= now) & (ends > now)
    left = estimate(
        [Ended(ends[i] - starts[i], now - ends[i]) for i in done],
        list(now - starts[runs]),
        missing=len(ends) - len(done),
        workers=replay.WORKERS,
    )
    assert left is not None
    middle = math.sqrt(left.low * left.high)
    return bool(left.low <= truth <= left.high), middle / truth, left.high / left.low


def main() -> None:
    """Replay and print."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    curves = load()
    table = Table(
        title=f"{replay.TRIALS} trials, {replay.WORKERS} workers, {replay.SEEDS} seeds: "
        "truth within the range; middle / truth; high / low"
    )
    table.add_column("pruner")
    for share in SHARES:
        table.add_column(f"{share} % ended", justify="right")
    for pruner in PRUNERS:
        once = functools.partial(replay._in_order, curves, pruner)
        runs = [starts_and_ends(found) for found in replay._repeat(once, pruner)]
        cells = []
        for share in SHARES:
            within, middle, width = zip(*(look(*run, share) for run in runs), strict=True)
            cells.append(f"{np.mean(within):.0%}; {np.median(middle):.2f}; {np.median(width):.1f}")
        table.add_row(pruner, *cells)
    Console(width=replay.WIDTH).print(table)


if __name__ == "__main__":
    main()
