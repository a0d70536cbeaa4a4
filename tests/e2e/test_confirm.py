"""`python -m tuner.confirm` as its user meets it: exact runs, one opening, kills, refusals."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import ENVIRONMENT, ROOT, run, wait_until
from tuner.storage import StoredAttributes, open_database

STUDY = """
import random, time
import optuna
from pathlib import Path
from optuna.distributions import CategoricalDistribution, FloatDistribution

metric, direction, max_step, test_images = "val_error", "minimize", 4, 10_000
space = {"kind": CategoricalDistribution(["a", "b", "c"]), "x": FloatDistribution(-1, 1)}

def objective(trial):
    p = trial.params
    luck = random.Random(f"{trial.user_attrs['seed']} {p['kind']}").gauss(0, 0.0003)
    error = 0.006 + 0.01 * (p["x"] - 0.5) ** 2 + {"a": 0, "b": 0.0004, "c": 0.004}[p["kind"]]
    for step in (1, 2, 3, 4):
        time.sleep(SECONDS)
        trial.report(error + luck + 0.01 / 2**step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    (trial.outputs / "model.keras").write_text(str(error + luck))
    return error + luck

def test(model_file):
    with Path("opened.txt").open("a") as witness:
        witness.write(f"{model_file.name}\\n")
    return {"test_error": float(model_file.read_text()) + 0.0002}
"""


def confirm(
    folder: Path, *arguments: str, command: str = "confirm"
) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder; its output is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", f"tuner.{command}", *arguments],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def trials_of(folder: Path, name: str) -> list[FrozenTrial]:
    database = open_database(f"sqlite:///{folder}/tuner.db")
    try:
        study = optuna.load_study(study_name=name, storage=database.storage)
        return study.get_trials(deepcopy=False)
    finally:
        database.close()


def stored_of(folder: Path, name: str) -> StoredAttributes:
    database = open_database(f"sqlite:///{folder}/tuner.db")
    try:
        study = optuna.load_study(study_name=name, storage=database.storage)
        return StoredAttributes.of(study.user_attrs)
    finally:
        database.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a search of twelve trials in it."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "arms.py").write_text(STUDY.replace("SECONDS", "0"))
    done = confirm(tmp_path, "--study", "arms", "--trials", "12", "--compare", "kind",
                   "--workers", "2", "--seed", "3", command="run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_every_configuration_runs_on_every_seed_and_is_tested_once(folder: Path) -> None:
    assert not (folder / "opened.txt").exists()  # a search does not
    done = confirm(folder, "--study", "arms", "--per-level", "kind", "--seeds", "5")
    assert done.returncode == 0, done.stderr
    runs = trials_of(folder, "arms-confirm")
    assert Counter(it.state for it in runs) == {TrialState.COMPLETE: 15}
    cells = Counter((it.params["kind"], it.user_attrs["seed"]) for it in runs)
    assert set(cells.values()) == {1}
    assert len({seed for _, seed in cells}) == 5
    search = trials_of(folder, "arms")
    assert {seed for _, seed in cells}.isdisjoint(it.user_attrs["seed"] for it in search)
    assert {str(it.params) for it in runs} <= {str(it.params) for it in search}
    assert all(
        it.user_attrs["test_error"] == pytest.approx(it.value + 0.0002) for it in runs if it.value
    )
    assert len((folder / "opened.txt").read_text().split()) == 15
    (opening,) = stored_of(folder, "arms").openings
    assert (opening["study"], opening["configurations"], opening["seeds"]) == ("arms-confirm", 3, 5)
    assert stored_of(folder, "arms-confirm").confirms == "arms"
    said = " ".join(done.stdout.split())
    assert "5 seeds find a difference of" in said
    assert "by the spread on the first" in said
    assert "mean test" in said
    assert "On 5 shared seeds" in said
    assert "clearly" in said

    # The same command shows it and runs nothing; another one would open the test set again.
    again = confirm(folder, "--study", "arms", "--per-level", "kind", "--seeds", "5")
    assert again.returncode == 0
    assert "On 5 shared seeds" in again.stdout
    assert len((folder / "opened.txt").read_text().split()) == 15
    # So it does when the search has grown since; and no search goes on in a confirmation.
    grown = ("--study", "arms", "--trials", "18", "--workers", "2")
    assert confirm(folder, *grown, command="run").returncode == 0
    again = confirm(folder, "--study", "arms", "--per-level", "kind", "--seeds", "5")
    assert again.returncode == 0, again.stderr
    assert "On 5 shared seeds" in again.stdout
    assert len((folder / "opened.txt").read_text().split()) == 15
    into = confirm(folder, *grown, "--study-name", "arms-confirm", command="run")
    assert into.returncode == 2
    assert "arms-confirm is a confirmation, of arms" in into.stderr
    other = confirm(folder, "--study", "arms", "--top", "2", "--seeds", "3")
    assert other.returncode == 2
    assert "The test set was opened once for arms already" in other.stderr
    more = confirm(folder, "--study", "arms", "--top", "2", "--seeds", "3", "--again")
    assert more.returncode == 0, more.stderr
    assert "The test set was opened twice for this search" in " ".join(more.stdout.split())
    seeds = {it.user_attrs["seed"] for it in trials_of(folder, "arms-confirm-2")}
    assert len(seeds) == 3
    assert seeds.isdisjoint(seed for _, seed in cells)
    assert len(stored_of(folder, "arms").openings) == 2


def test_a_killed_confirmation_goes_on_with_exactly_its_runs(folder: Path) -> None:
    (folder / "studies" / "arms.py").write_text(STUDY.replace("SECONDS", "0.1"))
    words = ["--study", "arms", "--per-level", "kind", "--seeds", "4", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner.confirm", *words],
        cwd=folder,
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    witness = folder / "opened.txt"
    wait_until(lambda: witness.exists() and len(witness.read_text().split()) >= 2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(children, timeout=10)
    done = confirm(folder, *words)
    assert done.returncode == 0, done.stderr
    assert "arms.py changed since arms was run" in " ".join(done.stdout.split())
    runs = trials_of(folder, "arms-confirm")
    assert Counter(it.state for it in runs) == {TrialState.COMPLETE: 12}
    assert set(Counter((it.params["kind"], it.user_attrs["seed"]) for it in runs).values()) == {1}
    assert len(stored_of(folder, "arms").openings) == 1


def test_what_cannot_be_confirmed_is_refused_in_a_sentence(
    folder: Path, write_study: Callable[..., Path]
) -> None:
    both = ("--top", "2", "--per-level", "kind", "--seeds", "3")
    for arguments, words in (
        (("--study", "arm", "--seeds", "3"), "did you mean 'arms'?"),
        (("--study", "arms", *both), "leave one of them out"),
        (("--study", "arms", "--per-level", "x", "--seeds", "3"), "has no levels to compare"),
        (("--study", "arms", "--seeds", "1"), "give a whole number from 2"),
        (("--study", "arms"), "--seeds"),
    ):
        done = confirm(folder, *arguments)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    url = f"sqlite:///{folder}/tuner.db"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    foreign = optuna.create_study(storage=url, study_name="foreign")
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    done = confirm(folder, "--study", "foreign", "--seeds", "3")
    assert done.returncode == 2
    assert "was not made by `tuner run`" in done.stderr
    (folder / "studies" / "arms.py").unlink()
    done = confirm(folder, "--study", "arms", "--seeds", "3")
    assert done.returncode == 2
    assert "There is no studies/arms.py" in done.stderr
    assert run("--study", str(write_study("objective = 1"))).returncode == 2
    assert trials_of(folder, "foreign")
    with pytest.raises(KeyError):
        trials_of(folder, "arms-confirm")
