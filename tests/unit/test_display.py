"""What people see while trials run, and at the end."""

import dataclasses
import io
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tuner.display import LiveDisplay, PlainDisplay, Scoreboard
from tuner.settings import RunSettings
from tuner.storage import FinishedTrial, StudyProgress
from tuner.study import Snapshot
from tuner.summary import summarise

SNAPSHOT = Snapshot(None, "val_error", "minimize", 20, "studies/mnist.py", "h")
SETTINGS = RunSettings(
    study="mnist", study_argument="mnist", study_file=Path("studies/mnist.py"),
    storage="sqlite:///tuner.db", trials=4, workers=2, seed=None, sampler="tpe",
    pruner="asha", precision="auto", artifacts=Path("tuner-artifacts"), timeout=None,
    trial_timeout=None, max_failures=5, detach=False, quiet=False, verbose=False,
)  # fmt: skip
PARAMS: dict[str, object] = {"learning_rate": 0.00123456, "optimizer": "adam"}


@pytest.fixture(autouse=True)
def _no_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNER_PRECISION", raising=False)


def trial(
    number: int, state: TrialState, value: float | None, outcome: str, reason: str = ""
) -> FinishedTrial:
    return FinishedTrial(number, state, value, 4, 12.0, PARAMS, outcome, reason)


GOOD = trial(0, TrialState.COMPLETE, 0.0075, "completed")
BETTER = trial(1, TrialState.COMPLETE, 0.0071, "completed")
CUT = trial(2, TrialState.PRUNED, 0.001, "pruned")
BURNT = trial(3, TrialState.PRUNED, 1.0, "diverged", "the loss is not finite")
BROKEN = trial(4, TrialState.FAIL, None, "failed", "ValueError: no")
ALL = [GOOD, BETTER, CUT, BURNT, BROKEN]
COUNTS = {TrialState.COMPLETE: 2, TrialState.PRUNED: 2, TrialState.FAIL: 1}


def board_of(new: list[FinishedTrial], direction: str = "minimize") -> Scoreboard:
    snapshot = Snapshot(None, "val_error", direction, 20, "studies/mnist.py", "h")
    board = Scoreboard("mnist", snapshot, 4)
    board.begin(StudyProgress({}, [], [], None), None, 0)
    board.update(StudyProgress(COUNTS, new, [(5, 8, 0.0123), (6, None, None)], None))
    return board


def console(width: int) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width, force_terminal=False), text


def test_only_complete_trials_can_be_best_and_the_direction_counts() -> None:
    assert board_of(ALL).best == BETTER
    assert board_of(ALL, "maximize").best == GOOD
    assert board_of([CUT, BROKEN]).best is None


def test_the_time_left_is_estimated_from_enough_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    board = board_of([GOOD, BETTER])
    assert board.seconds_left is None
    board.update(StudyProgress({TrialState.COMPLETE: 3}, [CUT], [], None))
    monkeypatch.setattr(Scoreboard, "seconds", property(lambda _self: 30.0))
    assert board.per_hour == pytest.approx(360)
    assert board.seconds_left == pytest.approx(10)


def test_plain_lines() -> None:
    target, text = console(80)
    PlainDisplay(target).show(board_of(ALL), ALL)
    lines = text.getvalue().splitlines()
    assert len(lines) == len(ALL)
    assert lines[0].startswith(
        "[1/4] trial 0 completed: val_error 0.0075, 12 s, learning_rate=0.001235 optimizer=adam, "
        "best 0.0071 (trial 1)"
    )
    assert "trial 2 pruned: val_error 0.001, at step 4/20" in lines[2]
    assert lines[3].startswith("[4/4] trial 3 diverged")
    assert lines[4].startswith("[4/4] trial 4 failed: ValueError: no")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_panel_fits_its_terminal(width: int) -> None:
    target, text = console(width)
    display = LiveDisplay(target)
    display.show(board_of(ALL), ALL)
    target.print(display._draw())
    shown = text.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "mnist 4/4" in shown
    assert "2 complete" in shown
    assert "step 8/20, val_error 0.0123" in shown
    assert "trial 6  starting" in shown
    assert "trial 4 failed: ValueError: no" in shown


def test_the_summary_says_what_was_found_and_what_to_type() -> None:
    target, text = console(100)
    summarise(target, board_of(ALL), SETTINGS, "sqlite:///tuner.db", 125.0)
    shown = text.getvalue()
    for part in (
        "mnist: 4 trials in 2 min 05 s",
        "2 complete, 2 pruned, 1 failed",
        "1 of the pruned ones diverged",
        "validation accuracy 99.29%, val_error 0.0071 (trial 1)",
        "optimizer = adam",
        "partly luck",
        "optuna-dashboard sqlite:///tuner.db",
        "python -m tuner.run --study mnist --trials 8",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("flag", "variable", "words"),
    [
        ("auto", None, ""),
        ("bfloat16", None, "--precision bfloat16 "),
        ("float32", "float32", "--precision float32 "),  # perhaps typed, perhaps from there
        ("auto", "float32", "--precision auto "),
    ],
)
def test_the_next_command_keeps_the_precision(
    flag: str, variable: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv("TUNER_PRECISION", variable)
    target, text = console(100)
    settings = dataclasses.replace(SETTINGS, precision=flag)
    summarise(target, board_of(ALL), settings, "sqlite:///tuner.db", 125.0)
    assert f"python -m tuner.run --study mnist {words}--trials 8" in text.getvalue()


def test_the_summary_of_a_study_that_was_there_already() -> None:
    target, text = console(100)
    summarise(target, board_of([]), SETTINGS, "sqlite:///tuner.db", 2.0)
    assert "nothing to do: 4 trials are there, and 4 were asked for" in text.getvalue()
    assert "no trial ran to its end" in text.getvalue()
