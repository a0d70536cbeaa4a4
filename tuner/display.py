"""What a person sees while trials run: a live panel on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Protocol, Self, TextIO

from optuna.trial import TrialState
from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.text import Text

from tuner import panel, wording
from tuner.engines.interface import LOADING, WorkerState
from tuner.scoreboard import Scoreboard
from tuner.storage import FinishedTrial

logger = logging.getLogger(__name__)

# How often the panel is drawn, times a second.
DRAWS_PER_SECOND = 4
# Plain lines say that a study file is being loaded after so many seconds, and how far one-time work
# is every so many.
LOADING_SECONDS = 2.0
PROGRESS_SECONDS = 10.0


class Display(Protocol):
    """Shows the progress of a command."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the terminal as it was found, with a readable last state."""

    def note(self, text: str) -> None:
        """Say something besides the figures."""

    def start(self, workers: Sequence[WorkerState]) -> None:
        """Show what the workers do while there are no figures yet."""

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Show the figures; ``new`` are the trials that ended since the last call."""


class PlainDisplay:
    """One line a trial: for files, pipes and ``--quiet``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told_loading = False
        self._told: dict[tuple[int, float], float] = {}  # one-time work -> last line, monotonic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def start(self, workers: Sequence[WorkerState]) -> None:
        """Print what takes long: loading the study file once, one-time work now and then."""
        now = time.monotonic()
        for worker in workers:
            loading = worker.doing.startswith(LOADING) and now - worker.since > LOADING_SECONDS
            if loading and not self._told_loading:
                self._told_loading = True
                self._line(f"{worker.doing} ...")
            if worker.done is None:
                continue
            work = (worker.pid, worker.since)
            if now - self._told.setdefault(work, worker.since) >= PROGRESS_SECONDS:
                self._told[work] = now
                far = wording.how_far(worker.done, worker.told - worker.since, now - worker.told)
                self._line(f"worker {worker.number}: {worker.doing}: {far}")

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Print a line for each trial that ended."""
        self.start(board.workers)
        ended = board.ended - sum(trial.state != TrialState.FAIL for trial in new)
        for trial in new:
            ended += trial.state != TrialState.FAIL
            outcome = trial.outcome or trial.state.name.lower()
            parts = [
                f"[{ended}/{board.target}] trial {trial.number} {outcome}: {board.score(trial)}"
            ]
            if trial.last_step is not None and trial.state != TrialState.COMPLETE:
                parts.append(f"at {board.step(trial.last_step)}")
            if trial.seconds is not None:
                parts.append(wording.duration(trial.seconds))
            parts.append(wording.params(trial.params))
            if board.best is not None:
                best = wording.number(board.best.value)
                parts.append(f"best {best} (trial {board.best.number})")
            elif board.front:
                parts.append(f"{wording.count(len(board.front), 'trial')} not beaten")
            if board.ended < board.target:
                parts.append(board.time_left_in_words)
            self._line(", ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._console.print(_clean(self._console, text), soft_wrap=True)


class LiveDisplay:
    """A panel that is drawn in place: for terminals. After an error its last state stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board: Scoreboard | None = None
        self._starting: Sequence[WorkerState] = ()
        self._ended = False
        self._live = _Live(console, self._draw)
        self._stderr = sys.stderr

    def __enter__(self) -> Self:
        self._stderr = sys.stderr
        self._live.start()
        _redirect_logs(self._stderr, sys.stderr)  # log lines come above the panel, not into it
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ended = True
        self._live.transient = kind is None or self._board is None  # else the summary says it all
        _redirect_logs(sys.stderr, self._stderr)
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a line above the panel."""
        self._console.print(_clean(self._console, text, style="dim"))

    def start(self, workers: Sequence[WorkerState]) -> None:
        """Take what the workers do for the next drawing."""
        self._starting = workers

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Take the figures for the next drawing, and print a line for each failure."""
        self._board = board
        for trial in new:
            if trial.state == TrialState.FAIL:
                self.note(f"trial {trial.number} failed: {trial.reason}")

    def _draw(self) -> list[Text]:
        size = panel.Size(*self._console.size, ascii_only=self._console.options.ascii_only)
        try:
            if self._board is None:
                return panel.starting(self._starting, size)
            return panel.draw(self._board, size, ended=self._ended)
        except Exception:
            logger.debug("the panel cannot be drawn", exc_info=True)
            return [Text("the panel cannot be drawn; -v says why", style="dim")]


class _Live(Live):
    """A live display that finds its last frame again when the terminal was made narrower.

    Terminals then break the lines that no longer fit, so that the frame has more rows than before.
    """

    def __init__(self, console: Console, draw: Callable[[], list[Text]]) -> None:
        self._draw = draw
        self._lines: list[Text] = []  # of the frame that is to be shown
        self._shown: list[int] = []  # columns of each line of the frame on the terminal
        super().__init__(
            console=console,
            refresh_per_second=DRAWS_PER_SECOND,
            get_renderable=self._frame,
            redirect_stderr=sys.stderr.isatty(),
        )

    def _frame(self) -> Group:
        self._lines = self._draw()
        return Group(*self._lines)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Move to the frame's first row, and draw it anew."""
        width = max(1, self.console.width)
        if self._shown:
            rows = sum(max(1, -(-columns // width)) for columns in self._shown)
            self._live_render._shape = (width, rows)
        self._shown = [min(width, cell_len(line.plain)) for line in self._lines]
        return super().process_renderables(renderables)


def _redirect_logs(before: TextIO, after: TextIO) -> None:
    """Let loggers that write to one stream write to another."""
    for name in ("tuner", "optuna"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                handler.setStream(after)


def _clean(console: Console, text: str, style: str = "") -> Text:
    """Text that may have colours and other commands for a terminal in it, as this one can show."""
    decoded = Text.from_ansi(text, style=style)
    if console.options.ascii_only:
        return Text(wording.in_ascii(decoded.plain), style=style)
    return decoded
