"""Where the budget went: how many trials each level of a factor got, and how they ended."""

import numpy as np
import pandas as pd
from plotly import graph_objects as go
from scipy import stats

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor
from tuner.report.plots import theme, words
from tuner.report.results import ENDED, OUTCOMES, RUNNING, Results

_MOST_LEVELS = 20
_UNEVEN = 0.05  # of a chi-square test against equal shares


def spending(results: Results, *, adaptive: bool = True) -> list[Card]:
    """How the trials were spread over each factor's levels: a card for each factor.

    Args:
        results: the study's.
        adaptive: the search chose where to look, so shares are its doing and not only chance.

    Raises:
        CannotDraw: no factor, or no trial has started.
    """
    if not results.factors:
        msg = "The study has no parameter with a few levels."
        raise CannotDraw(msg)
    started = words.of_outcome(results, *ENDED, RUNNING)
    tables = [(factor, _table(results, factor, started)) for factor in results.factors]
    cards = [_card(results, it, table, adaptive) for it, table in tables if table["trials"].sum()]
    if not cards:
        msg = f"No trial has a setting yet ({words.trials_text(results)})."
        raise CannotDraw(msg)
    return cards


def _card(results: Results, factor: Factor, table: pd.DataFrame, adaptive: bool) -> Card:  # noqa: FBT001
    drawn, unseen = table, ""
    if len(table) > _MOST_LEVELS:
        drawn = table.sort_values("trials", ascending=False).head(_MOST_LEVELS).sort_index()
        unseen = f"Drawn are the {_MOST_LEVELS} most tried of {len(table)} levels."
    without = len(words.of_outcome(results, *ENDED, RUNNING)) - int(table["trials"].sum())
    counts = [f"{theme.short(level)} {n:,}" for level, n in table["trials"].items()]
    return Card(
        key=words.key_of("spending", factor.name),
        title=_finding(factor, table["trials"], adaptive),
        reading="One bar a level: how many trials it got, by how they ended.",
        basis=words.basis_of(
            results,
            "Every trial that started counts, however it ended.",
            f"{wording.count(without, 'trial')} without this parameter left out."
            if without else "",
            unseen,
        ),
        alt=f"Trials for each level of {theme.plain(factor.label.lower())}: {', '.join(counts)}.",
        figure=_figure(drawn),
        table=table.reset_index(),
        narrow={"xaxis.nticks": 4, **theme.NARROW_LEGEND},
    )  # fmt: skip


def _table(results: Results, factor: Factor, started: "pd.Index[int]") -> pd.DataFrame:
    """One row a level: trials, how they ended, seconds, and the best complete value."""
    codes = results.codes[factor.name][started]
    shown = words.complete_shown(results)
    rows = []
    for place, text in enumerate(factor.texts):
        here = results.trials.loc[codes.index[codes == place]]
        rows.append(
            {
                factor.label: text,
                "trials": len(here),
                "share": len(here) / max(1, int((codes >= 0).sum())),
                **words.outcome_counts(here["outcome"]),
                "running": int((here["outcome"] == RUNNING).sum()),
                "seconds": float(here["seconds"].sum()),
                f"best {results.scale.label}": shown.reindex(here.index).min(),
            }
        )
    return pd.DataFrame(rows).set_index(factor.label)


def _figure(table: pd.DataFrame) -> go.Figure:
    figure = theme.new_figure(height=110 + 34 * len(table))
    total = int(table["trials"].sum())
    for outcome in (it for it in OUTCOMES if it in table and table[it].any()):
        counts = table[outcome].to_numpy(np.int64)
        times = [wording.duration(it) for it in table["seconds"]]
        figure.add_trace(
            go.Bar(
                x=counts,
                y=list(range(len(table))),
                orientation="h",
                name=outcome,
                marker=theme.bar_mark(outcome),
                customdata=[
                    f"{theme.short(level)}: {wording.count(int(n), 'trial')} {outcome}<br>"
                    f"{of:,} of {total:,} in all, {seconds} of work"
                    for level, n, of, seconds in zip(
                        table.index, counts, table["trials"], times, strict=True
                    )
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        xaxis={"title": {"text": "trials"}, "rangemode": "tozero", "tickformat": ",d"},
        yaxis=theme.level_axis(table.index),
        legend={"traceorder": "normal"},
    )
    return figure


def _finding(factor: Factor, counts: "pd.Series[int]", adaptive: bool) -> str:  # noqa: FBT001
    total, label = int(counts.sum()), theme.plain(factor.label.lower())
    low, high = int(counts.min()), int(counts.max())
    places = {text: place for place, text in enumerate(factor.texts)}
    if total < 2:
        return f"A single trial says nothing about how {label} was searched"
    if float(stats.chisquare(counts).pvalue) > _UNEVEN:
        if low == high:
            return f"Each of the {len(counts)} levels of {label} got {wording.count(low, 'trial')}"
        each = f"{low:,} to {high:,} of {total:,} trials each"
        return f"{each} for the {len(counts)} levels of {label}: no more uneven than by chance"
    order = counts.sort_values(ascending=False, kind="stable")
    most = order.head(1 if order.iloc[0] > total / 2 or len(order) < 5 else 2)
    least = order[order == low]
    top = words.joined([words.level_name(factor, places[text]) for text in most.index])
    end = words.joined([words.level_name(factor, places[text]) for text in least.index])
    if len(least) > 2:
        end = f"{len(least)} levels"
    rest = f"only {low:,}" if low else "none"
    each = " each" if low and len(least) > 1 else ""
    title = f"{top} got {int(most.sum()):,} of {total:,} trials, {end} {rest}{each}"
    return title + (": the search chose, so raw means mislead" if adaptive else "")
