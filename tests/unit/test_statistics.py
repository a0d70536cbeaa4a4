"""Rates, intervals and the paired comparison: answers worked out by hand, and hard cases."""

import gc
import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuner.report.statistics.intervals import differences, ratio_interval, t_interval
from tuner.report.statistics.paired import PairedComparison, compare
from tuner.report.statistics.power import POWER, smallest_difference
from tuner.report.statistics.rates import Rate, wilson

Array = npt.NDArray[np.float64]
NAN = math.nan


def runs(seed: int, blocks: int, *true: float) -> Array:
    """Error rates on 10,000 images, with noise from run to run and a seed effect they share."""
    random = np.random.default_rng(seed)
    shared = np.exp(0.05 * random.standard_normal((blocks, 1)))
    noise = np.exp(0.05 * random.standard_normal((blocks, len(true))))
    return random.binomial(10_000, np.array(true) * shared * noise) / 10_000


@pytest.fixture(autouse=True, scope="module")
def no_collections() -> Iterator[None]:
    """statsmodels collects all garbage for each correction, 0.1 s beside large libraries."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda: 0)
        yield


def rival_p(compared: PairedComparison) -> dict[int, float]:
    return {rival.index: rival.p for rival in compared.rivals}


class TestRates:
    def test_textbook_value(self) -> None:
        rate = wilson(0, 10)
        assert (rate.estimate, rate.low) == (0.0, 0.0)
        assert rate.high == pytest.approx(0.2775, abs=5e-5)

    def test_by_the_formula(self) -> None:
        z = 1.959964
        centre = (0.3 + z**2 / 20) / (1 + z**2 / 10)
        half = z * math.sqrt(0.3 * 0.7 / 10 + z**2 / 400) / (1 + z**2 / 10)
        rate = wilson(3, 10)
        assert (rate.low, rate.high) == pytest.approx((centre - half, centre + half), abs=1e-6)
        assert (rate.count, rate.total) == (3, 10)

    def test_of_none_nothing_is_known(self) -> None:
        rate = wilson(0, 0)
        assert math.isnan(rate.estimate)
        assert (rate.low, rate.high) == (0.0, 1.0)

    def test_of_none_that_nothing_happened_to_is_the_mirror(self) -> None:
        none, every = wilson(0, 10), wilson(10, 10)
        assert every.low == pytest.approx(1 - none.high)
        assert every == Rate(1.0, every.low, 1.0, 10, 10)

    @given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 0.99))
    @settings(max_examples=50, deadline=None)
    def test_the_interval_holds_the_estimate(self, total: int, part: float, sure: float) -> None:
        rate = wilson(int(part * total), total, sure)
        assert 0 <= rate.low <= rate.estimate <= rate.high <= 1

    @pytest.mark.parametrize("wrong", [(3, 2), (-1, 2), (0, -1), (1, 2, 1.0), (1, 2, 0.0)])
    def test_what_is_no_rate(self, wrong: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match=r"no rate|between 0 and 1"):
            wilson(*wrong)


class TestIntervals:
    def test_by_the_table(self) -> None:
        # Mean 2, standard deviation 1, t(0.975, 2) = 4.3027.
        found = t_interval(np.array([1.0, 2.0, 3.0]), 0.95)
        assert found.estimate == 2.0
        assert (found.low, found.high) == pytest.approx(
            (2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-4
        )

    def test_few_and_equal_values(self) -> None:
        alone = t_interval(np.array([0.1]), 0.95)
        assert (alone.estimate, math.isnan(alone.low)) == (0.1, True)
        assert math.isnan(t_interval(np.array([]), 0.95).estimate)
        same = t_interval(np.full(3, 0.1), 0.95)
        assert (same.low, same.high) == (same.estimate, same.estimate)

    def test_rounding_is_no_spread(self) -> None:
        base = np.array([0.1, 0.2, 0.3, 0.7])
        assert np.ptp((base + 0.01) - base) > 0
        assert np.ptp(differences(base + 0.01, base)) == 0
        assert (differences(base + 1e-17, base) == 0).all()

    def test_the_ratio_of_proportional_errors_is_exact(self) -> None:
        base = np.array([0.01, 0.02, 0.04])
        found = ratio_interval(3 * base, base, 0.95)
        assert (found.low, found.estimate, found.high) == pytest.approx((3.0, 3.0, 3.0))

    def test_the_ratio_by_the_delta_method(self) -> None:
        one, other = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.5])
        terms = one / 2 - other / 1.5
        half = stats.t.ppf(0.975, 2) * terms.std(ddof=1) / math.sqrt(3)
        found = ratio_interval(one, other, 0.95)
        assert found.estimate == pytest.approx(4 / 3)
        assert math.log(found.high / found.estimate) == pytest.approx(half)
        assert math.log(found.estimate / found.low) == pytest.approx(half)

    def test_ratios_that_are_none(self) -> None:
        some = np.array([0.1, 0.2])
        assert math.isnan(ratio_interval(some, -some, 0.95).estimate)
        assert math.isnan(ratio_interval(some, 0 * some, 0.95).estimate)
        assert math.isnan(ratio_interval(some[:0], some[:0], 0.95).estimate)
        # A run without errors is no hindrance, nor is an interval beyond all floats.
        assert ratio_interval(np.array([0.0, 0.2]), some, 0.999999).high == math.inf

    def test_they_hold_the_truth_as_often_as_they_say(self) -> None:
        held = np.zeros((2, 400))
        for i in range(400):
            best, worse = runs(i, 10, 0.006, 0.009).T
            difference = t_interval(differences(worse, best), 0.95)
            ratio = ratio_interval(worse, best, 0.95)
            # The noise is lognormal, so it raises both means by the same factor.
            held[0, i] = difference.low <= 0.003 * math.exp(0.05**2) <= difference.high
            held[1, i] = ratio.low <= 1.5 <= ratio.high
        assert (held.mean(axis=1) > 0.92).all()
        assert (held.mean(axis=1) < 0.98).all()


class TestPaired:
    def test_two_configurations_by_scipy(self) -> None:
        errors = runs(1, 10, 0.006, 0.009)
        compared = compare(errors)
        (rival,) = compared.rivals
        test = stats.ttest_rel(errors[:, 1], errors[:, 0])
        interval = test.confidence_interval(0.95)
        assert (compared.winner, rival.index, rival.blocks) == (0, 1, 10)
        assert rival.p == pytest.approx(test.pvalue)
        assert rival.difference.low == pytest.approx(interval.low)
        assert rival.difference.high == pytest.approx(interval.high)
        assert rival.difference_joint == rival.difference  # there is one pair
        assert rival.ratio.estimate == pytest.approx(errors[:, 1].mean() / errors[:, 0].mean())
        assert compared.p_best[0] == pytest.approx(1 - rival.p)
        assert compared.p_friedman is None
        assert compared.means[0].estimate == pytest.approx(errors[:, 0].mean())

    def test_holm_by_hand(self) -> None:
        errors = runs(2, 10, 0.006, 0.0065, 0.009)
        compared = compare(errors)
        raw = {
            pair: stats.ttest_rel(errors[:, pair[0]], errors[:, pair[1]]).pvalue
            for pair in itertools.combinations(range(3), 2)
        }
        ranked = sorted(raw, key=lambda pair: raw[pair])
        first, second, third = (raw[pair] for pair in ranked)
        by_hand = dict(
            zip(
                ranked, (3 * first, max(3 * first, 2 * second), max(2 * second, third)), strict=True
            )
        )
        assert compared.winner == 0
        assert rival_p(compared) == pytest.approx(
            {1: min(by_hand[0, 1], 1), 2: min(by_hand[0, 2], 1)}
        )

    def test_every_rival_is_beaten_only_where_every_p_is_small(self) -> None:
        compared = compare(runs(3, 10, 0.004, 0.008, 0.009, 0.0095))
        assert compared.p_best[0] > 0.95
        assert compared.p_best[1:] == (0.0, 0.0, 0.0)
        assert all(p < 0.05 for p in rival_p(compared).values())
        assert compared.p_friedman is not None
        assert compared.p_friedman < 0.001
        for rival in compared.rivals:
            assert rival.difference_joint.low < rival.difference.low
            assert rival.ratio_joint.high > rival.ratio.high
            assert not rival.equal_to_winner

    def test_a12_by_counting_pairs(self) -> None:
        errors = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 5.0], [4.0, 4.0]])
        wins = sum((b > a) + 0.5 * (b == a) for a, b in itertools.product(*errors.T))
        (rival,) = compare(errors).rivals
        assert rival.a12 == pytest.approx(wins / 16)

    def test_equal_within_the_margin(self) -> None:
        # The margin nearer to the mean difference of 0.0002 decides.
        differ = np.array([0.0, 0.0002, 0.0004, 0.0002, 0.0002])
        se = differ.std(ddof=1) / math.sqrt(5)
        base = np.array([0.01, 0.011, 0.012, 0.013, 0.014])
        (rival,) = compare(np.column_stack([base, base + differ])).rivals
        assert rival.p_equal == pytest.approx(stats.t.sf((0.001 - 0.0002) / se, 4))
        assert rival.equal_to_winner
        (narrow,) = compare(np.column_stack([base, base + differ]), margin=0.00021).rivals
        assert not narrow.equal_to_winner

    def test_not_significant_is_not_equal(self) -> None:
        (rival,) = compare(np.array([[0.010, 0.012], [0.014, 0.010], [0.009, 0.013]])).rivals
        assert rival.p > 0.05
        assert not rival.equal_to_winner

    def test_failed_runs_leave_their_pairs(self) -> None:
        errors = runs(4, 10, 0.006, 0.009, 0.0095)
        errors[0, 1], errors[1, 2], errors[2, 0] = NAN, math.inf, -math.inf
        compared = compare(errors)
        assert compared.runs == (9, 9, 9)
        assert [rival.blocks for rival in compared.rivals] == [8, 8]
        assert compared.blocks == 7
        both = np.isfinite(errors[:, :2]).all(axis=1)
        assert compared.rivals[0].difference.estimate == pytest.approx(
            (errors[both, 1] - errors[both, 0]).mean()
        )
        assert compared.p_friedman is not None

    def test_few_lucky_runs_do_not_win(self) -> None:
        errors = runs(5, 10, 0.006, 0.009, 0.006)
        errors[:, 2] = NAN
        errors[0, 2] = 0.001
        compared = compare(errors)
        assert compared.winner == 0
        rival = compared.rivals[1]
        assert rival.blocks == 1
        assert rival.difference.estimate == pytest.approx(0.001 - errors[0, 0])
        assert math.isnan(rival.p)
        assert math.isnan(rival.p_equal)
        assert not rival.equal_to_winner
        # It doesn't keep the winner from beating those that can be judged.
        assert compared.p_best[0] > 0.95
        assert math.isnan(compared.p_best[2])
        assert compared.p_friedman is None

    def test_a_configuration_that_always_failed(self) -> None:
        compared = compare(np.column_stack([runs(6, 5, 0.006, 0.009), np.full(5, NAN)]))
        rival = compared.rivals[1]
        assert (rival.index, rival.blocks) == (2, 0)
        assert math.isnan(rival.a12)
        assert math.isnan(rival.ratio.estimate)
        assert math.isnan(compared.means[2].estimate)

    def test_one_block_shows_nothing(self) -> None:
        compared = compare(np.array([[0.02, 0.01, 0.03]]))
        assert compared.winner == 1
        assert all(math.isnan(p) for p in compared.p_best)
        assert compared.p_friedman is None
        rival = compared.rivals[0]
        assert rival.difference.estimate == pytest.approx(0.01)
        assert math.isnan(rival.difference.low)
        assert rival.a12 == 1.0
        assert math.isnan(rival.p)

    def test_all_equal(self) -> None:
        compared = compare(np.full((5, 3), 0.01))
        assert compared.winner == 0
        assert compared.p_best == (0.0, 0.0, 0.0)
        assert compared.p_friedman == 1.0
        for rival in compared.rivals:
            assert (rival.p, rival.a12, rival.p_equal) == (1.0, 0.5, 0.5**5)
            assert rival.equal_to_winner
            assert rival.ratio.low == rival.ratio.high == 1.0

    @pytest.mark.parametrize("blocks", [2, 5, 10])
    def test_without_spread_the_sign_test_answers(self, blocks: int) -> None:
        base = 0.01 + 0.001 * np.arange(blocks)
        (rival,) = compare(np.column_stack([base, base + 0.002])).rivals
        assert rival.p == pytest.approx(0.5 ** (blocks - 1))
        assert rival.p_equal == 1.0
        (near,) = compare(np.column_stack([base, base + 0.0002])).rivals
        assert near.p_equal == pytest.approx(0.5**blocks)

    def test_errors_below_zero_have_no_ratio(self) -> None:
        (rival,) = compare(runs(7, 5, 0.006, 0.009) - 1.0).rivals
        assert math.isnan(rival.ratio.estimate)
        assert rival.difference.estimate > 0

    def test_equal_configurations_seldom_differ(self) -> None:
        alarms = [
            min(rival_p(compare(runs(1000 + i, 6, *[0.007] * 4))).values()) < 0.05
            for i in range(150)
        ]
        assert np.mean(alarms) < 0.1

    @given(st.permutations(range(4)), st.permutations(range(6)))
    @settings(max_examples=15, deadline=None)
    def test_the_order_does_not_matter(self, columns: list[int], rows: list[int]) -> None:
        errors = runs(8, 6, 0.006, 0.007, 0.008, 0.009)
        compared, mixed = compare(errors), compare(errors[rows][:, columns])
        assert columns[mixed.winner] == compared.winner
        assert {columns[i]: p for i, p in rival_p(mixed).items()} == pytest.approx(
            rival_p(compared)
        )
        assert [mixed.p_best[columns.index(i)] for i in range(4)] == pytest.approx(
            list(compared.p_best)
        )

    @pytest.mark.parametrize(
        ("errors", "more"),
        [
            ([[0.1], [0.2]], {}),
            ([0.1, 0.2], {}),
            ([[NAN, NAN]], {}),
            ([[0.1, 0.2]], {"margin": 0.0}),
            ([[0.1, 0.2]], {"margin": math.inf}),
            ([[0.1, 0.2]], {"confidence": 1.0}),
        ],
    )
    def test_what_cannot_be_compared(self, errors: list[float], more: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=r"A comparison needs|The margin is above 0"):
            compare(errors, **more)


class TestPower:
    @pytest.mark.parametrize(("blocks", "pairs"), [(2, 3), (3, 3), (5, 21), (10, 190), (20, 1)])
    def test_a_difference_is_found_with_its_power_at_any_level(
        self, blocks: int, pairs: int
    ) -> None:
        """Also at levels so small that statsmodels' solver stops before it is there."""
        difference = smallest_difference(0.001, blocks, pairs)
        draws = np.random.default_rng(1).normal(difference, 0.001, (10_000, blocks))
        found = stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05 / pairs
        assert found.mean() == pytest.approx(POWER, abs=0.015)

    def test_what_is_not_known(self) -> None:
        assert math.isnan(smallest_difference(NAN, 1))
        assert math.isnan(smallest_difference(NAN, 10, 3))
        assert smallest_difference(0.001, 1) == math.inf
        assert smallest_difference(0.0, 10) == 0.0
