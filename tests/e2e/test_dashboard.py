"""`tuner dashboard` as its user runs it: it can only read, waits, and keeps to this machine."""

import io
import json
import re
import shutil
import signal
import socket
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import optuna
import optuna_dashboard
import pytest
import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from sqlalchemy.engine import make_url

from tests.conftest import admin, require_server, wait_until
from tests.e2e.faults import Command, Commands
from tuner.artifacts import store_of
from tuner.gate import READING
from tuner.serving import dashboard_of
from tuner.storage import open_database

# A value for each placeholder in a route, so that what it names is there.
STUDY, TRIAL = "1", "2"
BODIES: tuple[Any, ...] = (
    {"study_name": "another", "directions": ["minimize"]},
    {"version": 99, "body": "changed"},
    {"state": "complete", "values": [1.0]},
    {"user_attrs": {"changed": 1}},
    {"file": "data:text/plain;base64,aGVsbG8=", "filename": "a.txt"},
    {"output_type": "note", "mode": "ChooseWorst", "candidates": [0, 1], "clicked": 0},
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def reason(self) -> str:
        return str(json.loads(self.body)["reason"])


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: urllib asks again by GET, also after HEAD."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_Stay)


def ask(url: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """One request; any status is an answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with _opener.open(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with Commands(tmp_path) as commands:
        yield commands


def start(commands: Commands, *more: str, **env: str) -> tuple[Command, str]:
    """The command at a free port, and its address."""
    command = commands.start("tuner.dashboard", "--port", "0", *more, **env)
    command.await_words("Ctrl-C ends it")
    found = re.search(r"http://\S+/", command.text())
    assert found is not None
    return command, found[0].rstrip("/")


def end(command: Command, which: signal.Signals = signal.SIGTERM) -> None:
    command.process.send_signal(which)
    command.wait(0)
    assert "ended by a signal" in command.text()


def made(folder: Path) -> tuple[str, str]:
    """A study with a running and a finished trial, a note, a figure and two files.

    Returns:
        The database's URL, and the id of the finished trial's file.
    """
    url = f"sqlite:///{folder}/tuner.db"
    open_database(url).close()
    study = optuna.create_study(study_name="made", storage=url)
    store = FileSystemArtifactStore(store_folder(folder))
    (folder / "file.html").write_text("<script>alert(1)</script>")
    study.ask()
    trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
    file = upload_artifact(
        artifact_store=store, file_path=str(folder / "file.html"), study_or_trial=trial
    )
    upload_artifact(artifact_store=store, file_path=str(folder / "file.html"), study_or_trial=study)
    study.tell(trial, 0.5)
    optuna_dashboard.save_note(study, "as it was")
    return url, file


def store_folder(folder: Path) -> Path:
    found = folder / "tuner-artifacts" / "files"
    found.mkdir(parents=True, exist_ok=True)
    return found


def everything(folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """All rows of the database, and all files of the store."""
    with closing(sqlite3.connect(folder / "tuner.db")) as connection:
        rows = list(connection.iterdump())
    return rows, {path.name: path.read_bytes() for path in store_folder(folder).iterdir()}


def routes(folder: Path, file: str) -> list[tuple[str, str]]:
    """Method and a path of every route that optuna-dashboard has, from its own router."""
    with closing(open_database(f"sqlite:///{folder}/tuner.db", create=False)) as database:
        application: Any = dashboard_of(database, store_of(str(folder)), writable=False)
    values = {"study_id": STUDY, "trial_id": TRIAL, "artifact_id": file, "history_id": "h",
              "plot_type": "contour", "filename": "bundle.js"}  # fmt: skip

    def filled(rule: str) -> str:
        return re.sub(
            r"<(\w*):?(?:[^<>]|\(/\.\*\))*>", lambda it: values.get(it[1], ""), rule
        ).replace(" ", "")

    return [(route.method, filled(route.rule)) for route in application.routes]


def test_everything_that_writes_is_refused_and_nothing_changes(
    tmp_path: Path, commands: Commands
) -> None:
    url, file = made(tmp_path)
    known = routes(tmp_path, file)
    writing = [(method, path) for method, path in known if method not in READING]
    assert len(writing) >= 15, writing  # as optuna-dashboard 0.21 has them
    before = everything(tmp_path)
    command, address = start(commands, "--storage", url)
    assert ask(f"{address}/api/meta").status == 200
    unknown = [("PATCH", "/api/studies/1"), ("POST", "/"), ("PUT", "/api/studies/1/../1/note"),
               ("OPTIONS", "/api/studies"), ("TRACE", "/"),
               ("PUT", "/api/studies/1/note/"), ("WHATEVER", "/api/studies")]  # fmt: skip
    for method, path in [*writing, *unknown]:
        for body in BODIES:
            answer = ask(address + path, method, body)
            assert answer.status == 405, (method, path)
            assert answer.headers["Allow"] == "GET, HEAD"
            assert answer.reason == f"This dashboard is read-only: {method} {path} is refused."
    port = address.rpartition(":")[2]
    for name in ("example.com", f"example.com:{port}", "127.0.0.1.example.com", "localhost.evil"):
        # A page of somebody else, whose name was made to lead to this machine.
        assert ask(f"{address}/api/studies", Host=name).status == 403
    own = socket.gethostname()
    for name in (f"localhost:{port}", "127.0.0.1", "[::1]:8080", "10.1.2.3", own.upper()):
        assert ask(f"{address}/api/studies", Host=name).status == 200
    assert ask(f"{address}/%ffapi/studies").status == 400
    for body in BODIES:  # a header does not make a GET write
        override = {"X-HTTP-Method-Override": "DELETE"}
        assert ask(f"{address}/api/studies/{STUDY}", "GET", body, **override).status == 200
    for method, path in known:
        if method in READING:
            assert ask(address + path).status < 500 or "plot" in path, path
            assert ask(address + path, "HEAD").body == b""
    assert everything(tmp_path) == before
    for method, path in sorted(writing):
        print(f"405  {method:6} {path}")  # noqa: T201 - the list, with -s -n 0
    end(command)


def test_behind_the_gate_the_storage_cannot_be_written_either(tmp_path: Path) -> None:
    url, file = made(tmp_path)
    known = routes(tmp_path, file)
    before = everything(tmp_path)
    with closing(open_database(url, create=False)) as database:
        store = store_of(str(tmp_path / "tuner-artifacts"))
        application: Any = dashboard_of(database, store, writable=False)
        application.catchall = True
        seen = set()
        for method, path in known:
            for body in BODIES if method not in READING else ():
                seen.add(call(application, method, path, body))
        assert 405 in seen
        assert not {200, 201, 204} & seen, seen
        assert call(application, "GET", f"/api/studies/{STUDY}") == 200
    assert everything(tmp_path) == before


def call(application: Callable[..., Any], method: str, path: str, body: Any = None) -> int:
    """One request without a network; returns the status."""
    data = b"" if body is None else json.dumps(body).encode()
    status: list[int] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(data)),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "HTTP_ACCEPT_ENCODING": "identity",
        "wsgi.input": io.BytesIO(data),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    }
    answer = application(environ, lambda line, *_: status.append(int(line.split()[0])))
    b"".join(answer)
    return status[0]


def test_writable_is_for_notes_alone(tmp_path: Path, commands: Commands) -> None:
    url, file = made(tmp_path)
    note = {"version": 2, "body": "a word of ours"}
    command, address = start(commands, "--storage", url, "--writable")
    assert "notes can be written" in command.text()
    assert ask(f"{address}/api/studies/{STUDY}/note", "PUT", note).status == 204
    assert (
        ask(f"{address}/api/studies/{STUDY}/{TRIAL}/note", "PUT", note | {"version": 1}).status
        == 204
    )
    before = everything(tmp_path)
    for method, path in routes(tmp_path, file):
        if method not in READING and not path.endswith("/note"):
            for body in BODIES:
                assert ask(address + path, method, body).status == 405, (method, path)
    assert everything(tmp_path) == before
    study = json.loads(ask(f"{address}/api/studies/{STUDY}").body)
    assert study["note"]["body"] == "a word of ours"
    assert study["trials"][1]["note"]["body"] == "a word of ours"
    end(command, signal.SIGINT)


def test_it_waits_for_its_database_and_shows_files_without_running_them(
    tmp_path: Path, commands: Commands
) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    storage = ("--storage", "sqlite:///tuner.db")
    command, address = start(commands, *storage, "--open", BROWSER=str(browser))
    wait_until(opened.exists)
    wait_until(lambda: opened.read_text() == f"{address}/\n")
    missing = f"There is no database {tmp_path / 'tuner.db'}"
    assert missing in command.text()
    page, programs = ask(f"{address}/dashboard"), ask(f"{address}/api/studies")
    assert (page.status, programs.status) == (503, 503)
    assert b"Waiting for the database" in page.body
    assert missing in page.body.decode()
    assert missing in programs.reason
    assert ask(f"{address}/api/studies", "POST", BODIES[0]).status == 405
    assert not (tmp_path / "tuner.db").exists()
    _, file = made(tmp_path)
    wait_until(lambda: ask(f"{address}/api/meta").status == 200)
    command.await_words("the database is there")
    for slashes in ("/", "//"):
        attached = ask(f"{address}{slashes}artifacts/{STUDY}/{TRIAL}/{file}")
        assert (attached.status, attached.headers["Content-Type"]) == (200, "text/html")
        assert attached.headers["Content-Security-Policy"] == "sandbox"
        assert attached.headers["Access-Control-Allow-Origin"] is None
    # optuna-dashboard's router drops the byte that is no UTF-8.
    assert ask(f"{address}/%ffartifacts/{STUDY}/{TRIAL}/{file}").status == 400
    page = ask(f"{address}//dashboard")
    assert b"display: none !important" in page.body
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    shutil.rmtree(store_folder(tmp_path))
    gone = ask(f"{address}/artifacts/{STUDY}/{TRIAL}/{file}")
    assert gone.status == 404
    assert b"not in the artifact store" in gone.body
    end(command)


def test_other_machines_come_in_only_when_they_are_let_in(
    tmp_path: Path, commands: Commands
) -> None:
    url, _ = made(tmp_path)
    named = ("--host", "0.0.0.0", "--allow-remote", "--name", "tuner.example")
    command, address = start(commands, "--storage", url, *named)
    assert "a proxy that asks for one belongs before it" in command.text()
    here = f"http://127.0.0.1:{address.rpartition(':')[2]}"
    assert ask(f"{here}/api/studies", Host="tuner.example:443").status == 200
    assert ask(f"{here}/api/studies", Host="other.example").status == 403
    assert ask(f"{here}/api/studies/1", "DELETE").status == 405
    second = commands.start("tuner.dashboard", "--port", address.rpartition(":")[2])
    second.wait(2)
    assert "address already in use; choose another one with --port" in second.err
    end(command)


def test_a_database_that_goes_away_is_a_sentence(commands: Commands) -> None:
    require_server("postgresql")
    name = "tuner_test_dashboard_gone"
    server = make_url("postgresql://root@127.0.0.1/postgres")
    url = server.set(database=name).render_as_string(hide_password=False)
    drop = sqlalchemy.text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    with admin("postgresql").connect() as connection:
        connection.execute(drop)
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
        try:
            command, address = start(commands, "--storage", url)
            assert "holds no studies" in command.text()  # no tables are made by looking
            open_database(url).close()
            wait_until(lambda: ask(f"{address}/api/studies").status == 200)
            connection.execute(drop)
            answer = ask(f"{address}/api/studies")
            assert answer.status == 503
            assert "cannot be used" in answer.reason
            assert name in answer.reason
            end(command)
        finally:
            connection.execute(drop)
    assert "Traceback" not in command.text()
