"""What is said while people wait: how far one-time work is, and not what TensorFlow says."""

import logging
import os
from collections.abc import Iterator

import pytest

from tuner import log
from tuner.engines.inline import quiet_tensorflow

logger = logging.getLogger("tuner.test")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("tuner.log.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def heard() -> Iterator[list[tuple[str | None, float | None]]]:
    found: list[tuple[str | None, float | None]] = []
    log.watch(lambda text, done: found.append((text, done)))
    yield found
    log._watch.clear()


def test_a_log_gets_a_line_every_ten_seconds(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tuner.test")
    with log.one_time_work(logger, "the base") as tell:
        for second in range(1, 25):
            clock[0] = second
            tell(second / 25)
    assert caplog.messages == [
        "the base: 40 %, about 15 s left",
        "the base: 80 %, about 5 s left",
    ]


def test_short_work_is_not_logged(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tuner.test")
    with log.one_time_work(logger, "the base") as tell:
        clock[0] = 9.0
        tell(0.9)
    assert caplog.messages == []


def test_who_watches_hears_the_beginning_and_the_end_also_of_what_fails(
    clock: list[float],
    heard: list[tuple[str | None, float | None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="tuner.test")
    work = log.one_time_work(logger, "the base")
    tell = work.__enter__()
    for second in (0.0, 0.1, 0.3, 20.0):
        clock[0] = second
        tell(second / 25)
    assert not work.__exit__(OSError, OSError(), None)
    assert heard == [
        ("the base", None), ("the base", 0.0), ("the base", 0.012), ("the base", 0.8), (None, None),
    ]  # fmt: skip
    assert caplog.messages == []


NOTES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795550213.296943   12087 cudart_stub.cc:31] Could not find cuda drivers.
E0000 00:00:1795549563.831523   10071 cuda_platform.cc:52] failed call to cuInit
2026-11-24 20:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] optimized
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_a_study_that_is_loaded_here_may_write_but_tensorflow_may_not(
    verbose: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "")  # so that it is as before in the end
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with pytest.raises(KeyError), quiet_tensorflow(verbose=verbose):
        _write_both()
    assert capfd.readouterr().err == (NOTES if verbose else "") + "Illuminating.\n2026: mine\n"
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == ("0" if verbose else "2")


def _write_both() -> None:
    os.write(2, NOTES.encode())
    os.write(2, b"Illuminating.\n2026: mine\n")
    raise KeyError
