"""Configurations that were run again on the same seeds: which run is which, and the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner import wording
from tuner.report.cards import CannotDraw
from tuner.report.factors import Factor
from tuner.report.plots import theme, words
from tuner.report.plots.best import opening_text, params_of
from tuner.report.plots.facts import score_label, score_text, turned
from tuner.report.results import (
    COMPLETE,
    DIVERGED,
    ENDED,
    FAILED,
    INFEASIBLE,
    PRUNED,
    Results,
)
from tuner.report.scale import Scale
from tuner.report.statistics.intervals import Interval
from tuner.report.statistics.paired import LEVEL, PairedComparison, Rival, compare
from tuner.report.verdicts import (
    CLEAR,
    CLEAR_FROM,
    LIKELY,
    LIKELY_FROM,
    MARGIN,
    UNDECIDED,
)
from tuner.storage.attributes import SEED_ATTR
from tuner.study import TEST_PREFIX

Array = npt.NDArray[np.float64]

# Of a trial: its configuration's error on the test set.
TEST_ATTR = "test_error"
# Of fewer shared seeds nothing is called clear or equal: a paired t test says little then, and a
# two-sided Wilcoxon test on five can't go below 0.06.
LEAST_SEEDS = 5
# Of values that are no shares, no difference is small to everybody: nothing is called equal.
_NO_MARGIN = 1e-12
_DIGITS = 12  # of a number that is the same in two studies
# The label of a configuration that is the only one.
ALONE = "the configuration"


@dataclass(frozen=True)
class ConfirmedRuns:
    """Every configuration on every seed.

    Attributes:
        labels: what tells the configurations apart, as somebody gave it; not `plain`.
        errors: `(n_blocks, n_configurations)`, shown values; NaN where a run did not complete.
        seeds: of the blocks.
        params: of the configurations.
        scale: how the errors are shown.
        lost: how many runs ended without a value, of each configuration.
        broken: how many runs broke a constraint, of each configuration.
        gone: labels of the configurations of which no run ended with a value: they are not here.
        lost_in_all: how many runs ended without a value, those of `gone`, too.
    """

    labels: list[str]
    errors: Array
    seeds: list[object]
    params: list[dict[str, object]]
    scale: Scale
    lost: list[int]
    broken: list[int]
    gone: list[str]
    lost_in_all: int

    @property
    def margin(self) -> float:
        """Means that differ by less are equal."""
        return MARGIN if self.scale.share else _NO_MARGIN

    @property
    def margin_text(self) -> str:
        """The margin in words; "" where there is none."""
        return "0.1 point" if self.scale.share else ""

    def comparison(self) -> PairedComparison:
        """The configurations compared on the seeds that they share."""
        return compare(self.errors, self.margin)


def pairs(confirm: Results) -> ConfirmedRuns:
    """The runs of a study that re-ran configurations on shared seeds.

    Raises:
        CannotDraw: no run completed, no run says its seed, or there is a single seed.
    """
    # An infeasible run is measured as well: it ran to its end.
    measured = confirm.trials["outcome"].isin([COMPLETE, INFEASIBLE])
    complete = confirm.trials.index[measured & confirm.trials["value"].notna()]
    if complete.empty:
        raise CannotDraw("No run of the confirmation completed.")
    if SEED_ATTR not in confirm.attrs or confirm.attrs[SEED_ATTR][complete].isna().any():
        raise CannotDraw("The runs do not say their seeds, so they cannot be paired.")
    values, scale = _values(confirm, complete)
    keys = {number: _key(params_of(confirm, number)) for number in confirm.trials.index}
    seeds = confirm.attrs[SEED_ATTR][complete]
    frame = pd.DataFrame({"seed": seeds.map(str), "key": [keys[it] for it in complete],
                          "value": values})  # fmt: skip
    table = frame.groupby(["seed", "key"], sort=False)["value"].last().unstack("key")
    if len(table) < 2:
        raise CannotDraw("All runs have one seed, which says nothing about luck.")
    ended = dict.fromkeys(keys[it] for it in words.of_outcome(confirm, *ENDED))
    first = {key: number for number, key in reversed(keys.items())}
    params = {it: params_of(confirm, first[it]) for it in ended}
    # A run that failed before it had all its parameters is of no configuration.
    whole = {frozenset(params[it]) for it in ended if it in table}
    ended = dict.fromkeys(it for it in ended if frozenset(params[it]) in whole)
    labels = dict(zip(ended, _labels(confirm, [params[it] for it in ended]), strict=True))
    order = [it for it in ended if it in table]
    lost = [keys[it] for it in words.of_outcome(confirm, PRUNED, DIVERGED, FAILED)]
    broken = [keys[it] for it in words.of_outcome(confirm, INFEASIBLE)]
    return ConfirmedRuns(
        labels=[labels[it] for it in order],
        errors=table[order].to_numpy(float),
        seeds=list(table.index),
        params=[params[it] for it in order],
        scale=scale,
        lost=[lost.count(it) for it in order],
        broken=[broken.count(it) for it in order],
        gone=[labels[it] for it in ended if it not in table],
        lost_in_all=len(lost),
    )


def _values(confirm: Results, complete: "pd.Index[int]") -> "tuple[pd.Series[float], Scale]":
    """The test errors where every run has one, else the study's own values."""
    if TEST_ATTR in confirm.attrs:
        errors = pd.to_numeric(confirm.attrs[TEST_ATTR][complete], errors="coerce")
        if np.isfinite(errors.to_numpy(float)).all():
            from_test = errors.astype(float)
            positive = from_test[from_test > 0]
            floor = 0.5 * float(positive.min()) if len(positive) else 1e-6
            share = bool((from_test <= 1).all())
            scale = Scale(TEST_ATTR, "test error", share, True, 1.0, 0.0, floor)  # noqa: FBT003
            return pd.Series(scale.shown(from_test), complete), scale
    return words.last_shown(confirm)[complete], confirm.scale


def _key(params: Mapping[str, object]) -> str:
    """The same for equal configurations, also of two studies."""

    def text(value: object) -> str:
        return f"{value:.{_DIGITS}g}" if isinstance(value, float) else repr(value)

    return "; ".join(f"{name!r}: {text(params[name])}" for name in sorted(params))


def _labels(confirm: Results, params: list[dict[str, object]]) -> list[str]:
    """What differs: one factor where that tells all apart, else a number and all that differs."""
    differing = [
        name for name in confirm.distributions
        if len({repr(it.get(name)) for it in params}) > 1
    ]  # fmt: skip
    factors = [it for it in confirm.factors if it.name in differing]
    for factor in factors:
        texts = [_text(factor, it) for it in params]
        if len(set(texts)) == len(params):
            return texts
    if len(params) == 1:
        return [ALONE]
    if factors:
        said = [", ".join(filter(None, (_text(it, one) for it in factors))) for one in params]
    else:
        said = [", ".join(f"{name} {one[name]:.3g}" for name in differing if name in one)
                for one in params]  # fmt: skip
    return [f"#{number} {text}".strip() for number, text in enumerate(said, 1)]


def _text(factor: Factor, params: Mapping[str, object]) -> str:
    """A level as it is told beside others: ``adam``, ``frozen layers 1``."""
    if factor.name not in params:
        return ""
    place = int(factor.places(pd.Series([params[factor.name]]))[0])
    if isinstance(factor.levels[place], str):
        return factor.texts[place]
    return f"{factor.label.lower()} {factor.texts[place]}"


def rival_word(rival: Rival, margin_text: str) -> str:
    """What is known of a configuration against the winner.

    Args:
        rival: the configuration.
        margin_text: see `ConfirmedRuns`.
    """
    if rival.blocks < LEAST_SEEDS:
        return UNDECIDED
    worse, equal = rival.p < LEVEL, bool(margin_text) and rival.equal_to_winner
    if worse and equal:
        return f"worse, but within {margin_text}"
    if worse:
        return "clearly worse"
    return f"equal within {margin_text}" if equal else UNDECIDED


def gap_of(runs: ConfirmedRuns, rival: Rival) -> Interval:
    """How far a rival is behind the winner: a ratio on a log scale, else a difference.

    With the interval that holds for all rivals together.
    """
    return rival.ratio_joint if runs.scale.log else rival.difference_joint


def gap_texts(runs: ConfirmedRuns, gap: Interval) -> tuple[str, str]:
    """A gap and its interval in words: ``×1.20`` and ``1.05 to 1.37``; "" of what isn't known."""
    if not math.isfinite(gap.estimate):
        return "", ""
    form = ".2f" if runs.scale.log else "+.3g"
    middle, low, high = (
        f"{it:{form}}".replace("-", "\N{MINUS SIGN}") for it in (gap.estimate, gap.low, gap.high)
    )
    start = "×" if runs.scale.log else ""
    return f"{start}{middle}", "" if math.isnan(gap.low) else f"{low} to {high}"


def verdict_of(runs: ConfirmedRuns, comparison: PairedComparison) -> tuple[str, str]:
    """The whole comparison as a verdict: a word, and a sentence.

    The labels in the sentence are as somebody gave them.
    """
    word, sentence = _verdict(runs, comparison)
    lost = runs.lost[comparison.winner]
    if lost:
        of = wording.count(lost + comparison.runs[comparison.winner], "run")
        sentence += f"; {lost} of its {of} did not finish"
    if broken := runs.broken[comparison.winner]:
        of = wording.count(comparison.runs[comparison.winner], "run")
        sentence += f"; {broken} of its {of} broke a constraint"
    return word, f"{sentence}."


def _verdict(runs: ConfirmedRuns, comparison: PairedComparison) -> tuple[str, str]:
    winner, p_best = runs.labels[comparison.winner], comparison.p_best[comparison.winner]
    rivals, fewest = comparison.rivals, min(it.blocks for it in comparison.rivals)
    said = [rival_word(it, runs.margin_text) for it in rivals]
    equal = all("within" in it for it in said)
    count = f"{len(rivals)} rivals" if len(rivals) > 1 else "rival"
    on = _seeds_text(rivals)
    if p_best >= CLEAR_FROM and fewest >= LEAST_SEEDS:
        but = f", though by less than {runs.margin_text}" if equal else ""
        return CLEAR, f"{on} {winner} beats its {count}{but}"
    if equal:
        word = f"equal within {runs.margin_text}"
        return word, f"{on} {winner} and its {count} are {word}"
    if p_best >= LIKELY_FROM and fewest >= 2:
        return LIKELY, f"{on} {winner} is likely better than its {count}"
    if fewest < LEAST_SEEDS:
        return UNDECIDED, f"{on} {winner} has the best mean, but so few say little"
    beaten = sum("worse" in it for it in said)
    also = f"; {beaten} of {count} {'is' if beaten == 1 else 'are'} beaten" if beaten else ""
    return UNDECIDED, f"{on} {winner} has the best mean, by less than the noise{also}"


def _seeds_text(rivals: Sequence[Rival]) -> str:
    """On how many seeds the winner was compared; the fewest, where rivals differ in it."""
    blocks = [it.blocks for it in rivals]
    if not min(blocks):
        return "Without a shared seed for every rival,"
    least = "at least " if max(blocks) > min(blocks) else ""
    return f"On {least}{wording.count(min(blocks), 'shared seed')}"


@dataclass(frozen=True)
class Shrinkage:
    """What the search saw of a configuration, and what re-runs give on average."""

    seen: float
    mean: float

    @property
    def ratio(self) -> float:
        """How many times what was seen; NaN where that is not above 0."""
        return self.mean / self.seen if self.seen > 0 else math.nan

    def change(self, scale: Scale) -> float:
        """The ratio on a log scale, else the difference, as the value would be spoken of."""
        if scale.log:
            return self.ratio
        return self.seen - self.mean if turned(scale) else self.mean - self.seen


def shrinkages(confirm: Results, runs: ConfirmedRuns, source: Results | None) -> list[Shrinkage]:
    """For each configuration its best value in the search, and the mean of its re-runs.

    Both are the study's own values, not the test errors; NaN where the search has no such trial.
    """
    own = _by_key(confirm).groupby(level=0).mean()
    seen = _by_key(source).groupby(level=0).min() if source else own[:0]
    keys = [_key(it) for it in runs.params]
    return [Shrinkage(seen.get(it, math.nan), own.get(it, math.nan)) for it in keys]


def shrinkage_text(
    confirm: Results, runs: ConfirmedRuns, seen: Sequence[Shrinkage], best: int
) -> str:
    """How much of what the search saw was luck: of one configuration, and of the median one.

    Args:
        confirm: the study of re-runs.
        runs: its runs.
        seen: of each configuration, see `shrinkages`.
        best: the place of the one that is told.

    Returns:
        A sentence with the labels as somebody gave them; "" where the search does not say.
    """
    it, scale = seen[best], confirm.scale
    if not math.isfinite(it.seen):
        return ""
    label = runs.labels[best]
    before, after = (score_text(scale, value) for value in (it.seen, it.mean))
    changes = [one.change(scale) for one in seen]
    known = [one for one in changes if math.isfinite(one)]
    median = (
        f"; of all {len(known)} that the search ran to the end the median is "
        f"{_change_text(scale, float(np.median(known)))}"
        if len(known) > 1
        else ""
    )
    luck = ": the best of many is partly luck" if it.change(scale) > float(scale.log) else ""
    return (
        f"{'The configuration' if label == ALONE else label} had a {score_label(scale)} of "
        f"{before} in the search and has {after} on average here "
        f"({_change_text(scale, changes[best])}){median}{luck}."
    )


def _change_text(scale: Scale, change: float) -> str:
    """``×1.18``, ``+0.3``."""
    if not math.isfinite(change):
        return "–"
    return (f"×{change:.2f}" if scale.log else f"{change:+.3g}").replace("-", "\N{MINUS SIGN}")


def measured_text(confirm: Results, runs: ConfirmedRuns, source: Results | None) -> str:
    """What is to be kept in mind of the data that the runs were measured on: a sentence or "".

    That they are not the test set, or how often it was opened.
    """
    if runs.scale.metric != TEST_ATTR:
        others = [str(it) for it in confirm.attrs if str(it).startswith(TEST_PREFIX)]
        why = (
            f"test() gave {words.joined(others)}, and not {TEST_ATTR} of every run"
            if others
            else "There is no test set"
        )
        return f"{why}: these are values on the data that chose the configurations."
    openings = source.stored.openings if source else []
    if len(openings) < 2:
        return ""
    return (
        f"The test set was opened {wording.times(len(openings))} for this search "
        f"({', '.join(opening_text(it) for it in openings)}): each opening after the first makes "
        "its error more hopeful."
    )


def lost_text(runs: ConfirmedRuns) -> str:
    """Which runs ended without a value: sentences, or "" if there are none."""
    if not runs.lost_in_all:
        return ""
    of = [f"{count} of {label}" for label, count in zip(runs.labels, runs.lost, strict=True)
          if count]  # fmt: skip
    said = f"{wording.count(runs.lost_in_all, 'run')} ended without a value"
    if of:
        said += f" ({words.joined(of)}): pairs are compared on the seeds that both finished"
    if not runs.gone:
        return f"{said}."
    verb = "is" if len(runs.gone) == 1 else "are"
    return f"{said}. {words.joined(runs.gone)} {verb} left out, as no run of it ended with one."


def _by_key(results: Results) -> "pd.Series[float]":
    complete = results.trials.index[results.trials["outcome"] == COMPLETE]
    keys = [_key(params_of(results, it)) for it in complete]
    return pd.Series(
        words.last_shown(results)[complete].to_numpy(float), keys, dtype=float
    ).dropna()


def basis_of(confirm: Results, runs: ConfirmedRuns) -> str:
    """The n of a figure of the runs, and what became of those without a value."""
    per = np.isfinite(runs.errors).sum(axis=0)
    each = f"{per.min()}" if per.min() == per.max() else f"{per.min()} to {per.max()}"
    return words.basis_of(
        confirm,
        f"{wording.count(len(runs.labels), 'configuration')} on "
        f"{wording.count(len(runs.seeds), 'shared seed')}, {each} complete "
        f"{'run' if each == '1' else 'runs'} each.",
        theme.plain(lost_text(runs)),
    )


def error_bars(intervals: list[Interval], colour: str) -> dict[str, Any]:
    """The ends of intervals, as Plotly takes them."""
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5,
        "array": [it.high - it.estimate for it in intervals],
        "arrayminus": [it.estimate - it.low for it in intervals],
    }  # fmt: skip
