"""Trying again: what, how long, and what is said."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pymysql
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import (
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from tuner import interrupt
from tuner.errors import StorageError
from tuner.storage import retry
from tuner.storage.retry import Patience, is_transient

AWAY = OperationalError("SELECT", {}, psycopg.OperationalError("connection refused"))


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(retry, "LONGEST_WAIT_SECONDS", 0.01)
    interrupt.clear()
    yield
    interrupt.clear()


def wrapped(error: BaseException) -> StorageError:
    """As it reaches a command: the driver's error within SQLAlchemy's, Optuna's and ours."""
    inner = StorageInternalError("commit")
    inner.__cause__ = error
    outer = StorageError("The database cannot be used.")
    outer.__cause__ = inner
    return outer


class Failing:
    def __init__(self, times: int, error: Exception = AWAY) -> None:
        self.times, self.error = times, error
        self.again: list[bool] = []

    def __call__(self, again: bool) -> str:
        self.again.append(again)
        if len(self.again) <= self.times:
            raise self.error
        return "done"


@pytest.mark.parametrize("error", [AWAY, wrapped(AWAY)])
def test_an_operation_gets_through_and_learns_that_it_was_tried(error: Exception) -> None:
    operation = Failing(3, error)
    patience = Patience("here")
    assert patience.run(operation) == "done"
    assert operation.again == [False, True, True, True]
    assert time.monotonic() - patience.last_trouble < 5


def postgres(sqlstate: str) -> OperationalError:
    error = psycopg.errors.lookup(sqlstate)("no")
    return OperationalError("SELECT", {}, error)


def mysql(code: int) -> OperationalError:
    return OperationalError("SELECT", {}, pymysql.err.OperationalError(code, "no"))


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (AWAY, True),
        (postgres("57P01"), True),  # the administrator ended the connection
        (postgres("57P03"), True),  # starting up
        (postgres("40P01"), True),  # deadlock
        (postgres("53300"), True),  # too many connections
        (InternalError("", {}, psycopg.errors.lookup("25006")("read-only")), True),  # a standby
        (postgres("53100"), False),  # disk full
        (postgres("28P01"), False),  # wrong password
        (OperationalError("", {}, psycopg.OperationalError("password authentication failed")),
         False),
        (OperationalError("", {}, psycopg.OperationalError('database "x" does not exist')), False),
        (mysql(2003), True),
        (mysql(2013), True),
        (mysql(1213), True),
        (mysql(1205), True),
        (mysql(1045), False),
        (mysql(1049), False),
        (OperationalError("", {}, sqlite3.OperationalError("database is locked")), True),
        (OperationalError("", {}, sqlite3.OperationalError("database or disk is full")), False),
        (OperationalError("", {}, sqlite3.OperationalError("attempt to write a readonly database")),
         False),
        (IntegrityError("", {}, psycopg.errors.UniqueViolation("twice")), False),
        (ProgrammingError("", {}, psycopg.errors.UndefinedTable("no table")), False),
        (StorageError("The study is gone."), False),
        (StorageInternalError("something else"), False),
    ],
)  # fmt: skip
def test_only_what_waiting_mends_is_tried_again(error: Exception, transient: bool) -> None:
    assert is_transient(error) == transient
    assert is_transient(wrapped(error)) == transient
    operation = Failing(1, error)
    patience = Patience("here")
    if transient:
        assert patience.run(operation) == "done"
    else:
        with pytest.raises(type(error)):
            patience.run(operation)
        assert operation.again == [False]


@pytest.mark.parametrize(
    "shorten",
    [
        lambda patience, monkeypatch: setattr(patience, "_seconds", 0.05),
        lambda patience, monkeypatch: (
            monkeypatch.setattr(retry, "STOPPING_PATIENCE_SECONDS", 0.05),
            interrupt.request(),
        ),
    ],
)
def test_patience_ends(shorten: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    patience = Patience("here")
    shorten(patience, monkeypatch)
    operation = Failing(10**9)
    with pytest.raises(OperationalError):
        patience.run(operation)
    assert len(operation.again) > 2


def test_within_hurry_it_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "STOPPING_PATIENCE_SECONDS", 0.03)
    patience = Patience("here")
    with patience.hurried(), pytest.raises(OperationalError):
        patience.run(Failing(10**9))
    assert patience._seconds == retry.PATIENCE_SECONDS


def test_an_outage_is_said_once_and_its_end_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retry, "SILENT_SECONDS", 0.02)
    patience = Patience("postgresql://me:***@db/tuner")
    patience.run(Failing(1))
    assert caplog.records == []  # a moment is not worth a word
    patience.run(Failing(15))
    first, last = [record.getMessage() for record in caplog.records]
    assert first == (
        "the database postgresql://me:***@db/tuner does not answer (connection refused); trying "
        "again for up to 2 min 00 s"
    )
    assert last.startswith("the database postgresql://me:***@db/tuner answers again after ")


def test_what_the_driver_says_is_shown_without_password() -> None:
    error = wrapped(
        OperationalError("", {}, psycopg.OperationalError("no\n  postgresql://me:secret@db/x."))
    )
    assert retry.reason_of(error) == "no postgresql://me:***@db/x"
