"""What went wrong where: how often trials diverged and failed, by level and by learning rate."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go
from scipy import stats

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.plots import theme, words
from tuner.report.plots.groups import WRONG, Groups, fewer, levels_of, ranges_of
from tuner.report.results import DIVERGED, ENDED, FAILED, Results
from tuner.report.statistics.rates import Rate, wilson

_FEWEST = 3  # trials in a cell; fewer are marked
_UNLIKELY = 0.05  # that chance alone makes a group stand out
_SHIFT = 0.16  # of the second mark of a row
_MOST_REASONS = 5
_EITHER = "diverged or failed"


def failures(results: Results) -> list[Card]:
    """Rates by level, and by level and learning rate where something went wrong.

    Raises:
        CannotDraw: no trial has ended.
    """
    ended = words.of_outcome(results, *ENDED)
    if ended.empty:
        msg = f"No trial has ended ({words.trials_text(results)})."
        raise CannotDraw(msg)
    levels, ranges = levels_of(results, ended), ranges_of(results, ended)
    everything = Groups("Trials", ["all trials"], pd.Series(0, ended))
    rows = levels or ranges or everything
    cards = [_forest_card(results, fewer(results, rows))]
    if levels and ranges and results.count(*WRONG):
        cards.append(_map_card(results, fewer(results, levels), ranges))
    return cards


def _forest_card(results: Results, groups: Groups) -> Card:
    table = _table(results, [groups])
    return Card(
        key="failure-rates",
        title=_finding(results, groups),
        reading="A mark is the share of a row's trials, the bar its Wilson 95 % interval; "
        "in brackets how many trials the row has.",
        basis=_basis(results, groups),
        alt=_alt(table, groups),
        figure=_forest(results, groups),
        table=table,
        narrow={
            "xaxis.nticks": 4,
            "xaxis.title.text": "share of trials",
            "legend.font.size": 10,
        },
        note=_reasons_note(results),
    )


def _forest(results: Results, groups: Groups) -> go.Figure:
    figure = theme.new_figure(height=120 + 34 * len(groups.names))
    total = groups.counts(groups.place.index)
    marks: list[tuple[str, tuple[str, ...]]] = [(it, (it,)) for it in WRONG if results.count(it)]
    marks = marks or [(_EITHER, WRONG)]
    highest = 0.0
    for at, (name, which) in enumerate(marks):
        counts = groups.counts(words.of_outcome(results, *which))
        rates = [wilson(int(n), int(of)) for n, of in zip(counts, total, strict=True)]
        highest = max([highest, *(rate.high for rate in rates if rate.total)])
        shift = _SHIFT * (2 * at - len(marks) + 1)
        figure.add_trace(_interval_marks(groups, name, rates, shift))
    names = [f"{theme.short(it)} ({n:,})" for it, n in zip(groups.names, total, strict=True)]
    that = f" that {marks[0][0]}" if len(marks) == 1 else ""
    figure.update_layout(
        xaxis={
            "title": {"text": f"share of trials{that}"},
            "ticksuffix": " %",
            "range": [-3 * highest, 104 * highest],
            "nticks": 7,
        },
        yaxis=theme.level_axis(names, ticktext=names),
        showlegend=len(marks) > 1,
    )
    return figure


def _interval_marks(groups: Groups, name: str, rates: list[Rate], shift: float) -> go.Scatter:
    """A mark and its interval, in per cent, in the row of each group that has trials."""
    here = [place for place, rate in enumerate(rates) if rate.total]
    ends = np.array([(it.low, it.estimate, it.high) for it in rates if it.total]).T * 100
    return go.Scatter(
        x=ends[1],
        y=np.array(here) + shift,
        mode="markers",
        name=f"{name} ({sum(it.count for it in rates):,})",
        marker={
            "size": 9,
            "color": theme.LIGHT.get(name, theme.LIGHT["muted"]),
            "symbol": theme.OUTCOME_SYMBOLS.get(name, "circle"),
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": ends[2] - ends[1],
            "arrayminus": ends[1] - ends[0],
            "thickness": 1.6,
            "width": 4,
        },
        customdata=[_rate_text(groups, name, place, rates[place]) for place in here],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _rate_text(groups: Groups, name: str, place: int, rate: Rate) -> str:
    low, high = (f"{100 * it:.0f} %" for it in (rate.low, rate.high))
    return (
        f"{theme.short(groups.names[place])}: {rate.count:,} of {rate.total:,} {name}<br>"
        f"95 % interval {low} to {high}"
    )


def _map_card(results: Results, levels: Groups, ranges: Groups) -> Card:
    return Card(
        key="failures",
        title=_finding(results, ranges, alone=False),
        reading=f"How many of a cell's trials diverged or failed; ? marks fewer than {_FEWEST} "
        "trials, an empty cell has none.",
        basis=_basis(results, levels),
        alt=_alt(_table(results, [ranges]), ranges),
        figure=_map(results, levels, ranges),
        table=_table(results, [levels, ranges]),
        narrow={"traces[0].showscale": False, "xaxis.tickfont.size": 10, "xaxis.tickangle": -35},
    )


def _map(results: Results, levels: Groups, ranges: Groups) -> go.Figure:
    total, wrong = (_cells(levels, ranges, numbers) for numbers in _both(results, levels))
    rates = 100 * np.where(total > 0, wrong / np.maximum(total, 1), np.nan)
    texts = [
        [
            f"{n}/{of}{' ?' if of < _FEWEST else ''}" if of else ""
            for n, of in zip(*row, strict=True)
        ]
        for row in zip(wrong, total, strict=True)
    ]
    figure = theme.new_figure(height=130 + 34 * len(levels.names))
    figure.add_trace(
        go.Heatmap(
            z=rates,
            x=list(range(len(ranges.names))),
            y=list(range(len(levels.names))),
            text=texts,
            texttemplate="%{text}",
            customdata=_cell_texts(results, levels, ranges),
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorscale=theme.colour_scale(),
            zmin=0,
            zmax=max(10.0, float(np.nanmax(rates, initial=0.0))),
            xgap=2,
            ygap=2,
            colorbar={"ticksuffix": " %", "thickness": 12, "outlinewidth": 0},
        )
    )
    columns = [theme.short(it) for it in ranges.names]
    title = {"text": theme.plain(ranges.label.lower())}
    figure.update_layout(
        xaxis={"title": title, "tickvals": list(range(len(columns))), "ticktext": columns,
               "showgrid": False},
        yaxis=theme.level_axis(levels.names),
    )  # fmt: skip
    return figure


def _both(results: Results, groups: Groups) -> tuple["pd.Index[int]", "pd.Index[int]"]:
    """All ended trials, and those that went wrong."""
    return groups.place.index, words.of_outcome(results, *WRONG)


def _cells(levels: Groups, ranges: Groups, numbers: "pd.Index[int]") -> npt.NDArray[np.int64]:
    """How many of the trials are in each cell."""
    found = np.zeros((len(levels.names), len(ranges.names)), dtype=np.int64)
    rows, columns = levels.place.loc[numbers], ranges.place.loc[numbers]
    known = ((rows >= 0) & (columns >= 0)).to_numpy()
    np.add.at(found, (rows[known], columns[known]), 1)
    return found


def _cell_texts(results: Results, levels: Groups, ranges: Groups) -> list[list[str]]:
    counts = [
        _cells(levels, ranges, words.of_outcome(results, *which))
        for which in ((DIVERGED,), (FAILED,), ENDED)
    ]
    return [
        [
            f"{theme.short(level)}, {theme.plain(ranges.label.lower())} {theme.short(name)}<br>"
            + "{} diverged, {} failed, of {}".format(*(it[row, column] for it in counts))
            for column, name in enumerate(ranges.names)
        ]
        for row, level in enumerate(levels.names)
    ]


def _finding(results: Results, groups: Groups, *, alone: bool = True) -> str:
    """What stands out among the groups, by Fisher's test of each against all others."""
    ended, wrong = _both(results, groups)
    label = theme.plain(groups.label.lower())
    said = words.went_wrong(results)
    if not said:
        upper = 100 * wilson(0, len(ended)).high
        none = "The one trial neither" if len(ended) == 1 else f"None of {len(ended):,} trials"
        return f"{none} failed or diverged: the rate is below {upper:.2g} % (95 %)".replace(
            "neither failed or", "neither failed nor"
        )
    of = f"{said} of {wording.count(len(ended), 'trial')}"
    total, bad = groups.counts(ended), groups.counts(wrong)
    place = _standing_out(bad, total)
    if place is None:
        kind = "level" if alone else "range"
        return f"{of}; no {kind} of {label} stands out" if len(total) > 1 else of
    name = theme.short(groups.names[place])
    rest = f"{bad.sum() - bad[place]:,} of {total.sum() - total[place]:,}"
    here = f"{bad[place]:,} of {total[place]:,} trials with {label} {name}"
    return f"{here} diverged or failed, {rest} with any other"


def _standing_out(bad: npt.NDArray[np.int64], total: npt.NDArray[np.int64]) -> int | None:
    """The group whose rate is higher than that of all others, beyond what chance makes of many."""
    best, least = None, _UNLIKELY / max(1, len(total))
    for place in range(len(total) if len(total) > 1 else 0):
        others, others_bad = total.sum() - total[place], bad.sum() - bad[place]
        square = [[bad[place], total[place] - bad[place]], [others_bad, others - others_bad]]
        chance = float(stats.fisher_exact(square, alternative="greater").pvalue)
        if chance < least:
            best, least = place, chance
    return best


def _basis(results: Results, groups: Groups) -> str:
    without = int((groups.place < 0).sum())
    return words.basis_of(
        results,
        "Rates are of all trials that ended, pruned ones too; diverged and failed are apart.",
        f"{wording.count(without, 'trial')} of no level shown left out." if without else "",
    )


def _table(results: Results, by: list[Groups]) -> pd.DataFrame:
    """One row for each group, or for each pair of groups: counts, rates, reasons."""
    frame = pd.DataFrame({it.label: it.place for it in by})
    frame = frame[(frame >= 0).all(axis=1)]
    rows = []
    for key, here in frame.groupby([it.label for it in by]):
        outcomes = results.trials["outcome"][here.index]
        counts = words.outcome_counts(outcomes)
        rates = {it: wilson(counts[it], len(here)) for it in WRONG}
        rows.append(
            {
                **{it.label: it.names[place] for it, place in zip(by, key, strict=True)},
                "trials": len(here),
                **{it: counts[it] for it in WRONG},
                **{f"{it} {end}": getattr(rate, field) for it, rate in rates.items()
                   for end, field in (("rate", "estimate"), ("low", "low"), ("high", "high"))},
                "reasons": "; ".join(_reasons(results, here.index)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _reasons(results: Results, numbers: "pd.Index[int]") -> list[str]:
    """Why trials failed, the most frequent first: ``killed (signal 9): 3``."""
    failed = numbers[results.trials["outcome"][numbers] == FAILED]
    if "reason" not in results.attrs or failed.empty:
        return []
    reasons = results.attrs["reason"][failed]
    counts = reasons[[isinstance(it, str) for it in reasons]].value_counts()
    return [f"{wording.cut(text)}: {count:,}" for text, count in counts[:_MOST_REASONS].items()]


def _reasons_note(results: Results) -> str:
    reasons = _reasons(results, results.trials.index)
    return f"Why trials failed: {'; '.join(reasons)}." if reasons else ""


def _alt(table: pd.DataFrame, groups: Groups) -> str:
    rows = [
        f"{theme.short(name)} {diverged:,} and {failed:,} of {total:,}"
        for name, diverged, failed, total in zip(
            table[groups.label], table[DIVERGED], table[FAILED], table["trials"], strict=True
        )
    ]
    return (
        f"How many diverged and failed by {theme.plain(groups.label.lower())}: {', '.join(rows)}."
    )
