"""Workers as spawned processes of this machine.

Each child is a fresh interpreter (never a fork of a process that holds TensorFlow), in a process
group of its own, so that Ctrl-C reaches this process alone and a kill takes its children along.
Three pipes join it to us::

    stdin    us ─> child   one JSON line a message; its end of file tells the child that we died
    events   child ─> us   one JSON line an event
    output   child ─> us   what the study's code and its libraries print; the last lines are kept
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from tuner.engines.activity import Activity
from tuner.engines.interface import (
    LOADING,
    PREPARING,
    WAITING,
    Event,
    Gone,
    Loaded,
    LogLine,
    Refused,
    WorkerState,
)
from tuner.errors import StorageError, TooManyFailures, TunerError, UsageError
from tuner.machine import gpu_variables, oom_kills
from tuner.storage import Owner
from tuner.study import Snapshot
from tuner.work import OUT_OF_MEMORY, TIMED_OUT, Assignment

# How many of a worker's last output lines are kept, to say why it died.
OUTPUT_LINES = 20
# How long to wait for the last words of a process that has ended, in seconds.
LAST_WORDS_SECONDS = 2.0
# From one poll to the next, in seconds; what is more is not a trial's time.
LONGEST_POLL_SECONDS = 5.0

_ERRORS = {error.exit_code: error for error in (UsageError, StorageError, TooManyFailures)}


@dataclass
class _Child:
    owner: Owner
    process: subprocess.Popen[str]
    number: int
    readers: list[threading.Thread]
    activity: Activity
    output: deque[str] = field(default_factory=lambda: deque(maxlen=OUTPUT_LINES))
    refused: bool = False
    lost_database: bool = False
    leaving: bool = False  # it holds no trial, and another is to take its place
    at_work_since: float | None = None  # on its present trial, by time.monotonic
    timed_out: bool = False


class LocalEngine:
    """Supervised worker processes, see `tuner.engines.interface.Engine`.

    Args:
        study_file: what each worker loads.
        storage: the database's URL, with its password.
        supervisor: this process.
        workers: how many processes.
        first: the number of the first of them.
        variables: environment variables that each of them gets.
        guarded: whether this process may be killed together with its workers, which are then to
            leave nothing behind that their objectives started.

    What the workers write to their standard output and error is told where the logger ``tuner``
    takes debug messages, and else kept for their last words alone.
    """

    def __init__(  # noqa: PLR0913 - each is something else
        self,
        study_file: Path,
        storage: str,
        supervisor: Owner,
        *,
        workers: int,
        first: int = 1,
        variables: Mapping[str, str],
        guarded: bool = False,
    ) -> None:
        self._study_file = study_file
        self._storage = storage
        self._supervisor = supervisor
        self._numbers = range(first, first + workers)
        self._variables = variables
        self._guarded = guarded
        self._verbose = logging.getLogger("tuner").isEnabledFor(logging.DEBUG)
        self._children: list[_Child] = []
        self._events: queue.Queue[tuple[_Child, dict[str, object]]] = queue.Queue()
        self._assignment: Assignment | None = None
        self._draining = False
        self._heard: set[str | None] = set()  # what workers said that is to be said once
        self._oom_kills = oom_kills()
        self._polled = time.monotonic()  # when `poll` was last called

    def start(self) -> None:
        """Start the workers; each loads the study file."""
        for number in self._numbers:
            self._spawn(number)

    def assign(self, assignment: Assignment) -> None:
        """Let the workers take trials of a study."""
        self._assignment = assignment
        for child in self._children:
            self._send_assignment(child)

    def poll(self, seconds: float) -> list[Event]:
        """What happened, after waiting at most ``seconds`` for something to happen."""
        events: list[Event] = []
        timeout = seconds
        with contextlib.suppress(queue.Empty):
            while True:
                child, message = self._events.get(timeout=timeout)
                events += self._understand(child, message)
                timeout = 0.0
        self._kill_late_ones()
        for child in [c for c in self._children if c.process.poll() is not None]:
            events += self._bury(child)
        return events

    def _kill_late_ones(self) -> None:
        """Kill workers whose trial takes longer than it may."""
        now, before = time.monotonic(), self._polled
        self._polled = now
        limit = self._assignment.trial_timeout if self._assignment else None
        if limit is None:
            return
        # While the database is away, the supervisor waits, and so do the workers.
        waited = now - before if now - before > LONGEST_POLL_SECONDS else 0.0
        for child in self._children:
            if child.at_work_since is None or child.timed_out:
                continue
            child.at_work_since += waited
            if now - child.at_work_since > limit:
                child.timed_out = True
                _kill_group(child)

    def replace(self) -> None:
        """Start a worker in the place of one that is gone."""
        taken = {child.number for child in self._children}
        self._spawn(min(set(self._numbers) - taken))

    def drain(self) -> None:
        """Ask every worker to hand its trial back and end."""
        self._draining = True
        for child in self._children:
            child.process.terminate()

    def kill(self) -> None:
        """End every worker, and what it started, at once."""
        self._draining = True
        for child in self._children:
            _kill_group(child)

    @property
    def alive(self) -> int:
        """How many workers have not ended."""
        return len(self._children)

    @property
    def owners(self) -> list[Owner]:
        """The workers that have not ended, as the database knows them."""
        return [child.owner for child in self._children]

    @property
    def workers(self) -> list[WorkerState]:
        """What each of them does."""
        states = [child.activity.state for child in self._children]
        return sorted(states, key=lambda state: state.number)

    def _spawn(self, number: int) -> None:
        read_end, write_end = os.pipe()
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-u", "-m", "tuner.engines.child", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(write_end,),
            process_group=0,
            env={
                **tensorflow_log(verbose=self._verbose),
                **os.environ,
                **gpu_variables(number, len(self._numbers)),
                **self._variables,
            },
            text=True,
            errors="replace",
        )
        os.close(write_end)
        owner = self._supervisor.worker(process.pid)
        activity = Activity(number, process.pid, f"{LOADING} {self._study_file}")
        child = _Child(owner, process, number, [], activity)
        self._children.append(child)
        child.readers = [
            threading.Thread(target=self._read_events, args=(child, read_end), daemon=True),
            threading.Thread(target=self._read_output, args=(child,), daemon=True),
        ]
        for reader in child.readers:
            reader.start()
        self._send(
            child,
            {
                "study_file": str(self._study_file),
                "storage": self._storage,  # by the pipe: a password is in no argument list
                "owner": asdict(owner),
                "log_level": logging.getLogger("tuner").getEffectiveLevel(),
                "verbose": self._verbose,
                "guarded": self._guarded,
            },
        )
        self._send_assignment(child)

    def _send_assignment(self, child: _Child) -> None:
        if self._assignment is not None:
            self._send(child, {**asdict(self._assignment), "worker": child.number})

    def _send(self, child: _Child, message: Mapping[str, object]) -> None:
        pipe = _pipe(child.process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it is dying; `poll` will say so
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

    def _read_events(self, child: _Child, read_end: int) -> None:
        with os.fdopen(read_end, encoding="utf-8") as lines:
            for line in lines:
                with contextlib.suppress(json.JSONDecodeError):  # cut off by a kill
                    self._events.put((child, json.loads(line)))

    def _read_output(self, child: _Child) -> None:
        output = _pipe(child.process.stdout)
        with output:
            for line in output:
                child.output.append(line.rstrip("\n"))
                if self._verbose and line.strip():
                    words = f"worker {child.number} wrote: {line.rstrip()}"
                    self._events.put((child, {"event": "log", "text": words, "once": None}))

    def _understand(self, child: _Child, message: dict[str, object]) -> list[Event]:
        kind, text = message["event"], str(message.get("text", ""))
        if kind in {"trial", "progress", "leaving"}:
            _note(child, kind, message)
            return []
        if kind == "loaded":
            child.activity.begin(PREPARING)
            return [Loaded(Snapshot.from_json(text))]
        if kind == "log":
            once = None if message["once"] is None else str(message["once"])
            heard = once is not None and once in self._heard
            self._heard.add(once)
            return [] if heard else [LogLine(text, once)]
        if kind == "lost database":
            child.lost_database = True
            return [LogLine(text)]
        child.refused = True
        return [Refused(_ERRORS.get(int(str(message["exit_code"])), TunerError)(text))]

    def _bury(self, child: _Child) -> list[Event]:
        _kill_group(child)  # what it started must not outlive it, nor hold its pipes open
        for reader in child.readers:
            reader.join(LAST_WORDS_SECONDS)
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while True:
                speaker, message = self._events.get_nowait()
                events += self._understand(speaker, message)
        self._children.remove(child)
        with contextlib.suppress(BrokenPipeError):  # it died before it read what we wrote
            _pipe(child.process.stdin).close()
        death = self._cause_of_death(child)
        if child.leaving and death is None and not self._draining:
            self._spawn(child.number)
            return events
        gone = Gone(child.owner, death, list(child.output), lost_database=child.lost_database)
        return [*events, gone]

    def _cause_of_death(self, child: _Child) -> str | None:
        code = child.process.returncode
        kills, self._oom_kills = oom_kills() - self._oom_kills, oom_kills()
        if code == 0 or self._draining or child.refused or child.lost_database:
            return None
        if child.timed_out:
            return TIMED_OUT
        if code == -signal.SIGKILL and kills > 0:
            return OUT_OF_MEMORY
        return f"killed (signal {-code})" if code < 0 else f"exited with code {code}"


def tensorflow_log(*, verbose: bool) -> dict[str, str]:
    """Environment variables for what TensorFlow writes by itself: errors alone, or everything."""
    return {"TF_CPP_MIN_LOG_LEVEL": "0" if verbose else "2"}


def _note(child: _Child, kind: object, message: Mapping[str, object]) -> None:
    """Remember what a worker tells of itself."""
    if kind == "trial":
        number = message["number"]
        child.at_work_since = None if number is None else time.monotonic()
        doing = WAITING if number is None else f"trial {number}"
        child.activity.begin(doing, at_trial=number is not None)
    elif kind == "progress":
        child.activity.work(message["text"], message["done"])
    else:
        child.leaving = True


def _kill_group(child: _Child) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)


def _pipe(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise RuntimeError("a worker was started without pipes")
    return pipe
