"""Several objectives, and constraints: what each command makes of them."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import ROOT, run
from tuner.report import figures, load

from .test_run import trials_of

BOTH = """
from optuna.distributions import FloatDistribution, IntDistribution

space = {"x": FloatDistribution(0.0, 1.0, step=0.125), "width": IntDistribution(1, 8)}
metric = ("error", "parameters")
direction = ("minimize", "minimize")
max_step = 9

def objective(trial):
    x, width = trial.params["x"], trial.params["width"]
    trial.set_constraint("parameters <= 600", 100 * width - 600)
    error = (x - 0.5) ** 2 + 1 / width
    for step in (1, 3, 9):
        trial.report(error, step)  # with several objectives this stores nothing
        if trial.should_prune():
            raise AssertionError("pruned")
    return error, 100 * width
"""

CONSTRAINED = """
from optuna.distributions import IntDistribution

space = {"width": IntDistribution(1, 20)}
metric = "error"

def objective(trial):
    width = trial.params["width"]
    trial.set_constraint("width <= 10", width - 10)
    return 1 / width  # the widest have the best values
"""


def command(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"tuner.{name}", *words],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both study files, and a database with a run of each."""
    folder = tmp_path_factory.mktemp("objectives")
    for name, text in (("both", BOTH), ("constrained", CONSTRAINED)):
        (folder / f"{name}.py").write_text(text)
    return folder


def search(folder: Path, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run(
        "--study", str(folder / f"{name}.py"), "--storage", f"sqlite:///{folder}/tuner.db",
        "--seed", "1", "--artifacts", str(folder / "artifacts"), *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(studies: Path) -> tuple[Path, str]:
    """The folder, and what a run of 40 trials with several objectives has printed."""
    done = search(studies, "both", "--trials", "40", "--workers", "2")
    assert done.returncode == 0, done.stderr
    return studies, done.stdout


def test_exactly_so_many_trials_and_none_is_pruned(both: tuple[Path, str]) -> None:
    folder, out = both
    trials = trials_of(f"sqlite:///{folder}/tuner.db", "both")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 40
    for trial in trials:
        x, width = trial.params["x"], trial.params["width"]
        assert trial.values == [(x - 0.5) ** 2 + 1 / width, 100 * width]
        assert trial.constraints == {"parameters <= 600": 100 * width - 600}
        assert trial.intermediate_values == {}
        broken = width > 6
        assert trial.user_attrs["outcome"] == ("infeasible" if broken else "completed")
    assert "sampler tpe, pruner none" in out
    infeasible = sum(trial.user_attrs["outcome"] == "infeasible" for trial in trials)
    assert 0 < infeasible < 20
    verb = "breaks" if infeasible == 1 else "break"
    assert f"{infeasible} of them {verb} a constraint" in out


def test_the_trials_that_no_other_beats_are_those_of_optuna(both: tuple[Path, str]) -> None:
    folder, out = both
    study = optuna.load_study(study_name="both", storage=f"sqlite:///{folder}/tuner.db")
    assert study.metric_names == ["error", "parameters"]
    front = {trial.number: trial.values for trial in study.best_trials}  # feasible ones only
    said = [line for line in out.splitlines() if "(trial " in line and "parameters" in line]
    *trials, last = [line for line in said if "error" in line]
    numbers = {int(line.rsplit("(trial ", 1)[1].split(")")[0]) for line in [*trials, last]}
    named = {number for number in numbers if number in front}
    assert len(named) == min(7, len({tuple(values) for values in front.values()}))
    assert f"{len(front)} trials not beaten" in out


def test_the_report_draws_the_front_by_the_names(both: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = both
    url = f"sqlite:///{folder}/tuner.db"
    page = tmp_path / "page.html"
    done = command("report", "--study", "both", "--storage", url, "--out", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "2 objectives: what can be had for what" in text
    results = load("both", url)
    figure = figures.pareto(results)
    assert "parameters" in figure.layout.yaxis.title.text
    study = optuna.load_study(study_name="both", storage=url)
    best = {trial.number for trial in study.best_trials}
    drawn = next(trace for trace in figure.data if str(trace.name).startswith("not beaten"))
    assert {int(label.split("<br>")[0].removeprefix("trial ")) for label in drawn.text} == best
    infeasible = {trial.number for trial in study.trials if trial.params["width"] > 6}
    shown = {
        int(label.split("<br>")[0].removeprefix("trial "))
        for trace in figure.data
        if trace.text is not None
        for label in trace.text
    }
    assert not shown & infeasible
    assert f"{len(infeasible):,} that break a constraint among them" in text


def test_status_and_a_rerun(both: tuple[Path, str]) -> None:
    folder, _ = both
    url = f"sqlite:///{folder}/tuner.db"
    status = command("status", "--study", "both", "--storage", url)
    assert "2 objectives" in status.stdout
    again = search(folder, "both", "--trials", "40", "--workers", "0")
    assert again.returncode == 0
    assert "nothing to do: 40 trials are there" in again.stdout
    assert "not beaten" in again.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--pruner", "asha"), "2 objectives, of which Optuna prunes nothing: its pruners compare"),
        (("--compare", "width"), "2 objectives, of which none decides"),
        (("--sampler", "cmaes"), "searches for one objective, and .* has 2; choose one of: tpe,"),
    ],
)
def test_what_needs_one_objective_is_refused(
    studies: Path, words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    place = ("--storage", f"sqlite:///{tmp_path}/none.db")
    for more in ((), ("--dry-run",)):
        done = search(studies, "both", "--trials", "8", "--workers", "0", *place, *words, *more)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert re.search(says, done.stderr), done.stderr
    assert not (tmp_path / "none.db").exists()


def test_other_commands_say_what_they_need(both: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = both
    place = ("--study", "both", "--storage", f"sqlite:///{folder}/tuner.db")
    confirm = command("confirm", *place, "--seeds", "3")
    assert confirm.returncode == 2
    assert "both has 2 objectives, of which none decides what is best" in confirm.stderr
    export = command("export", *place, "--out", str(tmp_path / "out"))
    assert export.returncode == 2
    replay = command("replay", *place, "--trial", "3")
    assert replay.returncode == 0, replay.stderr
    taken = search(
        folder, "both", "--study-name", "more", "--from-study", "both", "--trials", "3",
        "--workers", "0",
    )  # fmt: skip
    assert taken.returncode == 2
    assert "has 2 objectives, and so no best configurations" in taken.stderr


@pytest.mark.parametrize("sampler", ["random", "qmc", "grid", "nsga2"])
def test_samplers_for_several_objectives(studies: Path, sampler: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    done = search(
        studies, "both", "--trials", "12", "--workers", "0", "--storage", url,
        "--sampler", sampler, "--pruner", "none",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(trials_of(url, "both")) == 12


def test_a_pruned_trial_does_not_stop_the_sampler(tmp_path: Path) -> None:
    """Optuna's TPE raises on a pruned trial that has reported something."""
    text = BOTH.replace(
        'raise AssertionError("pruned")', "..."
    ).replace("    return error", "    if trial.number % 3 == 0:\n        import optuna\n"
              "        raise optuna.TrialPruned\n    return error")  # fmt: skip
    (tmp_path / "both.py").write_text(text)
    done = search(tmp_path, "both", "--trials", "30", "--workers", "0")
    assert done.returncode == 0, done.stderr
    states = [trial.state for trial in trials_of(f"sqlite:///{tmp_path}/tuner.db", "both")]
    assert states.count(TrialState.PRUNED) == 10
    assert states.count(TrialState.COMPLETE) == 20


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("error", r"returned .*; it must return 2 numbers \\(error, parameters\\)"),
        ("(error, 1, 2)", "it must return 2 numbers"),
        ("(error, 'many')", "it must return 2 numbers"),
        ("(error, float('nan'))", "returned nan as parameters"),
    ],
)
def test_what_an_objective_must_return(tmp_path: Path, returned: str, says: str) -> None:
    (tmp_path / "both.py").write_text(BOTH.replace("error, 100 * width\n", f"{returned}\n"))
    done = search(tmp_path, "both", "--trials", "3", "--workers", "0", "--max-failures", "0")
    assert done.returncode == 4
    (trial,) = trials_of(f"sqlite:///{tmp_path}/tuner.db", "both")
    assert trial.state == TrialState.FAIL
    assert re.search(says.replace("\\\\", "\\"), trial.user_attrs["reason"])


@pytest.fixture(scope="module")
def constrained(studies: Path) -> tuple[Path, str]:
    """The folder, and what a run of 30 trials with a constraint has printed."""
    done = search(studies, "constrained", "--trials", "30", "--workers", "0", "--sampler", "random")
    assert done.returncode == 0, done.stderr
    return studies, done.stdout


def test_the_best_keeps_to_the_constraint_everywhere(
    constrained: tuple[Path, str], tmp_path: Path
) -> None:
    folder, out = constrained
    url = f"sqlite:///{folder}/tuner.db"
    study = optuna.load_study(study_name="constrained", storage=url)
    best = study.best_trial  # of the feasible ones
    assert best.params["width"] <= 10 < max(it.params["width"] for it in study.trials)
    assert f"error {best.value:.3g}" in out or f"(trial {best.number})" in out
    assert f"(trial {best.number})" in out
    status = command("status", "--study", "constrained", "--storage", url, "--format", "json")
    (shown,) = json.loads(status.stdout)
    assert shown["best"] == {"value": best.value, "trial": best.number}
    results = load("constrained", url)
    assert results.best == best.number
    infeasible = sum(it.params["width"] > 10 for it in study.trials)
    assert results.count("infeasible") == infeasible > 0
    line = next(it for it in figures.history(results).data if it.name == "best so far")
    assert min(line.y) == pytest.approx(best.value)
    page = tmp_path / "page.html"
    done = command("report", "--study", "constrained", "--storage", url, "--out", str(page))
    assert done.returncode == 0, done.stderr
    assert f"{infeasible} infeasible" in page.read_text(encoding="utf-8")
    taken = search(
        folder, "constrained", "--study-name", "second", "--from-study", "constrained",
        "--trials", "2", "--workers", "0",
    )  # fmt: skip
    assert taken.returncode == 0, taken.stderr
    assert all(it.params["width"] <= 10 for it in trials_of(url, "second"))
    confirm = command(
        "confirm", "--study", "constrained", "--storage", url, "--top", "2", "--seeds", "2",
        "--artifacts", str(folder / "artifacts"), "--workers", "0",
    )  # fmt: skip
    assert confirm.returncode == 0, confirm.stderr
    runs = trials_of(url, "constrained-confirm")
    assert len(runs) == 4
    assert all(it.params["width"] <= 10 for it in runs)


def test_nothing_keeps_to_the_constraint(tmp_path: Path) -> None:
    (tmp_path / "constrained.py").write_text(CONSTRAINED.replace("width - 10)", "1)"))
    done = search(tmp_path, "constrained", "--trials", "3", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert "no trial keeps to every constraint" in done.stdout
    place = ("--study", "constrained", "--storage", f"sqlite:///{tmp_path}/tuner.db")
    confirm = command("confirm", *place, "--seeds", "2")
    assert confirm.returncode == 2
    assert "keeps to its constraints, so there is nothing to confirm" in confirm.stderr


KILLED = """
import os, time
from optuna.distributions import IntDistribution

space = {"x": IntDistribution(0, 1000)}
metric = ("a", "b")

def objective(trial):
    if trial.number == 2 and not os.path.exists(MARK):
        open(MARK, "w").close()
        trial.set_constraint("c", -1.0)
        os.kill(os.getpid(), 9)
    trial.set_constraint("c", float(trial.number))
    return trial.params["x"], trial.number
"""


def test_a_killed_worker_loses_nothing(write_study: Callable[..., Path], tmp_path: Path) -> None:
    study = write_study(KILLED.replace("MARK", repr(str(tmp_path / "mark"))), "killed")
    url = f"sqlite:///{tmp_path}/tuner.db"
    done = run("--study", str(study), "--trials", "6", "--workers", "1", "--storage", url)
    assert done.returncode == 0, done.stderr
    trials = trials_of(url, "killed")
    assert [trial.values for trial in trials] == [[it.params["x"], it.number] for it in trials]
    assert [trial.constraints for trial in trials] == [{"c": float(it)} for it in range(6)]
