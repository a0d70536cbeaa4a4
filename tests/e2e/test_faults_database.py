"""Databases that restart, cut connections or are full, and daemons that share them."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import quote

import pytest
import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy.engine import make_url

from tests.conftest import Bucket, admin, wait_until
from tests.e2e.faults import (
    KEEPING,
    SHORT_LIMITS,
    Cluster,
    Commands,
    check_nothing_lost,
    opened,
    own_cluster,
    request_of,
    trials_of,
)
from tuner.storage.attributes import STORES_ATTR

AWAY, BACK = "does not answer", "answers again after"


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with Commands(tmp_path) as commands:
        commands.study()
        yield commands


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster() as cluster:
        yield cluster


def the_server_restarts(cluster: Cluster, commands: Commands, mode: str, seconds: float) -> None:
    url = cluster.new_database()
    run = commands.run(url, 12, 3)
    wait_until(lambda: len(commands.witness.pids()) == 3, 60)
    workers = {worker.pid for worker in run.workers()}
    cluster.stop(mode)
    stopped = time.monotonic()
    try:
        run.await_words(AWAY)
        wait_until(lambda: time.monotonic() - stopped > seconds, seconds + 5)
        assert BACK not in run.text()
        assert {worker.pid for worker in run.workers()} == workers
    finally:
        cluster.start()
    run.await_words(BACK)
    assert {worker.pid for worker in run.workers()} == workers
    run.wait(0)
    check_nothing_lost(url, 12, commands.witness)
    assert commands.witness.pids() == workers
    assert len(workers) == 3
    assert all(len(tried) == 1 for tried in commands.witness.attempts().values())


@pytest.mark.parametrize("mode", ["immediate", pytest.param("fast", marks=pytest.mark.soak)])
def test_workers_wait_while_postgresql_restarts(
    mode: str, cluster: Cluster, commands: Commands
) -> None:
    the_server_restarts(cluster, commands, mode, 5)


@pytest.mark.soak
@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_workers_wait_while_postgresql_is_away_for_long(
    mode: str, cluster: Cluster, commands: Commands
) -> None:
    the_server_restarts(cluster, commands, mode, 35)


@pytest.mark.soak
def test_a_daemon_waits_for_a_postgresql_that_is_away_when_it_starts(
    cluster: Cluster, commands: Commands
) -> None:
    url = cluster.new_database()
    commands.run(url, 4, 1, "--detach").wait(0)
    cluster.stop()
    try:
        daemon = commands.daemon(url, 1)
        daemon.await_words(AWAY)
    finally:
        cluster.start()
    daemon.await_words("study: all 4 trials are done", 90)
    assert BACK in daemon.text()
    check_nothing_lost(url, 4, commands.witness)
    daemon.process.terminate()
    daemon.wait(0, 10)


CUT = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = :database AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = :database "
    "AND id <> CONNECTION_ID()",
}


class Scissors:
    """Cuts all connections of a database every 200 ms."""

    def __init__(self, kind: str, database: str) -> None:
        self.cut = 0
        self._kind, self._database = kind, database
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with admin(self._kind).connect() as connection:
            while not self._over.wait(0.2):
                found = connection.execute(
                    sqlalchemy.text(CUT[self._kind]), {"database": self._database}
                ).all()
                if self._kind == "mysql":
                    for (number,) in found:
                        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):  # it is gone
                            connection.execute(sqlalchemy.text(f"KILL {number}"))
                self.cut += len(found)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)


def connections_are_cut(url: str, commands: Commands, trials: int, seconds: float) -> None:
    parsed = make_url(url)
    kind = parsed.get_backend_name()
    run = commands.run(url, trials, 3)
    wait_until(lambda: len(commands.witness.pids()) == 3, 60)
    workers = {worker.pid for worker in run.workers()}
    with Scissors(kind, str(parsed.database)) as scissors:
        end = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() > end, seconds + 5)
        assert run.process.poll() is None, run.text()  # they were cut in the midst of it
    sys.stdout.write(f"{scissors.cut} connections cut\n")
    assert scissors.cut > 5 * seconds
    run.wait(0)
    check_nothing_lost(url, trials, commands.witness)
    assert commands.witness.pids() == workers


@pytest.mark.parametrize(
    "database_url", ["postgresql", pytest.param("mysql", marks=pytest.mark.soak)], indirect=True
)
def test_cut_connections_lose_nothing(database_url: str, commands: Commands) -> None:
    connections_are_cut(database_url, commands, 15, 3)


@pytest.mark.soak
@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_connections_that_are_cut_for_long_lose_nothing(
    database_url: str, commands: Commands
) -> None:
    connections_are_cut(database_url, commands, 50, 10)


@pytest.mark.soak
@pytest.mark.parametrize(
    "database_url",
    [
        pytest.param("sqlite", marks=pytest.mark.soak),  # its clock knows no zone
        "postgresql",
        pytest.param("mysql", marks=pytest.mark.soak),
    ],
    indirect=True,
)
def test_time_zones_make_nobody_look_dead(database_url: str, commands: Commands) -> None:
    url, elsewhere = database_url, {"TZ": "UTC"}
    other = url
    name = make_url(url).database
    if url.startswith("postgresql"):
        elsewhere["PGTZ"] = "America/New_York"
        with admin("postgresql").connect() as connection:
            connection.execute(
                sqlalchemy.text(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
            )
    elif url.startswith("mysql"):
        zone = "SET time_zone = '-05:00'"
        other = f"{url}?init_command={quote(zone)}"
    # Every beat that looks old is given away at once: only the clocks decide.
    limits = {"tuner.storage.claims.WATCH_SECONDS": 0.0, "tuner.supervise.REAP_SECONDS": 0.2}
    first = commands.run(url, 16, 1, limits=limits, TZ="Pacific/Auckland")
    second = commands.run(other, 16, 1, limits=limits, **elsewhere)
    for run in (first, second):
        run.wait(0)
        assert "taken over" not in run.text()
    trials = check_nothing_lost(url, 16, commands.witness)
    assert all(len(tried) == 1 for tried in commands.witness.attempts().values())
    assert commands.witness.parents() == {first.process.pid, second.process.pid}
    # As Optuna has it, a trial's times are in the zone of its worker, but both in the same.
    seconds = [
        (t.datetime_complete - t.datetime_start).total_seconds()
        for t in trials
        if t.datetime_complete and t.datetime_start
    ]
    assert len(seconds) == 16
    assert all(0 <= one < 30 for one in seconds)  # MySQL keeps whole seconds


# Found first on the path of every process: a SQLite file that may not grow.
FULL = """
import os
import sqlite3
from sqlite3 import dbapi2

connect = sqlite3.connect

def connect_full(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.execute(f"PRAGMA max_page_count={os.environ['MOST_PAGES']}")
    return connection

sqlite3.connect = dbapi2.connect = connect_full
"""


def check_full(commands: Commands, url: str, **env: str) -> None:
    """The command ends with one sentence, and the trials that ended before are there."""
    run = commands.run(url, 60, 2, STEP_SECONDS="0.01", **env)
    run.wait(3)
    assert run.err.startswith("error: The database "), run.text()
    assert "cannot be used" in run.err
    assert run.err.count("\n") == 1, run.text()


@pytest.mark.soak
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(
    tmp_path: Path, commands: Commands
) -> None:
    path = tmp_path / "tuner.db"
    url = f"sqlite:///{path}"
    commands.run(url, 2, 1).wait(0)
    with contextlib.closing(sqlalchemy.create_engine(url).raw_connection()) as connection:
        (pages,) = connection.cursor().execute("PRAGMA page_count").fetchone()
    full = tmp_path / "full"
    full.mkdir()
    (full / "sitecustomize.py").write_text(FULL)
    check_full(commands, url, MOST_PAGES=str(pages + 4), PYTHONPATH=str(full))
    ended = [trial for trial in trials_of(url) if trial.state == TrialState.COMPLETE]
    assert 2 <= len(ended) < 60
    commands.run(url, 60, 2, STEP_SECONDS="0.01").wait(0)
    trials = check_nothing_lost(url, 60, commands.witness)
    assert [trials[trial.number].value for trial in ended] == [trial.value for trial in ended]


@pytest.mark.soak
def test_a_full_file_system_is_one_sentence_and_the_same_command_goes_on(
    tmp_path: Path, commands: Commands
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        url = f"sqlite:///{disk}/tuner.db"
        commands.run(url, 2, 1).wait(0)
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(b"x" * (free - 100_000))
        check_full(commands, url)
        (disk / "filler").unlink()
        commands.run(url, 60, 2, STEP_SECONDS="0.01").wait(0)
        check_nothing_lost(url, 60, commands.witness)
    finally:
        commands.__exit__()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def server_url(cluster: Cluster) -> str:
    return cluster.new_database()


def as_host(name: str) -> tuple[str, ...]:
    """What starts a command on a host of another name, where that can be had."""
    words = ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh")
    try:
        done = subprocess.run([*words, "true"], check=False, capture_output=True, timeout=10)
    except OSError:
        return ()
    return words if done.returncode == 0 else ()


@pytest.mark.soak  # the test of the README's how-to has two hosts as well
def test_daemons_on_two_hosts_share_a_study_and_one_may_leave(
    server_url: str, commands: Commands
) -> None:
    hosts = {"alpha": as_host("alpha"), "beta": as_host("beta")}
    first, second = (commands.daemon(server_url, 1, before=before) for before in hosts.values())
    for daemon in (first, second):
        daemon.await_words("waiting for trials of every study")
    asked = commands.run(server_url, 14, 1, "--detach")
    asked.wait(0)
    assert "14 trials asked for, of any daemon" in asked.text()
    both = {first.process.pid, second.process.pid}
    commands.witness.await_work(workers=2, ended=2)
    assert commands.witness.parents() == both
    leaving = {
        number
        for number, attempts in commands.witness.attempts().items()
        if attempts[-1].parent == first.process.pid and attempts[-1].end is None
    }
    first.process.terminate()
    first.wait(0, 10)
    assert "ended by a signal; what was running is handed back" in first.text()
    second.await_words("study: all 14 trials are done")
    trials = check_nothing_lost(server_url, 14, commands.witness)
    wait_until(lambda: request_of(server_url)["state"] == "closed", 10)
    assert commands.witness.parents() == both
    attempts = commands.witness.attempts()
    handed_back = [number for number in leaving if len(attempts[number]) == 2]
    assert handed_back  # and taken by the other one
    assert all(attempts[number][1].parent == second.process.pid for number in handed_back)
    if all(hosts.values()):
        assert {trial.user_attrs["host"] for trial in trials} == hosts.keys()
    second.process.terminate()
    second.wait(0, 10)


@pytest.fixture
def hosts() -> dict[str, tuple[str, ...]]:
    """What starts a command on each of two hosts."""
    found = {name: as_host(name) for name in ("alpha", "beta")}
    if not all(found.values()):
        message = "no host names of their own for processes: unshare --uts is not allowed"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return found


@pytest.mark.soak
def test_a_trial_goes_on_from_a_bucket_when_its_host_dies(
    server_url: str, commands: Commands, hosts: dict[str, tuple[str, ...]], bucket: Bucket
) -> None:
    commands.study(KEEPING)
    how = ("--artifacts", bucket.address)
    commands.run(server_url, 2, 1, "--detach", *how, **bucket.env).wait(0)
    daemons = [
        commands.daemon(
            server_url, 1, *how, before=before, limits=SHORT_LIMITS, STEP_SECONDS="0.3",
            **bucket.env,
        )
        for before in hosts.values()
    ]  # fmt: skip
    commands.witness.await_work(workers=2)
    wait_until(lambda: all(len(it[-1].stored) >= 2 for it in commands.witness.attempts().values()))
    dying, other = daemons
    (lost,) = (
        number
        for number, attempts in commands.witness.attempts().items()
        if attempts[-1].parent == dying.process.pid and attempts[-1].end is None
    )
    workers = dying.workers()
    dying.kill()
    for worker in workers:
        worker.kill()
    wait_until(lambda: len(commands.witness.attempts()[lost]) == 2, 60)
    wait_until(lambda: request_of(server_url)["state"] == "closed", 60)
    check_nothing_lost(server_url, 2, commands.witness)
    begun = [it for it in commands.witness.events() if it["event"] == "from"]
    at = [it["step"] for it in begun if it["trial"] == lost]
    assert at[0] == 0
    assert at[1] >= 2
    assert all(it["path"].startswith(bucket.address) for it in begun)
    wait_until(lambda: bucket.keys == ["a/prefix/id"])  # all checkpoints are gone
    assert "does not share its artifact store" not in dying.text() + other.text()
    other.process.terminate()
    other.wait(0, 10)


@pytest.mark.soak
def test_hosts_that_do_not_share_their_artifacts_are_told(
    server_url: str, commands: Commands, hosts: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    def run(host: str, folder: str, trials: int) -> str:
        command = commands.run(
            server_url, trials, 1, "--artifacts", str(tmp_path / folder), before=hosts[host],
            STEP_SECONDS="0",
        )  # fmt: skip
        command.wait(0)
        return command.text()

    said = "does not share its artifact store with"
    assert said not in run("alpha", "here", 1)
    words = f"beta {said} alpha, so a trial that one host began starts over on the other; name a"
    assert run("beta", "there", 2).count(words) == 1
    assert said not in run("beta", "here", 3)  # it uses the same one now
    with opened(server_url) as (study, _):
        assert study.user_attrs[STORES_ATTR].keys() == hosts.keys()
        assert len({store for store, _ in study.user_attrs[STORES_ATTR].values()}) == 1


@pytest.mark.soak
def test_a_daemon_refuses_another_file_and_serves_the_oldest_request_it_can(
    server_url: str, commands: Commands, tmp_path: Path
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    text = commands.study().read_text()
    for name in ("edited", "older", "newer"):
        for folder in (there, here):
            # A study each, so that the witness shows in its values which one a trial is of.
            (folder / f"{name}.py").write_text(text.replace("witness", name))
    with (here / "edited.py").open("a") as file:
        file.write("# another version\n")
    for name in ("edited", "older", "newer"):
        asked = commands.run(
            server_url, 3, 1, "--detach", study=f"{name}.py", cwd=there,
            WITNESS=str(tmp_path / f"{name}.jsonl"),
        )  # fmt: skip
        asked.wait(0)
    opened = [request_of(server_url, name)["opened"] for name in ("edited", "older", "newer")]
    assert opened == sorted(opened)
    only = commands.daemon(server_url, 1, "--study", "newer", cwd=here, STEP_SECONDS="0.02")
    only.await_words("newer: all 3 trials are done")
    assert "edited" not in only.text()
    assert "older" not in only.text()
    commands.run(server_url, 6, 1, "--detach", study="newer.py", cwd=there).wait(0)
    only.await_words("newer: all 6 trials are done")
    only.process.terminate()
    only.wait(0, 10)
    commands.run(server_url, 9, 1, "--detach", study="newer.py", cwd=there).wait(0)
    every = commands.daemon(server_url, 1, cwd=here, STEP_SECONDS="0.02")
    every.await_words("newer: all 9 trials are done")
    every.process.terminate()
    every.wait(0, 10)
    said = every.text()
    assert "the study edited is not served here: edited.py has the hash" in said
    assert "bring the same version of the file here" in said
    places = [said.index(f"{name}: all ") for name in ("older", "newer")]
    assert places == sorted(places)
    assert trials_of(server_url, "edited") == []
    for name, n in (("older", 3), ("newer", 9)):
        trials = trials_of(server_url, name)
        assert [t.number for t in trials] == list(range(n))
        assert all(t.state == TrialState.COMPLETE for t in trials)
        assert request_of(server_url, name)["state"] == "closed"
    assert request_of(server_url, "edited")["state"] == "open"
