"""What later work relies on: recorded curves, replays' simulated time, the usual ways."""

import subprocess
import sys

import numpy as np
import optuna
import pandas as pd
import pytest

from tests.benchmarks import curves, replay
from tests.conftest import ROOT

# In a process of its own: it puts Keras's own layer into the study file.
USUAL = """
import sys
import numpy as np, optuna
from tests.benchmarks import usual
usual.images = usual.images.first(256, 100)
np.savez(sys.argv[2], *[weight.numpy() for weight in usual.study.build_model().weights])
optuna.create_study(study_name="twenty", storage=sys.argv[1])
usual.run_twenty(*sys.argv[1:], "19", "20")
model = usual.build(usual.CONFIGURATIONS[19], usual.read_base(sys.argv[2]), 0, 1)
print(*(variable.path for variable in model.trainable_variables))
"""

KERAS_TUNER = """
import sys
import numpy as np, optuna
from tests.benchmarks import kerastuner, usual
usual.images = kerastuner.images = usual.images.first(256, 100)
np.savez(sys.argv[2], *[weight.numpy() for weight in usual.study.build_model().weights])
optuna.create_study(study_name="twenty", storage=sys.argv[1])
kerastuner.CONFIGURATIONS = usual.CONFIGURATIONS[18:]
kerastuner.run_twenty(*sys.argv[1:])
kerastuner.SEARCH_EPOCHS = 3
kerastuner.FOR_EVER = 1
kerastuner.run_search(*sys.argv[1:], "1")
"""


def test_the_recorded_curves():
    recorded = curves.load()
    assert list(recorded.params) == list(curves.PARAMS)
    assert recorded.errors.shape == recorded.seconds.shape == (200, 7)
    assert list(recorded.steps) == [1, 2, 4, 8, 12, 16, 20]
    assert recorded.provenance["precision"] == "bfloat16"
    for errors, seconds in zip(recorded.errors, recorded.seconds, strict=True):
        there = np.isfinite(errors)
        assert np.all(np.diff(seconds[there]) >= 0)
        if not there.all():  # diverged: 1, and nothing after it
            last = int(there.sum()) - 1
            assert errors[last] == 1.0
            assert not there[last + 1 :].any()
            assert np.all(errors[:last] < 1.0)


def of_constant_speed(durations, errors):
    """Curves of two reports, the second at the end."""
    seconds = np.array([[duration / 2, duration] for duration in durations])
    table = np.array([[1.5 * error, error] for error in errors])
    params = pd.DataFrame({"frozen_layers": [0] * len(durations)})
    return curves.Curves(params, np.array([1, 2]), table, seconds, {})


@pytest.fixture
def so_many(monkeypatch):
    """Let a search have so many trials, however long they take."""

    def limit(trials):
        monkeypatch.setattr(replay, "TRIALS", trials)
        monkeypatch.setattr(replay, "MINUTES", (0,))

    return limit


def in_order(made, pruner):
    rows = iter(range(len(made.errors)))

    def draw(_):
        row = next(rows)
        return made.errors[row], made.seconds[row], made.errors[row, -1]

    return replay.search(optuna.create_study(pruner=pruner), draw, made.steps)


def test_two_workers_share_the_trials(so_many):
    so_many(4)
    made = of_constant_speed([10, 20, 30, 40], [0.4, 0.3, 0.2, 0.1])
    found = in_order(made, optuna.pruners.NopPruner())
    assert list(found.after) == [10, 20, 40, 60]
    assert list(found.error) == [0.4, 0.3, 0.2, 0.1]
    assert found.best(seconds=45) == 0.2
    assert found.best(trials=2) == 0.3
    assert found.seconds_to(0.35) == 20
    assert found.seconds_to(0.05) == np.inf


def test_a_pruned_trial_ends_at_its_report(so_many):
    so_many(4)
    made = of_constant_speed([10, 10, 10, 10], [0.2, 0.3, 0.4, 0.1])
    pruner = optuna.pruners.PercentilePruner(50, n_startup_trials=1, n_warmup_steps=0)
    found = in_order(made, pruner)
    # The first two report before either has ended; the third is worse than half of them.
    assert list(found.pruned) == [False, False, True, False]
    assert list(found.after) == [10, 10, 15, 20]
    assert np.isnan(found.error[2])
    assert found.true[2] == 0.4


def test_a_divergence_ends_a_trial_and_is_no_pruning(so_many):
    so_many(1)
    made = of_constant_speed([10, 10], [0.9, 0.9])
    made.errors[:] = [1.0, np.nan]
    found = in_order(made, optuna.pruners.NopPruner())
    assert list(found.after) == [5]
    assert not found.pruned.any()
    assert np.isnan(found.error).all()


def test_the_usual_way_trains_its_share(tmp_path):
    storage = f"sqlite:///{tmp_path}/usual.db"
    done = subprocess.run(
        [sys.executable, "-c", USUAL, storage, str(tmp_path / "base.npz")],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    (trial,) = optuna.load_study(study_name="twenty", storage=storage).trials
    assert trial.params == {"configuration": 19}
    assert 0 <= trial.value <= 1
    assert trial.user_attrs["trial_seconds"] > trial.user_attrs["stall_seconds"] >= 0
    layers = {path.split("/")[-2] for path in done.stdout.split()}
    assert layers == {"logits"}  # the four stages before it are frozen


def test_keras_tuner_trains_the_same_and_searches_with_hyperband(tmp_path):
    storage = f"sqlite:///{tmp_path}/tuner.db"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KERAS_TUNER, storage, str(tmp_path / "base.npz")],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    twenty = optuna.load_study(study_name="twenty", storage=storage).trials
    assert sorted(trial.params["configuration"] for trial in twenty) == [0, 1]
    for trial in twenty:
        assert 0 <= trial.value <= 1
        assert trial.user_attrs["trial_seconds"] > trial.user_attrs["stall_seconds"] >= 0
    search = optuna.load_study(study_name="search", storage=storage).trials
    reported = [list(trial.intermediate_values) for trial in search]
    assert [1] in reported  # given up after an epoch
    assert [2, 3] in reported  # promoted: the epochs after it
    assert [1, 2, 3] in reported  # the second bracket
    assert all(trial.value == trial.intermediate_values[max(trial.intermediate_values)]
               for trial in search)  # fmt: skip
