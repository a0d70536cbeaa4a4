"""What a search of k trials finds on average: the expected best against the budget.

Dodge, Gururangan, Card, Schwartz and Smith, "Show Your Work: Improved Reporting of Experimental
Results", EMNLP 2019. It holds for configurations drawn at random, or for a model's answers at
such configurations, and not for the trials of a search that learns: those are no random draws.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bands:
    """The expected best at each budget, with how sure a model is of it.

    Attributes:
        median: `(n_budgets,)`, in the units of the samples.
        low, high: `(n_budgets,)`, the ends of the interval at each budget by itself.
    """

    median: Array
    low: Array
    high: Array


def expected_best(values: npt.ArrayLike, budgets: npt.ArrayLike) -> Array:
    """The expected minimum of k draws, with replacement, from the values: exact, no sampling.

    Of k draws the smallest is the i-th smallest of n values with probability
    ((n - i + 1) / n)^k - ((n - i) / n)^k (Dodge et al. 2019, equations 5 to 7).

    Args:
        values: `(n_values,)`, finite, lower is better, in any order.
        budgets: `(n_budgets,)`, the numbers of draws k, each at least 1.

    Returns:
        `(n_budgets,)`, in the units of the values.

    Raises:
        ValueError: there is no value, one isn't finite (a failed trial is an outcome: say what
            its error is, or leave it out knowingly), or a budget is below 1.
    """
    one_row = np.asarray(values, dtype=float)[np.newaxis]
    return _expected_minima(one_row, budgets).reshape(-1)


def expected_best_bands(
    samples: npt.ArrayLike, budgets: npt.ArrayLike, confidence: float = 0.95
) -> Bands:
    """The expected best with a band, from draws of the errors of the same configurations.

    Args:
        samples: `(n_draws, n_configurations)`, finite, lower is better. A row is one draw from a
            model of what those configurations really give, so the rows differ by what the model
            doesn't know.
        budgets: `(n_budgets,)`, the numbers of trials k, each at least 1.
        confidence: of the band at each budget, between 0 and 1.

    Raises:
        ValueError: as for `expected_best`; or confidence isn't between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1, not at {confidence}.")
    tail = (1 - confidence) / 2
    expected = _expected_minima(np.asarray(samples, dtype=float), budgets)
    low, median, high = np.quantile(expected, (tail, 0.5, 1 - tail), axis=0)
    return Bands(median, low, high)


def _expected_minima(rows: Array, budgets: npt.ArrayLike) -> Array:
    """`(n_rows, n_budgets)`: `expected_best` of each row of `(n_rows, n_values)`."""
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError("The expected best needs at least one value.")
    if not np.isfinite(rows).all():
        raise ValueError("The expected best needs finite values.")
    draws = np.atleast_1d(np.asarray(budgets, dtype=float))
    if not (draws >= 1).all():
        raise ValueError("A budget is at least one draw.")
    count = rows.shape[1]
    at_least = np.arange(count, -1, -1) / count  # the share of values from the i-th smallest on
    weights = -np.diff(at_least[np.newaxis, :] ** draws[:, np.newaxis], axis=1)
    lowest = rows.min(axis=1, keepdims=True)
    ranked = np.sort(rows, axis=1) - lowest  # so that equal values come out exactly
    return np.asarray(lowest + ranked @ weights.T)
