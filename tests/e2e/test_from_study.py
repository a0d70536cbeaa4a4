"""`run --from-study`: the best configurations of another study come first, and are marked."""

import subprocess
import sys
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from tests.conftest import ROOT, run
from tuner.candidates import TAKEN_OVER, Candidate, best, fitting
from tuner.report import figures, load

from .test_run import PARABOLOID, trials_of

NARROW = """
from optuna.distributions import FloatDistribution, IntDistribution

space = {name: DISTRIBUTION for name in NAMES}
metric = "height"

def objective(trial):
    return sum(value * value for value in trial.params.values())
"""


def search(path: Path, *words: str, study: str = PARABOLOID) -> tuple[int, str, str]:
    done = run(
        "--study", study, "--workers", "0", "--storage", f"sqlite:///{path}", "--seed", "1",
        "--no-publish", *words,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a search of 12 trials, ``first``."""
    path = tmp_path_factory.mktemp("searched") / "tuner.db"
    code, _, err = search(path, "--study-name", "first", "--trials", "12", "--pruner", "none")
    assert code == 0, err
    return path


def test_the_best_come_first_and_count(searched: Path) -> None:
    url = f"sqlite:///{searched}"
    first = best(trials_of(url, "first"), TAKEN_OVER, maximize=False)
    for target in ("7", "8"):  # the same command again takes nothing over a second time
        code, out, err = search(
            searched, "--study-name", "second", "--from-study", "first", "--trials", target
        )
        assert code == 0, err
    assert "the best configurations of first are in second already" in out
    trials = trials_of(url, "second")
    assert len(trials) == 8
    assert all(trial.state in {TrialState.COMPLETE, TrialState.PRUNED} for trial in trials)
    for trial, source in zip(trials[:TAKEN_OVER], first, strict=True):
        assert trial.params == source.params
        assert trial.user_attrs["from_study"] == ["first", source.number]
    assert not any("from_study" in trial.user_attrs for trial in trials[TAKEN_OVER:])
    assert trials[0].value == first[0].value  # the objective is the same
    page = searched.with_name("page.html")
    subprocess.run(
        [sys.executable, "-m", "tuner.report", "--study", "second", "--storage", url,
         "--out", str(page)],
        check=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    text = page.read_text(encoding="utf-8")
    said = f"the best one (first, trial {first[0].number}) among them."
    assert f"5 of its configurations are the best of first, taken over, {said}" in text
    results = load("second", url)
    assert "taken over (5)" in [trace.name for trace in figures.history(results).data]


def test_no_more_are_taken_over_than_there_is_room_for(searched: Path) -> None:
    code, out, err = search(
        searched, "--study-name", "third", "--from-study", "first", "--trials", "3"
    )
    assert code == 0, err
    assert "first come 3 configurations of first: trial " in out
    assert len(trials_of(f"sqlite:///{searched}", "third")) == 3


def test_a_dry_run_shows_them_first_and_writes_nothing(searched: Path) -> None:
    first = best(trials_of(f"sqlite:///{searched}", "first"), TAKEN_OVER, maximize=False)
    before = searched.read_bytes()
    words = ["--study-name", "later", "--trials", "9", "--dry-run", "--from-study"]
    code, out, err = search(searched, *words, "first")
    assert code == 0, err
    rows = out.split("samples, ")[1].splitlines()[2:5]
    for number, (row, source) in enumerate(zip(rows, first, strict=False)):
        assert row.split()[0] == str(number)
        shown = [float(it) for it in row.split()[1:]]
        assert shown == pytest.approx(list(source.params.values()), rel=0.01)
    code, _, err = search(searched, *words, "frist")
    assert code == 2
    assert "There is no study 'frist'" in err
    code, _, err = search(searched.with_name("none.db"), *words, "first")
    assert code == 2
    assert "There is no study 'first': there is no database sqlite:///" in err
    assert searched.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from-study", "frist"], "There is no study 'frist'"),
        (["--from-study", "fourth"], "names the study itself"),
        (["--from-study", "first", "--sampler", "grid"], "cannot be used with the sampler 'grid'"),
        (["--from-study", "first", "--compare", "n"], "which --compare keeps equal"),
    ],
)
def test_what_cannot_be_taken_over_is_one_sentence(
    words: list[str], said: str, searched: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fourth.py"
    text = NARROW.replace("DISTRIBUTION", "IntDistribution(0, 3)").replace("NAMES", "'xn'")
    file.write_text(text)
    code, _, err = search(searched, "--trials", "9", *words, study=str(file))
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert err.count("\n") <= 2


def test_a_study_whose_values_lie_outside_has_nothing_that_fits(
    searched: Path, tmp_path: Path
) -> None:
    file = tmp_path / "far.py"
    text = NARROW.replace("DISTRIBUTION", "FloatDistribution(1e6, 2e6)").replace("NAMES", "'xy'")
    file.write_text(text)
    code, _, err = search(searched, "--trials", "9", "--from-study", "first", study=str(file))
    assert code == 2
    assert "--from-study first has no configuration that fits: none of its 12 complete" in err


def test_configurations_fit_a_space_as_far_as_they_are_in_it() -> None:
    space = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(("a", "b"))}

    def candidate(number: int, **params: object) -> Candidate:
        return Candidate(number, params, 0.1 * number, None)

    found = fitting(
        [
            candidate(0, x=0.5, kind="a", other=3),
            candidate(1, x=0.5, kind="a"),  # the same here
            candidate(2, x=1.5, kind="a"),
            candidate(3, x=0.5, kind="c"),
            candidate(4, x="text"),
            candidate(5, other=3),
            candidate(6, x=0.25),
        ],
        space,
    )
    assert [it.number for it in found] == [0, 6]
    assert found[0].params == {"x": 0.5, "kind": "a"}
    assert [it.number for it in fitting([candidate(0, other=3), candidate(1)], None)] == [0]
