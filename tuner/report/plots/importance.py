"""Which parameters matter, as far as the complete trials tell."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial, create_trial
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import label_of
from tuner.report.plots import theme
from tuner.report.plots.best import params_of
from tuner.report.plots.facts import score_label
from tuner.report.plots.words import basis_of, joined
from tuner.report.results import COMPLETE, Results
from tuner.report.statistics.importances import (
    FANOVA,
    LEAST_TRIALS,
    PED_ANOVA,
    Importance,
    Importances,
    importances,
)

# More parameters than that are left to the table; a title names fewer.
_MOST_ROWS, _MOST_NAMED = 16, 3
# How far a method's mark stands from the middle of its row.
_OFFSETS = {PED_ANOVA: -0.14, FANOVA: 0.14}
_LABELS = {PED_ANOVA: "PED-ANOVA: among the best", FANOVA: "fANOVA: among all"}


def importance(results: Results) -> Card:
    """Each parameter's share of importance by two methods, with 90 % intervals.

    Raises:
        CannotDraw: too few trials completed, or too few parameters vary.
    """
    trials = frozen_trials(results)
    if len(trials) < LEAST_TRIALS:
        raise CannotDraw(
            f"{_completed(len(trials))} with a value; importances need {LEAST_TRIALS} or so."
        )
    try:
        found = importances(trials, "minimize", np.random.default_rng(0))
    except ValueError as error:
        raise CannotDraw(str(error)) from error
    table = pd.DataFrame([vars(it) for it in found.found])
    if table.empty:
        raise CannotDraw("The parameters explain nothing of how the values differ.")
    order = [str(it) for it in table.groupby("parameter")["median"].mean().sort_values().index]
    finding = _finding(found)
    return Card(
        key="importance",
        title=finding,
        reading="Marks are shares of all importance with 90 % intervals; where intervals overlap, "
        "the order is not certain.",
        basis=basis_of(
            results,
            f"Only the {found.trials:,} complete ones are read; all others have no final value.",
            _left_out(found),
        ),
        alt=f"Marks with intervals for {wording.count(len(order), 'parameter')}. {finding}. "
        + _in_words(found),
        figure=_figure(found, order[-_MOST_ROWS:]),
        table=table,
        narrow={"xaxis.nticks": 4, "yaxis.tickfont.size": 11},
        note=_note(results, found),
    )


def frozen_trials(results: Results) -> list[FrozenTrial]:
    """The complete trials as Optuna knows them, with their first value as figures model it."""
    complete = results.trials[results.trials["outcome"] == COMPLETE]
    values = results.scale.to_model(results.scale.shown(complete["value"]))
    found = []
    for number, value in zip(complete.index, values, strict=True):
        if not np.isfinite(value):
            continue
        params = params_of(results, number)
        distributions = {name: results.distributions[name] for name in params}
        found.append(create_trial(value=value, params=params, distributions=distributions))
    return found


def _completed(count: int) -> str:
    return f"{wording.count(count, 'trial') if count else 'No trial'} completed"


def _of(found: Importances, method: str) -> list[Importance]:
    return [it for it in found.found if it.method == method]


def _leaders(found: Sequence[Importance]) -> list[str]:
    """The first of a method, and those whose interval overlaps with its own."""
    return [wording.cut(it.parameter) for it in found if it.high >= found[0].low]


def _finding(found: Importances) -> str:
    ranked = [_of(found, it) for it in (PED_ANOVA, FANOVA) if _of(found, it)]
    count, leaders = len(ranked[0]), [_leaders(it) for it in ranked]
    if all(len(it) == count for it in leaders):
        return f"The {found.trials:,} complete trials don't tell which parameter matters most"
    named = list(dict.fromkeys(name for it in leaders for name in it))
    if len(named) == 1:
        return f"{named[0]} matters most"
    if len(named) <= min(_MOST_NAMED, count - 1):
        return f"{joined(named)} matter most, in no certain order"
    certain = "" if all(len(it) == 1 for it in leaders) else ", not for certain"
    firsts = list(dict.fromkeys(it[0] for it in leaders))
    if len(firsts) == 1:
        return f"{firsts[0]} seems to matter most{certain}"
    return f"{firsts[0]} leads among the best trials, {firsts[1]} among all{certain}"


def _left_out(found: Importances) -> str:
    if not found.left_out:
        return ""
    return f"Left out: {joined([f'{name} ({why})' for name, why in found.left_out.items()])}."


def _in_words(found: Importances) -> str:
    return " ".join(
        f"{method}: "
        + ", ".join(f"{it.parameter} {it.median:.2f}" for it in _of(found, method)[:_MOST_ROWS])
        + "."
        for method in (PED_ANOVA, FANOVA)
        if _of(found, method)
    )


def _note(results: Results, found: Importances) -> str:
    said = (
        f"{PED_ANOVA} asks what the best tenth of the complete trials has in common; {FANOVA} asks "
        "what explains the differences among all of them, so the worst weigh most. They answer "
        "different questions and need not agree. Both read complete trials only: under pruning "
        "these are a few that were good from the start, and a search that learns settles early on "
        "what matters, which then looks less important than it is."
    )
    if not _of(found, FANOVA):
        said += (
            f" {FANOVA} is left away: it takes too long with so many levels or parameters, or is "
            "not installed."
        )
    if results.scale.log:
        said += f" Values are compared as logarithms of the {score_label(results.scale)}."
    return said + " Intervals are 5 % to 95 % of a bootstrap over trials."


def _figure(found: Importances, order: Sequence[str]) -> go.Figure:
    rows = range(len(order))
    figure = theme.new_figure(
        height=130 + 44 * len(order),
        xaxis={"title": {"text": "share of importance"}, "range": [0, 1], "nticks": 6},
        yaxis={
            "tickvals": list(rows),
            "ticktext": [theme.short(label_of(it)) for it in order],
            "range": [-0.6, len(order) - 0.4],
            "ticks": "",
        },
    )
    for place, method in enumerate((PED_ANOVA, FANOVA)):
        of = {it.parameter: it for it in _of(found, method)}
        shares = [of[name] for name in order if name in of]
        if shares:
            y = [row + -_OFFSETS[method] for row in rows if order[row] in of]
            figure.add_trace(_marks(shares, y, method, place))
    return figure


def _marks(shares: Sequence[Importance], y: Sequence[float], method: str, place: int) -> go.Scatter:
    colour = theme.level_colour(place)
    error: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": [it.high - it.median for it in shares],
        "arrayminus": [it.median - it.low for it in shares],
        "color": colour,
        "thickness": 1.5,
        "width": 5,
    }
    return go.Scatter(
        x=[it.median for it in shares],
        y=y,
        mode="markers",
        name=_LABELS[method],
        marker={"color": colour, "symbol": theme.level_symbol(place), "size": 10},
        error_x=error,
        text=[
            f"{theme.plain(it.parameter)}: {it.median:.2f}, {it.low:.2f} to {it.high:.2f}"
            for it in shares
        ],
        hovertemplate="%{text}<extra>" + method + "</extra>",
    )
