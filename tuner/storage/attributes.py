"""What we keep as Optuna's attributes of studies and trials: names, reading, writing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from tuner.study import Snapshot

# Of a study.
DEFINITION_ATTR = "tuner:definition"
STUDY_SEED_ATTR = "tuner:seed"
SEARCH_ATTR = "tuner:search"  # of the last run
SAMPLERS_ATTR = "tuner:samplers"  # of all runs: one adaptive run makes a study adaptive
REQUEST_ATTR = "tuner:request"
ID_ATTR = "tuner:id"  # names the study in the artifact store
ENVIRONMENT_ATTR = "environment:"  # + the environment's hash
COMPARE_ATTR = "tuner:compare"  # the parameter whose levels share the budget equally
CONFIRMS_ATTR = "tuner:confirms"  # the name of the study whose configurations this one re-runs
CONFIGURATIONS_ATTR = "tuner:configurations"  # that it re-runs: their parameters
ASKED_ATTR = "tuner:asked"  # which these were, and on how many seeds: as the command asked
STORES_ATTR = "tuner:stores"  # which artifact store each host has used last, by its own mark
OPENINGS_ATTR = "tuner:openings"  # of a search: when the test set was opened for it

# Of a trial.
SEED_ATTR = "seed"
REASON_ATTR = "reason"
OUTCOME_ATTR = "outcome"
FROM_STUDY_ATTR = "from_study"  # [study, trial]: whose configuration it is, if not sampled
# How user attributes stand in optuna-dashboard: what a person looks for first, then what is not
# named here (an objective's own, or a study's), then where it ran and, last, hashes.
TRIAL_FIRST = (OUTCOME_ATTR, REASON_ATTR, FROM_STUDY_ATTR)
TRIAL_LAST = (
    "seconds", "report_seconds", "cached_features", "precision", "device", "threads", "memory_mb",
    "worker", "host", SEED_ATTR, "environment", "source", "base_hash", "weights_hash",
)  # fmt: skip
STUDY_LAST = (
    COMPARE_ATTR, CONFIRMS_ATTR, ASKED_ATTR, OPENINGS_ATTR, SEARCH_ATTR, STUDY_SEED_ATTR,
    REQUEST_ATTR, SAMPLERS_ATTR, ID_ATTR, STORES_ATTR, CONFIGURATIONS_ATTR, DEFINITION_ATTR,
)  # fmt: skip
# System attributes of a trial; the first two where a study has arms, see `tuner.design`.
ARM_ATTR = "tuner:arm"
BLOCK_ATTR = "tuner:block"
# The step after which a trial was to be pruned. A pruner with rungs would not decide again: it has
# written that the rung is passed.
PRUNED_AT = "tuner:pruned_at"


_TRIAL_PLACES = {
    **{name: place - len(TRIAL_FIRST) for place, name in enumerate(TRIAL_FIRST)},
    **{name: place for place, name in enumerate(TRIAL_LAST, 1)},
}
_STUDY_PLACES = {name: place for place, name in enumerate(STUDY_LAST, 1)}


def trial_in_order(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's user attributes as people look for them, see `TRIAL_FIRST`."""
    return {name: attrs[name] for name in sorted(attrs, key=lambda it: _TRIAL_PLACES.get(it, 0))}


def study_in_order(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """A study's user attributes as people look for them: its own first, its definition last."""

    def place(name: str) -> float:
        # What the workers ran on stands before the two that are long.
        hosts = len(STUDY_LAST) - 2.5
        return hosts if name.startswith(ENVIRONMENT_ATTR) else _STUDY_PLACES.get(name, 0)

    return {name: attrs[name] for name in sorted(attrs, key=place)}


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


def add_system_attrs(session: Session, trial_id: int, attrs: Mapping[str, Any]) -> None:
    """Add system attributes that a trial does not have yet; the caller holds the study."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for key, value in attrs.items()
    ]
    if rows:
        session.execute(insert(models.TrialSystemAttributeModel), rows)


@dataclass(frozen=True)
class StoredAttributes:
    """What we keep of a study, read back; all empty for a study of another program.

    Attributes:
        snapshot: what the study file declared.
        seed: the study's.
        search: names of the sampler, the pruner and the precision of the last run.
        samplers: of all runs; empty if that is not known.
        target: how many trials were asked for.
        compare: the parameter whose levels share the budget equally, of ``run --compare``.
        confirms: the study whose configurations this one re-runs.
        configurations: that it re-runs: the parameters of each.
        asked: which these were, and on how many ``seeds``: ``top`` or ``per_level``.
        openings: of a search, oldest first: ``when`` the test set was opened for it (UTC, ISO
            8601), at which ``commit``, for which ``study`` (with the ``id`` that names it in the
            artifact store) of how many ``configurations`` and ``seeds``.
        environments: versions, commit and machine of the workers, by hash.
        uid: names the study in the artifact store.
    """

    snapshot: Snapshot | None = None
    seed: int | None = None
    search: dict[str, str] = field(default_factory=dict)
    samplers: frozenset[str] = frozenset()
    target: int | None = None
    compare: str | None = None
    confirms: str | None = None
    configurations: list[dict[str, Any]] = field(default_factory=list)
    asked: dict[str, Any] = field(default_factory=dict)
    openings: list[dict[str, Any]] = field(default_factory=list)
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    uid: str | None = None

    @staticmethod
    def of(user_attrs: Mapping[str, Any]) -> "StoredAttributes":
        """Pick ours from a study's user attributes; what another program put there is left."""
        definition = user_attrs.get(DEFINITION_ATTR)
        search = _dict(user_attrs.get(SEARCH_ATTR))
        samplers = user_attrs.get(SAMPLERS_ATTR) or [search.get("sampler")]
        seed, confirms = user_attrs.get(STUDY_SEED_ATTR), user_attrs.get(CONFIRMS_ATTR)
        compare = user_attrs.get(COMPARE_ATTR)
        target, uid = _dict(user_attrs.get(REQUEST_ATTR)).get("target"), user_attrs.get(ID_ATTR)
        try:
            snapshot = Snapshot.from_dict(_dict(definition)) if definition else None
        except TypeError:  # a name is missing
            snapshot = None
        return StoredAttributes(
            snapshot=snapshot,
            seed=seed if isinstance(seed, int) else None,
            search={key: value for key, value in search.items() if isinstance(value, str)},
            samplers=frozenset(it for it in _list(samplers) if isinstance(it, str)),
            target=target if isinstance(target, int) else None,
            compare=compare if isinstance(compare, str) else None,
            confirms=confirms if isinstance(confirms, str) else None,
            configurations=_dicts(user_attrs.get(CONFIGURATIONS_ATTR)),
            asked=_dict(user_attrs.get(ASKED_ATTR)),
            openings=_dicts(user_attrs.get(OPENINGS_ATTR)),
            environments={
                key.removeprefix(ENVIRONMENT_ATTR): value
                for key, value in user_attrs.items()
                if key.startswith(ENVIRONMENT_ATTR) and isinstance(value, dict)
            },
            uid=uid if isinstance(uid, str) else None,
        )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [it for it in _list(value) if isinstance(it, dict)]
