"""A stopwatch for one trial: seconds by phase, and until each report."""

import contextlib
import time
from collections.abc import Iterator, Mapping

PHASES = ("setup", "features", "tracing", "train", "validate", "save")
"""Setting weights; computing, mapping or waiting for stored features; compiling; training;
validating; and writing the trained model."""


class Clock:
    """Sums the seconds of each phase; while a phase is within another, only the inner one runs.

    Attributes:
        phases: seconds of each of `PHASES`.
        reports: step -> seconds of all phases until its report.
    """

    def __init__(self) -> None:
        self.phases = dict.fromkeys(PHASES, 0.0)
        self.reports: dict[int, float] = {}
        self._within: list[str] = []
        self._since = 0.0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time that the block takes to ``phases[name]``."""
        self._stop()
        self._within.append(name)
        try:
            yield
        finally:
            self._stop()
            self._within.pop()

    def report(self, step: int) -> None:
        """Note that ``step`` is reported now."""
        self.reports[step] = sum(self.phases.values())

    def add(self, phases: Mapping[str, float], reports: Mapping[str, float]) -> None:
        """Count in what an earlier attempt at the trial took.

        Args:
            phases: its ``phases``.
            reports: its ``reports``, with the steps as text.
        """
        for name, seconds in phases.items():
            self.phases[name] += seconds
        self.reports = {int(step): seconds for step, seconds in reports.items()} | self.reports

    def _stop(self) -> None:
        """Add what has passed to the innermost phase, if there is one."""
        now = time.perf_counter()
        if self._within:
            self.phases[self._within[-1]] += now - self._since
        self._since = now
