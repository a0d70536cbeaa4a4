"""What a random search of each level of a factor would find, against its number of trials."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go
from sklearn.isotonic import isotonic_regression

from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor
from tuner.report.model import SEED, StudyModel, random_settings
from tuner.report.plots import compared, theme, words
from tuner.report.plots.facts import score_label, score_text
from tuner.report.results import Results
from tuner.report.statistics.budget import Bands, expected_best_bands

Array = npt.NDArray[np.float64]

_BUDGETS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50])
_TICKS = (1, 2, 5, 10, 20, 50)
_TABLED = (1, 5, 10, 20, 50)
_TOLD = 10  # trials, in the title
_CONFIGURATIONS = 100
_DRAWS = 500
_MOST_LEVELS = len(theme.LEVELS)
_BANDS = 2
_HEIGHT, _TOP, _BOTTOM = 380, 16, 56  # px
_LINE = 16  # px between two names
_NARROW_NAME = 12  # characters of a name on a narrow page


@dataclass(frozen=True)
class _Drawn:
    factor: Factor
    bands: dict[int, Bands]  # of each level, by its place; the best first
    tried: npt.NDArray[np.int64]  # trials with a value, of each level

    def at(self, budget: int) -> dict[int, tuple[float, float, float]]:
        """Expected best and its interval, by level."""
        i = int(np.flatnonzero(budget == _BUDGETS)[0])
        return {
            level: (float(it.median[i]), float(it.low[i]), float(it.high[i]))
            for level, it in self.bands.items()
        }


def expected(results: Results, model: StudyModel, factor: Factor) -> Card:
    """The expected best error of so many random trials on each level, by the model.

    Raises:
        CannotDraw: fewer than two levels have a trial with a value.
    """
    drawn = _drawn(results, model, factor)
    tried = int((drawn.tried > 0).sum())
    most = f"Drawn are the {_MOST_LEVELS} most tried levels." if tried > _MOST_LEVELS else ""
    untried = [words.level_name(factor, int(it)) for it in np.flatnonzero(drawn.tried == 0)]
    without = f"No trial with a value has {', '.join(untried)}." if untried else ""
    return Card(
        key=words.key_of("expected", factor.name),
        title=_finding(results, drawn),
        reading="Each line is what a random search finds on average when it spends so many trials "
        "on one level; bands hold 95 % of what the model thinks possible, for the best two."
        f"{words.axis_text(results.scale)}",
        basis=compared.basis(results, model, without, most),
        alt=_alt(results, drawn),
        figure=_figure(results, drawn),
        table=_table(drawn),
        narrow=_narrow(results, drawn),
        note=f"For each level the model answers for {_CONFIGURATIONS} random settings of all else, "
        f"{_DRAWS} times, with the luck of a single run; the best of so many of them is exact "
        "(Dodge et al., EMNLP 2019). It does not use the search's own order of trials, which are "
        "no random draws. Settings whose training fails are taken as bad, not as how bad: "
        f"{model.ceiling_text}.",
    )


def _drawn(results: Results, model: StudyModel, factor: Factor) -> _Drawn:
    tried = compared.tried(results, model, factor)
    levels = [int(it) for it in np.argsort(-tried, kind="stable") if tried[it]][:_MOST_LEVELS]
    if len(levels) < 2:
        label = theme.plain(factor.label.lower())
        raise CannotDraw(f"Fewer than two levels of {label} have a trial with a value.")
    found = {level: _bands(results, model, factor, level) for level in levels}
    order = sorted(found, key=lambda it: float(found[it].median[-1]))
    return _Drawn(factor, {level: found[level] for level in order}, tried)


def _bands(results: Results, model: StudyModel, factor: Factor, level: int) -> Bands:
    """Of one level; all levels get the same settings of all else, as far as they have them."""
    generator = np.random.default_rng(SEED)
    column, surrogate = model.column(factor.name), model.surrogate
    like = surrogate.rows.settings[surrogate.rows.settings[:, column] == level]
    if not len(like):  # its trials are none of those that the model took
        like = model.pool
    settings = random_settings(model.columns, like, _CONFIGURATIONS, generator)
    settings[:, column] = level
    draws = compared.posterior(surrogate, settings, _DRAWS, generator)
    draws = draws + generator.normal(0.0, surrogate.luck, draws.shape)
    return expected_best_bands(results.scale.from_model(draws), _BUDGETS)


def _finding(results: Results, drawn: _Drawn) -> str:
    at, scale = drawn.at(_TOLD), results.scale
    order = sorted(at, key=lambda it: at[it][0])
    first, last = order[0], order[-1]
    names = [words.level_name(drawn.factor, it) for it in (first, last)]
    best, worst = (score_text(scale, at[it][0]) for it in (first, last))
    label = theme.plain(drawn.factor.label.lower())
    if at[first][2] >= at[last][1]:
        span = compared.span_text(scale, at[first][0], at[last][0])
        span = f"about {best}" if best == worst else span
        return (
            f"With {_TOLD} random trials each, {label} makes no difference that can be told: "
            f"{span} expected"
        )
    return (
        f"With {_TOLD} random trials each, {names[0]} is expected to reach {best}, "
        f"{names[1]} {worst}"
    )


def _figure(results: Results, drawn: _Drawn) -> go.Figure:
    figure = theme.new_figure(height=_HEIGHT, showlegend=False)
    for level, bands in list(drawn.bands.items())[:_BANDS]:
        figure.add_trace(_band(level, bands))
    for level, bands in reversed(drawn.bands.items()):
        figure.add_trace(_line(results, drawn, level, bands))
    figure.update_layout(
        margin={"t": _TOP, "r": _right(drawn, 24)},
        xaxis={
            "type": "log", "range": [-0.03, math.log10(50)], "tickvals": _TICKS,
            "ticktext": [str(it) for it in _TICKS], "tickmode": "array",
            "title": {"text": "random trials spent on the level (log)"},
        },
        yaxis=_axis(results, drawn),
        annotations=_names(results, drawn),
    )  # fmt: skip
    return figure


def _band(level: int, bands: Bands) -> go.Scatter:
    return go.Scatter(
        x=[*_BUDGETS, *_BUDGETS[::-1]],
        y=[*bands.low, *bands.high[::-1]],
        fill="toself",
        fillcolor=theme.faint(theme.level_colour(level), 0.14),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )


def _line(results: Results, drawn: _Drawn, level: int, bands: Bands) -> go.Scatter:
    name, scale = words.level_name(drawn.factor, level), results.scale
    look = {"color": theme.level_colour(level), "dash": theme.level_dash(level), "width": 2.2}
    return go.Scatter(
        x=_BUDGETS,
        y=bands.median,
        mode="lines",
        name=name,
        line=look,
        customdata=[
            f"{name}, {budget} random trials: {score_text(scale, at)} "
            f"(95 %: {compared.span_text(scale, low, high)})"
            for budget, at, low, high in zip(
                _BUDGETS, bands.median, bands.low, bands.high, strict=True
            )
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _axis(results: Results, drawn: _Drawn) -> dict[str, Any]:
    low, high = _ends(drawn)
    label = f"expected best {theme.plain(results.scale.label)}"
    log = " (log)" if results.scale.log else ""
    return theme.value_axis(results.scale, low, high, title={"text": label + log})


def _ends(drawn: _Drawn) -> tuple[float, float]:
    """The least and the greatest of what is drawn."""
    bands = list(drawn.bands.values())
    low = min(*(it.low.min() for it in bands[:_BANDS]), *(it.median.min() for it in bands))
    high = max(*(it.high.max() for it in bands[:_BANDS]), *(it.median.max() for it in bands))
    return float(low), float(high)


def _names(results: Results, drawn: _Drawn) -> list[dict[str, Any]]:
    """Each level's name at the end of its line, pushed apart where lines end together."""
    start, end = _axis(results, drawn)["range"]
    plot = _HEIGHT - _TOP - _BOTTOM
    ends = [float(results.scale.to_model(it.median[-1])) for it in drawn.bands.values()]
    wanted = np.array([plot * (it - start) / (end - start) for it in ends])  # px from below
    return [
        {
            "x": math.log10(50), "y": at, "xref": "x", "yref": "y", "xanchor": "left",
            "yanchor": "middle", "ax": 22, "ay": float(wanted[i] - placed), "showarrow": True,
            "arrowhead": 0, "arrowwidth": 1.5, "arrowcolor": theme.level_colour(level),
            "standoff": 2, "text": words.level_name(drawn.factor, level), "borderpad": 1,
            "font": {"size": theme.TEXT_SIZE - 1},
        }
        for i, (level, at, placed) in enumerate(
            zip(drawn.bands, ends, _apart(wanted, plot), strict=True)
        )
    ]  # fmt: skip


def _apart(wanted: Array, most: float) -> Array:
    """The places nearest to the wanted ones, which ascend, at least a line apart, within a plot."""
    lines = _LINE * np.arange(len(wanted))
    placed = isotonic_regression(wanted - lines) + lines
    return np.asarray(placed + max(0.0, -placed[0]) - max(0.0, placed[-1] - most))


def _right(drawn: _Drawn, most: int) -> int:
    """Room for the names, in px."""
    names = [words.level_name(drawn.factor, it) for it in drawn.bands]
    return 36 + round(7.4 * min(theme.longest(names), most))


def _narrow(results: Results, drawn: _Drawn) -> dict[str, Any]:
    found = theme.few_ticks(results.scale, *_ends(drawn), axis="yaxis")
    found["margin.r"] = _right(drawn, _NARROW_NAME)
    for i, level in enumerate(drawn.bands):
        found[f"annotations[{i}].text"] = theme.short(drawn.factor.texts[level], _NARROW_NAME)
    return found


def _table(drawn: _Drawn) -> pd.DataFrame:
    rows = []
    for level in drawn.bands:
        row: dict[str, object] = {drawn.factor.label: drawn.factor.texts[level]}
        for budget in _TABLED:
            at, low, high = drawn.at(budget)[level]
            row |= {f"{budget} trials": at}
            if budget == _TOLD:
                row |= {f"low at {budget}": low, f"high at {budget}": high}
        rows.append(row)
    return pd.DataFrame(rows)


def _alt(results: Results, drawn: _Drawn) -> str:
    scale, first, last = results.scale, drawn.at(1), drawn.at(50)
    said = [
        f"{words.level_name(drawn.factor, it)} from {score_text(scale, first[it][0])} to "
        f"{score_text(scale, last[it][0])}"
        for it in drawn.bands
    ]
    label = theme.plain(score_label(scale))
    return f"Expected best {label} from 1 to 50 random trials: {', '.join(said)}."
