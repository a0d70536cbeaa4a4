"""The rivals of a confirmation's winner: how far behind they are, and how surely."""

import math

import pandas as pd
from plotly import graph_objects as go

from tuner.report.cards import Card
from tuner.report.plots import compared, theme
from tuner.report.plots.confirmed import (
    LEAST_SEEDS,
    ConfirmedRuns,
    Shrinkage,
    basis_of,
    error_bars,
    gap_of,
    gap_texts,
    rival_word,
)
from tuner.report.results import Results
from tuner.report.statistics.intervals import Interval
from tuner.report.statistics.paired import PairedComparison, Rival

_ROW = 46  # px


def ratios(
    confirm: Results, runs: ConfirmedRuns, comparison: PairedComparison, seen: list[Shrinkage]
) -> Card:
    """Each rival's error by the winner's, with what is known of it in words.

    Args:
        confirm: the study of re-runs.
        runs: its runs.
        comparison: of the configurations.
        seen: what the search saw of each.
    """
    rivals = sorted(comparison.rivals, key=lambda it: comparison.means[it.index].estimate)
    winner = theme.short(runs.labels[comparison.winner], 40)
    verdicts = [rival_word(it, runs.margin_text) for it in rivals]
    gaps = [gap_of(runs, it) for it in rivals]
    said = [
        f"{theme.plain(runs.labels[it.index])} {_gap_text(runs, gap)} ({verdict})"
        for it, gap, verdict in zip(rivals, gaps, verdicts, strict=True)
    ]
    pair_count = math.comb(len(runs.labels), 2)
    what = "error ratio" if runs.scale.log else "difference"
    friedman = comparison.p_friedman
    return Card(
        key="confirmation-ratios",
        title=_title(winner, verdicts, runs.margin_text),
        reading=f"Diamonds are the {what} to {winner}, with intervals that hold all together at "
        "95 %; right of the dotted line is worse.",
        basis=basis_of(confirm, runs),
        alt=f"{what[:1].upper()}{what[1:]} to {winner}: {', '.join(said)}.",
        figure=_figure(runs, rivals, gaps, verdicts, winner),
        table=_table(runs, comparison, rivals, seen),
        narrow={"xaxis.nticks": 4},
        note="The winner was chosen after looking, so intervals are widened and p corrected (Holm) "
        f"for all pairs ({pair_count:,}), by paired t tests. "
        f"{_equal_text(runs)}On fewer than {LEAST_SEEDS} shared seeds all is undecided. A12 is the "
        "chance that a run of it errs more than one of the winner. Holm's correction is sharper "
        "than the widening, so a p may be small where an interval just reaches the winner."
        + (f" That all are alike: Friedman p = {friedman:.2g}." if friedman is not None else ""),
    )


def _equal_text(runs: ConfirmedRuns) -> str:
    """What equal means, with a space behind it."""
    if not runs.margin_text:
        return "How small a difference is none is not known for such values: none is called equal. "
    return f"Equal means that two one-sided tests rule out a difference of {runs.margin_text}. "


def _title(winner: str, verdicts: list[str], margin: str) -> str:
    worse = sum("worse" in it for it in verdicts)
    equal = sum("within" in it for it in verdicts)
    count = len(verdicts)
    if worse == count:
        return f"{winner} beats {'its rival' if count == 1 else f'all {count} rivals'}"
    if equal == count:
        return f"No rival is more than {margin} behind {winner}"
    if not worse:
        return f"No rival of {winner} is clearly worse"
    rest = count - worse
    return (
        f"{worse} of {count} rivals {'is' if worse == 1 else 'are'} clearly behind {winner}, "
        f"{rest} can't be told apart from it"
    )


def _gap_text(runs: ConfirmedRuns, gap: Interval) -> str:
    middle, span = gap_texts(runs, gap)
    return f"{middle} (95 %: {span or 'not known'})" if middle else "not known"


def _figure(
    runs: ConfirmedRuns,
    rivals: list[Rival],
    gaps: list[Interval],
    verdicts: list[str],
    winner: str,
) -> go.Figure:
    figure = theme.new_figure(height=80 + _ROW * len(rivals), showlegend=False)
    for sure in (False, True):
        rows = [i for i in range(len(rivals)) if ("worse" in verdicts[i]) == sure]
        colour = theme.LIGHT["ink"] if sure else theme.LIGHT["muted"]
        figure.add_trace(
            go.Scatter(
                x=[gaps[i].estimate for i in rows],
                y=rows,
                mode="markers",
                marker={"symbol": "diamond" if sure else "diamond-open", "size": 11,
                        "color": colour},
                error_x=error_bars([gaps[i] for i in rows], colour),
                customdata=[
                    f"{theme.short(runs.labels[rivals[i].index], 40)}: "
                    f"{_gap_text(runs, gaps[i])}<br>{verdicts[i]}, Holm p {rivals[i].p:.2g}"
                    for i in rows
                ],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )  # fmt: skip
    figure.add_vline(
        x=1.0 if runs.scale.log else 0.0,
        line={"dash": "dot", "width": 1.5, "color": theme.LIGHT["complete"]},
    )
    labels = [runs.labels[it.index] for it in rivals]
    title = f"times the error of {winner}" if runs.scale.log else f"behind {winner}"
    figure.update_layout(
        margin={"t": 12},
        xaxis={"title": {"text": title}, "nticks": 7, "type": "linear"},
        yaxis=compared.row_axis(labels, verdicts),
    )
    return figure


def _table(
    runs: ConfirmedRuns,
    comparison: PairedComparison,
    rivals: list[Rival],
    seen: list[Shrinkage],
) -> pd.DataFrame:
    label, kind = runs.scale.label, compared.gap_name(runs.scale)
    by_index: dict[int, Rival] = {it.index: it for it in rivals}
    rows = []
    for at in [comparison.winner, *by_index]:
        rival, mean = by_index.get(at), comparison.means[at]
        gap = gap_of(runs, rival) if rival else Interval(float(runs.scale.log), math.nan, math.nan)
        rows.append({
            "configuration": runs.labels[at], f"mean {label}": mean.estimate, "low": mean.low,
            "high": mean.high, kind: gap.estimate, f"{kind} low": gap.low, f"{kind} high": gap.high,
            "Holm p": rival.p if rival else math.nan, "A12": rival.a12 if rival else math.nan,
            "seeds": rival.blocks if rival else comparison.runs[at],
            "verdict": rival_word(rival, runs.margin_text) if rival else "lowest mean",
            "best seen in the search": seen[at].seen, "re-run by seen": seen[at].ratio,
        })  # fmt: skip
    table = pd.DataFrame(rows)
    return table.dropna(axis="columns", how="all")
