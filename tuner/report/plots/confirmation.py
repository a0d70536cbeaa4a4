"""The confirmation: a few configurations, run again on the same fresh seeds."""

import math

import numpy as np
import pandas as pd
from plotly import graph_objects as go

from tuner.report.cards import Card
from tuner.report.plots import compared, theme
from tuner.report.plots.confirmed import (
    ConfirmedRuns,
    basis_of,
    error_bars,
    measured_text,
    pairs,
    shrinkage_text,
    shrinkages,
    verdict_of,
)
from tuner.report.plots.facts import score_label, score_text
from tuner.report.plots.ratios import ratios
from tuner.report.plots.words import axis_text
from tuner.report.results import Results
from tuner.report.statistics.intervals import Interval, t_interval
from tuner.report.statistics.levels import CONFIDENCE

_ROW = 46  # px
_NOTE = (
    "Nothing was pruned and nothing chosen among these runs, so ordinary statistics hold. "
    "Intervals are t intervals."
)
_ABOVE = 0.22  # of a row, from its runs to its mean


def confirmation(confirm: Results, source: Results | None) -> list[Card]:
    """Each run by its seed; and, of several configurations, how far they are behind the winner.

    Args:
        confirm: the study of re-runs.
        source: the study that they were chosen from, if it is known.

    Raises:
        CannotDraw: nothing can be said of luck: see `pairs`.
    """
    runs = pairs(confirm)
    seen = shrinkages(confirm, runs, source)
    basis = " ".join(filter(None, [basis_of(confirm, runs), measured_text(confirm, runs, source)]))
    if len(runs.labels) == 1:
        means = [t_interval(runs.errors[:, 0], CONFIDENCE)]
        luck = shrinkage_text(confirm, runs, seen, 0)
        return [_runs_card(runs, means, _alone(runs, means[0]), basis, luck)]
    comparison = runs.comparison()
    title = theme.plain(verdict_of(runs, comparison)[1].removesuffix("."))
    luck = shrinkage_text(confirm, runs, seen, comparison.winner)
    return [
        _runs_card(runs, list(comparison.means), title, basis, luck),
        ratios(confirm, runs, comparison, seen),
    ]


def _alone(runs: ConfirmedRuns, mean: Interval) -> str:
    span = compared.span_text(runs.scale, mean.low, mean.high)
    return (
        f"On {len(runs.seeds)} fresh seeds {theme.plain(runs.labels[0])} has a mean "
        f"{theme.plain(score_label(runs.scale))} of {score_text(runs.scale, mean.estimate)} "
        f"(95 %: {span})"
    )


def _order(means: list[Interval]) -> list[int]:
    return [int(it) for it in np.argsort([it.estimate for it in means], kind="stable")]


def _runs_card(
    runs: ConfirmedRuns, means: list[Interval], title: str, basis: str, luck: str
) -> Card:
    scale, order = runs.scale, _order(means)
    low, high = float(np.nanmin(runs.errors)), float(np.nanmax(runs.errors))
    spans = [compared.span_text(scale, it.low, it.high) for it in means]
    below = [f"mean {score_text(scale, it.estimate)}" for it in means]
    figure = theme.new_figure(height=100 + _ROW * len(order))
    figure.add_traces([_lines(runs, order), _dots(runs, order), _means(runs, means, spans, order)])
    figure.update_layout(
        xaxis=theme.value_axis(scale, low, high),
        yaxis=compared.row_axis(
            [runs.labels[it] for it in order], [below[it] for it in order],
            0 if len(order) > 1 else None,
        ),
    )  # fmt: skip
    said = [
        f"{theme.plain(runs.labels[it])} {score_text(scale, means[it].estimate)} "
        f"(95 %: {spans[it]})"
        for it in order
    ]
    label = theme.plain(score_label(scale))
    return Card(
        key="confirmation-runs",
        title=title,
        reading="Each dot is a run; a line joins the runs of one seed. Diamonds are means with "
        f"their 95 % interval.{axis_text(scale)}",
        basis=basis,
        alt=f"Mean {label} over {len(runs.seeds)} seeds, the best first: {', '.join(said)}.",
        figure=figure,
        table=_runs_table(runs, means, order),
        narrow={**theme.few_ticks(scale, low, high), "legend.font.size": 10},
        note=" ".join(filter(None, [_NOTE, theme.plain(luck)])),
    )  # fmt: skip


def _lines(runs: ConfirmedRuns, order: list[int]) -> go.Scatter:
    """One line a seed, as one trace with gaps."""
    gap = np.full((len(runs.seeds), 1), np.nan)
    x = np.hstack([runs.errors[:, order], gap]).ravel()
    y = np.tile([*map(float, range(len(order))), np.nan], len(runs.seeds))
    return go.Scatter(
        x=x, y=y, mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": theme.faint(theme.LIGHT["pruned"], 0.6), "width": 1},
    )  # fmt: skip


def _dots(runs: ConfirmedRuns, order: list[int]) -> go.Scatter:
    places = [(row, at, block) for row, at in enumerate(order) for block in range(len(runs.seeds))
              if math.isfinite(runs.errors[block, at])]  # fmt: skip
    return go.Scatter(
        x=[runs.errors[block, at] for _, at, block in places],
        y=[row for row, _, _ in places],
        mode="markers",
        name="a run",
        marker={"size": 7, "color": theme.faint(theme.LIGHT["complete"], 0.65)},
        customdata=[
            f"{theme.short(runs.labels[at], 40)}, seed {theme.short(runs.seeds[block])}: "
            f"{score_text(runs.scale, runs.errors[block, at])}"
            for _, at, block in places
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _means(
    runs: ConfirmedRuns, means: list[Interval], spans: list[str], order: list[int]
) -> go.Scatter:
    return go.Scatter(
        x=[means[it].estimate for it in order],
        y=[row - _ABOVE for row in range(len(order))],
        mode="markers",
        name="mean, 95 % interval",
        marker={"symbol": "diamond", "size": 11, "color": theme.LIGHT["ink"]},
        error_x=error_bars([means[it] for it in order], theme.LIGHT["ink"]),
        customdata=[
            f"{theme.short(runs.labels[it], 40)}: mean "
            f"{score_text(runs.scale, means[it].estimate)} (95 %: {spans[it]})"
            for it in order
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _runs_table(runs: ConfirmedRuns, means: list[Interval], order: list[int]) -> pd.DataFrame:
    rows = []
    for at in order:
        row: dict[str, object] = {"configuration": runs.labels[at]}
        row |= {f"mean {runs.scale.label}": means[at].estimate, "low": means[at].low,
                "high": means[at].high}  # fmt: skip
        row |= {f"seed {it}": runs.errors[i, at] for i, it in enumerate(runs.seeds)}
        rows.append(row)
    return pd.DataFrame(rows)
