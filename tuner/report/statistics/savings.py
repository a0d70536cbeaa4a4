"""The time that pruning saved: what pruned trials would have cost if they had run on.

Nobody saw what they would have cost. A trial costs about what those cost that did the same work
(the same frozen depth, say) to the end, so a pruned one is taken to cost the median of the
completed ones of its group. Where fewer than three completed, its own seconds are scaled up to all
steps; that counts the start, which isn't repeated, again for each step and so overstates, hence it
is never more than the dearest completed trial. What is known of neither way counts as no saving.
The estimate assumes that pruned trials are as fast as completed ones of their group: group by
whatever makes trials slow.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Array = npt.NDArray[np.float64]

_LEAST_COMPLETED = 3  # for a median that one odd trial doesn't move at will
_RESAMPLES = 300
_UNKNOWN = (np.nan, np.nan)


@dataclass(frozen=True)
class Savings:
    """What pruning saved.

    Attributes:
        spent: seconds that the trials took.
        saved: seconds that pruned ones would have taken on top.
        saved_low, saved_high: the ends of its interval; NaN below two trials.
        factor: how many times as long it would have taken without pruning, from 1 on; NaN where
            nothing was spent.
        factor_low, factor_high: the ends of its interval.
        trials: how many trials this is from: those whose seconds are known.
    """

    spent: float
    saved: float
    saved_low: float
    saved_high: float
    factor: float
    factor_low: float
    factor_high: float
    trials: int


def time_saved(  # noqa: PLR0913, PLR0917 - the columns of one table
    seconds: npt.ArrayLike,
    last_step: npt.ArrayLike,
    pruned: npt.ArrayLike,
    group: npt.ArrayLike,
    max_step: float,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> Savings:
    """The time saved by pruning, with a percentile bootstrap interval over trials.

    The interval says how much the answer hangs on which trials happened to be drawn, not whether
    the assumptions hold.

    Args:
        seconds: `(n_trials,)`, what each trial took; trials with NaN are left out.
        last_step: `(n_trials,)`, how many steps each did, from 0 to ``max_step``; NaN: unknown.
        pruned: `(n_trials,)`, whether it was pruned; the others count as completed, so leave
            failed ones out.
        group: `(n_trials,)`, labels of those that cost alike.
        max_step: how many steps a completed trial does, above 0.
        generator: for the bootstrap.
        confidence: of the interval, between 0 and 1.

    Raises:
        ValueError: the columns differ in length, or ``max_step`` isn't above 0.
    """
    took, steps = np.asarray(seconds, dtype=float), np.asarray(last_step, dtype=float)
    cut, labels = np.asarray(pruned, dtype=bool), np.asarray(group)
    if not took.shape == steps.shape == cut.shape == labels.shape or took.ndim != 1:
        raise ValueError("Seconds, steps, pruned and group are columns of the same length.")
    if not max_step > 0:
        raise ValueError(f"A completed trial does more than {max_step} steps.")
    known = np.isfinite(took)
    codes = np.unique(labels[known], return_inverse=True)[1]
    columns = _Columns(took[known], steps[known], cut[known], codes)
    spent, saved = float(columns.took.sum()), _saved(columns, max_step)
    low, high = _interval(columns, max_step, confidence, generator) if spent > 0 else _UNKNOWN
    return Savings(
        spent=spent,
        saved=saved,
        saved_low=low * spent,
        saved_high=high * spent,
        factor=1 + saved / spent if spent > 0 else np.nan,
        factor_low=1 + low,
        factor_high=1 + high,
        trials=len(columns.took),
    )


class _Columns(NamedTuple):
    """Of the trials whose seconds are known, `(n_trials,)` each; groups are numbers."""

    took: Array
    steps: Array
    cut: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.intp]

    def rows(self, chosen: npt.NDArray[np.intp]) -> "_Columns":
        return _Columns(self.took[chosen], self.steps[chosen], self.cut[chosen], self.codes[chosen])


def _saved(trials: _Columns, max_step: float) -> float:
    """Seconds that the pruned trials would have taken on top of what they took."""
    took, steps, cut, codes = trials
    completed = took[~cut]
    rate = np.divide(max_step, steps, out=np.ones_like(took), where=steps > 0)
    whole = np.minimum(took * rate, completed.max() if len(completed) else np.inf)
    for code in np.unique(codes[cut]):
        alike = took[(codes == code) & ~cut]
        if len(alike) >= _LEAST_COMPLETED:
            whole[codes == code] = np.median(alike)
    return float(np.maximum(whole - took, 0.0)[cut].sum())


def _interval(
    trials: _Columns, max_step: float, confidence: float, generator: np.random.Generator
) -> tuple[float, float]:
    """The interval of saved / spent."""
    if len(trials.took) < 2:
        return _UNKNOWN

    def share(chosen: npt.NDArray[np.intp]) -> float:
        some = trials.rows(chosen)
        spent = float(some.took.sum())
        return _saved(some, max_step) / spent if spent > 0 else 0.0

    interval = stats.bootstrap(
        (np.arange(len(trials.took)),),
        share,
        n_resamples=_RESAMPLES,
        vectorized=False,
        confidence_level=confidence,
        method="percentile",
        rng=generator,
    ).confidence_interval
    return float(interval.low), float(interval.high)
