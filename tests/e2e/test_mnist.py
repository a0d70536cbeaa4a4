"""The MNIST study by the command, on few digits: real Keras in real worker processes."""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.conftest import ROOT, run, start, wait_until
from tests.e2e.test_run import ENDED, has_running, state_counts, trials_of
from tuner.machine import has_bfloat16, threads_per_worker

# studies/mnist.py with 20 batches a trial instead of 1,950.
FEW_DIGITS = f"""
import dataclasses
import sys

sys.path.insert(0, {str(ROOT / "studies")!r})
import mnist as study
from mnist import direction, metric, space
from tuner.finetune import Recipe, mnist

max_step = 4
study.task = dataclasses.replace(
    study.task,
    images=lambda: mnist().first(2560, 1000),
    epochs=1,
    report_at=(1, 2, 3, max_step),
    base_recipe=Recipe(epochs=1),
)
objective, prepare, footprint = study.objective, study.task.prepare, study.task.footprint
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def few_digits(write_study: Callable[..., Path]) -> str:
    return str(write_study(FEW_DIGITS, "few"))


def test_a_run_ends_normally_without_the_test_file(
    few_digits: str, cache: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(
        ROOT / "tuner", home / "tuner", ignore=shutil.ignore_patterns("test.npz", "__pycache__")
    )
    url = f"sqlite:///{tmp_path}/tuner.db"
    done = run("--study", few_digits, "--trials", "6", "--workers", "2", "--storage", url,
               "--sampler", "random", "--seed", "1", cwd=home, TUNER_CACHE_DIR=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "training the base" in done.stdout
    assert done.stdout.count("training in ") == 1  # each worker says it, the first is heard
    assert "validation accuracy" in done.stdout
    assert "TensorFlow" not in done.stdout + done.stderr
    trials = trials_of(url, "few")
    assert len(trials) == 6
    assert all(trial.state in ENDED for trial in trials)
    for trial in trials:
        assert set(trial.params) == {"learning_rate", "optimizer", "init", "frozen_layers"}
        assert set(trial.intermediate_values) <= {1, 2, 3, 4}
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
        attrs = trial.user_attrs
        phases = ["setup", "features", "tracing", "train", "validate", "save"]
        assert list(attrs["seconds"]) == phases
        assert attrs["threads"] == threads_per_worker(2)
        expected = "bfloat16" if has_bfloat16() else "float32"
        assert attrs["precision"] == expected or attrs["device"] == "GPU"
        assert len(attrs["report_seconds"]) == len(trial.intermediate_values)
        assert attrs["memory_mb"] > 300
        least = 1 if attrs["precision"] == "bfloat16" else 2
        cached = attrs["device"] == "CPU" and trial.params["frozen_layers"] >= least
        assert attrs["cached_features"] == cached
    assert len({trial.user_attrs["base_hash"] for trial in trials}) == 1


def _worker_at_work(path: Path) -> int:
    """The pid of a worker that holds a trial with two reports."""
    with sqlite3.connect(path) as connection:
        (pid,) = connection.execute(
            "SELECT c.pid FROM tuner_claims c JOIN trials t ON t.trial_id = c.trial_id "
            "JOIN trial_intermediate_values v ON v.trial_id = t.trial_id "
            "WHERE t.state = 'RUNNING' GROUP BY c.pid HAVING count(*) >= 2 LIMIT 1"
        ).fetchone()
    connection.close()
    return int(pid)


@pytest.mark.soak
def test_a_killed_worker_changes_no_curve(few_digits: str, cache: str, tmp_path: Path) -> None:
    curves = []
    for name, kill in (("calm", False), ("killed", True)):
        path = tmp_path / f"{name}.db"
        process = start(
            "--study", few_digits, "--trials", "6", "--workers", "2", "--seed", "3",
            "--sampler", "random", "--pruner", "none", "--storage", f"sqlite:///{path}",
            TUNER_CACHE_DIR=cache,
        )  # fmt: skip
        if kill:
            wait_until(has_running(path), seconds=120)
            os.kill(_worker_at_work(path), signal.SIGKILL)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert ("killed (signal 9)" in out) == kill
        assert state_counts(f"sqlite:///{path}", "few")[TrialState.RUNNING] == 0
        curves.append(
            [(t.params, t.intermediate_values) for t in trials_of(f"sqlite:///{path}", "few")]
        )
    assert curves[0] == curves[1]


@pytest.mark.soak
@pytest.mark.timeout(1800)  # two cores without bfloat16 need 15 minutes
def test_the_main_job_survives_three_kills(cache: str, tmp_path: Path) -> None:
    path, artifacts = tmp_path / "tuner.db", tmp_path / "artifacts"
    url = f"sqlite:///{path}"
    process = start(
        "--study", "mnist", "--trials", "20", "--workers", "2", "--storage", url, "--seed", "1",
        "--artifacts", str(artifacts), TUNER_CACHE_DIR=cache,
    )  # fmt: skip
    killed: set[int] = set()  # numbers of trials: the third death of one would be its failure
    while len(killed) < 3:
        wait_until(lambda: bool(_at_work(path).keys() - killed), seconds=240)
        number = min(_at_work(path).keys() - killed)
        os.kill(_at_work(path)[number], signal.SIGKILL)
        killed.add(number)
    out, err = process.communicate(timeout=1_700)
    sys.stdout.write(out)
    assert process.returncode == 0, err
    assert {f"trial {number} is handed back" in out for number in killed} == {True}
    counts = state_counts(url, "mnist")
    assert counts.total() == 20
    assert all(state in ENDED for state in counts)
    for trial in trials_of(url, "mnist"):
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]
    assert not list(artifacts.rglob("*.npz"))


def _at_work(path: Path) -> dict[int, int]:
    """The worker of each trial that is RUNNING and has reported: number -> pid."""
    if not path.exists():
        return {}
    with sqlite3.connect(path) as connection:
        try:
            found = connection.execute(
                "SELECT DISTINCT t.number, c.pid FROM tuner_claims c "
                "JOIN trials t ON t.trial_id = c.trial_id "
                "JOIN trial_intermediate_values v ON v.trial_id = t.trial_id "
                "WHERE t.state = 'RUNNING'"
            ).fetchall()
        except sqlite3.OperationalError:  # no tables yet
            found = []
    connection.close()
    return dict(found)
