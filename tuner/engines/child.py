"""The process of one local worker: ``python -m tuner.engines.child EVENTS_FD``.

It loads the study file, says what the file declares, waits for its assignment, and works. It ends
by itself when the study has reached its target, when it gets SIGTERM, and when its supervisor dies.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

import optuna

from tuner import interrupt, log
from tuner.errors import TunerError
from tuner.storage import Owner, is_transient, open_database
from tuner.study import load
from tuner.work import Assignment, Worker

# A worker that has grown by so much since its first trial, in MB, and to more than twice its size,
# leaves, and a fresh one takes its place: its 1.5 GB (WORKER_MEMORY_BYTES) are then about full. A
# leak of 24 MB a trial, as of a model built for each, is a start in 25 trials.
MOST_GROWTH_MEGABYTES = 600
# An orphan has this long to hand its trial back, in seconds; then it ends anyway.
ORPHAN_SECONDS = 5.0
# How often a worker without an assignment looks whether it should end, in seconds.
LOOK_SECONDS = 0.2


_orphaned = threading.Event()
_guards: list["subprocess.Popen[bytes]"] = []  # kept, for its pipe ends with it

logger = logging.getLogger("tuner.engines.child")  # this module's own name is __main__


class _EventHandler(logging.Handler):
    """Sends log records to the supervisor."""

    def __init__(self, events: IO[str]) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        once = record.getMessage() if getattr(record, "once", False) else None
        _send(self._events, event="log", text=self.format(record), once=once)


def main(events_fd: int) -> int:
    """Work until there is nothing left to do; return the exit code."""
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    with open(os.devnull) as nothing:  # noqa: PTH123 - the study's code must not read our pipe
        os.dup2(nothing.fileno(), 0)
    events = os.fdopen(events_fd, "w", encoding="utf-8", buffering=1)
    signal.signal(signal.SIGTERM, lambda _signal, _frame: interrupt.request())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = json.loads(commands.readline() or "null")
    if start is None:
        return 0
    optuna.logging.set_verbosity(
        optuna.logging.INFO if start["verbose"] else optuna.logging.WARNING
    )
    _send_logs(events, start["log_level"])
    if start["guarded"]:
        _guard_group()
    log.watch(lambda text, done: _send(events, event="progress", text=text, done=done))
    inbox: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(commands, inbox), daemon=True).start()
    try:
        _serve(start, inbox, events)
    except interrupt.HandBack:
        return 0
    except TunerError as error:
        if is_transient(error):
            _send(events, event="lost database", text=str(error))
        else:
            _send(events, event="refused", exit_code=error.exit_code, text=str(error))
        return error.exit_code
    return 0


def _serve(start: dict[str, Any], inbox: "queue.Queue[dict[str, Any]]", events: IO[str]) -> None:
    definition = load(Path(start["study_file"]))
    _send(events, event="loaded", text=definition.snapshot.to_json())
    assignment = _await_assignment(inbox)
    with log.bound(study=assignment.study_name, worker=assignment.worker):
        definition.prepare()
        _send(events, event="trial", number=None)  # from now on it waits for one
        database = open_database(start["storage"], patient=True)
        try:
            owner = Owner(**start["owner"])
            worker = Worker(
                definition,
                assignment,
                database,
                owner,
                tell=lambda number: _send(events, event="trial", number=number),
            )
            for _ in worker.work():
                first, now = worker.megabytes
                if now - first > max(MOST_GROWTH_MEGABYTES, first):
                    logger.debug("leaving: grown from %d to %d MB", first, now)
                    _send(events, event="leaving")
                    break
        finally:
            database.close()


def _await_assignment(inbox: "queue.Queue[dict[str, Any]]") -> Assignment:
    while True:
        interrupt.check()
        try:
            return Assignment.from_dict(inbox.get(timeout=LOOK_SECONDS))
        except queue.Empty:
            continue


def _listen(commands: IO[str], inbox: "queue.Queue[dict[str, Any]]") -> None:
    """Pass messages on; at the end of file the supervisor is gone, and so shall we be."""
    for line in commands:
        inbox.put(json.loads(line))
    _orphaned.set()
    interrupt.request()
    threading.Event().wait(ORPHAN_SECONDS)
    _end_group()


def _end_group() -> None:
    """End this process and all that the objective has started: nobody else will."""
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _guard_group() -> None:
    """Let a process of its own end our group when we are gone, for whom nobody else does.

    It waits for the end of a pipe of which only we have the other side.
    """
    guard = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        ["/bin/sh", "-c", f"read -r _; kill -KILL -{os.getpgrp()}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _guards.append(guard)


def _send_logs(events: IO[str], level: int) -> None:
    log.quiet_libraries()
    handler = _EventHandler(events)
    handler.setFormatter(logging.Formatter(log.FORMAT))
    handler.addFilter(log.AddContext())
    logger = logging.getLogger("tuner")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def _send(events: IO[str], **message: object) -> None:
    try:
        events.write(json.dumps(message) + "\n")
    except BrokenPipeError:  # the supervisor died; `_listen` ends us
        interrupt.request()


if __name__ == "__main__":
    code = main(int(sys.argv[1]))
    sys.stdout.flush()
    if _orphaned.is_set():
        _end_group()
    os._exit(code)  # TensorFlow's threads make an ordinary exit slow
