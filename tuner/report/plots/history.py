"""The search's history: every trial's value, and the best so far."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, words
from tuner.report.plots.facts import score_label, score_text, turned
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    ENDED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    RUNNING,
    WAITING,
    Results,
)

# Optuna's TPESampler draws its first trials at random.
TPE_STARTUP = 10
_MOST_MARKS = {PRUNED: 1_500}
_MOST_OTHERS = 1_000  # of each other outcome
_MARKS: dict[str, dict[str, Any]] = {  # those behind first
    PRUNED: {"size": 7, "line": {"width": 1.2}},
    WAITING: {"size": 9, "line": {"width": 1.5}},  # handed back
    RUNNING: {"size": 9, "line": {"width": 1.5}},
    INFEASIBLE: {"size": 7, "line": {"width": 1.2}},
    COMPLETE: {"size": 8},
    DIVERGED: {"size": 9},
    FAILED: {"size": 9},
}
_MOST_TICKS = 11
_GREATEST = 1e307  # that an axis shows
_EDGE = {DIVERGED: 0.07, FAILED: 0.14}  # shown at the top edge: so far above the others


@dataclass(frozen=True)
class _Drawn:
    shown: "pd.Series[float]"  # of all trials
    records: "pd.Series[float]"  # the best so far, where it changed
    low: float
    high: float
    edges: dict[str, float]  # where marks stand whose value is not shown


def history(results: Results) -> Card:
    """Each trial's value in its order, and the best of the complete ones so far.

    Raises:
        CannotDraw: no trial has a value.
    """
    drawn = _drawn(results)
    figure, thinned = _figure(results, drawn)
    return Card(
        key="history",
        title=_finding(results, drawn),
        reading="The line is the best complete trial so far: flat where nothing was better."
        f"{_hollow(results)}{words.axis_text(results.scale)}",
        basis=words.basis_of(results, _treatment(results), thinned),
        alt=_alt(results, drawn),
        figure=figure,
        table=words.trial_table(results),
        narrow={"xaxis.nticks": 5, "height": 460, **theme.NARROW_LEGEND},
        wide=True,
    )


def _drawn(results: Results) -> _Drawn:
    shown = words.last_shown(results)
    seen = shown[words.of_outcome(results, COMPLETE, PRUNED, INFEASIBLE, RUNNING, WAITING)].dropna()
    if seen.empty:
        seen = shown.dropna()
    if seen.empty:
        msg = f"No trial has reported a value ({words.trials_text(results)})."
        raise CannotDraw(msg)
    low, high = float(seen.min()), float(seen.max())
    start, end = (float(it) for it in results.scale.to_model([low, high]))
    span = end - start if end > start else abs(start) or 1.0
    most = math.log10(_GREATEST) if results.scale.log else _GREATEST
    edges = {
        it: float(results.scale.from_model(min(end + up * span, most))) for it, up in _EDGE.items()
    }
    top = max([high, *(edge for it, edge in edges.items() if results.count(it))])
    complete = words.complete_shown(results)
    records = complete[complete < complete.cummin().shift(fill_value=np.inf)]
    return _Drawn(shown, records, low, top, edges)


def _figure(results: Results, drawn: _Drawn) -> tuple[go.Figure, str]:
    figure = theme.new_figure(height=400)
    thinned = []
    for outcome in _MARKS:
        numbers = words.of_outcome(results, outcome)
        if outcome not in _EDGE:
            numbers = numbers[drawn.shown[numbers].notna()]
        kept, how = words.subset(
            numbers, _MOST_MARKS.get(outcome, _MOST_OTHERS), drawn.records.index
        )
        if how:
            thinned.append(f"{outcome} {how}")
        if len(kept):
            figure.add_trace(_marks(results, drawn, outcome, kept, len(numbers)))
    if len(drawn.records):
        figure.add_trace(_best_so_far(results, drawn))
    if len(results.taken_over):
        figure.add_trace(_taken_over(results, drawn))
    count = len(results.trials)
    if results.stored.search.get("sampler") == "tpe" and count > TPE_STARTUP:
        _shade_startup(figure)
    beside = max(0.02 * count, 0.6)
    figure.update_layout(
        xaxis={
            "title": {"text": "trial"},
            "range": [-beside, count - 1 + beside],
            **({"nticks": _MOST_TICKS} if count > _MOST_TICKS else {"dtick": 1}),  # no half trials
        },
        yaxis=theme.value_axis(results.scale, drawn.low, drawn.high),
    )
    return figure, f"Marks drawn: {'; '.join(thinned)}." if thinned else ""


def _marks(
    results: Results, drawn: _Drawn, outcome: str, numbers: "pd.Index[int]", count: int
) -> go.Scatter:
    y = drawn.shown[numbers].to_numpy()
    if outcome in _EDGE:
        y = np.full(len(numbers), drawn.edges[outcome])
    return go.Scatter(
        x=numbers.to_numpy(np.int32),
        y=words.single(y),
        mode="markers",
        name=f"{outcome} ({count:,})",
        marker={
            "color": theme.LIGHT[outcome],
            "symbol": theme.OUTCOME_SYMBOLS[outcome],
            **_MARKS[outcome],
        },
        customdata=words.hover_texts(results, numbers),
        hovertemplate="%{customdata}<extra></extra>",
    )


def _best_so_far(results: Results, drawn: _Drawn) -> go.Scatter:
    ended = words.of_outcome(results, *ENDED)
    numbers = [*drawn.records.index, max(ended.max(), drawn.records.index[-1])]
    values = [*drawn.records, drawn.records.iloc[-1]]
    texts = [
        f"best from trial {n}: {score_text(results.scale, v)}" for n, v in drawn.records.items()
    ]
    return go.Scatter(
        x=numbers,
        y=values,
        mode="lines",
        name="best so far",
        line={"shape": "hv", "width": 2, "color": theme.LIGHT["ink"]},
        customdata=[*texts, texts[-1]],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _taken_over(results: Results, drawn: _Drawn) -> go.Scatter:
    """A frame round the trials whose configurations are another study's."""
    values = drawn.shown[results.taken_over.index].dropna()
    texts = [f"configuration of {source}" for source in results.taken_over[values.index]]
    return go.Scatter(
        x=values.index.to_numpy(np.int32),
        y=words.single(values.to_numpy()),
        mode="markers",
        name=f"taken over ({len(results.taken_over):,})",
        marker={
            "color": theme.LIGHT["ink"],
            "symbol": "square-open",
            "size": 15,
            "line": {"width": 1.5},
        },
        customdata=texts,
        hovertemplate="%{customdata}<extra></extra>",
    )


def _shade_startup(figure: go.Figure) -> None:
    figure.add_shape(
        type="rect",
        x0=-0.5,
        x1=TPE_STARTUP - 0.5,
        y0=0,
        y1=1,
        yref="paper",
        layer="below",
        fillcolor=theme.faint(theme.LIGHT["muted"], 0.16),
        line={"width": 0},
        name="random start",
        showlegend=True,
    )


def _finding(results: Results, drawn: _Drawn) -> str:
    scale, label = results.scale, theme.plain(score_label(results.scale))
    if drawn.records.empty:
        best = drawn.shown.idxmin()
        value = score_text(scale, drawn.shown[best])
        state = results.trials["outcome"][best]
        most = "highest" if turned(scale) else "lowest"
        return f"No trial is complete: the {most} {label}, {value}, is from {state} trial {best}"
    number, value = int(drawn.records.index[-1]), score_text(scale, drawn.records.iloc[-1])
    ended = words.of_outcome(results, *ENDED)
    after = int((ended > number).sum())
    count = len(ended)
    if count == 1:
        return f"The only trial reached a {label} of {value}"
    title = f"Trial {number} of {count:,} reached the best {label}, {value}"
    if not after:
        return f"{title}: it was the last to end"
    equal = _equal(results, drawn)
    more = f", {equal:,} equalled it" if equal else ""
    found = "the one after it was no" if after == 1 else f"the {after:,} after it found nothing"
    return f"{title}; {found} better{more}"


def _equal(results: Results, drawn: _Drawn) -> int:
    """How many complete trials have the best one's value, too."""
    complete = words.complete_shown(results)
    return int((complete == drawn.records.iloc[-1]).sum()) - 1


def _hollow(results: Results) -> str:
    if not results.steps_are_values:
        return ""
    return " Hollow circles are trials that did not run to the end, at their last value."


def _treatment(results: Results) -> str:
    parts = []
    if results.count(PRUNED):
        parts.append(
            "pruned trials stand at their last value and never move the line"
            if results.steps_are_values
            else words.pruned_text(results).removesuffix(".")
        )
    if results.count(INFEASIBLE):
        parts.append("those that break a constraint never move it either")
    if results.count(*_EDGE):
        wrong = words.went_wrong(results)
        parts.append(f"at the top edge, whatever their value: {wrong}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _alt(results: Results, drawn: _Drawn) -> str:
    scale = results.scale
    low, high = (score_text(scale, it) for it in (drawn.shown.min(), drawn.shown.max()))
    count = wording.count(int(drawn.shown.notna().sum()), "trial")
    text = f"{count} with values from {low} to {high}."
    if len(drawn.records) == 1:
        text += f" The first complete one, {score_text(scale, drawn.records.iloc[0])}, is the best."
    elif len(drawn.records):
        first, last = (score_text(scale, drawn.records.iloc[it]) for it in (0, -1))
        steps = wording.count(len(drawn.records) - 1, "improvement")
        moves = "rises" if turned(scale) else "falls"
        text += f" The best complete one {moves} from {first} to {last} in {steps}."
    return text
