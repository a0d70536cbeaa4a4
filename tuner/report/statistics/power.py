"""What a confirmation of so many seeds can find, before and while it is paid for."""

import math

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from tuner.report.statistics.paired import LEVEL

POWER = 0.8  # the chance that is asked for to find a difference that is there


def smallest_difference(
    deviation: float, blocks: int, comparisons: int = 1, power: float = POWER
) -> float:
    """The smallest true difference of two means that a paired t test finds so surely.

    At 5 % over all comparisons: each is tested as Holm's correction tests the first one, with the
    level divided by their number, so that it is the smallest that is found for sure in any order.

    Args:
        deviation: the standard deviation of the differences within a block, above 0.
        blocks: how many seeds both configurations run on.
        comparisons: how many pairs are tested.
        power: the chance to find the difference, between 0 and 1.

    Returns:
        In the unit of the deviation; infinite below two blocks, NaN where the deviation is.
    """
    if blocks < 2:
        return math.nan if math.isnan(deviation) else math.inf
    critical = stats.t.isf(LEVEL / comparisons / 2, blocks - 1)
    # Where a noncentral t exceeds it with this power. Not by TTestPower.solve_power of statsmodels
    # 0.15, which at small levels stops early without a word: for 5 seeds and 21 pairs at a
    # difference that is found in 54 of 100; nor by a search over scipy's nct, which has NaN in it.
    noncentrality = special.nctdtrinc(blocks - 1, 1 - power, critical)
    return float(noncentrality) * deviation / math.sqrt(blocks)


def binomial_deviation(error: float, images: int) -> float:
    """How much two runs of equal true error differ by the luck of the images alone.

    As for two sets of images. Two runs that are measured on the same images also share some of
    their luck: they differ by the images that one gets right and the other wrong, and then by less.
    What training adds to it is not in it either, so it is a first guess, not a bound; measure it.

    Args:
        error: of both, 0 to 1.
        images: how many each is measured on.

    Returns:
        The standard deviation of the difference of the two errors.
    """
    return math.sqrt(2 * error * (1 - error) / images)


def measured_deviation(errors: npt.NDArray[np.float64]) -> float:
    """The standard deviation of the differences within a block, pooled over all pairs.

    Args:
        errors: `(n_blocks, n_configurations)`; blocks that are not whole are left out.

    Returns:
        NaN below two whole blocks or two configurations.
    """
    whole = errors[np.isfinite(errors).all(axis=1)]
    blocks, configurations = whole.shape
    if blocks < 2 or configurations < 2:
        return math.nan
    # Of every pair at once: what is left of a run when its block's and its configuration's means
    # are taken away; a difference has twice its variance.
    rest = whole - whole.mean(axis=0) - whole.mean(axis=1, keepdims=True) + whole.mean()
    freedom = (blocks - 1) * (configurations - 1)
    return math.sqrt(2 * float((rest**2).sum()) / freedom)
