"""What one worker does, kept up to date from what it tells."""

import time
from dataclasses import dataclass, field, replace

from tuner.engines.interface import WorkerState


@dataclass
class Activity:
    """What one worker does.

    Attributes:
        number: the worker's, from 1.
        pid: of its process.
        doing: in words, while there is no one-time work.
        at_trial: whether that is a trial.
    """

    number: int
    pid: int
    doing: str
    at_trial: bool = False
    _since: float = field(default_factory=time.monotonic)
    _work: WorkerState | None = None  # one-time work

    def begin(self, doing: str, *, at_trial: bool = False) -> None:
        """Something else begins."""
        self.doing, self.at_trial, self._work = doing, at_trial, None
        self._since = time.monotonic()

    def work(self, text: object, done: object) -> None:
        """One-time work is so far, or has ended; see `tuner.log.watch`."""
        if text is None:
            self._work = None
            return
        now = time.monotonic()
        if self._work is None or self._work.doing != text:
            self._work = WorkerState(self.number, self.pid, str(text), None, now)
        if isinstance(done, int | float):
            self._work = replace(self._work, done=float(done), told=now)

    @property
    def state(self) -> WorkerState:
        """As the display takes it."""
        return self._work or WorkerState(
            self.number, self.pid, self.doing, None, self._since, at_trial=self.at_trial
        )
