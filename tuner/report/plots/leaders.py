"""The learning curves of the best trials, before those of all others."""

import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, words
from tuner.report.plots.curves import Drawn, drawn_of, lines
from tuner.report.plots.facts import score_text
from tuner.report.results import DIVERGED, Results

# Curves of the best trials, each told apart, and of others behind them.
MOST_LEADERS, _MOST_OTHERS = 8, 60
_MOST_POINTS = 200  # of a curve


def leaders(results: Results) -> Card:
    """The learning curves of the trials with the best final values; the others in grey.

    Raises:
        CannotDraw: no trial completed, or none has intermediate values.
    """
    drawn = drawn_of(results)
    final = words.complete_shown(results).sort_values(kind="stable")
    final = final[final.index.isin(drawn.steps["number"])][:MOST_LEADERS]
    if final.empty:
        raise CannotDraw("No trial with a learning curve has completed.")
    return Card(
        key="leaders",
        title=_finding(results, drawn, final),
        reading=f"One line a trial; those with the best final values in colour, the best one thick,"
        f" others in grey.{words.axis_text(drawn.scale)}",
        basis=words.basis_of(results),
        alt=_alt(results, final),
        figure=_figure(results, drawn, final),
        table=_table(drawn, final),
        narrow={"xaxis.nticks": 5, "height": 460, **theme.NARROW_LEGEND},
    )


def _finding(results: Results, drawn: Drawn, final: "pd.Series[float]") -> str:
    best, value = int(final.index[0]), score_text(results.scale, float(final.iloc[0]))
    if len(final) == 1:
        return f"Trial {best} is the only one with a curve that ran to the end: {value}"
    others = len(final) - 1
    rivals = f"trial {final.index[1]}" if others == 1 else f"the next {others}"
    lead = _leads_from(drawn, final)
    if lead is None:
        return f"Trial {best} ends best, {value}, but was behind at its last shared report"
    if lead == int(drawn.steps["step"].max()):
        return f"Trial {best} ends best, {value}; before the end others were ahead of it"
    return f"Trial {best} ends best, {value}, ahead of {rivals} from {drawn.axis.text(lead)} on"


def _leads_from(drawn: Drawn, final: "pd.Series[float]") -> int | None:
    """The step from which on the best trial was never behind another of the best; None: never."""
    mine = drawn.steps[drawn.steps["number"].isin(final.index)]
    wide = mine.pivot_table(index="step", columns="number", values="shown")
    here = wide[wide[final.index[0]].notna()]
    behind = here.index[here[final.index[0]].to_numpy() > here.min(axis=1).to_numpy()]
    after = here.index if behind.empty else here.index[here.index > behind[-1]]
    return None if after.empty else int(after[0])


def _figure(results: Results, drawn: Drawn, final: "pd.Series[float]") -> go.Figure:
    figure = theme.new_figure(height=400)
    diverged = words.of_outcome(results, DIVERGED)
    others = drawn.numbers[~(drawn.numbers.isin(final.index) | drawn.numbers.isin(diverged))]
    others, _ = words.subset(others, _MOST_OTHERS)
    if len(others):
        grey = {"color": theme.faint(theme.LIGHT["pruned"], 0.45), "width": 1}
        figure.add_trace(
            lines(
                drawn, others, _MOST_POINTS, {"name": "others", "line": grey, "marker": {"size": 3}}
            )
        )
    for place, (number, value) in reversed(list(enumerate(final.items()))):
        width = 3.5 if place == 0 else 1.8
        colour, dash = theme.level_colour(place), theme.level_dash(place)
        line = {"color": colour, "dash": dash, "width": width}
        marker = {"symbol": theme.level_symbol(place), "size": 8 if place == 0 else 6}
        name = f"trial {number}, {score_text(results.scale, float(value))}"
        numbers, style = pd.Index([number]), {"name": name, "line": line, "marker": marker}
        figure.add_trace(lines(drawn, numbers, _MOST_POINTS, style))
    shown = drawn.steps["shown"][drawn.steps["number"].isin([*others, *final.index])]
    figure.update_layout(
        xaxis=drawn.axis.layout,
        yaxis=theme.value_axis(drawn.scale, float(shown.min()), float(shown.max())),
        legend={"traceorder": "reversed", "font": {"size": theme.TEXT_SIZE - 2}},
    )
    return figure


def _table(drawn: Drawn, final: "pd.Series[float]") -> pd.DataFrame:
    """A row for each step, a column for each of the best trials."""
    mine = drawn.steps[drawn.steps["number"].isin(final.index)]
    wide = mine.pivot_table(index="step", columns="number", values="shown")[list(final.index)]
    wide.columns = pd.Index([f"trial {number}" for number in final.index])
    return wide.reset_index()


def _alt(results: Results, final: "pd.Series[float]") -> str:
    ends = [
        f"trial {number} {score_text(results.scale, float(value))}"
        for number, value in final.items()
    ]
    return (
        f"Learning curves of the {wording.count(len(final), 'trial')} with the best final values: "
        f"{words.joined(ends)}."
    )
