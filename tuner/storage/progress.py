"""Reading a study's progress while it runs, for the display: few rows, however many trials."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import optuna
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, select

from tuner.outcomes import INFEASIBLE, breaks_constraint
from tuner.storage.attributes import OUTCOME_ATTR, REASON_ATTR
from tuner.storage.bests import infeasible_trials, read_bests
from tuner.storage.database import Database, session_of, storage_errors
from tuner.storage.requests import Request, read_request
from tuner.storage.retry import Patience, patient
from tuner.storage.running import RunningTrial, read_running
from tuner.storage.tables import utc_now


@dataclass(frozen=True)
class FinishedTrial:
    """What the display says of a trial that ended.

    Attributes:
        values: one for each objective; empty for a trial without.
        last_step: the greatest step that was reported, or None.
        seconds: from its (last) claim to its end.
        outcome: see `tuner.outcomes`; "" for trials that another program ran.
        reason: why it failed, or "".
    """

    number: int
    state: TrialState
    values: list[float]
    last_step: int | None
    seconds: float | None
    params: dict[str, object]
    outcome: str
    reason: str

    @property
    def value(self) -> float | None:
        """Of a study with one objective; None for a trial without."""
        return self.values[0] if len(self.values) == 1 else None


@dataclass(frozen=True)
class StudyProgress:
    """A study at one moment.

    Attributes:
        counts: trials by state.
        new: the trials that ended since the last reading, in order of their number.
        running: the trials that run, in order of their numbers.
        request: whether the study is to be worked on, or None if nobody ever asked for it.
    """

    counts: dict[TrialState, int]
    new: list[FinishedTrial]
    running: list[RunningTrial]
    request: Request | None


class ProgressReader:
    """Follows one study; each `read` costs the rows that changed, not the whole study.

    Trials below the lowest unfinished one cannot change any more, so a reading starts there.
    """

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self._study_id = study_id
        self._seen: set[int] = set()  # ids of finished trials at or above the watermark
        self._watermark = -1  # every trial with an id at or below it is finished and counted
        self._settled: Counter[TrialState] = Counter()  # states of the trials at or below it

    @property
    def patience(self) -> Patience:
        """How this process bears with its database."""
        return self._database.patience

    def read(self, *, describe: bool = True) -> StudyProgress:
        """Read what changed since the last call.

        Args:
            describe: load the trials that ended, one by one; else ``new`` stays empty.
        """
        with storage_errors(self._database.url):
            rows, new = self._changes()
            counts = self._settled + Counter(
                state for trial_id, _, state in rows if trial_id > self._watermark
            )
            running = self._running() if counts[TrialState.RUNNING] else []
            finished = self._describe(new) if describe else []
            return StudyProgress(dict(counts), finished, running, self._request())

    def _changes(self) -> tuple[list[tuple[int, int, TrialState]], list[int]]:
        """Rows (id, number, state) above the old watermark, and the ids that ended since."""
        rows = self._rows()
        new = [i for i, _, state in rows if state.is_finished() and i not in self._seen]
        self._seen.update(new)
        for trial_id, _, state in rows:
            if not state.is_finished():
                break
            self._watermark = trial_id
            self._settled[state] += 1
            self._seen.discard(trial_id)
        return rows, new

    @patient
    def _rows(self) -> list[tuple[int, int, TrialState]]:
        trial = models.TrialModel
        with session_of(self._database) as session:
            return [
                (int(trial_id), int(number), state)
                for trial_id, number, state in session.execute(
                    select(trial.trial_id, trial.number, trial.state)
                    .where(trial.study_id == self._study_id, trial.trial_id > self._watermark)
                    .order_by(trial.trial_id)
                )
            ]

    def _describe(self, trial_ids: list[int]) -> list[FinishedTrial]:
        trials = [self._database.storage.get_trial(trial_id) for trial_id in trial_ids]
        return [_finished(trial) for trial in sorted(trials, key=lambda trial: trial.number)]

    @patient
    def _request(self) -> Request | None:
        with session_of(self._database) as session:
            return read_request(session, self._study_id)

    @patient
    def _running(self) -> list[RunningTrial]:
        with session_of(self._database) as session:
            now = session.scalars(select(utc_now())).one()
            found = read_running(session, self._study_id, now, has_claims=self._database.has_claims)
            return found.get(self._study_id, [])


def _finished(trial: optuna.trial.FrozenTrial) -> FinishedTrial:
    broken = breaks_constraint(trial)  # also told by another program
    return FinishedTrial(
        number=trial.number,
        state=trial.state,
        values=list(trial.values or ()),
        last_step=trial.last_step,
        seconds=_seconds(trial.datetime_start, trial.datetime_complete),
        params=dict(trial.params),
        outcome=INFEASIBLE if broken else str(trial.user_attrs.get(OUTCOME_ATTR, "")),
        reason=str(trial.user_attrs.get(REASON_ATTR, "")),
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def find_best(database: Database, study_id: int) -> FinishedTrial | None:
    """The best complete trial that keeps to every constraint; None with several objectives."""

    def read(_again: bool) -> int | None:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            best = read_bests(session, study_id).get(study_id)
            trial = models.TrialModel
            if best is None:
                return None
            return session.scalars(
                select(trial.trial_id).where(
                    trial.study_id == study_id, trial.number == best.number
                )
            ).first()

    trial_id = database.patience.run(read)
    if trial_id is None:
        return None
    with storage_errors(database.url):
        return _finished(database.storage.get_trial(trial_id))


def read_complete_values(database: Database, study_id: int) -> list[tuple[int, list[float]]]:
    """Number and values of the COMPLETE trials that keep to every constraint, by their numbers."""
    trial, value = models.TrialModel, models.TrialValueModel

    def read(_again: bool) -> list[tuple[int, list[float]]]:  # noqa: FBT001
        found: dict[int, list[float]] = {}
        with session_of(database) as session:
            for number, stored, kind in session.execute(
                select(trial.number, value.value, value.value_type)
                .join(value, value.trial_id == trial.trial_id)
                .where(
                    trial.study_id == study_id,
                    trial.state == TrialState.COMPLETE,
                    trial.trial_id.not_in(infeasible_trials(session)),
                )
                .order_by(trial.number, value.objective)
            ):
                found.setdefault(number, []).append(value.stored_repr_to_value(stored, kind))
        return list(found.items())

    return database.patience.run(read)


def count_outcomes(database: Database, study_id: int) -> Counter[str]:
    """How many trials ended in each of `tuner.outcomes`, as far as we ran them.

    Infeasible are those of other programs, too.
    """
    attr, trial = models.TrialUserAttributeModel, models.TrialModel

    def count(_again: bool) -> Counter[str]:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            rows = session.execute(
                select(attr.value_json, func.count())
                .join(trial, trial.trial_id == attr.trial_id)
                .where(trial.study_id == study_id, attr.key == OUTCOME_ATTR)
                .group_by(attr.value_json)
            ).all()
            infeasible = session.scalars(
                select(func.count())
                .select_from(trial)
                .where(
                    trial.study_id == study_id,
                    trial.state.in_([TrialState.COMPLETE, TrialState.PRUNED]),
                    trial.trial_id.in_(infeasible_trials(session)),
                )
            ).one()
        counts = Counter({str(json.loads(outcome)): number for outcome, number in rows})
        return counts | Counter({INFEASIBLE: infeasible})

    return database.patience.run(count)
