"""How long a search will still take: a range, from the trials that ended and those that run.

`tests/benchmarks/time_left.py` says how often the truth lies within it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# About four times in five, a normal variable is within so many standard deviations of its mean.
RANGE_DEVIATIONS = 1.28
# The pace is that of the latest trials, because pruners grow stricter: of this share of those that
# ended, but of at least so many.
RECENT_SHARE = 0.5
LEAST_RECENT = 8
# How much the pace may still change, relative to itself, while most of the trials are to come.
DRIFT = 0.6
# From so many ended trials on it is measured how much they differ; until then it is taken to be as
# much as exponential ones do.
TRIALS_TO_MEASURE = 5
LEAST_VARIATION = 0.5


@dataclass(frozen=True)
class Ended:
    """A trial that ended: how long it took, and how long ago that was, in seconds."""

    seconds: float
    ago: float


@dataclass(frozen=True)
class TimeLeft:
    """Seconds until the last trial ends: at least ``low`` and at most ``high``, most likely."""

    low: float
    high: float


def estimate(
    ended: Sequence[Ended], running: Sequence[float], *, missing: int, workers: int
) -> TimeLeft | None:
    """The time until the last of the missing trials ends, or None without a trial that ended.

    The mean duration is that of censored exponentials (Lawless, Statistical Models and Methods for
    Lifetime Data, 2003, section 4.1): the seconds that were spent, also on trials that still run,
    over the number of trials that ended. The mean of the ended ones alone would be too short,
    because short trials end first. Only the latest trials count, see `RECENT_SHARE`.

    Until the last trial is started, the workers share the rest. Then the trials that run, one for
    each worker, run out one by one. Long trials are more often met running than short ones (Cox,
    Renewal Theory, 1962, section 5.4), so that the rest of one takes (1 + v^2) / 2 means, v being
    the coefficient of variation; the last of k takes the harmonic number H_k as long.

    Args:
        ended: the oldest first.
        running: seconds that each running trial has taken so far.
        missing: how many trials must still end, with the running ones.
        workers: how many run at a time, at least 1.
    """
    if not ended:
        return None
    if missing <= 0:
        return TimeLeft(0.0, 0.0)
    recent = min(len(ended), max(LEAST_RECENT, int(len(ended) * RECENT_SHARE)))
    mean = _mean(ended, running, recent)
    variation = _variation(ended)
    last = min(missing, workers)
    rest = mean * (1 + variation**2) / 2
    ranks = range(1, last + 1)
    expected = mean * (missing - last) / workers + rest * sum(1 / k for k in ranks)
    if expected <= 0:
        return TimeLeft(0.0, 0.0)
    variance = (mean * variation / workers) ** 2 * (missing - last)
    variance += (rest * max(1.0, variation)) ** 2 * sum(1 / k**2 for k in ranks)
    doubt = variation**2 / recent + (DRIFT * missing / (missing + len(ended))) ** 2
    # As of a log-normal variable with that relative variance.
    spread = RANGE_DEVIATIONS * math.sqrt(math.log1p(variance / expected**2 + doubt))
    return TimeLeft(expected * math.exp(-spread), expected * math.exp(spread))


def _mean(ended: Sequence[Ended], running: Sequence[float], recent: int) -> float:
    """The mean duration by the seconds spent since the first of the recent trials could begin."""
    before = len(ended) - recent
    # Of trials that ended together, none before the others, the window would be empty.
    least = statistics.median(trial.seconds for trial in ended[before:])
    window = max(ended[before - 1].ago, least) if before else math.inf
    spent = sum(min(trial.seconds, window - trial.ago) for trial in ended[before:])
    return (spent + sum(min(seconds, window) for seconds in running)) / recent


def _variation(ended: Sequence[Ended]) -> float:
    """The coefficient of variation of a trial's duration."""
    durations = [trial.seconds for trial in ended]
    mean = statistics.fmean(durations)
    if len(durations) < TRIALS_TO_MEASURE or mean <= 0:
        return 1.0
    return max(LEAST_VARIATION, statistics.pstdev(durations) / mean)
