"""Opening the database: pragmas, pools, tables, and errors in words."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, _cached_storage
from optuna.storages._rdb import models
from optuna.study._frozen import FrozenStudy
from sqlalchemy import select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from tuner.errors import NoDatabase, StorageError, StudyGone, UsageError
from tuner.machine import file_system_of
from tuner.storage.attributes import study_in_order
from tuner.storage.backend import PatientStorage
from tuner.storage.retry import Patience, reason_of
from tuner.storage.tables import claims, metadata
from tuner.storage.urls import Address, address_of, resolve
from tuner.wording import cut

# How long a writer waits for another one, in seconds. SQLite has one writer at a time.
SQLITE_BUSY_SECONDS = 30
# How long a connection attempt may take, in seconds.
CONNECT_SECONDS = 10
# A server that is cut off without a word is given up after so long, in seconds.
SILENT_SERVER_SECONDS = 30
# How long MySQL lets a transaction wait for another one's locks, in seconds: its default.
MYSQL_LOCK_SECONDS = 50
# Connections a process keeps, and may open for a moment beyond: a worker needs one, a supervisor
# two, and a server's default limit is 100 to 151 for everybody.
POOL_SIZE, POOL_OVERFLOW = 1, 2
# Two first starts at once both find no tables; the one that loses tries again.
CREATE_ATTEMPTS = 5

# SQLite's locks and its shared memory do not work across hosts (sqlite.org/wal.html, section 1).
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "davfs", "afs", "ceph", "lustre",
     "gpfs", "beegfs", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone",
     "fuse.ceph"}
)  # fmt: skip

_SHOWN_TABLES = 3


class _CachedStorage(_cached_storage._CachedStorage):
    """Optuna's cache, which for a trial's system attributes loads the whole trial, without that.

    It gives a study's user attributes in our order, as `PatientStorage` a trial's.
    """

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies, with their attributes as people look for them."""
        studies = super().get_all_studies()
        for study in studies:
            study.user_attrs = study_in_order(study.user_attrs)
        return studies

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        """A trial's system attributes, as pruners ask for at each report."""
        return self._backend.get_trial_system_attrs(trial_id)


@dataclass(frozen=True)
class Database:
    """An open database.

    Attributes:
        storage: Optuna's storage with its cache, for studies and samplers.
        backend: the same without the cache; its engine and sessions are used by this room only.
        url: as the user may see it, without password.
        address: for another process to open, with password and absolute path.
        has_claims: whether our own table is there; who only looks makes none.
        patience: tries again what fails while the database is away for a moment.
    """

    storage: BaseStorage
    backend: PatientStorage
    url: str
    address: str = field(repr=False)
    has_claims: bool

    @property
    def patience(self) -> Patience:
        """How this process bears with its database."""
        return self.backend.patience

    @property
    def is_shared(self) -> bool:
        """Whether other hosts can work on it: a SQLite file is for one machine."""
        return self.backend.engine.dialect.name != "sqlite"

    def close(self) -> None:
        """Close all connections."""
        self.backend.scoped_session.remove()
        self.backend.engine.dispose()


def open_database(
    address: str | Address, *, create: bool = True, read_only: bool = False, patient: bool = False
) -> Database:
    """Open a database and create the tables that are missing.

    Args:
        address: a storage URL as the user writes it, see `tuner.storage.urls.resolve`; or what it
            meant in the directory where it was written.
        create: make the file and tables that are not there.
        read_only: only look: nothing is made or written, not even by SQLite's housekeeping.
        patient: wait while a server is away, as a process does that helps with a running study.

    Raises:
        UsageError: the URL is wrong.
        NoDatabase: there is nothing, and nothing is to be made.
        StorageError: the database cannot be reached, is not ours, or has another schema.
    """
    if isinstance(address, str):
        address = address_of(address)
    create = create and not read_only
    url, shown = resolve(address.secret), address.shown
    patience = Patience(shown)
    if url.drivername == "sqlite":
        _prepare_sqlite_file(url, create=create)
        url = _read_only(url) if read_only else url
    try:
        with storage_errors(shown):
            if patient:
                backend = patience.run(lambda _again: _create_backend(url, patience, create=create))
            else:
                backend = _create_backend(url, patience, create=create)
    except TypeError as error:  # how drivers say it
        if "bytes-like object" in str(error):
            raise StorageError(
                f"The database {shown} has the encoding SQL_ASCII, which is none; create it anew "
                "with ENCODING 'UTF8'."
            ) from error
        raise UsageError(
            f"The storage {shown} has an option that its driver does not take: {error}."
        ) from error
    with storage_errors(shown):
        has_claims = create or sqlalchemy.inspect(backend.engine).has_table(claims.name)
    return Database(_CachedStorage(backend), backend, shown, address.secret, has_claims)


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Turn what the driver, SQLAlchemy or Optuna's storage raises into a `StorageError`."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        reason = reason_of(error)
        remedy = (
            "Make room, and run the same command again: what was done is kept"
            if "disk is full" in reason
            else "Check that it runs, that the URL, user and password are right, and that it can "
            "be written"
        )
        raise StorageError(f"The database {shown} cannot be used: {reason}. {remedy}.") from error


@contextmanager
def session_of(database: Database) -> Iterator[Session]:
    """One transaction, committed at the end; errors become a `StorageError`."""
    with storage_errors(database.url), database.backend.scoped_session() as session:
        yield session
        session.commit()


def hold_the_moment(session: Session) -> None:
    """Let all queries of a new transaction see the same rows: trials end while we read."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("BEGIN"))
    else:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


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
            raise StudyGone(
                f"The study with id {study_id} is gone from {database.url}: somebody deleted it. "
                "Run the command again to start it anew."
            )
        yield session


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        # IMMEDIATE: a transaction that writes takes the write lock at its first write and waits
        # for it, where DEFERRED would fail at once if another one wrote after its first read.
        return {"connect_args": {"timeout": SQLITE_BUSY_SECONDS, "isolation_level": "IMMEDIATE"}}
    options: dict[str, Any] = {
        "pool_size": POOL_SIZE,
        "max_overflow": POOL_OVERFLOW,
        "pool_pre_ping": True,
    }
    if url.drivername.startswith("postgresql"):
        options["connect_args"] = {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": SILENT_SERVER_SECONDS // 2,
            "keepalives_interval": SILENT_SERVER_SECONDS // 6,
            "keepalives_count": 3,
            "tcp_user_timeout": 1000 * SILENT_SERVER_SECONDS,
        }
    else:
        options["connect_args"] = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENT_SERVER_SECONDS + MYSQL_LOCK_SECONDS,
            "write_timeout": SILENT_SERVER_SECONDS,
        }
        # As PostgreSQL has it. Under MySQL's REPEATABLE READ, a beat that commits between a claim's
        # snapshot and its write can fail the claim (innodb_snapshot_isolation).
        options["isolation_level"] = "READ COMMITTED"
    return options


def _create_backend(url: URL, patience: Patience, *, create: bool) -> PatientStorage:
    # Optuna fills `{SCHEMA_VERSION}` in the URL by str.format: other braces must be doubled.
    template = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    _check_tables(url, patience.shown, create=create)
    for attempt in range(1, CREATE_ATTEMPTS + 1):
        try:
            backend = PatientStorage(
                template, _engine_options(url), patience, skip_table_creation=not create
            )
            if create:
                metadata.create_all(backend.engine)
            break
        except RuntimeError as error:  # Optuna's schema check
            raise StorageError(
                f"The database {patience.shown} has the tables of another Optuna version than "
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


def _check_tables(url: URL, shown: str, *, create: bool) -> None:
    """Refuse a database with another program's tables, and one without any if we must not create.

    Raises:
        StorageError: it is such a database.
    """
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
    if not create and "version_info" not in tables:
        raise NoDatabase(
            f"The database {shown} holds no studies; name the one that a run has used, with "
            "--storage."
        )


def _prepare_sqlite_file(url: URL, *, create: bool) -> None:
    """Check that the file can be ours, and switch it to write-ahead logging.

    WAL lets readers go on while a worker writes. The mode stays in the file.
    """
    path = Path(str(url.database))
    try:
        path.exists()
    except OSError as error:  # a name that is too long, or a folder that may not be entered
        raise StorageError(
            f"The database {cut(str(path))} cannot be used: {error.strerror}; name another file."
        ) from error
    if path.is_dir():
        raise StorageError(f"The database {path} is a directory; name a file in it.")
    if not path.parent.is_dir():
        raise StorageError(
            f"There is no directory {path.parent} for the database {path}; create it first, or "
            "name another file."
        )
    if not create and not path.exists():
        raise NoDatabase(
            f"There is no database {path}; name the one that a run has made, with --storage."
        )
    file_system = file_system_of(path.parent)
    if file_system in NETWORK_FILE_SYSTEMS:
        raise StorageError(
            f"The database {path} lies on a network file system ({file_system}), where SQLite "
            "loses data when several processes write; name a file on a local disk, or use "
            "postgresql:// or mysql://."
        )
    try:
        if create:
            with sqlite3.connect(path, timeout=SQLITE_BUSY_SECONDS) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
            connection.close()
        else:  # a look needs no lock, and need not be allowed to write
            _is_in_wal_mode(path)
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"The database {path} cannot be used: {error}. Check that it is a SQLite file, that "
            "it and its directory can be written, or name another file."
        ) from error


def _read_only(url: URL) -> URL:
    """A SQLite file whose connections cannot write, nor fold its log into it when they close.

    A file in WAL mode without its log is open nowhere: read as one that does not change
    (sqlite.org/uri.html), it gets no log by us. One with a rollback journal, as Optuna makes it, is
    read under SQLite's locks: somebody may be writing it.
    """
    path = Path(str(url.database))
    query = {"uri": "true", "mode": "ro"}
    if _is_in_wal_mode(path) and not Path(f"{path}-wal").exists():
        query["immutable"] = "1"
    return url.set(database=f"file:{quote(str(path))}", query=query)


def _is_in_wal_mode(path: Path) -> bool:
    """Whether a SQLite file has a write-ahead log: SQLite opens no such file without locks.

    The header says so, too. But a process that opens and closes the file by itself loses the locks
    of all its connections (sqlite.org/howtocorrupt.html, section 2.2), and another process may then
    take the log away under them.

    Raises:
        sqlite3.DatabaseError: it is no such file, or it may not be read.
    """
    address = f"file:{quote(str(path))}?mode=ro&nolock=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        try:
            connection.execute("PRAGMA schema_version")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN and os.access(path, os.R_OK):
                return True
            # A killed writer's journal: whoever may write rolls it back.
            if error.sqlite_errorcode != sqlite3.SQLITE_READONLY_ROLLBACK:
                raise
    return False


def _set_sqlite_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # NORMAL with WAL loses no committed transaction by kill -9, only by a power cut.
    connection.execute("PRAGMA synchronous=NORMAL")
