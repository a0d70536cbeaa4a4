"""The folder of what is computed once a machine: its place, one writer at a time, its bound."""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import interrupt
from tuner.errors import UsageError
from tuner.log import one_time_work

if TYPE_CHECKING:
    from filelock import BaseFileLock

logger = logging.getLogger("tuner.finetune")

CACHE_VARIABLE = "TUNER_CACHE_DIR"
"""Folder of the cache; unset: ``tuner`` in the user's cache folder."""

BOUND_VARIABLE = "TUNER_CACHE_GB"
DEFAULT_BOUND_GB = 5.0
"""Features of frozen stages may take this much; MNIST's study takes 1.5 GB."""

SPARE_BYTES = 500_000_000
"""Disk that is left free: the database and the system need some."""

LOCK_POLL_SECONDS = 0.5
"""While another process holds a lock, look for its end and for Ctrl-C this often."""


@dataclass(frozen=True)
class Kept:
    """Something that a study keeps on the disk, for ``--dry-run``.

    Attributes:
        what: in words, such as "the pretrained base".
        size: in bytes.
        there: whether it is there already.
        each_worker: there is one for each running trial, and it goes with it.
        bounded: it is among what `BOUND_VARIABLE` bounds.
    """

    what: str
    size: int
    there: bool = False
    each_worker: bool = False
    bounded: bool = False


def folder() -> Path:
    """``TUNER_CACHE_DIR``, else `default_folder`."""
    return Path(os.environ.get(CACHE_VARIABLE) or default_folder())


def default_folder() -> Path:
    """``tuner`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tuner"


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Be the only process that makes ``path``; wait for another one, but not past a stop.

    Args:
        path: of the file; the lock lies beside it.
        what: that is made, for the line that says what is waited for.

    Raises:
        HandBack: somebody asked this process to stop.
    """
    # Imported here: it imports asyncio, and supervisors and short commands lock nothing.
    import filelock  # noqa: PLC0415

    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logger.info("another process is making %s: waiting for it ...", what)
        with one_time_work(logger, f"waiting for {what}"):
            _acquire_patiently(lock)
    try:
        yield
    finally:
        lock.release()


def _acquire_patiently(lock: "BaseFileLock") -> None:
    from filelock import Timeout  # noqa: PLC0415

    while True:
        interrupt.check()
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=LOCK_POLL_SECONDS)
            return


def write(path: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a temporary file, which then gets its name.

    Processes in two containers may have the same number, so that is not in the temporary name.
    """
    temporary = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        fill(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def bound_bytes() -> int:
    """How much the features may take.

    Raises:
        UsageError: ``TUNER_CACHE_GB`` is not a number from 0.
    """
    text = os.environ.get(BOUND_VARIABLE) or str(DEFAULT_BOUND_GB)
    try:
        bound = float(text)
    except ValueError:
        bound = -1.0
    if not 0.0 <= bound < float("inf"):
        raise UsageError(f"{BOUND_VARIABLE}={text!r} is not a number of gigabytes from 0.")
    return int(bound * 1e9)


def make_room(pattern: str, size: int) -> bool:
    """Delete the longest unused files that match, until ``size`` more bytes are within the bound.

    The caller holds the lock of these files. A process that still reads a deleted file keeps its
    content until it ends; what a killed process left half written goes, too.

    Returns:
        False if that much is never allowed, or the disk is too full; then nothing is deleted.
    """
    place = folder()
    for stale in place.glob(f"{pattern.removesuffix('.npy')}.tmp"):
        stale.unlink(missing_ok=True)
    files = sorted(place.glob(pattern), key=lambda file: file.stat().st_mtime)
    taken = sum(file.stat().st_size for file in files)
    gone = []
    while files and taken + size > bound_bytes():
        gone.append(files.pop(0))
        taken -= gone[-1].stat().st_size
    freed = sum(file.stat().st_size for file in gone)
    if taken + size > bound_bytes() or shutil.disk_usage(place).free + freed < size + SPARE_BYTES:
        return False
    for file in gone:
        logger.info("removing %s from the cache: the longest unused", file.name)
        file.unlink(missing_ok=True)
    return True
