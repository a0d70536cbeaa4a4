"""One recorded trial, run again alone: the same parameters, seed, threads and precision.

It runs by the same engine, worker and display as any trial, but in a database and an artifact store
of its own that go when the block ends: nothing is written to where it was recorded.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from tuner import outcomes, wording
from tuner.artifacts import MODEL_FILE, Artifacts
from tuner.design import Purpose, one_more
from tuner.errors import TooManyFailed, TunerError, UsageError
from tuner.flags import Given
from tuner.launch import Enrolled, bring_to_target
from tuner.machine import AUTO, PRECISIONS
from tuner.settings import RunSettings, resolve_again
from tuner.storage import (
    Database,
    StoredAttributes,
    find_study,
    open_database,
    register,
    storage_errors,
)
from tuner.storage.attributes import ID_ATTR, OUTCOME_ATTR, REASON_ATTR, SEED_ATTR
from tuner.study import Snapshot, find_again


@dataclass(frozen=True)
class Recorded:
    """A trial as the database has it.

    Attributes:
        study: the name of its study.
        uid: names the study in the artifact store; "" for another program's.
        environment: where it ran: versions, commit, processor; empty if that is not known.
    """

    study: str
    uid: str
    stored: StoredAttributes
    trial: FrozenTrial
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """For people: ``trial 5 of mnist``."""
        return f"trial {self.trial.number} of {self.study}"

    @property
    def title(self) -> str:
        """The same at the beginning of a sentence; the study's name stays as it is written."""
        return f"Trial {self.trial.number} of {self.study}"

    def fetch_model(self, artifacts: str, to: Path) -> bool:
        """Copy its model to a path; False if it is not in this artifact store.

        Args:
            artifacts: the store's address.
            to: the path.

        Raises:
            OSError: the store cannot be read, or the path not be written.
        """
        store = Artifacts(artifacts, self.study, self.uid)
        return store.fetch(self.trial.system_attrs, MODEL_FILE, to)


@dataclass(frozen=True)
class Rerun:
    """What came out of running a trial again.

    Attributes:
        model_file: the model that it left, or None; it goes when the block ends.
    """

    trial: FrozenTrial
    environment: dict[str, Any]
    model_file: Path | None


def read_trials(database: Database, study: str) -> list[Recorded]:
    """All trials of a study, by their numbers.

    Raises:
        UsageError: there is no such study.
    """
    study_id = find_study(database, study)
    with storage_errors(database.url):
        attrs = database.storage.get_study_user_attrs(study_id)
        trials = database.storage.get_all_trials(study_id, deepcopy=False)
    stored, uid = StoredAttributes.of(attrs), str(attrs.get(ID_ATTR, ""))
    return [
        Recorded(study, uid, stored, trial, stored.environments.get(_environment_of(trial), {}))
        for trial in trials
    ]


def _environment_of(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("environment", ""))


def pick(trials: list[Recorded], study: str, number: int) -> Recorded:
    """The trial with a number, if it ended.

    Raises:
        UsageError: there is none, or it has nothing to compare with.
    """
    if number >= len(trials):
        last = f"the last one is {len(trials) - 1}" if trials else "it has none yet"
        raise UsageError(f"{study} has no trial {number}; {last}.")
    recorded = trials[number]
    if recorded.trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
        raise UsageError(
            f"Trial {number} of {study} is {recorded.trial.state.name}; choose one that is "
            "COMPLETE or PRUNED."
        )
    return recorded


@contextlib.contextmanager
def run_again(
    recorded: Recorded, given: Given, console: Console, purpose: Purpose = Purpose.SEARCH
) -> Iterator[Rerun]:
    """Run a trial once more.

    Args:
        recorded: the trial.
        given: the command's options: cache, ``quiet`` and ``verbose``.
        console: for what is shown meanwhile.
        purpose: `Purpose.FINAL` to train on all data instead.

    Raises:
        UsageError: the trial was not run by `tuner run`, or its study file is not here or another.
        TunerError: it failed, or the command was interrupted.
    """
    snapshot, trial = recorded.stored.snapshot, recorded.trial
    if snapshot is None or not isinstance(trial.user_attrs.get(SEED_ATTR), int):
        raise UsageError(
            f"{recorded.title} was not run by `tuner run`, so neither the file nor the "
            "seed that it was trained with is known."
        )
    study_file = find_again(snapshot.file)
    name = f"{recorded.study}, {trial.number} again"
    with tempfile.TemporaryDirectory(prefix="tuner-again-", ignore_cleanup_errors=True) as folder:
        settings = resolve_again(
            given,
            study=name,
            study_file=study_file,
            folder=Path(folder),
            precision=_precision_of(recorded),
            threads=_threads_of(recorded),
        )
        try:
            bring_to_target(
                settings,
                console,
                lambda database, found: _enrol(
                    recorded, settings, database, (snapshot, found), purpose
                ),
            )
        except TooManyFailed as error:
            reason = _last(settings).trial.user_attrs.get(REASON_ATTR, "no reason is stored")
            raise TunerError(f"{recorded.title} failed this time: {reason}.") from error
        yield _read(settings, Path(folder) / MODEL_FILE)


def _precision_of(recorded: Recorded) -> str:
    """As the trial recorded it, else as its study was run; an objective may mean another thing."""
    said = recorded.trial.user_attrs.get("precision")
    if said in PRECISIONS:
        return str(said)
    return recorded.stored.search.get("precision", AUTO)


def _threads_of(recorded: Recorded) -> int | None:
    said = recorded.trial.user_attrs.get("threads")
    return said if isinstance(said, int) and said >= 1 else None


def _enrol(
    recorded: Recorded,
    settings: RunSettings,
    database: Database,
    then_and_now: tuple[Snapshot, Snapshot],
    purpose: Purpose,
) -> Enrolled:
    then, now = then_and_now
    now.require_same(then, recorded.study)
    if purpose is Purpose.FINAL and "final" not in now.offers:
        raise UsageError(
            f"{now.file} has no function final(trial), which trains on training and validation "
            "data; define it, or leave --final out."
        )
    record = register(
        database,
        settings.study,
        now,
        seed=settings.seed,
        search=settings.search,
    )
    trial = recorded.trial
    pruned = trial.state == TrialState.PRUNED
    pruned = pruned and trial.user_attrs.get(OUTCOME_ATTR) != outcomes.DIVERGED
    design = one_more(
        dict(trial.params),
        int(trial.user_attrs[SEED_ATTR]),
        purpose=purpose,
        pruned_at=trial.last_step if pruned else None,
    )
    threads = "" if settings.threads is None else f", {wording.count(settings.threads, 'thread')}"
    how = f"{recorded.name} again, seed {trial.user_attrs[SEED_ATTR]}{threads}"
    return Enrolled(record, design, how, "models" if purpose is Purpose.FINAL else "")


def _last(settings: RunSettings) -> Recorded:
    with contextlib.closing(open_database(settings.storage, read_only=True)) as database:
        return read_trials(database, settings.study)[-1]


def _read(settings: RunSettings, model_file: Path) -> Rerun:
    """What came out, with its model, if there is one, under that name."""
    last = _last(settings)
    left = last.fetch_model(settings.artifacts, model_file)
    return Rerun(last.trial, last.environment, model_file if left else None)
