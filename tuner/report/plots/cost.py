"""What a trial costs against what it brings."""

import math
from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.dominance import not_beaten
from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor
from tuner.report.plots import theme
from tuner.report.plots.facts import score_label, score_text
from tuner.report.plots.pareto import MOST_POINTS
from tuner.report.plots.words import (
    MOST_ROWS,
    axis_text,
    basis_of,
    hover_texts,
    last_shown,
    pruned_text,
    subset,
    went_wrong,
    with_params,
)
from tuner.report.results import COMPLETE, INFEASIBLE, PRUNED, Results

# Factors with more levels give no colours that can be told apart.
_MOST_COLOURS = len(theme.LEVELS)
# A factor that explains less of the differences in cost gives no colours.
_LEAST_SHARE = 0.1
# A cheaper trial is worth a word when it is so much worse at most, and so much cheaper.
_NEARLY_AS_GOOD, _CHEAPER = 1.3, 0.85
# Ticks of a time axis, in seconds.
_TICKS = (
    *(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0, 300.0, 900.0),
    *(3600.0 * hours for hours in (1, 3, 10, 30, 100, 300, 1000)),
)


def cost(results: Results) -> Card:
    """The seconds of each trial against its value, with those that are cheaper or better.

    Raises:
        CannotDraw: no trial has both.
    """
    points = _points(results)
    if points.empty:
        raise CannotDraw("No trial ended with a value and a duration.")
    factor = explaining(results)
    complete = points[points["outcome"] == COMPLETE]
    front = complete[not_beaten(complete[["seconds", "shown"]].to_numpy(float))]
    front = front.sort_values(["seconds", "shown"]).drop_duplicates(["seconds", "shown"])
    chosen, sample = subset(points.index, MOST_POINTS, front.index)
    drawn = points.loc[chosen]
    finding = _finding(results, complete, front)
    coloured = f", coloured by {factor.label.lower()}" if factor else ""
    return Card(
        key="cost",
        title=finding,
        reading="Lower is better, further left is cheaper; hollow marks are pruned trials, and the "
        f"line joins the complete ones that none beats in both.{axis_text(results.scale)}",
        basis=_basis(results, sample),
        alt=f"Scatter plot of {wording.count(len(points), 'trial')}, seconds against "
        f"{score_label(results.scale)}{coloured}. {finding}.{_in_words(results, front)}",
        figure=_figure(results, drawn, front, factor),
        table=_table(results, points, front),
        narrow={
            **theme.few_ticks(results.scale, *_ends(points["shown"]), axis="yaxis"),
            **{f"xaxis.{k}": v for k, v in _ticks(*_ends(points["seconds"]), most=4).items()},
            "legend.title.side": "top",
            "height": 460,
        },
        note=_note(results, factor),
    )


def seconds_text(seconds: float) -> str:
    """A duration, short ones with their decimals: ``0.5 s``, ``32 s``, ``2 min 05 s``."""
    return f"{seconds:.2g} s" if seconds < 9.95 else wording.duration(seconds)


def time_unit(seconds: float) -> tuple[float, str]:
    """In what an axis up to so many seconds counts: the unit's seconds and name."""
    return (3600.0, "h") if seconds >= 7200 else (60.0, "min") if seconds >= 120 else (1.0, "s")


def explaining(results: Results) -> Factor | None:
    """The factor that explains most of how long a step takes, if one does."""
    trials = results.trials
    per_step = trials["seconds"] / trials["last_step"].where(trials["last_step"] > 0, 1.0).fillna(1)
    logs = np.log(per_step.where(per_step > 0))
    shares = {
        it.name: _explained(logs, results.codes[it.name])
        for it in results.factors
        if len(it.levels) <= _MOST_COLOURS
    }
    name = max(shares, key=lambda it: shares[it], default=None)
    return results.factor(name) if name is not None and shares[name] > _LEAST_SHARE else None


def _explained(logs: "pd.Series[float]", codes: "pd.Series[int]") -> float:
    """The share of the variance between levels, less what chance gives (adjusted R squared)."""
    known = logs.notna() & (codes >= 0)
    logs, codes = logs[known], codes[known]
    levels = codes.nunique()
    if levels < 2 or len(logs) <= levels or logs.var() == 0:
        return 0.0
    within = float(((logs - logs.groupby(codes).transform("mean")) ** 2).sum())
    return float(1 - within / (len(logs) - levels) / logs.var())


def _points(results: Results) -> pd.DataFrame:
    """The trials that can be drawn: seconds, what is shown, outcome."""
    points = results.trials[["outcome", "seconds"]].assign(shown=last_shown(results))
    points = points[points["outcome"].isin((COMPLETE, PRUNED)) & (points["seconds"] > 0)]
    return points.dropna(subset="shown")


def _finding(results: Results, complete: pd.DataFrame, front: pd.DataFrame) -> str:
    if complete.empty:
        return "No trial completed; the pruned ones show what they had reached"
    scale, best = results.scale, front.iloc[-1]
    reached = f"{score_text(scale, best['shown'])} in {seconds_text(best['seconds'])}"
    if len(complete) == 1:
        return f"The only complete trial reached {reached}"
    if scale.log:
        near = front["shown"] <= _NEARLY_AS_GOOD * best["shown"]
    else:
        worst = float(complete["shown"].max())
        near = front["shown"] - best["shown"] <= 0.1 * (worst - best["shown"])
    cheap = front[near & (front["seconds"] <= _CHEAPER * best["seconds"])]
    if len(cheap):
        other = cheap.iloc[0]
        return (
            f"The best trial reached {reached}; another reached "
            f"{score_text(scale, other['shown'])} in {seconds_text(other['seconds'])}"
        )
    if len(front) == 1:
        return f"The best trial, {reached}, was the cheapest complete one, too"
    return f"The best trial reached {reached}; none nearly as good was much cheaper"


def _in_words(results: Results, front: pd.DataFrame) -> str:
    if front.empty:
        return ""
    ends = [
        f"{score_text(results.scale, it['shown'])} in {seconds_text(it['seconds'])}"
        for _, it in front.iloc[[0, -1]].iterrows()
    ]
    if len(front) == 1:
        return f" One complete trial is both cheaper and better than all others: {ends[0]}."
    return f" The line has {len(front)} trials, from {ends[0]} to {ends[1]}."


def _basis(results: Results, sample: str) -> str:
    wrong = went_wrong(results)
    return basis_of(
        results,
        pruned_text(results),
        f"The {wrong} are not drawn." if wrong else "",
        "Nor are those that break a constraint." if results.count(INFEASIBLE) else "",
        f"Of the others {sample}." if sample else "",
    )


def _note(results: Results, factor: Factor | None) -> str:
    said = (
        "A trial's seconds are from its start to its end, so waiting for what is computed once a "
        "machine counts. The line is the Pareto front of the complete trials."
    )
    if factor:
        said += (
            f" The colours are those of {factor.name}, which of all choices explains most of how "
            "long a step takes (adjusted R² of the log seconds a step)."
        )
    if results.count(COMPLETE) > 1:
        said += " A difference between two single trials is partly luck."
    return said


def _ends(values: "pd.Series[float]") -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _ticks(low: float, high: float, most: int = 8) -> dict[str, Any]:
    """Readable ticks of a log axis of seconds."""
    inside = [it for it in _TICKS if low / 1.2 <= it <= high * 1.2] or [low]
    ticks = inside[:: math.ceil(len(inside) / most)]
    return {"tickangle": 0, "tickvals": ticks, "ticktext": [_tick_text(it) for it in ticks]}


def _tick_text(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


def _figure(
    results: Results, drawn: pd.DataFrame, front: pd.DataFrame, factor: Factor | None
) -> go.Figure:
    low, high = _ends(drawn["seconds"])
    room = 0.05 * math.log10(high / low) or 0.2
    figure = theme.new_figure(
        height=420,
        xaxis={
            "type": "log",
            "range": [math.log10(low) - room, math.log10(high) + room],
            "title": {"text": "duration of the trial (log)"},
            **_ticks(low, high),
        },
        yaxis=theme.value_axis(results.scale, *_ends(drawn["shown"])),
        legend={
            "title": {
                "text": theme.short(factor.label) if factor else "",
                "font": {"size": theme.TEXT_SIZE - 1, "color": theme.LIGHT["muted"]},
            }
        },
    )
    places = results.codes.loc[drawn.index, factor.name] if factor else pd.Series(0, drawn.index)
    for place in sorted(places.unique(), key=lambda it: (it < 0, it)):
        _add_level(figure, results, drawn[places == place], factor, int(place))
    if len(front):
        _add_front(figure, front)
    return figure


def _add_level(
    figure: go.Figure, results: Results, points: pd.DataFrame, factor: Factor | None, place: int
) -> None:
    """The trials of a level: complete ones filled, pruned ones hollow."""
    name, colour, symbol = "complete", theme.LIGHT["complete"], "circle"
    if factor:
        name = theme.short(factor.texts[place], 18) if place >= 0 else "none"
        colour = theme.level_colour(place) if place >= 0 else theme.LIGHT["muted"]
        symbol = theme.level_symbol(max(place, 0))
    complete = points["outcome"] == COMPLETE
    for part, hollow in ((points[~complete], True), (points[complete], False)):
        figure.add_trace(
            go.Scatter(
                x=part["seconds"].to_numpy(float) if len(part) else [None],
                y=part["shown"].to_numpy(float) if len(part) else [None],
                mode="markers",
                name="pruned" if hollow and not factor else name,
                legendgroup=f"level {place}" if factor else "",
                showlegend=(not hollow) or (not factor and len(part) > 0),
                marker={
                    "symbol": f"{symbol}-open" if hollow else symbol,
                    "size": 7 if hollow else 10,
                    "color": theme.faint(colour, 0.75) if hollow else colour,
                    "line": {"width": 1.2 if hollow else 0},
                },
                text=_labels(results, part),
                hovertemplate="%{text}<extra></extra>",
            )
        )


def _labels(results: Results, points: pd.DataFrame) -> list[str]:
    lines, seconds = hover_texts(results, points.index), map(seconds_text, points["seconds"])
    return [f"{took} · {line}" for took, line in zip(seconds, lines, strict=True)]


def _add_front(figure: go.Figure, front: pd.DataFrame) -> None:
    figure.add_trace(
        go.Scatter(
            x=front["seconds"].to_numpy(float),
            y=front["shown"].to_numpy(float),
            mode="lines",
            name="cheaper or better",
            line={"color": theme.LIGHT["ink"], "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
            showlegend=len(front) > 1,
        )
    )


def _table(results: Results, points: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """Every trial, or, of many, those on the line."""
    table = points.assign(
        on_the_line=np.where(points.index.isin(front.index), "yes", "no"),
        value=results.trials["value"],
    ).drop(columns="shown")
    table = with_params(results, table)
    if len(table) > MOST_ROWS:
        table = table.loc[front.index].head(MOST_ROWS)
    return table.rename_axis("trial").reset_index()
