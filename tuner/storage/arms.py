"""Which arm and block a trial is in, see `tuner.design`: dealt in the transaction of its claim."""

import itertools
import json
from collections.abc import Container
from typing import Any, NamedTuple, cast

from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from tuner.design import Design, Purpose
from tuner.storage.attributes import ARM_ATTR, BLOCK_ATTR, PRUNED_AT

# A run of a confirmation that failed so often on one seed is lost, and gets another seed.
TRIES_A_BLOCK = 2


class Place(NamedTuple):
    """A trial's arm and block; both None where the study has no arms, and of foreign trials."""

    arm: int | None = None
    block: int | None = None


def next_place(session: Session, study_id: int, design: Design) -> Place:
    """The place of the next new trial; the caller holds the study."""
    trial, attr = models.TrialModel, models.TrialSystemAttributeModel
    rows = session.execute(
        select(attr.value_json, trial.state, func.count())
        .join(trial, trial.trial_id == attr.trial_id)
        .where(trial.study_id == study_id, attr.key == ARM_ATTR)
        .group_by(attr.value_json, trial.state)
    )
    alive: dict[int, int] = {}
    all_of: dict[int, int] = {}
    for text, state, count in rows:
        arm = json.loads(text)
        all_of[arm] = all_of.get(arm, 0) + count
        alive[arm] = alive.get(arm, 0) + (0 if state == TrialState.FAIL else count)
    arm = design.next_arm(alive)
    if design.purpose is Purpose.CONFIRM:
        return Place(arm, _open_block(session, study_id, arm))
    return Place(arm, all_of.get(arm, 0))


def _open_block(session: Session, study_id: int, arm: int) -> int:
    """The first block that an arm lacks: a run that failed is tried once more on its own seed."""
    trial, of_arm, block = (
        models.TrialModel,
        aliased(models.TrialSystemAttributeModel),
        aliased(models.TrialSystemAttributeModel),
    )
    rows = session.execute(
        select(block.value_json, trial.state)
        .join(trial, trial.trial_id == block.trial_id)
        .join(of_arm, of_arm.trial_id == block.trial_id)
        .where(
            trial.study_id == study_id,
            block.key == BLOCK_ATTR,
            of_arm.key == ARM_ATTR,
            of_arm.value_json == json.dumps(arm),
        )
    )
    tries: dict[int, int] = {}
    for text, state in rows:
        tried = TRIES_A_BLOCK if state != TrialState.FAIL else 1
        tries[json.loads(text)] = tries.get(json.loads(text), 0) + tried
    return next(it for it in itertools.count() if tries.get(it, 0) < TRIES_A_BLOCK)


def attrs_of(design: Design, place: Place) -> dict[str, Any]:
    """The system attributes of a new trial: its place, and what its arm fixes."""
    attrs = {
        ARM_ATTR: place.arm,
        BLOCK_ATTR: place.block,
        "fixed_params": design.arms[place.arm or 0],  # Optuna's own way to fix what is sampled
    }
    return attrs if design.pruned_at is None else {**attrs, PRUNED_AT: design.pruned_at}


def place_of(session: Session, trial_id: int) -> Place:
    """A trial's arm and block."""
    attr = models.TrialSystemAttributeModel
    found = session.execute(
        select(attr.key, attr.value_json).where(
            attr.trial_id == trial_id, attr.key.in_([ARM_ATTR, BLOCK_ATTR])
        )
    )
    place = {key: json.loads(text) for key, text in found}
    return Place(place.get(ARM_ATTR), place.get(BLOCK_ATTR))


def only_arm(storage: BaseStorage, arm: int) -> BaseStorage:
    """Optuna's storage, but with the trials of one arm only.

    A view of the storage, not of the study: Optuna's Hyperband makes a study of its own.
    """
    return cast("BaseStorage", _ArmView(storage, arm))


class _ArmView:
    def __init__(self, storage: BaseStorage, arm: int) -> None:
        self._storage = storage
        self._arm = arm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,  # noqa: FBT001, FBT002 - Optuna's signature
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """See `optuna.storages.BaseStorage.get_all_trials`."""
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in trials if trial.system_attrs.get(ARM_ATTR) == self._arm]
