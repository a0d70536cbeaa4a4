"""What `tuner worker` does: serve the open requests of a database, oldest first, until SIGTERM."""

import contextlib
import hashlib
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from rich.console import Console

from tuner import interrupt, wording
from tuner.artifacts import Artifacts, open_store
from tuner.display import PlainDisplay
from tuner.engines.local import LocalEngine
from tuner.errors import (
    Interrupted,
    Stopped,
    StorageError,
    StudyGone,
    TooManyFailed,
    TunerError,
    UsageError,
)
from tuner.launch import CLOSED_BY
from tuner.levels import design_of
from tuner.machine import AUTO, thread_variables
from tuner.settings import DaemonSettings
from tuner.storage import (
    Claims,
    Database,
    OpenRequest,
    Owner,
    RequestState,
    change_request,
    close_reached,
    is_transient,
    open_database,
    read_requests,
    studies_with_claims,
    this_process,
)
from tuner.study import STUDIES_DIRECTORY, find_again
from tuner.supervise import REAP_SECONDS, Limits, Signals, Supervisor, follow
from tuner.work import Assignment

# How often to look for an open request, in seconds.
LOOK_SECONDS = 1.0
# How long to wait after the database has been away for longer than a process bears, in seconds.
RECONNECT_SECONDS = 10.0

logger = logging.getLogger(__name__)


def serve(settings: DaemonSettings, console: Console) -> None:
    """Help with open requests until a signal comes, or there were none for long enough.

    Raises:
        Interrupted: a signal came, and it was to end by itself: what started it is to know that
            there may be more to do.
        TunerError: the database cannot be used, and waiting does not mend that; or the artifact
            store cannot be used.
    """
    optuna.logging.set_verbosity(
        optuna.logging.INFO if settings.verbose else optuna.logging.WARNING
    )
    if settings.verbose:
        logging.getLogger("tuner").setLevel(logging.DEBUG)
    open_store(settings.artifacts).check()
    with Signals(inline=False) as signals, PlainDisplay(console) as display:
        while not signals.received:
            try:
                with contextlib.closing(open_database(settings.storage, patient=True)) as database:
                    _Daemon(settings, database, signals, display).run()
                    break
            except StorageError as error:
                if not is_transient(error):
                    raise
                if not signals.received:
                    display.note(f"{error} Trying again.")
                    interrupt.wait(RECONNECT_SECONDS)
        if not signals.received:
            display.note(f"ended: nothing was asked for in {settings.idle:g} s")
            return
        how = "ended by a signal; what was running is handed back"
        if settings.idle is not None:
            raise Interrupted(f"{how.capitalize()}.")
        display.note(how)


@dataclass
class _Daemon:
    settings: DaemonSettings
    database: Database
    signals: Signals
    display: PlainDisplay
    me: Owner = field(default_factory=this_process)
    _refused: set[tuple[int, str, str]] = field(default_factory=set, init=False)
    _claims: dict[int, Claims] = field(default_factory=dict, init=False)
    _next_reap: float = field(default=0.0, init=False)  # by time.monotonic

    def run(self) -> None:
        which = ", ".join(sorted(self.settings.studies)) or "every study"
        self.display.note(
            f"waiting for trials of {which} in {self.database.url}, with "
            f"{wording.count(self.settings.workers, 'worker')}"
        )
        idle_since = time.monotonic()
        while not (self.signals.received or self._is_idle_since(idle_since)):
            self._reap()
            found = self._next()
            if found is None:
                interrupt.wait(LOOK_SECONDS)
            else:
                self._serve(*found)
                idle_since = time.monotonic()

    def _is_idle_since(self, when: float) -> bool:
        """Whether there was nothing to do for as long as it may be."""
        limit = self.settings.idle
        return limit is not None and time.monotonic() - when > limit

    def _reap(self) -> None:
        """Free what dead supervisors left in any study, also where nobody else is there."""
        if time.monotonic() < self._next_reap:
            return
        self._next_reap = time.monotonic() + REAP_SECONDS
        for study_id in studies_with_claims(self.database):
            claims = self._claims.setdefault(study_id, Claims(self.database, study_id))
            with contextlib.suppress(StudyGone):
                # No worker of ours is running: what we hold was left when the database was away.
                given = claims.hand_back_all(self.me.supervisor)
                if given:
                    self.display.note(f"handed back after an outage: {given.in_words()}")
                given = claims.reap(self.me.supervisor)
                if given:
                    self.display.note(f"taken over from a dead supervisor: {given.in_words()}")

    def _next(self) -> tuple[OpenRequest, Path] | None:
        """The oldest open request that this host can help with, and its study file."""
        for wanted in read_requests(self.database):
            if self.settings.studies and wanted.name not in self.settings.studies:
                continue
            file = _find(wanted.snapshot.file)
            here = "" if file is None else _hash(file)
            if (wanted.study_id, wanted.request.opened, here) in self._refused:
                continue
            if file is not None and here == wanted.snapshot.file_hash:
                return wanted, file
            self._refuse(wanted, here, _mismatch(wanted, file, here))
        return None

    def _refuse(self, wanted: OpenRequest, file_hash: str, why: str) -> None:
        """Say once why this request is not served; another file or another run is looked at."""
        self._refused.add((wanted.study_id, wanted.request.opened, file_hash))
        self.display.note(f"the study {wanted.name} is not served here: {why}")

    def _serve(self, wanted: OpenRequest, file: Path) -> None:
        """Work on a request until it is done, withdrawn, or a signal comes."""
        self.display.note(
            f"{wanted.name}: {wanted.ended} of {wording.count(wanted.request.target, 'trial')} "
            "are there; helping with the rest"
        )
        self._next_reap = 0.0
        try:
            self._supervisor(wanted, file).run()
        except Interrupted:
            return
        except Stopped as stopped:
            self.display.note(str(stopped))
        except TunerError as error:
            if is_transient(error):
                raise
            self._refuse(wanted, wanted.snapshot.file_hash, str(error))
            if isinstance(error, TooManyFailed):  # so it is for every host
                self._close(wanted, CLOSED_BY[TooManyFailed])
        else:
            close_reached(self.database, wanted.study_id)
            self.display.note(f"{wanted.name}: all {wanted.request.target} trials are done")

    def _close(self, wanted: OpenRequest, reason: str) -> None:
        change_request(
            self.database,
            wanted.study_id,
            RequestState.CLOSED,
            reason=reason,
            opened=wanted.request.opened,
        )

    def _supervisor(self, wanted: OpenRequest, file: Path) -> Supervisor:
        request, search = wanted.request, wanted.search
        engine = LocalEngine(
            file,
            self.database.address,
            self.me,
            workers=self.settings.workers,
            variables={
                **thread_variables(self.settings.workers),
                **self.settings.variables(search.get("precision", AUTO)),
            },
        )
        reader, board = follow(
            self.database, wanted.study_id, wanted.name, wanted.snapshot, request.target
        )
        design = design_of(
            wanted.compare, wanted.configurations, search["sampler"], wanted.snapshot
        )
        engine.start()
        engine.assign(
            Assignment(
                study_id=wanted.study_id,
                study_name=wanted.name,
                target=request.target,
                seed=wanted.seed,
                uid=wanted.uid,
                artifacts=self.settings.artifacts,
                sampler=search["sampler"],
                pruner=search["pruner"],
                most_failed=request.most_failed,
                trial_timeout=request.trial_timeout,
                worker=0,
                design=design,
            )
        )
        return Supervisor(
            engine=engine,
            database=self.database,
            claims=Claims(self.database, wanted.study_id),
            artifacts=Artifacts(self.settings.artifacts, wanted.name, wanted.uid),
            reader=reader,
            board=board,
            display=self.display,
            limits=Limits(
                most_failed=request.most_failed,
                allowed_failures=request.most_failed - board.failed,
                leave_when=frozenset(RequestState) - {RequestState.OPEN},
            ),
            me=self.me,
            signals=self.signals,
        )


def _find(file: str) -> Path | None:
    """The study file on this host, if it is here."""
    try:
        return find_again(file)
    except UsageError:
        return None


def _hash(file: Path) -> str:
    """The SHA-256 of a study file, or "" if it cannot be read."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _mismatch(wanted: OpenRequest, file: Path | None, file_hash: str) -> str:
    if file is None:
        return (
            f"there is no {wanted.snapshot.file} and no "
            f"{STUDIES_DIRECTORY / Path(wanted.snapshot.file).name}; copy the file here."
        )
    return (
        f"{file} has the hash {file_hash[:12]}, and the run had {wanted.snapshot.file_hash[:12]}; "
        "bring the same version of the file here, or run again with this one."
    )
