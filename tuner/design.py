"""Studies with arms: equal shares of the budget, so that the arms can be compared.

An arm fixes some parameters: a level of one (``run --compare``), or a whole configuration
(``confirm``). A claim takes the arm with the fewest trials that are not FAIL, the first of equals.
An arm's n-th trial, failed ones counted, is in block n; a confirmation tries a run that failed once
more in its own block. The trials of a block have the same seed, so they train in the same order of
images and, where the sampler looks at no results, with the same draws of all that is not fixed:
what differs between them is the arm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Purpose(StrEnum):
    """What a worker does with a trial."""

    SEARCH = "search"
    CONFIRM = "confirm"  # the objective, then the study file's test()
    FINAL = "final"  # the study file's final() instead of the objective


@dataclass(frozen=True)
class Design:
    """How the trials of a study are dealt to arms.

    Attributes:
        arms: the parameters that each fixes.
        paired: whether all else that is sampled is drawn by the block, not by the trial's number.
        purpose: what is done with each trial.
        seeds: of the blocks; None: from the study's seed.
        pruned_at: the step at which every trial ends as pruned, or None.
    """

    arms: list[dict[str, Any]]
    paired: bool
    purpose: Purpose = Purpose.SEARCH
    seeds: list[int] | None = None
    pruned_at: int | None = None

    def next_arm(self, alive: Mapping[int, int]) -> int:
        """The arm that the next trial goes to.

        Args:
            alive: for each arm, how many of its trials are not FAIL.
        """
        return min(range(len(self.arms)), key=lambda arm: alive.get(arm, 0))

    @staticmethod
    def from_dict(stored: dict[str, Any]) -> "Design":
        """The inverse of `dataclasses.asdict`."""
        return Design(**{**stored, "purpose": Purpose(stored["purpose"])})


def confirmation(configurations: list[dict[str, Any]]) -> Design:
    """The design of ``confirm``: each configuration on the same fresh seeds."""
    return Design(configurations, paired=True, purpose=Purpose.CONFIRM)


def one_more(
    params: dict[str, Any],
    seed: int,
    *,
    purpose: Purpose = Purpose.SEARCH,
    pruned_at: int | None = None,
) -> Design:
    """The design of one trial that is run again.

    Args:
        params: its parameters.
        seed: of its training.
        purpose: what is done with it.
        pruned_at: the step at which it was pruned, or None.
    """
    return Design([params], paired=True, purpose=purpose, seeds=[seed], pruned_at=pruned_at)
