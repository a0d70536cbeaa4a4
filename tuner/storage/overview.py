"""What a database holds and who works on it: a handful of queries, however many trials.

Any study of Optuna's is read, of whatever program. Every reader sees the same ages: now is by the
database's clock, and a trial's beginning by the clock of the host that runs it.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tuner.errors import UsageError
from tuner.storage.attributes import DEFINITION_ATTR, REQUEST_ATTR
from tuner.storage.bests import BestTrial, read_bests
from tuner.storage.database import Database, hold_the_moment, session_of
from tuner.storage.requests import Request, parse_request
from tuner.storage.running import RunningTrial, read_running, seconds_since, within
from tuner.storage.tables import utc_now
from tuner.study import DEFAULT_METRIC
from tuner.wording import closest

# Trials an hour are counted over so many seconds at most.
RATE_SECONDS = 3600


@dataclass(frozen=True)
class StudyOverview:
    """A study at one moment.

    Attributes:
        directions: ``minimize`` or ``maximize`` of each objective.
        metric: the value's name, for people; of several objectives the first one's.
        file: the study file as the last run named it; "" for a study of another program.
        counts: trials by state; a state without trials may be missing.
        request: whether the study is to be worked on, or None if no run of ours ever began it.
        best: None without a COMPLETE trial that keeps to every constraint, and for several
            objectives.
        trials_per_hour: see `_rates`; None if no trial ended in the last hour.
        running: the RUNNING trials, in order of their numbers.
    """

    name: str
    directions: list[str]
    metric: str
    file: str
    counts: dict[TrialState, int]
    request: Request | None
    best: BestTrial | None
    trials_per_hour: float | None
    running: list[RunningTrial]

    def count(self, state: TrialState) -> int:
        """How many trials are in a state."""
        return self.counts.get(state, 0)

    @property
    def ended(self) -> int:
        """How many trials count towards the target."""
        return self.count(TrialState.COMPLETE) + self.count(TrialState.PRUNED)


def find_study(database: Database, name: str) -> int:
    """The id of the study with this name.

    Raises:
        UsageError: there is none; the closest name is offered.
    """

    def read(_again: bool) -> dict[int, str]:  # noqa: FBT001 - the callback's signature
        with session_of(database) as session:
            return _names(session, None)

    # Compared here: MySQL would take mnist for MNIST.
    known = {name: study_id for study_id, name in database.patience.run(read).items()}
    if not known:
        raise UsageError(
            f"There is no study {name!r}: {database.url} holds no study yet; a run makes one."
        )
    if name not in known:
        raise UsageError(f"There is no study {name!r} in {database.url}; {closest(name, known)}")
    return known[name]


def read_overviews(database: Database, study_id: int | None = None) -> list[StudyOverview]:
    """All studies of a database in the order of their making, or one of them."""

    def read(_again: bool) -> list[StudyOverview]:  # noqa: FBT001
        with session_of(database) as session:
            hold_the_moment(session)
            return _overviews(session, study_id, has_claims=database.has_claims)

    return database.patience.run(read)


def _overviews(session: Session, only: int | None, *, has_claims: bool) -> list[StudyOverview]:
    now = session.scalars(select(utc_now())).one()
    names = _names(session, only)
    directions, attrs = _directions(session, only), _attrs(session, only)
    counts, bests = _counts(session, only), read_bests(session, only)
    rates = _rates(session, only, now)
    running = read_running(session, only, now, has_claims=has_claims)
    found = []
    for study_id, name in names.items():
        definition = json.loads(attrs.get((study_id, DEFINITION_ATTR), "{}"))
        found.append(
            StudyOverview(
                name=name,
                directions=directions.get(study_id, []),
                metric=definition.get("metric", DEFAULT_METRIC),
                file=definition.get("file", ""),
                counts=counts.get(study_id, {}),
                request=parse_request(attrs.get((study_id, REQUEST_ATTR))),
                best=bests.get(study_id),
                trials_per_hour=rates.get(study_id),
                running=running.get(study_id, []),
            )
        )
    return found


def _names(session: Session, only: int | None) -> dict[int, str]:
    study = models.StudyModel
    rows = session.execute(
        select(study.study_id, study.study_name)
        .where(within(study.study_id, only))
        .order_by(study.study_id)
    )
    return {int(study_id): str(name) for study_id, name in rows}


def _directions(session: Session, only: int | None) -> dict[int, list[str]]:
    direction = models.StudyDirectionModel
    found: dict[int, list[str]] = {}
    for study_id, which in session.execute(
        select(direction.study_id, direction.direction)
        .where(within(direction.study_id, only))
        .order_by(direction.study_id, direction.objective)
    ):
        found.setdefault(study_id, []).append(which.name.lower())
    return found


def _attrs(session: Session, only: int | None) -> dict[tuple[int, str], str]:
    """The request and the definition of each study, as JSON."""
    attr = models.StudyUserAttributeModel
    rows = session.execute(
        select(attr.study_id, attr.key, attr.value_json).where(
            attr.key.in_([REQUEST_ATTR, DEFINITION_ATTR]), within(attr.study_id, only)
        )
    )
    return {(study_id, key): value_json for study_id, key, value_json in rows}


def _counts(session: Session, only: int | None) -> dict[int, dict[TrialState, int]]:
    trial = models.TrialModel
    found: dict[int, dict[TrialState, int]] = {}
    for study_id, state, count in session.execute(
        select(trial.study_id, trial.state, func.count())
        .where(within(trial.study_id, only))
        .group_by(trial.study_id, trial.state)
    ):
        found.setdefault(study_id, {})[state] = count
    return found


def _rates(session: Session, only: int | None, now: datetime) -> dict[int, float]:
    """Trials an hour: those that ended COMPLETE or PRUNED in the last hour, over their time.

    That time is the last hour, or less: since the first of these trials was started.
    """
    trial = models.TrialModel
    started, ended = trial._datetime_start_utc, trial._datetime_complete_utc
    rows = session.execute(
        select(trial.study_id, func.count(), func.min(func.coalesce(started, ended)))
        .where(
            trial.state.in_([TrialState.COMPLETE, TrialState.PRUNED]),
            ended > now - timedelta(seconds=RATE_SECONDS),
            within(trial.study_id, only),
        )
        .group_by(trial.study_id)
    )
    # At least a second: clocks differ, and some databases keep whole seconds.
    return {
        study_id: 3600 * count / min(max(seconds_since(first, now), 1.0), RATE_SECONDS)
        for study_id, count, first in rows
    }
