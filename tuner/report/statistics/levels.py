"""The levels of a factor, each with all other settings tuned for it.

Raw means of an adaptive search compare tuned levels with untuned ones; where each level had an
equal share of the trials (`run --compare`), they compare searches, with their hopeless trials. So
for each level the model first picks the settings that suit it best, tried or not. Its interval is
that of new runs there; which level is best is judged by the lowest error that each can reach at any
settings.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from tuner.report.statistics.surrogate import NONE, Surrogate

Array = npt.NDArray[np.float64]

# Draws of the joint posterior: P(best) is then exact to 0.01.
DRAWS = 4000
# Settings that are tried in the model for each level.
CANDIDATES = 400
# Standard deviations are widened by this: the fit takes its hyperparameters as known, and a model
# is never quite right. From `python -m tests.benchmarks.coverage`, balanced designs.
WIDENING = 1.15
CONFIDENCE = 0.95
_NORMAL = 1.96  # standard deviations to each side of a 95 % interval
# Of them, so many may be a level's best: those with the lowest mean less so many deviations.
PROMISING, HOPE = 40, 1.5
_LOOKED_AT = 200  # of the pool, those with the lowest mean


@dataclass(frozen=True)
class TunedLevels:
    """The levels of one factor, in its order; in the model's units, lower is better.

    Attributes:
        settings: `(n_levels, n_parameters)`, each level's best settings by the model.
        mean: `(n_levels,)`, the expected value of a new run there.
        low, high: `(n_levels,)`, its 95 % interval.
        p_best: `(n_levels,)`, the probability that the level can reach the lowest value of all, at
            whatever settings are best for it: a level that was hardly explored may yet do so. Over
            all comparisons at once, so that it needs no further correction. They sum to 1.
        optima: `(n_draws, n_levels)`, draws of the lowest value that each level can reach.
        draws: `(n_draws, n_levels)`, draws of the expected values at `settings`.
    """

    settings: Array
    mean: Array
    low: Array
    high: Array
    p_best: Array
    optima: Array
    draws: Array

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
        """The levels that cannot reach what the leader can, by their estimates.

        Each difference is above 0 by a one-sided test at 2.5 %, corrected for all pairs of this
        factor's levels (Bonferroni): the leader was chosen after looking.
        """
        count = len(self.mean)
        alpha = (1 - CONFIDENCE) / 2 / max(count * (count - 1) / 2, 1)
        leads = self.optima - self.optima[:, [self.leader]]
        low = leads.mean(axis=0) + norm.ppf(alpha) * leads.std(axis=0)
        return [int(it) for it in np.argsort(self.mean) if it != self.leader and low[it] > 0]


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
    promising = np.vstack([_promising(model, column, level, pool) for level in range(levels)])
    mean, covariance = model.joint(promising)
    drawn = generator.multivariate_normal(mean, covariance * WIDENING**2, DRAWS, method="eigh")
    by_level = drawn.reshape(DRAWS, levels, -1)
    optima = by_level.min(axis=2)
    p_best = np.bincount(optima.argmin(axis=1), minlength=levels) / DRAWS
    picks = mean.reshape(levels, -1).argmin(axis=1)
    places = picks + by_level.shape[2] * np.arange(levels)
    draws = by_level[:, np.arange(levels), picks]
    spread = WIDENING * np.sqrt(np.diag(covariance)[places]) * _NORMAL
    return TunedLevels(
        settings=promising[places],
        mean=mean[places],
        low=mean[places] - spread,
        high=mean[places] + spread,
        p_best=p_best,
        optima=optima,
        draws=draws,
    )


def _promising(model: Surrogate, column: int, level: int, pool: Array) -> Array:
    """`(PROMISING, n_parameters)`: the settings at which the level may have its lowest value."""
    at_level = with_level(model, column, level, pool)
    low = at_level[np.argsort(model.mean(at_level), kind="stable")[:_LOOKED_AT]]
    mean, deviation = model.marginal(low)
    hopeful = np.argsort(mean - HOPE * deviation, kind="stable")
    chosen = np.concatenate([[0], hopeful[hopeful != 0]])  # the lowest mean must be among them
    return low[np.resize(chosen[:PROMISING], PROMISING)]


def with_level(model: Surrogate, column: int, level: int, pool: Array) -> Array:
    """The settings of the pool that can have this level, with it.

    Where a parameter depends on another, only the settings with those parameters that trials at
    this level had; all of them where no trial had this level.
    """
    tried = model.rows.settings[model.rows.settings[:, column] == level] == NONE
    there = pool == NONE
    fitting = (there[:, np.newaxis] == np.unique(tried, axis=0)).all(axis=2).any(axis=1)
    at_level = pool[fitting].copy() if fitting.any() else pool.copy()
    at_level[:, column] = level
    return at_level
