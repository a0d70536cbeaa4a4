"""Optuna's storage, but that what fails is tried again, and that many trials are read fast."""

import collections
import functools
import json
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    json_to_distribution,
)
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from tuner.storage.attributes import trial_in_order
from tuner.storage.retry import Patience, patient

# Trials that one query asks for by their ids: databases limit a query's values.
IDS_A_QUERY = 500


class PatientStorage(RDBStorage):
    """Optuna's storage; what objectives, samplers and pruners do with it is tried again.

    Databases give attributes in any order, SQLite by their names: a trial has them here in ours.
    """

    def __init__(
        self,
        url: str,
        engine_kwargs: dict[str, Any],
        patience: Patience,
        *,
        skip_table_creation: bool = False,
    ) -> None:
        self.patience = patience
        super().__init__(url, engine_kwargs=engine_kwargs, skip_table_creation=skip_table_creation)

    def _build_frozen_trial_from_trial_model(self, trial: models.TrialModel) -> FrozenTrial:
        frozen = super()._build_frozen_trial_from_trial_model(trial)
        frozen.user_attrs = trial_in_order(frozen.user_attrs)
        return frozen

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """As Optuna's, but without an object for each parameter, value and attribute on the way.

        A worker reads all trials so when it starts, and the new and the unfinished ones before it
        samples and prunes.
        """
        with _create_scoped_session(self.scoped_session) as session:
            models.StudyModel.find_or_raise_by_id(study_id, session)
            trial = models.TrialModel
            query = select(trial).where(trial.study_id == study_id)
            if states is not None:
                query = query.where(trial.state.in_([it for it in TrialState if it in states]))
            included = sorted(it for it in included_trial_ids if it <= trial_id_greater_than)
            first, *rest = _grouped(included) or [[]]
            conditions = [
                or_(trial.trial_id > trial_id_greater_than, trial.trial_id.in_(first)),
                *(trial.trial_id.in_(ids) for ids in rest),
            ]
            found = [it for asked in conditions for it in session.scalars(query.where(asked))]
            return _frozen(session, sorted(found, key=lambda it: it.trial_id))


def _grouped(ids: Sequence[int]) -> list[Sequence[int]]:
    return [ids[start : start + IDS_A_QUERY] for start in range(0, len(ids), IDS_A_QUERY)]


def _frozen(session: Session, found: Sequence[Any]) -> list[FrozenTrial]:
    """Each `models.TrialModel` with all that belongs to it."""
    ids: list[int] = [trial.trial_id for trial in found]
    value, step = models.TrialValueModel, models.TrialIntermediateValueModel
    values: dict[int, dict[int, float]] = collections.defaultdict(dict)
    columns = ("objective", "value", "value_type")
    for trial_id, number, stored, kind in _rows(session, ids, value, columns):
        values[trial_id][number] = value.stored_repr_to_value(stored, kind)
    steps: dict[int, dict[int, float]] = collections.defaultdict(dict)
    columns = ("step", "intermediate_value", "intermediate_value_type")
    for trial_id, number, stored, kind in _rows(session, ids, step, columns):
        steps[trial_id][number] = step.stored_repr_to_intermediate_value(stored, kind)
    params: dict[int, dict[str, Any]] = collections.defaultdict(dict)
    distributions: dict[int, dict[str, BaseDistribution]] = collections.defaultdict(dict)
    columns = ("param_name", "param_value", "distribution_json")
    for trial_id, name, stored, text in _rows(session, ids, models.TrialParamModel, columns):
        distribution = _shared(text) or json_to_distribution(text)
        params[trial_id][name] = distribution.to_external_repr(stored)
        distributions[trial_id][name] = distribution
    user_attrs = _attributes(session, ids, models.TrialUserAttributeModel)
    system_attrs = _attributes(session, ids, models.TrialSystemAttributeModel)
    return [
        FrozenTrial(
            number=trial.number,
            state=trial.state,
            value=None,
            values=[it for _, it in sorted(values[trial.trial_id].items())] or None,
            datetime_start=trial.datetime_start,
            datetime_complete=trial.datetime_complete,
            params=params[trial.trial_id],
            distributions=distributions[trial.trial_id],
            user_attrs=trial_in_order(user_attrs[trial.trial_id]),
            system_attrs=system_attrs[trial.trial_id],
            intermediate_values=steps[trial.trial_id],
            trial_id=trial.trial_id,
        )
        for trial in found
    ]


@functools.lru_cache(1024)
def _shared(text: str) -> BaseDistribution | None:
    """A distribution for all trials that have it, or None where a choice could be changed."""
    distribution = json_to_distribution(text)
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    return None if any(isinstance(it, list | dict) for it in choices) else distribution


def _attributes(session: Session, ids: Sequence[int], model: Any) -> dict[int, dict[str, Any]]:
    attrs: dict[int, dict[str, Any]] = collections.defaultdict(dict)
    for trial_id, key, text in _rows(session, ids, model, ("key", "value_json")):
        attrs[trial_id][key] = json.loads(text)
    return attrs


def _rows(
    session: Session, ids: Sequence[int], model: Any, columns: Iterable[str]
) -> Iterator[Any]:
    """Of a table that belongs to trials: each row's trial and these columns, in stored order."""
    table = model.__table__
    query = select(table.c.trial_id, *(table.c[it] for it in columns)).order_by(*table.primary_key)
    for group in _grouped(ids):
        yield from session.execute(query.where(table.c.trial_id.in_(group)))


# Reads, and writes that store the same thing when they are done twice. All but the underscored ones
# are public methods of Optuna's storage; those are what its cache calls.
for _name in (
    "_get_best_trial_id",
    "_get_trials",
    "_set_trial_param",
    "get_all_studies",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_system_attrs",
    "get_trial_user_attrs",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "set_trial_user_attr",
):
    setattr(PatientStorage, _name, patient(getattr(PatientStorage, _name)))
