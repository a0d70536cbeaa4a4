"""What a command asks of an engine, and what an engine tells it."""

from dataclasses import dataclass
from typing import Protocol

from tuner import wording
from tuner.errors import TunerError
from tuner.storage import Owner
from tuner.study import Snapshot
from tuner.work import Assignment


@dataclass(frozen=True)
class Loaded:
    """A worker loaded the study file."""

    snapshot: Snapshot


@dataclass(frozen=True)
class LogLine:
    """A worker has something to say.

    Attributes:
        once: what it is about, when the first worker to say it speaks for all.
    """

    text: str
    once: str | None = None


@dataclass(frozen=True)
class Gone:
    """A worker's process ended.

    Attributes:
        death: why, when it did not end in good order; None when it did.
        lost_database: it gave up a database that was away for a moment; its trial is not to blame.
        with_its_node: it was lost with its machine, on which others may have been.
        output: the last lines it wrote to its standard output and error.
    """

    owner: Owner
    death: str | None
    output: list[str]
    lost_database: bool = False
    with_its_node: bool = False

    def last_words(self) -> str:
        """The end of its output in one line."""
        return wording.last_words(self.output)


@dataclass(frozen=True)
class Refused:
    """A worker cannot work: the study file is wrong, or the database is away."""

    error: TunerError


# What a worker does that has no trial; the first is followed by the file.
LOADING = "loading"
PREPARING = "preparing"
WAITING = "waiting for a trial"


@dataclass(frozen=True)
class WorkerState:
    """What a worker does now.

    Attributes:
        number: from 1; 0 for the command's own process.
        doing: in words, such as "loading studies/mnist.py", "waiting for a trial" or "trial 12".
        done: how much of that is done, 0 to 1, or None if that is not known.
        since: when that began, by time.monotonic.
        told: when it was said how much is done.
        at_trial: whether it is nothing but working on its trial.
    """

    number: int
    pid: int
    doing: str
    done: float | None
    since: float
    told: float = 0.0
    at_trial: bool = False


Event = Loaded | LogLine | Gone | Refused


class Engine(Protocol):
    """Starts workers, gives them a study, and says what becomes of them."""

    def start(self) -> None:
        """Start the workers; each loads the study file, and one `Loaded` or `Refused` follows."""

    def assign(self, assignment: Assignment) -> None:
        """Let the workers take trials of a study."""

    def poll(self, seconds: float) -> list[Event]:
        """What happened, after waiting at most so long for something to happen."""

    def replace(self) -> None:
        """Start a worker in the place of one that is gone."""

    def drain(self) -> None:
        """Ask every worker to hand its trial back and end."""

    def kill(self) -> None:
        """End every worker at once; a `Gone` for each follows."""

    @property
    def alive(self) -> int:
        """How many workers have not ended."""

    @property
    def workers(self) -> list[WorkerState]:
        """What each worker that has not ended does, as of the last poll, by their numbers."""
