"""Samplers and pruners by name."""

import importlib.util

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import TrialState

from tuner.errors import UsageError
from tuner.search import (
    PRUNERS,
    SAMPLERS,
    SearchContext,
    check_search,
    grid_of,
    make_pruner,
    make_sampler,
    rungs,
)
from tuner.study import Snapshot
from tuner.wording import closest
from tuner.work import ServedStudy

SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0, step=0.25),
    "n": IntDistribution(1, 3),
    "kind": CategoricalDistribution(["a", "b"]),
}
INSTALLED = [name for name in SAMPLERS if name != "gp" or importlib.util.find_spec("torch")]


def snapshot(
    space: dict[str, BaseDistribution] | None = SPACE, max_step: int | None = 4
) -> Snapshot:
    texts = None if space is None else {n: distribution_to_json(d) for n, d in space.items()}
    return Snapshot(texts, "value", "minimize", max_step, "study.py", "hash")


def draw(sampler: str, numbers: range, seed: int = 1) -> list[dict[str, object]]:
    """Parameters of trials that are sampled as a worker does it: a new sampler for each."""
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="s", storage=storage)
    found = []
    for number in numbers:
        made = make_sampler(sampler, SearchContext(seed, number, SPACE))
        study = ServedStudy("s", storage, sampler=made)
        trial = study.ask(SPACE)
        assert trial.number == number
        study.tell(trial, float(number))
        found.append(trial.params)
    return found


@pytest.mark.parametrize("sampler", INSTALLED)
def test_a_sampler_repeats_with_its_seed_and_varies_without(sampler: str) -> None:
    first = draw(sampler, range(15))
    assert first == draw(sampler, range(15))
    assert first != draw(sampler, range(15), seed=2)
    assert len({tuple(sorted(p.items())) for p in first}) > 5


def test_the_grid_visits_every_point_once() -> None:
    points = 5 * 3 * 2
    found = draw("grid", range(points))
    assert len({tuple(sorted(p.items())) for p in found}) == points


def test_quasi_random_points_do_not_depend_on_who_counts() -> None:
    space: dict[str, BaseDistribution] = {
        "x": FloatDistribution(0, 1),
        "y": FloatDistribution(0, 1),
    }
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(study_name="s", storage=storage)
    study.ask().suggest_float("x", 0, 1)  # a running trial that has not all its parameters yet
    points = set()
    for number in range(16):
        sampler = make_sampler("qmc", SearchContext(1, number, space))
        trial = ServedStudy("s", storage, sampler=sampler).ask(space)
        points.add((int(trial.params["x"] * 4), int(trial.params["y"] * 4)))
    assert len(points) >= 13  # of 16 cells; independent draws would fill 10 on average


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_serves_a_study_that_declares_its_steps(pruner: str) -> None:
    assert isinstance(make_pruner(pruner, snapshot()), optuna.pruners.BasePruner)


def test_the_default_pruner_stops_a_bad_trial_at_its_second_report_and_no_good_one() -> None:
    study = optuna.create_study(pruner=make_pruner("percentile", snapshot()))
    for value in (0.1, 0.2, 0.3, 0.4, 0.5):
        trial = study.ask()
        for step in (1, 2, 4):
            trial.report(value, step)
            assert not trial.should_prune()
        study.tell(trial, value)
    bad, good = study.ask(), study.ask()
    bad.report(0.9, 1)
    assert not bad.should_prune()
    bad.report(0.9, 2)
    assert bad.should_prune()
    good.report(0.15, 2)
    assert not good.should_prune()


@pytest.mark.parametrize(
    ("sampler", "pruner", "of", "trials", "says"),
    [
        ("grid", "none", snapshot(), 31, "has 30 points, fewer than the 31"),
        ("grid", "none", snapshot(None), 3, "declare space"),
        (
            "grid",
            "none",
            snapshot({f"n{i}": IntDistribution(0, 99) for i in range(5)}),
            3,
            "10,000",
        ),
        (
            "grid",
            "none",
            snapshot({"x": FloatDistribution(0, 1)}),
            3,
            "cannot list the values of x",
        ),
        ("tpe", "hyperband", snapshot(max_step=None), 3, "add max_step"),
    ],
)
def test_what_cannot_serve_is_refused(
    sampler: str, pruner: str, of: Snapshot, trials: int, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        check_search(sampler, pruner, of, trials)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="pip install torch"):
        check_search("gp", "none", snapshot(), 3)


def test_the_grid_lists_values() -> None:
    assert grid_of(SPACE) == {"x": [0.0, 0.25, 0.5, 0.75, 1.0], "n": [1, 2, 3], "kind": ["a", "b"]}


def test_the_closest_name_is_offered() -> None:
    assert closest("hyperbnd", PRUNERS) == "did you mean 'hyperband'?"
    assert closest("zzz", PRUNERS).startswith("choose one of: asha, percentile")


@pytest.mark.parametrize("max_step", [*range(1, 100), 242, 243, 244, 729, 2000])
def test_the_rungs_are_the_pruners(max_step: int) -> None:
    snapshot = Snapshot(None, "value", "minimize", max_step, "s.py", "h")
    study = optuna.create_study()
    pruner = make_pruner("hyperband", snapshot)
    pruner._try_initialization(study)  # type: ignore[attr-defined]
    assert len(rungs("hyperband", snapshot)) == pruner._n_brackets  # type: ignore[attr-defined]
    (steps,) = rungs("asha", snapshot)
    assert steps == [3**k for k in range(8) if 3**k <= max_step]


def test_asha_judges_at_its_rungs_alone() -> None:
    snapshot = Snapshot(None, "value", "minimize", 9, "s.py", "h")
    study = optuna.create_study(pruner=make_pruner("asha", snapshot))
    pruned_at = set()
    for number in range(60):
        trial = study.ask()
        for step in range(1, 10):
            trial.report(float(number), step)  # each is worse than all before it
            if trial.should_prune():
                pruned_at.add(step)
                break
        study.tell(trial, float(number), state=TrialState.COMPLETE)
    (steps,) = rungs("asha", snapshot)
    assert pruned_at <= set(steps)
    assert 1 in pruned_at
