"""The live panel: lines that fit any terminal, for workers here and elsewhere."""

import dataclasses
import itertools
import time

import pytest
from optuna.trial import TrialState

from tests.unit.test_display import GOOD, PARAMS
from tuner import panel, wording
from tuner.engines.interface import WorkerState
from tuner.panel import Size, draw, sparkline, starting
from tuner.scoreboard import Scoreboard
from tuner.storage import ANOTHER_PROGRAM, RunningTrial, StudyProgress
from tuner.study import Snapshot

WIDE = Size(120, 30)


def running(number: int, host: str, pid: int | None, step: int | None = None) -> RunningTrial:
    value = None if step is None else 0.0123
    return RunningTrial(number, host, pid, None, 72.0, 1.0, step, value)


def at_trial(number: int, pid: int) -> WorkerState:
    return WorkerState(number, pid, f"trial {number}", None, time.monotonic(), at_trial=True)


def board_of(
    workers: list[WorkerState], trials: list[RunningTrial], steps_per_epoch: int | None = 4
) -> Scoreboard:
    snapshot = Snapshot(None, "val_error", "minimize", 20, "s.py", "h", steps_per_epoch)
    board = Scoreboard("mnist", snapshot, 100)
    board.host = "here"
    counts = {TrialState.COMPLETE: 5, TrialState.PRUNED: 32, TrialState.RUNNING: len(trials)}
    there = [(number, [0.5 / (1 + number)]) for number in range(0, 37, 3)]
    board.begin(StudyProgress(counts, [], trials, None), GOOD, {}, there)
    board.workers = workers
    return board


def many(count: int) -> Scoreboard:
    """So many workers, half of them on another host, with long names and numbers."""
    here = [at_trial(number, 1000 + number) for number in range(1, count // 2 + 1)]
    trials = [running(1200 + worker.number, "here", worker.pid, 5) for worker in here]
    trials += [
        running(1300 + i, f"node-{i}.eu-west-1.compute.internal", 4194000 + i, 2)
        for i in range(count - len(here))
    ]
    return board_of(here, trials)


def text_of(board: Scoreboard, size: Size) -> list[str]:
    return [line.plain for line in draw(board, size)]


def test_a_line_for_each_worker_with_trial_epoch_value_and_seconds() -> None:
    now = time.monotonic()
    board = board_of(
        [
            at_trial(1, 11),
            at_trial(2, 12),
            WorkerState(3, 13, "waiting for a trial", None, now - 3),
            WorkerState(4, 14, "computing features", 0.5, now - 4, now),
        ],
        [
            running(37, "here", 11, 8),
            running(38, "there", 12, 5),
            running(39, "here", 12),
            running(40, "here", 14),
            running(41, ANOTHER_PROGRAM, None, 20),
        ],
    )
    lines = text_of(board, WIDE)
    assert lines[0].startswith("mnist 37/100 ━")
    assert lines[0].endswith(" 37 %")
    assert lines[1] == "5 complete · 32 pruned · 0 failed · 5 running"
    assert lines[3:9] == [
        "  worker 1         trial 37  epoch 2/5   val_error 0.0123  1 min 12 s",
        "  worker 2         trial 39  running                       1 min 12 s",
        "  worker 3         waiting for a trial  3 s",
        "  worker 4         trial 40  computing features  ━━━━━━──────  50 %, about 4 s left",
        "  there 12         trial 38  epoch 1¼/5  val_error 0.0123  1 min 12 s",
        "  another program  trial 41  epoch 5/5   val_error 0.0123  1 min 12 s",
    ]
    assert lines[9].startswith("best val_error 0.0075 (trial 0)  █")
    assert lines[10] == f"  {wording.params(PARAMS)}"


def test_of_several_objectives_each_ones_best_is_shown() -> None:
    board = board_of([], [])
    board.best = None
    board.snapshot = dataclasses.replace(board.snapshot, more_objectives=(("size", "maximize"),))
    board.front = {3: [0.25, 100.0], 8: [0.5, 2_000.0]}
    assert text_of(board, WIDE)[-3:] == [
        "2 trials not beaten in val_error and size",
        "  best val_error 0.25 (trial 3)",
        "  best size 2000 (trial 8)",
    ]


def test_without_epochs_steps_are_shown() -> None:
    board = board_of([], [running(1, "there", 12, 8)], steps_per_epoch=None)
    assert "step 8/20" in text_of(board, WIDE)[3]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (120, "  worker 1  trial 1201  epoch 1¼/5  val_error 0.0123  1 min 12 s"),
        (60, "  worker 1  trial 1201  epoch 1¼/5  val_error 0.0123"),
        (44, "  worker 1  trial 1201  epoch 1¼/5  0.0123"),
        (40, "  w1  trial 1201  epoch 1¼/5  0.0123"),
        (33, "  w1  1201  epoch 1¼/5  0.0123"),
        (20, "  w1  1201  epoch 1…"),
    ],
)
def test_columns_give_way_on_a_narrow_terminal(width: int, line: str) -> None:
    board = board_of([at_trial(1, 11)], [running(1201, "here", 11, 5)])
    assert text_of(board, Size(width, 24))[3] == line


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize("count", [0, 1, 8, 40])
def test_the_panel_fits_every_terminal(count: int, ascii_only: bool) -> None:
    board = many(count)
    first = [WorkerState(4, 1, "training the base", 0.5, 0.0, 1.0)]
    first += [WorkerState(5, 2, "loading studies/mnist.py", None, 0.0)]
    board.workers = [*first, *board.workers]
    for width, height in itertools.product((1, 10, 20, 40, 80, 120, 300), (1, 2, 5, 8, 24, 60)):
        size = Size(width, height, ascii_only)
        for lines in (draw(board, size), draw(board, size, ended=True), starting(first, size)):
            assert 1 <= len(lines) <= max(1, height - 1)
            assert max(line.cell_len for line in lines) <= width
            assert not any("\n" in line.plain for line in lines)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_more_workers_than_lines_are_counted(width: int) -> None:
    lines = text_of(many(40), Size(width, 24))
    shown = [line for line in lines if " 0.0123" in line]
    assert f"  ... and {40 - len(shown)} more" in lines
    assert len(lines) == 23
    assert any("best val_error" in line for line in lines)


def test_a_terminal_with_ascii_only_gets_ascii() -> None:
    lines = text_of(many(2), Size(80, 24, ascii_only=True))
    assert all(line.isascii() for line in lines)
    assert "epoch 1.25/5" in lines[3]
    assert "####" in lines[0]
    assert lines[5] == "best val_error 0.0075 (trial 0)"


def test_a_sparkline_is_logarithmic_where_it_can_be() -> None:
    assert sparkline([10.0**-n for n in range(8)]) == "█▇▆▅▄▃▂▁"
    assert sparkline([0.0, 1.0, 3.0, 7.0]) == "▁▂▄█"
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert sparkline([0.5]) == sparkline([]) == ""
    assert len(sparkline([float(n) for n in range(9)])) == 9
    assert set(sparkline([float(n) for n in range(99)])) == set(panel.BLOCKS)


def test_what_workers_do_while_the_study_is_loaded() -> None:
    states = [WorkerState(1, 1, "loading studies/mnist.py", None, time.monotonic() - 4)]
    assert [line.plain for line in starting(states, WIDE)] == [
        "starting ...", "  worker 1  loading studies/mnist.py  4 s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "per_epoch", "words"),
    [
        (8, 4, "epoch 2/5"), (2, 4, "epoch ½/5"), (5, 4, "epoch 1¼/5"), (19, 4, "epoch 4¾/5"),
        (3, 1, "epoch 3/20"), (7, 5, "epoch 1.4/4"), (1, 20, "epoch 0.1/1"), (0, 4, "epoch 0/5"),
        (8, None, "step 8/20"),
    ],
)  # fmt: skip
def test_epochs_in_words(step: int, per_epoch: int | None, words: str) -> None:
    assert wording.progress_of(step, 20, per_epoch) == words


def test_steps_and_epochs_without_an_end() -> None:
    assert wording.progress_of(8, None, None) == "step 8"
    assert wording.progress_of(6, None, 4) == "epoch 1½"


@pytest.mark.parametrize("values", [[1e308, -1e308], [5e-324, 1e308], [-1e308, 0.0, 1e308]])
def test_a_sparkline_of_extremes(values: list[float]) -> None:
    drawn = panel.sparkline(values)
    assert len(drawn) == len(values)
    assert {panel.BLOCKS[0], panel.BLOCKS[-1]} <= set(drawn)
