"""A study's own record: its definition, seed and environments, as Optuna study attributes."""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study.study import _SYSTEM_ATTR_METRIC_NAMES as METRIC_NAMES_ATTR
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from tuner.errors import UsageError
from tuner.seeds import draw_study_seed
from tuner.storage.attributes import (
    COMPARE_ATTR,
    DEFINITION_ATTR,
    ENVIRONMENT_ATTR,
    ID_ATTR,
    OPENINGS_ATTR,
    SAMPLERS_ATTR,
    SEARCH_ATTR,
    STORES_ATTR,
    STUDY_SEED_ATTR,
    StoredAttributes,
    read_study_attr,
    write_study_attr,
)
from tuner.storage.database import Database, locked_study, session_of, storage_errors
from tuner.storage.tables import claims
from tuner.study import Snapshot

# A study remembers the artifact stores of so many hosts, the last ones, and for so long, in
# seconds: containers come and go under new names, and a column of MySQL takes 65,535 bytes.
MOST_HOSTS, STORE_SECONDS = 100, 24 * 3600.0


@dataclass(frozen=True)
class StudyRecord:
    """A study that is in the database.

    Attributes:
        uid: names it in the artifact store: unlike its name and id, never given again.
        warnings: sentences for the user: what changed since the last run.
        compare: the parameter whose levels share the budget equally, or None.
    """

    study_id: int
    name: str
    seed: int
    uid: str
    warnings: list[str]
    compare: str | None = None


def register(  # noqa: PLR0913 - all that is kept of a study
    database: Database,
    name: str,
    snapshot: Snapshot,
    *,
    seed: int | None,
    search: dict[str, str],
    compare: str | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> StudyRecord:
    """Create the study, or check that the one of this name has the same definition and seed.

    Args:
        database: where.
        name: the study's name in the database.
        snapshot: what the study file declares.
        seed: the seed asked for, or None to keep the stored one or draw one.
        search: names of the sampler, the pruner and the precision, kept for people and reports.
        compare: the parameter whose levels are to share the budget equally; None: as it is stored.
        attrs: further user attributes of the study, which never change.

    Raises:
        UsageError: another definition, seed, comparison or attribute is stored under this name.
    """
    directions = [StudyDirection[it.upper()] for it in snapshot.directions]
    with storage_errors(database.url):
        try:
            study_id = database.storage.create_new_study(directions, name)
        except DuplicatedStudyError:
            study_id = database.storage.get_study_id_from_name(name)
        _check_direction(database, study_id, name, snapshot)
    with locked_study(database, study_id) as session:
        uid = read_study_attr(session, study_id, ID_ATTR) or secrets.token_hex(6)
        warnings = _check_definition(session, study_id, name, snapshot)
        warnings += _check_precision(session, study_id, name, search.get("precision"))
        kept_seed = _check_seed(session, study_id, name, seed)
        compare = _check_compare(session, study_id, name, compare)
        if compare is not None:
            write_study_attr(session, study_id, COMPARE_ATTR, compare)
        _write_once(session, study_id, name, attrs or {})
        write_study_attr(session, study_id, DEFINITION_ATTR, json.loads(snapshot.to_json()))
        write_study_attr(session, study_id, STUDY_SEED_ATTR, kept_seed)
        _add_sampler(session, study_id, search.get("sampler"))
        write_study_attr(session, study_id, SEARCH_ATTR, search)
        write_study_attr(session, study_id, ID_ATTR, uid)
        _name_objectives(session, study_id, snapshot)
        _forget_deleted_trials(session)
    return StudyRecord(study_id, name, kept_seed, uid, warnings, compare)


@dataclass(frozen=True)
class StudyPreview:
    """What a database holds of a study that a run would go on with.

    Attributes:
        seed: the study's.
        warnings: what that run would say.
        compare: the parameter whose levels share the budget equally, or None.
        trials: of any state, in order of their numbers.
    """

    seed: int
    warnings: list[str]
    compare: str | None
    trials: list[optuna.trial.FrozenTrial]


def preview(  # noqa: PLR0913 - what `register` is told
    database: Database,
    name: str,
    snapshot: Snapshot,
    *,
    seed: int | None,
    precision: str,
    compare: str | None,
) -> StudyPreview | None:
    """What `register` would find; it writes nothing.

    Returns:
        None if there is no such study yet.

    Raises:
        UsageError: as `register`.
    """
    with storage_errors(database.url):
        known = {study.study_name: study._study_id for study in database.storage.get_all_studies()}
        if name not in known:
            return None
        study_id = known[name]
        _check_direction(database, study_id, name, snapshot)
        with session_of(database) as session:
            warnings = _check_definition(session, study_id, name, snapshot)
            warnings += _check_precision(session, study_id, name, precision)
            kept_seed = _check_seed(session, study_id, name, seed)
            compare = _check_compare(session, study_id, name, compare)
        trials = database.storage.get_all_trials(study_id, deepcopy=False)
    return StudyPreview(kept_seed, warnings, compare, trials)


_OTHER_NAME = (
    "choose another name with --study-name, or delete the study with `optuna delete-study`."
)


def _name_objectives(session: Session, study_id: int, snapshot: Snapshot) -> None:
    """As `optuna.Study.set_metric_names`, for other programs; names that are there stay."""
    attr = models.StudySystemAttributeModel
    here = (attr.study_id == study_id, attr.key == METRIC_NAMES_ATTR)
    if snapshot.more_objectives and session.scalar(select(attr.study_id).where(*here)) is None:
        names = json.dumps(snapshot.metrics)
        session.execute(
            insert(attr).values(study_id=study_id, key=METRIC_NAMES_ATTR, value_json=names)
        )


def _forget_deleted_trials(session: Session) -> None:
    """SQLite gives the ids of deleted trials to new ones, and other programs leave our rows."""
    session.execute(
        delete(claims).where(claims.c.trial_id.not_in(select(models.TrialModel.trial_id)))
    )


def _add_sampler(session: Session, study_id: int, sampler: str | None) -> None:
    """Remember all of them; a study begun before that was done has the last run's only."""
    last = (read_study_attr(session, study_id, SEARCH_ATTR) or {}).get("sampler")
    known = read_study_attr(session, study_id, SAMPLERS_ATTR) or [last]
    write_study_attr(session, study_id, SAMPLERS_ATTR, sorted({*known, sampler} - {None}))


def _check_direction(database: Database, study_id: int, name: str, snapshot: Snapshot) -> None:
    stored = [it.name.lower() for it in database.storage.get_study_directions(study_id)]
    if stored != snapshot.directions:
        raise UsageError(
            f"The study {name!r} in {database.url} has the direction {', '.join(stored)}, and "
            f"{snapshot.file} says {', '.join(snapshot.directions)}; {_OTHER_NAME}"
        )


def _check_definition(session: Session, study_id: int, name: str, snapshot: Snapshot) -> list[str]:
    stored = read_study_attr(session, study_id, DEFINITION_ATTR)
    if stored is None:
        return []
    before = Snapshot.from_dict(stored)
    difference = snapshot.difference(before)
    if difference:
        raise UsageError(
            f"The study {name!r} was begun with another definition: {difference}. Its trials would "
            f"not be comparable; {_OTHER_NAME}"
        )
    if snapshot.file_hash != before.file_hash:
        words = (
            f"{snapshot.file} changed since the last run of {name!r}; its space is the same, so "
            "the study goes on, but check that old and new trials may be compared."
        )
        return [words]
    return []


def _check_precision(
    session: Session, study_id: int, name: str, precision: str | None
) -> list[str]:
    stored = (read_study_attr(session, study_id, SEARCH_ATTR) or {}).get("precision", precision)
    if stored == precision:
        return []
    words = (
        f"{name!r} was last run with --precision {stored}, and now runs with {precision}; each "
        "trial says which it had, but check that old and new trials may be compared."
    )
    return [words]


def _check_seed(session: Session, study_id: int, name: str, seed: int | None) -> int:
    stored = read_study_attr(session, study_id, STUDY_SEED_ATTR)
    if stored is None:
        return draw_study_seed() if seed is None else seed
    if seed is not None and seed != stored:
        raise UsageError(
            f"The study {name!r} was begun with --seed {stored}, and {seed} would not reproduce "
            "its trials; give none (--seed, TUNER_SEED, seed in tuner.toml), or choose another "
            "name with --study-name."
        )
    return int(stored)


def _check_compare(session: Session, study_id: int, name: str, compare: str | None) -> str | None:
    """What the study compares: budgets begun unequal can't be made equal later, nor others."""
    stored = read_study_attr(session, study_id, COMPARE_ATTR)
    if compare is None or compare == stored:
        return None if stored is None else str(stored)
    trial = models.TrialModel
    begun = session.scalar(select(trial.trial_id).where(trial.study_id == study_id).limit(1))
    if begun is None:
        return compare
    was = "without --compare" if stored is None else f"with --compare {stored}"
    raise UsageError(
        f"The study {name!r} was begun {was}, and --compare {compare} deals its trials otherwise; "
        "choose another name with --study-name."
    )


def _write_once(session: Session, study_id: int, name: str, attrs: Mapping[str, Any]) -> None:
    for key, value in attrs.items():
        stored = read_study_attr(session, study_id, key)
        if stored is None:
            write_study_attr(session, study_id, key, value)
        elif stored != json.loads(json.dumps(value)):
            raise UsageError(
                f"Another command has just begun {name} with other configurations; wait for it, "
                "and run this one again."
            )


def read_stored(database: Database, name: str) -> StoredAttributes:
    """What we keep of the study of this name; nothing where there is none."""
    with storage_errors(database.url):
        try:
            study_id = database.storage.get_study_id_from_name(name)
        except KeyError:
            return StoredAttributes()
        return StoredAttributes.of(database.storage.get_study_user_attrs(study_id))


def record_opening(database: Database, study_id: int, opening: dict[str, Any]) -> None:
    """Note in a search that its test set is opened; once for each confirmation.

    Args:
        database: where.
        study_id: of the search.
        opening: see `StoredAttributes.openings`.
    """

    def write(_again: bool) -> None:  # noqa: FBT001 - the callback's signature
        with locked_study(database, study_id) as session:
            there = read_study_attr(session, study_id, OPENINGS_ATTR) or []
            if all(it.get("id") != opening["id"] for it in there):
                write_study_attr(session, study_id, OPENINGS_ATTR, [*there, opening])

    database.patience.run(write)


def record_store(database: Database, study_id: int, host: str, store: str) -> list[str]:
    """Note which artifact store a host uses for a study, and tell who uses another one.

    Args:
        database: where.
        study_id: of the study.
        host: this host's name.
        store: what tells its store from others.

    Returns:
        The names of hosts whose last one was another within `STORE_SECONDS`, sorted.
    """
    others: list[str] = []

    def write(_again: bool) -> None:  # noqa: FBT001 - the callback's signature
        with locked_study(database, study_id) as session:
            known, now = read_study_attr(session, study_id, STORES_ATTR), time.time()
            stores = {
                name: (its, since)
                for name, (its, since) in (known if isinstance(known, dict) else {}).items()
                if name != host and now - since < STORE_SECONDS
            }
            others[:] = sorted(name for name, (its, _) in stores.items() if its != store)
            kept = dict([*stores.items()][-MOST_HOSTS + 1 :])
            write_study_attr(session, study_id, STORES_ATTR, {**kept, host: (store, int(now))})

    database.patience.run(write)
    return others


def record_environment(
    database: Database, study_id: int, digest: str, environment: dict[str, Any]
) -> None:
    """Keep the environment of a worker once a study; its trials name it by its hash."""

    def write(_again: bool) -> None:  # noqa: FBT001 - the callback's signature
        with locked_study(database, study_id) as session:
            write_study_attr(session, study_id, ENVIRONMENT_ATTR + digest, environment)

    database.patience.run(write)
