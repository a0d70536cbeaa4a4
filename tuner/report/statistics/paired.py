"""Configurations re-run on the same fresh seeds: which is best, by how much, and which are equal.

The choice of methods was measured on simulated runs (10,000 images, a true error of 0.7 %,
run-to-run noise of 5 %, a seed effect of 5 % that the configurations share; 20,000 comparisons
each). Of tests at 5 % with 5, 10 and 20 seeds, the paired t test called equal configurations
different in 4.9, 5.1 and 5.0 %, Wilcoxon's in 0.0, 5.0 and 4.9 %; 0.7 against 0.8 % was found by t
in 26, 57 and 89 %, by Wilcoxon's in 0, 55 and 87 %: with 5 seeds its p can't go below 0.0625. So
tests are paired t tests. Where one run in twenty goes wrong they are careful (2 to 3 %), not bold.

The winner is chosen after looking. Of six equal configurations with 10 seeds, the intervals of the
five differences to the winner held the truth in 90 % each by itself, and all together in 65 %;
widened for all 15 pairs (Bonferroni) all together in 96 %. Of uncorrected tests over all pairs, one
or more called equal configurations different in 40 %, with Holm's correction in 4.5 %. And at six
or fewer configurations, some close to the best, a wrong one reached a `p_best` of 0.95 in 0.02 %.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.nonparametric import rank_compare_2indep
from statsmodels.stats.weightstats import ttost_paired

from tuner.report.statistics.intervals import Interval, differences, ratio_interval, t_interval

Array = npt.NDArray[np.float64]

LEVEL = 0.05  # of every test


@dataclass(frozen=True)
class Rival:
    """A configuration against the winner, on the blocks that both finished.

    Attributes:
        index: which configuration.
        blocks: how many blocks both finished.
        difference: its mean error minus the winner's.
        difference_joint: with the interval widened for all pairs: those of all rivals hold
            together, although the winner was chosen after looking.
        ratio: its mean error by the winner's; NaN where one of the means isn't above 0.
        ratio_joint: with the interval widened for all pairs.
        p: two-sided, that the mean errors differ, with Holm's correction over all pairs.
        a12: the chance that a run of it errs more than a run of the winner, a tie counting half
            (Vargha and Delaney, "A Critique and Improvement of the CL Common Language Effect Size
            Statistics", 2000): 0.5 is none, 0.56 small, 0.64 medium, 0.71 large.
        p_equal: of two one-sided tests that the means differ by less than the margin (Schuirmann,
            1987). Not corrected: that *all* rivals are equal to the winner holds at 5 % as soon
            as each p_equal is below (intersection-union test, Berger 1982).
        equal_to_winner: p_equal is below 5 %.
    """

    index: int
    blocks: int
    difference: Interval
    difference_joint: Interval
    ratio: Interval
    ratio_joint: Interval
    p: float
    a12: float
    p_equal: float
    equal_to_winner: bool


@dataclass(frozen=True)
class PairedComparison:
    """Configurations compared on the same seeds.

    Attributes:
        means: of each configuration over its own finished runs, with the t interval.
        runs: how many each finished.
        winner: the index of the lowest mean, among those that finished at least half as many runs
            as the one that finished most.
        rivals: the others, in their order.
        p_best: for each configuration 1 - the largest p, Holm-corrected over all ordered pairs, of
            "it isn't better than this rival": 0.95 and more says that it beats every rival at 5 %
            family-wise. Evidence, no posterior probability: they don't add up to 1, and 0 says
            only that nothing is shown. Rivals below two finished runs don't count; NaN where none
            is left, or where it has none itself.
        p_friedman: that all are alike (Friedman 1937), on the blocks that all finished; None
            below three configurations or two such blocks. Configurations below two finished runs
            don't count.
        blocks: how many blocks all finished.
        margin: differences below it count as none.
    """

    means: tuple[Interval, ...]
    runs: tuple[int, ...]
    winner: int
    rivals: tuple[Rival, ...]
    p_best: tuple[float, ...]
    p_friedman: float | None
    blocks: int
    margin: float


def compare(
    errors: npt.ArrayLike, margin: float = 0.001, confidence: float = 0.95
) -> PairedComparison:
    """Compare configurations that were re-run on the same seeds.

    Where all differences of a pair are the same number, a t test has no spread to go by; then the
    sign test answers: the smallest p with n blocks is 2^-n, doubled for two sides.

    Args:
        errors: `(n_blocks, n_configurations)`, lower is better, in any unit; a block is a seed.
            What isn't finite is a run that failed or diverged; a pair is compared on the blocks
            that both finished.
        margin: how far apart two means may be to count as equal, above 0, in the unit of the
            errors; 0.001 is 0.1 points.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ValueError: there are fewer than two configurations, or no finite error, or the margin or
            the confidence is out of range.
    """
    runs = np.asarray(errors, dtype=float)
    if runs.ndim != 2 or runs.shape[1] < 2:
        raise ValueError("A comparison needs a table of blocks by at least two configurations.")
    if not np.isfinite(runs).any():
        raise ValueError("A comparison needs at least one run that finished.")
    if not 0 < margin < math.inf or not 0 < confidence < 1:
        raise ValueError("The margin is above 0, and the confidence between 0 and 1.")
    runs = np.where(np.isfinite(runs), runs, np.nan)
    finished = np.isfinite(runs).sum(axis=0)
    means = tuple(t_interval(column[np.isfinite(column)], confidence) for column in runs.T)
    winner = _winner(means, finished)
    one_sided = _one_sided(runs)
    corrected = _two_sided(one_sided)
    indexes = [index for index in range(runs.shape[1]) if index != winner]
    return PairedComparison(
        means=means,
        runs=tuple(int(count) for count in finished),
        winner=winner,
        rivals=tuple(
            _rival(runs, index, winner, corrected[index, winner], margin, confidence)
            for index in indexes
        ),
        p_best=_p_best(one_sided, finished >= 2),
        p_friedman=_friedman(runs[:, finished >= 2]),
        blocks=int(np.isfinite(runs).all(axis=1).sum()),
        margin=margin,
    )


def _winner(means: tuple[Interval, ...], finished: npt.NDArray[np.intp]) -> int:
    """The lowest mean among those that finished enough runs to be judged."""
    enough = 2 * finished >= finished.max()
    lowest = [it.estimate if ok else math.inf for it, ok in zip(means, enough, strict=True)]
    return int(np.argmin(lowest))


def _rival(  # noqa: PLR0913, PLR0917 - one row of the comparison
    runs: Array, index: int, winner: int, p: float, margin: float, confidence: float
) -> Rival:
    rival, best = _shared(runs, index, winner)
    pairs = math.comb(runs.shape[1], 2)
    joint = 1 - (1 - confidence) / pairs
    p_equal = _p_equal(rival, best, margin)
    return Rival(
        index=index,
        blocks=len(rival),
        difference=t_interval(differences(rival, best), confidence),
        difference_joint=t_interval(differences(rival, best), joint),
        ratio=ratio_interval(rival, best, confidence),
        ratio_joint=ratio_interval(rival, best, joint),
        p=float(p) if len(rival) >= 2 else math.nan,
        a12=_a12(rival, best),
        p_equal=p_equal,
        equal_to_winner=p_equal < LEVEL,
    )


def _shared(runs: Array, one: int, other: int) -> tuple[Array, Array]:
    """The runs of two configurations on the blocks that both finished."""
    both = np.isfinite(runs[:, one]) & np.isfinite(runs[:, other])
    return runs[both, one], runs[both, other]


def _one_sided(runs: Array) -> Array:
    """`(n, n)`: the p of "row isn't better than column"; NaN on the diagonal, 1 if untestable."""
    count = runs.shape[1]
    p = np.full((count, count), np.nan)
    for one, other in itertools.permutations(range(count), 2):
        found = differences(*_shared(runs, one, other))
        if len(found) < 2:
            p[one, other] = 1.0
        elif np.ptp(found) == 0:
            p[one, other] = 0.5 ** len(found) if found[0] < 0 else 1.0
        else:
            p[one, other] = stats.ttest_1samp(found, 0.0, alternative="less").pvalue
    return p


def _two_sided(one_sided: Array) -> Array:
    """`(n, n)`: the two-sided p of each pair, corrected over all pairs."""
    pairs = np.triu_indices(len(one_sided), 1)
    smaller = np.minimum(one_sided, one_sided.T)[pairs]
    corrected = np.full_like(one_sided, np.nan)
    corrected[pairs] = multipletests(np.minimum(2 * smaller, 1.0), LEVEL, method="holm")[1]
    return np.fmax(corrected, corrected.T)


def _p_best(one_sided: Array, able: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """How surely each configuration beats every rival."""
    off_diagonal = ~np.eye(len(able), dtype=bool)
    corrected = np.full_like(one_sided, np.nan)
    corrected[off_diagonal] = multipletests(one_sided[off_diagonal], LEVEL, method="holm")[1]
    judged = off_diagonal & able[:, np.newaxis] & able
    return tuple(
        float(1 - row[counts].max()) if counts.any() else math.nan
        for row, counts in zip(corrected, judged, strict=True)
    )


def _p_equal(one: Array, other: Array, margin: float) -> float:
    """The p of the paired test for equivalence within the margin."""
    found = differences(one, other)
    if len(found) < 2:
        return math.nan
    if np.ptp(found) == 0:
        return 0.5 ** len(found) if abs(found[0]) < margin else 1.0
    return float(ttost_paired(one, other, -margin, margin)[0])


def _a12(one: Array, other: Array) -> float:
    """The chance that a run of one errs more than a run of the other; ties count half."""
    if not len(one):
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # its own test statistic, unused here
        return float(rank_compare_2indep(one, other).prob1)


def _friedman(runs: Array) -> float | None:
    """The omnibus test on the blocks that all finished."""
    blocks = runs[np.isfinite(runs).all(axis=1)]
    if blocks.shape[1] < 3 or len(blocks) < 2:
        return None
    if (np.ptp(blocks, axis=1) == 0).all():
        return 1.0
    return float(stats.friedmanchisquare(*blocks.T).pvalue)
