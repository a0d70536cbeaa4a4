"""Small panels with a curve each: the answer to a knob, and the runs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go

from tuner.report.factors import Factor, Knob
from tuner.report.plots import compared, theme, ticks, words
from tuner.report.plots.facts import score_text
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results

Array = npt.NDArray[np.float64]

_COLUMNS, _NARROW_COLUMNS = 3, 2
_PANEL, _HEAD, _FOOT = 160, 46, 56  # px: a panel, what is above it, what is below all
_SIDE = 72  # px: what is left of all
_BETWEEN = 0.05  # of the width, between two panels
# An interval that spans more of the knob's range says nothing.
_TELLING = 0.5


@dataclass(frozen=True)
class Panel:
    """The answer at one level, in shown values.

    Attributes:
        level: its place, or -1 where there is no factor.
        name: as somebody gave it, or "".
        mean, low, high: along the knob.
        best, best_low, best_high: the knob's value where the answer is lowest.
        draws: where that is in each draw, as a part of the knob's range.
    """

    level: int
    name: str
    mean: Array
    low: Array
    high: Array
    best: float
    best_low: float
    best_high: float
    draws: Array

    @property
    def known(self) -> bool:
        """The best value can be told from most others."""
        low, high = np.quantile(self.draws, compared.ENDS)
        return bool(high - low <= _TELLING)


@dataclass(frozen=True)
class Drawn:
    """All panels, and the runs: ``x``, ``shown``, ``outcome`` and the level's ``place``."""

    knob: Knob
    factor: Factor | None
    x: Array
    panels: list[Panel]
    runs: pd.DataFrame
    unseen: str


def rate_text(value: float) -> str:
    """A knob's value with two digits."""
    return ticks.number_text(float(f"{value:.2g}"))


def span_text(panel: Panel) -> str:
    """The interval of the best value."""
    return f"{rate_text(panel.best_low)} to {rate_text(panel.best_high)}"


def figure_of(results: Results, drawn: Drawn) -> go.Figure:
    """All panels, with axes of the same range."""
    figure = theme.new_figure(showlegend=False)
    numbers = [_number(it) for it in range(len(drawn.panels))]
    for number, panel in zip(numbers, drawn.panels, strict=True):
        axes = {"xaxis": f"x{number}", "yaxis": f"y{number}"}
        figure.add_traces(
            [*_curve(results, drawn, panel, axes), *_marks(results, drawn, panel, axes)]
        )
        figure.add_shape(
            type="line", x0=panel.best, x1=panel.best, y0=0, y1=1,
            xref=f"x{number}", yref=f"y{number} domain",
            line={"dash": "dot", "width": 1.5, "color": theme.LIGHT["ink"]},
        )  # fmt: skip
        x_axis = _x_axis(drawn) | {"anchor": f"y{number}"}
        y_axis = theme.value_axis(results.scale, *_ends(drawn)) | {"anchor": f"x{number}"}
        figure.update_layout({f"xaxis{number}": x_axis, f"yaxis{number}": y_axis})
    figure.update_layout(
        margin={"t": _HEAD, "l": _SIDE, "b": _FOOT},
        annotations=[*map(_head, numbers, drawn.panels), _x_title(drawn)],
    )
    for name, value in grid(results, drawn, _COLUMNS).items():
        if name.startswith("annotations"):
            figure.layout.annotations[-1][name.rpartition(".")[2]] = value
        else:
            figure.update_layout({name.replace(".", "_"): value})
    return figure


def grid(results: Results, drawn: Drawn, columns: int) -> dict[str, Any]:
    """Where the panels stand: layout attributes by their dotted names."""
    count = len(drawn.panels)
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    inner = rows * _PANEL + (rows - 1) * _HEAD
    ends = np.linspace(0, 1 + _BETWEEN, columns + 1)
    found: dict[str, Any] = {"height": inner + _HEAD + _FOOT}
    title = theme.value_axis(results.scale, *_ends(drawn))["title"]["text"]
    below = (_FOOT - 16) / inner
    for place in range(count):
        row, column = divmod(place, columns)
        top = 1 - row * (_PANEL + _HEAD) / inner
        name = _number(place)
        found |= {
            f"xaxis{name}.domain": [float(ends[column]), float(ends[column + 1] - _BETWEEN)],
            f"yaxis{name}.domain": [max(0.0, top - _PANEL / inner), top],
            f"xaxis{name}.showticklabels": place + columns >= count,
            f"yaxis{name}.showticklabels": not column,
            f"yaxis{name}.title.text": "" if place else title,
        }
    return found | {f"annotations[{count}].y": -below}


def narrow(results: Results, drawn: Drawn) -> dict[str, Any]:
    """For `Card.narrow`: fewer columns, fewer ticks, fewer words."""
    found = grid(results, drawn, _NARROW_COLUMNS)
    marks = _x_axis(drawn)["tickvals"][::2]
    for place, panel in enumerate(drawn.panels):
        found |= {
            f"xaxis{_number(place)}.tickvals": marks,
            f"xaxis{_number(place)}.ticktext": [ticks.number_text(it) for it in marks],
            f"annotations[{place}].text": _head_text(panel, f"best {rate_text(panel.best)}"),
        }
    return found


def _number(place: int) -> str:
    """What names a panel's axes: nothing for the first, as Plotly has it."""
    return str(place + 1) if place else ""


def _ends(drawn: Drawn) -> tuple[float, float]:
    """The least and the greatest of what is drawn."""
    valued = drawn.runs.loc[drawn.runs["outcome"] != DIVERGED, "shown"]
    low = [*(float(it.low.min()) for it in drawn.panels), valued.min()]
    high = [*(float(it.high.max()) for it in drawn.panels), valued.max()]
    return float(np.nanmin(low)), float(np.nanmax(high))


def _x_axis(drawn: Drawn) -> dict[str, Any]:
    knob = drawn.knob
    if not knob.log:
        room = 0.03 * (knob.high - knob.low)
        marks = ticks.linear_ticks(knob.low, knob.high, 4)
        ends = [knob.low - room, knob.high + room]
    else:
        room = 0.03 * math.log10(knob.high / knob.low)
        marks = ticks.log_ticks(knob.low, knob.high, 5)[-5:]
        ends = [math.log10(knob.low) - room, math.log10(knob.high) + room]
    return {
        "type": "log" if knob.log else "linear", "range": ends, "tickmode": "array",
        "tickvals": marks, "ticktext": [ticks.number_text(it) for it in marks], "tickangle": 0,
        "tickfont": {"size": theme.TEXT_SIZE - 2}, "automargin": False,
    }  # fmt: skip


def _x_title(drawn: Drawn) -> dict[str, Any]:
    log = " (log)" if drawn.knob.log else ""
    return {
        "text": theme.short(drawn.knob.label.lower(), 40) + log, "showarrow": False,
        "xref": "paper", "yref": "paper", "x": 0.5, "xanchor": "center", "yanchor": "middle",
        "font": {"size": theme.TEXT_SIZE, "color": theme.LIGHT["muted"]},
    }  # fmt: skip


def _head(number: str, panel: Panel) -> dict[str, Any]:
    """A panel's level, and below it the best value."""
    return {
        "text": _head_text(panel, f"best {rate_text(panel.best)} ({span_text(panel)})"),
        "showarrow": False,
        "xref": f"x{number} domain", "yref": f"y{number} domain", "x": 0, "y": 1,
        "xanchor": "left", "yanchor": "bottom", "align": "left",
    }  # fmt: skip


def _head_text(panel: Panel, below: str) -> str:
    name = f"<b>{theme.short(panel.name, 20)}</b><br>" if panel.name else ""
    return f"{name}{theme.second_line(below)}"


def _curve(results: Results, drawn: Drawn, panel: Panel, axes: dict[str, str]) -> list[go.Scatter]:
    colour, scale = theme.level_colour(max(panel.level, 0)), results.scale
    band = go.Scatter(
        x=[*drawn.x, *drawn.x[::-1]],
        y=[*panel.low, *panel.high[::-1]],
        fill="toself",
        fillcolor=theme.faint(colour, 0.16),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        **axes,
    )
    line = go.Scatter(
        x=drawn.x,
        y=panel.mean,
        mode="lines",
        line={"color": colour, "width": 2.2},
        customdata=[
            f"{theme.short(panel.name)} at {rate_text(x)}: {score_text(scale, at)} "
            f"(95 %: {compared.span_text(scale, low, high)})"
            for x, at, low, high in zip(drawn.x, panel.mean, panel.low, panel.high, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        **axes,
    )
    return [band, line]


def _marks(results: Results, drawn: Drawn, panel: Panel, axes: dict[str, str]) -> list[go.Scatter]:
    """The runs of a level by their outcome; diverged ones at the top."""
    place = max(panel.level, 0)
    colour, symbol = theme.level_colour(place), theme.level_symbol(place)
    looks: dict[str, dict[str, Any]] = {
        PRUNED: {"symbol": "circle-open", "size": 5, "color": theme.LIGHT[PRUNED],
                 "line": {"width": 1}},
        COMPLETE: {"symbol": symbol, "size": 7, "color": colour},
        DIVERGED: {"symbol": theme.OUTCOME_SYMBOLS[DIVERGED], "size": 8,
                   "color": theme.LIGHT[DIVERGED]},
    }  # fmt: skip
    here = drawn.runs[drawn.runs["place"] == panel.level]
    found = []
    for outcome, look in looks.items():
        group = here[here["outcome"] == outcome]
        if group.empty:
            continue
        y = group["shown"].to_numpy(float)
        found.append(
            go.Scatter(
                x=group["x"].to_numpy(float),
                y=np.full(len(group), _ends(drawn)[1]) if outcome == DIVERGED else y,
                mode="markers",
                marker=look,
                customdata=words.hover_texts(results, group.index),
                hovertemplate="%{customdata}<extra></extra>",
                **axes,
            )
        )
    return found
