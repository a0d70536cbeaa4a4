"""One flag a process: has somebody asked this worker to stop?

The signal handler and the lifeline to the supervisor only set the flag. Code between two units of
work (a training loop between batches, a trial at its report) calls `check`, which leaves the
objective by an exception, so that the trial is handed back and its row is never left RUNNING.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_stop = threading.Event()
_in_objective = threading.Event()


class HandBack(BaseException):
    """Leave the objective and hand the trial back; ``except Exception`` must not eat it."""


def request() -> None:
    """Ask the work in this process to stop at its next `check`."""
    _stop.set()


def requested() -> bool:
    """Whether a stop has been asked for."""
    return _stop.is_set()


def clear() -> None:
    """Forget an earlier request: a process that runs trials itself starts anew."""
    _stop.clear()


def wait(seconds: float) -> bool:
    """Sleep for ``seconds`` or until a stop is asked for; return whether it was."""
    return _stop.wait(seconds)


@contextmanager
def objective() -> Iterator[None]:
    """While the user's objective runs: what may be left at any point."""
    _in_objective.set()
    try:
        yield
    finally:
        _in_objective.clear()


def in_objective() -> bool:
    """Whether this process is within `objective`."""
    return _in_objective.is_set()


def check() -> None:
    """Raise `HandBack` if a stop has been asked for."""
    if _stop.is_set():
        raise HandBack
