"""What we keep as Optuna's attributes of studies and trials: names, reading, writing."""

import json
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import select
from sqlalchemy.orm import Session

# Of a study.
DEFINITION_ATTR = "tuner:definition"
STUDY_SEED_ATTR = "tuner:seed"
SEARCH_ATTR = "tuner:search"
REQUEST_ATTR = "tuner:request"
ID_ATTR = "tuner:id"  # names the study in the artifact store
ENVIRONMENT_ATTR = "environment:"  # + the environment's hash

# Of a trial.
SEED_ATTR = "seed"
REASON_ATTR = "reason"
OUTCOME_ATTR = "outcome"


def read_study_attr(session: Session, study_id: int, key: str) -> Any:
    """A study's user attribute, or None."""
    stored = session.scalar(
        select(models.StudyUserAttributeModel.value_json).where(
            models.StudyUserAttributeModel.study_id == study_id,
            models.StudyUserAttributeModel.key == key,
        )
    )
    return None if stored is None else json.loads(stored)


def write_study_attr(session: Session, study_id: int, key: str, value: Any) -> None:
    """Set a study's user attribute; the caller holds the study."""
    row = session.scalars(
        select(models.StudyUserAttributeModel).where(
            models.StudyUserAttributeModel.study_id == study_id,
            models.StudyUserAttributeModel.key == key,
        )
    ).first()
    if row is None:
        row = models.StudyUserAttributeModel(study_id=study_id, key=key)
        session.add(row)
    row.value_json = json.dumps(value)
