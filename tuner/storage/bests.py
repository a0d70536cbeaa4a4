"""Which trial is the best: of those that ran to their end and keep to every constraint."""

import json
from dataclasses import dataclass

from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import TrialState
from sqlalchemy import BindParameter, Select, and_, bindparam, case, func, or_, select
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


def infeasible_trials(session: Session) -> Select[tuple[int]]:
    """Ids of the trials that break a constraint: one of its values is above 0.

    What `optuna.Trial.set_constraint` told is judged by its text, for databases differ in turning
    one into a number: it is above 0 where there is no sign and it is not 0. What a sampler's
    ``constraints_func`` gave is a list, which no database can look into.
    """
    attr = models.TrialSystemAttributeModel
    lists = session.execute(
        select(attr.trial_id, attr.value_json).where(attr.key == _CONSTRAINTS_KEY)
    )
    listed = [trial_id for trial_id, text in lists if any(it > 0 for it in json.loads(text))]
    told = and_(
        attr.key.startswith(CONSTRAINT_PREFIX, autoescape=True),
        attr.value_json.not_like("-%"),
        attr.value_json.not_in(["0.0", "0"]),
    )
    # Written out: a statement takes 32,766 variables in SQLite.
    ids: BindParameter[list[int]] = bindparam(
        "listed", listed, expanding=True, literal_execute=True
    )
    return select(attr.trial_id).where(or_(told, attr.trial_id.in_(ids)))


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
            trial.trial_id.not_in(infeasible_trials(session)),
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
