"""How a trial can end beyond Optuna's states: the words in its user attribute ``outcome``."""

import optuna

COMPLETED = "completed"
PRUNED = "pruned"
DIVERGED = "diverged"
FAILED = "failed"
INFEASIBLE = "infeasible"
"""It breaks a constraint (`optuna.Trial.set_constraint`); COMPLETE, or PRUNED for that."""


class Diverged(optuna.TrialPruned):
    """Training blew up: the loss is not finite, or the error is that of guessing.

    An outcome of the configuration, not a failure of the program: the trial ends PRUNED with
    ``outcome=diverged``, and counts to the target. Raise it after reporting the worst value.
    """
