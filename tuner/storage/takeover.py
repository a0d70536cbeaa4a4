"""Configurations of another study, taken over as the first trials of this one.

They are rows that wait, with Optuna's own way to fix what is sampled; a claim takes waiting rows
first. They count to N as any other.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tuner.storage.attributes import FROM_STUDY_ATTR
from tuner.storage.database import Database, locked_study


def take_over(
    database: Database,
    study_id: int,
    source: str,
    configurations: Sequence[tuple[int, Mapping[str, Any]]],
    target: int,
) -> list[int] | None:
    """Let a study begin with configurations of another one.

    Args:
        database: where both are.
        study_id: of the study that gets them.
        source: the other study's name.
        configurations: of it: a trial's number, and parameters; the best first.
        target: N; no more rows are made than it leaves room for.

    Returns:
        The numbers of the trials that were taken over; None if those of that study were before.
    """

    def take(_again: bool) -> list[int] | None:  # noqa: FBT001 - the callback's signature
        with locked_study(database, study_id) as session:
            if source in _sources(session, study_id):
                return None
            chosen = list(configurations)[: max(0, target - _count(session, study_id))]
            for number, params in chosen:
                template = optuna.trial.create_trial(
                    state=TrialState.WAITING,
                    system_attrs={"fixed_params": dict(params)},
                    user_attrs={FROM_STUDY_ATTR: [source, number]},
                )
                database.backend._get_prepared_new_trial(study_id, template, session)
                session.flush()
            return [number for number, _ in chosen]

    return database.patience.run(take)


def _sources(session: Session, study_id: int) -> set[str]:
    """The studies of which this one has configurations."""
    attr, trial = models.TrialUserAttributeModel, models.TrialModel
    found = session.scalars(
        select(attr.value_json)
        .join(trial, trial.trial_id == attr.trial_id)
        .where(trial.study_id == study_id, attr.key == FROM_STUDY_ATTR)
    )
    return {json.loads(text)[0] for text in found}


def _count(session: Session, study_id: int) -> int:
    """Rows that count to N."""
    trial = models.TrialModel
    return int(
        session.scalar(
            select(func.count())
            .select_from(trial)
            .where(trial.study_id == study_id, trial.state != TrialState.FAIL)
        )
        or 0
    )
