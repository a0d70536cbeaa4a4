"""What docker-compose.yml starts, started by hand: each command as it stands, without containers.

A real implementation of Compose fills in the file. Paths, ports and host names of the containers
are those of a folder and of 127.0.0.1 here; nothing else of the commands and their environments is
changed. The database is a server of our own that wants the password, the proxy a real one.
"""

import base64
import contextlib
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, quote_plus

import psutil
import psycopg
import pytest
import yaml

from tests.conftest import ENVIRONMENT, ROOT, free_port, wait_until
from tests.e2e.faults import STUDY, Cluster, Command, Witness, check_nothing_lost, own_cluster

README = (ROOT / "README.md").read_text().split("\n## As a service: Docker Compose\n")[1]
LINES = [line.strip() for line in README.split("\n## ")[0].splitlines()]
PROFILES = ("tools", "report", "publish")
PASSWORD = "p@ss %7B{x}:/?#'\"\\ 100% ü+=&"  # each of these means something somewhere
# A password in the forms in which it could show.
FORMS = [form(PASSWORD) for form in (str, quote, quote_plus)]
FORMS += [PASSWORD.split(maxsplit=1)[0], quote(PASSWORD, safe=" +")]


def the_file(*more: Path, **env: str) -> dict[str, Any]:
    """docker-compose.yml, and what other files change, as a Compose implementation has it."""
    profiles = [word for profile in PROFILES for word in ("--profile", profile)]
    # It looks for no podman in a dry run.
    words = [sys.executable, "-m", "podman_compose", "--dry-run", "-f", "docker-compose.yml"]
    words += [word for path in more for word in ("-f", str(path))]
    done = subprocess.run(
        [*words, *profiles, "config"], cwd=ROOT, env={**ENVIRONMENT, **env}, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return dict(yaml.safe_load(done.stdout))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return the_file()


def test_what_may_be_chosen_is_filled_in(compose: dict[str, Any]) -> None:
    chosen = the_file(
        STUDY="other", TUNER_WORKERS="3", TUNER_CPUS="4", TUNER_ARTIFACTS="s3://bucket/x",
        TUNER_UID="501", TUNER_GID="20", TUNER_DOMAIN="tuner.example.org",
    )["services"]  # fmt: skip
    usual = compose["services"]
    assert usual["worker"]["cpus"] == usual["worker"]["environment"]["TUNER_WORKERS"] == "1"
    assert (chosen["worker"]["cpus"], chosen["worker"]["environment"]["TUNER_WORKERS"]) == (
        "4",
        "3",
    )
    assert usual["report"]["user"] == "1000:1000"
    assert chosen["report"]["user"] == "501:20"
    assert chosen["report"]["command"][-3:] == ["other", "--out", "/reports/other.html"]
    assert chosen["proxy"]["environment"] == {"TUNER_DOMAIN": "tuner.example.org"}
    ours = [name for name, service in chosen.items() if service["image"] == "tuner:local"]
    assert set(ours) == {"init", "worker", "dashboard", "tuner", "report"}
    for name in ours:
        assert chosen[name]["environment"]["TUNER_ARTIFACTS"] == "s3://bucket/x"


def test_the_readmes_other_files_change_this_one(compose: dict[str, Any], tmp_path: Path) -> None:
    files = []
    for name in ("docker-compose.gpu.yml", "docker-compose.s3.yml"):
        text = README.split(f"<!-- {name} -->\n```yaml\n")[1].split("```")[0]
        files.append(tmp_path / name)
        files[-1].write_text(text)
    gpu, s3 = (the_file(file)["services"] for file in files)
    (device,) = gpu["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    for name in ("worker", "dashboard", "tuner", "report"):
        assert s3[name]["secrets"] == ["db_password", "aws"]
        before = compose["services"][name]["environment"]
        credentials = {"AWS_SHARED_CREDENTIALS_FILE": "/run/secrets/aws"}
        assert s3[name]["environment"] == before | credentials
    for other in (gpu, s3):
        assert other["worker"]["command"] == compose["services"]["worker"]["command"]
        assert other["init"]["build"]["args"] != compose["services"]["init"]["build"]["args"]


class Watch:
    """Looks at all processes that we have started for anything that shows the password."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.shown: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                self._look(process)

    def _look(self, process: psutil.Process) -> None:
        with contextlib.suppress(psutil.Error):  # it has ended
            command, environment = " ".join(process.cmdline()), process.environ()
            if "OPTUNA_STORAGE" in environment:  # one of ours
                self.seen.add(command)
            words = "\n".join([command, *environment.values()])
            if any(form in words for form in FORMS):
                self.shown.add(command)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)


@dataclass
class Stack:
    """The services of the file, in a folder."""

    compose: dict[str, Any]
    folder: Path
    cluster: Cluster
    port: int = field(default_factory=free_port)
    started: list[Command] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        for name in ("project/studies", "data/artifacts", "reports", "secrets", "home"):
            (self.folder / name).mkdir(parents=True)
        # The study that the file's report is about by default; without Keras.
        self.witness = Witness(self.folder / "witness.jsonl")
        text = STUDY.replace('os.environ["WITNESS"]', repr(str(self.witness.path)))
        (self.folder / "project" / "studies" / "mnist.py").write_text(text)
        secret = self.folder / "secrets" / "db_password"
        secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
        self.dashboard = self.start("dashboard")

    @property
    def url(self) -> str:
        """Of the database, with the password."""
        return self.here("postgresql://tuner@db/tuner").replace("@", f":{quote(PASSWORD)}@", 1)

    def here(self, text: str) -> str:
        """A text of the file, with what is meant by it here."""
        server = f"127.0.0.1:{self.cluster.variables['PGPORT']}"
        for there, here in {
            "@db/": f"@{server}/",
            "/run/secrets/": f"{self.folder}/secrets/",
            "/data/artifacts": f"{self.folder}/data/artifacts",
            "/reports/": f"{self.folder}/reports/",
            "/etc/caddy/": f"{self.folder}/",
            "dashboard:8080": f"127.0.0.1:{self.port}",
            "127.0.0.1:8080": f"127.0.0.1:{self.port}",
        }.items():
            text = text.replace(there, here)
        return str(self.port) if text == "8080" else text

    def words(self, words: list[str]) -> list[str]:
        return [sys.executable if word == "python" else self.here(word) for word in words]

    def environment(self, name: str) -> dict[str, str]:
        """A service's: what the file gives it, and what its image has, but nothing of ours."""
        given = self.compose["services"][name].get("environment", {})
        image = {"HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1"}
        of_machine = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        here = {key: self.here(value) for key, value in given.items()}
        return {**image, **of_machine, "PYTHONPATH": str(ROOT), **here}

    def start(self, name: str, *more: str, **env: str) -> Command:
        """Start a service, with its own command; or with other arguments, as `run` does."""
        service = self.compose["services"][name]
        command = service.get("command", [])
        if "entrypoint" in service:
            command = [*service["entrypoint"], *(more or command)]
        else:
            command = [*command, *more]
        return self.launch(self.words(command), {**self.environment(name), **env})

    def launch(self, words: list[str], env: dict[str, str]) -> Command:
        number = len(self.started)
        out, err = self.folder / f"{number}.out", self.folder / f"{number}.err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                words, cwd=self.folder / "project", env=env, stdin=subprocess.DEVNULL,
                stdout=out_file, stderr=err_file,
            )  # fmt: skip
        self.started.append(Command(process, out, err))
        return self.started[-1]

    def is_healthy(self, name: str) -> bool:
        """Whether a service's own check says so."""
        kind, *words = self.compose["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        path = f"{self.cluster.programs}:{os.environ['PATH']}"
        env = {**self.environment(name), **self.cluster.variables, "PATH": path}
        done = subprocess.run(
            [shutil.which(words[0], path=path) if words[0] != "python" else sys.executable,
             *map(self.here, words[1:])],
            env=env, check=False, capture_output=True, timeout=60,
        )  # fmt: skip
        return done.returncode == 0

    def grace(self, name: str) -> float:
        """Seconds after which a service would be killed."""
        return float(self.compose["services"][name].get("stop_grace_period", "10s").rstrip("s"))

    def stop(self, name: str, command: Command) -> None:
        """As `docker compose stop` does."""
        command.process.terminate()
        command.wait(0, self.grace(name))

    def in_database(self, line: str, words: bytes = b"") -> bytes:
        """Run a line of the README that works within the database's container."""
        before, _, command = line.partition("exec -T db ")
        assert before == "docker compose "
        program, *arguments = shlex.split(re.split(r" [<>] ", command)[0])
        done = subprocess.run(
            [str(self.cluster.programs / program), *arguments], input=words,
            env={**os.environ, **self.cluster.variables}, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def stack(compose: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All that `docker compose up` starts, but for workers."""
    with own_cluster() as cluster:
        # What the image of PostgreSQL does when it starts for the first time.
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE tuner")
        cluster.require(PASSWORD)
        stack = Stack(compose, tmp_path_factory.mktemp("stack"), cluster)
        try:
            with stack.watch:
                _start_up(stack)
                yield stack
        finally:
            for command in stack.started:
                command.end()


def _start_up(stack: Stack) -> None:
    assert stack.is_healthy("db")
    stack.dashboard.await_words("Waiting for it")
    assert not stack.is_healthy("dashboard")
    for command in [stack.start("init"), stack.start("init")]:  # at the same time
        command.wait(0)
        assert "is ready: its tables " in command.text()
    wait_until(lambda: stack.is_healthy("dashboard"), 60)


def line_with(*words: str) -> str:
    """The line of the README that has all these words."""
    (line,) = [line for line in LINES if all(word in line for word in words)]
    return line


def caddy() -> str:
    """The proxy's program; without it the test is skipped, which under CI is a failure."""
    found = shutil.which("caddy")
    if found is None:
        message = "the proxy, caddy, is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.mark.soak
def test_the_proxy_asks_for_a_password(stack: Stack) -> None:
    program, ports = caddy(), (free_port(), free_port())
    word = "let me in"
    # The README makes the hash by the same program, which asks for the password.
    assert line_with("caddy hash-password").endswith("caddy hash-password")
    hashed = subprocess.run(
        [program, "hash-password"], input=f"{word}\n", capture_output=True, text=True, check=True,
        timeout=60,
    ).stdout.split()[-1]  # fmt: skip
    (stack.folder / "secrets" / "dashboard_users").write_text(f"anna {hashed}\n")
    settings = stack.compose["configs"]["caddyfile"]["content"]
    (config,) = stack.compose["services"]["proxy"]["configs"]
    assert config == {"source": "caddyfile", "target": "/etc/caddy/Caddyfile"}
    elsewhere = f"admin off\n\thttp_port {ports[0]}\n\thttps_port {ports[1]}"
    path = Path(stack.here(config["target"]))
    path.write_text(stack.here(settings.replace("admin off", elsewhere)))
    proxy = stack.start("proxy", XDG_DATA_HOME=str(stack.folder / "certificates"),
                        XDG_CONFIG_HOME=str(stack.folder / "proxy"))  # fmt: skip
    root = stack.folder / "certificates" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
    wait_until(lambda: _answers(ports[1], root), 60)

    def asked(user: str | None, method: str = "GET", path: str = "api/studies") -> tuple[int, str]:
        request = urllib.request.Request(f"https://localhost:{ports[1]}/{path}", method=method)
        if user is not None:
            token = base64.b64encode(user.encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        trusted = ssl.create_default_context(cafile=str(root))
        try:
            with urllib.request.urlopen(request, timeout=30, context=trusted) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert asked(None) == (401, "")
    assert asked("anna:wrong") == (401, "")
    assert asked(f"otto:{word}") == (401, "")
    assert asked(f"anna:{word}")[0] == 200
    assert "study_summaries" in asked(f"anna:{word}")[1]
    assert asked(f"anna:{word}", path="dashboard")[0] == 200
    assert asked(f"anna:{word}", "DELETE", "api/studies/1")[0] == 405
    stack.stop("proxy", proxy)


def _answers(port: int, root: Path) -> bool:
    """Whether the proxy has made its certificates, and shows one that its root vouches for."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("localhost", port), 10) as connection,
        ssl.create_default_context(cafile=str(root)).wrap_socket(
            connection, server_hostname="localhost"
        ),
    ):
        return True
    return False


@pytest.mark.soak
def test_every_command_of_the_file_as_it_stands(stack: Stack) -> None:
    _refuse_another_password(stack)
    _search(stack)
    _look_at_it(stack)
    _keep_and_restore(stack)
    assert stack.watch.shown == set()
    for module in ("init", "worker", "dashboard", "engines.child", "report", " run "):
        assert any(module in name for name in stack.watch.seen), (module, stack.watch.seen)
    for command in stack.started:
        assert not any(form in command.text() for form in FORMS), command.text()


def _refuse_another_password(stack: Stack) -> None:
    other = stack.folder / "secrets" / "other"
    other.write_text("wrong 0ne\n")
    refused = stack.start("init", TUNER_STORAGE_PASSWORD_FILE=str(other))
    refused.wait(3)
    assert "password authentication failed" in refused.err
    assert "0ne" not in refused.err
    assert refused.err.count("\n") == 1


def _search(stack: Stack) -> None:
    """Two containers of workers, SIGTERM amid the work, and another one that ends it."""
    workers = [stack.start("worker"), stack.start("worker", "-v")]
    # The README's own line.
    asked = line_with("tuner run --study mnist", "--detach").partition(" tuner ")[2]
    ask = stack.start("tuner", *shlex.split(asked.replace("100", "10")), "--pruner", "none")
    ask.wait(0)
    assert "10 trials asked for, of any daemon" in ask.text()
    stack.witness.await_work(workers=2)
    assert stack.witness.parents() == {worker.process.pid for worker in workers}
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.wait(0, stack.grace("worker"))
        assert "with 1 worker" in worker.text()
        assert "ended by a signal; what was running is handed back" in worker.text()
    last = stack.start("worker", STEP_SECONDS="0.01")
    last.await_words("mnist: all 10 trials are done")
    stack.stop("worker", last)
    check_nothing_lost(stack.url, 10, stack.witness, name="mnist")


def _look_at_it(stack: Stack) -> None:
    status, report = stack.start("tuner"), stack.start("report")
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.port}/api/studies", timeout=30) as answer:
        assert b'"mnist"' in answer.read()
    stack.stop("dashboard", stack.dashboard)
    status.wait(0)
    assert "10/10" in status.text()
    report.wait(0)
    assert "10 trials" in (stack.folder / "reports" / "mnist.html").read_text()


def _keep_and_restore(stack: Stack) -> None:
    kept = stack.in_database(line_with("exec -T db pg_dump"))
    stack.in_database("docker compose exec -T db psql --username tuner --dbname tuner "
                      "--command 'DELETE FROM trial_values'")  # fmt: skip
    stack.in_database(line_with("exec -T db pg_restore"), kept)
    check_nothing_lost(stack.url, 10, stack.witness, name="mnist")


def test_the_password_is_made_once_as_the_readme_says(tmp_path: Path) -> None:
    line = line_with(".secrets/db_password", "/dev/urandom")
    made = tmp_path / ".secrets" / "db_password"
    words = set()
    for _ in range(2):  # the second time nothing is replaced
        subprocess.run(["sh", "-c", f"umask 077; {line}"], cwd=tmp_path, check=True)
        words.add(made.read_text())
    assert {len(word) for word in words} == {33}
    assert len(words) == 1
    assert (made.parent.stat().st_mode & 0o777, made.stat().st_mode & 0o777) == (0o700, 0o644)
    assert (tmp_path / "reports").is_dir()
