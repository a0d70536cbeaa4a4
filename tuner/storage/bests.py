"""Which trial is the best: of those that ran to their end and keep to every constraint."""

from dataclasses import dataclass

from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import TrialState
from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from tuner.storage.running import within

# How the names of constraints begin among a trial's system attributes.
CONSTRAINT_PREFIX = f"{_CONSTRAINTS_KEY}:"


@dataclass(frozen=True)
class BestTrial:
    """The COMPLETE trial with the best value of those that keep to every constraint.

    The first of them if there are several.
    """

    number: int
    value: float


def infeasible_trials() -> Select[tuple[int]]:
    """Ids of the trials that break a constraint, which `optuna.Trial.set_constraint` told.

    By its text, for databases differ in turning one into a number: it is above 0 where there is no
    sign and it is not 0. Constraints as Optuna kept them before version 5 are not looked at.
    """
    attr = models.TrialSystemAttributeModel
    return select(attr.trial_id).where(
        attr.key.startswith(CONSTRAINT_PREFIX, autoescape=True),
        attr.value_json.not_like("-%"),
        attr.value_json.not_in(["0.0", "0"]),
    )


def read_bests(session: Session, only: int | None) -> dict[int, BestTrial]:
    """The best trial of each study that has one objective, or of one study, by the study's id."""
    trial, value, direction = (
        models.TrialModel,
        models.TrialValueModel,
        models.StudyDirectionModel,
    )
    kind = value.TrialValueType
    # Infinities have no value in their row, only their type.
    size = case(
        (value.value_type == kind.INF_NEG, -1), (value.value_type == kind.INF_POS, 1), else_=0
    )
    sign = case((direction.direction == StudyDirection.MAXIMIZE, -1), else_=1)
    several = select(direction.study_id).where(direction.objective > 0)
    ranked = (
        select(
            trial.study_id,
            trial.number,
            value.value,
            value.value_type,
            func.row_number()
            .over(
                partition_by=trial.study_id,
                order_by=[sign * size, sign * value.value, trial.number],
            )
            .label("place"),
        )
        .join(value, value.trial_id == trial.trial_id)
        .join(direction, direction.study_id == trial.study_id)
        .where(
            trial.state == TrialState.COMPLETE,
            trial.study_id.not_in(several),
            trial.trial_id.not_in(infeasible_trials()),
            within(trial.study_id, only),
        )
        .subquery()
    )
    best = select(ranked.c.study_id, ranked.c.number, ranked.c.value, ranked.c.value_type)
    return {
        study_id: BestTrial(number, value.stored_repr_to_value(stored, stored_kind))
        for study_id, number, stored, stored_kind in session.execute(
            best.where(ranked.c.place == 1)
        )
    }
