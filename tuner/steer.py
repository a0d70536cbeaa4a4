"""What `tuner control` does: change a study's request, and say what comes next."""

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UsageError
from tuner.settings import resolve_storage
from tuner.storage import (
    REACHED,
    Database,
    Request,
    RequestState,
    change_request,
    find_study,
    open_database,
    read_overviews,
)

WISHES = {
    "pause": RequestState.PAUSED,
    "resume": RequestState.OPEN,
    "stop": RequestState.STOPPED,
}
_CONSEQUENCES = {
    RequestState.PAUSED: "is paused: its workers hand their trials back at their next report",
    RequestState.OPEN: "is open again: the runs and daemons that wait for it take its trials",
    RequestState.STOPPED: "is stopped: its workers hand their trials back at their next report, "
    "and its runs end",
}


def steer(wish: str, study: str, storage: str | None, *, by_flag: bool) -> str:
    """Pause, resume or stop a study.

    Args:
        wish: one of `WISHES`.
        study: its name in the database.
        storage: the database as the user wrote it, or None for the default.
        by_flag: whether it was written in the command line, so that the next command needs it, too.

    Returns:
        What happened and what to type next, as a sentence.

    Raises:
        UsageError: there is no such study, or it is not being worked on.
        StorageError: the database cannot be used.
    """
    wanted = WISHES[wish]
    with contextlib.closing(open_database(resolve_storage(storage), create=False)) as database:
        study_id = find_study(database, study)
        before = change_request(database, study_id, wanted)
        if before is None:
            raise UsageError(
                f"No run of ours ever asked for trials of the study {study!r}, so there is nothing "
                f"to {wish}; stop the program that works on it."
            )
        place = ["--storage", database.url] if by_flag else []
        words = _Words(database, study_id, study, place)
        ended = before.state in {RequestState.CLOSED, RequestState.STOPPED}
        if ended and before.state is not wanted:
            why = f" ({before.reason})" if before.reason else ""
            raise UsageError(
                f"The study {study!r} is {before.state}{why}, so there is nothing to {wish}; only "
                f"another run opens it again: {words.run(before)}"
            )
        return words.of(wanted, before)


@dataclass(frozen=True)
class _Words:
    database: Database
    study_id: int
    study: str
    place: list[str]

    def of(self, wanted: RequestState, before: Request) -> str:
        """What came of a wish that could be fulfilled."""
        again = before.state is wanted
        what = f"is {wanted} already" if again else _CONSEQUENCES[wanted]
        if wanted is RequestState.PAUSED:
            follow = f"go on with: {self._command('control', 'resume')}"
        elif wanted is RequestState.STOPPED:
            follow = f"go on with: {self.run(before)}"
        else:
            follow = f"look at it with: {self._command('status')}"
        return f"{self.study} {what}; {follow}"

    def _command(self, command: str, *words: str) -> str:
        module = f"tuner.{command}"
        return shlex.join(["python", "-m", module, *words, "--study", self.study, *self.place])

    def run(self, before: Request) -> str:
        """The run that opens the study again; with a greater target if the last one is reached."""
        (overview,) = read_overviews(self.database, self.study_id)
        path = Path(overview.file)
        words = ["python", "-m", "tuner.run", "--study", overview.file]
        words += ["--study-name", self.study] if path.stem != self.study else []
        target = 2 * before.target if before.reason == REACHED else before.target
        return shlex.join([*words, *self.place, "--trials", str(target)])
