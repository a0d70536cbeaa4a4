"""The trials that run now: who runs them, since when, and what they reported last."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import ColumnElement, and_, func, null, select, true
from sqlalchemy.orm import Session

from tuner.storage.claims import HANDED_BACK
from tuner.storage.tables import claims

# The host of a RUNNING trial that nobody of ours holds.
ANOTHER_PROGRAM = "another program"


@dataclass(frozen=True)
class RunningTrial:
    """A RUNNING trial and who runs it.

    Attributes:
        number: the trial's.
        host: the host's name, or `ANOTHER_PROGRAM`.
        pid: None if another program runs the trial.
        started: when the present attempt began, in UTC, or None if that is not known.
        seconds: since then.
        silent_seconds: since the worker's supervisor was last heard of, or None if another program
            runs the trial.
        step: the last one that was reported, or None.
        value: at that step; may be NaN or infinite.
    """

    number: int
    host: str
    pid: int | None
    started: datetime | None
    seconds: float | None
    silent_seconds: float | None
    step: int | None
    value: float | None


def read_running(
    session: Session, study_id: int | None, now: datetime, *, has_claims: bool
) -> dict[int, list[RunningTrial]]:
    """The RUNNING trials of each study that has some, in order of their numbers.

    Args:
        session: where to read.
        study_id: of one study, or None for all.
        now: by the database's clock, see `tuner.storage.tables.utc_now`.
        has_claims: see `tuner.storage.database.Database`.
    """
    trial = models.TrialModel
    holder = (claims.c.host, claims.c.pid, claims.c.beat)
    query = select(
        trial.study_id,
        trial.trial_id,
        trial.number,
        trial._datetime_start_utc.label("started"),
        *(column if has_claims else null().label(column.name) for column in holder),
    )
    if has_claims:
        ours = and_(
            claims.c.trial_id == trial.trial_id,
            claims.c.study_id == trial.study_id,
            claims.c.owner != HANDED_BACK,
        )
        query = query.outerjoin(claims, ours)
    rows = session.execute(
        query.where(trial.state == TrialState.RUNNING, within(trial.study_id, study_id)).order_by(
            trial.study_id, trial.number
        )
    ).all()
    last = _last_values(session, study_id) if rows else {}
    found: dict[int, list[RunningTrial]] = {}
    for row in rows:
        step, value = last.get(row.trial_id, (None, None))
        one = RunningTrial(
            number=row.number,
            host=row.host or ANOTHER_PROGRAM,
            pid=row.pid,
            started=row.started.replace(tzinfo=UTC) if row.started else None,
            seconds=seconds_since(row.started, now) if row.started else None,
            silent_seconds=seconds_since(row.beat, now) if row.beat else None,
            step=step,
            value=value,
        )
        found.setdefault(row.study_id, []).append(one)
    return found


def within(column: Any, only: int | None) -> ColumnElement[bool]:
    """Rows of one study, or of all."""
    return true() if only is None else column == only


def seconds_since(moment: datetime, now: datetime) -> float:
    """An age, never negative: the clock of the host that wrote ``moment`` may be ahead."""
    return max((now - moment).total_seconds(), 0.0)


def _last_values(session: Session, only: int | None) -> Mapping[int, tuple[int, float]]:
    """Of the RUNNING trials, by id: the greatest step that was reported, and its value."""
    trial, value = models.TrialModel, models.TrialIntermediateValueModel
    last = (
        select(value.trial_id, func.max(value.step).label("step"))
        .join(trial, trial.trial_id == value.trial_id)
        .where(trial.state == TrialState.RUNNING, within(trial.study_id, only))
        .group_by(value.trial_id)
        .subquery()
    )
    rows = session.execute(
        select(
            value.trial_id,
            value.step,
            value.intermediate_value,
            value.intermediate_value_type,
        ).join(last, (last.c.trial_id == value.trial_id) & (last.c.step == value.step))
    )
    return {
        trial_id: (step, value.stored_repr_to_intermediate_value(stored, kind))
        for trial_id, step, stored, kind in rows
    }
