"""Studies for the report's tests, built by code: a known truth in place of training.

`mnist_like` has the MNIST study's space, steps and attributes; the others are what a report may
meet besides: every state, NaN and ties, conditional parameters, several objectives, nothing at all.
"""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.report.results import Results, results_of
from tuner.storage import StudyContents, find_study, open_database, read_contents
from tuner.study import Snapshot

SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(1e-4, 1.0, log=True),
    "optimizer": CategoricalDistribution(
        ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "adagrad")
    ),
    "init": CategoricalDistribution(
        ("pretrained", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal",
         "lecun_normal", "orthogonal", "random_normal")
    ),
    "frozen_layers": IntDistribution(0, 4),
}  # fmt: skip
STEPS = (1, 2, 4, 8, 12, 16, 20)
SNAPSHOT = Snapshot(
    space={name: optuna.distributions.distribution_to_json(it) for name, it in SPACE.items()},
    metric="val_error",
    direction="minimize",
    max_step=20,
    file="studies/mnist.py",
    file_hash="0" * 64,
    steps_per_epoch=4,
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
# Each optimizer's best learning rate (log10), and what its best error is multiplied with.
_RATES = {"sgd": -0.6, "momentum": -1.4, "nesterov": -1.5, "rmsprop": -3.0, "adam": -2.8,
          "adamw": -2.7, "adagrad": -1.6}  # fmt: skip
_OPTIMIZERS = {"sgd": 1.35, "momentum": 1.08, "nesterov": 1.05, "rmsprop": 1.15, "adam": 1.0,
               "adamw": 1.0, "adagrad": 1.5}  # fmt: skip
_INITS = dict(
    zip(SPACE["init"].choices, (1.0, 1.04, 1.05, 1.0, 1.02, 1.03, 1.0, 1.25), strict=True)
)  # type: ignore[attr-defined]
_DEPTHS = (1.0, 1.0, 1.25, 1.8, 3.0)


def true_error(params: dict[str, Any], step: int = 20) -> float:
    """The expected error of a configuration at a step; 1.0 where training diverges."""
    off = math.log10(params["learning_rate"]) - _RATES[params["optimizer"]]
    if off > 1.6:
        return 1.0
    log = math.log10(0.006 * _OPTIMIZERS[params["optimizer"]] * _INITS[params["init"]])
    log += math.log10(_DEPTHS[params["frozen_layers"]]) + 0.22 * off**2
    return float(min(10 ** (log + 0.9 * (1 / step**0.5 - 1 / 20**0.5)), 0.85))


def mnist_like(
    trials: int = 100, seed: int = 0, *, greedy: bool = False, states: bool = True
) -> list[FrozenTrial]:
    """Trials of a search in the MNIST study's space, two workers, successive halving.

    Args:
        trials: how many.
        seed: of everything.
        greedy: sample mostly adam, as an adaptive search ends up doing.
        states: end with a failed, a running and a waiting one.
    """
    generator = np.random.default_rng(seed)
    free = [BEGAN, BEGAN]
    found: list[FrozenTrial] = []
    for number in range(trials):
        params = {
            "learning_rate": float(10 ** generator.uniform(-4, 0)),
            **{n: SPACE[n].choices[generator.integers(len(SPACE[n].choices))]  # type: ignore[attr-defined]
               for n in ("optimizer", "init")},
            "frozen_layers": int(generator.integers(5)),
        }  # fmt: skip
        if greedy and number > 10 and generator.random() < 0.8:
            params |= {
                "optimizer": "adam",
                "learning_rate": float(10 ** generator.normal(-2.8, 0.3)),
            }
        luck = math.exp(generator.normal(0, 0.05))
        last = int(generator.choice([1, 4, 20], p=[0.5, 0.3, 0.2])) if number else 20
        curve: dict[int, float] = {}
        for step in STEPS:
            true = true_error(params, step)
            curve[step] = (
                1.0 if true == 1.0 else generator.binomial(10_000, min(true * luck, 1)) / 1e4
            )
            if step >= last or (true == 1.0 and step == 2):
                break
        diverged = 1.0 in curve.values()
        failed = states and number % 33 == 17
        state = TrialState.FAIL if failed else TrialState.COMPLETE
        if not failed and (diverged or max(curve) < 20):
            state = TrialState.PRUNED
        worker = int(free[1] < free[0])
        seconds = 2.0 + max(curve) * (2.5 - 0.4 * params["frozen_layers"])
        start, free[worker] = free[worker], free[worker] + timedelta(seconds=seconds)
        outcome = {TrialState.FAIL: "failed", TrialState.COMPLETE: "completed"}.get(
            state, "diverged" if diverged else "pruned"
        )
        attrs = {
            "worker": worker + 1, "host": "atlas", "seed": number, "outcome": outcome,
            "threads": 1, "precision": "float32", "device": "CPU", "environment": "abc",
            "cached_features": params["frozen_layers"] >= 2,
            "seconds": {"setup": 0.1, "features": 0.0, "train": 0.9 * seconds, "validate": 0.5},
            "report_seconds": {str(s): round(2 + s * seconds / max(curve), 2) for s in curve},
            **({"reason": "killed (signal 9)"} if failed else {}),
        }  # fmt: skip
        found.append(
            frozen(state, params, curve, None if failed else curve[max(curve)], attrs, start,
                   free[worker])
        )  # fmt: skip
    if states:
        found.append(
            frozen(TrialState.RUNNING, found[0].params, {1: 0.05}, None, {}, free[0], None)
        )
        found.append(create_trial(state=TrialState.WAITING, params={}, distributions={}))
    return found


def frozen(
    state: TrialState,
    params: dict[str, Any],
    curve: dict[int, float],
    value: float | None,
    attrs: dict[str, Any],
    start: datetime | None = BEGAN,
    end: datetime | None = BEGAN + timedelta(seconds=10),
    space: dict[str, BaseDistribution] = SPACE,
) -> FrozenTrial:
    """A trial as Optuna keeps it."""
    trial = create_trial(
        state=state,
        params=params,
        distributions={name: space[name] for name in params},
        intermediate_values=curve,
        value=value,
        user_attrs=attrs,
    )
    # Optuna takes naive local time.
    trial.datetime_start = start and start.astimezone().replace(tzinfo=None)
    trial.datetime_complete = end and end.astimezone().replace(tzinfo=None)
    return trial


def stored(
    folder: Path,
    trials: Sequence[FrozenTrial],
    *,
    name: str = "mnist",
    directions: Sequence[str] = ("minimize",),
    attrs: dict[str, Any] | None = None,
) -> str:
    """Put a study into the SQLite database of a folder; returns its URL."""
    url = f"sqlite:///{folder}/samples.db"
    study = optuna.create_study(storage=url, study_name=name, directions=list(directions))
    study.add_trials(trials)
    for key, value in (attrs or {}).items():
        study.set_user_attr(key, value)
    return url


# What `tuner run` keeps of a study.
OURS: dict[str, Any] = {
    "tuner:definition": {
        "space": SNAPSHOT.space, "metric": "val_error", "direction": "minimize", "max_step": 20,
        "file": "studies/mnist.py", "file_hash": "0" * 64, "steps_per_epoch": 4,
    },
    "tuner:seed": 1,
    "tuner:search": {"sampler": "tpe", "pruner": "asha", "precision": "float32"},
    "tuner:samplers": ["tpe"],
    "tuner:request": {"state": "closed", "opened": None, "target": 100, "most_failed": 10,
                      "trial_timeout": None, "reason": "target reached"},
    "environment:abc": {"python": "3.11.7", "tuner": "0.1.0", "optuna": "5.0.0", "host": "atlas",
                        "cpu": "AMD EPYC", "cores": 2, "commit": "0123456789ab", "memory_gb": 23.0},
}  # fmt: skip


def read(url: str, name: str = "mnist") -> Results:
    """Read a study as the report does."""
    database = open_database(url, read_only=True)
    try:
        return results_of(read_contents(database, find_study(database, name)))
    finally:
        database.close()


def in_memory(
    trials: Sequence[FrozenTrial],
    *,
    name: str = "mnist",
    directions: Sequence[str] = ("minimize",),
    attrs: dict[str, Any] | None = None,
) -> Results:
    """The results of such a study without a database: for thousands of trials, or studies."""
    rows: dict[str, list[Any]] = {
        "trials": [],
        "values": [],
        "steps": [],
        "params": [],
        "attrs": [],
    }
    texts = {id(it): optuna.distributions.distribution_to_json(it) for it in SPACE.values()}
    for number, trial in enumerate(trials):
        moments = (
            moment and moment.astimezone(UTC).replace(tzinfo=None)
            for moment in (trial.datetime_start, trial.datetime_complete)
        )
        rows["trials"].append((number, trial.state.name, *moments))
        values = [] if trial.values is None else trial.values
        rows["values"] += [(number, i, value) for i, value in enumerate(values)]
        rows["steps"] += [(number, *it) for it in sorted(trial.intermediate_values.items())]
        for param, value in trial.params.items():
            kind = trial.distributions[param]
            text = texts.get(id(kind)) or optuna.distributions.distribution_to_json(kind)
            rows["params"].append((number, param, kind.to_internal_repr(value), text))
        rows["attrs"] += [(number, key, json.dumps(it)) for key, it in trial.user_attrs.items()]
    infeasible = frozenset(
        number for number, it in enumerate(trials) if any(v > 0 for v in it.constraints.values())
    )
    contents = StudyContents(name, list(directions), attrs or {}, **rows, infeasible=infeasible)
    return results_of(contents)
