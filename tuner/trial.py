"""The trial that an objective gets: it can go on where another worker stopped."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from tuner import interrupt

# Characters of a user attribute as JSON; MySQL's TEXT column takes 65,535 bytes.
LONGEST_ATTR = 60_000


class ClaimedTrial(optuna.Trial):
    """An `optuna.Trial` on a row that may already hold parameters and values.

    It differs from Optuna's own in three ways:

    * A step that is stored already is not reported again, and is not a reason to prune.
    * User attributes are written when the trial ends, in the transaction that ends it.
    * `report` leaves the objective when the trial must not go on here.

    Args:
        study: whose trial it is.
        trial_id: the row's key.
        may_go_on: asked at each report; False when the study is paused or stopped, or the trial is
            no longer this worker's.
        checkpoint: the file in which an objective may keep the state of a trial that it could go on
            from, or None. It goes when the trial ends.

    Attributes:
        stored_steps: steps that an earlier worker reported.
    """

    def __init__(
        self,
        study: optuna.Study,
        trial_id: int,
        *,
        may_go_on: Callable[[], bool] = lambda: True,
        checkpoint: Path | None = None,
    ) -> None:
        super().__init__(study, trial_id)
        self.stored_steps = frozenset(self._cached_frozen_trial.intermediate_values)
        self.checkpoint = checkpoint
        self.unwritten_attrs: dict[str, Any] = {}
        self._may_go_on = may_go_on
        self._catching_up = False

    def report(self, value: float, step: int) -> None:
        """Report a value at a step, see `optuna.Trial.report`.

        Raises:
            HandBack: somebody asked this worker to stop, or the trial must not go on.
        """
        interrupt.check()
        if not self._may_go_on():
            raise interrupt.HandBack
        self._catching_up = step < max(self.stored_steps, default=step)
        if step not in self.stored_steps:
            super().report(value, step)

    def should_prune(self) -> bool:
        """Whether to stop here, see `optuna.Trial.should_prune`."""
        return False if self._catching_up else super().should_prune()

    def set_user_attr(self, key: str, value: Any) -> None:
        """Keep an attribute, see `optuna.Trial.set_user_attr`; it is written with the end.

        Raises:
            TypeError: the value is not JSON, as in Optuna.
            ValueError: it is longer than a column of every database takes.
        """
        text = json.dumps(value)
        if len(text) > LONGEST_ATTR:
            raise ValueError(
                f"The user attribute {key!r} has {len(text):,} characters as JSON, more than "
                f"{LONGEST_ATTR:,}; store it as a file, and its path as the attribute."
            )
        self.unwritten_attrs[key] = json.loads(text)

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The stored and the unwritten user attributes."""
        return {**super().user_attrs, **copy.deepcopy(self.unwritten_attrs)}
