"""All settings at once: parallel coordinates, one line a trial."""

import textwrap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go
from scipy import stats

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor, Knob
from tuner.report.plots import theme, ticks, words
from tuner.report.plots.facts import score_text
from tuner.report.results import DIVERGED, INFEASIBLE, Results

_MOST_LINES = 2_000
_KEPT = 100  # of the best are drawn in any case
_MOST_AXES = 7  # of parameters
_MOST_AXES_NARROW = 3
_FEWEST = 10  # values, to say what the best have in common
_UNLIKELY = 0.05  # that chance alone makes a level so frequent among the best
_BINS = 4  # of a knob, to see how telling it is
_ROOM = 0.02  # beside a knob's range
_LINE = 11  # characters of an axis' name on a narrow page
_CHARACTER = 7.2  # px, of a tick's text


@dataclass(frozen=True)
class _Drawn:
    axes: list[Factor | Knob]  # in the order of the study file
    telling: dict[str, float]  # of each parameter, by name
    shown: "pd.Series[float]"  # of the trials that have a value and all these parameters
    unseen: str  # which parameters and trials were left out


def parallel(results: Results) -> Card:
    """One line for each trial that has a value, through all its settings.

    Raises:
        CannotDraw: no trial has a value, or nothing was searched.
    """
    drawn = _drawn(results)
    numbers, how = words.subset(drawn.shown.index, _MOST_LINES, _best(drawn)[:_KEPT])
    dimensions = [_dimension(results, axis, numbers) for axis in drawn.axes]
    dimensions += [*_last_step(results, numbers), _values(results, drawn.shown[numbers])]
    return Card(
        key="parallel",
        title=_finding(results, drawn),
        reading="Drag along an axis to keep only the trials that pass there; drag a name to move "
        f"its axis. Strong lines are the best.{words.axis_text(results.scale)}",
        basis=words.basis_of(
            results,
            f"{wording.count(len(drawn.shown), 'trial')} with a value.",
            words.pruned_text(results),
            drawn.unseen,
            f"Lines drawn: {how}; the best {_KEPT} are always among them." if how else "",
        ),
        alt=_alt(results, drawn),
        figure=_figure(dimensions),
        table=words.trial_table(results),
        narrow=_narrow(drawn, dimensions),
        wide=True,
    )


def _drawn(results: Results) -> _Drawn:
    shown = words.last_shown(results).dropna()
    shown = shown.drop(words.of_outcome(results, INFEASIBLE), errors="ignore")
    if shown.empty:
        msg = f"No trial has reported a value ({words.trials_text(results)})."
        raise CannotDraw(msg)
    axes: list[Factor | Knob] = [*results.factors, *results.knobs]
    # Where a parameter is conditional, what most trials lack is left out, not those trials.
    usual = [it for it in axes if results.params[it.name][shown.index].notna().mean() > 0.5]
    telling = {it.name: _telling(results, it, shown) for it in usual}
    chosen = sorted(usual, key=lambda it: -telling[it.name])[:_MOST_AXES]
    if not chosen:
        msg = "The study has no parameter with more than one value."
        raise CannotDraw(msg)
    names = [it.name for it in chosen]
    whole = results.params.loc[shown.index, names].notna().all(axis=1)
    without = int((~whole).sum())
    parts = []
    if without:
        parts.append(f"{wording.count(without, 'trial')} without one of the parameters left out.")
    rare = [theme.plain(it.label) for it in axes if it not in usual]
    if rare:
        parts.append(f"Left out, as most trials lack them: {', '.join(rare)}.")
    if len(usual) > len(chosen):
        parts.append(f"Shown are the {len(chosen)} most telling of {len(usual)} parameters.")
    placed = [it for it in axes if it in chosen]
    return _Drawn(placed, telling, shown[whole[whole].index], " ".join(parts))


def _telling(results: Results, axis: Factor | Knob, shown: "pd.Series[float]") -> float:
    """How much of the ranks' variance its levels or quarters explain, less what chance would."""
    if isinstance(axis, Factor):
        groups = results.codes[axis.name][shown.index]
    else:
        ranks = results.params[axis.name][shown.index].astype(float).rank(pct=True)
        groups = np.ceil(ranks * _BINS).fillna(-1).astype(int)
    ranks = shown[groups >= 0].rank()
    groups = groups[groups >= 0]
    free = len(ranks) - groups.nunique()
    total = float(((ranks - ranks.mean()) ** 2).sum())
    if free < 1 or not total:
        return 0.0
    within = float(((ranks - ranks.groupby(groups).transform("mean")) ** 2).sum())
    return float(1 - within / free / (total / (len(ranks) - 1)))


def _best(drawn: _Drawn) -> "pd.Index[int]":
    """The best tenth."""
    return drawn.shown.nsmallest(max(1, len(drawn.shown) // 10)).index


def _figure(dimensions: list[go.parcoords.Dimension]) -> go.Figure:
    figure = theme.new_figure(height=480)
    # Plotly draws greater colours on top, and those should be the best: the least values.
    values = words.single(-np.asarray(dimensions[-1].values, dtype=float))
    left, right = _margins(dimensions[0], dimensions[-1])
    figure.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={
                "color": values,
                # From the ground to the role's colour, which both change on a dark page.
                "colorscale": [[0, theme.LIGHT["grid"]], [1, theme.LIGHT["complete"]]],
                "showscale": False,
            },
            labelfont={"size": theme.TEXT_SIZE, "color": theme.LIGHT["ink"]},
            tickfont={"size": theme.TEXT_SIZE - 1, "color": theme.LIGHT["ink"]},
            rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
            unselected={"line": {"color": theme.LIGHT["pruned"], "opacity": 0.08}},
        )
    )
    figure.update_layout(margin={"l": left, "r": right, "t": 64, "b": 24})
    return figure


def _margins(
    first: go.parcoords.Dimension, last: go.parcoords.Dimension, label: int = 20
) -> tuple[float, float]:
    """The room left of the first axis for its texts, and that of half a name beside each end."""
    half = [_CHARACTER * min(theme.longest([it.label]), label) / 2 + 6 for it in (first, last)]
    return max(half[0], _CHARACTER * theme.longest(first.ticktext or ()) + 20), half[1]


def _dimension(
    results: Results, axis: Factor | Knob, numbers: "pd.Index[int]"
) -> go.parcoords.Dimension:
    label = theme.short(axis.label, 20)
    if isinstance(axis, Factor):
        places = results.codes[axis.name][numbers].to_numpy(np.int16)
        last = len(axis.levels) - 1
        every = max(1, len(axis.levels) // 24)
        at = list(range(0, last + 1, every))
        texts = [theme.short(axis.texts[it], 16) for it in at]
        return go.parcoords.Dimension(
            label=label, values=places, range=[0, last], tickvals=at, ticktext=texts
        )
    values = results.params[axis.name][numbers].to_numpy(float)
    log = axis.log and axis.low > 0
    found = (ticks.log_ticks if log else ticks.linear_ticks)(axis.low, axis.high, 6)
    texts = [ticks.number_text(it) for it in found]
    ends, places, of = np.array([axis.low, axis.high]), np.array(found), values
    if log:
        ends, places, of = np.log10(ends), np.log10(places), np.log10(of)
    room = _ROOM * float(ends[1] - ends[0])
    return go.parcoords.Dimension(
        label=label,
        values=words.single(of),
        range=[float(ends[0]) - room, float(ends[1]) + room],
        tickvals=places.tolist(),
        ticktext=texts,
    )


def _last_step(results: Results, numbers: "pd.Index[int]") -> list[go.parcoords.Dimension]:
    """How far each trial came, where that differs."""
    steps = results.trials["last_step"][numbers].fillna(0)
    if steps.nunique() < 2:
        return []
    axis = theme.step_axis(results)
    x: npt.NDArray[np.float64] = axis.x(steps)
    high = float(max(x.max(), (results.max_step or 0) / axis.per))
    at = ticks.linear_ticks(0, high, 6)
    return [
        go.parcoords.Dimension(
            label=f"Last {axis.word}",
            values=x.astype(np.float32),
            range=[0, high],
            tickvals=at,
            ticktext=[ticks.number_text(it) for it in at],
        )
    ]


def _values(results: Results, shown: "pd.Series[float]") -> go.parcoords.Dimension:
    """The shown values, the best on top."""
    scale = results.scale
    axis = theme.value_axis(scale, float(shown.min()), float(shown.max()))
    label = theme.short(scale.label[:1].upper() + scale.label[1:], 20)
    return go.parcoords.Dimension(
        label=label,
        values=words.single(scale.to_model(shown)),
        range=axis["range"][::-1],
        tickvals=scale.to_model(axis["tickvals"]).tolist(),
        ticktext=axis["ticktext"],
    )


def _narrow(drawn: _Drawn, dimensions: list[go.parcoords.Dimension]) -> dict[str, object]:
    """Below 600 px only the most telling parameters and the value."""
    telling = sorted(drawn.axes, key=lambda it: -drawn.telling[it.name])[:_MOST_AXES_NARROW]
    hidden = [place for place, it in enumerate(drawn.axes) if it not in telling]
    hidden += range(len(drawn.axes), len(dimensions) - 1)
    seen = [place for place in range(len(dimensions)) if place not in hidden]
    left, right = _margins(dimensions[seen[0]], dimensions[-1], _LINE)
    labels = {
        f"traces[0].dimensions[{place}].label": "<br>".join(
            textwrap.wrap(dimensions[place].label, _LINE, max_lines=2, placeholder="…")
        )
        for place in seen
    }
    return {
        **{f"traces[0].dimensions[{place}].visible": False for place in hidden},
        **labels,
        "traces[0].tickfont.size": 11,
        "traces[0].labelfont.size": 11,
        "margin.l": left,
        "margin.r": right,
    }


def _finding(results: Results, drawn: _Drawn) -> str:
    """Which level stands out among the best tenth, beside its share of all."""
    shown, best = drawn.shown, _best(drawn)
    count = wording.count(len(shown), "trial")
    found = []
    for axis in drawn.axes if len(shown) >= _FEWEST else []:
        if isinstance(axis, Factor) and len(best) > 2:
            codes = results.codes[axis.name]
            place = int(codes[best].mode().iloc[0])
            top, all_of = (
                int((codes[best] == place).sum()),
                int((codes[shown.index] == place).sum()),
            )
            found.append((top / len(best) - all_of / len(shown), top, all_of, axis, place))
    if not found:
        low, high = (score_text(results.scale, it) for it in (shown.min(), shown.max()))
        return f"{count} in {wording.count(len(drawn.axes), 'setting')}: {low} to {high}"
    _, top, all_of, axis, place = max(found, key=lambda it: it[0])
    level = words.level_name(axis, place)
    # As often by chance, if the best were drawn from all trials? Many levels had that chance.
    chance = float(stats.hypergeom.sf(top - 1, len(shown), all_of, len(best)))
    if chance < _UNLIKELY / sum(len(it.levels) for it in results.factors):
        return f"{level} in {top:,} of the best {len(best):,} trials, in {all_of:,} of all {count}"
    return (
        f"No level stands out in the best {len(best):,} of {count}: most often {level}, in "
        f"{top:,} of them and {all_of:,} of all"
    )


def _alt(results: Results, drawn: _Drawn) -> str:
    order = sorted(drawn.axes, key=lambda it: -drawn.telling[it.name])
    names = words.joined([theme.plain(it.label.lower()) for it in order[:_MOST_AXES_NARROW]])
    low, high = (score_text(results.scale, it) for it in (drawn.shown.min(), drawn.shown.max()))
    diverged = results.count(DIVERGED)
    more = f" {wording.count(diverged, 'trial')} diverged." if diverged else ""
    return (
        f"Parallel coordinates of {wording.count(len(drawn.shown), 'trial')}, from {low} to "
        f"{high}. What tells the values apart most: {names}.{more}"
    )
