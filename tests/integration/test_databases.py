"""Opening databases, and the study's record in them."""

import collections
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution, distribution_to_json

from tests.conftest import admin, require_server
from tuner import machine
from tuner.errors import StorageError, UsageError
from tuner.storage import Claim, Claims, open_database, record_store, register, this_process
from tuner.storage.attributes import DEFINITION_ATTR, STORES_ATTR, STUDY_SEED_ATTR
from tuner.storage.database import _create_backend, _read_only
from tuner.storage.retry import Patience
from tuner.storage.studies import MOST_HOSTS, STORE_SECONDS
from tuner.storage.urls import resolve
from tuner.study import Snapshot

SPACE = {"x": distribution_to_json(FloatDistribution(0.0, 1.0))}
SNAPSHOT = Snapshot(SPACE, "loss", "minimize", 4, "study.py", "hash")

CREATE = """
import sys
from tuner.storage import Claim, Claims, open_database, register, this_process
from tuner.study import Snapshot
database = open_database(sys.argv[1])
print(register(database, "study", Snapshot(None, "value", "minimize", None, "s.py", "h"),
               seed=None, search={}).seed)
"""


def test_four_processes_create_the_same_study_in_a_fresh_database(database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, database_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1  # one seed was drawn


def test_what_we_write_optuna_reads(database_url: str) -> None:
    database = open_database(database_url)
    register(database, "study", SNAPSHOT, seed=3, search={"sampler": "tpe"})
    study = optuna.load_study(study_name="study", storage=database.storage)
    assert study.user_attrs[STUDY_SEED_ATTR] == 3
    assert Snapshot.from_dict(study.user_attrs[DEFINITION_ATTR]) == SNAPSHOT
    database.close()


def test_a_study_knows_which_store_each_host_uses(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(open_database(database_url)) as database:
        study_id = register(database, "study", SNAPSHOT, seed=3, search={}).study_id

        def told(host: str, store: str) -> list[str]:
            return record_store(database, study_id, host, store)

        assert told("alpha", "one") == told("alpha", "one") == told("beta", "one") == []
        assert told("gamma", "two") == ["alpha", "beta"]
        assert told("alpha", "two") == ["beta"]
        assert told("alpha", "three") == ["beta", "gamma"]
        later = time.time() + STORE_SECONDS + 1
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda: later)
            assert told("delta", "four") == []  # the others are of yesterday
        for number in range(MOST_HOSTS):
            told(f"host-{number}".ljust(255, "x"), "one")
        stored = optuna.load_study(study_name="study", storage=database.storage)
        known = stored.user_attrs[STORES_ATTR]
        assert len(known) == MOST_HOSTS
        assert not {"alpha", "beta", "gamma"} & known.keys()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "error"}, "metric is 'error' and was 'loss'"),
        ({"max_step": 5}, "max_step is 5 and was 4"),
        ({"space": None}, "x is absent and was FloatDistribution"),
        ({"direction": "maximize"}, "has the direction minimize, and study.py says maximize"),
    ],
)
def test_another_definition_under_the_same_name_is_refused(
    tmp_path: Path, change: dict[str, object], says: str
) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    register(database, "study", SNAPSHOT, seed=None, search={})
    other = Snapshot(**{**SNAPSHOT.__dict__, **change})
    with pytest.raises(UsageError, match=says) as caught:
        register(database, "study", other, seed=None, search={})
    assert "--study-name" in str(caught.value)
    database.close()


def test_another_seed_is_refused_and_another_file_only_warned_of(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    first = register(database, "study", SNAPSHOT, seed=5, search={})
    assert (first.seed, first.warnings) == (5, [])
    with pytest.raises(UsageError, match="--seed 5, and 6"):
        register(database, "study", SNAPSHOT, seed=6, search={})
    edited = Snapshot(**{**SNAPSHOT.__dict__, "file_hash": "other"})
    again = register(database, "study", edited, seed=None, search={})
    assert again.seed == 5
    assert "changed since the last run" in again.warnings[0]
    assert register(database, "study", edited, seed=5, search={}).warnings == []


def test_another_precision_warns(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")

    def register_with(precision: str) -> list[str]:
        search = {"precision": precision}
        return register(database, "study", SNAPSHOT, seed=None, search=search).warnings

    assert register_with("auto") == []
    assert register_with("auto") == []
    (warning,) = register_with("float32")
    assert "with --precision auto, and now runs with float32" in warning
    database.close()
    database.close()


def test_sqlite_is_in_wal_mode_and_syncs_normally(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    with database.backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
    database.close()


def test_braces_and_percent_signs_in_a_password_are_kept(tmp_path: Path) -> None:
    url = resolve("postgresql://user:a%7Bb%7D%25c@127.0.0.1:1/none")
    assert url.password == "a{b}%c"
    with pytest.raises(StorageError) as caught:
        open_database("postgresql://user:a{b}c%25@127.0.0.1:1/none")
    assert "a{b}c" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_brace_reaches_the_server_unchanged() -> None:
    require_server("postgresql")
    with admin("postgresql").connect() as connection:
        connection.execute(sqlalchemy.text('CREATE DATABASE "tuner_test_{brace}"'))
    try:
        url = resolve("postgresql://root@127.0.0.1/tuner_test_{brace}")
        backend = _create_backend(url, Patience("shown"), create=True)
        assert backend.engine.url.database == "tuner_test_{brace}"
        backend.engine.dispose()
    finally:
        with admin("postgresql").connect() as connection:
            connection.execute(sqlalchemy.text('DROP DATABASE "tuner_test_{brace}"'))


def test_files_that_cannot_be_ours_are_refused_in_a_sentence(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be looked at " * 10)
    foreign = tmp_path / "foreign.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{foreign}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE invoices (id INTEGER)")
    engine.dispose()
    older = tmp_path / "older.db"
    open_database(f"sqlite:///{older}").close()
    engine = sqlalchemy.create_engine(f"sqlite:///{older}")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
    engine.dispose()
    for path, says in (
        (text, "file is not a database"),
        (foreign, "another program \\(invoices\\)"),
        (older, "optuna storage upgrade"),
        (tmp_path, "is a directory"),
        (tmp_path / "no" / "tuner.db", "There is no directory"),
    ):
        with pytest.raises(StorageError, match=says):
            open_database(f"sqlite:///{path}")


def test_a_relative_file_is_the_same_for_a_worker_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///tuner.db")
    assert database.url == "sqlite:///tuner.db"
    assert database.address == f"sqlite:///{tmp_path}/tuner.db"
    assert "address" not in repr(database)
    database.close()


def test_an_option_that_the_driver_does_not_know_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="an option that its driver does not take"):
        open_database("mysql://root:s3cr3t@127.0.0.1/test?no_such_option=1")


def test_who_only_looks_creates_nothing(database_url: str) -> None:
    with pytest.raises(StorageError, match=r"no (studies|database)"):
        open_database(database_url, create=False)
    assert not database_url.startswith("sqlite") or not Path(database_url[10:]).exists()
    open_database(database_url).close()
    open_database(database_url, create=False).close()


def test_who_only_looks_heeds_the_locks_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs")  # no WAL
    looking = open_database(f"sqlite:///{path}", read_only=True)
    assert "immutable" not in looking.backend.engine.url.query
    looking.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with (
            contextlib.closing(
                sqlite3.connect(_read_only_address(path), uri=True, timeout=0)
            ) as it,
            pytest.raises(sqlite3.OperationalError, match="database is locked"),
        ):
            it.execute("SELECT count(*) FROM studies")


def test_the_journal_of_a_killed_writer_is_rolled_back(tmp_path: Path) -> None:
    """Of a file of Optuna's own, which has a rollback journal."""
    path, copy = tmp_path / "optuna.db", tmp_path / "copy.db"
    optuna.create_study(storage=f"sqlite:///{path}", study_name="theirs")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size=1")  # what is written goes into the file at once
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("CREATE TABLE big (text)")
        writer.execute("INSERT INTO big VALUES (zeroblob(1000000))")
        shutil.copy(f"{path}-journal", f"{copy}-journal")
        shutil.copy(path, copy)
    for read_only in (False, True):  # who may not write cannot roll it back
        looking = open_database(f"sqlite:///{copy}", create=False, read_only=read_only)
        assert [it.study_name for it in looking.storage.get_all_studies()] == ["theirs"]
        looking.close()


def test_who_only_looks_at_ours_leaves_no_log(tmp_path: Path) -> None:
    path = tmp_path / "ours.db"
    ours = open_database(f"sqlite:///{path}")
    assert ours.storage.get_all_studies() == []  # its connection is kept
    looking = open_database(f"sqlite:///{path}", read_only=True)
    assert "immutable" not in looking.backend.engine.url.query  # it is open, and has its log
    looking.close()
    ours.close()
    assert [it.name for it in tmp_path.iterdir()] == ["ours.db"]
    looking = open_database(f"sqlite:///{path}", read_only=True)
    assert looking.storage.get_all_studies() == []
    looking.close()
    assert [it.name for it in tmp_path.iterdir()] == ["ours.db"]


def _read_only_address(path: Path) -> str:
    """What `read_only` makes of a file."""
    url = _read_only(resolve(f"sqlite:///{path}"))
    return f"{url.database}?" + "&".join(f"{key}={value}" for key, value in url.query.items())


def test_a_file_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = collections.namedtuple("part", "mountpoint fstype")  # noqa: PYI024 - as psutil's
    mounts = [part("/", "ext4"), part(str(tmp_path), "ext4"), part(str(tmp_path / "net"), "NFS4")]
    monkeypatch.setattr(machine.psutil, "disk_partitions", lambda **_: mounts)
    (tmp_path / "net" / "data").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"network file system \(nfs4\).* local disk"):
        open_database(f"sqlite:///{tmp_path}/net/data/tuner.db")
    assert not (tmp_path / "net" / "data" / "tuner.db").exists()
    open_database(f"sqlite:///{tmp_path}/tuner.db").close()
    mounts.append(part(str(tmp_path / "net"), "tmpfs"))  # mounted over it
    open_database(f"sqlite:///{tmp_path}/net/data/tuner.db").close()


def test_a_database_without_an_encoding_is_refused() -> None:
    require_server("postgresql")
    create = "CREATE DATABASE tuner_test_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    with admin("postgresql").connect() as connection:
        connection.execute(sqlalchemy.text(create))
    try:
        with pytest.raises(StorageError, match="ENCODING 'UTF8'"):
            open_database("postgresql://root@127.0.0.1/tuner_test_ascii")
    finally:
        with admin("postgresql").connect() as connection:
            connection.execute(sqlalchemy.text("DROP DATABASE tuner_test_ascii WITH (FORCE)"))


def test_passwords_in_options_are_hidden() -> None:
    with pytest.raises(StorageError) as caught:
        open_database("postgresql://127.0.0.1:1/none?user=me&password=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_mysql_reads_what_is_committed() -> None:
    require_server("mysql")
    backend = _create_backend(
        resolve("mysql://root@127.0.0.1/test"), Patience("shown"), create=True
    )
    with backend.engine.connect() as connection:
        assert connection.get_isolation_level() == "READ COMMITTED"
    backend.engine.dispose()


def test_rows_of_deleted_trials_are_forgotten(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    database = open_database(url)
    first = register(database, "study", SNAPSHOT, seed=1, search={})
    claims = Claims(database, first.study_id)
    claims.claim(this_process(), lambda _number: 99, target=1, most_failed=0)
    optuna.delete_study(study_name="study", storage=database.storage)
    again = register(database, "study", SNAPSHOT, seed=1, search={})
    study = optuna.load_study(study_name="study", storage=database.storage)
    study.enqueue_trial({"x": 0.5})  # SQLite gives it the deleted trial's id
    claims = Claims(database, again.study_id)
    claim = claims.claim(this_process(), lambda _number: 7, target=1, most_failed=0)
    assert isinstance(claim, Claim)
    assert claim.seed == 7
    database.close()


def test_a_look_leaves_the_process_its_locks(tmp_path: Path) -> None:
    """Else another process takes the log away under this one's connections."""
    path = tmp_path / "tuner.db"
    open_database(f"sqlite:///{path}").close()
    other = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], timeout=0);"
        "print(connection.execute('PRAGMA journal_mode=DELETE').fetchone()[0])"
    )
    with contextlib.closing(sqlite3.connect(path)) as mine:  # a notebook's study, say
        mine.execute("SELECT count(*) FROM studies").fetchone()
        open_database(f"sqlite:///{path}", read_only=True).close()
        open_database(f"sqlite:///{path}", create=False).close()
        seen = subprocess.run(
            [sys.executable, "-c", other, str(path)], capture_output=True, text=True, check=False
        )
        assert "database is locked" in seen.stderr
        assert mine.execute("SELECT count(*) FROM studies").fetchone() == (0,)
