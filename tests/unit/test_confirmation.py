"""What a confirmation chooses, can find, and says at its end."""

import math
import re
from datetime import UTC, datetime
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from scipy import stats

from tests.samples import OURS, in_memory, mnist_like
from tests.unit.test_figures_compare import confirmed
from tuner import candidates
from tuner.report.factors import factors_of
from tuner.report.outcome import Outcome, as_table, outcome_of, progress_note
from tuner.report.statistics.paired import LEVEL
from tuner.report.statistics.power import (
    POWER,
    binomial_deviation,
    measured_deviation,
    smallest_difference,
)
from tuner.search import SearchContext, make_sampler, values_of

KIND = optuna.distributions.CategoricalDistribution(("a", "b", "c", "d"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trial(
    number: int, kind: str, value: float | None, state: TrialState, step: int = 1, **attrs: Any
) -> FrozenTrial:
    return FrozenTrial(
        number, state, value, NOW, NOW, {"kind": kind}, {"kind": KIND}, attrs, {},
        {} if value is None else {step: value}, number,
    )  # fmt: skip


COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
TRIALS = [
    trial(0, "a", 0.3, COMPLETE, 20),
    trial(1, "b", 0.1, PRUNED, 4),
    trial(2, "b", 0.2, PRUNED, 8),
    trial(3, "b", 0.19, PRUNED, 8),
    trial(4, "a", 0.2, COMPLETE, 20),
    trial(5, "a", 0.01, PRUNED, 8),
    trial(6, "c", 1.0, PRUNED, 2, outcome="diverged"),
    trial(7, "c", None, FAIL),
    trial(8, "d", 0.25, COMPLETE, 20),
]


def test_the_best_are_those_that_ran_to_their_end_and_differ() -> None:
    best = candidates.best(TRIALS, 5, maximize=False)
    assert [(it.number, it.value, it.pruned_at) for it in best] == [(4, 0.2, None), (8, 0.25, None)]
    assert [it.number for it in candidates.best(TRIALS, 1, maximize=True)] == [0]
    assert candidates.best(TRIALS[1:4], 5, maximize=False) == []


def test_a_level_without_a_complete_trial_has_the_one_that_came_furthest() -> None:
    found = candidates.best_of_levels(TRIALS, "kind", KIND.choices, maximize=False)
    assert {place: (it.number, it.pruned_at) for place, it in found.items()} == {
        0: (4, None), 1: (3, 8), 3: (8, None),
    }  # fmt: skip
    found = candidates.best_of_levels(TRIALS, "kind", KIND.choices, maximize=True)
    assert found[1].number == 2
    assert candidates.best_of_levels(TRIALS, "other", [1], maximize=False) == {}


def test_levels_of_a_float_with_a_step_are_found_although_steps_are_not_exact() -> None:
    share = optuna.distributions.FloatDistribution(0.0, 0.3, step=0.1)
    levels = values_of(share)
    assert levels is not None
    assert all(share._contains(it) for it in levels)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        study.tell(study.ask({"share": share}), 0.5)
    found = candidates.best_of_levels(study.trials, "share", levels, maximize=False)
    assert sorted(found) == [0, 1, 2, 3]


def test_levels_of_mixed_kinds_have_their_places() -> None:
    for choices in ([None, 1, 2.5, "s"], [True, None, 2, "s"], [True, False]):
        kind = optuna.distributions.CategoricalDistribution(choices)
        (factor,) = factors_of({"kind": kind})
        for place, choice in enumerate(choices):
            assert factor.places(pd.Series([choice])).tolist() == [place]


def test_arms_share_the_draw_of_a_parameter_whatever_else_is_suggested() -> None:
    def drawn(*names: str) -> float:
        context = SearchContext(7, 3, None, paired=True)
        trial = optuna.create_study(sampler=make_sampler("random", context)).ask()
        return [trial.suggest_float(name, 0, 1) for name in names][-1]

    assert drawn("y") == drawn("m", "y")
    assert drawn("y") != drawn("m")


@pytest.mark.parametrize(("seeds", "pairs"), [(5, 1), (10, 21)])
def test_the_smallest_difference_is_found_with_its_power(seeds: int, pairs: int) -> None:
    deviation = 0.0008
    difference = smallest_difference(deviation, seeds, pairs)
    draws = np.random.default_rng(0).normal(difference, deviation, (20_000, seeds))
    found = np.mean(stats.ttest_1samp(draws, 0.0, axis=1).pvalue < LEVEL / pairs)
    assert found == pytest.approx(POWER, abs=0.01)
    assert smallest_difference(deviation, 2 * seeds, pairs) < difference
    assert smallest_difference(deviation, 1) == math.inf


def test_the_luck_of_the_images() -> None:
    error, images = 0.007, 10_000
    wrong = np.random.default_rng(0).binomial(images, error, (20_000, 2)) / images
    assert np.std(wrong[:, 0] - wrong[:, 1]) == pytest.approx(
        binomial_deviation(error, images), rel=0.02
    )


def test_the_spread_of_pairs_leaves_out_what_seeds_and_configurations_share() -> None:
    draw = np.random.default_rng(0)
    seeds, configurations = draw.normal(0, 1, (3_000, 1)), np.array([0.0, 5.0, -2.0])
    errors = seeds + configurations + draw.normal(0, 0.1, (3_000, 3))
    assert measured_deviation(errors) == pytest.approx(0.1 * math.sqrt(2), rel=0.05)
    two = errors[:, :2]
    assert measured_deviation(two) == pytest.approx(np.std(two[:, 0] - two[:, 1], ddof=1))
    errors[0, 0] = np.nan
    assert measured_deviation(errors[:2]) != measured_deviation(errors[:2])
    assert math.isnan(measured_deviation(errors[:, :1]))


def printed(outcome: Outcome, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(as_table(outcome))
    console.file.close()
    return console.export_text()


def test_the_table_names_winner_rivals_and_words_at_80_columns() -> None:
    source = in_memory(mnist_like(40), attrs=OURS)
    found = outcome_of(confirmed({"adam": 0.006, "rmsprop": 0.0062, "sgd": 0.02}), source)
    assert found.rows[0].label == "adam"
    assert found.rows[0].word == "lowest mean"
    assert found.rows[-1].label == "sgd"
    assert found.rows[-1].word == "clearly worse"
    assert found.rows[-1].gap.startswith("×3.")
    assert found.rows[-1].p == "< 0.001"
    assert float(found.rows[-1].a12) == 1.0
    text = printed(found)
    assert found.verdict.startswith("On ")
    assert found.verdict in " ".join(text.split())
    assert "clearly" in text
    assert max(map(len, text.splitlines())) <= 80
    # No number and no interval is broken at its end.
    for row in found.rows:
        for whole in (row.mean, row.span, row.gap, row.gap_span, row.p):
            assert any(whole in line for line in text.splitlines()), whole
    # There was no test set, and it says so.
    assert "There is no test set" in " ".join(text.split())


def test_what_is_open_is_told_with_what_more_seeds_could_find() -> None:
    close = {"adam": 0.0060, "adamw": 0.0061, "sgd": 0.02}
    found = outcome_of(confirmed(close, noise=0.2), None)
    spread = re.search(r"10 seeds find a difference of (\S+) points", " ".join(found.notes))
    assert spread, found.notes
    # The luck of a pair is sqrt(2) of 20 % of 0.6 %; sgd, which is far behind, does not count.
    deviation = 100 * 0.006 * 0.2 * math.sqrt(2)
    assert float(spread[1]) == pytest.approx(smallest_difference(deviation, 10, 3), rel=0.5)
    few = outcome_of(confirmed(close, seeds=3), None)
    assert "On fewer than 5 shared seeds nothing is called clear or equal." in few.notes
    sure = outcome_of(confirmed({"adam": 0.006, "sgd": 0.02}), None)
    assert "seeds find" not in " ".join(sure.notes)


def test_lost_runs_and_a_single_configuration_are_told() -> None:
    lost = outcome_of(confirmed({"adam": 0.006, "sgd": 0.02}, lost=[("sgd", 3)]), None)
    assert any(note.startswith("1 run ended without a value") for note in lost.notes)
    alone = outcome_of(confirmed({"adam": 0.006}), None)
    assert (len(alone.rows), alone.verdict, alone.rows[0].word) == (1, "", "")
    assert " to " in alone.rows[0].span
    nothing = outcome_of(in_memory([]), None)
    assert nothing.rows == []
    assert nothing.notes == ["No run of the confirmation completed."]
    assert "No run of the confirmation completed." in printed(nothing)


def test_after_three_seeds_the_spread_is_measured() -> None:
    note = progress_note(confirmed({"adam": 0.006, "sgd": 0.02}, seeds=3), 10)
    assert note is not None
    assert note.startswith("by the spread on the first 3 seeds, 10 seeds find a difference of 0.0")
    assert progress_note(in_memory([]), 10) is None
    assert progress_note(confirmed({"adam": 0.006}, seeds=3), 10) is None


def test_how_often_the_test_set_was_opened_is_told() -> None:
    openings = [
        {"when": "2026-01-01T00:00:00+00:00", "commit": "abc", "study": "mnist-confirm"},
        {"when": "2026-02-01T00:00:00+00:00", "commit": "def", "study": "mnist-confirm-2"},
    ]
    runs = confirmed({"adam": 0.006, "sgd": 0.02})
    runs.attrs["test_error"] = runs.trials["value"]
    for count in (1, 2):
        attrs = {**OURS, "tuner:openings": openings[:count]}
        found = outcome_of(runs, in_memory(mnist_like(20), attrs=attrs))
        assert found.measured == "test error"
        assert any("opened twice" in note for note in found.notes) == (count == 2)
