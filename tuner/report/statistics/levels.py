"""The levels of a factor, each with all other settings tuned for it.

Raw means of an adaptive search compare tuned levels with untuned ones. So for each level the model
first picks the settings that suit it best, tried or not; what is compared is the expected error of
a new run there, as `tuner confirm --per-level` would measure it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.report.statistics.surrogate import Surrogate

Array = npt.NDArray[np.float64]

# Draws of the joint posterior: P(best) is then exact to 0.01.
DRAWS = 4000
# Settings that are tried in the model for each level.
CANDIDATES = 400
# Standard deviations are widened by this: the fit takes its hyperparameters as known, and a model
# is never quite right. From `python -m tests.benchmarks.coverage`, balanced designs.
WIDENING = 1.15
CONFIDENCE = 0.95


@dataclass(frozen=True)
class TunedLevels:
    """The levels of one factor, in its order; in the model's units, lower is better.

    Attributes:
        settings: `(n_levels, n_parameters)`, each level's best settings by the model.
        mean: `(n_levels,)`, the expected value of a new run there.
        low, high: `(n_levels,)`, its 95 % interval.
        p_best: `(n_levels,)`, the probability that it is the lowest of all levels: over all
            comparisons at once, so that it needs no further correction. They sum to 1.
        draws: `(n_draws, n_levels)` of the joint posterior.
        trials: `(n_levels,)`, trials with a report at this level.
    """

    settings: Array
    mean: Array
    low: Array
    high: Array
    p_best: Array
    draws: Array
    trials: npt.NDArray[np.int64]

    @property
    def leader(self) -> int:
        """The level with the lowest estimate."""
        return int(np.argmin(self.mean))

    def ratio(self, level: int, other: int) -> tuple[float, float, float]:
        """Median and 95 % interval of the difference of two levels, in the model's units."""
        difference = self.draws[:, level] - self.draws[:, other]
        low, middle, high = np.quantile(difference, [0.025, 0.5, 0.975])
        return float(middle), float(low), float(high)

    def behind(self) -> list[int]:
        """The levels that are worse than the leader, by their estimates.

        The intervals of the differences hold 95 % for all levels at once (Bonferroni): the leader
        was chosen after looking.
        """
        rivals = [int(it) for it in np.argsort(self.mean) if it != self.leader]
        alpha = (1 - CONFIDENCE) / 2 / max(len(rivals), 1)
        leads = self.draws - self.draws[:, [self.leader]]
        return [it for it in rivals if np.quantile(leads[:, it], alpha) > 0]


def tuned_levels(
    model: Surrogate, column: int, levels: int, pool: Array, generator: np.random.Generator
) -> TunedLevels:
    """Estimate each level at its best settings.

    Args:
        model: the study's.
        column: the factor's column in the settings.
        levels: how many it has.
        pool: `(n, n_parameters)`, settings to choose from; the factor's column is replaced.
        generator: of the draws.
    """
    picks = np.array([best_settings(model, column, level, pool) for level in range(levels)])
    mean, covariance = model.joint(picks)
    covariance = covariance * WIDENING**2
    draws = generator.multivariate_normal(mean, covariance, DRAWS, method="eigh")
    p_best = np.bincount(draws.argmin(axis=1), minlength=levels) / DRAWS
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    at_level = model.rows.settings[:, column]
    trials = np.array(
        [len(np.unique(model.rows.trial[at_level == level])) for level in range(levels)]
    )
    return TunedLevels(picks, mean, low, high, p_best, draws, trials)


def best_settings(model: Surrogate, column: int, level: int, pool: Array) -> Array:
    """The settings of the pool that the model expects to be best with this level."""
    at_level = pool.copy()
    at_level[:, column] = level
    best: Array = at_level[int(np.argmin(model.mean(at_level)))]
    return best
