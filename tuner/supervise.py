"""The supervisor's loop: beats, deaths, reaping, the display, and every way to end."""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Self

from optuna.trial import TrialState

from tuner import interrupt, wording
from tuner.artifacts import Artifacts
from tuner.display import Display
from tuner.engines.interface import Engine, Gone, Loaded, LogLine, Refused
from tuner.errors import (
    Interrupted,
    Stopped,
    StorageError,
    TimedOut,
    TooManyFailed,
    TooManyFailures,
    TunerError,
    UsageError,
)
from tuner.scoreboard import Scoreboard
from tuner.storage import (
    Claims,
    Database,
    Owner,
    ProgressReader,
    RequestState,
    count_outcomes,
    find_best,
    read_complete_values,
    record_store,
)
from tuner.study import Snapshot

# A supervisor says this often that it is alive, in seconds; see BEAT_AGE_LIMIT_SECONDS in claims.
BEAT_SECONDS = 10
# How often to look for trials of supervisors that died, in seconds.
REAP_SECONDS = 5
# How often to read the study's progress, in seconds.
READ_SECONDS = 0.5
# Workers asked to stop have this long to hand back, in seconds; then they are killed.
DRAIN_SECONDS = 10
# How often to look whether they have, in seconds.
DRAIN_LOOK_SECONDS = 0.1
# Workers that die one after another before they take a trial: so many, and the command gives up.
MOST_EARLY_DEATHS = 3
# A machine that is lost takes many at once, so that not their number counts, but their time: losses
# that follow each other within so many seconds, for so many seconds.
LOSS_PAUSE_SECONDS = 300
LOST_SECONDS = 600

# Of the hosts that have another artifact store, so many are named.
_SHOWN_HOSTS = 3

logger = logging.getLogger(__name__)

Watch = Callable[[Scoreboard], str | None]
"""Called when trials have ended: a sentence to be said then, or None."""


@dataclass(frozen=True)
class Limits:
    """When to stop before the target is reached.

    Attributes:
        most_failed: rows of the study that may be FAIL.
        allowed_failures: the same, counted since the command started.
        leave_when: states of the study's request in which others want us to end.
        deadline: by `time.monotonic`, or None.
        timeout: what the user wrote, in seconds, for the message.
    """

    most_failed: int
    allowed_failures: int
    leave_when: frozenset[RequestState]
    deadline: float | None = None
    timeout: float | None = None


class Signals:
    """Counts Ctrl-C and SIGTERM: the first drains, the second kills.

    Args:
        inline: the objective runs in this process, so that the second signal must leave it.
    """

    def __init__(self, *, inline: bool) -> None:
        self.received = 0
        self._inline = inline

    def __enter__(self) -> Self:
        self._before = {
            which: signal.signal(which, self._on_signal)
            for which in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for which, handler in self._before.items():
            signal.signal(which, handler)

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self.received += 1
        interrupt.request()
        if self._inline and self.received > 1 and interrupt.in_objective():
            raise interrupt.HandBack


@contextlib.contextmanager
def beating(claims: Claims, supervisor: str) -> Iterator[None]:
    """Beat in a thread, so that nothing that the loop waits for makes its workers look dead."""
    end = threading.Event()

    def beat() -> None:
        while not end.wait(BEAT_SECONDS):
            try:
                claims.beat(supervisor)
            except StorageError as error:  # the next beat may pass
                logger.warning("a beat failed: %s", error)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(BEAT_SECONDS)  # it may hang in a database that is away


def follow(
    database: Database, study_id: int, name: str, snapshot: Snapshot, target: int
) -> tuple[ProgressReader, Scoreboard]:
    """What reads a study's progress, and the figures of what is there already."""
    reader = ProgressReader(database, study_id)
    board = Scoreboard(name, snapshot, target)
    board.begin(
        reader.read(describe=False),
        find_best(database, study_id),
        count_outcomes(database, study_id),
        read_complete_values(database, study_id),
    )
    return reader, board


@dataclass
class EarlyDeaths:
    """Workers that die again and again before they take a trial."""

    _done: int = 0  # trials, at the last death
    _count: int = 0
    # When the first and the last one was lost with its machine, by time.monotonic.
    _lost: tuple[float, float] | None = None

    def note(self, gone: Gone, how: str, *, had_a_trial: bool, done: int, busy: bool) -> None:
        """Count a death.

        Args:
            gone: whose.
            how: in words.
            had_a_trial: whether the worker held one.
            done: how many trials of the study have ended.
            busy: whether workers with nothing to do are nothing strange: trials are running, or
                the study is paused.

        Raises:
            TooManyFailures: there were too many, and no trial ended between them.
        """
        if had_a_trial or done > self._done:
            self._count, self._lost = 0, None
        self._done = done
        if had_a_trial:
            return
        if gone.with_its_node:
            self._lost = None if busy else self._note_lost(time.monotonic())
            return
        self._count += 1
        if self._count >= MOST_EARLY_DEATHS:
            raise TooManyFailures(
                f"{MOST_EARLY_DEATHS} workers died one after another before they took a trial "
                f"({how}); the last one wrote: {gone.last_words()}."
            )

    def _note_lost(self, now: float) -> tuple[float, float]:
        first, last = self._lost or (now, now)
        if now - last > LOSS_PAUSE_SECONDS:
            first = now
        if now - first >= LOST_SECONDS:
            raise TooManyFailures(
                f"For {wording.duration(now - first)} workers have been lost with their Ray actors "
                "or nodes again and again, and none took a trial; Ray's dashboard and logs say "
                "why. Run the same command again once that is mended."
            )
        return first, now


@dataclass
class Supervisor:
    """Runs an engine until a study reaches its target, or something stops it before."""

    engine: Engine
    database: Database
    claims: Claims
    artifacts: Artifacts
    reader: ProgressReader
    board: Scoreboard
    display: Display
    limits: Limits
    me: Owner
    signals: Signals
    ended_early: list[Gone] = field(default_factory=list)  # before the study was there
    watch: Watch | None = None
    _early_deaths: EarlyDeaths = field(default_factory=EarlyDeaths, init=False)
    _next_reap: float = field(default=0.0, init=False)  # by time.monotonic
    _told_foreign: bool = field(default=False, init=False)
    _paused: bool = field(default=False, init=False)
    _last_reason: str = field(default="", init=False)  # of a failed trial

    def run(self) -> None:
        """Run to the end.

        Raises:
            Interrupted: a signal came; every trial was handed back.
            TimedOut: the time is up; every trial was handed back.
            Stopped: somebody paused, stopped or closed the study; every trial was handed back.
            TooManyFailures: trials failed, or workers died at their start, too often.
            TunerError: a worker refused to work.
        """
        with beating(self.claims, self.me.supervisor):
            try:
                self._compare_stores()
                self._sweep()
                while not self._is_done():
                    self._turn()
            except StorageError as error:
                self._drain()
                if self.signals.received:  # it only cut short the waiting for the database
                    raise self._interrupted() from error
                raise
            except BaseException:
                self._drain()
                raise
            self._drain()
            self._sweep()
            self._read()

    def _compare_stores(self) -> None:
        """Say it when another host keeps checkpoints where this one does not look for them."""
        store = self.artifacts.identity() if self.database.is_shared else None
        if store is None:
            return
        study_id, here = self.claims.study_id, self.me.host
        others = record_store(self.database, study_id, here, store)
        if others:
            shown = ", ".join(others[:_SHOWN_HOSTS]) + (", ..." if others[_SHOWN_HOSTS:] else "")
            self.display.note(
                f"{here} does not share its artifact store with {shown}, so a trial that one host "
                "began starts over on the other; name a folder that all of them share, or "
                "s3://BUCKET/PREFIX, with --artifacts."
            )

    def _sweep(self) -> None:
        try:
            self.artifacts.sweep_checkpoints(self.claims.unfinished)
        except OSError as error:
            self.display.note(f"old checkpoints cannot be removed: {error}")

    def _is_done(self) -> bool:
        return self.board.ended >= self.board.target

    def _turn(self) -> None:
        if self.signals.received:
            raise self._interrupted()
        deadline = self.limits.deadline
        if deadline is not None and time.monotonic() >= deadline:
            raise TimedOut(
                f"--timeout {self.limits.timeout:g} s passed with {self.board.ended} of "
                f"{self.board.target} trials done; run the same command again to go on."
            )
        while self.ended_early:
            self._bury(self.ended_early.pop())
        for event in self.engine.poll(READ_SECONDS):
            if isinstance(event, LogLine):
                self.display.note(event.text)
            elif isinstance(event, Refused):
                raise event.error
            elif isinstance(event, Gone):
                self._bury(event)
            else:
                self._check_same_file(event)
        now = time.monotonic()
        if now >= self._next_reap:
            self._next_reap = now + REAP_SECONDS
            self._reap()
        self._read()
        if not (self.engine.alive or self._is_done() or self.signals.received):
            raise TunerError(
                f"All workers ended with {self.board.ended} of {self.board.target} trials done; "
                "run the same command again to go on."
            )

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"Interrupted with {self.board.ended} of {self.board.target} trials done; what was "
            "running is handed back, and the same command goes on."
        )

    def _check_same_file(self, loaded: Loaded) -> None:
        if loaded.snapshot.file_hash != self.board.snapshot.file_hash:
            raise UsageError(
                f"{loaded.snapshot.file} was changed while its study ran; run the command again to "
                "go on with the new file."
            )

    def _bury(self, gone: Gone) -> None:
        """A worker ended: give its trial back, and put another in its place."""
        if self.signals.received:
            return  # the end has begun, and gives everything back
        # One that ends in good order has nothing left: with a trial, even exit code 0 is a death.
        death = None if gone.lost_database else gone.death or "exited with code 0"
        given = self.claims.hand_back(gone.owner, death=death)
        if gone.death is None and not given:
            self._read()
            if self._is_done():
                return
        how = death or "gave up waiting for the database"
        self._early_deaths.note(
            gone,
            how,
            had_a_trial=bool(given),
            done=self.board.ended + self.board.failed,
            busy=self._paused or bool(self.board.running),
        )
        words = [f"worker {gone.owner.pid} {how}"]
        words += [given.in_words()] if given else []
        words += [f"it wrote: {gone.last_words()}"] if gone.output else []
        self.display.note("; ".join(words))
        self.engine.replace()

    def _reap(self) -> None:
        given = self.claims.reap(self.me.supervisor)
        if given:
            self.display.note(f"taken over from a dead supervisor: {given.in_words()}")

    def _read(self) -> None:
        progress = self.reader.read()
        self.board.update(progress)
        reasons = [trial.reason for trial in progress.new if trial.state == TrialState.FAIL]
        self._last_reason = next(reversed(reasons), self._last_reason)
        self.board.workers = self.engine.workers
        self.display.show(self.board, progress.new)
        if self.watch and progress.new:
            self._tell(self.watch)
        if self.board.failed > self.limits.most_failed:
            raise TooManyFailed(
                f"More than {wording.count(self.limits.allowed_failures, 'trial')} failed since "
                f"this command started (--max-failures {self.limits.allowed_failures}), the last "
                f"one because: {self._last_reason or 'no reason is stored'}; mend the objective, "
                "or allow more."
            )
        if progress.request is not None and not self._is_done():
            self._heed(progress.request.state)
        self._tell_foreign(len(progress.running))

    def _tell(self, watch: Watch) -> None:
        """Say what else is to be said; it must not cost the run."""
        try:
            said = watch(self.board)
        except Exception:
            logger.debug("there is nothing to be said", exc_info=True)
            self.watch = said = None
        if said:
            self.display.note(said)

    def _heed(self, wish: RequestState) -> None:
        """Do what `tuner control`, or another command, wants of this study."""
        if wish in self.limits.leave_when:
            raise Stopped(
                f"The study {self.board.name} is {wish} with {self.board.ended} of "
                f"{self.board.target} trials done; what was running is handed back, and the next "
                "run goes on."
            )
        paused = wish is RequestState.PAUSED
        if paused != self._paused:
            words = (
                "paused: no trial is running until `python -m tuner.control resume`"
                if paused
                else "resumed"
            )
            self.display.note(words)
        self._paused = paused

    def _tell_foreign(self, running: int) -> None:
        """Say once when only rows that nobody of ours holds keep the target from being reached."""
        waiting = self.board.ended + running >= self.board.target > self.board.ended
        if not waiting or self._told_foreign:
            return
        numbers = self.claims.foreign_running()
        if numbers and len(numbers) == running:
            self._told_foreign = True
            which = ", ".join(str(number) for number in numbers)
            self.display.note(
                f"waiting for trial {which}, RUNNING by another program or left by one that died; "
                f"free it with: optuna tell --storage {self.database.url} --study-name "
                f"{self.board.name} --trial-number {numbers[0]} --state fail"
            )

    def _drain(self) -> None:
        """Let every worker hand back; kill those that do not in time, and hand back for them."""
        self.engine.drain()
        if self.signals.received == 1 and self.engine.alive:
            self._say(
                f"stopping: what runs is handed back, within {DRAIN_SECONDS} s; Ctrl-C again ends "
                "it at once"
            )
        end = time.monotonic() + DRAIN_SECONDS
        killed = False
        while self.engine.alive:
            if not killed and (self.signals.received > 1 or time.monotonic() >= end):
                self.engine.kill()
                killed = True
            self.engine.poll(DRAIN_LOOK_SECONDS)
        try:
            with self.database.patience.hurried():
                self.claims.hand_back_all(self.me.supervisor)
        except StorageError as error:
            self._say(f"nothing could be handed back; the next run takes it over: {error}")

    def _say(self, text: str) -> None:
        """Say something at the end: who listened may be gone, and all is handed back anyway."""
        with contextlib.suppress(OSError, SystemExit):  # rich makes one of a closed pipe
            self.display.note(text)
