"""What the service itself costs a trial, beside bare Optuna on the same database.

    python -m tests.benchmarks.service [--trials 30] [--finished 0 1000 10000]

A trial here is all but training: the claim, four parameters, seven reports each with a prune check,
ten user attributes, the end. Bare Optuna does the same by `study.optimize` with the same sampler
and pruner, on a study of its own in the same database, with as many finished trials. Both take
turns, in fresh processes, and the medians of three are printed. Trials are better than all before,
so that none is pruned. "start" is the time from opening the database to the first objective.

Alone on the machine; PostgreSQL as the tests find it, skipped if it is absent.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from rich.console import Console
from sqlalchemy.engine import make_url

from tests.conftest import SERVERS, admin
from tuner.search import SearchContext, make_pruner, make_sampler
from tuner.storage import open_database, register, this_process
from tuner.storage.urls import resolve
from tuner.study import Definition, Snapshot
from tuner.work import Assignment, Worker

REPETITIONS = 3
STEPS = (1, 2, 4, 8, 12, 16, 20)
RUNGS = {0: 1, 1: 4, 2: 12}  # of asha: rung -> the first of these steps that reaches it
ATTRIBUTES = 10
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
    "optimizer": CategoricalDistribution(("sgd", "momentum", "nesterov", "adam", "rmsprop")),
    "init": CategoricalDistribution(("pretrained", "glorot", "he", "lecun", "orthogonal")),
    "frozen_layers": IntDistribution(0, 4),
}
SNAPSHOT = Snapshot(
    {name: distribution_to_json(it) for name, it in SPACE.items()},
    "val_error", "minimize", STEPS[-1], "study.py", "hash",
)  # fmt: skip
SEED = 1


@dataclass
class Times:
    """When the objective was called, by time.perf_counter."""

    opened: float
    calls: list[float]

    def __call__(self, trial: optuna.Trial) -> float:
        self.calls.append(time.perf_counter())
        for name, distribution in SPACE.items():
            trial._suggest(name, distribution)
        value = -time.time()  # better than all before
        for step in STEPS:
            trial.report(value - step / 100, step)
            assert not trial.should_prune()
        for number in range(ATTRIBUTES):
            trial.set_user_attr(f"attribute{number}", number / 3)
        return value


def ours(url: str, name: str, sampler: str, trials: int) -> Times:
    """A worker of ours takes ``trials`` trials."""
    times = Times(time.perf_counter(), [])
    database = open_database(url)
    record = register(database, name, SNAPSHOT, seed=SEED, search={})
    assignment = Assignment(
        study_id=record.study_id, study_name=name, target=10**6, seed=SEED, uid=record.uid,
        artifacts=tempfile.gettempdir(), sampler=sampler, pruner="asha", most_failed=0,
        trial_timeout=None, worker=1,
    )  # fmt: skip
    definition = Definition(times, SPACE, lambda: None, list, SNAPSHOT)
    worker = Worker(definition, assignment, database, this_process())
    for _ in zip(range(trials), worker.work(), strict=False):
        pass
    return times


def bare(url: str, name: str, sampler: str, trials: int) -> Times:
    """`study.optimize` with the same sampler and pruner."""
    times = Times(time.perf_counter(), [])
    study = optuna.load_study(
        study_name=name,
        storage=resolve(url).render_as_string(hide_password=False),
        sampler=make_sampler(sampler, SearchContext(SEED, 0, SPACE)),
        pruner=make_pruner("asha", SNAPSHOT),
    )
    study.optimize(times, n_trials=trials)
    return times


WAYS: dict[str, Callable[[str, str, str, int], Times]] = {"ours": ours, "bare": bare}


def fill(url: str, name: str, finished: int) -> None:
    """Make a study with so many finished trials, by bulk inserts."""
    database = open_database(url)
    study_id = register(database, name, SNAPSHOT, seed=SEED, search={}).study_id
    random = np.random.default_rng(0)
    engine = database.backend.engine
    first = _next_id(engine)
    rows: dict[Any, list[dict[str, Any]]] = {}
    began = datetime(2026, 1, 1)  # noqa: DTZ001 - Optuna's columns are naive UTC
    for number in range(finished):
        trial_id = first + number
        started = began + timedelta(seconds=number)
        rows.setdefault(models.TrialModel, []).append(
            {"trial_id": trial_id, "number": number, "study_id": study_id, "state": "COMPLETE",
             "datetime_start": started, "datetime_complete": started + timedelta(seconds=1)}
        )  # fmt: skip
        for table, more in _of_trial(trial_id, random).items():
            rows.setdefault(table, []).extend(more)
    with engine.begin() as connection:
        for model, several in rows.items():
            for start in range(0, len(several), 5000):
                connection.execute(
                    sqlalchemy.insert(model.__table__), several[start : start + 5000]
                )
        if engine.name == "postgresql" and finished:
            connection.exec_driver_sql(
                "SELECT setval('trials_trial_id_seq', (SELECT max(trial_id) FROM trials))"
            )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    database.close()


def _next_id(engine: sqlalchemy.Engine) -> int:
    with engine.connect() as connection:
        found = connection.scalar(
            sqlalchemy.select(sqlalchemy.func.max(models.TrialModel.trial_id))
        )
    return int(found or 0) + 1


def _of_trial(trial_id: int, random: np.random.Generator) -> dict[Any, list[dict[str, Any]]]:
    internal = {name: it.to_internal_repr(_draw(it, random)) for name, it in SPACE.items()}
    value = float(random.uniform(0.005, 0.9))
    return {
        models.TrialParamModel: [
            {"trial_id": trial_id, "param_name": name, "param_value": internal[name],
             "distribution_json": distribution_to_json(SPACE[name])} for name in SPACE
        ],
        models.TrialValueModel: [
            {"trial_id": trial_id, "objective": 0, "value": value, "value_type": "FINITE"}
        ],
        models.TrialIntermediateValueModel: [
            {"trial_id": trial_id, "step": step, "intermediate_value": value + 1 / step,
             "intermediate_value_type": "FINITE"} for step in STEPS
        ],
        models.TrialUserAttributeModel: [
            {"trial_id": trial_id, "key": f"attribute{number}", "value_json": "0.5"}
            for number in range(ATTRIBUTES)
        ],
        models.TrialSystemAttributeModel: [
            {"trial_id": trial_id, "key": f"completed_rung_{rung}",
             "value_json": json.dumps(value + 1 / step)} for rung, step in RUNGS.items()
        ],
    }  # fmt: skip


def _draw(distribution: BaseDistribution, random: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(random.integers(len(distribution.choices)))]
    if isinstance(distribution, IntDistribution):
        return int(random.integers(distribution.low, distribution.high + 1))
    assert isinstance(distribution, FloatDistribution)
    return float(np.exp(random.uniform(np.log(distribution.low), np.log(distribution.high))))


@contextlib.contextmanager
def fresh_database(kind: str) -> Iterator[str]:
    """The URL of an empty database."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{folder}/tuner.db"
        return
    name = f"tuner_test_{uuid.uuid4().hex[:12]}"
    with admin(kind).connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(SERVERS[kind]).set(database=name).render_as_string(False)
    finally:
        with admin(kind).connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))


def measure(way: str, url: str, sampler: str, trials: int) -> tuple[float, float]:
    """Seconds of the start, and the median seconds a trial, of one fresh process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.service",
         "--way", way, "--url", url, "--sampler", sampler, "--trials", str(trials)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    start, cycle = json.loads(done.stdout.splitlines()[-1])
    return start, cycle


def compare(kind: str, finished: int, sampler: str, trials: int) -> str:
    """One row: both ways in turn."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with fresh_database(kind) as url:
        for way in WAYS:
            fill(url, way, finished)
        for _ in range(REPETITIONS):
            for way in WAYS:
                found[way].append(measure(way, url, sampler, trials))
    start, cycle = (
        {way: statistics.median(one[which] for one in found[way]) for way in WAYS}
        for which in (0, 1)
    )
    return (
        f"| {kind} | {sampler} | {finished:,} | {1000 * cycle['ours']:.1f} | "
        f"{1000 * cycle['bare']:.1f} | {cycle['ours'] / cycle['bare']:.2f} | "
        f"{start['ours']:.2f} | {start['bare']:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--finished", type=int, nargs="+", default=[0, 1000, 10000])
    parser.add_argument("--kinds", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--url")
    parser.add_argument("--sampler")
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if chosen.way:
        times = WAYS[chosen.way](chosen.url, chosen.way, chosen.sampler, chosen.trials)
        cycles = np.diff(times.calls)
        result = [times.calls[0] - times.opened, float(np.median(cycles))]
        sys.stdout.write(json.dumps(result) + "\n")
        return
    console = Console(width=120)
    console.print(
        "| database | sampler | finished | ours, ms a trial | bare | ratio | start, s | bare |"
    )
    console.print("|---|---|---|---|---|---|---|---|")
    for kind in chosen.kinds:
        for finished in chosen.finished:
            for sampler in chosen.samplers:
                console.print(compare(kind, finished, sampler, chosen.trials))


if __name__ == "__main__":
    main()
