"""Learning-rate schedules: from how much of the training is done to a fraction of the peak rate.

========================  ==========================================================================
`constant`                1
`step`                    1, then a tenth from half of the training on, a hundredth from three
                          quarters on (He et al. 2016, arXiv:1512.03385, section 4.2)
`exponential`             0.01 ** done
`cosine`                  (1 + cos(pi done)) / 2 (Loshchilov and Hutter 2017, arXiv:1608.03983,
                          equation 5 without restarts)
`one_cycle`               from 1/25 up to 1 over the first 30 %, then down to 1/250,000, each on
                          half a cosine (Smith 2018, arXiv:1803.09820, with the defaults of
                          PyTorch's ``OneCycleLR``)
========================  ==========================================================================

The rates alone are scheduled: momentum stays as it is, also in `one_cycle`.
"""

import math
from collections.abc import Callable

Schedule = Callable[[float], float]
"""From the fraction of the training that is done, 0 to 1, to a fraction of the learning rate."""

STEPS = (0.5, 0.75)
"""When `step` divides the rate by ten."""

EXPONENTIAL_END = 0.01
"""The fraction at which `exponential` ends."""

RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 250_000
"""The share of the training in which `one_cycle` rises, and the fractions at its two ends."""


def constant(done: float) -> float:  # noqa: ARG001 - a schedule is asked so
    """The whole rate, always."""
    return 1.0


def step(done: float) -> float:
    """A tenth of the rate after each of `STEPS`."""
    return float(0.1 ** sum(done >= bound for bound in STEPS))


def exponential(done: float) -> float:
    """Falls by the same factor in equal times, to `EXPONENTIAL_END`."""
    return float(EXPONENTIAL_END**done)


def cosine(done: float) -> float:
    """Falls to 0 on half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * done)


def one_cycle(done: float) -> float:
    """Rises to 1 and falls to almost nothing, each on half a cosine."""
    if done < RISE:
        return 1.0 - (1.0 - ONE_CYCLE_START) * cosine(done / RISE)
    return ONE_CYCLE_END + (1.0 - ONE_CYCLE_END) * cosine((done - RISE) / (1.0 - RISE))


def warmed_up(schedule: Schedule, share: float = 0.05) -> Schedule:
    """The ``schedule`` after a linear rise from 0 over the first ``share`` of the training.

    Goyal et al. 2017, arXiv:1706.02677, section 2.2.

    Args:
        schedule: gets what is done of the rest, 0 to 1.
        share: of the training, above 0 and below 1.
    """

    def warmed(done: float) -> float:
        return done / share if done < share else schedule((done - share) / (1.0 - share))

    return warmed


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
}
"""By name, to be sampled."""
