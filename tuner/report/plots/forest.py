"""The levels of a factor, each with all else tuned for it, over the runs themselves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from plotly import graph_objects as go

from tuner import wording
from tuner.report.cards import CannotDraw, Card
from tuner.report.factors import Factor
from tuner.report.model import SEED, StudyModel
from tuner.report.plots import compared, theme, words
from tuner.report.plots.facts import score_label, score_text
from tuner.report.results import COMPLETE, ENDED, PRUNED, Results
from tuner.report.statistics.levels import TunedLevels
from tuner.report.verdicts import CLEAR, LIKELY, is_adaptive

_MOST_MARKS = 600
_MOST_ROWS = 20
_ROW = 48  # px
_ABOVE, _BELOW, _JITTER = 0.2, 0.16, 0.13  # of a row: the estimate, the runs, their spread
# Complete runs above this share of them may be cut off.
_SHARE_SHOWN = 0.9


@dataclass(frozen=True)
class _Drawn:
    """What stands where, in shown values."""

    factor: Factor
    tuned: TunedLevels
    order: list[int]  # the levels, the best first
    tried: npt.NDArray[np.int64]  # trials with a value, of each level
    counts: pd.DataFrame  # ended trials, and how they ended, by level
    runs: pd.DataFrame  # complete and pruned ones: shown, outcome, place
    low: float
    high: float


def forest(
    results: Results, model: StudyModel, factor: Factor, tuned: TunedLevels, verdict: str
) -> Card:
    """Each level's expected error with everything else tuned for it.

    Args:
        results: the study's.
        model: its model.
        factor: whose levels are compared.
        tuned: of that factor.
        verdict: "clear", "likely", "undecided" or "equal within ...".

    Raises:
        CannotDraw: fewer than two levels have a trial with a value.
    """
    drawn = _drawn(results, model, factor, tuned)
    figure, unseen = _figure(results, drawn)
    left_out = len(factor.levels) - len(drawn.order)
    shown = f"Drawn are the best {_MOST_ROWS} of {len(factor.levels)} levels." if left_out else ""
    return Card(
        key=words.key_of("forest", factor.name),
        title=_finding(results, drawn, verdict),
        reading=f"Diamonds are the {theme.plain(score_label(results.scale))} of new runs with "
        "everything else tuned for that level, with its 95 % interval; dots are the runs "
        f"themselves, hollow where they were pruned.{words.axis_text(results.scale)}",
        basis=compared.basis(results, model, unseen, shown),
        alt=_alt(results, drawn),
        figure=figure,
        table=_table(results, drawn),
        narrow={
            **theme.few_ticks(results.scale, drawn.low, drawn.high),
            "legend.font.size": 10,
            "yaxis.ticktext": _rows(drawn, brief=True)["ticktext"],
        },
        note="For each level the model picks the settings of all else that suit it best, tried or "
        "not, and says what a new run there gives on average. "
        f"{_pruned(results)}P(best) is the share of 4,000 joint draws "
        "in which the level is the best of all, so it needs no correction for many comparisons.",
    )


def _drawn(results: Results, model: StudyModel, factor: Factor, tuned: TunedLevels) -> _Drawn:
    tried = compared.tried(results, model, factor)
    if (tried > 0).sum() < 2:
        label = theme.plain(factor.label.lower())
        raise CannotDraw(f"Fewer than two levels of {label} have a trial with a value.")
    codes = results.codes[factor.name]
    outcome = results.trials["outcome"]
    ended = [outcome[(codes == i) & outcome.isin(ENDED)] for i in range(len(factor.levels))]
    counts = pd.DataFrame([{"trials": len(it), **words.outcome_counts(it)} for it in ended])
    runs = pd.DataFrame({"shown": words.last_shown(results), "outcome": outcome, "place": codes})
    runs = runs[outcome.isin((COMPLETE, PRUNED)) & (codes >= 0)].dropna(subset="shown")
    complete = runs.loc[runs["outcome"] == COMPLETE, "shown"]
    seen = tried > 0
    low, high = (float(it) for it in results.scale.from_model(
        [tuned.low[seen].min(), tuned.high[seen].max()]
    ))  # fmt: skip
    if len(complete):
        low = min(low, float(complete.min()))
        high = max(high, float(complete.quantile(_SHARE_SHOWN)))
    order = [int(it) for it in np.argsort(tuned.mean, kind="stable")][:_MOST_ROWS]
    return _Drawn(factor, tuned, order, tried, counts, runs, low, high)


def _figure(results: Results, drawn: _Drawn) -> tuple[go.Figure, str]:
    axis = theme.value_axis(results.scale, drawn.low, drawn.high)
    edge = float(axis["range"][1])
    top = 10.0**edge if results.scale.log else edge
    runs = drawn.runs[drawn.runs["place"].isin(drawn.order)]
    beyond = int((runs["shown"] > top).sum())
    numbers, how = words.subset(runs.index[runs["shown"] <= top], _MOST_MARKS)
    figure = theme.new_figure(height=100 + _ROW * len(drawn.order))
    rows = {level: row for row, level in enumerate(drawn.order)}
    jitter = np.random.default_rng(SEED).uniform(-_JITTER, _JITTER, len(runs))
    heights = pd.Series(runs["place"].map(rows) + _BELOW + jitter, runs.index)
    for outcome in (PRUNED, COMPLETE):
        here = numbers[(runs["outcome"][numbers] == outcome).to_numpy()]
        figure.add_trace(_runs(results, outcome, runs["shown"][here], heights[here]))
    for levels, name, more in _estimates(drawn):
        figure.add_trace(_diamonds(results, drawn, rows, levels, name, more))
    figure.update_layout(xaxis=axis, yaxis=_rows(drawn, brief=False))
    parts = [f"Runs drawn: {how}." if how else ""]
    if beyond:
        verb = "is" if beyond == 1 else "are"
        above = score_text(results.scale, top)
        parts.append(f"{wording.count(beyond, 'run')} above {above} {verb} not shown.")
    return figure, " ".join(filter(None, parts))


def _runs(
    results: Results, outcome: str, shown: "pd.Series[float]", heights: "pd.Series[float]"
) -> go.Scatter:
    pruned = outcome == PRUNED
    return go.Scatter(
        x=shown.to_numpy(float) if len(shown) else [None],
        y=heights.to_numpy(float).round(3) if len(shown) else [None],
        mode="markers",
        name="pruned, last value" if pruned else "complete",
        showlegend=len(shown) > 0,
        marker={
            "symbol": theme.OUTCOME_SYMBOLS[outcome],
            "size": 5 if pruned else 7,
            "color": theme.LIGHT[outcome] if pruned else theme.faint(theme.LIGHT[outcome], 0.55),
            "line": {"width": 1 if pruned else 0},
        },
        customdata=words.hover_texts(results, shown.index),
        hovertemplate="%{customdata}<extra></extra>",
    )


def _estimates(drawn: _Drawn) -> list[tuple[list[int], str, dict[str, Any]]]:
    """The estimates by how they look: the leader's, the others', those of levels not tried."""
    leader, ink = drawn.tuned.leader, theme.LIGHT["ink"]
    tried = [it for it in drawn.order if drawn.tried[it] and it != leader]
    untried = [it for it in drawn.order if not drawn.tried[it]]
    leading = [leader] if drawn.tried[leader] and leader in drawn.order else []
    groups = [
        (untried, "not tried", {"color": theme.faint(ink, 0.35), "symbol": "diamond-open"}),
        (tried, "tuned, 95 % interval", {"color": ink, "symbol": "diamond"}),
        (leading, "leader", {"color": theme.LIGHT["complete"], "symbol": "diamond"}),
    ]
    return [group for group in groups if group[0]]


def _diamonds(  # noqa: PLR0913, PLR0917 - one kind of mark
    results: Results,
    drawn: _Drawn,
    rows: dict[int, int],
    levels: list[int],
    name: str,
    look: dict[str, Any],
) -> go.Scatter:
    tuned, scale = drawn.tuned, results.scale
    mean, low, high = (scale.from_model(it[levels]) for it in (tuned.mean, tuned.low, tuned.high))
    spans = [compared.span_text(scale, *ends) for ends in zip(low, high, strict=True)]
    return go.Scatter(
        x=mean,
        y=[rows[it] - _ABOVE for it in levels],
        mode="markers",
        name=name,
        showlegend=name != "leader" or len(drawn.order) == 1,
        marker={**look, "size": 11},
        error_x={
            "type": "data", "symmetric": False, "array": high - mean, "arrayminus": mean - low,
            "color": look["color"], "thickness": 2, "width": 5,
        },
        customdata=[
            f"{words.level_name(drawn.factor, level)}: {score_text(scale, at)} (95 %: {span})<br>"
            f"P(best) {tuned.p_best[level]:.2f}"
            for level, at, span in zip(levels, mean, spans, strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip


def _counts_texts(drawn: _Drawn, *, brief: bool) -> list[str]:
    """The second line of each row."""
    texts = []
    for level in drawn.order:
        trials, complete = (int(drawn.counts[it][level]) for it in ("trials", COMPLETE))
        if not trials:
            texts.append("not tried")
        elif not drawn.tried[level]:
            texts.append(f"{wording.count(trials, 'trial')}, no value")
        elif brief:
            texts.append(f"{complete:,} of {trials:,} complete")
        else:
            texts.append(f"{wording.count(trials, 'trial')}, {complete:,} complete")
    return texts


def _rows(drawn: _Drawn, *, brief: bool) -> dict[str, Any]:
    bold = drawn.order.index(drawn.tuned.leader) if drawn.tuned.leader in drawn.order else None
    names = [drawn.factor.texts[it] for it in drawn.order]
    return compared.row_axis(names, _counts_texts(drawn, brief=brief), bold)


def _finding(results: Results, drawn: _Drawn, verdict: str) -> str:
    tuned, factor, leader = drawn.tuned, drawn.factor, drawn.tuned.leader
    name, kind = words.level_name(factor, leader), compared.kind_text(factor)
    second = max((it for it in drawn.order if it != leader), key=lambda it: tuned.p_best[it])
    ahead = tuned.ratio(second, leader)[0]
    if verdict in {CLEAR, LIKELY} and ahead > 0:
        how = "clearly" if verdict == CLEAR else "likely"
        by = compared.gap_text(results.scale, ahead)
        return f"{name} is {how} the best {kind}, {by} ahead of {words.level_name(factor, second)}"
    if verdict.startswith("equal"):
        return f"No {kind} is {verdict.replace('equal within', 'more than')} behind {name}"
    if not drawn.tried[leader]:
        return f"The best {kind} can't be told: no trial tried {name}, which may be it"
    worse = tuned.behind()
    if not worse:
        return f"No {kind} can be told from the best: {name} leads by less than the noise"
    close = len(factor.levels) - 1 - len(worse)
    # A search that learns tries what looked bad too little to be sure of it.
    behind = "likely behind" if is_adaptive(results) else "behind by more than the noise"
    if not close:
        return f"{name} leads: every other {kind} is {behind}"
    named = words.joined([words.level_name(factor, it) for it in worse])
    verb = "is" if len(worse) == 1 else "are"
    those = f"{named} {verb}" if len(worse) < 4 else f"{len(worse)} levels are"
    rest = f"{close} other{'s' if close > 1 else ''} can't be told from it"
    return f"{name} leads, but {rest}; {those} {behind}"


def _pruned(results: Results) -> str:
    """A sentence on pruned runs, with a space behind it."""
    if not results.count(PRUNED):
        return ""
    said = words.pruned_text(results)
    if results.steps_are_values:
        said = f"{said.removesuffix('.')}, which more training would have improved."
    return f"{said} "


def _table(results: Results, drawn: _Drawn) -> pd.DataFrame:
    tuned, scale, factor = drawn.tuned, results.scale, drawn.factor
    kind, label = compared.gap_name(scale), scale.label
    best = words.complete_shown(results).groupby(results.codes[factor.name]).min()
    rows = []
    for level in (int(it) for it in np.argsort(tuned.mean, kind="stable")):
        gaps = [compared.gap(scale, it) for it in tuned.ratio(level, tuned.leader)]
        at, low, high = scale.from_model([tuned.mean[level], tuned.low[level], tuned.high[level]])
        rows.append({
            factor.label: factor.texts[level], **drawn.counts.loc[level].to_dict(),
            f"tuned {label}": at, "low": low, "high": high, "P(best)": tuned.p_best[level],
            f"{kind} to the leader": gaps[0], f"{kind} low": gaps[1], f"{kind} high": gaps[2],
            f"best observed {label}": best.get(level, np.nan),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _alt(results: Results, drawn: _Drawn) -> str:
    scale, tuned = results.scale, drawn.tuned
    said = []
    for level in drawn.order:
        at, low, high = scale.from_model([tuned.mean[level], tuned.low[level], tuned.high[level]])
        said.append(
            f"{words.level_name(drawn.factor, level)} {score_text(scale, at)} "
            f"(95 %: {compared.span_text(scale, low, high)})"
        )
    return f"Tuned {theme.plain(score_label(scale))}, the best first: {', '.join(said)}."
