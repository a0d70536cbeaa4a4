"""What we keep as Optuna's attributes of studies and trials: names, reading, writing."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.storages._rdb import models
from sqlalchemy import select
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
CONFIRMS_ATTR = "tuner:confirms"  # the name of the study whose configurations this one re-runs

# Of a trial.
SEED_ATTR = "seed"
REASON_ATTR = "reason"
OUTCOME_ATTR = "outcome"


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


@dataclass(frozen=True)
class StoredAttributes:
    """What we keep of a study, read back; all empty for a study of another program.

    Attributes:
        snapshot: what the study file declared.
        seed: the study's.
        search: names of the sampler, the pruner and the precision of the last run.
        samplers: of all runs; empty if that is not known.
        target: how many trials were asked for.
        confirms: the study whose configurations this one re-runs.
        environments: versions, commit and machine of the workers, by hash.
    """

    snapshot: Snapshot | None = None
    seed: int | None = None
    search: dict[str, str] = field(default_factory=dict)
    samplers: frozenset[str] = frozenset()
    target: int | None = None
    confirms: str | None = None
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def of(user_attrs: Mapping[str, Any]) -> "StoredAttributes":
        """Pick ours from a study's user attributes; what another program put there is left."""
        definition = user_attrs.get(DEFINITION_ATTR)
        search = _dict(user_attrs.get(SEARCH_ATTR))
        samplers = user_attrs.get(SAMPLERS_ATTR) or [search.get("sampler")]
        seed, confirms = user_attrs.get(STUDY_SEED_ATTR), user_attrs.get(CONFIRMS_ATTR)
        target = _dict(user_attrs.get(REQUEST_ATTR)).get("target")
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
            confirms=confirms if isinstance(confirms, str) else None,
            environments={
                key.removeprefix(ENVIRONMENT_ATTR): value
                for key, value in user_attrs.items()
                if key.startswith(ENVIRONMENT_ATTR) and isinstance(value, dict)
            },
        )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
