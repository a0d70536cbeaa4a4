"""Parts of the trials in which to count what went wrong: a factor's levels, a knob's ranges."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner.report.factors import Factor, Knob
from tuner.report.plots import ticks, words
from tuner.report.results import DIVERGED, FAILED, Results

WRONG = (DIVERGED, FAILED)
_RATES = ("learning_rate", "lr")
_BINS = 4
_MOST_LEVELS = 20


@dataclass(frozen=True)
class Groups:
    """Ways to part the trials: a factor's levels, or ranges of a knob."""

    label: str
    names: list[str]  # as somebody gave them
    place: "pd.Series[int]"  # of each ended trial; -1 for none

    def counts(self, numbers: "pd.Index[int]") -> npt.NDArray[np.int64]:
        """How many of these trials are in each group."""
        here = self.place[self.place.index.isin(numbers)]
        found = np.bincount(here[here >= 0], minlength=len(self.names))
        return np.asarray(found, dtype=np.int64)


def levels_of(results: Results, ended: "pd.Index[int]") -> Groups | None:
    """By ``init``, else by the factor whose levels differ most."""
    found = [_of_factor(results, it, ended) for it in results.factors]
    if not found:
        return None
    wrong = words.of_outcome(results, *WRONG)
    named = [it.name == "init" for it in results.factors]
    best = named.index(True) if any(named) else int(np.argmax([_differ(it, wrong) for it in found]))
    return found[best]


def _of_factor(results: Results, factor: Factor, ended: "pd.Index[int]") -> Groups:
    names = [str(text) for text in factor.texts]
    return Groups(factor.label, names, results.codes[factor.name][ended])


def _differ(groups: Groups, wrong: "pd.Index[int]") -> float:
    """The chi-square statistic of the groups' rates for each degree of freedom."""
    total = groups.counts(groups.place.index)
    bad = groups.counts(wrong)[total > 0]
    total = total[total > 0]
    rate = bad.sum() / max(1, total.sum())
    if len(total) < 2 or not 0 < rate < 1:
        return 0.0
    return float(((bad - rate * total) ** 2 / (total * rate * (1 - rate))).sum()) / (len(total) - 1)


def ranges_of(results: Results, ended: "pd.Index[int]") -> Groups | None:
    """Equally wide ranges of the learning rate, else of the first knob."""
    knobs: list[Knob] = results.knobs
    knob = next((it for it in knobs if it.name in _RATES), next(iter(knobs), None))
    if knob is None:
        return None
    log = knob.log and knob.low > 0
    space = np.geomspace if log else np.linspace
    edges = space(knob.low, knob.high, _BINS + 1)
    values = results.params[knob.name][ended].astype(float)
    place = pd.Series(np.searchsorted(edges[1:-1], values, side="right"), ended)
    texts = [ticks.number_text(float(f"{edge:.2g}")) for edge in edges]
    names = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return Groups(knob.label, names, place.where(values.notna(), -1))


def fewer(results: Results, groups: Groups) -> Groups:
    """The groups in which most went wrong, where there are too many."""
    if len(groups.names) <= _MOST_LEVELS:
        return groups
    total = groups.counts(groups.place.index)
    wrong = groups.counts(words.of_outcome(results, *WRONG))
    kept = sorted(np.lexsort((-total, -wrong))[:_MOST_LEVELS])
    new = {old: place for place, old in enumerate(kept)}
    names = [groups.names[old] for old in kept]
    return Groups(groups.label, names, groups.place.map(lambda old: new.get(old, -1)))
