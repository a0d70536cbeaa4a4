"""What a person sees while trials run: a live panel on a terminal, plain lines elsewhere."""

import time
from typing import Protocol, Self

from optuna.trial import TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.outcomes import DIVERGED
from tuner.storage import FinishedTrial, StudyProgress
from tuner.study import Snapshot

# An estimate of the time left is shown after this many trials of this command.
TRIALS_BEFORE_ESTIMATE = 3
# How often the panel is drawn, times a second.
DRAWS_PER_SECOND = 4


class Scoreboard:
    """The figures that both displays show, kept over the whole command."""

    def __init__(self, name: str, snapshot: Snapshot, target: int) -> None:
        self.name = name
        self.snapshot = snapshot
        self.target = target
        self.counts: dict[TrialState, int] = {}
        self.running: list[tuple[int, int | None, float | None]] = []
        self.best: FinishedTrial | None = None
        self.ended_here = 0
        self.diverged = 0
        self._started = time.monotonic()

    def update(self, progress: StudyProgress) -> None:
        """Take in a reading."""
        self.counts, self.running = progress.counts, progress.running
        for trial in progress.new:
            self.ended_here += trial.state != TrialState.FAIL
            self.diverged += trial.outcome == DIVERGED
            if self._is_better(trial):
                self.best = trial

    def begin(self, progress: StudyProgress, best: FinishedTrial | None, diverged: int) -> None:
        """Take in what is there before this command's first trial."""
        self.counts, self.running = progress.counts, progress.running
        self.best, self.diverged = best, diverged

    def _is_better(self, trial: FinishedTrial) -> bool:
        if trial.state != TrialState.COMPLETE or trial.value is None:
            return False
        if self.best is None or self.best.value is None:
            return True
        if self.snapshot.direction == "minimize":
            return trial.value < self.best.value
        return trial.value > self.best.value

    def count(self, state: TrialState) -> int:
        """How many trials of the study are in a state."""
        return self.counts.get(state, 0)

    @property
    def ended(self) -> int:
        """How many trials count as done."""
        return self.count(TrialState.COMPLETE) + self.count(TrialState.PRUNED)

    @property
    def failed(self) -> int:
        """How many trials are FAIL."""
        return self.count(TrialState.FAIL)

    @property
    def seconds(self) -> float:
        """Since this command began to run trials."""
        return time.monotonic() - self._started

    @property
    def per_hour(self) -> float | None:
        """Trials an hour over all workers, or None before the first ended."""
        return self.ended_here / self.seconds * 3600 if self.ended_here else None

    @property
    def seconds_left(self) -> float | None:
        """An estimate, or None while there are too few trials to make one."""
        if self.ended_here < TRIALS_BEFORE_ESTIMATE or self.per_hour is None:
            return None
        return (self.target - self.ended) / self.per_hour * 3600

    def score(self, trial: FinishedTrial) -> str:
        """A trial's value with its metric's name, or why there is none."""
        if trial.value is None:
            return trial.reason or "no value"
        return f"{self.snapshot.metric} {wording.number(trial.value)}"

    def step(self, step: int | None) -> str:
        """A step, out of the greatest one where that is known."""
        if step is None:
            return ""
        return f"step {step}" + (f"/{self.snapshot.max_step}" if self.snapshot.max_step else "")


class Display(Protocol):
    """Shows the progress of a command."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was found, with a readable last state."""

    def note(self, text: str) -> None:
        """Say something besides the figures."""

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Show the figures; ``new`` are the trials that ended since the last call."""


class PlainDisplay:
    """One line a trial: for files, pipes and ``--quiet``."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        """Print a line."""
        self._line(text)

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Print a line for each trial that ended."""
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
            if board.seconds_left is not None:
                parts.append(f"{wording.duration(board.seconds_left)} left")
            self._line(", ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveDisplay:
    """A panel that is drawn in place: for terminals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._board: Scoreboard | None = None
        self._live = Live(
            console=console, refresh_per_second=DRAWS_PER_SECOND, get_renderable=self._draw
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a line above the panel."""
        self._console.print(text, markup=False, highlight=False, style="dim")

    def show(self, board: Scoreboard, new: list[FinishedTrial]) -> None:
        """Take the figures for the next drawing, and print a line for each failure."""
        self._board = board
        for trial in new:
            if trial.state == TrialState.FAIL:
                self.note(f"trial {trial.number} failed: {trial.reason}")

    def _draw(self) -> Group:
        if self._board is None:
            return Group(Text("starting the workers ...", style="dim"))
        board = self._board
        return Group(_bar(board), _states(board), *_running(board), *_best(board))


def _bar(board: Scoreboard) -> Table:
    left = board.seconds_left
    times = f"{wording.duration(board.seconds)} so far"
    times += f", about {wording.duration(left)} left" if left is not None else ""
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(no_wrap=True)
    row.add_column(ratio=1, min_width=8)
    row.add_column(no_wrap=True, justify="right")
    row.add_row(
        Text(f"{board.name} {board.ended}/{board.target}", style="bold"),
        ProgressBar(total=board.target, completed=min(board.ended, board.target)),
        Text(times, style="dim"),
    )
    return row


def _states(board: Scoreboard) -> Text:
    rate = f" · {board.per_hour:,.0f} trials an hour" if board.per_hour else ""
    return Text.assemble(
        (f"{board.count(TrialState.COMPLETE)} complete", "green"),
        " · ",
        (f"{board.count(TrialState.PRUNED)} pruned", "yellow"),
        " · ",
        (f"{board.failed} failed", "red" if board.failed else ""),
        " · ",
        f"{board.count(TrialState.RUNNING)} running",
        rate,
    )


def _running(board: Scoreboard) -> list[Text]:
    lines = []
    for number, step, value in board.running:
        at = f"{board.step(step)}, {board.snapshot.metric} {wording.number(value)}"
        lines.append(Text(f"  trial {number}  {at if step is not None else 'starting'}"))
    return lines


def _best(board: Scoreboard) -> list[Text]:
    if board.best is None:
        return []
    best = board.best
    head = f"best {board.score(best)} (trial {best.number}) "
    return [Text.assemble((head, "bold"), wording.params(best.params))]
