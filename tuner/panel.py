"""What the live panel says, as lines that fit a terminal: pure functions of the figures."""

import math
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import TrialState
from rich.cells import cell_len, set_cell_size
from rich.text import Text

from tuner import wording
from tuner.engines.interface import WorkerState
from tuner.scoreboard import Scoreboard
from tuner.storage import RunningTrial

BLOCKS = "▁▂▃▄▅▆▇█"
# A sparkline beside the best value is at least so wide, else it gets a line of its own.
LEAST_SPARKLINE, MOST_SPARKLINE = 12, 60
# The best trial's parameters take at most so many lines.
PARAMS_LINES = 3
# The bar of the whole study is at most so wide, lest it be broken when the terminal is narrowed.
MOST_BAR = 60
# A bar of one-time work has so many characters.
WORK_BAR = 12
# A trial that has reported nothing is said to be starting for so long, in seconds.
STARTING_SECONDS = 5.0
# Longer names of other hosts are cut.
LONGEST_HOST = 20


@dataclass(frozen=True)
class Size:
    """A terminal: columns, rows, and whether it has only ASCII."""

    width: int
    height: int
    ascii_only: bool = False


def starting(workers: Sequence[WorkerState], size: Size) -> list[Text]:
    """The panel while there are no figures yet."""
    rows = [_Row.of_worker(worker, None) for worker in workers]
    return _fitted([Text("starting ...", style="dim"), *_lines_of(rows, None, size, 1)], size)


def draw(board: Scoreboard, size: Size, *, ended: bool = False) -> list[Text]:
    """The panel, at most as high and wide as the terminal.

    Args:
        board: the figures.
        size: of the terminal.
        ended: this is what stays when the command has ended before the study has.
    """
    head = [
        _title(board, size),
        _states(board, size, ended=ended),
        _times(board, size, ended=ended),
    ]
    best = _best(board, size)
    rows = [] if ended else _rows(board)
    if len(head) + len(best) + min(len(rows), 2) >= size.height:
        best = best[:1]  # no room for the parameters
    lines = [*head, *_lines_of(rows, board, size, len(head) + len(best)), *best]
    return _fitted(lines, size)


def sparkline(values: Sequence[float]) -> str:
    """A block for each value, the higher the greater; on a log scale where all are positive."""
    if len(values) < 2:
        return ""
    if min(values) > 0:
        values = [math.log(value) for value in values]
    values = [value / 2 for value in values]  # so that no difference is infinite
    low, high = min(values), max(values)
    top = len(BLOCKS) - 1
    return "".join(
        BLOCKS[round((value - low) / (high - low) * top) if high > low else 0] for value in values
    )


def _fitted(lines: list[Text], size: Size) -> list[Text]:
    """The lines that there is room for, none of them wider than the terminal."""
    if size.ascii_only:
        lines = [Text(wording.in_ascii(line.plain)) for line in lines]
    for line in lines:
        line.no_wrap = True
        line.truncate(size.width, overflow="crop" if size.ascii_only else "ellipsis")
    return lines[: max(1, size.height - 1)]


def _first_that_fits(width: int, *candidates: str) -> str:
    return next((text for text in candidates if cell_len(text) <= width), candidates[-1])


def _title(board: Scoreboard, size: Size) -> Text:
    done = min(1.0, board.ended / board.target)
    name = f"{board.name} {board.ended}/{board.target} "
    percent = f" {100 * done:3.0f} %"
    width = min(MOST_BAR, size.width - cell_len(name) - len(percent))
    if width < 5:
        return Text(name, style="bold")
    return Text.assemble((name, "bold"), *_bar(done, width, size), percent)


def _bar(done: float, width: int, size: Size) -> list[tuple[str, str]]:
    full = round(done * width)
    line, rest = ("#", "-") if size.ascii_only else ("━", "─")  # without colours, too
    return [(line * full, "green"), (rest * (width - full), "bright_black")]


def _states(board: Scoreboard, size: Size, *, ended: bool) -> Text:
    parts = [
        (f"{board.count(TrialState.COMPLETE)} complete", "green"),
        (f"{board.count(TrialState.PRUNED)} pruned", "yellow"),
        (f"{board.failed} failed", "red" if board.failed else ""),
    ]
    if not ended:
        parts.append((f"{board.count(TrialState.RUNNING)} running", ""))
    if board.per_hour is not None:
        parts.append((f"{board.per_hour:,.0f} trials an hour", ""))
        if sum(len(text) + 3 for text, _ in parts) - 3 > size.width:
            parts[-1] = (f"{board.per_hour:,.0f}/h", "")
    if sum(len(text) + 3 for text, _ in parts) - 3 > size.width:
        parts = [part for part in parts if not part[0].startswith("0 ")]
    if sum(len(text) + 3 for text, _ in parts) - 3 > size.width:
        parts = [part for part in parts if not part[0].endswith(" running")]  # their lines follow
    return Text(" · ").join([Text(text, style=style) for text, style in parts])


def _times(board: Scoreboard, size: Size, *, ended: bool) -> Text:
    spent = wording.duration(board.seconds)
    left = "paused" if board.paused else board.time_left_in_words
    if ended or board.ended >= board.target:
        left = ""
    both = _first_that_fits(size.width, f"{spent} so far · {left}", f"{spent} · {left}", left)
    return Text(both if left else f"{spent} so far", style="yellow" if board.paused else "dim")


def _best(board: Scoreboard, size: Size) -> list[Text]:
    best = board.best
    if board.front:
        return _front(board)
    if best is None:
        return []
    head = f"best {board.score(best)} (trial {best.number})"
    room = size.width - cell_len(head) - 2
    own_line = room < LEAST_SPARKLINE
    room = min(size.width - 2 if own_line else room, MOST_SPARKLINE)
    curve = "" if size.ascii_only else sparkline(board.best_curve(room))
    beside = f"  {curve}" if curve and not own_line else ""
    lines = [Text.assemble((head, "bold"), (beside, "green"))]
    lines += [Text(f"  {curve}", style="green")] if curve and own_line else []
    params = textwrap.wrap(
        wording.params(best.params),
        max(10, size.width - 2),
        max_lines=PARAMS_LINES,
        placeholder=" ...",
        break_on_hyphens=False,
    )
    return lines + [Text(f"  {line}", style="dim") for line in params]


def _front(board: Scoreboard) -> list[Text]:
    """Of several objectives: how many trials no other beats, and the best of each objective."""
    metrics, directions = board.snapshot.metrics, board.snapshot.directions
    head = f"{wording.count(len(board.front), 'trial')} not beaten in {' and '.join(metrics)}"
    lines = [Text(head, style="bold")]
    for place, (metric, direction) in enumerate(zip(metrics, directions, strict=True)):
        pick = min if direction == "minimize" else max
        number = pick(board.front, key=lambda it: board.front[it][place])
        value = wording.number(board.front[number][place])
        lines.append(Text(f"  best {metric} {value} (trial {number})", style="dim"))
    return lines


# --- a line for each worker ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """A worker's line; ``short`` is its name where there is little room."""

    who: str
    short: str
    worker: WorkerState | None
    trial: RunningTrial | None

    @staticmethod
    def of_worker(worker: WorkerState, trial: RunningTrial | None) -> "_Row":
        return _Row(f"worker {worker.number}", f"w{worker.number}", worker, trial)

    @staticmethod
    def of_host(trial: RunningTrial) -> "_Row":
        host = trial.host
        if len(host) > LONGEST_HOST:
            host = f"{host[: LONGEST_HOST - 2]}.."
        who = host if trial.pid is None else f"{host} {trial.pid}"
        return _Row(
            who, f"{host[:8]}..{trial.pid}" if trial.pid and len(who) > 12 else who, None, trial
        )


def _rows(board: Scoreboard) -> list[_Row]:
    """This command's workers by their numbers, then the trials of others."""
    mine = {trial.pid: trial for trial in board.running if trial.host == board.host}
    rows = [_Row.of_worker(worker, mine.get(worker.pid)) for worker in board.workers]
    pids = {worker.pid for worker in board.workers}
    others = [trial for trial in board.running if trial.host != board.host or trial.pid not in pids]
    others.sort(key=lambda trial: (trial.pid is None, trial.host, trial.pid or 0, trial.number))
    return rows + [_Row.of_host(trial) for trial in others]


def _lines_of(
    rows: list[_Row], board: Scoreboard | None, size: Size, other_lines: int
) -> Iterator[Text]:
    """The lines that there is room for beside so many others; the rest is counted."""
    room = max(1, size.height - 1 - other_lines)
    shown = rows if len(rows) <= room else rows[: room - 1]
    trials = [row for row in shown if not _does_something_else(row)]
    columns = next(
        (columns for columns in _LAYOUTS if _width(columns, shown, trials, board) <= size.width),
        _LAYOUTS[-1],
    )
    for row in shown:
        cells = list(columns)
        if _does_something_else(row) and row.worker is not None:
            named = [_padded(cells[0], row, shown, board)]
            named += [_padded(cells[1], row, shown, board)] if row.trial else []
            start = "  ".join(["", *named, ""])
            yield Text.assemble(start, *_words(row.worker, size.width - cell_len(start), size))
        else:
            yield Text("  ".join(["", *(_padded(cell, row, trials, board) for cell in cells)]))
    if len(rows) > len(shown):
        yield Text(f"  ... and {len(rows) - len(shown)} more", style="dim")


def _does_something_else(row: _Row) -> bool:
    """Whether its worker has no trial, or is busy with something that a trial has to wait for."""
    return row.worker is not None and (row.trial is None or not row.worker.at_trial)


def _words(worker: WorkerState, width: int, size: Size) -> list[tuple[str, str]]:
    """What a worker does, how much of it is done, and how long it will still take."""
    now = time.monotonic()
    if worker.done is None:
        return [(f"{worker.doing}  {wording.duration(now - worker.since)}", "cyan")]
    far = wording.how_far(worker.done, worker.told - worker.since, now - worker.told)
    text = worker.doing
    if len(text) + 2 + WORK_BAR + 2 + len(far) <= width:
        return [(f"{text}  ", "cyan"), *_bar(worker.done, WORK_BAR, size), (f"  {far}", "cyan")]
    percent = far.partition(",")[0]
    ending = _first_that_fits(width - min(len(text), 12) - 2, far, percent)
    return [(f"{set_cell_size(text, max(0, min(len(text), width - len(ending) - 2)))}  ", "cyan"),
            (ending, "cyan")]  # fmt: skip


_Cell = Callable[[_Row, Scoreboard | None], str]


def _who(row: _Row, _board: Scoreboard | None) -> str:
    return row.who


def _short(row: _Row, _board: Scoreboard | None) -> str:
    return row.short


def _trial(row: _Row, _board: Scoreboard | None) -> str:
    return f"trial {row.trial.number}" if row.trial else ""


def _number(row: _Row, _board: Scoreboard | None) -> str:
    return str(row.trial.number) if row.trial else ""


def _progress(row: _Row, board: Scoreboard | None) -> str:
    if row.trial is None or board is None or row.trial.step is None:
        long = row.trial is not None and (row.trial.seconds or 0.0) > STARTING_SECONDS
        return "running" if long else "starting"
    return board.step(row.trial.step)


def _value(row: _Row, board: Scoreboard | None) -> str:
    bare = _bare_value(row, board)
    return f"{board.snapshot.metric} {bare}" if bare and board else bare


def _bare_value(row: _Row, _board: Scoreboard | None) -> str:
    return "" if row.trial is None or row.trial.step is None else wording.number(row.trial.value)


def _seconds(row: _Row, _board: Scoreboard | None) -> str:
    known = row.trial is not None and row.trial.seconds is not None
    return wording.duration(row.trial.seconds or 0.0) if known and row.trial else ""


# From the widest to the narrowest: the first that fits is taken, the last is cut.
_LAYOUTS: tuple[tuple[_Cell, ...], ...] = (
    (_who, _trial, _progress, _value, _seconds),
    (_who, _trial, _progress, _value),
    (_who, _trial, _progress, _bare_value),
    (_short, _trial, _progress, _bare_value),
    (_short, _number, _progress, _bare_value),
)
# Of these columns, lines without a trial have cells, too.
_NAMES = (_who, _short)
_FLUSH_RIGHT = (_seconds, _number)


def _width(
    columns: Sequence[_Cell], rows: list[_Row], trials: list[_Row], board: Scoreboard | None
) -> int:
    if not trials:
        return 0
    return sum(
        2 + max(cell_len(cell(row, board)) for row in (rows if cell in _NAMES else trials))
        for cell in columns
    )


def _padded(cell: _Cell, row: _Row, rows: list[_Row], board: Scoreboard | None) -> str:
    width = max(cell_len(cell(one, board)) for one in rows)
    text = cell(row, board)
    return text.rjust(width) if cell in _FLUSH_RIGHT else set_cell_size(text, width)
