"""Trials in the command's own process, one at a time: for a debugger."""

import contextlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator

from tuner import interrupt
from tuner.engines.interface import WAITING, Event, Gone, WorkerState
from tuner.engines.local import tensorflow_log
from tuner.storage import Database, Owner, open_database
from tuner.study import Definition
from tuner.work import Assignment, Worker

# How TensorFlow's own lines begin, before and after it has read its settings.
_NOTE = re.compile(rb"WARNING: All log messages before absl|[IWE]\d{4} [\d:.]+ |[\d :.-]+: [IWE] ")


@contextlib.contextmanager
def quiet_tensorflow(*, verbose: bool) -> Iterator[None]:
    """While a study file is loaded: leave out what TensorFlow writes to standard error.

    What it writes while it is imported heeds no setting. All else that was written follows at the
    end of the block.
    """
    for name, value in tensorflow_log(verbose=verbose).items():
        os.environ.setdefault(name, value)
    if verbose:
        yield
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            for line in kept:
                if not _NOTE.match(line):
                    os.write(2, line)


class InlineEngine:
    """See `tuner.engines.interface.Engine`; each poll runs one trial to its end."""

    def __init__(self, definition: Definition, storage: str, me: Owner) -> None:
        self._definition = definition
        self._storage = storage
        self._database: Database | None = None
        self._me = me
        self._work: Iterator[None] | None = None

    def start(self) -> None:
        """Prepare the study, as a worker process does."""
        self._definition.prepare()

    def assign(self, assignment: Assignment) -> None:
        """Be ready to take trials."""
        self._database = open_database(self._storage, patient=True)
        self._work = Worker(self._definition, assignment, self._database, self._me).work()

    def poll(self, seconds: float) -> list[Event]:  # noqa: ARG002 - the interface's argument
        """Run one trial."""
        if self._work is None:
            return []
        try:
            next(self._work)
        except StopIteration:
            self._work = None
            return [Gone(self._me, None, [])]
        return []

    def replace(self) -> None:
        """Nothing: this process cannot die and go on."""

    def drain(self) -> None:
        """Hand back at the next look."""
        interrupt.request()

    def kill(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()

    @property
    def alive(self) -> int:
        """1 while there may be more trials."""
        return int(self._work is not None)

    @property
    def workers(self) -> list[WorkerState]:
        """This process, between two trials."""
        return [WorkerState(0, self._me.pid, WAITING, None, time.monotonic())] * self.alive
