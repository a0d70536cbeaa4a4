"""Files that trials have left in the artifact store: who names them, and forgetting them."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tuner.storage.attributes import CONFIRMS_ATTR, ID_ATTR, read_study_attr
from tuner.storage.database import Database, locked_study, session_of

# Attributes that one statement removes: SQLite takes at most 32,766 variables.
_AT_ONCE = 1_000


@dataclass(frozen=True)
class KeptTrial:
    """A trial and the files that it names.

    Attributes:
        value: of a complete trial with one objective, else None.
        params: its parameters as text, equal for equal ones.
        files: ids of the artifacts that a worker of ours stored.
    """

    number: int
    complete: bool
    value: float | None
    params: str
    files: list[str]


@dataclass(frozen=True)
class KeptStudy:
    """A study of ours and its trials.

    Attributes:
        uid: names it in the artifact store.
        maximize: whether a greater value is better.
        confirms: whether it is a confirmation.
        unfinished: numbers of the trials that have not ended.
    """

    study_id: int
    name: str
    uid: str
    maximize: bool
    confirms: bool
    trials: list[KeptTrial]
    unfinished: set[int]


def read_kept(database: Database) -> list[KeptStudy]:
    """The studies of ours in a database, by their ids; a handful of queries a study."""

    def read(_again: bool) -> list[KeptStudy]:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            ids = session.execute(
                select(models.StudyModel.study_id, models.StudyModel.study_name).order_by(
                    models.StudyModel.study_id
                )
            ).all()
            found = [_read(session, int(study_id), str(name)) for study_id, name in ids]
        return [it for it in found if it is not None]

    return database.patience.run(read)


def _read(session: Session, study_id: int, name: str) -> KeptStudy | None:
    uid = read_study_attr(session, study_id, ID_ATTR)
    if not isinstance(uid, str):
        return None
    trial, value, attr, param, direction = (
        models.TrialModel,
        models.TrialValueModel,
        models.TrialSystemAttributeModel,
        models.TrialParamModel,
        models.StudyDirectionModel,
    )
    directions = session.scalars(select(direction.direction).where(direction.study_id == study_id))
    maximize = [it.name for it in directions] == ["MAXIMIZE"]
    here = trial.study_id == study_id
    rows = session.execute(
        select(trial.trial_id, trial.number, trial.state).where(here).order_by(trial.number)
    ).all()
    values: dict[int, list[float]] = {}
    for trial_id, stored in session.execute(
        select(value.trial_id, value.value)
        .join(trial, trial.trial_id == value.trial_id)
        .where(here, value.value_type == value.TrialValueType.FINITE)
    ):
        values.setdefault(trial_id, []).append(stored)
    files: dict[int, list[str]] = {}
    for trial_id, key in session.execute(
        select(attr.trial_id, attr.key)
        .join(trial, trial.trial_id == attr.trial_id)
        .where(here, attr.key.startswith(f"{ARTIFACTS_ATTR_PREFIX}{uid}-", autoescape=True))
    ):
        files.setdefault(trial_id, []).append(key.removeprefix(ARTIFACTS_ATTR_PREFIX))
    params: dict[int, list[str]] = {}
    for trial_id, key, stored in session.execute(
        select(param.trial_id, param.param_name, param.param_value)
        .join(trial, trial.trial_id == param.trial_id)
        .where(here)
        .order_by(param.param_name)
    ):
        params.setdefault(trial_id, []).append(f"{key}={stored!r}")
    trials = [
        KeptTrial(
            number=number,
            complete=state == TrialState.COMPLETE,
            value=values[trial_id][0] if len(values.get(trial_id, ())) == 1 else None,
            params=json.dumps(params.get(trial_id, [])),
            files=files.get(trial_id, []),
        )
        for trial_id, number, state in rows
    ]
    unfinished = {number for _, number, state in rows if not state.is_finished()}
    confirms = read_study_attr(session, study_id, CONFIRMS_ATTR) is not None
    return KeptStudy(study_id, name, uid, maximize, confirms, trials, unfinished)


def forget_files(database: Database, study_id: int, artifact_ids: Collection[str]) -> None:
    """Remove the trials' attributes that name these files, before the files go.

    Args:
        database: where.
        study_id: of the study.
        artifact_ids: of the files.
    """
    keys = [ARTIFACTS_ATTR_PREFIX + it for it in artifact_ids]
    attr: Any = models.TrialSystemAttributeModel

    def write(_again: bool) -> None:  # noqa: FBT001
        for start in range(0, len(keys), _AT_ONCE):
            with locked_study(database, study_id) as session:
                here = select(models.TrialModel.trial_id).where(
                    models.TrialModel.study_id == study_id
                )
                session.execute(
                    delete(attr)
                    .where(attr.key.in_(keys[start : start + _AT_ONCE]), attr.trial_id.in_(here))
                    .execution_options(synchronize_session=False)
                )

    database.patience.run(write)
