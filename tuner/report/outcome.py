"""What a confirmation found, for a terminal: the paired table, and the verdict in words."""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.report.cards import CannotDraw
from tuner.report.plots import compared
from tuner.report.plots.confirmed import (
    LEAST_SEEDS,
    ConfirmedRuns,
    gap_of,
    gap_texts,
    lost_text,
    measured_text,
    pairs,
    rival_word,
    shrinkage_text,
    shrinkages,
    verdict_of,
)
from tuner.report.plots.facts import score_label, score_text
from tuner.report.results import Results
from tuner.report.statistics.intervals import Interval, t_interval
from tuner.report.statistics.levels import CONFIDENCE
from tuner.report.statistics.paired import PairedComparison, Rival
from tuner.report.statistics.power import POWER, measured_deviation, smallest_difference
from tuner.report.verdicts import LIKELY, UNDECIDED

Array = npt.NDArray[np.float64]

_WINNER = "lowest mean"
_POWER_TEXT = f"with a power of {100 * POWER:.0f} %"
# Characters of names and of verdicts that a narrow terminal must leave in a line.
_LEAST_LABEL, _LEAST_WORD = 13, 12
# After so many seeds the spread of the differences is known well enough to be told.
SEEDS_FOR_SPREAD = 3


@dataclass(frozen=True)
class Row:
    """A configuration, as text: what is not known is empty.

    Attributes:
        label: what tells it from the others.
        runs: how many completed.
        mean: over them.
        span: its 95 % interval.
        gap: to the winner: a ratio, or a difference.
        gap_span: its interval, which holds for all rivals together at 95 %.
        p: that the means differ, with Holm's correction over all pairs.
        a12: the chance that a run of it errs more than a run of the winner.
        word: the verdict against the winner.
    """

    label: str
    runs: str
    mean: str
    span: str
    gap: str = ""
    gap_span: str = ""
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
    label, lost = score_label(runs.scale), lost_text(runs)
    data = measured_text(confirm, runs, source)
    if len(runs.labels) == 1:
        mean = t_interval(runs.errors[np.isfinite(runs.errors[:, 0]), 0], CONFIDENCE)
        notes = [shrinkage_text(confirm, runs, seen, 0), lost, data]
        return Outcome(label, [_row(runs, 0, mean)], "", [it for it in notes if it])
    comparison = runs.comparison()
    order = [comparison.winner, *_by_mean(comparison)]
    by_index = {it.index: it for it in comparison.rivals}
    rows = [_row(runs, at, comparison.means[at], by_index.get(at)) for at in order]
    word, verdict = verdict_of(runs, comparison)
    luck = shrinkage_text(confirm, runs, seen, comparison.winner)
    notes = [_more_seeds(runs, comparison, word), luck, lost, data]
    return Outcome(label, rows, verdict, [it for it in notes if it])


def _more_seeds(runs: ConfirmedRuns, comparison: PairedComparison, word: str) -> str:
    """Why nothing is decided, and what so many seeds can decide; "" where something is."""
    if word not in {LIKELY, UNDECIDED}:
        return ""
    if min(it.blocks for it in comparison.rivals) < LEAST_SEEDS:
        return f"On fewer than {LEAST_SEEDS} shared seeds nothing is called clear or equal."
    rivals = [it for it in comparison.rivals if "worse" not in rival_word(it, runs.margin_text)]
    close = sorted([comparison.winner, *(it.index for it in rivals)])
    found = _findable(runs, runs.errors[:, close], comparison.blocks)
    if not found:
        return ""
    seeds = wording.count(comparison.blocks, "seed")
    return (
        f"{seeds} find a difference of {found} {_POWER_TEXT}, by the spread of those that are not "
        "told apart; smaller ones take more seeds."
    )


def _findable(runs: ConfirmedRuns, errors: Array, seeds: int) -> str:
    """The difference that so many seeds find between all configurations; "" if not known.

    Args:
        runs: of the confirmation.
        errors: `(n_blocks, n_configurations)`, those that tell the spread.
        seeds: how many.
    """
    pair_count = math.comb(len(runs.labels), 2)
    deviation = measured_deviation(errors)
    found = smallest_difference(deviation, seeds, pair_count) if pair_count else math.nan
    if not math.isfinite(found):
        return ""
    return f"{100 * found:.2g} points" if runs.scale.share else f"{found:.2g}"


def _by_mean(comparison: PairedComparison) -> list[int]:
    """The rivals, the best first; those without a mean last."""
    means = {it.index: comparison.means[it.index].estimate for it in comparison.rivals}
    return sorted(means, key=lambda at: math.inf if math.isnan(means[at]) else means[at])


def _row(runs: ConfirmedRuns, at: int, mean: Interval, rival: Rival | None = None) -> Row:
    scale = runs.scale
    finished = int(np.isfinite(runs.errors[:, at]).sum())
    span = compared.span_text(scale, mean.low, mean.high) if finished > 1 else "of one run"
    row = Row(runs.labels[at], str(finished), score_text(scale, mean.estimate), span)
    if rival is None:
        return replace(row, word=_WINNER if len(runs.labels) > 1 else "")
    gap, gap_span = gap_texts(runs, gap_of(runs, rival))
    return replace(
        row,
        gap=gap,
        gap_span=gap_span,
        p="" if math.isnan(rival.p) else _p(rival.p),
        a12="" if math.isnan(rival.a12) else f"{rival.a12:.2f}",
        word=rival_word(rival, runs.margin_text),
    )


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_table(outcome: Outcome) -> RenderableType:
    """The outcome as rich draws it; readable from 80 columns on."""
    parts: list[RenderableType] = []
    if outcome.rows:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
        several = len(outcome.rows) > 1
        longest = max(len(row.span) for row in outcome.rows)
        # An interval stands below its value, so that a narrow terminal breaks names and words only.
        table.add_column("configuration", overflow="fold", min_width=_LEAST_LABEL)
        table.add_column("runs", justify="right", no_wrap=True)
        table.add_column(f"mean {outcome.measured}\n95 %", overflow="fold", min_width=longest)
        for title in ("to the first\n95 %", "p", "A12") if several else ():
            table.add_column(title, no_wrap=True)
        if several:
            table.add_column("", overflow="fold", min_width=_LEAST_WORD)
        for place, row in enumerate(outcome.rows):
            cells = [row.label, row.runs, f"{row.mean}\n{row.span}"]
            if several:
                cells += [f"{row.gap}\n{row.gap_span}".strip(), row.p, row.a12, row.word]
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
    found = _findable(runs, runs.errors, seeds)
    whole = int(np.isfinite(runs.errors).all(axis=1).sum())
    if not found or whole < SEEDS_FOR_SPREAD:
        return None
    return (
        f"by the spread on the first {wording.count(whole, 'seed')}, {seeds} seeds find a "
        f"difference of {found} {_POWER_TEXT}"
    )
