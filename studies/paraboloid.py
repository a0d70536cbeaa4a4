"""The smallest study: a bowl with its lowest point at x = 2, y = -1. No Keras, a few milliseconds.

    python -m tuner.run --study paraboloid --trials 50

Copy this file to search with any other library: say what to sample, and return what to minimise.
"""

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution

metric = "height"
direction = "minimize"
max_step = 4

space: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-5.0, 5.0),
    "y": FloatDistribution(-5.0, 5.0),
}


def objective(trial: optuna.Trial) -> float:
    """The height of the bowl at (x, y), seen more and more exactly in four steps."""
    x, y = trial.params["x"], trial.params["y"]
    height = (x - 2.0) ** 2 + (y + 1.0) ** 2
    for step in range(1, max_step + 1):
        trial.report(height + 1.0 / 2**step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return height
