"""Several objectives: the trials that no other beats."""

from typing import Any

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.dominance import front
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme
from tuner.report.plots.words import MOST_ROWS, subset, trials_text, with_params
from tuner.report.results import COMPLETE, INFEASIBLE, Results
from tuner.report.scale import Scale, scale_of

# More dominated trials than that are drawn as a sample.
MOST_POINTS = 2_000


def pareto(results: Results) -> Card:
    """The first two objectives against each other, with the trials that none beats.

    Raises:
        CannotDraw: there are not two objectives, or no trial completed.
    """
    if len(results.directions) < 2:
        raise CannotDraw("The study has one objective, so every two trials can be ranked.")
    values = results.values[results.trials["outcome"] == COMPLETE]
    values = values[np.isfinite(values).all(axis=1)]
    if values.empty:
        raise CannotDraw(
            "No trial completed with finite values: there is nothing to weigh against each other."
        )
    scales = _scales(results, values)
    shown = pd.DataFrame({p: it.shown(values[p]) for p, it in enumerate(scales)}, values.index)
    rows = dict(zip(values.index, values.to_numpy(float), strict=True))
    best = pd.Series(values.index.isin(front(rows, results.directions)), values.index)
    dominated, sample = subset(best.index[~best], MOST_POINTS)
    figure = _figure(results, values, shown, best, dominated)
    how_many = "both" if len(scales) == 2 else f"all {len(scales)}"
    finding = _finding(int(best.sum()), len(best), how_many)
    return Card(
        key="pareto",
        title=finding,
        reading=f"Lower left is better; of a filled trial no other is better in {how_many}.",
        basis=_basis(results, len(values), sample),
        alt=f"Scatter plot of {results.metrics[0]} and {results.metrics[1]}, of {len(scales)} "
        f"objectives. {finding}. {_ends(results, values, best)}",
        figure=figure,
        table=_table(results, values, best),
        narrow={
            **theme.few_ticks(scales[0], float(shown[0].min()), float(shown[0].max())),
            "height": 420,
        },
        wide=False,
        note="A trial is beaten when another is at least as good in every objective and better in "
        "one. Where an objective is to be maximised, the axis shows its negative.",
    )


def _scales(results: Results, values: pd.DataFrame) -> list[Scale]:
    return [
        scale_of(results.metrics[place], direction, values[place])
        for place, direction in enumerate(results.directions)
    ]


def _finding(best: int, count: int, how_many: str) -> str:
    if count == 1:
        return "One trial completed, so none can beat it"
    if best == 1:
        return f"1 of {count:,} complete trials beats or equals all others in {how_many} objectives"
    if best == count:
        return f"None of {count:,} complete trials is beaten in {how_many} objectives"
    return f"{best:,} of {count:,} complete trials are not beaten in {how_many} objectives"


def _basis(results: Results, complete: int, sample: str) -> str:
    left, more = len(results.trials) - complete, len(results.directions) > 2
    verb, infeasible = "is" if left == 1 else "are", results.count(INFEASIBLE)
    broken = f", {infeasible:,} that break a constraint among them" if infeasible else ""
    parts = [
        f"{trials_text(results)}.",
        f"{left:,} without a finite value of every objective {verb} left out{broken}."
        if left
        else "",
        f"Of the beaten ones {sample}." if sample else "",
        "The first two objectives are drawn, the others are in the labels." if more else "",
    ]
    return " ".join(filter(None, parts))


def _ends(results: Results, values: pd.DataFrame, best: "pd.Series[bool]") -> str:
    front = values[best]
    return " ".join(
        f"{results.metrics[place]} of these is from {front[place].min():.4g} to "
        f"{front[place].max():.4g}."
        for place in front
    )


def _figure(
    results: Results,
    values: pd.DataFrame,
    shown: pd.DataFrame,
    best: "pd.Series[bool]",
    dominated: pd.Index,
) -> go.Figure:
    scales = _scales(results, values)
    figure = theme.new_figure(
        xaxis=theme.value_axis(scales[0], float(shown[0].min()), float(shown[0].max())),
        yaxis=theme.value_axis(scales[1], float(shown[1].min()), float(shown[1].max())),
    )
    figure.add_trace(
        _marks(
            results,
            values.loc[dominated],
            shown.loc[dominated],
            name=f"beaten ({int((~best).sum()):,})",
            marker={"color": theme.faint(theme.LIGHT["pruned"], 0.55), "size": 7},
        )
    )
    front = shown[best].sort_values([0, 1], ascending=[True, False])
    if len(scales) == 2 and len(front) > 1:
        figure.add_trace(_line(front))
    figure.add_trace(
        _marks(
            results,
            values.loc[front.index],
            front,
            name=f"not beaten ({len(front):,})",
            marker={
                "color": theme.LIGHT["complete"],
                "size": 9,
                "symbol": "diamond",
                "line": {"color": theme.LIGHT["surface"], "width": 1},
            },
        )
    )
    return figure


def _marks(results: Results, values: pd.DataFrame, shown: pd.DataFrame, **more: Any) -> go.Scatter:
    lines = [
        f"trial {number}<br>"
        + "<br>".join(
            f"{name}: {wording.number(it)}" for name, it in zip(results.metrics, row, strict=True)
        )
        for number, row in zip(values.index, values.to_numpy(float), strict=True)
    ]
    return go.Scatter(
        x=shown[0].to_numpy(float),
        y=shown[1].to_numpy(float),
        mode="markers",
        text=lines,
        hovertemplate="%{text}<extra></extra>",
        **more,
    )


def _line(front: pd.DataFrame) -> go.Scatter:
    return go.Scatter(
        x=front[0].to_numpy(float),
        y=front[1].to_numpy(float),
        mode="lines",
        line={"color": theme.LIGHT["complete"], "width": 1.5, "shape": "hv"},
        hoverinfo="skip",
        showlegend=False,
    )


def _table(results: Results, values: pd.DataFrame, best: "pd.Series[bool]") -> pd.DataFrame:
    """The trials that none beats, and as many others as a table holds."""
    table = values.rename(columns=dict(enumerate(results.metrics)))
    table.insert(0, "beaten", np.where(best, "no", "yes"))
    table = with_params(results, table)
    if len(table) > MOST_ROWS:
        table = table[best].head(MOST_ROWS)
    return table.rename_axis("trial").reset_index()
