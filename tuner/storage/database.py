"""Opening the database: pragmas, pools, tables, and errors in words."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.storages._rdb import models
from sqlalchemy import select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from tuner.errors import StorageError, UsageError
from tuner.storage.tables import metadata
from tuner.storage.urls import redact, resolve

# How long a writer waits for another one, in seconds. SQLite has one writer at a time.
SQLITE_BUSY_SECONDS = 30
# How long a connection attempt may take, in seconds.
CONNECT_SECONDS = 10
# Connections a process keeps, and may open for a moment beyond: a worker needs one, a supervisor
# two, and a server's default limit is 100 to 151 for everybody.
POOL_SIZE, POOL_OVERFLOW = 1, 2
# Two first starts at once both find no tables; the one that loses tries again.
CREATE_ATTEMPTS = 5

_SHOWN_TABLES = 3


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        storage: Optuna's storage with its cache, for studies and samplers.
        backend: the same without the cache; its engine and sessions are used by this room only.
        url: as the user may see it, without password.
        address: for another process to open, with password and absolute path.
    """

    storage: BaseStorage
    backend: RDBStorage
    url: str
    address: str = field(repr=False)

    def close(self) -> None:
        """Close all connections."""
        self.backend.scoped_session.remove()
        self.backend.engine.dispose()


def open_database(address: str) -> Database:
    """Open a database and create the tables that are missing.

    Args:
        address: a storage URL as the user writes it, see `tuner.storage.urls.resolve`.

    Raises:
        UsageError: the URL is wrong.
        StorageError: the database cannot be reached, is not ours, or has another schema.
    """
    url = resolve(address)
    shown = redact(url.render_as_string(hide_password=True))
    if url.drivername == "sqlite":
        url = url.set(database=str(Path(str(url.database)).absolute()))
        _prepare_sqlite_file(url)
    try:
        with storage_errors(shown):
            backend = _create_backend(url, shown)
    except TypeError as error:  # how drivers say it
        raise UsageError(
            f"The storage {shown} has an option that its driver does not take: {error}."
        ) from error
    secret = url.render_as_string(hide_password=False)
    return Database(get_storage(backend), backend, shown, secret)


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Turn what the driver, SQLAlchemy or Optuna's storage raises into a `StorageError`."""
    try:
        yield
    except StorageInternalError as error:
        cause = error.__cause__ or error
        raise StorageError(_sentence(shown, cause)) from error
    except SQLAlchemyError as error:
        raise StorageError(_sentence(shown, error)) from error


@contextmanager
def session_of(database: Database) -> Iterator[Session]:
    """One transaction, committed at the end; errors become a `StorageError`."""
    with storage_errors(database.url), database.backend.scoped_session() as session:
        yield session
        session.commit()


@contextmanager
def locked_study(database: Database, study_id: int) -> Iterator[Session]:
    """One transaction that nobody else can have on this study at the same time."""
    with session_of(database) as session:
        if database.backend.engine.name == "sqlite":
            session.execute(text("BEGIN IMMEDIATE"))
        row = session.scalar(
            select(models.StudyModel.study_id)
            .where(models.StudyModel.study_id == study_id)
            .with_for_update()
        )
        if row is None:
            raise StorageError(
                f"The study with id {study_id} is gone from {database.url}: somebody deleted it. "
                "Run the command again to start it anew."
            )
        yield session


def _sentence(shown: str, error: BaseException) -> str:
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    reason = redact(" ".join(str(original).split())) or type(original).__name__
    return (
        f"The database {shown} cannot be used: {reason.rstrip('.')}. Check that it runs, that the "
        "URL, user and password are right, and that it can be written."
    )


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        # IMMEDIATE: a transaction that writes takes the write lock at its first write and waits
        # for it, where DEFERRED would fail at once if another one wrote after its first read.
        return {"connect_args": {"timeout": SQLITE_BUSY_SECONDS, "isolation_level": "IMMEDIATE"}}
    options = {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_pre_ping": True,
        "connect_args": {"connect_timeout": CONNECT_SECONDS},
    }
    if url.drivername.startswith("mysql"):
        # As PostgreSQL has it. Under MySQL's REPEATABLE READ, a beat that commits between a claim's
        # snapshot and its write can fail the claim (innodb_snapshot_isolation).
        options["isolation_level"] = "READ COMMITTED"
    return options


def _create_backend(url: URL, shown: str) -> RDBStorage:
    # Optuna fills `{SCHEMA_VERSION}` in the URL by str.format: other braces must be doubled.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    _refuse_foreign_tables(url, shown)
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            backend = RDBStorage(template, engine_kwargs=_engine_options(url))
            metadata.create_all(backend.engine)
            break
        except RuntimeError as error:  # Optuna's schema check
            raise StorageError(
                f"The database {shown} has the tables of another Optuna version than "
                f"{optuna.__version__}; run `optuna storage upgrade --storage URL`, or choose "
                "another database."
            ) from error
        except (SQLAlchemyError, StorageInternalError):
            if attempt == CREATE_ATTEMPTS:
                raise
            time.sleep(0.1 * attempt)
    if url.drivername == "sqlite":
        # The connections of Optuna's own start are closed, and new ones begin with our pragma.
        backend.engine.dispose()
        sqlalchemy.event.listen(backend.engine, "connect", _set_sqlite_pragmas)
    return backend


def _refuse_foreign_tables(url: URL, shown: str) -> None:
    engine = sqlalchemy.create_engine(url, **_engine_options(url))
    try:
        tables = set(sqlalchemy.inspect(engine).get_table_names())
    finally:
        engine.dispose()
    ours = set(models.BaseModel.metadata.tables) | set(metadata.tables) | {"alembic_version"}
    foreign = sorted(tables - ours)
    if foreign and "version_info" not in tables:
        named = ", ".join(foreign[:_SHOWN_TABLES])
        raise StorageError(
            f"The database {shown} holds tables of another program ({named}); name an empty "
            "database, or one that Optuna made."
        )


def _prepare_sqlite_file(url: URL) -> None:
    """Check that the file can be ours, and switch it to write-ahead logging.

    WAL lets readers go on while a worker writes. The mode stays in the file.
    """
    path = Path(str(url.database))
    if path.is_dir():
        raise StorageError(f"The database {path} is a directory; name a file in it.")
    if not path.parent.is_dir():
        raise StorageError(
            f"The database {path} cannot be made: there is no directory {path.parent}; "
            "create it first."
        )
    try:
        with sqlite3.connect(path, timeout=SQLITE_BUSY_SECONDS) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")
        connection.close()
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"The database {path} cannot be used: {error}. Check that it is a SQLite file, that "
            "it and its directory can be written, or name another file."
        ) from error


def _set_sqlite_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # NORMAL with WAL loses no committed transaction by kill -9, only by a power cut.
    connection.execute("PRAGMA synchronous=NORMAL")
