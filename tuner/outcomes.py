"""How a trial can end beyond Optuna's states: the words in its user attribute ``outcome``."""

from typing import Any

import optuna

COMPLETED = "completed"
PRUNED = "pruned"
DIVERGED = "diverged"
FAILED = "failed"
INFEASIBLE = "infeasible"
"""It breaks a constraint (`optuna.Trial.set_constraint`); COMPLETE, or PRUNED for that."""


def breaks_constraint(trial: Any) -> bool:
    """Whether a trial of Optuna's, of any kind, breaks one of its ``constraints``."""
    return any(value > 0 for value in trial.constraints.values())


class Diverged(optuna.TrialPruned):
    """Training blew up: the loss is not finite, or the error is that of guessing.

    An outcome of the configuration, not a failure of the program: the trial ends PRUNED with
    ``outcome=diverged``, and counts to the target. Raise it after reporting the worst value.
    """
