"""The stopwatch: every second is in one phase, the innermost."""

import contextlib

import pytest

from tuner.finetune import clock as clock_module
from tuner.finetune.clock import PHASES, Clock


@pytest.fixture
def pass_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(clock_module.time, "perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_a_phase_within_a_phase_stops_the_outer_one(pass_time):
    clock = Clock()
    pass_time(50)
    with clock.phase("setup"):
        pass_time(1)
        with clock.phase("features"):
            pass_time(2)
            with clock.phase("tracing"):
                pass_time(4)
            pass_time(8)
        pass_time(16)
    pass_time(32)
    clock.report(1)
    taken = {"setup": 17, "features": 10, "tracing": 4, "train": 0, "validate": 0, "save": 0}
    assert clock.phases == taken
    assert tuple(clock.phases) == PHASES
    with contextlib.suppress(ZeroDivisionError), clock.phase("train"):
        pass_time(5)
        pass_time(1 / 0)
    clock.report(2)
    assert clock.reports == {1: 31, 2: 36}
