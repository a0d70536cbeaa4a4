"""The model that comparisons rest on: its kernel, its rows, its levels."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from sklearn.gaussian_process import GaussianProcessRegressor

from tests.samples import OURS, SPACE, frozen, in_memory, mnist_like
from tuner.report.factors import Knob
from tuner.report.model import (
    NoModel,
    knob_settings,
    knob_values,
    model_of,
    random_settings,
    reports_of,
)
from tuner.report.results import FAILED, Results
from tuner.report.statistics.levels import DRAWS, TunedLevels, tuned_levels
from tuner.report.statistics.surrogate import (
    MOST_ROWS,
    NONE,
    REPORTS_PER_TRIAL,
    Axis,
    Rows,
    Surrogate,
    _Covariance,
    choose_trials,
    fit,
)

Array = npt.NDArray[np.float64]
ALL_AXES = (Axis("knob"), Axis("levels", 3), Axis("steps", 4))


def rows_of(
    settings: npt.ArrayLike, value: npt.ArrayLike, trial: npt.ArrayLike, step: npt.ArrayLike = 1.0
) -> Rows:
    table = np.asarray(settings, dtype=float)
    steps = np.broadcast_to(np.asarray(step, dtype=float), len(table)).copy()
    return Rows(table, steps, np.asarray(trial, dtype=np.int64), np.asarray(value, dtype=float))


def fitted(rows: Rows, axes: tuple[Axis, ...]) -> Surrogate:
    return fit(rows, axes, np.random.default_rng(0))


def expectation(model: Surrogate, settings: Sequence[float]) -> tuple[float, float]:
    """The expected value of a new run, and its deviation."""
    mean, covariance = model.joint(np.array([settings]))
    return float(mean[0]), math.sqrt(covariance[0, 0])


# --- the kernel ---------------------------------------------------------------------------------


def inputs(rows: int, seed: int = 0) -> Array:
    """Rows of `ALL_AXES`, with parameters that are missing, two reports a trial, and new runs."""
    generator = np.random.default_rng(seed)
    settings = np.column_stack(
        [generator.random(rows), generator.integers(3, size=rows), generator.integers(4, size=rows)]
    )
    settings[generator.random(settings.shape) < 0.2] = NONE
    trial = np.arange(rows) // 2
    trial[-2:] = NONE
    return np.column_stack([settings, generator.random(rows), trial])


def test_the_kernels_gradient_is_that_of_finite_differences() -> None:
    kernel = _Covariance(ALL_AXES)
    x = inputs(14)
    start = kernel.theta + np.random.default_rng(1).normal(0, 0.3, len(kernel.theta))
    kernel.theta = start
    _, gradient = kernel(x, eval_gradient=True)
    assert gradient.shape == (14, 14, 7 + 1 + 1 + 3)
    for place in range(len(start)):
        ends = []
        for sign in (1, -1):
            theta = start.copy()
            theta[place] += sign * 1e-6
            kernel.theta = theta
            ends.append(kernel(x))
        numeric = (ends[0] - ends[1]) / 2e-6
        assert np.abs(numeric).max() > 0, f"hyperparameter {place} does nothing"
        np.testing.assert_allclose(gradient[..., place], numeric, rtol=1e-5, atol=1e-8)


def test_the_kernel_is_a_covariance() -> None:
    kernel = _Covariance(ALL_AXES)
    x = inputs(40, seed=2)
    covariance = kernel(x)
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9
    np.testing.assert_allclose(kernel.diag(x), np.diag(covariance))
    # Between two sets of reports there is no noise, only what they share.
    noise = np.diag(covariance) - np.diag(kernel(x, x))
    assert (noise[:-2] > 0).all()
    assert noise[-2:] == pytest.approx(0)  # new runs are asked for their expectation


def test_one_run_shares_its_luck_and_two_runs_do_not() -> None:
    kernel = _Covariance((Axis("knob"),))
    run, again, other = [0.5, 0.2, 7], [0.5, 0.9, 7], [0.5, 0.9, 8]
    new = [0.5, 0.9, NONE]
    x = np.array([run, again, other, new, new], dtype=float)
    covariance = kernel(x, x)
    luck = math.exp(2 * kernel.theta[2])
    assert covariance[0, 1] - covariance[0, 2] == pytest.approx(luck)
    assert covariance[0, 2] == pytest.approx(covariance[0, 3])
    assert covariance[3, 4] == pytest.approx(covariance[2, 2] - luck)


@pytest.mark.parametrize(
    ("axis", "far", "further"),
    [
        (Axis("knob"), 0.4, 0.9),
        (Axis("steps", 4), 1.0, 3.0),
    ],
)
def test_ordered_values_are_the_less_alike_the_further_apart(
    axis: Axis, far: float, further: float
) -> None:
    (same, near, apart) = (
        sum(d[0, 0] for d in axis.distances(np.array([0.0]), np.array([it])))
        for it in (0.0, far, further)
    )
    assert same == 0 < near < apart


def test_unordered_levels_are_all_as_far_apart() -> None:
    (distances,) = Axis("levels", 3).distances(np.arange(3.0), np.arange(3.0))
    assert (distances == 1 - np.eye(3)).all()


@pytest.mark.parametrize("axis", ALL_AXES)
def test_a_missing_parameter_is_like_itself_and_unlike_every_value(axis: Axis) -> None:
    missing, values = np.array([NONE]), np.array([0.0, 1.0])
    assert sum(it[0, 0] for it in axis.distances(missing, missing)) == 0
    to_values = sum(axis.distances(missing, values))
    assert to_values[0, 0] == to_values[0, 1] == pytest.approx(1)  # not as far as -1 is from them


# --- the fit ------------------------------------------------------------------------------------


def smooth(x: Array) -> Array:
    return np.asarray(np.sin(5 * x[:, 0]) * 0.3 + 0.2 * (x[:, 1] == 1))


def test_predictions_recover_a_smooth_function() -> None:
    generator = np.random.default_rng(3)
    x = np.column_stack([generator.random(80), generator.integers(2, size=80)]).astype(float)
    rows = rows_of(x, smooth(x) + generator.normal(0, 0.02, 80), np.arange(80))
    model = fitted(rows, (Axis("knob"), Axis("levels", 2)))
    new = np.column_stack([generator.uniform(0.05, 0.95, 60), np.arange(60) % 2])
    mean, covariance = model.joint(new)
    off = mean - smooth(new)
    assert np.sqrt((off**2).mean()) < 0.03 < smooth(new).std() / 5
    inside = np.abs(off) <= 1.96 * np.sqrt(np.diag(covariance))
    assert inside.mean() >= 0.85
    np.testing.assert_allclose(model.mean(new), mean)
    assert 0.01 < model.luck < 0.04
    assert 0 < model.noise <= model.luck


def runs_of_twelve(
    generator: np.random.Generator, luck: float
) -> tuple[list[list[float]], list[float], list[int], list[float]]:
    """Two runs of each of 12 settings of a knob; each reports at seven steps."""
    settings, values, trials, steps = [], [], [], []
    for number in range(24):
        place = number // 2 / 11
        own = generator.normal(0, luck)
        for step in np.linspace(0.1, 1, 7):
            settings.append([place])
            values.append(0.3 * place - 0.5 * step + own + generator.normal(0, 0.02))
            trials.append(number)
            steps.append(float(step))
    return settings, values, trials, steps


def test_reports_of_one_run_are_not_runs() -> None:
    """Seven reports of a run say less of its setting than one report of each of seven runs."""
    generator = np.random.default_rng(4)
    settings, values, trials, steps = runs_of_twelve(generator, 0.3)
    own = -0.4 + generator.normal(0, 0.02, 7)
    axes = (Axis("knob"),)
    model = fitted(rows_of(settings, values, trials, steps), axes)
    # The same reports of one setting's last step, with what the fit has learned of luck.
    known = _Covariance(axes, tuple(model.process.kernel_.theta))
    deviations = {}
    for name, numbers in (("one run", [1000] * 7), ("seven runs", list(range(1000, 1007)))):
        x = [[0.5, 1.0, number] for number in numbers]
        process = GaussianProcessRegressor(known, optimizer=None).fit(np.array(x), own)
        _, deviation = process.predict(np.array([[0.5, 1.0, NONE]]), return_std=True)
        deviations[name] = float(deviation[0])
    assert deviations["one run"] > 1.5 * deviations["seven runs"]
    assert deviations["one run"] * model.unit > 0.2  # as much as luck leaves open


def test_pruned_runs_inform_without_pulling() -> None:
    """Early reports are high; they must not make a level look bad, and narrow its interval."""
    generator = np.random.default_rng(5)
    settings, values, trials, steps = [], [], [], []
    for number in range(60):
        level = number % 2
        complete = level == 0 or number < 4  # of level 1 only two run to their end
        own = generator.normal(0, 0.02)
        for step in (0.0, 0.3, 0.6, 1.0) if complete else (0.0, 0.3):
            settings.append([float(level)])
            values.append(0.8 * (1 - step) + own + generator.normal(0, 0.01))
            trials.append(number)
            steps.append(step)
    every = rows_of(settings, values, trials, steps)
    pruned = np.isin(every.trial, every.trial[every.step == 1.0], invert=True)
    assert 0 < pruned.sum() < len(every)
    kept = ~pruned
    without = Rows(every.settings[kept], every.step[kept], every.trial[kept], every.value[kept])
    axes = (Axis("levels", 2),)
    (mean, deviation), (mean_without, deviation_without) = (
        expectation(fitted(rows, axes), [1.0]) for rows in (every, without)
    )
    assert mean == pytest.approx(mean_without, abs=0.03)
    assert mean == pytest.approx(0, abs=0.04)  # though most of its reports were above 0.5
    assert deviation < deviation_without


@pytest.mark.parametrize("values", [[0.1] * 20, [0.1, 0.2, 0.3, 0.4]])
def test_a_fit_needs_reports_that_differ(values: list[float]) -> None:
    rows = rows_of(np.linspace(0, 1, len(values))[:, None], values, np.arange(len(values)))
    with pytest.raises(ValueError, match="at least 5 reports with different values"):
        fitted(rows, (Axis("knob"),))


# --- which rows ---------------------------------------------------------------------------------


MOST = 700


def many_rows(trials: int = 600, seed: int = 0) -> Rows:
    """Trials of 1, 2 or 5 reports; few of the last kind."""
    generator = np.random.default_rng(seed)
    lengths = generator.choice([1, 2, 5], p=[0.6, 0.35, 0.05], size=trials)
    numbers = np.repeat(np.arange(trials) * 3, lengths)
    count = len(numbers)
    settings = generator.random((count, 2))
    return rows_of(settings, generator.random(count), numbers, generator.random(count))


def test_rows_are_chosen_as_whole_trials_and_few_enough() -> None:
    rows = many_rows()
    assert len(rows) > MOST
    taken = choose_trials(rows, MOST, np.random.default_rng(0))
    assert MOST - 5 < taken.sum() <= MOST
    assert not set(rows.trial[taken]) & set(rows.trial[~taken])


def test_rows_are_chosen_without_a_look_at_values() -> None:
    rows = many_rows()
    shuffled = np.random.default_rng(9).permutation(rows.value)
    other = Rows(rows.settings, rows.step, rows.trial, shuffled)
    assert (shuffled != rows.value).any()
    first, second = (choose_trials(it, MOST, np.random.default_rng(0)) for it in (rows, other))
    assert (first == second).all()
    assert (first != choose_trials(rows, MOST, np.random.default_rng(1))).any()


def test_long_and_short_trials_have_the_same_chance() -> None:
    rows = many_rows(1000)
    _, lengths = np.unique(rows.trial, return_counts=True)
    generator = np.random.default_rng(0)
    share = np.zeros(len(lengths))
    for _ in range(200):
        taken = np.unique(rows.trial[choose_trials(rows, MOST, generator)]) // 3
        share[taken] += 1 / 200
    of_length = [share[lengths == it].mean() for it in (1, 2, 5)]
    assert of_length == pytest.approx([share.mean()] * 3, abs=0.03)
    assert 0.3 < share.mean() < 0.7


def test_few_rows_are_all_taken() -> None:
    rows = many_rows(100)
    assert len(rows) <= MOST
    assert choose_trials(rows, MOST, np.random.default_rng(0)).all()


# --- levels -------------------------------------------------------------------------------------


def levels_of(draws: Array) -> TunedLevels:
    count = draws.shape[1]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    p_best = np.bincount(draws.argmin(axis=1), minlength=count) / len(draws)
    return TunedLevels(
        settings=np.zeros((count, 1)),
        mean=draws.mean(axis=0),
        low=low,
        high=high,
        p_best=p_best,
        optima=draws,
        draws=draws,
    )


def test_behind_holds_for_all_levels_at_once() -> None:
    """One-sided at 2.5 %: 1.96 deviations for two levels, 2.64 for the six pairs of four."""
    drawn = np.random.default_rng(0).normal(size=1000)
    drawn = (drawn - drawn.mean()) / drawn.std()
    draws = np.column_stack([np.zeros(1000), 2.5 + drawn, 2.8 + drawn, 9 + drawn])
    tuned = levels_of(draws)
    assert tuned.leader == 0
    assert tuned.behind() == [2, 3]  # the nearest first
    assert levels_of(draws[:, :2]).behind() == [1]
    assert levels_of(draws[:, :2] - [0, 0.6]).behind() == []  # 1.9 deviations


def test_the_leader_has_the_lowest_estimate_and_ratios_are_differences() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal([0.3, 0.1, 0.2], 0.01, (2000, 3))
    tuned = levels_of(draws)
    assert tuned.leader == 1
    assert tuned.behind() == [2, 0]
    middle, low, high = tuned.ratio(0, 1)
    assert low < middle < high
    assert middle == pytest.approx(0.2, abs=0.002)
    assert (low, high) == (
        pytest.approx(0.2 - 1.96 * 0.01 * 2**0.5, abs=0.003),
        pytest.approx(0.2 + 1.96 * 0.01 * 2**0.5, abs=0.003),
    )
    assert levels_of(draws[:, :1]).behind() == []


def test_levels_are_compared_at_their_own_best_settings() -> None:
    """Level 0 is best at 0.2 and level 1 at 0.8, where it is lower."""
    generator = np.random.default_rng(6)
    knob, level = generator.random(120), generator.integers(2, size=120)
    best = np.where(level == 0, 0.2, 0.8)
    value = (knob - best) ** 2 - 0.1 * level + generator.normal(0, 0.01, 120)
    x = np.column_stack([knob, level]).astype(float)
    model = fitted(rows_of(x, value, np.arange(120)), (Axis("knob"), Axis("levels", 2)))
    pool = np.column_stack([np.linspace(0, 1, 101), np.zeros(101)])
    tuned = tuned_levels(model, 1, 2, pool, np.random.default_rng(0))
    assert tuned.settings[:, 0] == pytest.approx([0.2, 0.8], abs=0.12)
    assert tuned.settings[:, 1].tolist() == [0, 1]
    assert tuned.mean == pytest.approx([0, -0.1], abs=0.02)
    assert tuned.leader == 1
    assert tuned.p_best.sum() == pytest.approx(1)
    assert tuned.p_best[1] > 0.99
    assert tuned.draws.shape == (DRAWS, 2)
    assert (tuned.low < tuned.mean).all()
    assert (tuned.mean < tuned.high).all()
    assert pool[:, 1].tolist() == [0] * 101  # it is the caller's


# --- from results to rows -----------------------------------------------------------------------


def simple(
    count: int,
    value: Callable[[int], float],
    *,
    curve: Callable[[int], dict[int, float]] | None = None,
    params: Callable[[int], dict[str, Any]] = lambda i: {"optimizer": ("sgd", "adam")[i % 2]},
    space: dict[str, BaseDistribution] = SPACE,
    state: TrialState = TrialState.COMPLETE,
) -> list[FrozenTrial]:
    return [
        frozen(state, params(i), {} if curve is None else curve(i), value(i), {}, space=space)
        for i in range(count)
    ]


def test_no_model_says_what_is_missing() -> None:
    def why(results: Results) -> str:
        with pytest.raises(NoModel) as found:
            model_of(results)
        return str(found.value)

    few = in_memory(simple(7, lambda i: 0.1 + i))
    assert why(few) == "A model needs 8 trials with a value, and 7 trials had one."
    assert why(in_memory([])) == "No parameter of this study has two values."
    single: dict[str, BaseDistribution] = {
        "optimizer": CategoricalDistribution(("adam",)), "x": FloatDistribution(1, 1),
    }  # fmt: skip
    alone = simple(20, float, params=lambda i: {"optimizer": "adam", "x": 1.0}, space=single)
    assert why(in_memory(alone)) == "No parameter of this study has two values."
    alike = why(in_memory(simple(20, lambda i: 0.1)))
    assert alike == (
        "There is nothing to model: a model needs at least 5 reports with different values."
    )
    lost = simple(20, lambda i: math.inf)
    assert why(in_memory(lost)).endswith(".")
    assert model_of(in_memory(simple(8, lambda i: 0.1 + i))).reports == 8


def test_reports_are_those_of_trials_that_ended() -> None:
    results = in_memory(mnist_like(60), attrs=OURS)
    reports = reports_of(results)
    failed = results.trials.index[results.trials["outcome"] == FAILED]
    running = results.trials.index[results.trials["outcome"].isin(["running", "waiting"])]
    assert len(failed)
    assert set(reports["number"]) == set(results.trials.index) - {*failed, *running}
    known = results.steps.set_index(["number", "step"])["value"]
    for row in reports.itertuples():
        assert row.modelled == pytest.approx(math.log10(known[row.number, row.step]))


def test_few_reports_a_trial_with_its_first_and_last() -> None:
    def curve(i: int) -> dict[int, float]:
        return {step: 1 / step for step in range(1, 3 * i + 2)}

    trials = simple(20, lambda i: 1 / (3 * i + 1), curve=curve)
    results = in_memory(trials)
    for number, own in reports_of(results).groupby("number"):
        last = 3 * int(number) + 1
        steps = own["step"].tolist()
        assert len(steps) == min(last, REPORTS_PER_TRIAL)
        assert (steps[0], steps[-1]) == (1, last)
        assert steps == sorted(set(steps))
    assert REPORTS_PER_TRIAL < 60


def test_a_final_value_of_another_quantity_stands_alone() -> None:
    other = simple(20, lambda i: 10.0 + i, curve=lambda i: {1: 0.5, 2: 0.25 + i / 100})
    pruned = simple(5, lambda i: 0.3, curve=lambda i: {1: 0.3}, state=TrialState.PRUNED)
    reports = reports_of(in_memory([*other, *pruned]))
    assert sorted(reports["number"]) == list(range(20))
    assert set(reports["step"]) == {2}
    scale = in_memory([*other, *pruned]).scale
    assert scale.from_model(reports["modelled"]) == pytest.approx(np.arange(10.0, 30.0))
    # The last report again, and the pruned trials count, too.
    same = simple(20, lambda i: 0.25 + i / 100, curve=lambda i: {1: 0.5, 2: 0.25 + i / 100})
    reports = reports_of(in_memory([*same, *pruned]))
    assert len(reports) == 2 * 20 + 5


def test_a_trial_without_reports_counts_with_its_value() -> None:
    trials = simple(10, lambda i: 1.0 + i, curve=lambda i: {4: 1.0 + i} if i % 2 else {})
    reports = reports_of(in_memory(trials))
    assert reports["number"].tolist() == list(range(10))
    assert set(reports["step"]) == {4}


@pytest.mark.parametrize("first", [0, 1])
def test_steps_lie_between_none_and_all(first: int) -> None:
    def curve(i: int) -> dict[int, float]:
        return {first + step: 1.0 + i - step / 10 for step in range(4)}

    model = model_of(in_memory(simple(12, lambda i: 0.7 + i, curve=curve)))
    steps = model.surrogate.rows.step
    assert (steps.min(), steps.max()) == (0, pytest.approx(1))
    assert len(set(steps.round(9))) == 4


# --- settings -----------------------------------------------------------------------------------


@given(
    low=st.floats(1e-6, 1e3), width=st.floats(1.001, 1e6), log=st.booleans(),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)  # fmt: skip
def test_knob_settings_and_values_are_inverse(
    low: float, width: float, log: bool, shares: list[float]
) -> None:
    knob = Knob("x", "X", low, low * width, log)
    values = knob_values(knob, np.array(shares))
    assert (values >= low * (1 - 1e-12)).all()
    assert (values <= low * width * (1 + 1e-12)).all()
    back = knob_settings(knob, values)
    np.testing.assert_allclose(back, shares, atol=1e-9)
    np.testing.assert_allclose(knob_values(knob, back), values, rtol=1e-9)
    assert knob_settings(knob, np.array([low, low * width])) == pytest.approx([0, 1])
    assert np.isnan(knob_settings(knob, np.array([math.nan]))).all()


CONDITIONAL: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(("adam", "sgd")),
    "momentum": FloatDistribution(0, 1),
    "nesterov": CategoricalDistribution((True, False)),
}


def conditional(i: int) -> dict[str, Any]:
    of_sgd = {"momentum": (i % 7) / 7, "nesterov": i % 3 == 0}
    return {"optimizer": "sgd", **of_sgd} if i % 2 else {"optimizer": "adam"}


def test_parameters_that_a_trial_has_not_are_none() -> None:
    generator = np.random.default_rng(0)
    luck = generator.normal(0, 0.05, 40)
    trials = simple(
        40,
        lambda i: float(np.exp(luck[i]) * (0.2 if i % 2 else 0.1)),
        params=conditional,
        space=CONDITIONAL,
    )
    results = in_memory(trials)
    model = model_of(results)
    assert [it.name for it in model.columns] == ["optimizer", "momentum", "nesterov"]
    settings = model.surrogate.rows.settings
    adam = settings[:, 0] == 0
    assert (settings[adam, 1:] == NONE).all()
    assert (settings[~adam, 1:] >= 0).all()
    assert adam.sum() == 20
    assert ((model.pool[:, 1] == NONE) == (model.pool[:, 2] == NONE)).all()
    tuned = model.tuned(results.factor("optimizer"))
    assert tuned.leader == 0
    assert np.isfinite(tuned.draws).all()
    assert tuned.p_best[0] > 0.6
    nesterov = model.tuned(results.factor("nesterov"))
    assert nesterov.p_best.sum() == 1


def test_drawn_settings_have_the_parameters_of_those_that_were_tried() -> None:
    results = in_memory(simple(20, float, params=conditional, space=CONDITIONAL))
    columns = [*results.factors[:1], *results.knobs, *results.factors[1:]]
    like = np.array([[0, NONE, NONE], [1, 0.5, 0]])
    drawn = random_settings(columns, like, 200, np.random.default_rng(0))
    missing = drawn == NONE
    assert (missing[:, 1] == missing[:, 2]).all()
    assert 0 < missing[:, 1].sum() < 200
    assert not missing[:, 0].any()
    assert like.tolist() == [[0, NONE, NONE], [1, 0.5, 0]]


def test_the_same_study_gives_the_same_numbers() -> None:
    found = []
    for _ in range(2):
        results = in_memory(mnist_like(40), attrs=OURS)
        model = model_of(results)
        tuned = model.tuned(results.factor("optimizer"))
        best = results.best
        assert best is not None
        again = model.again(results, best)
        found.append([*tuned.mean, *tuned.low, *tuned.p_best, *tuned.draws.ravel(), *again])
    assert found[0] == found[1]


def test_the_model_finds_the_truth_of_the_sample() -> None:
    """Of the sample's optimizers adam and adamw are the best, and adagrad the worst."""
    results = in_memory(mnist_like(120), attrs=OURS)
    model = model_of(results)
    assert len(model.surrogate.rows) == model.reports <= MOST_ROWS
    assert len(model.modelled) == results.count("complete", "pruned", "diverged")
    factor = results.factor("optimizer")
    tuned = model.tuned(factor)
    assert factor.texts[tuned.leader] in {"adam", "adamw", "nesterov"}
    assert tuned.mean[factor.texts.index("adagrad")] > tuned.mean[factor.texts.index("adam")]
    depth = model.tuned(results.factor("frozen_layers"))
    assert depth.leader in {0, 1}
    assert depth.mean.argmax() == 4
