"""Files that trials have left in the artifact store: who names them, and forgetting them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tuner.artifacts import ARTIFACTS_ATTR_PREFIX
from tuner.storage.attributes import CONFIRMS_ATTR, ID_ATTR, read_study_attr
from tuner.storage.bests import infeasible_trials
from tuner.storage.database import Database, hold_the_moment, locked_study, session_of

# Trials that forget their files in one transaction, which holds the study: in a statement, SQLite
# takes 32,766 variables.
_AT_ONCE = 1_000


@dataclass(frozen=True)
class KeptTrial:
    """A trial and the files that it names.

    Attributes:
        state: in which it is.
        values: of a complete trial, one for each objective; else None.
        feasible: whether it keeps to every constraint.
        params: of a confirmation's trial: its parameters as text, equal for equal ones; else "".
        files: ids of the artifacts that a worker of ours stored.
    """

    trial_id: int
    number: int
    state: TrialState
    values: list[float] | None
    feasible: bool
    params: str
    files: list[str]


@dataclass(frozen=True)
class KeptStudy:
    """A study of ours, and its trials.

    Attributes:
        uid: names it in the artifact store; a copy of a study has the same.
        directions: ``minimize`` or ``maximize`` of each objective.
        confirms: whether it is a confirmation.
    """

    study_id: int
    name: str
    uid: str
    directions: list[str]
    confirms: bool
    trials: list[KeptTrial]


def read_kept(database: Database) -> list[KeptStudy]:
    """The studies of ours in a database at one moment, by their ids; a handful of queries each."""
    study, attr = models.StudyModel, models.StudyUserAttributeModel

    def read(_again: bool) -> list[KeptStudy]:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            hold_the_moment(session)
            names = session.execute(
                select(study.study_id, study.study_name)
                .join(attr, attr.study_id == study.study_id)
                .where(attr.key == ID_ATTR)
                .order_by(study.study_id)
            ).all()
            found = [_read(session, int(study_id), str(name)) for study_id, name in names]
        return [it for it in found if it is not None]

    return database.patience.run(read)


def _read(session: Session, study_id: int, name: str) -> KeptStudy | None:
    uid = read_study_attr(session, study_id, ID_ATTR)
    direction, trial = models.StudyDirectionModel, models.TrialModel
    directions = session.scalars(
        select(direction.direction)
        .where(direction.study_id == study_id)
        .order_by(direction.objective)
    ).all()
    if not isinstance(uid, str):
        return None
    confirms = read_study_attr(session, study_id, CONFIRMS_ATTR) is not None
    rows = session.execute(
        select(trial.trial_id, trial.number, trial.state)
        .where(trial.study_id == study_id)
        .order_by(trial.number)
    ).all()
    values, files = _values(session, study_id), _files(session, study_id, uid)
    params = _params(session, study_id) if confirms else {}
    infeasible = set(
        session.scalars(
            select(trial.trial_id).where(
                trial.study_id == study_id, trial.trial_id.in_(infeasible_trials(session))
            )
        )
    )
    trials = [
        KeptTrial(
            trial_id=trial_id,
            number=number,
            state=state,
            values=values.get(trial_id) if state == TrialState.COMPLETE else None,
            feasible=trial_id not in infeasible,
            params=repr(params.get(trial_id, "")),
            files=files.get(trial_id, []),
        )
        for trial_id, number, state in rows
    ]
    return KeptStudy(
        study_id,
        name,
        uid,
        [it.name.lower() for it in directions],
        confirms,
        trials,
    )


def _values(session: Session, study_id: int) -> dict[int, list[float]]:
    """Of each trial that has some; an infinity has no number in its row, only its kind."""
    trial, value = models.TrialModel, models.TrialValueModel
    rows = session.execute(
        select(value.trial_id, value.value, value.value_type)
        .join(trial, trial.trial_id == value.trial_id)
        .where(trial.study_id == study_id)
        .order_by(value.trial_id, value.objective)
    )
    values: dict[int, list[float]] = {}
    for trial_id, stored, kind in rows:
        values.setdefault(trial_id, []).append(value.stored_repr_to_value(stored, kind))
    return values


def _files(session: Session, study_id: int, uid: str) -> dict[int, list[str]]:
    trial, attr = models.TrialModel, models.TrialSystemAttributeModel
    rows = session.execute(
        select(attr.trial_id, attr.key)
        .join(trial, trial.trial_id == attr.trial_id)
        .where(
            trial.study_id == study_id,
            attr.key.startswith(f"{ARTIFACTS_ATTR_PREFIX}{uid}-", autoescape=True),
        )
    )
    files: dict[int, list[str]] = {}
    for trial_id, key in rows:
        files.setdefault(trial_id, []).append(key.removeprefix(ARTIFACTS_ATTR_PREFIX))
    return files


def _params(session: Session, study_id: int) -> dict[int, list[tuple[str, float]]]:
    trial, param = models.TrialModel, models.TrialParamModel
    rows = session.execute(
        select(param.trial_id, param.param_name, param.param_value)
        .join(trial, trial.trial_id == param.trial_id)
        .where(trial.study_id == study_id)
        .order_by(param.param_name)
    )
    params: dict[int, list[tuple[str, float]]] = {}
    for trial_id, name, stored in rows:
        params.setdefault(trial_id, []).append((name, stored))
    return params


def forget_files(
    database: Database, study_id: int, artifact_ids: Mapping[int, Collection[str]]
) -> None:
    """Remove the attributes of trials, and of the study, that name these files, before they go.

    Processes that run keep a finished trial's attributes in Optuna's cache, and never ask again:
    that is harmless, for nothing of theirs opens files of other trials.

    Args:
        database: where.
        study_id: of the study.
        artifact_ids: of the files, by the id of the trial that names them.

    Raises:
        StudyGone: somebody deleted the study.
    """
    attr: Any = models.TrialSystemAttributeModel
    of_study: Any = models.StudySystemAttributeModel
    trials = list(artifact_ids)

    def write(_again: bool) -> None:  # noqa: FBT001
        for start in range(0, len(trials), _AT_ONCE):
            some = trials[start : start + _AT_ONCE]
            keys = {
                ARTIFACTS_ATTR_PREFIX + it for trial_id in some for it in artifact_ids[trial_id]
            }
            with locked_study(database, study_id) as session:
                # By the rows' ids: for a list of trials and one of keys, SQLite tries every pair.
                rows = session.execute(
                    select(attr.trial_system_attribute_id, attr.key).where(attr.trial_id.in_(some))
                )
                going = [row_id for row_id, key in rows if key in keys]
                _remove(session, attr, attr.trial_system_attribute_id, going)
                rows = session.execute(
                    select(of_study.study_system_attribute_id, of_study.key).where(
                        of_study.study_id == study_id,
                        of_study.key.startswith(ARTIFACTS_ATTR_PREFIX, autoescape=True),
                    )
                )
                going = [row_id for row_id, key in rows if key in keys]
                _remove(session, of_study, of_study.study_system_attribute_id, going)

    database.patience.run(write)


def _remove(session: Session, table: Any, key: Any, row_ids: list[int]) -> None:
    if row_ids:
        session.execute(
            delete(table).where(key.in_(row_ids)).execution_options(synchronize_session=False)
        )
