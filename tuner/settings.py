"""A command's settings: where each value comes from, and its default.

A value is taken from the first of these that has it: the flag, the environment, the default.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import UsageError
from tuner.machine import AUTO, PRECISION_VARIABLE, PRECISIONS, default_workers
from tuner.search import DEFAULT_PRUNER, DEFAULT_SAMPLER, PRUNERS, SAMPLERS
from tuner.study import find_file
from tuner.wording import closest

DEFAULT_STORAGE = "sqlite:///tuner.db"
STORAGE_VARIABLE = "OPTUNA_STORAGE"  # Optuna's own tools read it, too

# Failures allowed before a command gives up: this many, or this share of the target if more.
LEAST_FAILURES = 5
FAILURE_SHARE = 0.1

DEFAULT_ARTIFACTS = "tuner-artifacts"  # a folder in the directory of the command
ARTIFACTS_VARIABLE = "TUNER_ARTIFACTS"

LONGEST_STUDY_NAME = 512  # characters, of Optuna's column


@dataclass(frozen=True)
class RunSettings:
    """Everything `tuner run` was asked for, resolved.

    Attributes:
        study: the study's name in the database.
        study_argument: what the user wrote for ``--study``.
        study_file: the file that defines it.
        trials: the target N, at least 1.
        workers: processes; 0 runs the trials in the command's own process.
        seed: the study's seed, or None to keep the stored one or draw one.
        precision: one of `tuner.machine.PRECISIONS`, for the workers.
        artifacts: the artifact store's folder, absolute.
        timeout: seconds until the command drains and exits 5, or None.
        trial_timeout: seconds after which a trial's worker is killed, or None.
        max_failures: failed trials allowed since the command started.
        detach: leave the trials to daemons.
        quiet: one plain line a trial, also on a terminal.
        verbose: show the workers' debug log.
    """

    study: str
    study_argument: str
    study_file: Path
    storage: str
    trials: int
    workers: int
    seed: int | None
    sampler: str
    pruner: str
    precision: str
    artifacts: Path
    timeout: float | None
    trial_timeout: float | None
    max_failures: int
    detach: bool
    quiet: bool
    verbose: bool


def resolve_run(flags: Mapping[str, Any]) -> RunSettings:
    """Settle every setting of `tuner run`.

    Args:
        flags: the command's options by name; None where one was not given.

    Raises:
        UsageError: there is no such study, sampler or pruner, or a number is out of range.
    """
    study_file = find_file(flags["study"])
    trials = flags["trials"]
    study = flags["study_name"] or study_file.stem
    workers = _resolve_workers(flags["workers"], trials)
    if workers == 0 and flags["trial_timeout"] is not None:
        raise UsageError(
            f"--trial-timeout {flags['trial_timeout']:g} needs worker processes that can be "
            "killed, and --workers is 0; leave one of them out."
        )
    if len(study) > LONGEST_STUDY_NAME:
        raise UsageError(
            f"The study's name has {len(study)} characters, and the database takes "
            f"{LONGEST_STUDY_NAME}; choose a shorter one with --study-name."
        )
    return RunSettings(
        study=study,
        study_argument=flags["study"],
        study_file=study_file,
        storage=resolve_storage(flags["storage"]),
        trials=trials,
        workers=workers,
        seed=flags["seed"],
        sampler=_known("sampler", flags["sampler"] or DEFAULT_SAMPLER, SAMPLERS),
        pruner=_known("pruner", flags["pruner"] or DEFAULT_PRUNER, PRUNERS),
        precision=_resolve_precision(flags["precision"]),
        artifacts=resolve_artifacts(flags["artifacts"]),
        timeout=flags["timeout"],
        trial_timeout=flags["trial_timeout"],
        max_failures=_resolve_max_failures(flags["max_failures"], trials),
        detach=flags["detach"],
        quiet=flags["quiet"],
        verbose=flags["verbose"],
    )


def _known(kind: str, name: str, registry: Mapping[str, object]) -> str:
    if name not in registry:
        raise UsageError(f"There is no {kind} {name!r}; {closest(name, registry)}")
    return name


def resolve_storage(flag: str | None) -> str:
    """The storage URL: ``--storage``, else ``OPTUNA_STORAGE``, else a SQLite file here."""
    return flag or os.environ.get(STORAGE_VARIABLE) or DEFAULT_STORAGE


def resolve_artifacts(flag: str | None) -> Path:
    """The artifact store: ``--artifacts``, else ``TUNER_ARTIFACTS``, else a folder here.

    Raises:
        UsageError: it is no folder.
    """
    text = flag or os.environ.get(ARTIFACTS_VARIABLE) or DEFAULT_ARTIFACTS
    path = Path(text).absolute()
    if "://" in text or (path.exists() and not path.is_dir()):
        raise UsageError(f"--artifacts {text} is not a folder; name one, or one to be made.")
    return path


def _resolve_precision(flag: str | None) -> str:
    """What layers compute in: ``--precision``, else ``TUNER_PRECISION``, else auto.

    Raises:
        UsageError: there is no such precision.
    """
    name = flag or os.environ.get(PRECISION_VARIABLE) or AUTO
    return _known("precision", name, dict.fromkeys(PRECISIONS))


@dataclass(frozen=True)
class DaemonSettings:
    """Everything `tuner worker` was asked for, resolved.

    Attributes:
        studies: names of the studies to serve; empty: all.
        workers: processes, at least 1.
        artifacts: the artifact store's folder, absolute.
        verbose: show the workers' debug log.
    """

    storage: str
    studies: frozenset[str]
    workers: int
    artifacts: Path
    verbose: bool


def resolve_daemon(flags: Mapping[str, Any]) -> DaemonSettings:
    """Settle every setting of `tuner worker`.

    Args:
        flags: the command's options by name; None where one was not given.

    Raises:
        UsageError: the artifact store is no folder.
    """
    return DaemonSettings(
        storage=resolve_storage(flags["storage"]),
        studies=frozenset(flags["study"]),
        workers=flags["workers"] or default_workers(),
        artifacts=resolve_artifacts(flags["artifacts"]),
        verbose=flags["verbose"],
    )


def _resolve_workers(flag: int | None, trials: int) -> int:
    """How many worker processes to start: never more than there are trials to run.

    Raises:
        UsageError: the flag is negative.
    """
    if flag is not None and flag < 0:
        raise UsageError(f"--workers is {flag}; give a number from 1, or 0 to run in this process.")
    return min(default_workers() if flag is None else flag, trials)


def _resolve_max_failures(flag: int | None, trials: int) -> int:
    """How many trials may fail.

    Raises:
        UsageError: the flag is negative.
    """
    if flag is not None and flag < 0:
        raise UsageError(f"--max-failures is {flag}; give a number from 0.")
    return max(LEAST_FAILURES, int(FAILURE_SHARE * trials)) if flag is None else flag
