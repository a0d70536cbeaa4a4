"""Trials in the command's own process, one at a time: for a debugger."""

from collections.abc import Iterator

from tuner import interrupt
from tuner.engines.interface import Event, Gone
from tuner.storage import Database, Owner
from tuner.study import Definition
from tuner.work import Assignment, Worker


class InlineEngine:
    """See `tuner.engines.interface.Engine`; each poll runs one trial to its end."""

    def __init__(self, definition: Definition, database: Database, me: Owner) -> None:
        self._definition = definition
        self._database = database
        self._me = me
        self._work: Iterator[None] | None = None

    def start(self) -> None:
        """Prepare the study, as a worker process does."""
        interrupt.clear()
        self._definition.prepare()

    def assign(self, assignment: Assignment) -> None:
        """Be ready to take trials."""
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
        """Nothing more than `drain`."""

    @property
    def alive(self) -> int:
        """1 while there may be more trials."""
        return int(self._work is not None)
