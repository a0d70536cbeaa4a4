"""Databases for tests, and studies that need no Keras."""

import gc
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.engine import make_url

ROOT = Path(__file__).resolve().parent.parent

# Servers that the tests may use: a database of its own is made in each for every test.
SERVERS = {
    "postgresql": os.environ.get("TUNER_TEST_POSTGRESQL", "postgresql://root@127.0.0.1/postgres"),
    "mysql": os.environ.get("TUNER_TEST_MYSQL", "mysql://root@127.0.0.1/test"),
}
# Commands run as on a user's machine: without what other tests set for this process.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("TUNER_")}
# Each run would take 2 s longer; tests of what it publishes turn this off.
ENVIRONMENT["TUNER_NO_PUBLISH"] = "yes"
DRIVERS = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


def free_port() -> int:
    """One on which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def admin(kind: str) -> sqlalchemy.Engine:
    """Connections to a server that are not in a transaction: they may create databases."""
    url = make_url(SERVERS[kind]).set(drivername=DRIVERS[kind])
    return sqlalchemy.create_engine(
        url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )


def require_server(kind: str) -> None:
    """Skip without the server; under CI it must be there."""
    try:
        with admin(kind).connect():
            return
    except sqlalchemy.exc.SQLAlchemyError as error:
        message = f"no {kind} server at {SERVERS[kind]}: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module", autouse=True)
def old_objects_are_left_alone() -> None:
    """Let the garbage collector look no more at what earlier modules have left.

    TensorFlow, Plotly and the other libraries are a million objects, through which it would go
    again and again: that makes tests that draw figures up to ten times slower.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/tuner.db"
        return
    require_server(request.param)
    name = f"tuner_test_{uuid.uuid4().hex[:12]}"
    with admin(request.param).connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(SERVERS[request.param]).set(database=name).render_as_string(False)
    finally:
        force = " WITH (FORCE)" if request.param == "postgresql" else ""
        with admin(request.param).connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name}{force}"))


@dataclass(frozen=True)
class Bucket:
    """An empty bucket on a server that speaks S3: moto's.

    Attributes:
        address: of the store, with a prefix.
        env: how boto3 finds the server.
        client: boto3's.
    """

    address: str
    env: dict[str, str]
    client: Any

    @property
    def keys(self) -> list[str]:
        """What it holds."""
        name = self.address.split("/")[2]
        found = self.client.list_objects_v2(Bucket=name).get("Contents", [])
        return [it["Key"] for it in found]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a server in this process, for as long as the tests run."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """A client of that server."""
    import boto3

    session = boto3.session.Session("me", "s3cr3t", region_name="us-east-1")
    return session.client("s3", endpoint_url=s3_endpoint)


@pytest.fixture
def bucket(s3_endpoint: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of its own, which this process finds by its variables, as a command does."""
    env = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "s3cr3t",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(f"s3://{name}/a/prefix", env, s3_client)


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an artifact store with nothing in it, of each kind in turn."""
    if request.param == "folder":
        return str(tmp_path / "store")
    found: Bucket = request.getfixturevalue("bucket")
    return found.address


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the text of a study file and returns its path."""

    def write(text: str, name: str = "study") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    return write


def start(*arguments: str, cwd: Path = ROOT, **env: str) -> "subprocess.Popen[str]":
    """Start ``python -m tuner.run`` with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "tuner.run", *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, cwd: Path = ROOT, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m tuner.run`` with these arguments to its end."""
    with start(*arguments, cwd=cwd, **env) as process:
        out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition, or fail."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
