"""The trial that an objective gets: it can go on where another worker stopped."""

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study._constrained_optimization import _get_constraints_from_system_attrs
from optuna.trial import FixedTrial

from tuner import interrupt, wording
from tuner.storage import HeldRow
from tuner.storage.attributes import PRUNED_AT
from tuner.stores import Checkpoint

# Characters of a user attribute as JSON; MySQL's TEXT column takes 65,535 bytes.
LONGEST_ATTR = 60_000
# Characters of a constraint's name: Optuna puts some before it, and its column takes 512.
LONGEST_KEY = 400


class _ThroughRow:
    """Optuna's storage, but for what is written into one trial."""

    def __init__(self, storage: BaseStorage, row: HeldRow) -> None:
        self._storage = storage
        self._row = row
        self._together: dict[str, tuple[float, BaseDistribution]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_intermediate_value(self, _trial_id: int, step: int, value: float) -> None:
        if not self._row.store_value(step, value):
            raise interrupt.HandBack

    def set_trial_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> None:
        if self._together is None:
            self._storage.set_trial_param(trial_id, name, internal, distribution)
        else:
            self._together[name] = (internal, distribution)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Store the parameters that are sampled within the block at its end."""
        sampled: dict[str, tuple[float, BaseDistribution]] = {}
        self._together = sampled
        try:
            yield
        finally:
            self._together = None
        if sampled and not self._row.store_params(sampled):
            raise interrupt.HandBack


class ClaimedTrial(optuna.Trial):
    """An `optuna.Trial` on a row that may already hold parameters and values.

    It differs from Optuna's own in four ways:

    * A step that is stored already is not reported again, and is not a reason to prune.
    * User attributes are written when the trial ends, in the transaction that ends it.
    * `report` leaves the objective when the trial must not go on here.
    * With several objectives, where Optuna refuses it, `report` stores nothing, and nothing is
      pruned: an objective that trains need not know how many there are.

    Args:
        study: whose trial it is.
        trial_id: the row's key.
        row: what is reported and sampled goes through it; None: straight into the study's storage.
        checkpoint: where an objective may keep the state of a trial that it could go on from, or
            None. What it holds goes when the trial ends.
        outputs: the folder in which an objective may leave files that are to be kept if the trial
            completes, such as its model, or None.

    Attributes:
        stored_steps: steps that an earlier worker reported.
        stores_steps: whether reports are stored: not with several objectives.
    """

    def __init__(
        self,
        study: optuna.Study,
        trial_id: int,
        *,
        row: HeldRow | None = None,
        checkpoint: Checkpoint | None = None,
        outputs: Path | None = None,
    ) -> None:
        super().__init__(study, trial_id)
        self.stored_steps = frozenset(self._cached_frozen_trial.intermediate_values)
        self.stores_steps = len(study.directions) == 1
        self.checkpoint = checkpoint
        self.outputs = outputs
        self.unwritten_attrs: dict[str, Any] = {}
        self.unwritten_constraints: dict[str, float] = {}
        self._row = row
        if row is not None:
            self.storage = cast("BaseStorage", _ThroughRow(self.storage, row))
        self._catching_up = False

    def report(self, value: float, step: int) -> None:
        """Report a value at a step, see `optuna.Trial.report`.

        Raises:
            HandBack: somebody asked this worker to stop, or the trial must not go on.
        """
        interrupt.check()
        self._catching_up = step < max(self.stored_steps, default=step)
        if step not in self.stored_steps and self.stores_steps:
            super().report(value, step)
        elif self._row is not None and not self._row.may_go_on():
            raise interrupt.HandBack

    def sample(self, space: Mapping[str, BaseDistribution]) -> None:
        """Sample what is not sampled yet of a declared space; it is stored at once.

        Raises:
            HandBack: the trial must not go on here.
        """
        through: object = self.storage
        if isinstance(through, _ThroughRow):
            with through.together():
                self._suggest_all(space)
        else:
            self._suggest_all(space)

    def _suggest_all(self, space: Mapping[str, BaseDistribution]) -> None:
        for name, distribution in space.items():
            self._suggest(name, distribution)

    def should_prune(self) -> bool:
        """Whether to stop here, see `optuna.Trial.should_prune`."""
        if self._catching_up or not self.stores_steps:
            return False
        frozen = self._cached_frozen_trial
        if frozen.last_step is not None and frozen.system_attrs.get(PRUNED_AT) == frozen.last_step:
            return True  # decided before the worker died
        prune = super().should_prune()
        if prune:
            self.storage.set_trial_system_attr(self._trial_id, PRUNED_AT, frozen.last_step)
        return prune

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

    def set_constraint(self, key: str, value: float) -> None:
        """Say by how much a limit is passed, see `optuna.Trial.set_constraint`.

        It is written with the trial's end. The first value of a name stays, as in Optuna.

        Args:
            key: the constraint's name; people are shown it.
            value: 0 or less where the trial keeps to it.

        Raises:
            TypeError: the value is no number.
            ValueError: it is NaN, or the name is longer than a column of every database takes.
        """
        if len(key) > LONGEST_KEY:
            raise ValueError(
                f"The constraint's name {wording.cut(key)!r} has {len(key)} characters, more than "
                f"{LONGEST_KEY}; shorten it."
            )
        fixed = FixedTrial({})  # checks it, as Optuna does
        fixed.set_constraint(key, value)
        there = self._cached_frozen_trial.system_attrs
        for name, number in fixed.system_attrs.items():
            if name not in there:
                self.unwritten_constraints.setdefault(name, number)

    @property
    def constraints(self) -> dict[str, float]:
        """Those that were set, see `optuna.Trial.constraints`."""
        there = self._cached_frozen_trial.system_attrs
        return _get_constraints_from_system_attrs({**there, **self.unwritten_constraints})

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The stored and the unwritten user attributes."""
        return {**super().user_attrs, **copy.deepcopy(self.unwritten_attrs)}
