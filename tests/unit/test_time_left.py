"""The time left: cases that can be worked out by hand, and the words for it."""

import math
import random

import pytest

from tuner.time_left import Ended, TimeLeft, estimate
from tuner.wording import how_far, time_left


def middle(left: TimeLeft | None) -> float:
    assert left is not None
    return math.sqrt(left.low * left.high)


def ended(*seconds: float, every: float = 10.0) -> list[Ended]:
    """Trials that ended one after another, the last one now."""
    return [Ended(took, every * (len(seconds) - i - 1)) for i, took in enumerate(seconds)]


def test_nothing_is_known_before_a_trial_has_ended() -> None:
    assert estimate([], [5.0], missing=3, workers=1) is None
    assert estimate(ended(10.0), [], missing=0, workers=2) == TimeLeft(0.0, 0.0)


def test_one_worker_takes_the_rest_one_by_one() -> None:
    # Four trials of 10 s: until five have ended, they are taken for exponential ones.
    left = estimate(ended(10, 10, 10, 10), [], missing=7, workers=1)
    assert middle(left) == pytest.approx(6 * 10 + 10)
    # Then it is seen that they hardly differ, and the last one is half done on average.
    left = estimate(ended(*[10.0] * 8), [], missing=7, workers=1)
    assert middle(left) == pytest.approx(6 * 10 + 10 * (1 + 0.5**2) / 2)


def test_workers_share_the_rest_and_then_run_out_one_by_one() -> None:
    left = estimate(ended(10, 10, 10, 10), [], missing=20, workers=4)
    assert middle(left) == pytest.approx(10 * 16 / 4 + 10 * (1 + 1 / 2 + 1 / 3 + 1 / 4))
    left = estimate(ended(10, 10, 10, 10), [], missing=2, workers=4)
    assert middle(left) == pytest.approx(10 * (1 + 1 / 2))


def test_trials_that_run_count_for_the_time_that_they_have_taken() -> None:
    # Three short ones have ended; a long one has not, and is no reason to be hopeful.
    short = middle(estimate(ended(10, 10, 10), [], missing=4, workers=2))
    long = middle(estimate(ended(10, 10, 10), [30.0, 300.0], missing=4, workers=2))
    assert long / short == pytest.approx((30 + 330) / 30)


def test_the_pace_is_that_of_the_latest_trials() -> None:
    slow, fast = [Ended(100.0, 1000.0 - 100 * i) for i in range(10)], ended(*[10.0] * 10)
    late = middle(estimate([*slow, *fast], [], missing=11, workers=1))
    alone = middle(estimate(fast, [], missing=11, workers=1))
    assert late < 2 * alone


def test_the_range_is_narrower_the_more_is_known() -> None:
    dice = random.Random(1)
    durations = [dice.expovariate(0.1) for _ in range(90)]

    def width(count: int) -> float:
        left = estimate(ended(*durations[:count]), [], missing=100 - count, workers=2)
        assert left is not None
        return left.high / left.low

    assert width(5) > width(20) > width(60)


def test_exponential_trials_are_within_the_range_about_four_times_in_five() -> None:
    dice, within = random.Random(7), 0
    for _ in range(300):
        done = [dice.expovariate(0.1) for _ in range(60)]
        left = estimate(
            [Ended(took, sum(done[i + 1 :])) for i, took in enumerate(done)],
            [], missing=20, workers=1,
        )  # fmt: skip
        assert left is not None
        within += left.low <= sum(dice.expovariate(0.1) for _ in range(20)) <= left.high
    assert 0.75 <= within / 300 <= 0.95


def test_trials_that_take_no_time_leave_none() -> None:
    assert estimate(ended(0, 0, 0, 0, 0, 0), [], missing=5, workers=2) == TimeLeft(0.0, 0.0)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 3, "a few seconds left"), (2, 9, "a few seconds left"), (12, 41, "10 to 45 s left"),
        (2, 30, "up to 30 s left"), (20, 100, "up to 2 min left"), (70, 170, "1 to 3 min left"),
        (301, 700, "5 to 12 min left"), (500, 600, "about 9 min left"),
        (3000, 9000, "0.5 to 2.5 h left"), (50_000, 90_000, "13 to 25 h left"),
        (7000, 7300, "about 2 h left"), (100, 4000, "1 to 67 min left"),
    ],
)  # fmt: skip
def test_in_words(low: float, high: float, words: str) -> None:
    assert time_left(low, high) == words


def test_how_far_work_is() -> None:
    assert how_far(0.34, 6.2) == "34 %, about 12 s left"
    assert how_far(0.34, 6.2, ago=2.0) == "34 %, about 10 s left"
    assert how_far(0.01, 6.2) == "1 %"
    assert how_far(0.5, 0.2) == "50 %"
    assert how_far(1.0, 9.0) == "100 %"


@pytest.mark.parametrize(("ended", "workers", "missing"), [(12, 12, 88), (16, 2, 200)])
def test_trials_that_end_together_are_not_taken_for_short_ones(
    ended: int, workers: int, missing: int
) -> None:
    found = estimate([Ended(60.0, 0.0)] * ended, [0.0] * workers, missing=missing, workers=workers)
    assert found is not None
    assert found.low < 60.0 * missing / workers < found.high
