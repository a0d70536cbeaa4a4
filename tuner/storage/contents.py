"""All that a database holds of one study, in a handful of queries, however many trials."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from tuner.storage.attributes import CONFIRMS_ATTR
from tuner.storage.bests import infeasible_trials
from tuner.storage.database import Database, hold_the_moment, session_of


@dataclass(frozen=True)
class StudyContents:
    """A study at one moment, as rows; a trial is named by its number.

    Attributes:
        directions: ``minimize`` or ``maximize`` of each objective.
        user_attrs: the study's.
        trials: number, state ("COMPLETE"), start and end in UTC without a zone, or None.
        values: number, objective, value.
        steps: number, step, value; in order of number and step.
        params: number, name, value as Optuna keeps it, distribution as JSON.
        attrs: number, key, value as JSON: the trials' user attributes.
        infeasible: numbers of the trials that break a constraint.
    """

    name: str
    directions: list[str]
    user_attrs: dict[str, Any]
    trials: Sequence[tuple[int, str, datetime | None, datetime | None]]
    values: Sequence[tuple[int, int, float]]
    steps: Sequence[tuple[int, int, float]]
    params: Sequence[tuple[int, str, float, str]]
    attrs: Sequence[tuple[int, str, str]]
    infeasible: frozenset[int] = frozenset()


def read_contents(database: Database, study_id: int) -> StudyContents:
    """Read a study whole, of whatever program, as it is at one moment."""

    def read(_again: bool) -> StudyContents:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            hold_the_moment(session)
            return _contents(session, study_id)

    return database.patience.run(read)


def find_confirmations(database: Database, name: str) -> list[int]:
    """Ids of the studies that re-ran configurations of this one, the latest first."""
    attr = models.StudyUserAttributeModel

    def read(_again: bool) -> list[int]:  # noqa: FBT001
        with session_of(database) as session:
            rows = session.execute(
                select(attr.study_id, attr.value_json)
                .where(attr.key == CONFIRMS_ATTR)
                .order_by(attr.study_id.desc())
            )
            # Compared here: MySQL would take mnist for MNIST.
            return [study_id for study_id, value in rows if json.loads(value) == name]

    return database.patience.run(read)


def _contents(session: Session, study_id: int) -> StudyContents:
    study, direction, attr, trial = (
        models.StudyModel,
        models.StudyDirectionModel,
        models.StudyUserAttributeModel,
        models.TrialModel,
    )
    directions = session.scalars(
        select(direction.direction)
        .where(direction.study_id == study_id)
        .order_by(direction.objective)
    )
    user_attrs = session.execute(select(attr.key, attr.value_json).where(attr.study_id == study_id))
    trials = session.execute(
        select(
            trial.number,
            cast(trial.state, String(16)),
            trial._datetime_start_utc,
            trial._datetime_complete_utc,
        )
        .where(trial.study_id == study_id)
        .order_by(trial.number)
    )
    return StudyContents(
        name=session.scalars(select(study.study_name).where(study.study_id == study_id)).one(),
        directions=[it.name.lower() for it in directions],
        user_attrs={key: json.loads(value) for key, value in user_attrs},
        trials=trials.all(),
        values=_values(session, study_id),
        steps=_steps(session, study_id),
        params=_params(session, study_id),
        attrs=_trial_attrs(session, study_id),
        infeasible=frozenset(
            session.scalars(
                select(trial.number).where(
                    trial.study_id == study_id, trial.trial_id.in_(infeasible_trials(session))
                )
            )
        ),
    )


def _values(session: Session, study_id: int) -> list[tuple[int, int, float]]:
    trial, value = models.TrialModel, models.TrialValueModel
    rows = session.execute(
        select(trial.number, value.objective, value.value, cast(value.value_type, String(8)))
        .join(trial, trial.trial_id == value.trial_id)
        .where(trial.study_id == study_id)
        .order_by(trial.number, value.objective)
    )
    kinds = value.TrialValueType
    return _numbers(rows.all(), lambda kind: value.stored_repr_to_value(None, kinds[kind]))


def _steps(session: Session, study_id: int) -> list[tuple[int, int, float]]:
    trial, value = models.TrialModel, models.TrialIntermediateValueModel
    rows = session.execute(
        select(
            trial.number,
            value.step,
            value.intermediate_value,
            cast(value.intermediate_value_type, String(8)),
        )
        .join(trial, trial.trial_id == value.trial_id)
        .where(trial.study_id == study_id)
        .order_by(trial.number, value.step)
    )
    kinds = value.TrialIntermediateValueType
    return _numbers(
        rows.all(), lambda kind: value.stored_repr_to_intermediate_value(None, kinds[kind])
    )


def _numbers(
    rows: Sequence[tuple[int, int, Any, str]], special: Callable[[str], float]
) -> list[tuple[int, int, float]]:
    """Infinities and NaN have no value in their row, only their kind."""
    return [
        (number, which, float(stored) if kind == "FINITE" else special(kind))
        for number, which, stored, kind in rows
    ]


def _params(session: Session, study_id: int) -> Sequence[tuple[int, str, float, str]]:
    trial, param = models.TrialModel, models.TrialParamModel
    return session.execute(
        select(trial.number, param.param_name, param.param_value, param.distribution_json)
        .join(trial, trial.trial_id == param.trial_id)
        .where(trial.study_id == study_id)
        .order_by(trial.number, param.param_id)
    ).all()


def _trial_attrs(session: Session, study_id: int) -> Sequence[tuple[int, str, str]]:
    trial, attr = models.TrialModel, models.TrialUserAttributeModel
    return session.execute(
        select(trial.number, attr.key, attr.value_json)
        .join(trial, trial.trial_id == attr.trial_id)
        .where(trial.study_id == study_id)
        .order_by(trial.number, attr.key)
    ).all()
