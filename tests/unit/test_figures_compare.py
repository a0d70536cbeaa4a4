"""Figures that compare: levels, pairs of levels, learning rates, and the confirmation."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy import stats

from tests.samples import BEGAN, OURS, SPACE, frozen, in_memory, mnist_like
from tests.unit.test_figures_search import HOSTILE, many, texts_of
from tuner.report.cards import CannotDraw, Card
from tuner.report.material import Material
from tuner.report.model import StudyModel, knob_settings, random_settings
from tuner.report.plots import compared, words
from tuner.report.plots.confirmation import confirmation
from tuner.report.plots.confirmed import pairs, rival_word, shrinkages, verdict_of
from tuner.report.plots.expected import expected
from tuner.report.plots.forest import forest
from tuner.report.plots.interactions import interactions
from tuner.report.plots.response import response
from tuner.report.results import COMPLETE, FAILED, PRUNED, Results
from tuner.report.statistics.budget import expected_best


def confirmed(
    means: dict[str, float],
    seeds: int = 10,
    *,
    noise: float = 0.03,
    shared: float = 0.05,
    test: bool = False,
    lost: Sequence[tuple[str, int]] = (),
    more: dict[str, dict[str, Any]] | None = None,
    attrs: dict[str, Any] | None = None,
) -> Results:
    """A study that re-ran one configuration of each of these optimizers on the same seeds.

    Args:
        means: the true error of each.
        seeds: how many.
        noise: standard deviation of a run's luck, in log.
        shared: of what a seed does to all of them.
        test: the runs have a test error, too: twice the validation error.
        lost: runs that failed: optimizer and seed.
        more: parameters of an optimizer's configuration besides.
        attrs: of the study.
    """
    generator = np.random.default_rng(7)
    trials = []
    for seed in range(seeds):
        of_seed = generator.normal(0, shared)
        for optimizer, mean in means.items():
            error = float(mean * np.exp(of_seed + generator.normal(0, noise)))
            params = {"learning_rate": 0.001, "optimizer": optimizer, "init": "he_normal",
                      "frozen_layers": 1, **(more or {}).get(optimizer, {})}  # fmt: skip
            failed = (optimizer, seed) in lost
            said = {"seed": seed, **({"test_error": 2 * error} if test and not failed else {})}
            state = TrialState.FAIL if failed else TrialState.COMPLETE
            trials.append(
                frozen(state, params, {20: error}, None if failed else error, said,
                       BEGAN + timedelta(seconds=len(trials)),
                       BEGAN + timedelta(seconds=len(trials) + 5))
            )  # fmt: skip
    kept = {**OURS, "tuner:confirms": "mnist"} if attrs is None else attrs
    return in_memory(trials, name="mnist-confirm", attrs=kept)


@dataclass(frozen=True)
class Modelled:
    """A study and its model."""

    results: Results
    model: StudyModel

    @staticmethod
    def of(results: Results) -> "Modelled":
        return Modelled(results, Material(results).model)

    def forest(self, name: str, verdict: str = "undecided") -> Card:
        factor = self.results.factor(name)
        return forest(self.results, self.model, factor, self.model.tuned(factor), verdict)


@pytest.fixture(scope="module")
def usual() -> Modelled:
    return Modelled.of(in_memory(mnist_like(100), attrs=OURS))


@pytest.fixture(scope="module")
def greedy() -> Modelled:
    return Modelled.of(in_memory(mnist_like(100, greedy=True), attrs=OURS))


@pytest.fixture(scope="module")
def large() -> Modelled:
    return Modelled.of(many(4_000))


@pytest.fixture(scope="module")
def rewarded() -> Modelled:
    """A study that maximises a reward, on a linear axis, of another program."""
    trials = mnist_like(60, states=False)
    for it in trials:
        flipped = {step: 5 - 10 * value for step, value in it.intermediate_values.items()}
        it.intermediate_values = flipped
        it.values = [flipped[max(flipped)]]
    return Modelled.of(in_memory(trials, directions=["maximize"]))


Drawing = Callable[[Modelled], list[Card]]
DRAWINGS: dict[str, Drawing] = {
    "forest": lambda it: [it.forest(factor.name) for factor in it.results.factors],
    "expected": lambda it: [expected(it.results, it.model, f) for f in it.results.factors],
    "interactions": lambda it: interactions(it.results, it.model),
    "response": lambda it: [response(it.results, it.model)],
}


@pytest.mark.parametrize("draw", DRAWINGS)
@pytest.mark.parametrize(
    "which", ["usual", "greedy", pytest.param("large", marks=pytest.mark.soak), "rewarded"]
)
def test_every_card_says_what_it_is(draw: str, which: str, request: pytest.FixtureRequest) -> None:
    modelled = request.getfixturevalue(which)
    for card in DRAWINGS[draw](modelled):
        assert card.title
        assert not card.title.endswith(".")
        assert card.reading.endswith(".")
        assert card.alt.endswith(".")
        assert f"{len(modelled.results.trials):,} trials" in card.basis
        assert str(modelled.results.count(PRUNED)) in card.basis.replace(",", "")
        assert card.figure.layout.title.text is None
        assert 0 < len(card.table) <= words.MOST_ROWS
        assert "nan" not in texts_of(card)
        assert "  " not in texts_of(card)
        assert len(card.figure.to_json()) < 600_000
        assert not any(trace.type == "scattergl" for trace in card.figure.data)
        assert card.figure.layout.height <= 1200


# --- forest -------------------------------------------------------------------------------------


def test_forest_shows_what_the_model_says(usual: Modelled) -> None:
    results = usual.results
    factor = results.factor("optimizer")
    tuned = usual.model.tuned(factor)
    card = usual.forest("optimizer")
    order = np.argsort(tuned.mean)
    table = card.table.set_index("Optimizer")
    assert list(table.index) == [factor.texts[it] for it in order]
    leader = factor.texts[tuned.leader]
    for place, text in enumerate(factor.texts):
        row = table.loc[text]
        assert row["tuned validation error"] == pytest.approx(10 ** tuned.mean[place])
        assert row["high"] == pytest.approx(
            10 ** np.quantile(tuned.draws[:, place], 0.975), rel=0.03
        )
        ended = results.trials[results.params["optimizer"] == text]["outcome"]
        assert row["complete"] == (ended == COMPLETE).sum()
        assert row["failed"] == (ended == FAILED).sum()
        ratio = 10 ** np.median(tuned.draws[:, place] - tuned.draws[:, tuned.leader])
        assert row["ratio to the leader"] == pytest.approx(ratio)
        complete = results.trials[
            (results.params["optimizer"] == text) & (results.trials["outcome"] == COMPLETE)
        ]
        if len(complete):
            assert row["best observed validation error"] == complete["value"].min()
    assert f"<b>{leader}</b>" in " ".join(card.figure.layout.yaxis.ticktext)
    assert sum("<b>" in it for it in card.figure.layout.yaxis.ticktext) == 1
    assert table.loc[leader, "ratio to the leader"] == 1
    assert table["P(best)"].sum() == pytest.approx(1)


def test_forest_words_its_title_by_the_verdict(usual: Modelled) -> None:
    factor = usual.results.factor("optimizer")
    tuned = usual.model.tuned(factor)
    leader = factor.texts[tuned.leader]
    others = [it for it in range(7) if it != tuned.leader]
    second = max(others, key=lambda it: tuned.p_best[it])
    ratio = 10 ** np.median(tuned.draws[:, second] - tuned.draws[:, tuned.leader])
    if ratio > 1:
        said = f"×{ratio:.2f} ahead of {factor.texts[second]}"
        assert usual.forest("optimizer", "likely").title == (
            f"{leader} is likely the best optimizer, {said}"
        )
        assert usual.forest("optimizer", "clear").title.startswith(
            f"{leader} is clearly the best optimizer"
        )
    equal = usual.forest("optimizer", "equal within 0.1 point").title
    assert equal == f"No optimizer is more than 0.1 point behind {leader}"
    worse = [
        factor.texts[it] for it in others
        if np.quantile(tuned.draws[:, it] - tuned.draws[:, tuned.leader], 0.025) > 0
    ]  # fmt: skip
    undecided = usual.forest("optimizer").title
    assert leader in undecided
    if not worse:
        assert undecided == (
            f"No optimizer can be told from the best: {leader} leads by less than the noise"
        )
    elif len(worse) < 4:
        assert all(it in undecided for it in worse)


def test_forest_cuts_bad_runs_off_and_says_so(usual: Modelled) -> None:
    card = usual.forest("optimizer")
    shown = words.last_shown(usual.results)
    valued = usual.results.trials["outcome"].isin((COMPLETE, PRUNED)) & shown.notna()
    drawn = sum(len(it.x) for it in card.figure.data[:2])
    beyond = int(valued.sum()) - drawn
    top = 10 ** card.figure.layout.xaxis.range[1]
    assert beyond == (shown[valued] > top).sum() > 0
    assert f"{beyond} runs above" in card.basis
    assert usual.forest("optimizer").figure == card.figure  # the same seed


def test_forest_marks_levels_that_no_trial_tried() -> None:
    trials = [it for it in mnist_like(60) if it.params.get("optimizer") != "sgd"]
    modelled = Modelled.of(in_memory(trials, attrs=OURS))
    card = modelled.forest("optimizer")
    row = card.table.set_index("Optimizer").loc["sgd"]
    assert row["trials"] == 0
    assert any(">not tried<" in it for it in card.figure.layout.yaxis.ticktext)
    faint = next(it for it in card.figure.data if it.name == "not tried")
    assert len(faint.x) == 1
    assert faint.marker.symbol == "diamond-open"
    curves = expected(modelled.results, modelled.model, modelled.results.factor("optimizer"))
    assert "No trial with a value has sgd." in curves.basis
    assert "sgd" not in list(curves.table["Optimizer"])


def test_forest_takes_a_subset_of_many_runs(large: Modelled) -> None:
    card = large.forest("optimizer")
    assert sum(len(it.x) for it in card.figure.data[:2]) == 600
    assert "Runs drawn: 600 of " in card.basis


def test_forest_needs_two_levels(usual: Modelled) -> None:
    trials = [it for it in mnist_like(200, states=False) if it.params["optimizer"] == "adam"]
    modelled = Modelled.of(in_memory(trials, attrs=OURS))
    for draw in (
        lambda: modelled.forest("optimizer"),
        lambda: expected(modelled.results, modelled.model, modelled.results.factor("optimizer")),
    ):
        with pytest.raises(CannotDraw, match="Fewer than two levels of optimizer"):
            draw()


# --- expected best ------------------------------------------------------------------------------


def test_expected_best_falls_and_is_near_the_models_own_random_search(usual: Modelled) -> None:
    factor = usual.results.factor("optimizer")
    card = expected(usual.results, usual.model, factor)
    for trace in card.figure.data:
        if trace.name:
            assert (np.diff(trace.y) <= 0).all()
    level = int(np.argmax(compared.tried(usual.results, usual.model, factor)))
    generator = np.random.default_rng(5)
    settings = generator.random((400, 4))
    for i, it in enumerate(usual.model.columns):
        if hasattr(it, "levels"):
            settings[:, i] = generator.integers(len(it.levels), size=400)
    settings[:, usual.model.column("optimizer")] = level
    again = expected_best(10 ** usual.model.surrogate.mean(settings), [5])[0]
    told = card.table.set_index("Optimizer").loc[factor.texts[level], "5 trials"]
    assert told == pytest.approx(again, rel=0.35)


def test_expected_best_tells_levels_apart_only_where_bands_do(usual: Modelled) -> None:
    card = expected(usual.results, usual.model, usual.results.factor("optimizer"))
    table = card.table.set_index("Optimizer").sort_values("10 trials")
    first, last = table.iloc[0], table.iloc[-1]
    apart = first["high at 10"] < last["low at 10"]
    if apart:
        assert table.index[0] in card.title
        assert table.index[-1] in card.title
        assert f"{100 * first['10 trials']:.2f} %" in card.title
    else:
        assert "no difference that can be told" in card.title
    names = [it.text for it in card.figure.layout.annotations]
    assert sorted(names) == sorted(table.index)


# --- interactions -------------------------------------------------------------------------------


def test_interactions_mark_what_is_extrapolated(usual: Modelled) -> None:
    cards = interactions(usual.results, usual.model)
    assert [it.key for it in cards] == [
        "interaction-optimizer__frozen_layers",
        "interaction-optimizer__init",
        "interaction-init__frozen_layers",
    ]
    params = usual.results.params.loc[usual.model.modelled]
    for _, row in cards[0].table.iterrows():
        both = (params["optimizer"] == row["Optimizer"]) & (
            params["frozen_layers"] == int(row["Frozen layers"])
        )
        assert row["trials"] == both.sum()
        wide = row["high"] / row["low"] > 2
        assert row["extrapolated"] == ("yes" if wide or not both.any() else "no")
    per = cards[0].table.groupby("Optimizer")["P(best of its optimizer)"].sum()
    assert per.to_numpy() == pytest.approx(1)
    texts = [t for trace in cards[0].figure.data for line in trace.text for t in line if t]
    assert len(texts) == 35
    assert sum(it.endswith("?") for it in texts) == (cards[0].table["extrapolated"] == "yes").sum()


def test_interactions_cells_agree_with_the_tuned_levels(usual: Modelled) -> None:
    factor = usual.results.factor("optimizer")
    tuned = usual.model.tuned(factor)
    table = interactions(usual.results, usual.model)[0].table
    best = table.groupby("Optimizer")["tuned validation error"].min()
    for place, text in enumerate(factor.texts):
        assert best[text] == pytest.approx(10 ** tuned.mean[place], rel=0.05)


def test_interactions_find_a_choice_that_depends() -> None:
    """Depth 0 is best for one optimizer, depth 2 for the other, by a factor of 3."""
    space = {
        "optimizer": CategoricalDistribution(("one", "two")),
        "frozen_layers": IntDistribution(0, 2),
        "lr": FloatDistribution(0.0, 1.0),
    }
    generator = np.random.default_rng(2)
    trials = []
    for number in range(90):
        params = {"optimizer": ("one", "two")[number % 2], "frozen_layers": number // 2 % 3,
                  "lr": float(generator.random())}  # fmt: skip
        away = (
            params["frozen_layers"] if params["optimizer"] == "one" else 2 - params["frozen_layers"]
        )
        error = 0.01 * 3 ** (away / 2) * math.exp(generator.normal(0, 0.05))
        trials.append(frozen(TrialState.COMPLETE, params, {20: error}, error, {}, space=space))
    modelled = Modelled.of(in_memory(trials, attrs={}))
    (card,) = interactions(modelled.results, modelled.model)
    assert card.title == (
        "The best frozen layers seems to depend on the optimizer: likely 0 for one and 2 for two"
    )
    assert "swapping their best choices costs ×" in card.note
    single = response(modelled.results, modelled.model)
    assert single.key == "response-lr"
    assert "can't be told" in single.title


def test_interactions_need_two_factors() -> None:
    space = {"lr": FloatDistribution(1e-4, 1.0, log=True)}
    generator = np.random.default_rng(2)
    trials = []
    for _ in range(40):
        rate = float(10 ** generator.uniform(-4, 0))
        error = (
            0.01 * 10 ** (0.3 * (math.log10(rate) + 2) ** 2) * math.exp(generator.normal(0, 0.03))
        )
        trials.append(
            frozen(TrialState.COMPLETE, {"lr": rate}, {20: error}, error, {}, space=space)
        )
    modelled = Modelled.of(in_memory(trials, attrs={}))
    with pytest.raises(CannotDraw, match="no two parameters"):
        interactions(modelled.results, modelled.model)
    card = response(modelled.results, modelled.model)
    assert len(card.figure.layout.annotations) == 2
    assert card.title.startswith("The best lr lies near 0.0")
    assert card.table["low"].iloc[0] < 0.01 < card.table["high"].iloc[0]
    assert not card.wide


# --- response -----------------------------------------------------------------------------------


def test_response_curves_are_the_models(usual: Modelled) -> None:
    card = response(usual.results, usual.model)
    factor = usual.results.factor("optimizer")
    tuned = usual.model.tuned(factor)
    knob = next(it for it in usual.results.knobs if it.name == "learning_rate")
    column = usual.model.column("learning_rate")
    lines = [it for it in card.figure.data if it.mode == "lines" and it.fill is None]
    assert len(lines) == 7
    for level, line in enumerate(lines):
        at = tuned.settings[level].copy()
        at[column] = knob_settings(knob, np.array(line.x[20]))
        mean = usual.model.surrogate.mean(at[np.newaxis])[0]
        assert line.y[20] == pytest.approx(10**mean)
        row = card.table.set_index("Optimizer").loc[factor.texts[level]]
        assert row["best learning rate"] == pytest.approx(line.x[int(np.argmin(line.y))])
        assert row["low"] <= row["best learning rate"] * 1.001
    assert card.wide
    domains = {card.figure.layout[f"yaxis{i}"].domain for i in ("", 2, 3)}
    assert len(domains) == 1
    assert card.narrow["xaxis3.domain"] == card.narrow["xaxis.domain"]  # two columns
    ranges = {card.figure.layout[f"yaxis{i}"].range for i in ("", 2, 5)}
    assert len(ranges) == 1


def test_response_says_that_rates_lie_apart_only_where_intervals_do(usual: Modelled) -> None:
    card = response(usual.results, usual.model)
    table = card.table.set_index("Optimizer")
    decades = np.log10(table["high"] / table["low"])
    known = table[decades <= 0.5 * 4].sort_values("best learning rate")
    apart = len(known) > 1 and known["high"].iloc[0] < known["low"].iloc[-1]
    assert ("lie apart" in card.title) == apart
    for name in known.index[[0, -1]] if apart else []:
        assert f"for {name} (95 %: " in card.title


def test_response_needs_a_knob() -> None:
    space = {"init": SPACE["init"]}
    trials = [
        frozen(TrialState.COMPLETE, {"init": SPACE["init"].choices[i % 8]},  # type: ignore[attr-defined]
               {20: 0.01 + i / 1000}, 0.01 + i / 1000, {}, space=space)
        for i in range(20)
    ]  # fmt: skip
    modelled = Modelled.of(in_memory(trials, attrs={}))
    with pytest.raises(CannotDraw, match="no parameter with many values"):
        response(modelled.results, modelled.model)


# --- odd studies --------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_trials_are_said(count: int) -> None:
    trials = mnist_like(count, states=False) if count else []
    with pytest.raises(CannotDraw) as raised:
        _ = Material(in_memory(trials, attrs=OURS)).model
    assert str(raised.value).endswith(".")


def test_a_study_without_a_finished_trial_is_modelled_from_what_was_pruned() -> None:
    trials = [it for it in mnist_like(60) if it.state == TrialState.PRUNED]
    modelled = Modelled.of(in_memory(trials, attrs=OURS))
    for draw in DRAWINGS.values():
        for card in draw(modelled):
            assert "nan" not in texts_of(card)
    assert modelled.forest("init").table["complete"].sum() == 0


def test_hostile_names_are_text_in_figures_and_as_they_are_in_tables() -> None:
    space = {
        "lr": FloatDistribution(1e-4, 1.0, log=True),
        "</script>": CategoricalDistribution((HOSTILE, "a & b", "c" * 60)),
        "b": CategoricalDistribution((True, False)),
    }
    generator = np.random.default_rng(2)
    trials = []
    for number in range(40):
        error = float(generator.uniform(0.01, 0.1))
        params = {"lr": float(10 ** generator.uniform(-4, 0)),
                  "</script>": space["</script>"].choices[number % 3], "b": number % 2 == 0}  # type: ignore[attr-defined]  # fmt: skip
        trials.append(frozen(TrialState.COMPLETE, params, {20: error}, error, {}, space=space))
    modelled = Modelled.of(in_memory(trials, attrs={}))
    for draw in DRAWINGS.values():
        for card in draw(modelled):
            shown = texts_of(card) + json.dumps(json.loads(card.figure.to_json()))
            assert "<b>x" not in shown
            assert "</script>" not in shown
            assert "<" not in card.key
    assert HOSTILE in list(modelled.forest("</script>").table.iloc[:, 0])


def test_conditional_parameters_stay_where_they_belong() -> None:
    space = {
        "optimizer": CategoricalDistribution(("sgd", "adam", "adamw")),
        "momentum": FloatDistribution(0.0, 0.99),
        "nesterov": CategoricalDistribution((True, False)),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
    }
    generator = np.random.default_rng(2)
    trials = []
    for number in range(60):
        params: dict[str, Any] = {
            "optimizer": ("sgd", "adam", "adamw")[number % 3],
            "lr": float(10 ** generator.uniform(-4, 0)),
        }
        if params["optimizer"] == "sgd":
            params |= {"momentum": float(generator.random()), "nesterov": number % 2 == 0}
        error = float(generator.uniform(0.01, 0.05))
        trials.append(frozen(TrialState.COMPLETE, params, {20: error}, error, {}, space=space))
    modelled = Modelled.of(in_memory(trials, attrs={}))
    columns = modelled.model.columns
    like = modelled.model.surrogate.rows.settings
    adam = like[like[:, modelled.model.column("optimizer")] == 1]
    drawn = random_settings(columns, adam, 50, np.random.default_rng(0))
    assert (drawn[:, modelled.model.column("momentum")] == -1).all()
    assert (drawn[:, modelled.model.column("lr")] >= 0).all()
    for draw in DRAWINGS.values():
        for card in draw(modelled):
            assert "nan" not in texts_of(card)


# --- confirmation -------------------------------------------------------------------------------


CLOSE = {"adam": 0.0060, "adamw": 0.0060}


def test_confirmation_pairs_runs_by_seed() -> None:
    results = confirmed({"adam": 0.006, "sgd": 0.009}, seeds=5, lost=[("sgd", 3)])
    runs = pairs(results)
    assert runs.labels == ["adam", "sgd"]
    assert runs.errors.shape == (5, 2)
    assert np.isnan(runs.errors[3, 1])
    assert np.isfinite(runs.errors).sum() == 9
    adam = results.trials["value"][results.params["optimizer"] == "adam"]
    assert list(runs.errors[:, 0]) == list(adam)
    card = confirmation(results, None)[0]
    assert "1 run ended without a value (1 of sgd): pairs are compared" in card.basis
    assert "4 to 5 complete runs each" in card.basis


def test_confirmation_words_a_clear_winner() -> None:
    results = confirmed({"adam": 0.006, "rmsprop": 0.009, "sgd": 0.02})
    runs = pairs(results)
    word, sentence = verdict_of(runs, runs.comparison())
    assert word == "clear"
    assert sentence == "On 10 shared seeds adam beats its 2 rivals."
    card, ratios = confirmation(results, None)
    assert card.title == "On 10 shared seeds adam beats its 2 rivals"
    assert ratios.title == "adam beats all 2 rivals"
    assert list(ratios.table["verdict"]) == ["lowest mean", "clearly worse", "clearly worse"]
    own = stats.ttest_rel(runs.errors[:, 1], runs.errors[:, 0]).pvalue
    assert ratios.table["Holm p"].iloc[1] >= own
    means = runs.errors.mean(axis=0)
    assert ratios.table["ratio"].iloc[2] == pytest.approx(means[2] / means[0])
    assert (
        ratios.table["ratio low"].iloc[2] < means[2] / means[0] < ratios.table["ratio high"].iloc[2]
    )


def test_confirmation_words_equal_and_undecided_and_both() -> None:
    equal = pairs(confirmed(CLOSE, seeds=20))
    word, sentence = verdict_of(equal, equal.comparison())
    assert word == "equal within 0.1 point"
    assert "are equal within 0.1 point" in sentence
    open_runs = pairs(confirmed({"adam": 0.05, "adamw": 0.05}, seeds=5, noise=0.2))
    word, sentence = verdict_of(open_runs, open_runs.comparison())
    assert word == "undecided"
    assert sentence.endswith("by less than the noise.")
    (rival,) = open_runs.comparison().rivals
    assert rival_word(rival, "0.1 point") == "undecided"
    both = pairs(confirmed({"adam": 0.0060, "adamw": 0.0063}, seeds=30, noise=0.01))
    (rival,) = both.comparison().rivals
    assert rival_word(rival, "0.1 point") == "worse, but within 0.1 point"
    word, sentence = verdict_of(both, both.comparison())
    assert word == "clear"
    assert sentence.endswith("though by less than 0.1 point.")


def test_confirmation_takes_test_errors_where_all_runs_have_one() -> None:
    results = confirmed({"adam": 0.006, "sgd": 0.009}, test=True)
    card = confirmation(results, None)[0]
    assert "mean test error" in card.table
    values = results.trials["value"][results.params["optimizer"] == "adam"]
    assert card.table["mean test error"].iloc[0] == pytest.approx(2 * values.mean())


def test_confirmation_of_one_configuration_and_of_one_seed() -> None:
    results = confirmed({"adam": 0.006})
    (card,) = confirmation(results, None)
    mean = results.trials["value"].mean()
    assert f"mean validation error of {100 * mean:.2f} %" in card.title
    low, high = stats.t.interval(0.95, 9, mean, stats.sem(results.trials["value"]))
    assert card.table["low"].iloc[0] == pytest.approx(low)
    assert card.table["high"].iloc[0] == pytest.approx(high)
    with pytest.raises(CannotDraw, match="one seed"):
        confirmation(confirmed({"adam": 0.006, "sgd": 0.009}, seeds=1), None)
    with pytest.raises(CannotDraw, match="completed"):
        confirmation(in_memory([], attrs=OURS), None)
    without = [frozen(TrialState.COMPLETE, {"optimizer": "adam"}, {20: 0.1}, 0.1, {})] * 3
    with pytest.raises(CannotDraw, match="seeds"):
        confirmation(in_memory(without, attrs=OURS), None)


def test_confirmation_tells_how_much_was_luck() -> None:
    results = confirmed({"adam": 0.006, "sgd": 0.009})
    params = {"learning_rate": 0.001, "optimizer": "adam", "init": "he_normal", "frozen_layers": 1}
    source = in_memory(
        [frozen(TrialState.COMPLETE, params, {20: value}, value, {}) for value in (0.005, 0.0055)]
        + [frozen(TrialState.COMPLETE, {**params, "learning_rate": 0.2}, {20: 0.001}, 0.001, {})],
        attrs=OURS,
    )
    adam, sgd = shrinkages(results, pairs(results), source)
    mean = results.trials["value"][results.params["optimizer"] == "adam"].mean()
    assert (adam.seen, adam.mean) == (0.005, pytest.approx(mean))
    assert math.isnan(sgd.seen)
    card, ratios = confirmation(results, source)
    assert (
        f"adam had a validation error of 0.50 % in the search and has {100 * mean:.2f} %"
        in card.note
    )
    assert ratios.table["re-run by seen"].iloc[0] == pytest.approx(mean / 0.005)
    assert "best seen in the search" not in confirmation(results, None)[1].table


def test_configurations_are_told_apart_in_words() -> None:
    by_number = confirmed({"adam": 0.006, "sgd": 0.009}, more={"sgd": {"frozen_layers": 3}})
    assert pairs(by_number).labels == ["adam", "sgd"]
    trials = []
    for seed in range(3):
        for optimizer, depth in (("adam", 0), ("adam", 1), ("sgd", 1)):
            params = {"learning_rate": 0.01, "optimizer": optimizer, "init": "he_normal",
                      "frozen_layers": depth}  # fmt: skip
            error = 0.01 + 0.001 * seed
            trials.append(frozen(TrialState.COMPLETE, params, {20: error}, error, {"seed": seed}))
    runs = pairs(in_memory(trials, attrs=OURS))
    assert runs.labels == [
        "#1 adam, frozen layers 0", "#2 adam, frozen layers 1", "#3 sgd, frozen layers 1",
    ]  # fmt: skip
    for card in confirmation(in_memory(trials, attrs=OURS), None):  # all runs alike
        assert "nan" not in texts_of(card)


def test_confirmation_names_a_configuration_that_never_finished() -> None:
    lost = [("sgd", seed) for seed in range(10)]
    runs = pairs(confirmed({"adam": 0.006, "sgd": 0.02}, lost=lost))
    assert (runs.labels, runs.gone, runs.lost_in_all) == (["adam"], ["sgd"], 10)
    (card,) = confirmation(confirmed({"adam": 0.006, "sgd": 0.02}, lost=lost), None)
    assert card.title.startswith("On 10 fresh seeds adam has a mean validation error of ")
    assert card.basis.count("10 runs ended without a value. sgd is left out, as no run of it") == 1
    # A run that failed before it was given its parameters is of none of them.
    trials = [
        frozen(TrialState.COMPLETE, {"optimizer": name}, {}, 0.01, {"seed": seed})
        for seed in range(3) for name in ("adam", "sgd")
    ]  # fmt: skip
    trials.append(frozen(TrialState.FAIL, {}, {}, None, {"seed": 0}))
    runs = pairs(in_memory(trials, attrs=OURS))
    assert (runs.labels, runs.gone, runs.lost_in_all) == (["adam", "sgd"], [], 1)


def test_confirmation_says_what_the_runs_were_measured_on() -> None:
    opened = [
        {"when": f"2026-11-{day}T07:00:00+00:00", "commit": "6fd31c0b1a2d"} for day in (25, 26)
    ]
    for count, test, said in (
        (0, False, "There is no test set: these are values on the data that chose"),
        (1, True, ""),
        (2, True, "The test set was opened twice for this search (2026-11-25 at 6fd31c0b1a2d, "),
    ):
        source = in_memory(mnist_like(5), attrs={**OURS, "tuner:openings": opened[:count]})
        card = confirmation(confirmed({"adam": 0.006, "sgd": 0.02}, test=test), source)[0]
        assert said in card.basis
        assert ("test set" in card.basis) == bool(said)
    other = confirmed({"adam": 0.006, "sgd": 0.02})
    other.attrs["test_accuracy"] = 0.99
    basis = confirmation(other, None)[0].basis
    assert "test() gave test_accuracy, and not test_error of every run: these are" in basis


@pytest.mark.parametrize("seeds", [2, 4])
def test_confirmation_on_few_seeds_is_undecided(seeds: int) -> None:
    for means in ({"adam": 0.006, "sgd": 0.06}, {"adam": 0.006, "sgd": 0.006}):
        runs = pairs(confirmed(means, seeds=seeds, noise=1e-9))
        comparison = runs.comparison()
        word, sentence = verdict_of(runs, comparison)
        assert word in {"likely", "undecided"}
        assert sentence.startswith(f"On {seeds} shared seeds ")
        assert "equal" not in sentence
        assert "beats" not in sentence
        assert rival_word(comparison.rivals[0], runs.margin_text) == "undecided"
        ratios = confirmation(confirmed(means, seeds=seeds, noise=1e-9), None)[1]
        assert "beats" not in ratios.title
        assert "more than" not in ratios.title
    runs = pairs(confirmed({"adam": 0.006, "sgd": 0.06}, seeds=5, noise=0.01))
    assert verdict_of(runs, runs.comparison())[0] == "clear"


def test_confirmation_counts_the_seeds_that_the_winner_shares() -> None:
    lost = [("sgd", seed) for seed in range(8)]
    means = {"adam": 0.006, "rmsprop": 0.03, "sgd": 0.06}
    runs = pairs(confirmed(means, lost=lost))
    word, sentence = verdict_of(runs, runs.comparison())
    assert word != "clear"
    assert sentence.startswith("On at least 2 shared seeds adam ")
    none = [("adam", seed) for seed in range(5)] + [("sgd", seed) for seed in range(5, 10)]
    runs = pairs(confirmed({"adam": 0.006, "sgd": 0.06}, lost=none))
    word, sentence = verdict_of(runs, runs.comparison())
    assert word == "undecided"
    assert sentence.startswith("Without a shared seed for every rival, adam has the best mean")


def test_confirmation_says_how_many_runs_the_winner_lost() -> None:
    lost = [("adam", seed) for seed in range(5)] + [("sgd", 0)]
    runs = pairs(confirmed({"adam": 0.006, "sgd": 0.06}, lost=lost))
    word, sentence = verdict_of(runs, runs.comparison())
    assert word == "clear"
    assert sentence == ("On 5 shared seeds adam beats its rival; 5 of its 10 runs did not finish.")
    one = pairs(confirmed({"adam": 0.006, "sgd": 0.06}, lost=[("sgd", 0)]))
    assert "did not finish" not in verdict_of(one, one.comparison())[1]


def test_nothing_is_called_equal_where_no_margin_is_agreed() -> None:
    signs = np.where(np.arange(20) % 2, 0.1, -0.1)
    values = 1000 + np.outer(signs, [1.0, -1.0])
    trials = [
        frozen(TrialState.COMPLETE, {"optimizer": name}, {20: values[seed, i]},
               float(values[seed, i]), {"seed": seed})
        for seed in range(20) for i, name in enumerate(("adam", "sgd"))
    ]  # fmt: skip
    results = in_memory(trials, attrs={})
    runs = pairs(results)
    word, sentence = verdict_of(runs, runs.comparison())
    assert word == "undecided"
    assert "equal" not in sentence
    card = confirmation(results, None)[1]
    assert "none is called equal" in card.note
    assert "equal" not in card.title + card.alt + " ".join(card.table["verdict"])


@pytest.mark.parametrize("maximised", [False, True])
def test_confirmation_cards_say_what_they_are(maximised: bool) -> None:
    results = confirmed({"adam": 0.006, "adamw": 0.0061, "sgd": 0.009})
    if maximised:
        trials = [
            frozen(TrialState.COMPLETE, {"optimizer": name}, {20: value}, value, {"seed": seed})
            for seed in range(6)
            for name, value in (("adam", 3.0 + seed % 2), ("sgd", -2.0 + seed % 3))
        ]  # fmt: skip
        results = in_memory(trials, directions=["maximize"])
    for card in confirmation(results, None):
        assert not card.title.endswith(".")
        assert card.alt.endswith(".")
        assert "trials" in card.basis
        assert "nan" not in texts_of(card)
        assert "  " not in texts_of(card)
        assert len(card.table)


# --- what is said -------------------------------------------------------------------------------


def test_an_adaptive_search_leads_to_no_more_than_likely(usual: Modelled) -> None:
    factor = usual.results.factor("frozen_layers")
    tuned = usual.model.tuned(factor)
    apart = np.linspace(0.0, 4.0, len(factor.levels))
    draws = apart + 0.01 * np.random.default_rng(0).normal(size=(400, 5))
    tuned = replace(tuned, mean=apart, draws=draws, optima=draws)

    def title(sampler: str) -> str:
        stored = replace(usual.results.stored, samplers=frozenset({sampler}))
        results = replace(usual.results, stored=stored)
        return forest(results, usual.model, factor, tuned, "undecided").title

    assert title("tpe").endswith("every other choice of frozen layers is likely behind")
    assert title("random").endswith("is behind by more than the noise")


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_score_is_told_as_it_is(draw: str, rewarded: Modelled) -> None:
    for card in DRAWINGS[draw](rewarded):
        assert "\N{MINUS SIGN}value" not in texts_of(card)
        if draw != "interactions":
            assert "The axis shows the negative of the value" in card.reading
        else:
            assert "dark is high" in card.reading


def test_intervals_of_a_score_begin_with_the_lower_end(rewarded: Modelled) -> None:
    assert compared.span_text(rewarded.results.scale, -7.0, 2.5) == "-2.5 to 7"


def test_a_covariance_that_rounding_spoilt_is_drawn_from() -> None:
    class Spoilt:
        def joint(self, settings: Any) -> tuple[Any, Any]:
            count = len(settings)
            covariance = np.ones((count, count)) - 1e-6 * np.eye(count)
            covariance[0, 1] += 1e-3
            return np.zeros(count), covariance

    draws = compared.posterior(Spoilt(), np.zeros((3, 1)), 10, np.random.default_rng(0))  # type: ignore[arg-type]
    assert np.isfinite(draws).all()


def test_the_model_of_final_values_says_what_it_leaves_out() -> None:
    trials = mnist_like(200, states=False)
    for it in trials:
        it.intermediate_values = {s: 100.0 + s for s in it.intermediate_values}
        if it.state == TrialState.PRUNED:
            it.values = None
    modelled = Modelled.of(in_memory(trials, attrs=OURS))
    card = modelled.forest("optimizer")
    assert "pruned ones are left out" in card.basis
    assert "no place here" in card.note
    assert "  " not in texts_of(card)
