"""When a command gives up because its workers die before they take a trial."""

import pytest

from tuner import supervise
from tuner.engines.interface import Gone
from tuner.errors import TooManyFailures
from tuner.storage import this_process
from tuner.supervise import LOSS_PAUSE_SECONDS, LOST_SECONDS, EarlyDeaths

CRASH = Gone(this_process(), "killed (signal 11)", ["Segmentation fault"])
LOST = Gone(this_process(), "lost with its Ray actor or node", [], with_its_node=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(supervise.time, "monotonic", lambda: now[0])
    return now


def note(
    deaths: EarlyDeaths, gone: Gone, *, had: bool = False, done: int = 0, busy: bool = False
) -> None:
    deaths.note(gone, str(gone.death), had_a_trial=had, done=done, busy=busy)


@pytest.mark.parametrize("busy", [False, True])
def test_three_crashes_at_the_start_are_enough(busy: bool) -> None:
    deaths = EarlyDeaths()
    note(deaths, CRASH, done=4, busy=busy)  # four were done before
    note(deaths, CRASH, done=4, busy=busy)
    with pytest.raises(TooManyFailures, match=r"3 workers died .*\(killed.*Segmentation fault"):
        note(deaths, CRASH, done=4, busy=busy)


@pytest.mark.parametrize(("had", "done"), [(True, 0), (False, 1)])
def test_a_trial_between_them_begins_the_count_anew(had: bool, done: int) -> None:
    deaths = EarlyDeaths()
    for _ in range(2):
        note(deaths, CRASH)
    note(deaths, CRASH, had=had, done=done)
    note(deaths, CRASH, done=done)


@pytest.mark.parametrize("pause", [LOSS_PAUSE_SECONDS + 1, LOST_SECONDS + 1])
def test_machines_that_take_many_workers_with_them_end_nothing(
    clock: list[float], pause: float
) -> None:
    deaths = EarlyDeaths()
    for _ in range(4):
        for _ in range(64):
            note(deaths, LOST)
        clock[0] += pause


def test_workers_that_are_lost_again_and_again_end_the_command(clock: list[float]) -> None:
    deaths = EarlyDeaths()
    for _ in range(LOST_SECONDS // 30):
        note(deaths, LOST)
        clock[0] += 30
    with pytest.raises(TooManyFailures, match="For 10 min 00 s workers have been lost"):
        note(deaths, LOST)


@pytest.mark.parametrize("sign", ["had", "busy"])
def test_work_among_the_losses_begins_their_time_anew(clock: list[float], sign: str) -> None:
    deaths = EarlyDeaths()
    for lost in range(100):
        note(deaths, LOST, **{sign: lost % 10 == 0})  # type: ignore[arg-type]
        clock[0] += 30
