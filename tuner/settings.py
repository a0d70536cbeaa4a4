"""A command's settings, resolved: every value checked, and its default filled in.

Where a value comes from (flag, environment, ``tuner.toml``, default) is decided in `tuner.flags`.
"""

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner import cache
from tuner.artifacts import BUCKET_SCHEME, open_store
from tuner.errors import UsageError
from tuner.flags import ENGINES, PASSWORD_FILE_VARIABLE, Given
from tuner.machine import (
    AUTO,
    GPUS_VARIABLE,
    PRECISION_VARIABLE,
    default_workers,
    thread_variables,
)
from tuner.search import DEFAULT_PRUNER, DEFAULT_SAMPLER, PRUNERS, SAMPLERS
from tuner.study import find_file
from tuner.wording import closest, cut, redact, redact_value

DEFAULT_STORAGE = "sqlite:///tuner.db"
DEFAULT_ARTIFACTS = "tuner-artifacts"  # a folder in the directory of the command

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080  # of the dashboard: this machine alone

# Failures allowed before a command gives up: this many, or this share of the target if more.
LEAST_FAILURES = 5
FAILURE_SHARE = 0.1

DEFAULT_RAY_ADDRESS = "auto"
RAY_VARIABLE = "RAY_ADDRESS"  # Ray's own
# What Ray keeps for a worker: of a trial that is computed on CPUs, one thread's worth.
DEFAULT_CPUS, DEFAULT_GPUS = 1.0, 0.0
RAY_LEAST = 1e-4  # the finest part of a CPU or GPU that Ray knows
# How Ray calls a cluster that is reached from outside.
RAY_CLIENT = "ray://"

LONGEST_STUDY_NAME = 512  # characters, of Optuna's column

# A key takes 1,024 bytes, and what we put behind the prefix takes less than 200.
_BUCKET = re.compile(rf"{BUCKET_SCHEME}[\w.-]{{3,255}}(?:/(?:[\w.=-]+/)*[\w.=-]*)?", re.ASCII)
_LONGEST_BUCKET = 800


@dataclass(frozen=True)
class RayPlace:
    """Where Ray puts workers.

    Attributes:
        address: of the cluster: ``auto`` for the one of this machine, ``local``, ``HOST:PORT`` or
            ``ray://HOST:PORT``.
        named: the same as a message names it, with what says so.
        cpus: that Ray keeps for each worker, above 0.
        gpus: likewise; 0 for none, and a fraction for a share of one.
    """

    address: str
    named: str
    cpus: float
    gpus: float

    @property
    def is_remote(self) -> bool:
        """Whether this machine is none of the cluster's."""
        return self.address.startswith(RAY_CLIENT)


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
        artifacts: the artifact store's address: an absolute folder, or ``s3://BUCKET/PREFIX``.
        cache_dir: the folder of what is computed once a machine, absolute.
        cache_gb: the bound of stored features.
        timeout: seconds until the command drains and exits 5, or None.
        trial_timeout: seconds after which a trial's worker is killed, or None.
        max_failures: failed trials allowed since the command started.
        quiet: one plain line a trial, also on a terminal.
        no_publish: leave the study's page in optuna-dashboard as it is.
        verbose: show the workers' output and debug log.
        given: the options as they were given.
        compare: the parameter whose levels share the budget equally; None: as it is stored.
        from_study: the study whose best configurations are tried first, or None.
        detach: leave the trials to daemons.
        threads: of each worker; None: the machine's cores divided between them.
        ray: where Ray puts the workers; None: they are processes of this machine.
    """

    study: str
    study_argument: str
    study_file: Path
    storage: str = field(repr=False)
    trials: int
    workers: int
    seed: int | None
    sampler: str
    pruner: str
    precision: str
    artifacts: str
    cache_dir: Path
    cache_gb: float
    timeout: float | None
    trial_timeout: float | None
    max_failures: int
    quiet: bool
    verbose: bool
    given: Given = field(repr=False)
    compare: str | None = None
    from_study: str | None = None
    detach: bool = False
    threads: int | None = None
    no_publish: bool = False
    ray: RayPlace | None = None

    @property
    def search(self) -> dict[str, str]:
        """What the study keeps of it."""
        return {"sampler": self.sampler, "pruner": self.pruner, "precision": self.precision}

    def variables(self) -> dict[str, str]:
        """Environment variables for `tuner.finetune`, in workers or in this process."""
        return _variables(self.precision, self.cache_dir, self.cache_gb)

    def worker_variables(self) -> dict[str, str]:
        """Environment variables of each worker process."""
        variables = {**thread_variables(self.workers, self.threads), **self.variables()}
        if self.ray is not None:
            if self.given.values["cache_dir"] is None:  # a node's home is another one
                del variables[cache.CACHE_VARIABLE]
            if not self.ray.gpus:
                variables[GPUS_VARIABLE] = ""
        return variables


def resolve_run(given: Given) -> RunSettings:
    """Settle every setting of `tuner run`.

    Raises:
        UsageError: there is no such study, sampler or pruner, or settings contradict each other.
    """
    values = given.values
    study_file = find_file(values["study"])
    return _run_settings(
        given,
        study=values["study_name"] or study_file.stem,
        study_file=study_file,
        trials=values["trials"],
        seed=values["seed"],
        sampler=_registered("sampler", DEFAULT_SAMPLER, SAMPLERS, given),
        pruner=_registered("pruner", DEFAULT_PRUNER, PRUNERS, given),
        precision=values["precision"] or AUTO,
        compare=values["compare"],
        from_study=values["from_study"],
        detach=values["detach"],
    )


def resolve_confirm(  # noqa: PLR0913 - what the search decides
    given: Given, *, study: str, study_file: Path, trials: int, seed: int, precision: str
) -> RunSettings:
    """Settle every setting of the runs of `tuner confirm`: nothing is sampled, nothing pruned.

    Args:
        given: the command's options.
        study: the confirmation's name.
        study_file: of the search.
        trials: how many runs it shall have.
        seed: of the confirmation.
        precision: of the search, where none is given.

    Raises:
        UsageError: settings contradict each other.
    """
    return _run_settings(
        given,
        study=study,
        study_file=study_file,
        trials=trials,
        seed=seed,
        sampler="random",
        pruner="none",
        precision=given.values["precision"] or precision,
    )


def resolve_again(  # noqa: PLR0913 - what the trial's record decides
    given: Given,
    *,
    study: str,
    study_file: Path,
    folder: Path,
    precision: str,
    threads: int | None,
) -> RunSettings:
    """Settle every setting of a trial that is run again, alone.

    Args:
        given: the command's options.
        study: a name for people.
        study_file: of the trial's study.
        folder: for a database and artifacts of its own.
        precision: as recorded.
        threads: as recorded, or None.

    Raises:
        UsageError: the cache is no folder.
    """
    return RunSettings(
        study=study,
        study_argument=str(study_file),
        study_file=study_file,
        storage=f"sqlite:///{folder / 'again.db'}",
        trials=1,
        workers=1,
        seed=0,
        sampler="random",
        pruner="none",
        precision=precision,
        artifacts=str(folder / "artifacts"),
        cache_dir=_cache_dir(given),
        cache_gb=_or(given.values["cache_gb"], cache.DEFAULT_BOUND_GB),
        timeout=None,
        trial_timeout=None,
        max_failures=0,
        quiet=bool(given.values["quiet"]),
        verbose=given.values["verbose"],
        given=given,
        threads=threads,
    )


def artifacts_of(given: Given, *, check: bool = True) -> str:
    """The address of the artifact store that a command reads, which can be used.

    Args:
        given: the command's options.
        check: look whether it can be used; a command that can do without need not.

    Raises:
        UsageError: it is neither a folder nor a bucket, or boto3 is not there for one.
        StorageError: the bucket cannot be reached, or refuses us.
    """
    address = _artifacts(given)
    if check:
        open_store(address).check()
    return address


def _run_settings(given: Given, *, study: str, trials: int, **named: Any) -> RunSettings:
    """The settings of a command that runs trials; those of its own are named."""
    values = given.values
    if len(study) > LONGEST_STUDY_NAME:
        raise UsageError(
            f"The study's name has {len(study)} characters, and the database takes "
            f"{LONGEST_STUDY_NAME}; choose a shorter one with --study-name."
        )
    ray = _ray(given)
    workers = min(_or(values["workers"], default_workers()), trials)
    trial_timeout = values["trial_timeout"]
    if workers == 0 and not given.by_flag("trial_timeout"):
        trial_timeout = None  # it may stay in tuner.toml while one debugs
    if workers == 0 and trial_timeout is not None:
        raise UsageError(
            f"--trial-timeout {trial_timeout:g} needs worker processes that can be killed, and "
            f"{given.subject('workers')} is 0; leave one of them out."
        )
    return RunSettings(
        study=study,
        study_argument=values["study"],
        storage=resolve_storage(values["storage"]),
        trials=trials,
        workers=workers,
        artifacts=_artifacts(given),
        cache_dir=_cache_dir(given),
        cache_gb=_or(values["cache_gb"], cache.DEFAULT_BOUND_GB),
        timeout=values["timeout"],
        trial_timeout=trial_timeout,
        max_failures=_or(values["max_failures"], _allowed_failures(trials)),
        quiet=bool(values["quiet"]),
        verbose=values["verbose"],
        given=given,
        no_publish=bool(values["no_publish"]),
        threads=None if ray is None else max(1, int(ray.cpus)),
        ray=ray,
        **named,
    )


_RAY_ALONE = ("ray_address", "cpus_per_worker", "gpus_per_worker")


def _ray(given: Given) -> RayPlace | None:
    """Where Ray puts the workers, if it does."""
    values = given.values
    if (values["engine"] or ENGINES[0]) != "ray":
        for name in filter(given.by_flag, _RAY_ALONE):
            raise UsageError(
                f"{given.subject(name)} is for --engine ray, and the workers are processes of this "
                "machine; add --engine ray, or leave it out."
            )
        return None
    engine = f"{given.subject('engine')} is ray"
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            f"{engine}, which needs the package ray; install it with: pip install 'tuner[ray]', or "
            "leave it out."
        )
    if not values["workers"]:
        raise UsageError(
            f"{engine}, and how many workers it shall place is not said; add --workers W, from 1: "
            "each takes --cpus-per-worker of the cluster."
        )
    url = values["storage"] or ""
    if given.by_flag("storage") and redact(url) != url:
        raise UsageError(
            "--storage has a password in it, and Ray shows the command line on its dashboard; set "
            f"OPTUNA_STORAGE instead, or leave the password to the file that "
            f"{PASSWORD_FILE_VARIABLE} names."
        )
    cpus = _share("cpus", DEFAULT_CPUS, given)
    gpus = _share("gpus", DEFAULT_GPUS, given)
    if gpus > 1 and not gpus.is_integer():
        raise UsageError(
            f"{given.subject('gpus_per_worker')} is {gpus:g}, and Ray gives a part of one GPU or "
            "whole ones; give a fraction up to 1, or a whole number."
        )
    address, source = values["ray_address"] or DEFAULT_RAY_ADDRESS, "--ray-address"
    if address == DEFAULT_RAY_ADDRESS and (there := os.environ.get(RAY_VARIABLE)):
        address, source = there, RAY_VARIABLE
    return RayPlace(address, f"{source} {address}", cpus, gpus)


def _share(kind: str, default: float, given: Given) -> float:
    """What a worker takes of a kind, as finely as Ray counts."""
    name = f"{kind}_per_worker"
    share: float = _or(given.values[name], default)
    if 0 < share < RAY_LEAST:
        raise UsageError(
            f"{given.subject(name)} is {share:g}, and Ray counts no finer than {RAY_LEAST:g}; give "
            "more."
        )
    return share


@dataclass(frozen=True)
class DaemonSettings:
    """Everything `tuner worker` was asked for, resolved.

    Attributes:
        studies: names of the studies to serve; empty: all.
        workers: processes, at least 1.
        artifacts: the artifact store's address: an absolute folder, or ``s3://BUCKET/PREFIX``.
        cache_dir: the folder of what is computed once a machine, absolute.
        cache_gb: the bound of stored features.
        verbose: show the workers' output and debug log.
        idle: seconds without an open request after which the daemon ends, or None.
    """

    storage: str = field(repr=False)
    studies: frozenset[str]
    workers: int
    artifacts: str
    cache_dir: Path
    cache_gb: float
    verbose: bool
    idle: float | None

    def variables(self, precision: str) -> dict[str, str]:
        """Environment variables for `tuner.finetune`, in the workers of a study."""
        return _variables(precision, self.cache_dir, self.cache_gb)


def resolve_daemon(given: Given) -> DaemonSettings:
    """Settle every setting of `tuner worker`.

    Raises:
        UsageError: the artifact store or the cache is no folder.
    """
    values = given.values
    return DaemonSettings(
        storage=resolve_storage(values["storage"]),
        studies=frozenset(values["study"]),
        workers=_or(values["workers"], default_workers()),
        artifacts=_artifacts(given),
        cache_dir=_cache_dir(given),
        cache_gb=_or(values["cache_gb"], cache.DEFAULT_BOUND_GB),
        verbose=values["verbose"],
        idle=values["idle"],
    )


@dataclass(frozen=True)
class DashboardSettings:
    """Everything `tuner dashboard` was asked for, resolved.

    Attributes:
        artifacts: the artifact store, see `artifacts_of`.
        host: the address to listen at.
        port: likewise; 0 for one that is free.
        writable: whether notes may be written.
        allow_remote: whether other machines may come in.
        names: by which browsers call it, beside its own.
        open: open a browser.
    """

    storage: str = field(repr=False)
    artifacts: str
    host: str
    port: int
    writable: bool
    allow_remote: bool
    names: frozenset[str]
    open: bool


def resolve_dashboard(given: Given) -> DashboardSettings:
    """Settle every setting of `tuner dashboard`.

    Raises:
        UsageError: the artifact store cannot be one.
    """
    values = given.values
    return DashboardSettings(
        storage=resolve_storage(values["storage"]),
        artifacts=artifacts_of(given),
        host=_or(values["host"], DEFAULT_HOST),
        port=_or(values["port"], DEFAULT_PORT),
        writable=values["writable"],
        allow_remote=values["allow_remote"],
        names=frozenset(values["name"]),
        open=values["open_"],
    )


def resolve_storage(given: str | None) -> str:
    """The storage URL: what was given, else a SQLite file here."""
    return given or DEFAULT_STORAGE


def _or(given: Any, default: Any) -> Any:
    return default if given is None else given


def _registered(kind: str, default: str, registry: Mapping[str, object], given: Given) -> str:
    """A name of a registry."""
    name = given.values[kind] or default
    if name not in registry:
        raise UsageError(
            f"{given.subject(kind)} is {redact_value(repr(name))}, and there is no such {kind}; "
            f"{closest(name, registry)}"
        )
    return str(name)


def _cache_dir(given: Given) -> Path:
    if given.values["cache_dir"] is not None:
        return _folder("cache_dir", "", given)
    try:
        return cache.default_folder().absolute()
    except RuntimeError as error:
        raise UsageError(
            "There is no home directory for the cache; name a folder with --cache-dir."
        ) from error


def _artifacts(given: Given) -> str:
    """The address of the artifact store: an absolute folder, or a bucket as it was given."""
    text = given.values["artifacts"] or DEFAULT_ARTIFACTS
    if "://" not in text:
        return str(_folder("artifacts", DEFAULT_ARTIFACTS, given))
    subject, shown = given.subject("artifacts"), cut(redact_value(repr(text)))
    if not text.startswith(BUCKET_SCHEME):
        raise UsageError(
            f"{subject} is {shown}, and files are kept in a folder or a bucket; name a folder, or "
            "s3://BUCKET or s3://BUCKET/PREFIX."
        )
    if len(text) > _LONGEST_BUCKET or not _BUCKET.fullmatch(text):
        raise UsageError(
            f"{subject} is {shown}, which names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX "
            "with letters, digits and . _ - = in the names, and no password."
        )
    if importlib.util.find_spec("boto3") is None:
        raise UsageError(
            f"{subject} is {shown}, which needs the package boto3; install it with: pip install "
            "'tuner[s3]', or name a folder."
        )
    return text.rstrip("/")


def _folder(name: str, default: str, given: Given) -> Path:
    """An absolute folder, which need not be there."""
    text = given.values[name] or default
    path = Path(os.path.expanduser(text)).absolute()  # noqa: PTH111 - an unknown ~user stays
    shown = redact_value(repr(text))
    try:
        is_file = path.exists() and not path.is_dir()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise UsageError(
            f"{given.subject(name)} is {cut(shown)}, which cannot be used: {error.strerror}; name "
            "another folder."
        ) from error
    if "://" in text or shown != repr(text) or is_file:
        raise UsageError(
            f"{given.subject(name)} is {shown}, which is no folder; name one, or one to be made."
        )
    return path


def _allowed_failures(trials: int) -> int:
    return max(LEAST_FAILURES, int(FAILURE_SHARE * trials))


def _variables(precision: str, cache_dir: Path, cache_gb: float) -> dict[str, str]:
    return {
        PRECISION_VARIABLE: precision,
        cache.CACHE_VARIABLE: str(cache_dir),
        cache.BOUND_VARIABLE: str(cache_gb),
    }
