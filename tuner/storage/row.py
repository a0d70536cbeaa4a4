"""What a worker writes into the row of the trial that it holds, as long as it holds it."""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tuner.storage.attributes import REQUEST_ATTR
from tuner.storage.claims import Claim
from tuner.storage.database import Database, session_of
from tuner.storage.owner import Owner
from tuner.storage.requests import RequestState, parse_request
from tuner.storage.retry import Patience, patient
from tuner.storage.tables import claims


class HeldRow:
    """The row of one trial, for the worker that claimed it.

    Every writing asks first whether the trial is still this worker's and the study neither paused
    nor stopped; if not, nothing is written and the answer is False. The claim is not locked for it:
    were it given away in that very moment, its new worker would find the value there already, and
    other parameters than its own at its end.
    """

    def __init__(self, database: Database, claim: Claim, owner: Owner) -> None:
        self._database = database
        self._trial_id = claim.trial_id
        self._owner = owner

    @property
    def patience(self) -> Patience:
        """How this process bears with its database."""
        return self._database.patience

    @patient
    def may_go_on(self) -> bool:
        """Whether the trial is still this worker's to work on."""
        with session_of(self._database) as session:
            return self._is_ours(session)

    @patient
    def store_value(self, step: int, value: float) -> bool:
        """Report a value at a step."""
        model = models.TrialIntermediateValueModel
        stored, kind = model.intermediate_value_to_stored_repr(value)
        row = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        return self._store(model, [row])

    @patient
    def store_params(self, params: Mapping[str, tuple[float, BaseDistribution]]) -> bool:
        """Store sampled parameters: by name the internal representation and the distribution."""
        rows = [
            {
                "param_name": name,
                "param_value": value,
                "distribution_json": distribution_to_json(distribution),
            }
            for name, (value, distribution) in params.items()
        ]
        return self._store(models.TrialParamModel, rows)

    def _store(self, model: Any, rows: Sequence[Mapping[str, Any]]) -> bool:
        with session_of(self._database) as session:
            if not self._is_ours(session):
                return False
            try:
                session.execute(insert(model), [{"trial_id": self._trial_id, **it} for it in rows])
            except IntegrityError:  # stored already, and the answer to that was lost
                session.rollback()
        return True

    def _is_ours(self, session: Session) -> bool:
        attr = models.StudyUserAttributeModel
        row = session.execute(
            select(claims.c.owner, attr.value_json)
            .outerjoin(attr, (attr.study_id == claims.c.study_id) & (attr.key == REQUEST_ATTR))
            .where(claims.c.trial_id == self._trial_id)
        ).first()
        if row is None or row.owner != self._owner.token:
            return False
        request = parse_request(row.value_json)
        return request is None or request.state in {RequestState.OPEN, RequestState.CLOSED}
