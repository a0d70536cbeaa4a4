"""The request of a study: that somebody wants it worked on, and whether it may be.

::

                 pause                        A run opens it; daemons on any host help with an open
    ──> OPEN <───────────> PAUSED             one. Kept as one study attribute, so that Optuna's
    open │     resume         │               tools see it.
         │                    │
         ├────────────────────┤
         ▼                    ▼
      CLOSED  its target is reached, Ctrl-C, ...;  or  STOPPED  by `tuner control stop`

From both ends only the next run opens it again; it also resumes what is paused.
"""

import enum
import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tuner.storage.attributes import (
    COMPARE_ATTR,
    CONFIGURATIONS_ATTR,
    DEFINITION_ATTR,
    ID_ATTR,
    REQUEST_ATTR,
    SEARCH_ATTR,
    STUDY_SEED_ATTR,
    read_study_attr,
    write_study_attr,
)
from tuner.storage.database import Database, locked_study, session_of
from tuner.study import Snapshot


class RequestState(enum.StrEnum):
    """Whether a study is to be worked on."""

    OPEN = "open"
    PAUSED = "paused"
    STOPPED = "stopped"
    CLOSED = "closed"


REACHED = "its target is reached"
_BEING_WORKED_ON = {RequestState.OPEN, RequestState.PAUSED}


@dataclass(frozen=True)
class Request:
    """That a study shall reach its target.

    Attributes:
        state: whether it is to be worked on.
        opened: when, in UTC, as ISO 8601 with microseconds: it tells one request from the next.
        target: trials that shall end COMPLETE or PRUNED.
        most_failed: rows of the study that may be FAIL.
        trial_timeout: seconds that a trial may take, or None.
        reason: why it is no longer open, or "".
    """

    state: RequestState
    opened: str
    target: int
    most_failed: int
    trial_timeout: float | None
    reason: str = ""


@dataclass(frozen=True)
class OpenRequest:
    """What a daemon must know to help with a study.

    Attributes:
        ended: trials that are COMPLETE or PRUNED.
        seed: the study's.
        uid: names the study in the artifact store.
        search: names of the sampler, the pruner and the precision.
        compare: the parameter whose levels share the budget equally, or None.
        configurations: that a confirmation re-runs; empty for a search.
    """

    study_id: int
    name: str
    request: Request
    ended: int
    seed: int
    uid: str
    search: dict[str, str]
    snapshot: Snapshot
    compare: str | None
    configurations: list[dict[str, Any]]


def open_request(
    database: Database,
    study_id: int,
    *,
    target: int,
    most_failed: int,
    trial_timeout: float | None,
) -> tuple[Request, RequestState | None]:
    """Ask for a study to be brought to a target; one that is being worked on keeps a greater one.

    Args:
        database: where.
        study_id: of the study.
        target: trials that shall end COMPLETE or PRUNED.
        most_failed: rows of the study that may be FAIL.
        trial_timeout: seconds that a trial may take, or None.

    Returns:
        The request, and the state of the one before it, or None if there was none.
    """
    opened = datetime.now(UTC).isoformat()

    def write(_again: bool) -> tuple[Request, RequestState | None]:  # noqa: FBT001 - a callback's
        with locked_study(database, study_id) as session:
            before = read_request(session, study_id)
            request = Request(RequestState.OPEN, opened, target, most_failed, trial_timeout)
            if before is not None and before.state in _BEING_WORKED_ON:
                request = replace(
                    request,
                    target=max(target, before.target),
                    most_failed=max(most_failed, before.most_failed),
                )
            write_study_attr(session, study_id, REQUEST_ATTR, asdict(request))
            return request, before.state if before else None

    return database.patience.run(write)


def change_request(
    database: Database,
    study_id: int,
    state: RequestState,
    *,
    reason: str = "",
    opened: str | None = None,
) -> Request | None:
    """Pause, resume, stop or close a study's request, if that is being worked on.

    Args:
        database: where.
        study_id: of the study.
        state: which it shall have.
        reason: why, for people.
        opened: change the request of this moment only, not one that somebody opened since.

    Returns:
        The request as it was before, or None if nobody ever opened one. Nothing is written when it
        was not being worked on.
    """

    def write(_again: bool) -> Request | None:  # noqa: FBT001
        with locked_study(database, study_id) as session:
            before = read_request(session, study_id)
            if before is None or before.state not in _BEING_WORKED_ON:
                return before
            if opened not in {None, before.opened}:
                return before
            after = {**asdict(before), "state": state, "reason": reason}
            write_study_attr(session, study_id, REQUEST_ATTR, after)
            return before

    return database.patience.run(write)


def close_reached(database: Database, study_id: int) -> None:
    """Close a study's request if its target is reached."""

    def write(_again: bool) -> None:  # noqa: FBT001
        with locked_study(database, study_id) as session:
            request = read_request(session, study_id)
            if (
                request is not None
                and request.state in _BEING_WORKED_ON
                and _count_ended(session, study_id) >= request.target
            ):
                after = {**asdict(request), "state": RequestState.CLOSED, "reason": REACHED}
                write_study_attr(session, study_id, REQUEST_ATTR, after)

    database.patience.run(write)


def read_request(session: Session, study_id: int) -> Request | None:
    """A study's request, or None if nobody ever opened one."""
    return _request(read_study_attr(session, study_id, REQUEST_ATTR))


def parse_request(stored: str | None) -> Request | None:
    """A request from the JSON text of its attribute."""
    return None if stored is None else _request(json.loads(stored))


def _request(stored: dict[str, Any] | None) -> Request | None:
    if stored is None:
        return None
    known = {field.name: stored[field.name] for field in fields(Request) if field.name in stored}
    return Request(**{**known, "state": RequestState(stored["state"])})


def read_requests(database: Database) -> list[OpenRequest]:
    """The open requests whose target is not reached, oldest first.

    Where it is reached, a run was killed before it could close its request: it is closed now.
    """

    def read(_again: bool) -> list[OpenRequest]:  # noqa: FBT001
        study, attr = models.StudyModel, models.StudyUserAttributeModel
        with session_of(database) as session:
            rows = session.execute(
                select(study.study_id, study.study_name, attr.value_json)
                .join(attr, attr.study_id == study.study_id)
                .where(attr.key == REQUEST_ATTR)
            ).all()
            found = []
            for study_id, name, text in rows:
                request = parse_request(text)
                if request is not None and request.state is RequestState.OPEN:
                    found.append(_open_request(session, int(study_id), str(name), request))
        return [one for one in found if one is not None]

    opened = sorted(database.patience.run(read), key=lambda it: (it.request.opened, it.study_id))
    for one in opened:
        if one.ended >= one.request.target:
            close_reached(database, one.study_id)
    return [one for one in opened if one.ended < one.request.target]


def _open_request(
    session: Session, study_id: int, name: str, request: Request
) -> OpenRequest | None:
    """All about a request, or None if its study is being deleted."""
    definition = read_study_attr(session, study_id, DEFINITION_ATTR)
    if definition is None:
        return None
    return OpenRequest(
        study_id=study_id,
        name=name,
        request=request,
        ended=_count_ended(session, study_id),
        seed=int(read_study_attr(session, study_id, STUDY_SEED_ATTR)),
        uid=str(read_study_attr(session, study_id, ID_ATTR)),
        search=dict(read_study_attr(session, study_id, SEARCH_ATTR)),
        snapshot=Snapshot.from_dict(definition),
        compare=read_study_attr(session, study_id, COMPARE_ATTR),
        configurations=read_study_attr(session, study_id, CONFIGURATIONS_ATTR) or [],
    )


def _count_ended(session: Session, study_id: int) -> int:
    trial = models.TrialModel
    return session.scalars(
        select(func.count()).where(
            trial.study_id == study_id,
            trial.state.in_([TrialState.COMPLETE, TrialState.PRUNED]),
        )
    ).one()
