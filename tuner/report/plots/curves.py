"""Learning curves: how each trial's value fell from step to step."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, words
from tuner.report.plots.facts import score_text
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    RUNNING,
    WAITING,
    Results,
)
from tuner.report.scale import Scale, scale_of

_MOST_CURVES = 500
_MOST_POINTS = 20_000
_MOST_LEVELS = 7  # of the factor; the others share a colour
_FEWEST = 5  # complete trials for a correlation of ranks
_EARLY = 0.2  # of the greatest step: where ranks are compared with those at the end
_FADED = {
    PRUNED: 0.45,
    DIVERGED: 0.8,
    INFEASIBLE: 0.6,
    FAILED: 0.8,
    WAITING: 0.8,  # handed back
    RUNNING: 0.8,
}


@dataclass(frozen=True)
class _Agreement:
    """How far ranks at an early step are those at the last one."""

    early: int
    last: int
    rho: float
    low: float  # of its 95 % interval
    high: float
    count: int


@dataclass(frozen=True)
class Drawn:
    """The curves of a study, for drawing.

    Attributes:
        axis: for the steps.
        scale: of the intermediate values.
        steps: ``number``, ``step``, ``shown``; in this order.
        numbers: the trials that are drawn.
        thinned: words on those that are not, or "".
    """

    axis: theme.StepAxis
    scale: Scale
    steps: pd.DataFrame
    numbers: "pd.Index[int]"
    thinned: str


def curves(results: Results) -> Card:
    """The intermediate values of each trial, the complete ones by the leading factor's level.

    Raises:
        CannotDraw: no trial has intermediate values.
    """
    drawn = drawn_of(results)
    agreement = _agreement(results, drawn)
    axis = drawn.axis
    return Card(
        key="curves",
        title=_finding(results, drawn, agreement),
        reading=f"One line a trial, from its first {axis.word} to its last; faded lines end where "
        f"the trial was stopped.{words.axis_text(drawn.scale)}",
        basis=words.basis_of(results, _treatment(results, drawn, agreement)),
        alt=_alt(drawn),
        figure=_figure(results, drawn),
        table=_table(drawn),
        narrow={"xaxis.nticks": 5, "height": 500, **theme.NARROW_LEGEND},
        wide=True,
    )


def drawn_of(results: Results) -> Drawn:
    """The curves of a study.

    Raises:
        CannotDraw: no trial has intermediate values.
    """
    scale = _scale(results)
    steps = results.steps[["number", "step"]].assign(shown=scale.shown(results.steps["value"]))
    steps = steps[np.isfinite(steps["shown"])].sort_values(["number", "step"])
    if steps.empty:
        msg = "No trial has reported an intermediate value."
        raise CannotDraw(msg)
    all_numbers = pd.Index(steps["number"].unique())
    keep = [] if results.best is None else [results.best]
    numbers, how = words.subset(all_numbers, _MOST_CURVES, keep)
    return Drawn(theme.step_axis(results), scale, steps, numbers, how)


def _scale(results: Results) -> Scale:
    """The study's, unless its intermediate values are another quantity."""
    if results.steps_are_values:
        return results.scale
    return scale_of("intermediate value", results.directions[0], results.steps["value"])


def _figure(results: Results, drawn: Drawn) -> go.Figure:
    figure = theme.new_figure(height=440)
    most = max(8, _MOST_POINTS // len(drawn.numbers))
    for numbers, style in _groups(results, drawn):
        figure.add_trace(lines(drawn, numbers, most, style))
    usual = drawn.steps["shown"][~drawn.steps["number"].isin(words.of_outcome(results, DIVERGED))]
    seen = drawn.steps["shown"] if usual.empty else usual
    figure.update_layout(
        xaxis=drawn.axis.layout,
        yaxis=theme.value_axis(drawn.scale, float(seen.min()), float(seen.max())),
    )
    return figure


def _groups(results: Results, drawn: Drawn) -> Iterator[tuple["pd.Index[int]", dict[str, Any]]]:
    """The trials of each trace and its looks, those behind first."""
    counts = results.trials["outcome"][drawn.steps["number"].unique()].value_counts()
    for outcome, opacity in _FADED.items():
        numbers = _here(drawn, words.of_outcome(results, outcome))
        if len(numbers):
            line: dict[str, Any] = {"color": theme.faint(theme.LIGHT[outcome], opacity), "width": 1}
            if outcome != PRUNED:
                line["dash"] = "dot"
            marker = {"size": 4}
            name = f"{outcome} ({counts[outcome]:,})"
            yield numbers, {"name": name, "line": line, "marker": marker}
    complete = _here(drawn, words.of_outcome(results, COMPLETE))
    yield from _by_level(results, complete)
    if results.best is not None and results.best in complete:
        line = {"color": theme.LIGHT["ink"], "width": 3.5}
        style = {"name": f"best, trial {results.best}", "line": line, "marker": {"size": 9}}
        yield pd.Index([results.best]), style


def _by_level(
    results: Results, complete: "pd.Index[int]"
) -> Iterator[tuple["pd.Index[int]", dict[str, Any]]]:
    """The complete trials, by the level of the leading factor."""
    if not len(complete):
        return
    factor = next((it for it in results.factors if it.name == "optimizer"), None)
    factor = factor or next(iter(results.factors), None)
    if factor is None:
        line = {"color": theme.LIGHT[COMPLETE], "width": 1.5}
        yield complete, {"name": f"complete ({len(complete):,})", "line": line}
        return
    places = results.codes[factor.name][complete]
    frequent = sorted(places[places >= 0].value_counts().index[:_MOST_LEVELS])
    for place in frequent:
        numbers = complete[places == place]
        line = {"color": theme.level_colour(place), "dash": theme.level_dash(place), "width": 1.5}
        marker = {"symbol": theme.level_symbol(place), "size": 5}
        name = f"{words.level_name(factor, place)} ({len(numbers):,})"
        yield numbers, {"name": name, "line": line, "marker": marker, "opacity": 0.7}
    others = complete[~places.isin(frequent)]
    if len(others):
        line = {"color": theme.LIGHT["muted"], "width": 1.5}
        yield others, {"name": f"other complete ({len(others):,})", "line": line}


def _here(drawn: Drawn, numbers: "pd.Index[int]") -> "pd.Index[int]":
    return drawn.numbers[drawn.numbers.isin(numbers)]


def lines(drawn: Drawn, numbers: "pd.Index[int]", most: int, style: dict[str, Any]) -> go.Scatter:
    """One trace with a gap behind each curve.

    Args:
        drawn: the curves.
        numbers: of the trials in the trace.
        most: points of a curve; longer ones keep so many, evenly spread.
        style: of the trace, with its name.
    """
    parts = []
    for number, curve in drawn.steps[drawn.steps["number"].isin(numbers)].groupby("number"):
        if len(curve) > most:
            curve = curve.iloc[np.linspace(0, len(curve) - 1, most).astype(int)]  # noqa: PLW2901
        gap = pd.DataFrame({"number": [number], "step": [np.nan], "shown": [np.nan]})
        parts += [curve, gap]
    points = pd.concat(parts)
    value = "%{y:.2%}" if drawn.scale.share else "%{y:.4g}"
    return go.Scatter(
        x=drawn.axis.x(points["step"]).astype(np.float32),
        y=words.single(points["shown"]),
        customdata=points["number"].to_numpy(np.int32),
        mode="lines+markers",
        connectgaps=False,
        hovertemplate=f"trial %{{customdata}} · {drawn.axis.word} %{{x:.3~g}} · {value}"
        f"<extra>{style['name']}</extra>",
        **style,
    )


def _agreement(results: Results, drawn: Drawn) -> _Agreement | None:
    """Spearman's correlation between an early step and the last, over complete trials."""
    complete = drawn.steps[drawn.steps["number"].isin(words.of_outcome(results, COMPLETE))]
    wide = complete.pivot_table(index="number", columns="step", values="shown")
    counts = wide.notna().sum()
    usual = [int(step) for step in counts.index[counts >= _FEWEST]]
    if len(usual) < 2:
        return None
    last = usual[-1]
    early = min(usual[:-1], key=lambda step: abs(step - _EARLY * last))
    both = wide[[early, last]].dropna()
    ranks = both.rank()
    if len(both) < _FEWEST or ranks[early].nunique() < 2 or ranks[last].nunique() < 2:
        return None
    rho = float(np.corrcoef(ranks[early], ranks[last])[0, 1])
    # Bonett and Wright's interval; a correlation of 1 has none, so it is taken as a little less.
    near = float(np.clip(rho, -1 + 1 / len(both) ** 2, 1 - 1 / len(both) ** 2))
    half = 1.96 * np.sqrt((1 + near**2 / 2) / (len(both) - 3))
    low, high = np.tanh(np.arctanh(near) + np.array([-half, half]))
    return _Agreement(early, last, rho, float(low), float(high), len(both))


def _finding(results: Results, drawn: Drawn, agreement: _Agreement | None) -> str:
    if agreement is None:
        ended = int(drawn.steps["number"].isin(words.of_outcome(results, COMPLETE)).any())
        curves_text = wording.count(drawn.steps["number"].nunique(), "learning curve")
        few = "too few ran to the end to say how early ranks can be seen"
        return f"{curves_text}: {few if ended else 'no complete trial is among them'}"
    early = drawn.axis.text(agreement.early)
    last = drawn.axis.text(agreement.last).removeprefix(f"{drawn.axis.word} ")
    n = f"Spearman {theme.signed(agreement.rho)}, {agreement.count:,} trials that ran to the end"
    if agreement.low > 0.5:
        return f"Ranks at {early} and {last} agree ({n})"
    if agreement.low > 0:
        return f"Ranks at {early} and {last} tend to agree ({n})"
    if agreement.high < 0.5:
        return f"Ranks at {early} say little about those at {last} ({n})"
    return f"Ranks at {early} are not shown to hold until {last} ({n})"


def _treatment(results: Results, drawn: Drawn, agreement: _Agreement | None) -> str:
    parts = []
    if not results.steps_are_values:
        parts.append("Intermediate values are another quantity than the final one.")
    if results.count(PRUNED):
        parts.append("Only trials that were not pruned are seen to the end: they did well early.")
    if agreement:
        parts.append(
            f"Spearman's 95 % interval is {theme.signed(agreement.low)} to "
            f"{theme.signed(agreement.high)}, over complete trials only."
        )
    without = len(results.trials) - drawn.steps["number"].nunique()
    if without:
        parts.append(f"{wording.count(without, 'trial')} without intermediate values left out.")
    if drawn.thinned:
        parts.append(f"Curves drawn: {drawn.thinned}; the best is always among them.")
    return " ".join(parts)


def _table(drawn: Drawn) -> pd.DataFrame:
    """Where all were, step by step, and how many were still there."""
    steps = drawn.steps
    if steps["step"].nunique() > words.MOST_ROWS:
        edges = np.linspace(steps["step"].min() - 1, steps["step"].max(), words.MOST_ROWS // 4 + 1)
        upto = edges[1:][np.searchsorted(edges[1:], steps["step"])]
        steps = steps.assign(step=upto.astype(int))
    label = drawn.scale.label
    groups = steps.groupby("step")
    table = pd.DataFrame({"trials": groups["number"].nunique()})
    table[f"best {label}"] = groups["shown"].min()
    table[f"median {label}"] = groups["shown"].median()
    table[f"worst {label}"] = groups["shown"].max()
    if drawn.axis.word == "epoch":
        table.insert(0, "epoch", drawn.axis.x(table.index))
    return table.reset_index()


def _alt(drawn: Drawn) -> str:
    steps, axis = drawn.steps, drawn.axis
    first, last = int(steps["step"].min()), int(steps["step"].max())
    texts = []
    for step in dict.fromkeys((first, last)):
        here = steps.loc[steps["step"] == step, "shown"]
        count = wording.count(len(here), "trial")
        texts.append(
            f"{count} at {axis.text(step)}, median {score_text(drawn.scale, here.median())}"
        )
    return f"Learning curves: {'; '.join(texts)}."
