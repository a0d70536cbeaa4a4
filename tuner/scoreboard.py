"""The figures that every display shows, kept over the whole command."""

import math
import time
from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from tuner import wording
from tuner.dominance import front
from tuner.engines.interface import WorkerState
from tuner.outcomes import DIVERGED, INFEASIBLE
from tuner.storage import FinishedTrial, RequestState, RunningTrial, StudyProgress, this_process
from tuner.study import Snapshot
from tuner.time_left import Ended, TimeLeft, estimate

# An estimate of the time left is shown after this many trials of this command.
TRIALS_BEFORE_ESTIMATE = 3


class Scoreboard:
    """A study as this command sees it.

    Attributes:
        counts: trials by state.
        running: the trials that run, on any host.
        workers: what each worker of this command does.
        best: the best COMPLETE trial that keeps to every constraint; None without, and with several
            objectives.
        front: with several objectives the trials that no other beats: values by number.
        history: (ended trials, best value) whenever there was a better one, in that order.
        ended_here: how many trials ended COMPLETE or PRUNED since this command began, on any host.
        diverged: how many of the study's trials diverged.
        infeasible: how many break a constraint.
        paused: whether somebody paused the study.
        host: this host's name, as the running trials give it.
    """

    def __init__(self, name: str, snapshot: Snapshot, target: int) -> None:
        self.name = name
        self.snapshot = snapshot
        self.target = target
        self.counts: dict[TrialState, int] = {}
        self.running: list[RunningTrial] = []
        self.workers: Sequence[WorkerState] = ()
        self.best: FinishedTrial | None = None
        self.front: dict[int, list[float]] = {}
        self.history: list[tuple[int, float]] = []
        self.ended_here = 0
        self.diverged = 0
        self.infeasible = 0
        self.paused = False
        self.host = this_process().host
        self._started = time.monotonic()
        self._ends: list[tuple[float, float]] = []  # seconds, and when it ended by time.monotonic
        self._wasted = 0.0  # seconds of trials that failed

    def begin(
        self,
        progress: StudyProgress,
        best: FinishedTrial | None,
        outcomes: Mapping[str, int],
        complete: Sequence[tuple[int, list[float]]] = (),
    ) -> None:
        """Take in what is there before this command's first trial.

        Args:
            progress: a first reading.
            best: the best trial so far.
            outcomes: how many trials ended in each of `tuner.outcomes` so far.
            complete: number and values of each COMPLETE trial that keeps to every constraint, in
                order of the numbers.
        """
        self.counts, self.running, self.best = progress.counts, progress.running, best
        self.diverged = outcomes.get(DIVERGED, 0)
        self.infeasible = outcomes.get(INFEASIBLE, 0)
        if self.snapshot.more_objectives:
            self._weigh(dict(complete))
            return
        for number, values in complete:
            self._remember(min(number + 1, self.ended), values[0])

    def update(self, progress: StudyProgress) -> None:
        """Take in a reading."""
        ended = self.ended
        self.counts, self.running = progress.counts, progress.running
        self.paused = bool(progress.request and progress.request.state is RequestState.PAUSED)
        for trial in progress.new:
            if trial.state == TrialState.FAIL:
                self._wasted += trial.seconds or 0.0
                continue
            ended += 1
            self.ended_here += 1
            self.diverged += trial.outcome == DIVERGED
            if trial.seconds is not None:
                self._ends.append((trial.seconds, time.monotonic()))
            if trial.outcome == INFEASIBLE:
                self.infeasible += 1
                continue
            if trial.state != TrialState.COMPLETE:
                continue
            if self.snapshot.more_objectives:
                self._weigh({trial.number: trial.values})
            elif trial.value is not None:
                if self.best is None or self._is_better(trial.value, self.best.value):
                    self.best = trial
                self._remember(ended, trial.value)

    def _weigh(self, more: dict[int, list[float]]) -> None:
        """Take in trials of a study with several objectives."""
        known = {**self.front, **more}
        kept = front(known, self.snapshot.directions)
        self.front = {number: values for number, values in known.items() if number in kept}

    def _remember(self, ended: int, value: float) -> None:
        if math.isfinite(value) and self._is_better(
            value, self.history[-1][1] if self.history else None
        ):
            self.history.append((ended, value))

    def _is_better(self, value: float, than: float | None) -> bool:
        if than is None:
            return True
        return value < than if self.snapshot.direction == "minimize" else value > than

    def best_curve(self, most: int) -> list[float]:
        """The best value so far after each ended trial, from the first COMPLETE one on.

        Args:
            most: at most so many values, evenly spread over the trials, the last one included.
        """
        if not self.history or most < 1:
            return []
        first, end = self.history[0][0], max(self.ended, self.history[-1][0])
        count = min(most, end - first + 1)
        curve, place = [], 0
        for index in range(count):
            at = end if count == 1 else first + round(index * (end - first) / (count - 1))
            while place + 1 < len(self.history) and self.history[place + 1][0] <= at:
                place += 1
            curve.append(self.history[place][1])
        return curve

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
    def time_left(self) -> TimeLeft | None:
        """An estimate, or None while there are too few trials to make one, and in a pause."""
        if len(self._ends) < TRIALS_BEFORE_ESTIMATE or self.paused:
            return None
        now, share = time.monotonic(), self._wasted / len(self._ends)
        return estimate(
            [Ended(seconds + share, now - end) for seconds, end in self._ends],
            [trial.seconds for trial in self.running if trial.seconds is not None],
            missing=self.target - self.ended,
            workers=max(1, len(self.workers), len(self.running)),
        )

    @property
    def time_left_in_words(self) -> str:
        """The same in words, or ""."""
        left = self.time_left
        return "" if left is None else wording.time_left(left.low, left.high)

    def score(self, trial: FinishedTrial) -> str:
        """A trial's value with its metric's name, or why there is none."""
        return self.scores(trial.values) if trial.values else trial.reason or "no value"

    def scores(self, values: Sequence[float]) -> str:
        """The value of each objective with its name; of a pruned trial there is one."""
        pairs = zip(self.snapshot.metrics, values, strict=False)
        return ", ".join(f"{name} {wording.number(value)}" for name, value in pairs)

    def step(self, step: int) -> str:
        """How far a trial is."""
        return wording.progress_of(step, self.snapshot.max_step, self.snapshot.steps_per_epoch)
