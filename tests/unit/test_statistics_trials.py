"""The expected best, savings and importances: what a study's trials say."""

import importlib.util
import itertools
import logging
import math
from typing import Any, ClassVar, Literal

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.report.statistics import importances as module
from tuner.report.statistics.budget import expected_best, expected_best_bands
from tuner.report.statistics.importances import FANOVA, PED_ANOVA, Importances, importances
from tuner.report.statistics.savings import Savings, time_saved

NAN = math.nan
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestExpectedBest:
    @pytest.mark.parametrize("budget", [1, 2, 3, 4])
    def test_by_enumeration(self, budget: int) -> None:
        values = [0.3, 0.1, 0.7, 0.1, 0.5]
        draws = list(itertools.product(values, repeat=budget))
        mean = sum(min(draw) for draw in draws) / len(draws)
        assert expected_best(values, [budget])[0] == pytest.approx(mean)

    def test_one_draw_is_the_mean_and_many_are_the_best(self) -> None:
        found = expected_best([3.0, 1.0, 2.0], [1, 10_000])
        assert found == pytest.approx([2.0, 1.0])

    @given(VALUES, st.randoms(use_true_random=False))
    @settings(max_examples=60, deadline=None)
    def test_it_falls_within_the_values_in_any_order(
        self, values: list[float], random: Any
    ) -> None:
        budgets = [1, 2, 3, 5, 10, 100]
        found = expected_best(values, budgets)
        rounding = 1e-9 * (1 + np.ptp(values))
        assert (np.diff(found) <= rounding).all()
        assert (found >= min(values)).all()
        assert (found <= max(values) + rounding).all()
        shuffled = random.sample(values, len(values))
        assert np.array_equal(expected_best(shuffled, budgets), found)

    def test_equal_values_come_out_exactly(self) -> None:
        assert (expected_best([0.1] * 7, range(1, 50)) == 0.1).all()

    def test_bands_of_one_draw_have_no_width(self) -> None:
        values = generator().random(30)
        bands = expected_best_bands(values[np.newaxis], [1, 5, 20])
        for curve in (bands.median, bands.low, bands.high):
            assert curve == pytest.approx(expected_best(values, [1, 5, 20]))

    def test_bands_are_quantiles_of_each_draws_curve(self) -> None:
        samples = generator().random((101, 8))
        bands = expected_best_bands(samples, [1, 4], confidence=0.8)
        curves = np.sort([expected_best(row, [1, 4]) for row in samples], axis=0)
        assert bands.low == pytest.approx(curves[10])
        assert bands.median == pytest.approx(curves[50])
        assert bands.high == pytest.approx(curves[90])

    @pytest.mark.parametrize(
        ("values", "budgets"), [([], [1]), ([1.0, NAN], [1]), ([1.0, math.inf], [1]), ([1.0], [0])]
    )
    def test_what_it_cannot_be_of(self, values: list[float], budgets: list[int]) -> None:
        with pytest.raises(ValueError, match=r"expected best|at least one draw"):
            expected_best(values, budgets)

    def test_a_confidence_that_is_none(self) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            expected_best_bands([[1.0]], [1], confidence=1.0)


def saved(*trials: tuple[float, float, bool, str], seed: int = 0) -> Savings:
    """Of trials of at most 10 steps: seconds, last step, whether pruned, group."""
    seconds, steps, pruned, group = ([trial[i] for trial in trials] for i in range(4))
    return time_saved(seconds, steps, pruned, group, 10, generator(seed))


class TestSavings:
    COMPLETED = tuple((seconds, 10.0, False, "a") for seconds in (10.0, 12.0, 20.0))

    def test_the_median_of_the_group(self) -> None:
        found = saved(*self.COMPLETED, (3.0, 2.0, True, "a"))
        assert (found.spent, found.saved, found.trials) == (45.0, 9.0, 4)
        assert found.factor == pytest.approx(54 / 45)
        assert found.saved_low <= found.saved <= found.saved_high
        assert 1 <= found.factor_low <= found.factor <= found.factor_high

    def test_scaled_up_where_too_few_completed(self) -> None:
        found = saved(*self.COMPLETED, (1.5, 1.0, True, "b"))
        assert found.saved == pytest.approx(15.0 - 1.5)

    def test_but_not_above_the_dearest_completed_trial(self) -> None:
        assert saved(*self.COMPLETED, (5.0, 1.0, True, "b")).saved == pytest.approx(20.0 - 5.0)

    def test_without_any_completed_trial(self) -> None:
        assert saved((1.0, 5.0, True, "a"), (2.0, 5.0, True, "b")).saved == pytest.approx(3.0)

    @pytest.mark.parametrize("step", [0.0, NAN])
    def test_unknown_steps_save_nothing(self, step: float) -> None:
        assert saved((1.0, step, True, "a"), (2.0, 10.0, False, "a")).saved == 0.0

    def test_a_pruned_trial_that_took_longer_than_the_median_saves_nothing(self) -> None:
        assert saved(*self.COMPLETED, (30.0, 9.0, True, "a")).saved == 0.0

    def test_unknown_seconds_are_left_out(self) -> None:
        found = saved(*self.COMPLETED, (3.0, 2.0, True, "a"), (NAN, 2.0, True, "a"))
        assert (found.saved, found.trials) == (9.0, 4)

    def test_nothing_pruned(self) -> None:
        found = saved(*self.COMPLETED)
        assert (found.factor, found.factor_low, found.factor_high) == (1.0, 1.0, 1.0)

    def test_nothing_spent(self) -> None:
        for found in (saved(), saved((0.0, 0.0, True, "a"))):
            assert (found.spent, found.saved) == (0.0, 0.0)
            assert math.isnan(found.factor)

    def test_one_trial_has_no_interval(self) -> None:
        found = saved((1.0, 5.0, True, "a"))
        assert found.saved == pytest.approx(1.0)
        assert math.isnan(found.saved_low)

    def test_the_seed_decides(self) -> None:
        trials = (*self.COMPLETED, (3.0, 2.0, True, "a"), (1.0, 1.0, True, "b"))
        assert saved(*trials, seed=1) == saved(*trials, seed=1)

    def test_columns_that_do_not_fit(self) -> None:
        with pytest.raises(ValueError, match="same length"):
            time_saved([1.0], [1.0, 2.0], [True], ["a"], 10, generator())
        with pytest.raises(ValueError, match="more than 0 steps"):
            time_saved([1.0], [1.0], [True], ["a"], 0, generator())


class TestImportances:
    SPACE: ClassVar = {
        "lr": FloatDistribution(1e-5, 1e-1, log=True),
        "depth": IntDistribution(0, 5),
        "init": CategoricalDistribution(["zeros", "normal"]),
    }

    def trials(
        self, count: int, sign: int = 1, space: dict[str, Any] | None = None
    ) -> list[FrozenTrial]:
        """Trials whose value hangs on the learning rate, and a little on the depth."""
        random, found = generator(1), []
        for _ in range(count):
            params: dict[str, Any] = {
                "lr": 10 ** random.uniform(-5, -1),
                "depth": int(random.integers(0, 6)),
                "init": str(random.choice(["zeros", "normal"])),
            }
            value = abs(math.log10(params["lr"]) + 3) + 0.05 * params["depth"]
            found.append(
                create_trial(value=sign * value, params=params, distributions=space or self.SPACE)
            )
        return found

    @pytest.fixture(autouse=True)
    def few_resamples(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_MOST_RESAMPLES", "_FANOVA_RESAMPLES"):
            monkeypatch.setattr(module, name, 4)

    def medians(self, found: Importances, method: str) -> dict[str, float]:
        return {it.parameter: it.median for it in found.found if it.method == method}

    @pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
    def test_what_matters_comes_first(
        self, direction: Literal["minimize", "maximize"], sign: int
    ) -> None:
        found = importances(self.trials(120, sign), direction, generator())
        for method in (PED_ANOVA, FANOVA):
            medians = self.medians(found, method)
            assert next(iter(medians)) == "lr"
            assert medians["lr"] > 0.6
            assert sum(medians.values()) == pytest.approx(1, abs=0.15)
        assert all(0 <= it.low <= it.median <= it.high <= 1 for it in found.found)
        assert (found.trials, found.left_out) == (120, {})

    def test_the_seed_decides(self) -> None:
        trials = self.trials(30)
        assert importances(trials, "minimize", generator(3)) == importances(
            trials, "minimize", generator(3)
        )

    def test_many_trials_from_a_part(self) -> None:
        found = importances(self.trials(700), "minimize", generator())
        sizes = {it.method: it.trials for it in found.found}
        assert sizes == {PED_ANOVA: 600, FANOVA: 120}
        assert found.trials == 700
        # Of very many trials some are drawn first.
        small = self.trials(20) * 120
        assert importances(small, "minimize", generator()).trials == 2400

    def test_without_scikit_learn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
        found = importances(self.trials(20), "minimize", generator())
        assert {it.method for it in found.found} == {PED_ANOVA}

    def test_parameters_that_cannot_be_judged(self) -> None:
        trials = self.trials(40)
        for i, trial in enumerate(trials):
            extra: dict[str, Any] = {"fixed": CategoricalDistribution(["only"])}
            trial.params["fixed"] = "only"
            extra["wide"] = FloatDistribution(0, 1 if i < 20 else 2)
            trial.params["wide"] = 0.5
            if i % 2:
                extra["momentum"] = FloatDistribution(0, 1)
                trial.params["momentum"] = 0.9
            trial.distributions = {**trial.distributions, **extra}
        found = importances(trials, "minimize", generator())
        assert found.left_out == {
            "fixed": "it has one value only",
            "wide": "its range changed between trials",
            "momentum": "not in every trial",
        }
        assert {it.parameter for it in found.found} == {"lr", "depth", "init"}

    def test_nothing_to_judge(self) -> None:
        trials = [
            create_trial(
                value=float(i),
                params={"fixed": 1},
                distributions={"fixed": IntDistribution(1, 1)},
            )
            for i in range(12)
        ]
        with pytest.raises(ValueError, match="Fewer than two parameters vary"):
            importances(trials, "minimize", generator())

    def test_one_parameter_has_all_the_importance(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_resampled", lambda *_: pytest.fail("worked for nothing"))
        trials = self.trials(20)
        for trial in trials:
            trial.params = {"lr": trial.params["lr"]}
            trial.distributions = {"lr": self.SPACE["lr"]}
        with pytest.raises(ValueError, match="a single one has all the importance"):
            importances(trials, "minimize", generator())

    @pytest.mark.parametrize("huge", [1e299, 1e308])
    def test_values_that_are_too_large(self, huge: float) -> None:
        trials = self.trials(20)
        for i, trial in enumerate(trials):
            trial.values = [huge if i % 2 else -huge]
        with pytest.raises(ValueError, match=r"too large to be compared\.$"):
            importances(trials, "minimize", generator())

    def test_ranges_that_single_precision_cannot_hold(self) -> None:
        trials = self.trials(40)
        for i, trial in enumerate(trials):
            trial.params |= {"wide": (i - 20) * 1e306, "long": (i - 20) * 1e60}
            trial.distributions = {
                **trial.distributions,
                "wide": FloatDistribution(-1e308, 1e308),
                "long": FloatDistribution(-1e62, 1e62),
            }
        found = importances(trials, "minimize", generator())
        assert found.left_out == {"wide": "its range is too wide"}
        assert next(iter(self.medians(found, FANOVA))) == "lr"
        assert "long" in self.medians(found, FANOVA)

    def test_only_complete_trials_with_a_value_count(self) -> None:
        trials = self.trials(12)
        trials[0].state = TrialState.PRUNED
        trials[1].values = [math.inf]
        trials[2].values = None
        trials[2].state = TrialState.FAIL
        with pytest.raises(ValueError, match="10 complete trials or more; there are 9"):
            importances(trials, "minimize", generator())

    def test_all_the_same_value(self) -> None:
        trials = self.trials(12)
        for trial in trials:
            trial.values = [1.0]
        with pytest.raises(ValueError, match="the same value"):
            importances(trials, "minimize", generator())

    def test_ties_and_resamples_that_are_alike(self) -> None:
        trials = self.trials(30)
        for trial in trials[1:]:
            trial.values = [1.0]
        found = importances(trials, "minimize", generator())
        assert sum(self.medians(found, PED_ANOVA).values()) == pytest.approx(1, abs=0.3)

    def test_a_parameter_that_explains_nothing(self) -> None:
        # Two values with the same settings: no tree can tell them apart.
        trials = self.trials(12)
        for i, trial in enumerate(trials):
            trial.params = dict(trials[0].params)
            trial.values = [float(i)]
        found = importances(trials, "minimize", generator())
        assert {it.method for it in found.found} == {PED_ANOVA}

    def test_a_log_scale_is_judged_as_one(self) -> None:
        # Half of the powers of ten lie below 1e-3, of the plain values 1 %.
        random, space = generator(), dict.fromkeys(("lr", "decay"), self.SPACE["lr"])
        trials = []
        for _ in range(100):
            lr, decay = 10 ** random.uniform(-5, -1, 2)
            value = float(lr > 1e-3) + 0.1 * float(decay > 5e-2)
            trials.append(
                create_trial(value=value, params={"lr": lr, "decay": decay}, distributions=space)
            )
        found = importances(trials, "minimize", generator())
        assert self.medians(found, FANOVA)["lr"] > 0.9

    def test_whole_numbers_on_a_log_scale(self) -> None:
        space: dict[str, BaseDistribution] = {
            "units": IntDistribution(1, 1000, log=True),
            "depth": IntDistribution(0, 5),
        }
        trials = [
            create_trial(
                value=float(units), params={"units": units, "depth": 2}, distributions=space
            )
            for units in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
        ]
        found = importances(trials, "minimize", generator())
        assert self.medians(found, FANOVA)["units"] == pytest.approx(1)

    def test_of_several_objectives_the_first(self) -> None:
        trials = self.trials(30)
        expected = importances(trials, "minimize", generator())
        for i, trial in enumerate(trials):
            trial.values = [trial.values[0], float(i)]
        assert importances(trials, "minimize", generator()) == expected

    def test_it_is_quiet_and_leaves_the_log_as_it_was(
        self, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        before = optuna.logging.get_verbosity()
        try:
            optuna.logging.set_verbosity(optuna.logging.INFO)
            with caplog.at_level(logging.INFO):
                importances(self.trials(12), "minimize", generator())
            assert optuna.logging.get_verbosity() == optuna.logging.INFO
        finally:
            optuna.logging.set_verbosity(before)
        assert capfd.readouterr() == ("", "")


class TestTimeOfImportances:
    """How much work is planned: as counted, the time of any study is about the same."""

    def space(self, levels: list[int], numbers: int) -> dict[str, BaseDistribution]:
        found: dict[str, BaseDistribution] = {
            f"c{i}": CategoricalDistribution([str(level) for level in range(count)])
            for i, count in enumerate(levels)
        }
        return found | {f"x{i}": FloatDistribution(0, 1) for i in range(numbers)}

    @pytest.mark.parametrize("trials", [46, 500, 10_000])
    def test_a_study_like_mnist_keeps_fanova(self, trials: int) -> None:
        method = module._fanova(self.space([7, 8, 5], 1), trials)
        assert method is not None
        assert method.resamples == 10

    @pytest.mark.parametrize(
        ("levels", "numbers"), [([8], 1), ([9], 1), ([], 2), ([], 30), ([2] * 20, 3)]
    )
    def test_as_many_trees_as_there_is_time_for(self, levels: list[int], numbers: int) -> None:
        method = module._fanova(self.space(levels, numbers), 120)
        assert method is not None
        assert method.size == 120

    @pytest.mark.parametrize(
        ("levels", "numbers"), [([10], 1), ([30], 1), ([2000], 1), ([9, 9], 4), ([], 200)]
    )
    def test_too_many_levels_or_parameters_for_fanova(
        self, levels: list[int], numbers: int
    ) -> None:
        assert module._fanova(self.space(levels, numbers), 120) is None

    @pytest.mark.parametrize(
        ("levels", "numbers"), [([7, 8, 5], 1), ([], 6), ([], 100), ([200] * 3, 3), ([2] * 60, 4)]
    )
    @pytest.mark.parametrize("trials", [12, 500, 10_000])
    def test_ped_anova_does_no_more_than_its_share(
        self, levels: list[int], numbers: int, trials: int
    ) -> None:
        method = module._ped_anova(self.space(levels, numbers), trials)
        assert method.size == trials or 50 <= method.size <= 600
        assert 5 <= method.resamples <= 40
        wide = len(levels) + numbers + sum(levels) / 15
        work = method.resamples * wide * (100 + method.size)
        assert work <= module._PED_ANOVA_WORK or method.resamples == 5

    def test_many_levels_are_judged_at_once(self) -> None:
        random, space, trials = generator(), self.space([30], 1), []
        for _ in range(40):
            params: dict[str, Any] = {"c0": str(random.integers(30)), "x0": random.random()}
            trials.append(create_trial(value=params["x0"], params=params, distributions=space))
        found = importances(trials, "minimize", generator())
        assert {it.method for it in found.found} == {PED_ANOVA}
        assert found.found[0].parameter == "x0"
