"""How often something happens among trials, with what that number is worth."""

import math
from dataclasses import dataclass

from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class Rate:
    """A share of trials, as numbers from 0 to 1.

    Attributes:
        estimate: count / total; NaN without any trial.
        low, high: the ends of its interval.
        count: how many did.
        total: of how many.
    """

    estimate: float
    low: float
    high: float
    count: int
    total: int


def wilson(count: int, total: int, confidence: float = 0.95) -> Rate:
    """A rate with its Wilson interval, which keeps its promise for few trials and near 0 and 1.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927;
    statsmodels has it.

    Args:
        count: how many of the trials did, from 0 to ``total``.
        total: how many trials there were; of none, nothing is known: (0, 1).
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: count and total don't go together, or confidence isn't between 0 and 1.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total} is no rate.")
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1, not at {confidence}.")
    if total == 0:
        return Rate(math.nan, 0.0, 1.0, 0, 0)
    low, high = proportion_confint(count, total, alpha=1 - confidence, method="wilson")
    # Rounding leaves ends like 1e-17 where the formula gives exactly 0 or 1.
    low = 0.0 if count == 0 else float(low)
    high = 1.0 if count == total else float(high)
    return Rate(count / total, low, high, count, total)
