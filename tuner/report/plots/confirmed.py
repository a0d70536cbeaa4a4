"""Configurations that were run again on the same seeds: which run is which, and the verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner import wording
from tuner.report.cards import CannotDraw
from tuner.report.factors import Factor
from tuner.report.plots import ticks, words
from tuner.report.plots.best import params_of
from tuner.report.results import COMPLETE, Results
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

Array = npt.NDArray[np.float64]

# Of a trial: its configuration's error on the test set.
TEST_ATTR = "test_error"
# Of values that are no shares, differences below so much of the best count as none.
_MARGIN_SHARE = 0.05
_DIGITS = 12  # of a number that is the same in two studies


@dataclass(frozen=True)
class ConfirmedRuns:
    """Every configuration on every seed.

    Attributes:
        labels: what tells the configurations apart, as somebody gave it; not `plain`.
        errors: `(n_blocks, n_configurations)`, shown values; NaN where a run did not complete.
        seeds: of the blocks.
        params: of the configurations.
        scale: how the errors are shown.
        lost: how many runs ended without a value.
    """

    labels: list[str]
    errors: Array
    seeds: list[object]
    params: list[dict[str, object]]
    scale: Scale
    lost: int

    @property
    def margin(self) -> float:
        """Means that differ by less are equal."""
        if self.scale.share:
            return MARGIN
        return _MARGIN_SHARE * float(np.nanmin(np.abs(np.nanmean(self.errors, axis=0)))) or 1e-12

    @property
    def margin_text(self) -> str:
        """The margin in words."""
        if self.scale.share:
            return "0.1 point"
        return ticks.number_text(float(f"{self.margin:.2g}"))

    def comparison(self) -> PairedComparison:
        """The configurations compared on the seeds that they share."""
        return compare(self.errors, self.margin)


def pairs(confirm: Results) -> ConfirmedRuns:
    """The runs of a study that re-ran configurations on shared seeds.

    Raises:
        CannotDraw: no run completed, no run says its seed, or there is a single seed.
    """
    complete = confirm.trials.index[confirm.trials["outcome"] == COMPLETE]
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
    order = [it for it in dict.fromkeys(keys.values()) if it in table]
    first = {key: number for number, key in reversed(keys.items())}
    params = [params_of(confirm, first[it]) for it in order]
    return ConfirmedRuns(
        labels=_labels(confirm, params),
        errors=table[order].to_numpy(float),
        seeds=list(table.index),
        params=params,
        scale=scale,
        lost=int(confirm.count("pruned", "diverged", "failed")),
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
        return ["the configuration"]
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
    """What is known of a configuration against the winner."""
    worse = rival.p < LEVEL
    if worse and rival.equal_to_winner:
        return f"worse, but within {margin_text}"
    if worse:
        return "clearly worse"
    return f"equal within {margin_text}" if rival.equal_to_winner else "undecided"


def verdict_of(runs: ConfirmedRuns, comparison: PairedComparison) -> tuple[str, str]:
    """The whole comparison as a verdict: a word, and a sentence.

    The labels in the sentence are as somebody gave them.
    """
    winner, p_best = runs.labels[comparison.winner], comparison.p_best[comparison.winner]
    rivals, seeds = comparison.rivals, len(runs.seeds)
    equal = all(it.equal_to_winner for it in rivals)
    count = f"{len(rivals)} rivals" if len(rivals) > 1 else "rival"
    if p_best >= CLEAR_FROM:
        but = f", though by less than {runs.margin_text}" if equal else ""
        return CLEAR, f"On {seeds} shared seeds {winner} beats its {count}{but}."
    if equal:
        word = f"equal within {runs.margin_text}"
        return word, f"On {seeds} shared seeds {winner} and its {count} are {word}."
    if p_best >= LIKELY_FROM:
        return LIKELY, f"On {seeds} shared seeds {winner} is likely better than its {count}."
    beaten = [runs.labels[it.index] for it in rivals if it.p < LEVEL]
    rest = len(rivals) - len(beaten)
    also = f"; {len(beaten)} of {count} are beaten" if beaten and rest else ""
    return (
        UNDECIDED,
        f"On {seeds} shared seeds {winner} has the lowest mean, by less than the noise{also}.",
    )


@dataclass(frozen=True)
class Shrinkage:
    """What the search saw of a configuration, and what re-runs give on average."""

    seen: float
    mean: float

    @property
    def ratio(self) -> float:
        """How many times what was seen; NaN where that is not above 0."""
        return self.mean / self.seen if self.seen > 0 else math.nan


def shrinkages(confirm: Results, runs: ConfirmedRuns, source: Results | None) -> list[Shrinkage]:
    """For each configuration its best value in the search, and the mean of its re-runs.

    Both are the study's own values, not the test errors; NaN where the search has no such trial.
    """
    own = _by_key(confirm).groupby(level=0).mean()
    seen = _by_key(source).groupby(level=0).min() if source else own[:0]
    keys = [_key(it) for it in runs.params]
    return [Shrinkage(seen.get(it, math.nan), own.get(it, math.nan)) for it in keys]


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
    lost = wording.count(runs.lost, "run") if runs.lost else ""
    return words.basis_of(
        confirm,
        f"{wording.count(len(runs.labels), 'configuration')} on "
        f"{wording.count(len(runs.seeds), 'shared seed')}, {each} complete runs each.",
        f"{lost} without a final value left out: pairs are compared where both ended."
        if lost
        else "",
    )


def error_bars(intervals: list[Interval], colour: str) -> dict[str, Any]:
    """The ends of intervals, as Plotly takes them."""
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5,
        "array": [it.high - it.estimate for it in intervals],
        "arrayminus": [it.estimate - it.low for it in intervals],
    }  # fmt: skip
