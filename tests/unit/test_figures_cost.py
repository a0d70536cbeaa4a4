"""Cost, savings, importances, several objectives and studies, the best, provenance, key figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from tests.samples import BEGAN, OURS, SPACE, frozen, in_memory, mnist_like
from tuner.dominance import not_beaten
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme
from tuner.report.plots.best import best_configuration, command_of, mixed, provenance
from tuner.report.plots.cost import cost, explaining
from tuner.report.plots.facts import key_facts
from tuner.report.plots.importance import frozen_trials, importance
from tuner.report.plots.pareto import pareto
from tuner.report.plots.savings import saved_by_pruning, savings
from tuner.report.plots.studies import key_numbers, side_by_side
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results

HOSTILE = "<b>x</b> & 'y'; DROP \U0001f600 " + "long " * 20
ONE: Sequence[Callable[[Results], Card]] = (cost, savings, importance)
MOST_BYTES = 600_000


def built(
    trials: Sequence[FrozenTrial], attrs: dict[str, Any] | None = None, **options: Any
) -> Results:
    return in_memory(trials, attrs=attrs, **options)


def ours(trials: int = 100, **options: Any) -> Results:
    return built(mnist_like(trials, **options), OURS)


def foreign(metric: Callable[[FrozenTrial], float] | None = None, **options: Any) -> Results:
    """The same trials of another program: no attributes of ours."""
    trials = mnist_like(60)
    for it in trials:
        it.user_attrs = {}
        if metric and it.values:
            it.values = [metric(it)]
            it.intermediate_values = {s: 1 - v for s, v in it.intermediate_values.items()}
    return built(trials, **options)


def several(directions: Sequence[str] = ("minimize", "maximize"), count: int = 40) -> Results:
    generator = np.random.default_rng(3)
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    trials = []
    for _ in range(count):
        it = frozen(TrialState.COMPLETE, {"x": generator.random()}, {}, 0.0, {}, space=space)
        it.values = [float(value) for value in generator.random(len(directions))]
        trials.append(it)
    trials.append(frozen(TrialState.FAIL, {"x": 0.5}, {}, None, {}, space=space))
    return built(trials, directions=directions)


def card_holds(card: Card) -> None:
    """What is true of every card."""
    assert card.title
    assert not card.title.endswith(".")
    assert card.reading.endswith(".")
    assert card.basis.endswith(".")
    assert card.alt.endswith(".")
    assert not any("nan" in it.split() for it in (card.title, card.basis, card.alt, card.note))
    assert len(card.table) <= 200
    text = card.figure.to_json()
    assert len(text) < MOST_BYTES
    for raw in ("<b>x", "<script"):
        assert raw not in text
        assert raw.replace("<", "\\u003c") not in text
    figure = type(card.figure)(card.figure)
    for name, value in card.narrow.items():
        figure.update_layout({name.replace(".", "_"): value})


def test_cost_finds_the_factor_and_the_front_of_complete_trials() -> None:
    results = ours()
    card = cost(results)
    card_holds(card)
    factor = explaining(results)
    assert factor is not None
    assert factor.name == "frozen_layers"
    complete = results.trials[results.trials["outcome"] == COMPLETE]
    front = {
        number
        for number, row in complete.iterrows()
        if not (
            (complete["seconds"] <= row["seconds"])
            & (complete["value"] <= row["value"])
            & ((complete["seconds"] < row["seconds"]) | (complete["value"] < row["value"]))
        ).any()
    }
    said = card.table.query("on_the_line == 'yes'")["trial"]
    assert set(said) <= front
    assert {tuple(complete.loc[it, ["seconds", "value"]]) for it in front} == {
        tuple(complete.loc[it, ["seconds", "value"]]) for it in said
    }
    best = complete.loc[results.best]
    assert f"{100 * best['value']:.2f} % in {best['seconds']:.0f} s" in card.title
    assert "3 failed" in card.basis
    assert "Pruned trials stand at their last value" in card.basis


def test_cost_names_a_cheaper_trial_that_is_nearly_as_good() -> None:
    def took(seconds: float, value: float) -> FrozenTrial:
        end = BEGAN + timedelta(seconds=seconds)
        return frozen(TrialState.COMPLETE, {}, {20: value}, value, {}, end=end)

    assert cost(built([took(58, 0.0063), took(32, 0.0071), took(2, 0.5)], OURS)).title == (
        "The best trial reached 0.63 % in 58 s; another reached 0.71 % in 32 s"
    )
    assert cost(built([took(58, 0.0063), took(32, 0.02)], OURS)).title == (
        "The best trial reached 0.63 % in 58 s; none nearly as good was much cheaper"
    )
    assert cost(built([took(20, 0.0063), took(32, 0.02)], OURS)).title == (
        "The best trial, 0.63 % in 20 s, was the cheapest complete one, too"
    )
    assert cost(built([took(20, 0.0063)], OURS)).title == (
        "The only complete trial reached 0.63 % in 20 s"
    )


def test_cost_without_a_complete_trial_shows_the_pruned_ones() -> None:
    results = built([it for it in mnist_like() if it.state == TrialState.PRUNED], OURS)
    card = cost(results)
    card_holds(card)
    assert card.title.startswith("No trial completed")


def test_cost_colours_by_nothing_where_nothing_explains_it() -> None:
    space: dict[str, BaseDistribution] = {"kind": CategoricalDistribution(("a", "b"))}
    trials = [
        frozen(TrialState.COMPLETE, {"kind": "ab"[n % 2]}, {1: 0.1}, 0.1 + n, {},
               end=BEGAN + timedelta(seconds=5 + n % 4 // 2), space=space)
        for n in range(20)
    ]  # fmt: skip
    assert explaining(built(trials)) is None
    card_holds(cost(built(trials)))


def test_savings_sum_the_phases_and_estimate_what_pruning_saved() -> None:
    results = ours(300)
    card = savings(results)
    card_holds(card)
    seconds = dict(zip(card.table["what"], card.table["seconds"], strict=True))
    told = [it for it in results.attrs["seconds"] if isinstance(it, dict)]
    assert seconds["Training"] == pytest.approx(sum(it["train"] for it in told))
    assert sum(it for what, it in seconds.items() if what != "Saved by pruning") == pytest.approx(
        results.trials["seconds"].sum()
    )
    # The sample's trials of a frozen depth cost 2 s and so much a step.
    pruned = results.trials[results.trials["outcome"] == PRUNED]
    depth = results.params.loc[pruned.index, "frozen_layers"]
    truth = float(((20 - pruned["last_step"]) * (2.5 - 0.4 * depth)).sum())
    assert seconds["Saved by pruning"] == pytest.approx(truth, rel=0.1)
    hours = seconds["Saved by pruning"] / 3600
    assert card.title.startswith(f"Pruning saved about {hours:.1f} h (95 % interval ")
    assert "can't be told: fewer than 3 trials each with frozen layers 2, 3 and 4" in card.basis
    assert savings(ours(300)).title == card.title


def test_savings_compare_a_step_with_and_without_stored_features() -> None:
    trials = mnist_like(60, states=False)
    for number, it in enumerate(trials):
        cached = number % 2 == 0
        steps = max(it.intermediate_values)
        it.user_attrs["cached_features"] = cached
        it.user_attrs["seconds"] = {"train": steps * (1.0 if cached else 3.0)}
    assert "Without stored features a step took longer" in savings(built(trials, OURS)).basis
    assert "(3.0 times" in savings(built(trials, OURS)).basis


def test_savings_of_another_program_are_by_wall_seconds_only() -> None:
    results = foreign()
    card = savings(results)
    card_holds(card)
    assert list(card.table["what"]) == ["Trials", "Saved by pruning"]
    assert "features" not in card.basis


def test_savings_need_pruned_trials_or_phases() -> None:
    trials = [it for it in mnist_like() if it.state == TrialState.COMPLETE]
    assert saved_by_pruning(built(trials, OURS)) is None
    card = savings(built(trials, OURS))
    card_holds(card)
    assert card.title.startswith("Training took ")
    for it in trials:
        it.user_attrs = {}
    with pytest.raises(CannotDraw, match="No trial was pruned"):
        savings(built(trials))


def test_importance_says_no_more_than_the_intervals() -> None:
    results = ours(260, states=False)
    card = importance(results)
    card_holds(card)
    assert set(card.table["parameter"]) == set(SPACE)
    assert set(card.table["method"]) == {"PED-ANOVA", "fANOVA"}
    assert (
        (card.table["low"] <= card.table["median"]) & (card.table["median"] <= card.table["high"])
    ).all()
    assert f"Only the {results.count(COMPLETE)} complete ones are read" in card.basis
    certain = card.title.endswith("matters most")
    for _, of in card.table.groupby("method"):
        first = of.iloc[0]
        if certain:
            assert (of["high"].iloc[1:] < first["low"]).all()
            assert card.title == f"{first['parameter']} matters most"


def test_importance_needs_ten_complete_trials() -> None:
    trials = [it for it in mnist_like(200) if it.state == TrialState.COMPLETE]
    with pytest.raises(CannotDraw, match="6 trials completed with a value; importances need 10"):
        importance(built(trials[:6], OURS))
    with pytest.raises(CannotDraw, match="No trial completed"):
        importance(built([], OURS))


def test_frozen_trials_hold_what_the_database_held() -> None:
    results = ours(60)
    given = [it for it in mnist_like(60) if it.state == TrialState.COMPLETE]
    found = frozen_trials(results)
    assert len(found) == len(given)
    for ours_, theirs in zip(found, given, strict=True):
        assert ours_.params == theirs.params
        assert ours_.distributions == theirs.distributions
        assert theirs.value is not None
        assert ours_.value == pytest.approx(math.log10(max(theirs.value, results.scale.floor)))


def test_pareto_honours_directions() -> None:
    results = several()
    card = pareto(results)
    card_holds(card)
    points = results.values.dropna().to_numpy() * [1, -1]
    count = sum(
        not any((other <= it).all() and (other < it).any() for other in points) for it in points
    )
    assert card.title == f"{count} of 40 complete trials are not beaten in both objectives"
    assert (card.table["beaten"] == "no").sum() == count
    assert "1 without a finite value of every objective is left out" in card.basis


def test_not_beaten_agrees_with_the_definition() -> None:
    generator = np.random.default_rng(0)
    for objectives in (2, 3, 4):
        points = generator.integers(0, 6, (60, objectives)).astype(float)
        for it, kept in zip(points, not_beaten(points), strict=True):
            beaten = ((points <= it).all(axis=1) & (points < it).any(axis=1)).any()
            assert kept == (not beaten)
    assert not_beaten(np.empty((0, 2))).shape == (0,)


def test_pareto_of_three_objectives_draws_two_and_says_so() -> None:
    card = pareto(several(("minimize", "maximize", "minimize")))
    card_holds(card)
    assert "in all 3 objectives" in card.title
    assert "The first two objectives are drawn" in card.basis
    assert "objective 3" in card.figure.to_json()


def test_pareto_of_few() -> None:
    assert "are not beaten" in pareto(several(count=40)).title
    assert pareto(several(count=1)).title == "One trial completed, so none can beat it"
    with pytest.raises(CannotDraw, match="No trial completed"):
        pareto(several(count=0))


def test_side_by_side_compares_at_equal_budgets() -> None:
    first, second = ours(100), replace(ours(60, seed=5), study="other")
    trials, compute = side_by_side([first, second])
    for card in (trials, compute):
        card_holds(card)
        assert card.title.endswith("one run of each search can't say which search is better")
    counts = [it.count(COMPLETE, PRUNED, DIVERGED) for it in (first, second)]
    equal = min(counts)
    told = []
    for it in (first, second):
        ended = it.trials.dropna(subset="end").sort_values("end")
        ended = ended[ended["outcome"] != "failed"].head(equal)
        told.append(100 * ended.loc[ended["outcome"] == COMPLETE, "value"].min())
    assert trials.title.startswith(
        f"After {equal} trials each: mnist {told[0]:.2f} %, other {told[1]:.2f} %;"
    )
    assert f"mnist {counts[0]} trials and other {counts[1]} trials" in trials.basis


def test_side_by_side_names_what_cannot_be_compared() -> None:
    others = [replace(foreign(), study="foreign"), replace(several(), study="two")]
    card, _ = side_by_side([ours(30), replace(ours(30, seed=1), study="b"), *others])
    card_holds(card)
    assert "Not comparable: foreign (value, minimize) and two (value, minimize and maximize)" in (
        card.basis
    )
    with pytest.raises(CannotDraw, match="Fewer than two studies"):
        side_by_side([ours(30), *others])
    with pytest.raises(CannotDraw, match="No study is a search"):
        side_by_side([several()])


def test_side_by_side_of_many_names_the_ends() -> None:
    all_results = [replace(ours(30, seed=it), study=f"s{it}") for it in range(6)]
    card, _ = side_by_side(all_results)
    card_holds(card)
    assert " to s" in card.title


def test_key_numbers_of_each_study() -> None:
    card = key_numbers([ours(30), replace(several(), study="two"), built([], name="none")])
    assert list(card.table.columns) == ["what", "mnist", "two", "none"]
    rows = card.table.set_index("what")
    assert rows.loc["sampler", "mnist"] == "tpe"
    assert rows.loc["sampler", "two"] == "not known"
    assert rows.loc["trials", "none"] == "none"
    assert "optimizer=" in rows.loc["its configuration", "mnist"]


def test_best_configuration_is_that_of_the_best_trial() -> None:
    results = ours()
    card = best_configuration(results, "Expect about 0.7 %.")
    rows = dict(zip(card.table["setting"], card.table["value"], strict=True))
    complete = results.trials[results.trials["outcome"] == COMPLETE]
    number = int(complete["value"].idxmin())
    assert rows["Trial"] == str(number)
    assert rows["Optimizer"] == results.params.loc[number, "optimizer"]
    assert rows["Frozen layers"] == str(int(results.params.loc[number, "frozen_layers"]))
    assert rows["Seed"] == str(number)
    assert rows["Precision"] == "float32"
    assert f"{100 * complete['value'].min():.2f} %" in card.title
    assert "partly luck" in card.text
    assert card.text.endswith("Expect about 0.7 %.")
    assert card.command == (
        "python -m tuner.run --study mnist --trials 100 --seed 1 --precision float32"
    )


def test_the_command_says_what_differs_from_the_defaults() -> None:
    attrs = OURS | {
        "tuner:definition": OURS["tuner:definition"] | {"file": "my files/net.py"},
        "tuner:search": {"sampler": "random", "pruner": "percentile", "precision": "auto"},
    }
    assert command_of(built(mnist_like(5), attrs)) == (
        "python -m tuner.run --study 'my files/net.py' --study-name mnist --trials 100 --seed 1 "
        "--sampler random --pruner percentile"
    )
    assert command_of(foreign()) == ""


def test_provenance_lists_mixed_values_with_counts() -> None:
    assert mixed(["bfloat16"] * 98 + ["float32"] * 2) == "bfloat16 98 trials, float32 2"
    assert mixed(["a", "a", math.nan]) == "a 2 trials, not recorded 1"
    assert mixed([1, 1]) == "1"
    assert mixed([]) == ""
    assert mixed([math.nan]) == ""
    card = provenance(ours())
    rows = dict(zip(card.table["what"], card.table["value"], strict=True))
    assert rows["SHA-256 of the file"] == "0" * 12
    assert rows["First start"] == "2026-01-01 00:00:00 UTC"
    assert rows["Workers"] == "2"
    assert rows["Hosts"] == "atlas"
    assert rows["Python"] == "3.11.7"
    assert rows["Trials"].endswith("3 failed, 1 running, 1 waiting")
    assert "File" not in set(provenance(foreign()).table["what"])
    assert provenance(built([])).table.set_index("what").loc["Trials", "value"] == "none"


def test_key_facts_of_the_cover() -> None:
    results = ours()
    facts = {it.label: it for it in key_facts(results, "41 min")}
    best = results.trials.loc[results.best, "value"]
    assert facts["Best validation error"].value == f"{100 * best:.2f} %"
    assert facts["Best validation error"].note == (
        f"trial {results.best} · {100 * (1 - best):.2f} % accuracy"
    )
    assert facts["Trials"].value == "102"
    assert facts["Saved by pruning"].value == "41 min"
    assert facts["Wall clock"].note.startswith("2 workers · ")
    assert len(facts) == 5
    assert [it.label for it in key_facts(built([]))] == ["Best value", "Trials"]
    assert key_facts(several())[0].value == "2"


def test_a_score_that_is_maximised_is_told_as_it_is() -> None:
    trials = [frozen(TrialState.COMPLETE, {}, {}, value, {}) for value in (3.0, 12.5, 7.0)]
    results = built(trials, directions=["maximize"])
    assert key_facts(results)[0].label == "Best value"
    assert key_facts(results)[0].value == "12.5"
    assert best_configuration(results).title == "Best configuration: value 12.5"


def conditional() -> Results:
    trials = mnist_like(80, states=False)
    space = SPACE | {"momentum": FloatDistribution(0.1, 0.99)}
    for number, it in enumerate(trials):
        if number % 2:
            it.params = it.params | {"momentum": 0.1 + number / 100}
            it.distributions = space
    return built(trials, OURS)


def hostile() -> Results:
    space: dict[str, BaseDistribution] = {
        HOSTILE: CategoricalDistribution((HOSTILE, "b", None, True)),
        "x": FloatDistribution(0, 1),
    }
    trials = [
        frozen(
            TrialState.COMPLETE if n % 3 else TrialState.PRUNED,
            {HOSTILE: (HOSTILE, "b", None, True)[n % 4], "x": n / 60},
            {1: 0.5, 2: 0.1 + n / 100},
            0.1 + n / 100,
            {"host": HOSTILE, "worker": HOSTILE, "seconds": {HOSTILE: 1.0}, "device": HOSTILE},
            end=BEGAN + timedelta(seconds=1 + 10 * (n % 4)),
            space=space,
        )
        for n in range(60)
    ]
    return built(trials, name=HOSTILE)


STUDIES: dict[str, Callable[[], Results]] = {
    "ours": ours,
    "foreign": foreign,
    "maximised": lambda: foreign(lambda it: 1 - it.values[0], directions=["maximize"]),
    "several": several,
    "one trial": lambda: ours(1, states=False),
    "none": lambda: built([]),
    "none finished": lambda: built([it for it in mnist_like(20) if not it.datetime_complete]),
    "all failed": lambda: built(
        [frozen(TrialState.FAIL, it.params, {}, None, {}) for it in mnist_like(20)[:20]], OURS
    ),
    "conditional": conditional,
    "hostile": hostile,
}


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_is_drawn_or_says_why_not(kind: str) -> None:
    results = STUDIES[kind]()
    again = replace(results, study="again")
    for draw in (*ONE, pareto):
        for card in drawn(draw, results):
            card_holds(card)
    known = results.best is not None
    assert len(drawn(best_configuration, results)) == known
    for cards in drawn(side_by_side, [results, again]):
        for card in cards:
            card_holds(card)
        assert known
    assert len(provenance(results).table) > 3
    assert 2 <= len(key_facts(results)) <= 5
    assert len(key_numbers([results, again, results]).table.columns) == 4


def drawn(draw: Callable[..., Any], *given: Any) -> list[Any]:
    """What it draws, or nothing where it says why not."""
    try:
        return [draw(*given)]
    except CannotDraw as why:
        said = str(why)
    assert said.endswith(".")
    return []


def large(count: int = 10_000) -> Results:
    """Many trials, made as frames."""
    small = ours(200, states=False)
    copies = count // len(small.trials)
    index = pd.RangeIndex(count, name="number")

    def often(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([frame] * copies, ignore_index=True).set_axis(index)

    noise = np.random.default_rng(0).uniform(0.9, 1.1, count)
    trials = often(small.trials)
    trials["seconds"] *= noise
    trials["value"] = trials["last_value"] = (trials["value"] * noise).clip(upper=1)
    return replace(
        small,
        trials=trials,
        values=often(small.values),
        params=often(small.params),
        attrs=often(small.attrs),
    )


def test_ten_thousand_trials_stay_small() -> None:
    results = large()
    card = cost(results)
    card_holds(card)
    assert "2,000 of 8,650, drawn with seed 0" in card.basis
    card_holds(savings(results))
    for it in side_by_side([results, replace(results, study="again")]):
        card_holds(it)
    card_holds(pareto(several(count=10_000)))


def test_colours_are_those_of_the_theme() -> None:
    results = ours(260, states=False)
    known = {*theme.LIGHT.values(), *theme.LEVELS}
    known |= {theme.faint(it, part) for it in known for part in (0.3, 0.55, 0.75)}
    cards = [draw(results) for draw in ONE] + side_by_side([results, results]) + [pareto(several())]
    for card in cards:
        for trace in card.figure.data:
            colours = {trace.marker.color, getattr(trace, "line", None) and trace.line.color}
            assert colours - {None} <= known, card.key


def test_parameters_may_have_the_names_of_columns() -> None:
    names = (
        "trial",
        "seconds",
        "outcome",
        "value",
        "beaten",
        "on_the_line",
        "objective 1",
        "shown",
    )
    space: dict[str, BaseDistribution] = {name: FloatDistribution(0, 1) for name in names}
    generator = np.random.default_rng(0)
    trials = [
        frozen(TrialState.COMPLETE, {name: generator.random() for name in names}, {},
               generator.random(), {}, space=space)
        for _ in range(12)
    ]  # fmt: skip
    results = built(trials)
    table = cost(results).table
    assert "seconds (parameter)" in table
    assert table["seconds"].eq(10).all()
    assert importance(results).table["parameter"].isin(names).all()
    for it in trials:
        it.values = [generator.random(), generator.random()]
    table = pareto(built(trials, directions=("minimize", "maximize"))).table
    assert {"objective 1", "objective 1 (parameter)", "beaten (parameter)"} <= set(table)


def test_one_trial_and_one_step_are_not_plural() -> None:
    trials = [frozen(TrialState.PRUNED, {"frozen_layers": 1}, {1: 0.5}, None, {})]
    card = savings(built(trials))
    assert "estimated from 1 trial." in card.basis
    assert "all of 1 step," in card.note


def test_pareto_leaves_out_what_is_infinite() -> None:
    generator = np.random.default_rng(1)
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    trials = []
    for number in range(10):
        it = frozen(TrialState.COMPLETE, {"x": 0.5}, {}, 0.0, {}, space=space)
        it.values = [generator.random(), math.inf if number < 3 else generator.random()]
        trials.append(it)
    card = pareto(built(trials, directions=("minimize", "minimize")))
    assert "3 without a finite value of every objective are left out." in card.basis
    for text in (card.basis, card.alt):
        assert "inf" not in text.replace("infinite", "").replace("finite", "")
        assert "  " not in text
    for it in trials:
        it.values = [math.inf, 1.0]
    with pytest.raises(CannotDraw, match="finite"):
        pareto(built(trials, directions=("minimize", "minimize")))
    three = pareto(several(("minimize",) * 3, count=2_100))
    assert "  " not in three.basis


def test_trials_without_a_start_have_no_wall_clock() -> None:
    trials = [
        frozen(TrialState.COMPLETE, {"frozen_layers": 1}, {20: value}, value, {})
        for value in (0.1, 0.2)
    ]
    for it in trials:
        it.datetime_start = None
    results = built(trials)
    results.trials["start"] = pd.NaT
    results.trials["seconds"] = math.nan
    assert "Wall clock" not in [it.label for it in key_facts(results)]
    assert key_numbers([results, results]).table.set_index("what").iloc[-1, 0] == "not known"


def test_the_cost_of_a_score_is_told_as_it_is() -> None:
    trials = [
        frozen(TrialState.COMPLETE, {"frozen_layers": 1}, {}, value, {},
               BEGAN, BEGAN + timedelta(seconds=seconds))
        for value, seconds in ((7.1, 100), (2.0, 10))
    ]  # fmt: skip
    card = cost(built(trials, directions=["maximize"]))
    assert "reached 7.1 in" in card.title
    assert "-" not in card.title + card.alt
    assert "The axis shows the negative of the value: lower is better." in card.reading


def test_pruned_trials_have_no_place_where_intermediate_values_are_something_else() -> None:
    trials = mnist_like(60, states=False)
    for it in trials:
        it.intermediate_values = {s: 100 + s for s in it.intermediate_values}
        if it.state == TrialState.PRUNED:
            it.values = [100.0]
    results = built(trials, OURS)
    assert not results.steps_are_values
    card = cost(results)
    card_holds(card)
    assert "Its intermediate values are another quantity" in card.basis
    assert set(card.table["outcome"]) == {COMPLETE}


def test_importance_says_why_it_cannot() -> None:
    trials = [
        frozen(TrialState.COMPLETE, {"learning_rate": 0.01 + n / 100}, {}, 1.0 + n, {})
        for n in range(12)
    ]
    with pytest.raises(CannotDraw, match="a single one has all the importance"):
        importance(built(trials))
    for n, it in enumerate(trials):
        it.values = [(-1) ** n * 1e299]
    with pytest.raises(CannotDraw, match="too large"):
        importance(built(trials))
