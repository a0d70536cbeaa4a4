"""What people see while trials run, and at the end."""

import dataclasses
import io
import math
import re
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tuner.display import LiveDisplay, PlainDisplay
from tuner.engines.interface import WorkerState
from tuner.flags import Given, Source
from tuner.scoreboard import Scoreboard
from tuner.settings import RunSettings
from tuner.storage import FinishedTrial, Request, RequestState, RunningTrial, StudyProgress
from tuner.study import Snapshot
from tuner.summary import summarise

SETTINGS = RunSettings(
    study="mnist", study_argument="mnist", study_file=Path("studies/mnist.py"),
    storage="sqlite:///tuner.db", trials=4, workers=2, seed=None, sampler="tpe",
    pruner="asha", precision="auto", artifacts="tuner-artifacts", cache_dir=Path("cache"),
    cache_gb=5.0, timeout=None, trial_timeout=None, max_failures=5, detach=False, quiet=False,
    verbose=False, given=Given({}, {}),
)  # fmt: skip
PARAMS: dict[str, object] = {"learning_rate": 0.00123456, "optimizer": "adam"}


def trial(
    number: int, state: TrialState, value: float | None, outcome: str, reason: str = ""
) -> FinishedTrial:
    values = [] if value is None else [value]
    return FinishedTrial(number, state, values, 4, 12.0, PARAMS, outcome, reason)


GOOD = trial(0, TrialState.COMPLETE, 0.0075, "completed")
BETTER = trial(1, TrialState.COMPLETE, 0.0071, "completed")
CUT = trial(2, TrialState.PRUNED, 0.001, "pruned")
BURNT = trial(3, TrialState.PRUNED, 1.0, "diverged", "the loss is not finite")
BROKEN = trial(4, TrialState.FAIL, None, "failed", "ValueError: no")
ALL = [GOOD, BETTER, CUT, BURNT, BROKEN]
COUNTS = {TrialState.COMPLETE: 2, TrialState.PRUNED: 2, TrialState.FAIL: 1}


def board_of(new: list[FinishedTrial], direction: str = "minimize") -> Scoreboard:
    snapshot = Snapshot(None, "val_error", direction, 20, "studies/mnist.py", "h", 4)
    board = Scoreboard("mnist", snapshot, 4)
    board.begin(StudyProgress({}, [], [], None), None, {})
    board.update(StudyProgress(COUNTS, new, [running(5, 2, 8, 0.0123), running(6, 3)], None))
    return board


def running(
    number: int, pid: int, step: int | None = None, value: float | None = None
) -> RunningTrial:
    return RunningTrial(number, "elsewhere", pid, None, 70.0, 1.0, step, value)


def console(width: int) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=width, force_terminal=False), text


def test_only_complete_trials_can_be_best_and_the_direction_counts() -> None:
    assert board_of(ALL).best == BETTER
    assert board_of(ALL, "maximize").best == GOOD
    assert board_of([CUT, BROKEN]).best is None


def test_the_time_left_is_told_after_three_trials_but_not_in_a_pause() -> None:
    board = board_of([GOOD, BETTER])
    board.target = 10
    assert board.time_left_in_words == ""
    board.update(StudyProgress({TrialState.COMPLETE: 3}, [CUT], [], None))
    assert board.time_left is not None
    assert board.time_left.low < 12 * 7 < board.time_left.high  # one at a time, 12 s each
    assert board.time_left_in_words.endswith(" min left")
    paused = Request(RequestState.PAUSED, "2026-01-01T00:00:00", 10, 5, None)
    board.update(StudyProgress({TrialState.COMPLETE: 3}, [], [], paused))
    assert board.time_left_in_words == ""


def test_the_history_is_the_best_so_far_also_of_trials_that_were_there() -> None:
    board = Scoreboard("mnist", Snapshot(None, "v", "minimize", None, "s.py", "h"), 20)
    there = [(0, [0.5]), (3, [0.7]), (4, [math.inf]), (5, [0.2])]  # trials 1 and 2 were pruned
    counts = {TrialState.COMPLETE: 4, TrialState.PRUNED: 2}
    board.begin(StudyProgress(counts, [], [], None), None, {}, there)
    assert board.history == [(1, 0.5), (6, 0.2)]
    counts = {TrialState.COMPLETE: 6, TrialState.PRUNED: 3}
    board.best = GOOD
    new = [dataclasses.replace(GOOD, values=[0.3]), CUT, dataclasses.replace(GOOD, values=[0.1])]
    board.update(StudyProgress(counts, new, [], None))
    assert board.history == [(1, 0.5), (6, 0.2), (9, 0.1)]
    assert board.best_curve(99) == [0.5] * 5 + [0.2] * 3 + [0.1]
    assert board.best_curve(3) == [0.5, 0.5, 0.1]
    assert board.best_curve(1) == [0.1]
    assert board.best_curve(0) == []


def two_objectives() -> Scoreboard:
    """Begun with two trials, of which one is beaten by the first of four new ones."""
    snapshot = Snapshot(
        None, "error", "minimize", 20, "s.py", "h", more_objectives=(("accuracy", "maximize"),)
    )
    board = Scoreboard("mnist", snapshot, 7)
    there = [(0, [0.5, 0.75]), (1, [0.25, 0.5])]
    board.begin(StudyProgress({}, [], [], None), None, {"infeasible": 1}, there)
    assert board.front == dict(there)
    new = [
        dataclasses.replace(GOOD, number=2, values=[0.125, 0.5]),
        dataclasses.replace(GOOD, number=3, values=[0.0, 0.9], outcome="infeasible"),
        dataclasses.replace(CUT, number=4, values=[]),
        dataclasses.replace(GOOD, number=5, values=[0.125, 0.5]),
        dataclasses.replace(GOOD, number=6, values=[0.6, 0.6]),
    ]
    counts = {TrialState.COMPLETE: 6, TrialState.PRUNED: 1}
    board.update(StudyProgress(counts, new, [], None))
    return board


def test_of_several_objectives_the_trials_that_no_other_beats_are_kept() -> None:
    board = two_objectives()
    assert board.best is None
    assert board.front == {0: [0.5, 0.75], 2: [0.125, 0.5], 5: [0.125, 0.5]}
    assert board.infeasible == 2
    target, text = console(100)
    summarise(target, board, SETTINGS, "sqlite:///tuner.db", 125.0)
    lines = [line.strip() for line in text.getvalue().splitlines()]
    assert "2 of them break a constraint" in lines
    place = lines.index("not beaten  error 0.125, accuracy 0.5 (trial 2)")
    assert lines[place + 1] == "error 0.5, accuracy 0.75 (trial 0)"  # trial 5 is as trial 2
    assert lines[place + 2].startswith("no other trial is as good in everything")
    target, text = console(200)
    new = [dataclasses.replace(GOOD, number=2, values=[0.125, 0.5])]
    PlainDisplay(target).show(board, new)
    assert "completed: error 0.125, accuracy 0.5," in text.getvalue()
    assert text.getvalue().strip().endswith("3 trials not beaten")


def test_of_a_large_front_some_trials_are_named_spread_over_it() -> None:
    board = two_objectives()
    board.front = {number: [number / 100, number / 50] for number in range(40)}
    target, text = console(100)
    summarise(target, board, SETTINGS, "sqlite:///tuner.db", 125.0)
    named = re.findall(r"accuracy \S+ \(trial (\d+)\)", text.getvalue())
    assert named == ["0", "6", "13", "20", "26", "32", "39"]
    assert "33 more: no other trial" in text.getvalue()


def test_plain_lines() -> None:
    target, text = console(80)
    PlainDisplay(target).show(board_of(ALL), ALL)
    lines = text.getvalue().splitlines()
    assert len(lines) == len(ALL)
    assert lines[0].startswith(
        "[1/4] trial 0 completed: val_error 0.0075, 12 s, learning_rate=0.001235 optimizer=adam, "
        "best 0.0071 (trial 1)"
    )
    assert "trial 2 pruned: val_error 0.001, at epoch 1/5" in lines[2]
    assert lines[3].startswith("[4/4] trial 3 diverged")
    assert lines[4].startswith("[4/4] trial 4 failed: ValueError: no")


def test_plain_lines_for_a_terminal_with_ascii_only() -> None:
    raw = io.BytesIO()
    target = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=80)
    display = PlainDisplay(target)
    display.note("study mnist · worker 1: \x1b[31mred\x1b[0m")
    display.show(board_of([CUT]), [dataclasses.replace(CUT, last_step=5)])
    assert b"study mnist - worker 1: red\n" in raw.getvalue()
    assert b"at epoch 1.25/5" in raw.getvalue()


def test_plain_lines_say_what_takes_long_but_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    clock = iter(range(100))
    monkeypatch.setattr("tuner.display.time.monotonic", lambda: now + next(clock))
    target, text = console(80)
    display = PlainDisplay(target)
    for _ in range(5):
        display.start([WorkerState(1, 7, "loading studies/mnist.py", None, now)])
    assert text.getvalue() == "loading studies/mnist.py ...\n"
    for second in range(5, 30):
        told = now + second
        display.start([WorkerState(1, 7, "training the base", second / 30, now, told)])
    assert text.getvalue().splitlines()[1:] == [
        "worker 1: training the base: 33 %, about 20 s left",
        "worker 1: training the base: 67 %, about 10 s left",
    ]


class Terminal(io.StringIO):
    """What a live display writes; it says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def live(width: int) -> tuple[LiveDisplay, Terminal, Console]:
    text = Terminal()
    target = Console(file=text, width=width, height=24, force_terminal=True, color_system=None)
    display = LiveDisplay(target)
    display._live.auto_refresh = False
    return display, text, target


def test_the_live_display_leaves_notes_and_failures_and_takes_its_panel_away() -> None:
    display, text, _ = live(80)
    with display:
        display.start([WorkerState(1, 7, "loading studies/mnist.py", None, time.monotonic())])
        display._live.refresh()
        display.show(board_of(ALL), ALL)
        display.note("a note")
    screen = shown(text.getvalue(), 80)
    assert screen == ["trial 4 failed: ValueError: no", "a note"]
    assert "loading studies/mnist.py" in text.getvalue()


def test_after_an_error_the_last_figures_stay_without_the_workers() -> None:
    display, text, _ = live(80)
    display.__enter__()
    display.show(board_of([GOOD]), [GOOD])
    display._live.refresh()
    display.__exit__(KeyboardInterrupt)
    screen = "\n".join(shown(text.getvalue(), 80))
    assert screen.count("mnist 4/4") == 1
    assert "best val_error 0.0075 (trial 0)" in screen
    assert "running" not in screen
    assert "elsewhere" not in screen


@pytest.mark.parametrize("widths", [(120, 40), (40, 120), (80, 33), (120, 20)])
def test_a_resize_leaves_no_second_panel(widths: tuple[int, int]) -> None:
    display, text, target = live(widths[0])
    display.__enter__()
    display.note("above")
    display.show(board_of([GOOD, CUT]), [GOOD, CUT])
    display._live.refresh()
    before = text.getvalue()
    target.width = widths[1]
    display._live.refresh()
    display.note("more")
    display.__exit__(KeyboardInterrupt)
    screen = shown(before, widths[0])
    screen = shown(text.getvalue()[len(before) :], widths[1], reflowed(screen, widths[1]))
    assert screen[:2] == ["above", "more"]
    assert sum("mnist 4/4" in line for line in screen) == 1
    assert sum("best val_error" in line for line in screen) == 1


def reflowed(lines: list[str], width: int) -> list[str]:
    """The lines as a terminal breaks them that was made narrower."""
    return [line[i : i + width] for line in lines for i in range(0, max(1, len(line)), width)]


def shown(written: str, width: int, lines: list[str] | None = None) -> list[str]:
    """The lines on a terminal, with the few commands that a live display uses."""
    lines = list(lines or [""])
    row = len(lines) - 1
    column = len(lines[row])
    for command, text in re.findall(r"\x1b\[([?\d]*[A-Za-z])|([^\x1b])", written):
        if command.endswith("A"):
            row = max(0, row - int(command[:-1] or 1))
        elif command == "2K":
            lines[row] = ""
        elif text == "\r":
            column = 0
        elif text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text:
            assert column < width
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
    while lines and not lines[-1]:
        lines.pop()
    return lines


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
        "python -m tuner.report --study mnist",
        "python -m tuner.dashboard",
        "python -m tuner.run --study mnist --trials 8",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("source", "words"),
    [(Source.FLAG, "--precision bfloat16 "), (Source.ENVIRONMENT, ""), (Source.DEFAULT, "")],
)
def test_the_next_command_says_again_what_was_typed(source: Source, words: str) -> None:
    target, text = console(100)
    typed = Given({"precision": "bfloat16"}, {"precision": source})
    settings = dataclasses.replace(SETTINGS, given=typed)
    summarise(target, board_of(ALL), settings, "sqlite:///tuner.db", 125.0)
    assert f"python -m tuner.run --study mnist {words}--trials 8" in text.getvalue()


def test_the_summary_of_a_study_that_was_there_already() -> None:
    target, text = console(100)
    summarise(target, board_of([]), SETTINGS, "sqlite:///tuner.db", 2.0)
    assert "nothing to do: 4 trials are there, and 4 were asked for" in text.getvalue()
    assert "no trial ran to its end" in text.getvalue()
