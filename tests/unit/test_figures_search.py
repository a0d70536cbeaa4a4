"""Figures of the search: findings, tables and sizes, on studies with a known truth."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState
from scipy import stats

from tests.samples import BEGAN, OURS, SNAPSHOT, SPACE, STEPS, frozen, in_memory, mnist_like
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, ticks, words
from tuner.report.plots.curves import curves
from tuner.report.plots.failures import failures
from tuner.report.plots.history import history
from tuner.report.plots.parallel import parallel
from tuner.report.plots.spending import spending
from tuner.report.plots.timeline import timeline
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    ENDED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    Results,
    results_of,
)
from tuner.report.scale import scale_of
from tuner.report.statistics.rates import wilson
from tuner.storage import StoredAttributes, StudyContents

Drawing = Callable[[Results], Card | list[Card]]
FIGURES: list[Drawing] = [history, curves, parallel, spending, timeline, failures]
PARAMS = {"learning_rate": 0.01, "optimizer": "adam", "init": "pretrained", "frozen_layers": 1}
HOSTILE = "</script><b>x"


def cards_of(draw: Drawing, results: Results) -> list[Card]:
    drawn = draw(results)
    return drawn if isinstance(drawn, list) else [drawn]


def study(
    trials: Sequence[FrozenTrial],
    directions: Sequence[str] = ("minimize",),
    attrs: dict[str, Any] = OURS,
) -> Results:
    """The trials as the report reads them from a database, without one."""
    rows = list(enumerate(trials))
    return results_of(
        StudyContents(
            name="mnist",
            directions=list(directions),
            user_attrs=attrs,
            trials=[(n, it.state.name, _utc(it.datetime_start), _utc(it.datetime_complete))
                    for n, it in rows],
            values=[(n, at, value) for n, it in rows for at, value in enumerate(it.values or [])],
            steps=[(n, step, value) for n, it in rows
                   for step, value in sorted(it.intermediate_values.items())],
            params=[(n, name, of.to_internal_repr(it.params[name]), distribution_to_json(of))
                    for n, it in rows for name, of in it.distributions.items()],
            attrs=[(n, key, json.dumps(value)) for n, it in rows
                   for key, value in it.user_attrs.items()],
        )
    )  # fmt: skip


def _utc(local: datetime | None) -> datetime | None:
    return local and local.astimezone(UTC).replace(tzinfo=None)


@pytest.fixture(scope="module")
def usual() -> Results:
    return study(mnist_like(100))


@pytest.fixture(scope="module")
def greedy() -> Results:
    return study(mnist_like(100, greedy=True))


@pytest.fixture(scope="module")
def large() -> Results:
    return many(10_000)


def many(count: int) -> Results:
    """A study of so many trials, by frames: two of five run to the end."""
    generator = np.random.default_rng(1)
    numbers = pd.RangeIndex(count, name="number")
    outcome = generator.choice(
        [COMPLETE, PRUNED, DIVERGED, FAILED], count, p=[0.4, 0.5, 0.06, 0.04]
    ).astype(object)
    value = np.where(outcome == FAILED, np.nan, generator.uniform(0.006, 0.4, count))
    start = pd.Timestamp(BEGAN) + pd.to_timedelta(10.0 * np.arange(count), unit="s")
    end = start + pd.to_timedelta(19.0, unit="s")
    last = np.where(outcome == COMPLETE, 20.0, 2.0)
    trials = pd.DataFrame(
        {"outcome": outcome, "value": value, "start": start, "end": end, "seconds": 19.0,
         "last_step": last, "last_value": value},
        index=numbers,
    )  # fmt: skip
    steps = pd.DataFrame(
        [(n, s, v * (1 + 1 / s)) for n, v, upto in zip(numbers, value, last, strict=True)
         for s in STEPS if s <= upto and not math.isnan(v)],
        columns=["number", "step", "value"],
    )  # fmt: skip
    choices = {n: np.array(SPACE[n].choices, dtype=object) for n in ("optimizer", "init")}  # type: ignore[attr-defined]
    params = pd.DataFrame(
        {"learning_rate": 10 ** generator.uniform(-4, 0, count),
         **{n: generator.choice(of, count) for n, of in choices.items()},
         "frozen_layers": generator.integers(5, size=count).astype(float)},
        index=numbers,
    )  # fmt: skip
    return Results(
        "large", ["minimize"], trials, pd.DataFrame({0: value}, index=numbers), steps, params,
        pd.DataFrame({"host": "atlas", "worker": np.arange(count) % 2}, numbers, dtype=object),
        dict(SPACE), StoredAttributes(snapshot=SNAPSHOT, search={"sampler": "tpe"}),
    )  # fmt: skip


def simple(number: int, value: float | None, **more: Any) -> Any:
    """A complete trial of one step, 10 s behind the one before."""
    start = BEGAN + timedelta(seconds=10 * number)
    curve = more.pop("curve", {} if value is None else {20: value})
    state = more.pop("state", TrialState.COMPLETE)
    params = {**PARAMS, **more.pop("params", {})}
    return frozen(state, params, curve, value, more.pop("attrs", {}), start,
                  start + timedelta(seconds=10), **more)  # fmt: skip


def texts_of(card: Card) -> str:
    return " ".join([card.title, card.reading, card.basis, card.alt, card.note])


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize("which", ["usual", "greedy", "large"])
def test_every_card_says_what_it_is(
    draw: Drawing, which: str, request: pytest.FixtureRequest
) -> None:
    results = request.getfixturevalue(which)
    for card in cards_of(draw, results):
        assert card.title
        assert not card.title.endswith(".")
        assert card.reading.endswith(".")
        assert card.alt.endswith(".")
        assert f"{len(results.trials):,} trials" in card.basis
        assert str(results.count(PRUNED)) in card.basis.replace(",", "")
        assert card.figure.layout.title.text is None
        assert 0 < len(card.table) <= words.MOST_ROWS
        assert "nan" not in texts_of(card)
        assert "  " not in texts_of(card)
        assert len(card.figure.data) <= 12
        assert not any(trace.type == "scattergl" for trace in card.figure.data)
        assert len(card.figure.to_json()) < 600_000


def test_history_names_the_best_and_what_came_after(usual: Results) -> None:
    trials = usual.trials
    complete = trials[trials["outcome"] == COMPLETE]
    best = int(complete["value"].idxmin())
    ended = trials[trials["outcome"].isin(ENDED)]
    after = int((ended.index > best).sum())
    card = history(usual)
    value = f"{100 * complete['value'].min():.2f} %"
    assert card.title.startswith(
        f"Trial {best} of {len(ended)} reached the best validation error, "
    )
    assert value in card.title
    assert f"the {after} after it found nothing better" in card.title
    line = next(it for it in card.figure.data if it.name == "best so far")
    assert line.y[-1] == pytest.approx(complete["value"].min())
    assert line.line.shape == "hv"
    assert line.x[-1] == ended.index.max()
    assert len(card.table) == len(trials)
    assert list(card.table["learning_rate"].dropna()) == list(
        usual.params["learning_rate"].dropna()
    )


def test_history_shows_failed_trials_on_top_and_the_random_start(usual: Results) -> None:
    figure = history(usual).figure
    failed = next(it for it in figure.data if it.name.startswith("failed"))
    others = next(it for it in figure.data if it.name.startswith("pruned"))
    assert len(failed.x) == usual.count(FAILED)
    assert min(failed.y) > max(others.y)
    assert math.log10(max(failed.y)) < figure.layout.yaxis.range[1]
    assert figure.layout.shapes[0].x1 == 9.5
    chance = replace(usual, stored=replace(usual.stored, search={"sampler": "random"}))
    assert not history(chance).figure.layout.shapes


def test_history_tells_ties_and_the_last_trial() -> None:
    tied = study([simple(0, 0.2), simple(1, 0.1), simple(2, 0.1)])
    assert history(tied).title == (
        "Trial 1 of 3 reached the best validation error, 10.0 %; the one after it was no better, "
        "1 equalled it"
    )
    last = study([simple(0, 0.2), simple(1, 0.1)])
    assert history(last).title.endswith("it was the last to end")


def test_handed_back_trials_are_drawn_where_they_stopped() -> None:
    waiting = simple(1, None, state=TrialState.WAITING, curve={1: 0.4, 20: 0.08})
    early = study([simple(0, None, state=TrialState.RUNNING, curve={1: 0.3}), waiting])
    card = history(early)
    assert card.title == (
        "No trial is complete: the lowest validation error, 8.0 %, is from waiting trial 1"
    )
    assert {it.name: list(it.y) for it in card.figure.data} == {
        "waiting (1)": pytest.approx([0.08]),
        "running (1)": pytest.approx([0.3]),
    }
    assert card.figure.layout.xaxis.dtick == 1
    assert [it.name for it in curves(early).figure.data] == ["waiting (1)", "running (1)"]


def test_thinned_marks_are_said_and_the_same_again(large: Results) -> None:
    card = history(large)
    pruned = next(it for it in card.figure.data if it.name.startswith("pruned"))
    assert len(pruned.x) == 1_500
    assert f"pruned 1,500 of {large.count(PRUNED):,}, drawn with seed 0" in card.basis
    assert list(pruned.x) == list(
        next(it for it in history(large).figure.data if it.name.startswith("pruned")).x
    )
    complete = next(it for it in card.figure.data if it.name.startswith("complete"))
    assert large.best in complete.x
    assert card.table["complete"].sum() == large.count(COMPLETE)
    assert card.table["trials"][1] == "50 to 99"


def test_curves_compare_ranks_of_complete_trials(usual: Results) -> None:
    complete = usual.trials.index[usual.trials["outcome"] == COMPLETE]
    wide = usual.steps.pivot(index="number", columns="step", values="value").loc[complete]
    rho = stats.spearmanr(wide[4], wide[20]).statistic
    card = curves(usual)
    assert f"Spearman {rho:.2f}, {len(complete)} trials that ran to the end" in card.title
    assert "epoch 1 and 5" in card.title
    best = card.figure.data[-1]
    assert best.name == f"best, trial {usual.best}"
    assert list(best.x[:-1]) == [step / 4 for step in STEPS]
    assert card.table["trials"].iloc[0] == usual.steps.query("step == 1")["number"].nunique()
    assert card.table["epoch"].iloc[0] == 0.25


def test_curves_have_gaps_and_a_bounded_number(large: Results) -> None:
    card = curves(large)
    drawn: set[int] = set()
    for trace in card.figure.data:
        drawn |= set(trace.customdata)
        ends = np.flatnonzero(np.isnan(trace.y))
        assert len(ends) == len(set(trace.customdata))
    assert len(drawn) == 500
    assert large.best in drawn
    assert "500 of 9,6" in card.basis


def test_curves_say_less_of_few_trials() -> None:
    few = study([simple(0, 0.1, curve={1: 0.3, 20: 0.1})])
    assert curves(few).title.startswith("1 learning curve: too few ran to the end")


def test_parallel_counts_the_leading_level(greedy: Results) -> None:
    shown = words.last_shown(greedy).dropna()
    best = shown.nsmallest(len(shown) // 10).index
    frozen_layers = greedy.params["frozen_layers"]
    card = parallel(greedy)
    assert card.title == (
        f"No level stands out in the best {len(best)} of {len(shown)} trials: most often frozen "
        f"layers 1, in {(frozen_layers[best] == 1).sum()} of them and "
        f"{(frozen_layers[shown.index] == 1).sum()} of all"
    )
    trace = card.figure.data[0]
    assert [it.label for it in trace.dimensions] == [
        "Optimizer", "Init", "Frozen layers", "Learning rate", "Last epoch", "Validation error",
    ]  # fmt: skip
    low, high = trace.dimensions[-1].range
    assert low > high  # the best on top
    visible = [key for key in card.narrow if key.endswith(".visible")]
    assert len(trace.dimensions) - len(visible) == 4


def test_parallel_tells_a_level_that_stands_out() -> None:
    names = ["sgd", "momentum", "nesterov", "rmsprop", "adagrad"]
    trials = [
        simple(n, 0.01 + n / 1e4 if n < 12 else 0.3 + n / 1e3,
               params={"optimizer": "adam" if n < 12 else names[n % 5]})
        for n in range(100)
    ]  # fmt: skip
    card = parallel(study(trials))
    assert card.title == "adam in 10 of the best 10 trials, in 12 of all 100 trials"
    line = card.figure.data[0].line
    assert line.colorscale[-1][1] == theme.LIGHT["complete"]
    assert np.argmax(line.color) == 0


def test_parallel_leaves_out_rare_parameters_not_trials() -> None:
    space = {**SPACE, "momentum": FloatDistribution(0.5, 1.0)}
    trials = [
        simple(n, 0.1 + 0.01 * n, space=space, params={"momentum": 0.9} if n < 3 else {})
        for n in range(12)
    ]
    card = parallel(study(trials))
    assert len(card.figure.data[0].dimensions[0]["values"]) == 12
    assert "Left out, as most trials lack them: Momentum." in card.basis


def test_parallel_draws_no_more_than_2000_lines(large: Results) -> None:
    card = parallel(large)
    assert len(card.figure.data[0].line.color) == 2_000
    assert "2,000 of 9," in card.basis


def test_spending_counts_and_warns_of_an_adaptive_search(greedy: Results) -> None:
    counts = greedy.params["optimizer"].value_counts()
    card = spending(greedy)[0]
    assert card.key == "spending-optimizer"
    assert card.title.startswith(f"adam got {counts['adam']} of {counts.sum()} trials")
    assert card.title.endswith(": the search chose, so raw means mislead")
    assert "the search chose" not in spending(greedy, adaptive=False)[0].title
    table = card.table.set_index("Optimizer")
    assert dict(table["trials"]) == {name: counts.get(name, 0) for name in table.index}
    parts = table[[*ENDED, "running"]].sum(axis=1)
    assert list(parts) == list(table["trials"])


def test_spending_of_chance_is_no_finding(usual: Results) -> None:
    title = spending(usual)[0].title
    counts = usual.params["optimizer"].value_counts()
    assert title == (
        f"{counts.min()} to {counts.max()} of {counts.sum()} trials each for the 7 levels of "
        "optimizer: no more uneven than by chance"
    )


def test_timeline_has_a_lane_for_each_worker(usual: Results) -> None:
    trials = usual.trials[usual.trials["outcome"].isin(ENDED)]
    told = replace(
        usual, trials=usual.trials.drop(usual.trials.index[-2:]), attrs=usual.attrs.iloc[:-2]
    )
    card = timeline(told)
    span = (trials["end"].max() - trials["start"].min()).total_seconds()
    busy = trials["seconds"].sum() / (2 * span)
    assert card.title.startswith("2 workers, ")
    assert card.title.endswith(f"busy {100 * busy:.0f} % of it")
    assert list(card.table["lane"]) == ["worker 1", "worker 2"]
    assert card.table["busy seconds"].sum() == pytest.approx(trials["seconds"].sum())


def test_timeline_finds_lanes_and_leaves_out_pauses() -> None:
    trials = [simple(n, 0.1) for n in range(4)]
    late = simple(1_000, 0.1)
    beside = simple(1, 0.1)
    card = timeline(study([*trials, late, beside]))
    assert card.title == "2 lanes, 50 s of wall clock without a pause, busy 60 % of it"
    assert "Who ran which trial is not known" in card.basis
    assert list(card.table["trials"]) == [5, 1]


def test_timeline_of_very_many_trials_is_a_summary(large: Results) -> None:
    card = timeline(large)
    (trace,) = card.figure.data
    assert trace.type == "heatmap"
    assert np.shape(trace.z) == (2, 60)
    assert np.mean(trace.z) == pytest.approx(95, abs=1)


def test_failures_tell_which_range_stands_out(usual: Results) -> None:
    rates, ranges = failures(usual)
    trials = usual.trials[usual.trials["outcome"].isin(ENDED)]
    wrong = trials["outcome"].isin([DIVERGED, FAILED])
    high = usual.params["learning_rate"][trials.index] >= 0.1
    assert ranges.title == (
        f"{(wrong & high).sum()} of {high.sum()} trials with learning rate 0.1 to 1 diverged or "
        f"failed, {(wrong & ~high).sum()} of {(~high).sum()} with any other"
    )
    assert rates.title.startswith(f"{usual.count(DIVERGED)} diverged and 3 failed of 100 trials")
    assert rates.table["diverged"].sum() == usual.count(DIVERGED)
    assert rates.note == "Why trials failed: killed (signal 9): 3."
    row = rates.table.set_index("Init").loc["random_normal"]
    known = wilson(int(row["diverged"]), int(row["trials"]))
    assert (row["diverged low"], row["diverged high"]) == (known.low, known.high)
    shown = {text for line in ranges.figure.data[0].text for text in line}
    assert any(re.fullmatch(r"\d/[12] \?", text) for text in shown)
    assert ranges.table["trials"].sum() == 100


def test_failures_of_none_state_the_limit() -> None:
    (card,) = failures(study([simple(n, 0.1) for n in range(20)]))
    assert card.title == (
        f"None of 20 trials failed or diverged: the rate is below "
        f"{100 * wilson(0, 20).high:.2g} % (95 %)"
    )


def test_one_trial() -> None:
    one = study([simple(0, 0.05)])
    assert history(one).title == "The only trial reached a validation error of 5.0 %"
    for draw in FIGURES:
        for card in cards_of(draw, one):
            assert "1 trial: 1 complete." in card.basis
            assert "1 trials" not in texts_of(card)


def test_none_finished() -> None:
    running = frozen(TrialState.RUNNING, PARAMS, {1: 0.3}, None, {}, BEGAN, None)
    results = study([running])
    assert history(results).title == (
        "No trial is complete: the lowest validation error, 30 %, is from running trial 0"
    )
    assert "no complete trial" in curves(results).title
    with pytest.raises(CannotDraw, match=r"No trial has both a start and an end\."):
        timeline(results)
    with pytest.raises(CannotDraw, match=r"No trial has ended \(1 trial: 1 running\)\."):
        failures(results)


def test_all_failed() -> None:
    trials = [
        simple(n, None, state=TrialState.FAIL, attrs={"reason": "out of memory"}) for n in range(3)
    ]
    results = study(trials)
    for draw in (history, curves, parallel):
        with pytest.raises(CannotDraw, match=r"^No trial .*\.$"):
            draw(results)
    assert failures(results)[0].title == "3 failed of 3 trials; no level of init stands out"
    assert failures(results)[0].note == "Why trials failed: out of memory: 3."
    assert spending(results)[0].table["failed"].sum() == 3
    assert timeline(results).title == "1 lane, 30 s of wall clock, busy 100 % of it"


def test_an_empty_study() -> None:
    results = study([])
    for draw in FIGURES:
        with pytest.raises(CannotDraw, match=r"^(No|The study has no) .*\.$"):
            draw(results)


def test_a_study_of_another_program() -> None:
    trials = [simple(n, 5.0 + n % 7, curve={}) for n in range(20)]
    results = study(trials, attrs={})
    assert history(results).title.startswith("Trial 0 of 20 reached the best value, 5;")
    assert "2 equalled it" in history(results).title
    assert parallel(results).figure.data[0].dimensions[-1].label == "Value"
    with pytest.raises(CannotDraw, match="intermediate"):
        curves(results)


def test_accuracy_is_shown_as_error() -> None:
    definition = {**OURS["tuner:definition"], "metric": "val_accuracy", "direction": "maximize"}
    trials = [simple(n, 0.9 + 0.01 * n, curve={1: 0.5, 20: 0.9 + 0.01 * n}) for n in range(6)]
    results = study(
        trials, directions=("maximize",), attrs={**OURS, "tuner:definition": definition}
    )
    card = history(results)
    assert card.title == (
        "Trial 5 of 6 reached the best validation accuracy error (1 \N{MINUS SIGN} value), 5.0 %: "
        "it was the last to end"
    )
    assert card.figure.layout.yaxis.type == "log"
    assert curves(results).table.iloc[-1, 3] == pytest.approx(0.05)


def test_nan_among_the_steps_and_no_params() -> None:
    curve = {1: math.nan, 2: 0.4, 4: math.inf, 20: 0.1}
    trials = [simple(n, 0.1, curve=curve) for n in range(6)]
    results = study(trials)
    shown = curves(results).figure.data[0].y
    assert np.isfinite(shown).sum() % 2 == 0
    bare = replace(results, params=results.params[[]], distributions={})
    assert history(bare).table.shape == (6, 4)
    assert failures(bare)[0].figure.layout.yaxis.ticktext == ("all trials (6)",)
    for draw in (parallel, spending):
        with pytest.raises(CannotDraw, match="no parameter"):
            draw(bare)


def test_hostile_names_are_plain() -> None:
    space = {
        HOSTILE: CategoricalDistribution((HOSTILE, "<i>" * 40, "b")),
        "lr": FloatDistribution(1e-4, 1.0, log=True),
    }
    trials = [
        frozen(TrialState.COMPLETE, {HOSTILE: space[HOSTILE].choices[n % 2], "lr": 0.01 * (n + 1)},
               {1: 0.5, 20: 0.1 + n / 100}, 0.1 + n / 100,
               {"host": HOSTILE, "worker": n % 2}, space=space)
        for n in range(12)
    ]  # fmt: skip
    trials.append(
        frozen(TrialState.FAIL, {HOSTILE: "b", "lr": 0.5}, {}, None,
               {"reason": HOSTILE, "host": "other", "worker": 1}, space=space)
    )  # fmt: skip
    results = study(trials)
    for draw in FIGURES:
        for card in cards_of(draw, results):
            assert re.fullmatch(r"[a-z0-9-]+", card.key)
            assert "<" not in card.title + card.alt + card.basis
            assert "<b>" not in card.figure.to_json()
            assert "\\u003cb\\u003e" not in card.figure.to_json()
    assert len({card.key for draw in FIGURES for card in cards_of(draw, results)}) == 7


@pytest.mark.parametrize(
    ("low", "high"), [(0.0063, 0.8), (0.0058, 0.0092), (1e-12, 1e5), (1, 1.02), (0.03, 0.3)]
)
def test_log_ticks_are_few_readable_and_within(low: float, high: float) -> None:
    found = ticks.log_ticks(low, high)
    assert 2 <= len(found) <= 8
    assert low <= found[0] < found[-1] <= high
    assert len({ticks.number_text(it) for it in found}) == len(found)


def test_value_axis_in_per_cent_and_linear() -> None:
    error = scale_of("val_error", "minimize", [0.006, 0.8])
    axis = theme.value_axis(error, 0.006, 0.8)
    assert axis["ticktext"][:3] == ["0.5 %", "1 %", "2 %"]
    assert axis["range"][0] < math.log10(0.006)
    assert axis["range"][1] > math.log10(0.8)
    assert len(theme.few_ticks(error, 0.006, 0.8)["xaxis.tickvals"]) <= 4
    reward = scale_of("reward", "maximize", [3.0, 200.0])
    assert theme.value_axis(reward, -200, -3)["type"] == "linear"
    same = theme.value_axis(reward, -3, -3)
    assert same["range"][0] < -3 < same["range"][1]


def test_plain_and_short() -> None:
    assert theme.plain(HOSTILE) == "&lt;/script&gt;&lt;b&gt;x"
    assert theme.short("a" * 30, 10) == "a" * 9 + "…"
    assert theme.short("a & b") == "a &amp; b"


def rewarded(values: Sequence[float], **more: Any) -> Results:
    return study(
        [simple(n, value, **more) for n, value in enumerate(values)], ("maximize",), attrs={}
    )


@pytest.mark.parametrize("draw", [history, curves, parallel])
def test_a_score_that_is_maximised_is_told_as_it_is(draw: Drawing) -> None:
    generator = np.random.default_rng(0)
    params = [{"learning_rate": float(10 ** generator.uniform(-4, 0))} for _ in range(12)]
    trials = [simple(n, 1.0 + n, params=it) for n, it in enumerate(params)]
    (card,) = cards_of(draw, study(trials, ("maximize",), attrs={}))
    assert "The axis shows the negative of the value: lower is better." in card.reading
    for text in (card.title, card.basis, card.alt):
        assert not re.search(r"[-\N{MINUS SIGN}](\d|value)", text)
    assert " · -" not in card.figure.to_json()


def test_history_of_a_score_rises() -> None:
    card = history(rewarded([1.0, 7.1, 3.0]))
    assert card.title == (
        "Trial 1 of 3 reached the best value, 7.1; the one after it was no better"
    )
    assert "rises from 1 to 7.1 in 1 improvement" in card.alt
    pruned = history(rewarded([1.0, 7.1], state=TrialState.PRUNED))
    assert pruned.title == "No trial is complete: the highest value, 7.1, is from pruned trial 1"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("most", [1e38, 1e300, 1.7e308])
@pytest.mark.parametrize("least", [1e-300, 1.0, -1.7e308])
def test_huge_values_are_drawn_without_a_warning(direction: str, most: float, least: float) -> None:
    values = [least, 1.0, most, 3.0, most / 7]
    trials = [
        simple(n, value, params={"learning_rate": 10.0**-n}) for n, value in enumerate(values)
    ]
    trials.append(simple(5, None, state=TrialState.FAIL))
    results = study(trials, (direction,), attrs={})
    for draw in FIGURES:
        for card in cards_of(draw, results):
            assert not re.search(r"\b(nan|inf|None)\b", texts_of(card))
            assert "Infinity" not in card.figure.to_json()


def test_intermediate_values_that_are_something_else_stay_among_themselves() -> None:
    trials = mnist_like(60)
    for it in trials:
        it.intermediate_values = {s: 100.0 + s for s in it.intermediate_values}
        if it.state == TrialState.PRUNED:
            it.values = None
    results = study(trials)
    assert not results.steps_are_values
    shown = words.last_shown(results)
    pruned = words.of_outcome(results, PRUNED)
    assert shown[pruned].isna().all()
    assert len(words.complete_shown(results)) == results.count(COMPLETE)
    for draw in (history, parallel):
        (card,) = cards_of(draw, results)
        assert "intermediate values are another quantity" in card.basis.lower()
        assert "last value" not in texts_of(card)
        assert "  " not in texts_of(card)
    card = curves(results)
    assert "median intermediate value" in card.table
    assert card.table["median intermediate value"].min() > 100
    assert card.figure.layout.yaxis.title.text.startswith("intermediate value")
    assert "another quantity" in card.basis


def test_reasons_that_are_no_text_are_left_out() -> None:
    reasons: list[Any] = [{"a": 1}, 3, None, "killed (signal 9)"]
    trials = [simple(9, 0.1)] + [
        simple(n, None, state=TrialState.FAIL, attrs={"reason": it}) for n, it in enumerate(reasons)
    ]
    (card, *_) = cards_of(failures, study(trials))
    assert card.note == "Why trials failed: killed (signal 9): 1."


def test_trials_that_break_a_constraint_are_the_best_nowhere() -> None:
    trials = mnist_like()
    for it in trials:
        it.set_constraint("frozen", it.params.get("frozen_layers", 4) - 1.0)  # 0 and 1 keep to it
    results = in_memory(trials, attrs=OURS)
    allowed = {n for n, it in enumerate(trials) if it.params.get("frozen_layers", 4) <= 1}
    complete = {n for n, it in enumerate(trials) if it.state == TrialState.COMPLETE}
    assert results.count(INFEASIBLE) > 10
    best = min(allowed & complete, key=lambda it: (trials[it].value, it))
    assert results.best == best
    line = next(it for it in history(results).figure.data if it.name == "best so far")
    assert min(line.y) == trials[best].value
    axis = next(it for it in parallel(results).figure.data[0].dimensions if "rozen" in it.label)
    shown = words.last_shown(results).dropna().index
    assert len(axis.values) == (results.trials["outcome"][shown] != INFEASIBLE).sum() < len(shown)
