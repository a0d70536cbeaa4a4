"""A trial's curve, as it is told to the study: reported, pruned, or given up as diverged."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from tuner.finetune.checkpoints import Progress
from tuner.finetune.images import Images
from tuner.outcomes import Diverged

WORST_ERROR = 1.0
"""Reported for a trial that diverged; no trained model is worse."""


LEAST_BATCHES = 100
"""Before so many batches, and a quarter of its training, a trial may be at chance and yet learn: at
few images, or while a schedule begins low."""


def follow(
    trial: optuna.Trial,
    progress: Progress,
    curve: Iterable[tuple[int, float]],
    report_at: Sequence[int],
    images: Images,
) -> float:
    """Report the curve to the trial; return its last value, or leave early by an exception.

    Args:
        trial: reported to and asked whether to prune.
        progress: told after which steps the trial goes on.
        curve: yields (step, validation error), NaN once the loss is not finite.
        report_at: all steps.
        images: what is validated with decides which error is that of guessing.

    Raises:
        TrialPruned: the study's pruner gave the trial up.
        Diverged: the loss is not finite, or from the second report on, but see `LEAST_BATCHES`,
            the model is no better than guessing.
    """
    guessing = guessing_error(images.validation_labels, images.n_classes)
    error = math.nan
    for step, error in curve:
        judged = step > report_at[0] and (
            progress.run.batch >= LEAST_BATCHES or step >= report_at[-1] / 4
        )
        if math.isnan(error) or (judged and error >= guessing):
            trial.report(WORST_ERROR, step)
            reason = "the loss is not finite" if math.isnan(error) else "no better than guessing"
            raise Diverged(f"Diverged by step {step}: {reason}.")
        trial.report(error, step)
        if step < report_at[-1]:
            if trial.should_prune():
                raise optuna.TrialPruned(f"Pruned at step {step} with an error of {error:.4f}.")
            progress.judge(step)
    return error


def guessing_error(labels: npt.NDArray[Any], n_classes: int) -> float:
    """The error from which on a model may as well be guessing.

    That is the error of always naming the largest class, or of naming classes at random less three
    standard errors, whichever is smaller: a model that has learnt nothing stays at or above it in
    999 of 1,000 validations.

    Args:
        labels: of the validation images, (n_validation,).
        n_classes: how many classes there are.
    """
    share = float(np.bincount(labels).max()) / len(labels)
    chance = 1.0 / n_classes
    luck = 3.0 * math.sqrt(chance * (1.0 - chance) / len(labels))
    return 1.0 - max(share, chance + luck)
