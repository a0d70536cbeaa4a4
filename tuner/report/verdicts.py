"""The words of a verdict, defined once, and how they are come by.

=====================  ===========================================================================
word                   meaning
=====================  ===========================================================================
clear                  the leader is the best level with probability 0.95 or more
likely                 ... 0.80 or more; the most that an adaptive search may say by itself
equal within 0.1 point every level's error is within 0.1 point of the leader's, by two one-sided
                       tests at 5 % each (TOST); a lack of difference alone is never called equal
undecided              none of these
=====================  ===========================================================================
"""

import math
from dataclasses import dataclass

import numpy as np

from tuner.report.results import Results
from tuner.report.scale import Scale
from tuner.report.statistics.levels import TunedLevels

CLEAR, LIKELY, UNDECIDED, EQUAL = "clear", "likely", "undecided", "equal within 0.1 point"
CLEAR_FROM, LIKELY_FROM = 0.95, 0.80
# Errors that differ by less are as good as equal, in shares: 10 of 10,000 images.
MARGIN = 0.001
# Samplers whose choice does not depend on results; of an unknown one that is not assumed.
BALANCED_SAMPLERS = frozenset({"random", "qmc", "grid"})

# What each word means to a reader, for the page.
MEANINGS = {
    CLEAR: f"the leader is the best with a probability of {CLEAR_FROM:.2f} or more",
    LIKELY: f"of {LIKELY_FROM:.2f} or more, which is the most that an adaptive search may say",
    EQUAL: "every level is within 0.1 point of the leader, by two one-sided tests (TOST)",
    UNDECIDED: "none of these; it does not mean that there is no difference",
}


@dataclass(frozen=True)
class Verdict:
    """What may be said of one factor.

    Attributes:
        word: one of the four.
        leader: the place of the level that leads.
        p_best: its probability to be the best, over all comparisons at once.
        close: places of the levels that cannot be told from the leader, nearest first.
        worse: places of those that are worse, see `TunedLevels.behind`.
    """

    word: str
    leader: int
    p_best: float
    close: list[int]
    worse: list[int]


def is_adaptive(results: Results) -> bool:
    """Whether earlier results decided what was tried."""
    samplers = results.stored.samplers
    return not samplers or not samplers <= BALANCED_SAMPLERS or len(results.taken_over) > 0


def judge(tuned: TunedLevels, scale: Scale, *, adaptive: bool) -> Verdict:
    """The verdict on one factor.

    Args:
        tuned: its levels.
        scale: of the study.
        adaptive: see `is_adaptive`.
    """
    leader = tuned.leader
    p_best = float(tuned.p_best[leader])
    order = [int(it) for it in np.argsort(tuned.mean) if it != leader]
    worse = tuned.behind()
    word = UNDECIDED
    if p_best >= CLEAR_FROM and not adaptive:
        word = CLEAR
    elif p_best >= LIKELY_FROM:
        word = LIKELY
    elif not adaptive and _all_equal(tuned, scale):
        word = EQUAL
    return Verdict(word, leader, p_best, [it for it in order if it not in worse], worse)


def _all_equal(tuned: TunedLevels, scale: Scale) -> bool:
    """TOST: the 90 % interval of each difference from the leader lies within the margin."""
    if not scale.share:
        return False
    shown = scale.from_model(tuned.optima)
    difference = shown - shown[:, [tuned.leader]]
    low, high = np.quantile(difference, [0.05, 0.95], axis=0)
    return bool(np.all(low > -MARGIN) and np.all(high < MARGIN))


def percent(probability: float) -> str:
    """A probability in words: ``0.83``; never 1.00, which no data can say."""
    if probability >= 0.995:
        return "above 0.99"
    return f"{math.floor(100 * probability + 0.5) / 100:.2f}"
