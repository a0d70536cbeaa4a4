"""Who holds a claim: which worker, of which supervisor, on which machine."""

import os
import socket
import uuid
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Owner:
    """A process that can hold claims.

    Attributes:
        token: unique to this worker process's life; a tell is accepted from this token only.
        supervisor: ``machine/pid/start`` of the process that beats for it and reaps it.
        host: the host's name, for people.
        pid: of the worker.
    """

    token: str
    supervisor: str
    host: str
    pid: int

    def worker(self, pid: int) -> "Owner":
        """A worker process of this supervisor."""
        return replace(self, token=uuid.uuid4().hex, pid=pid)


@cache
def _machine() -> str:
    """The host, this boot and this PID namespace: a pid means a process only within these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # not Linux
        boot, namespace = f"{psutil.boot_time():.0f}", ""
    return f"{socket.gethostname()}+{boot}{namespace}"


def this_process() -> Owner:
    """This process as a supervisor (and as a worker, when it runs trials itself)."""
    pid = os.getpid()
    start = psutil.Process(pid).create_time()
    return Owner(uuid.uuid4().hex, f"{_machine()}/{pid}/{start:.2f}", socket.gethostname(), pid)


def is_known_dead(supervisor: str, worker_pid: int) -> bool:
    """Whether both lived on this machine and are gone; False when that cannot be known."""
    machine, pid, start = supervisor.rsplit("/", 2)
    if machine != _machine():
        return False
    return not _lives(int(pid), start) and not _lives(worker_pid)


def _lives(pid: int, start: str | None = None) -> bool:
    """Whether a process is there, and began then; a zombie is dead, its parent only sleeps."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return start is None or f"{process.create_time():.2f}" == start
    except psutil.NoSuchProcess:
        return False
