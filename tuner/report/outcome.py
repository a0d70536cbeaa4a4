"""What a confirmation found, for a terminal: the paired table, and the verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.report.cards import CannotDraw
from tuner.report.plots import compared
from tuner.report.plots.best import opening_text
from tuner.report.plots.confirmed import (
    TEST_ATTR,
    ConfirmedRuns,
    Shrinkage,
    pairs,
    rival_word,
    shrinkages,
    verdict_of,
)
from tuner.report.plots.facts import score_label, score_text
from tuner.report.results import Results
from tuner.report.statistics.intervals import Interval, t_interval
from tuner.report.statistics.levels import CONFIDENCE
from tuner.report.statistics.paired import PairedComparison, Rival
from tuner.report.statistics.power import measured_deviation, smallest_difference

_WINNER = "lowest mean"


@dataclass(frozen=True)
class Row:
    """A configuration, as text: what is not known is empty.

    Attributes:
        label: what tells it from the others.
        runs: how many completed.
        mean: over them, with its 95 % interval.
        gap: to the winner, with an interval that holds for all rivals together.
        p: that the means differ, with Holm's correction over all pairs.
        a12: the chance that a run of it errs more than a run of the winner.
        word: the verdict against the winner.
    """

    label: str
    runs: str
    mean: str
    gap: str = ""
    p: str = ""
    a12: str = ""
    word: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a confirmation found.

    Attributes:
        measured: what the means are of: "test error".
        rows: the best first.
        verdict: a sentence; "" where there is nothing to compare.
        notes: further sentences.
    """

    measured: str
    rows: list[Row]
    verdict: str
    notes: list[str]


def outcome_of(confirm: Results, source: Results | None) -> Outcome:
    """Compare the runs of a confirmation.

    Args:
        confirm: the study of re-runs.
        source: the search that they were chosen from, if it is known.
    """
    try:
        runs = pairs(confirm)
    except CannotDraw as error:
        return Outcome("", [], "", [str(error)])
    seen = shrinkages(confirm, runs, source)
    notes = [*_shrinkage(confirm, runs, seen), *_lost(runs), *_openings(runs, source)]
    label = score_label(runs.scale)
    if len(runs.labels) == 1:
        mean = t_interval(runs.errors[np.isfinite(runs.errors[:, 0]), 0], CONFIDENCE)
        return Outcome(label, [_row(runs, 0, mean)], "", notes)
    comparison = runs.comparison()
    order = [comparison.winner, *_by_mean(comparison)]
    by_index = {it.index: it for it in comparison.rivals}
    rows = [_row(runs, at, comparison.means[at], by_index.get(at)) for at in order]
    return Outcome(label, rows, verdict_of(runs, comparison)[1], notes)


def _by_mean(comparison: PairedComparison) -> list[int]:
    """The rivals, the best first; those without a mean last."""
    means = {it.index: comparison.means[it.index].estimate for it in comparison.rivals}
    return sorted(means, key=lambda at: math.inf if math.isnan(means[at]) else means[at])


def _row(runs: ConfirmedRuns, at: int, mean: Interval, rival: Rival | None = None) -> Row:
    scale = runs.scale
    finished = int(np.isfinite(runs.errors[:, at]).sum())
    middle = score_text(scale, mean.estimate)
    span = compared.span_text(scale, mean.low, mean.high) if finished > 1 else "of one run"
    if rival is None:
        word = _WINNER if len(runs.labels) > 1 else ""
        return Row(runs.labels[at], str(finished), f"{middle} ({span})", word=word)
    gap = rival.ratio_joint if scale.log else rival.difference_joint
    return Row(
        label=runs.labels[at],
        runs=str(finished),
        mean=f"{middle} ({span})",
        gap=_gap(gap, ratio=scale.log),
        p="" if math.isnan(rival.p) else _p(rival.p),
        a12="" if math.isnan(rival.a12) else f"{rival.a12:.2f}",
        word=rival_word(rival, runs.margin_text),
    )


def _gap(gap: Interval, *, ratio: bool) -> str:
    if not math.isfinite(gap.estimate):
        return ""
    start, digits = ("×", ".2f") if ratio else ("", "+.3g")
    return f"{start}{gap.estimate:{digits}} ({gap.low:{digits}} to {gap.high:{digits}})"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _shrinkage(confirm: Results, runs: ConfirmedRuns, seen: Sequence[Shrinkage]) -> list[str]:
    """How much of what the search saw was luck: of the winner, and of the median configuration."""
    best = runs.comparison().winner if len(runs.labels) > 1 else 0
    known = [it for it in seen if math.isfinite(it.seen) and math.isfinite(it.mean)]
    if not math.isfinite(seen[best].seen):
        return []
    scale = confirm.scale
    before, after = (score_text(scale, it) for it in (seen[best].seen, seen[best].mean))
    sentence = (
        f"{runs.labels[best]} had a {score_label(scale)} of {before} in the search and has {after} "
        "on average here"
    )
    ratios = [it.ratio for it in known if math.isfinite(it.ratio)]
    if len(known) > 1 and scale.log and ratios:
        sentence += (
            f"; of all {len(known)} that ran to the end there, the median is ×{median(ratios):.2f} "
            "of what the search saw"
        )
    return [f"{sentence}."]


def _lost(runs: ConfirmedRuns) -> list[str]:
    if not runs.lost_in_all:
        return []
    lost = wording.count(runs.lost_in_all, "run")
    return [f"{lost} ended without a value: pairs are compared on the seeds that both finished."]


def _openings(runs: ConfirmedRuns, source: Results | None) -> list[str]:
    openings = source.stored.openings if source else []
    if runs.scale.metric != TEST_ATTR:
        return ["There is no test set: these are values on the data that chose the configurations."]
    if len(openings) < 2:
        return []
    sentence = (
        f"The test set was opened {wording.times(len(openings))} for this search "
        f"({', '.join(opening_text(it) for it in openings)}): each opening after the first makes "
        "its error more hopeful."
    )
    return [sentence]


def as_table(outcome: Outcome) -> RenderableType:
    """The outcome as rich draws it; readable from 80 columns on."""
    parts: list[RenderableType] = []
    if outcome.rows:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("configuration", overflow="fold", min_width=8)
        table.add_column("runs", justify="right", no_wrap=True)
        table.add_column(f"mean {outcome.measured}, 95 %", overflow="fold")
        several = len(outcome.rows) > 1
        if several:
            table.add_column("to the first, 95 %", overflow="fold")
            table.add_column("p", no_wrap=True)
            table.add_column("A12", no_wrap=True)
            table.add_column("", overflow="fold", min_width=8)
        for place, row in enumerate(outcome.rows):
            cells = [row.label, row.runs, row.mean]
            cells += [row.gap, row.p, row.a12, row.word] if several else []
            style = "bold" if several and place == 0 else ""
            table.add_row(*(Text(cell, style=style) for cell in cells))
        parts += [table, Text()]
    if outcome.verdict:
        parts.append(Text(outcome.verdict, style="bold green"))
    parts += [Text(note, style="dim") for note in outcome.notes]
    return Group(*parts)


def progress_note(confirm: Results, seeds: int) -> str | None:
    """What difference all seeds will find, by the spread of the runs that there are.

    Args:
        confirm: the study of re-runs, not yet complete.
        seeds: on how many each configuration will have run.

    Returns:
        A sentence; None where the runs do not say it yet.
    """
    try:
        runs = pairs(confirm)
    except CannotDraw:
        return None
    deviation = measured_deviation(runs.errors)
    count = len(runs.labels)
    if math.isnan(deviation) or count < 2:
        return None
    found = smallest_difference(deviation, seeds, count * (count - 1) // 2)
    amount = f"{100 * found:.2g} points" if runs.scale.share else f"{found:.2g}"
    whole = int(np.isfinite(runs.errors).all(axis=1).sum())
    return (
        f"by the spread on the first {wording.count(whole, 'seed')}, {seeds} seeds find a "
        f"difference of {amount} with a power of 80 %"
    )
