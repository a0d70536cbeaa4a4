"""The claim: how exactly N trials come out of any number of workers, restarts and kills.

A trial's row lives through these states, each arrow one transaction::

        claim                finish
    ──> RUNNING ───────────> COMPLETE | PRUNED | FAIL
         │   ▲
         │   │ claim (same row, number, parameters, values, seed)
         ▼   │
        WAITING              hand_back: stopped, or its worker died (at most MAX_DEATHS times)

A claim holds the study's row (PostgreSQL, MySQL) or the write lock of the file (SQLite) while it
counts, so two workers never both take the last trial. Every row that is not FAIL counts, because
every one of them will end COMPLETE or PRUNED.
"""

import enum
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from tuner import outcomes
from tuner.design import Design
from tuner.storage.arms import Place, attrs_of, next_place, place_of
from tuner.storage.attributes import OUTCOME_ATTR, REASON_ATTR, SEED_ATTR, add_system_attrs
from tuner.storage.database import Database, locked_study, session_of
from tuner.storage.owner import Owner, is_known_dead
from tuner.storage.requests import RequestState, read_request
from tuner.storage.retry import Patience, patient
from tuner.storage.tables import claims, utc_now

# A trial whose worker dies is tried again this many times; then the trial itself is to blame.
MAX_DEATHS = 2
# A claim whose supervisor has not beaten for this long is given away, in seconds.
BEAT_AGE_LIMIT_SECONDS = 60

# A claim is given away for its age only by a supervisor that saw no beat of it for so long itself,
# in seconds, with the database there all the time: after an outage, every beat is old.
WATCH_SECONDS = 15

HANDED_BACK = ""  # the owner of a claim that is kept for a waiting trial's seed and deaths


class NoTrial(enum.Enum):
    """Why a claim got no trial."""

    DONE = "the target is reached"
    ALL_TAKEN = "every trial up to the target is being worked on"
    TOO_MANY_FAILURES = "more trials failed than allowed"
    PAUSED = "the study is paused"
    STOPPED = "the study is stopped"


@dataclass(frozen=True)
class Claim:
    """A trial that this worker holds.

    Attributes:
        trial_id: the row's key.
        number: the trial's number within its study, from 0.
        seed: of all randomness in the trial, in [0, 2**31).
        arm: the arm that it is in, or None where there are none, see `tuner.design`.
        block: its block.
    """

    trial_id: int
    number: int
    seed: int
    arm: int | None = None
    block: int | None = None


@dataclass(frozen=True)
class GivenBack:
    """What became of the trials of a worker that stopped or died, by their numbers.

    Attributes:
        waiting: for another worker.
        failed: because workers died with them too often.
    """

    waiting: list[int]
    failed: list[int]

    def __bool__(self) -> bool:
        return bool(self.waiting or self.failed)

    def in_words(self) -> str:
        """For people; "" if there were none."""
        return "; ".join(
            f"trial {', '.join(str(number) for number in numbers)} {what}"
            for numbers, what in ((self.waiting, "is handed back"), (self.failed, "failed"))
            if numbers
        )


class Claims:
    """The claims of one study, in one database."""

    def __init__(self, database: Database, study_id: int) -> None:
        self._database = database
        self.study_id = study_id
        # Of others' claims: the last beat seen, and since when, by time.monotonic.
        self._watched: dict[str, tuple[datetime, float]] = {}
        self._looked = 0.0  # when they were last seen, by time.monotonic

    @property
    def patience(self) -> Patience:
        """How this process bears with its database."""
        return self._database.patience

    def claim(
        self,
        owner: Owner,
        seed_of: Callable[[int], int],
        *,
        target: int,
        most_failed: int,
        design: Design | None = None,
    ) -> Claim | NoTrial:
        """Take a waiting trial or make a new one, if the target leaves room for it.

        Args:
            owner: the worker that will run the trial; it holds none.
            seed_of: the seed of the trial with a number, or of a block where there are arms; used
                for a new trial only.
            target: how many trials shall end COMPLETE or PRUNED.
            most_failed: refuse when more rows than this are FAIL.
            design: the study's arms, or None.
        """

        def take(again: bool) -> Claim | NoTrial:  # noqa: FBT001 - the callback's signature
            with locked_study(self._database, self.study_id) as session:
                held = self._held(session, owner) if again else None
                return held or self._claim(session, owner, seed_of, target, most_failed, design)

        return self.patience.run(take)

    def _held(self, session: Session, owner: Owner) -> Claim | None:
        """The trial that this worker got, if the answer to its claim was lost."""
        row = session.execute(
            select(models.TrialModel.trial_id, models.TrialModel.number, claims.c.seed)
            .join(claims, models.TrialModel.trial_id == claims.c.trial_id)
            .where(claims.c.owner == owner.token, models.TrialModel.state == TrialState.RUNNING)
        ).first()
        if row is None:
            return None
        return Claim(row.trial_id, row.number, row.seed, *place_of(session, row.trial_id))

    def _claim(  # noqa: PLR0913, PLR0917 - what `claim` was told
        self,
        session: Session,
        owner: Owner,
        seed_of: Callable[[int], int],
        target: int,
        most_failed: int,
        design: Design | None,
    ) -> Claim | NoTrial:
        request = read_request(session, self.study_id)
        if request is not None and request.state is RequestState.PAUSED:
            return NoTrial.PAUSED
        if request is not None and request.state is RequestState.STOPPED:
            return NoTrial.STOPPED
        count = self._count_by_state(session)
        if count.get(TrialState.FAIL, 0) > most_failed:
            return NoTrial.TOO_MANY_FAILURES
        ended = count.get(TrialState.COMPLETE, 0) + count.get(TrialState.PRUNED, 0)
        if ended >= target:
            return NoTrial.DONE
        if ended + count.get(TrialState.RUNNING, 0) >= target:
            return NoTrial.ALL_TAKEN
        waiting = count.get(TrialState.WAITING, 0) > 0
        taken = self._take_waiting(session, owner, seed_of) if waiting else None
        return taken or self._create(session, owner, seed_of, design)

    def _take_waiting(
        self, session: Session, owner: Owner, seed_of: Callable[[int], int]
    ) -> Claim | None:
        trial = session.scalars(
            select(models.TrialModel)
            .where(
                models.TrialModel.study_id == self.study_id,
                models.TrialModel.state == TrialState.WAITING,
            )
            .order_by(models.TrialModel.number)
            .limit(1)
        ).first()
        if trial is None:
            return None
        trial_id, number = _key(trial)
        before = session.execute(
            select(claims.c.seed, claims.c.deaths).where(claims.c.trial_id == trial_id)
        ).first()
        place = place_of(session, trial_id)
        if before is None:  # another program's, or one from a copied database
            seed, deaths = seed_of(number if place.block is None else place.block), 0
        else:
            seed, deaths = before.seed, before.deaths
        trial.state = TrialState.RUNNING
        trial.datetime_start = datetime.now()  # noqa: DTZ005 - Optuna's column takes local time
        session.flush()
        claim = Claim(trial_id, number, seed, *place)
        self._write(session, owner, claim, deaths)
        return claim

    def _create(
        self,
        session: Session,
        owner: Owner,
        seed_of: Callable[[int], int],
        design: Design | None,
    ) -> Claim:
        place = Place() if design is None else next_place(session, self.study_id, design)
        trial = self._database.backend._get_prepared_new_trial(self.study_id, None, session)
        session.flush()
        trial_id, number = _key(trial)
        seed = seed_of(number if place.block is None else place.block)
        claim = Claim(trial_id, number, seed, *place)
        self._write(session, owner, claim, deaths=0)
        if design is not None:
            add_system_attrs(session, trial_id, attrs_of(design, place))
        return claim

    def _write(self, session: Session, owner: Owner, claim: Claim, deaths: int) -> None:
        row = {
            "study_id": self.study_id,
            "owner": owner.token,
            "supervisor": owner.supervisor,
            "host": owner.host,
            "pid": owner.pid,
            "beat": utc_now(),
            "seed": claim.seed,
            "deaths": deaths,
        }
        here = claims.c.trial_id == claim.trial_id
        # There is a row already when the trial was handed back, and when SQLite gives the id of a
        # deleted trial to a new one. No blind DELETE: in MySQL it would lock the gap for others.
        if session.scalar(select(claims.c.trial_id).where(here)) is None:
            session.execute(insert(claims).values(trial_id=claim.trial_id, **row))
        else:
            session.execute(update(claims).where(here).values(**row))
        self._set_attrs(session, claim.trial_id, {SEED_ATTR: claim.seed})

    def finish(  # noqa: PLR0913, PLR0917 - all that ends with a trial
        self,
        claim: Claim,
        owner: Owner,
        state: TrialState,
        values: Sequence[float] | None,
        attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any] | None = None,
    ) -> bool:
        """End a trial: attributes, values and state in one transaction.

        Args:
            claim: the trial.
            owner: who ended it.
            state: in which it ended.
            values: of the objectives, or None.
            attrs: user attributes.
            system_attrs: Optuna's own of its artifacts and constraints, which the trial has not
                yet.

        Returns:
            False when the trial is no longer this owner's: it was given to somebody else, and
            nothing is written.
        """

        def end(again: bool) -> bool:  # noqa: FBT001
            return self._finish(claim, owner, state, values, attrs, system_attrs or {}) or (
                again and self._ended_so(claim, state, values)
            )

        return self.patience.run(end)

    def _finish(  # noqa: PLR0913, PLR0917 - what `finish` was told
        self,
        claim: Claim,
        owner: Owner,
        state: TrialState,
        values: Sequence[float] | None,
        attrs: Mapping[str, Any],
        system_attrs: Mapping[str, Any],
    ) -> bool:
        with locked_study(self._database, self.study_id) as session:
            if not self._holds(session, claim.trial_id, owner):
                return False
            trial = models.TrialModel.find_or_raise_by_id(claim.trial_id, session)
            self._set_attrs(session, claim.trial_id, attrs)
            add_system_attrs(session, claim.trial_id, system_attrs)
            for objective, value in enumerate(values or ()):
                self._database.backend._set_trial_value_without_commit(
                    session, trial, objective, value
                )
            self._end(session, trial, state)
        return True

    def _ended_so(self, claim: Claim, state: TrialState, values: Sequence[float] | None) -> bool:
        """Whether a trial has this very end: the answer to writing it may have been lost."""
        trial = self._database.backend.get_trial(claim.trial_id)
        return trial.state == state and trial.values == (values and list(values))

    def _holds(self, session: Session, trial_id: int, owner: Owner) -> bool:
        holder = session.scalar(
            select(claims.c.owner)
            .join(models.TrialModel, models.TrialModel.trial_id == claims.c.trial_id)
            .where(claims.c.trial_id == trial_id, models.TrialModel.state == TrialState.RUNNING)
        )
        return holder == owner.token

    def _end(self, session: Session, trial: models.TrialModel, state: TrialState) -> None:
        trial.state = state
        trial.datetime_complete = datetime.now()  # noqa: DTZ005 - Optuna's column takes local time
        session.flush()
        session.execute(delete(claims).where(claims.c.trial_id == trial.trial_id))

    @patient
    def hand_back(self, owner: Owner, *, death: str | None = None) -> GivenBack:
        """Give back what a worker holds: stopped in good order, or dead.

        Args:
            owner: the worker. It must not run any more, or be the caller.
            death: why the worker died, or None if it was only asked to stop. A trial whose workers
                died more than `MAX_DEATHS` times ends FAIL with this reason.
        """
        with locked_study(self._database, self.study_id) as session:
            return self._give_back(session, claims.c.owner == owner.token, death)

    @patient
    def hand_back_all(self, supervisor: str) -> GivenBack:
        """Give back what any worker of a supervisor still holds; none of them runs any more."""
        with locked_study(self._database, self.study_id) as session:
            return self._give_back(session, claims.c.supervisor == supervisor, None)

    @patient
    def reap(self, mine: str) -> GivenBack:
        """Give back what dead supervisors left: known dead on this machine, or silent too long.

        This counts as a death with the trial: what takes its whole host down shall not do so for
        ever.

        Args:
            mine: the caller's own ``Owner.supervisor``, which is alive.
        """
        with locked_study(self._database, self.study_id) as session:
            now = session.scalars(select(utc_now())).one()
            rows = session.execute(
                select(claims.c.owner, claims.c.supervisor, claims.c.pid, claims.c.beat)
                .join(models.TrialModel, models.TrialModel.trial_id == claims.c.trial_id)
                .where(
                    claims.c.study_id == self.study_id,
                    claims.c.supervisor != mine,
                    claims.c.owner != HANDED_BACK,
                    models.TrialModel.state == TrialState.RUNNING,
                )
            ).all()
            silent = self._watch({row.owner: row.beat for row in rows})
            limit = timedelta(seconds=BEAT_AGE_LIMIT_SECONDS)
            dead = [
                row.owner
                for row in rows
                if (now - row.beat > limit and row.owner in silent)
                or is_known_dead(row.supervisor, row.pid)
            ]
            return self._give_back(session, claims.c.owner.in_(dead), "its supervisor died")

    def _watch(self, beats: Mapping[str, datetime]) -> set[str]:
        """Owners whose beat has not changed for `WATCH_SECONDS` before our eyes."""
        now, trouble = time.monotonic(), self.patience.last_trouble
        if now - self._looked > BEAT_AGE_LIMIT_SECONDS / 2:
            self._watched.clear()  # we did not look: perhaps the database stood still
        self._looked = now
        watched = {}
        for owner, beat in beats.items():
            seen, since = self._watched.get(owner, (beat, now))
            watched[owner] = (beat, since if seen == beat and since > trouble else now)
        self._watched = watched
        return {owner for owner, (_, since) in watched.items() if now - since >= WATCH_SECONDS}

    def _give_back(self, session: Session, which: Any, death: str | None) -> GivenBack:
        rows = session.execute(
            select(models.TrialModel, claims.c.deaths)
            .join(claims, models.TrialModel.trial_id == claims.c.trial_id)
            .where(
                which,
                claims.c.study_id == self.study_id,
                claims.c.owner != HANDED_BACK,
                models.TrialModel.state == TrialState.RUNNING,
            )
            .order_by(models.TrialModel.number)
        ).all()
        given = GivenBack([], [])
        for trial, deaths in rows:
            if death is not None and deaths >= MAX_DEATHS:
                attrs = {OUTCOME_ATTR: outcomes.FAILED, REASON_ATTR: death}
                self._set_attrs(session, trial.trial_id, attrs)
                self._end(session, trial, TrialState.FAIL)
                given.failed.append(trial.number)
                continue
            trial.state = TrialState.WAITING
            session.execute(
                update(claims)
                .where(claims.c.trial_id == trial.trial_id)
                .values(owner=HANDED_BACK, deaths=deaths + (death is not None))
            )
            given.waiting.append(trial.number)
        return given

    @patient
    def beat(self, supervisor: str) -> None:
        """Say that a supervisor and its workers are alive, by the database's clock."""
        with session_of(self._database) as session:
            session.execute(
                update(claims).where(claims.c.supervisor == supervisor).values(beat=utc_now())
            )

    @patient
    def foreign_running(self) -> list[int]:
        """Numbers of RUNNING trials that nobody of ours holds: another program runs them."""
        with session_of(self._database) as session:
            return list(
                session.scalars(
                    select(models.TrialModel.number)
                    .outerjoin(
                        claims,
                        # Both: SQLite gives the ids of deleted trials to new ones.
                        (models.TrialModel.trial_id == claims.c.trial_id)
                        & (models.TrialModel.study_id == claims.c.study_id),
                    )
                    .where(
                        models.TrialModel.study_id == self.study_id,
                        models.TrialModel.state == TrialState.RUNNING,
                        or_(claims.c.trial_id.is_(None), claims.c.owner == HANDED_BACK),
                    )
                    .order_by(models.TrialModel.number)
                )
            )

    @patient
    def unfinished(self) -> set[int]:
        """Numbers of the trials that have not ended."""
        with session_of(self._database) as session:
            return set(
                session.scalars(
                    select(models.TrialModel.number).where(
                        models.TrialModel.study_id == self.study_id,
                        models.TrialModel.state.in_([TrialState.RUNNING, TrialState.WAITING]),
                    )
                )
            )

    def _count_by_state(self, session: Session) -> dict[TrialState, int]:
        rows = session.execute(
            select(models.TrialModel.state, func.count())
            .where(models.TrialModel.study_id == self.study_id)
            .group_by(models.TrialModel.state)
        )
        return {state: count for state, count in rows}  # noqa: C416 - rows are not pairs to mypy

    def _set_attrs(self, session: Session, trial_id: int, attrs: Mapping[str, Any]) -> None:
        model = models.TrialUserAttributeModel
        there = set(session.scalars(select(model.key).where(model.trial_id == trial_id)))
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attrs.items()
        ]
        if new := [row for row in rows if row["key"] not in there]:
            session.execute(insert(model), new)
        for row in rows:
            if row["key"] in there:
                session.execute(
                    update(model)
                    .where(model.trial_id == trial_id, model.key == row["key"])
                    .values(value_json=row["value_json"])
                )


def studies_with_claims(database: Database) -> list[int]:
    """Ids of the studies of which a trial is held by somebody."""

    def read(_again: bool) -> list[int]:  # noqa: FBT001
        with session_of(database) as session:
            held = select(models.StudyModel.study_id).where(
                models.StudyModel.study_id.in_(
                    select(claims.c.study_id).where(claims.c.owner != HANDED_BACK)
                )
            )
            return list(session.scalars(held))

    return database.patience.run(read)


def _key(trial: models.TrialModel) -> tuple[int, int]:
    """A row's id and number; Optuna declares its columns without types."""
    return cast("int", trial.trial_id), cast("int", trial.number)
