"""Trying again while the database is away, or gives way to somebody else.

Only what may be done twice is tried again: when a connection breaks, nobody can tell whether the
last transaction was committed.
"""

import contextlib
import functools
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)

from tuner import interrupt, wording
from tuner.errors import StorageError
from tuner.wording import redact

# A database may be away for so long, in seconds: a restart, a failover, a cable.
PATIENCE_SECONDS = 120
# The same for a process that was asked to stop: less than it has to hand its trial back.
STOPPING_PATIENCE_SECONDS = 5
# The first wait and the longest one, in seconds; each is twice the one before, less up to a half by
# chance, so that many workers do not come back at the same moment.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.1, 2.0
# What is over after so many seconds is not worth a word: a deadlock, one lost connection.
SILENT_SECONDS = 1.0

# Errors that waiting does not mend. PostgreSQL: disk full, no such user or password, no such
# database. MySQL: wrong password, no such database, disk full, table full.
_HOPELESS_SQLSTATES = ("53100", "28", "3D000")
_HOPELESS_CODES = {1044, 1045, 1049, 1021, 1114}
# PostgreSQL: a standby that is about to take over cannot be written yet.
_READ_ONLY_SQLSTATE = "25006"
# PostgreSQL sends no SQLSTATE for an attempt to connect.
_HOPELESS_WORDS = ("authentication failed", "does not exist", "no pg_hba.conf entry")

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Patience:
    """Tries operations on one database again, for all threads of this process.

    Args:
        shown: the database, as the user may see it.

    Attributes:
        shown: see above.
        last_trouble: when the database last failed for a moment, by `time.monotonic`.
    """

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self._seconds = float(PATIENCE_SECONDS)
        self._lock = threading.Lock()
        self._away_since: float | None = None
        self._told = False
        self.last_trouble = float("-inf")

    @contextlib.contextmanager
    def hurried(self) -> Iterator[None]:
        """Within the block, try again only briefly: the work is about to end."""
        before, self._seconds = self._seconds, float(STOPPING_PATIENCE_SECONDS)
        try:
            yield
        finally:
            self._seconds = before

    def run(self, operation: Callable[[bool], T]) -> T:
        """Call ``operation`` until it gets through.

        Args:
            operation: told whether it was tried before, so that what it did may be done already.

        Raises:
            Exception: what the operation raised, if waiting does not mend it or took too long.
        """
        began, wait = time.monotonic(), FIRST_WAIT_SECONDS
        again = False
        while True:
            try:
                result = operation(again)
            except (SQLAlchemyError, StorageInternalError, StorageError) as error:
                if not is_transient(error):
                    raise
                self._note_failure(error)
                if time.monotonic() + wait - began > self._most_seconds():
                    raise
            else:
                self._note_success()
                return result
            time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the load
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            again = True

    def _most_seconds(self) -> float:
        return STOPPING_PATIENCE_SECONDS if interrupt.requested() else self._seconds

    def _note_failure(self, error: BaseException) -> None:
        with self._lock:
            now = time.monotonic()
            self.last_trouble = now
            self._away_since = self._away_since or now
            if self._told or now - self._away_since < SILENT_SECONDS:
                return
            self._told = True
        logger.warning(
            "the database %s does not answer (%s); trying again for up to %s",
            self.shown,
            reason_of(error),
            wording.duration(self._most_seconds()),
        )

    def _note_success(self) -> None:
        if self._away_since is None:
            return
        with self._lock:
            away, told = self._away_since, self._told
            self._away_since, self._told = None, False
        if told and away is not None:
            seconds = wording.duration(time.monotonic() - away)
            logger.warning("the database %s answers again after %s", self.shown, seconds)


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help: the database is away, restarting, or busy."""
    wrapped = _driver_error(error)
    if wrapped is None:
        return False
    original = wrapped.orig
    if isinstance(original, sqlite3.Error):
        return "locked" in str(original) or "busy" in str(original)
    if getattr(original, "sqlstate", None) == _READ_ONLY_SQLSTATE:
        return True
    if _is_hopeless(original):
        return False
    return wrapped.connection_invalidated or isinstance(wrapped, OperationalError | InterfaceError)


def reason_of(error: BaseException) -> str:
    """What the database's driver said, in one line and without passwords."""
    wrapped = _driver_error(error)
    original = wrapped.orig if wrapped is not None and wrapped.orig is not None else error
    return redact(" ".join(str(original).split())).rstrip(".?") or type(original).__name__


def _driver_error(error: BaseException | None) -> DBAPIError | None:
    """What SQLAlchemy made of the driver's error, behind what Optuna or we made of that."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__
    return error


def _is_hopeless(original: BaseException | None) -> bool:
    sqlstate = getattr(original, "sqlstate", None)
    if sqlstate:
        return str(sqlstate).startswith(_HOPELESS_SQLSTATES)
    code = original.args[0] if original is not None and original.args else None
    return code in _HOPELESS_CODES or any(word in str(original) for word in _HOPELESS_WORDS)


class _HasPatience(Protocol):
    @property
    def patience(self) -> Patience: ...


def patient(method: Callable[..., T]) -> Callable[..., T]:
    """Let a method of an object with a `Patience` try again; calling it twice must do no harm."""

    @functools.wraps(method)
    def tried(self: _HasPatience, *args: Any, **kwargs: Any) -> T:
        return self.patience.run(lambda _again: method(self, *args, **kwargs))

    return tried
