"""What the fault tests share: a study with a witness, commands that are ended, and the check."""

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import optuna
import psutil
import psycopg
import psycopg.sql
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import ENVIRONMENT, ROOT, free_port, wait_until
from tuner.seeds import trial_seed
from tuner.storage import open_database
from tuner.storage.attributes import REQUEST_ATTR, STUDY_SEED_ATTR
from tuner.storage.tables import claims

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
COMMAND_SECONDS = 120.0

# A study that writes each event to a file outside the database. Every attempt at a trial adds a
# noise of its own to its values, so that the database says whose they are. Tests append another
# `fault`, which is called before each step, and after the last one with the step after it.
STUDY = """
import json
import os
import time
import uuid

import optuna

WITNESS = os.environ["WITNESS"]
STEPS = 8
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.08"))
NOISE = float(os.environ.get("NOISE", "1e-12"))


def note(trial, event, **more):
    line = {"event": event, "trial": trial.number, "pid": os.getpid(), **more}
    file = os.open(WITNESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, (json.dumps(line) + "\\n").encode())
    os.close(file)


def first_time(name):
    try:
        os.close(os.open(f"{WITNESS}.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def fault(trial, step):
    pass


def before_pruning(trial):
    pass


def objective(trial):
    attempt = uuid.uuid4().hex[:8]
    kind = trial.suggest_categorical("kind", ["line", "bowl"])
    x = trial.suggest_float("x", 0, 1)
    y = trial.suggest_float("y", 0, 1) if kind == "bowl" else 0.5
    note(trial, "begin", attempt=attempt, parent=os.getppid(), params=trial.params)
    noise = NOISE * int(attempt[:6], 16)
    for step in range(1, STEPS + 1):
        fault(trial, step)
        time.sleep(STEP_SECONDS)
        value = (x - 0.3) ** 2 + (y - 0.6) ** 2 + 0.1 / step + noise
        note(trial, "report", attempt=attempt, step=step, value=value)
        trial.report(value, step)
        note(trial, "stored", attempt=attempt, step=step)
        if trial.should_prune():
            before_pruning(trial)
            note(trial, "end", attempt=attempt, value=value)
            raise optuna.TrialPruned
    fault(trial, STEPS + 1)
    note(trial, "end", attempt=attempt, value=value)
    return value
"""

# Keeps its step in its checkpoint, and goes on from there.
KEEPING = """
del objective  # another one takes its place


def objective(trial):
    attempt = uuid.uuid4().hex[:8]
    x = trial.suggest_float("x", 0, 1)
    note(trial, "begin", attempt=attempt, parent=os.getppid(), params=trial.params)
    try:
        done = json.loads(trial.checkpoint.load().read_text())["step"]
    except FileNotFoundError:
        done = 0
    note(trial, "from", step=done, path=str(trial.checkpoint))
    for step in range(1, STEPS + 1):
        value = x + 1 / step
        if step > done:
            time.sleep(STEP_SECONDS)
            trial.checkpoint.save(lambda path: path.write_text(json.dumps({"step": step})))
        note(trial, "report", attempt=attempt, step=step, value=value)
        trial.report(value, step)
        note(trial, "stored", attempt=attempt, step=step)
        fault(trial, step)
    note(trial, "end", attempt=attempt, value=value)
    return value
"""

# Starts a command with other limits than its own: each `module.NAME=value`.
PATCHED = """
import importlib, sys
entry, *patches = sys.argv.pop(1).split(";")
for patch in patches:
    name, _, value = patch.partition("=")
    module, _, constant = name.rpartition(".")
    module = importlib.import_module(module)
    getattr(module, constant)  # it must be there
    setattr(module, constant, float(value))
importlib.import_module(entry).main()
"""
# What is given away for its age after three seconds instead of a minute.
SHORT_LIMITS = {
    "tuner.storage.claims.BEAT_AGE_LIMIT_SECONDS": 3.0,
    "tuner.storage.claims.WATCH_SECONDS": 1.0,
    "tuner.supervise.BEAT_SECONDS": 0.5,
    "tuner.supervise.REAP_SECONDS": 0.5,
}
SHORT_AGE_SECONDS = SHORT_LIMITS["tuner.storage.claims.BEAT_AGE_LIMIT_SECONDS"]


@dataclass
class Attempt:
    """One call of the objective, as the witness saw it; `first` and `last` are its lines there."""

    token: str
    pid: int
    parent: int
    params: dict[str, Any]
    first: int
    last: int
    reported: dict[int, float] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    end: float | None = None


class Witness:
    """The file in which the objective writes what it does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def events(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def count(self, event: str) -> int:
        return sum(line["event"] == event for line in self.events())

    def attempts(self) -> dict[int, list[Attempt]]:
        """By the trial's number, in the order in which they began."""
        found: dict[int, list[Attempt]] = {}
        known: dict[str, Attempt] = {}
        for place, line in enumerate(self.events()):
            if line["event"] == "begin":
                attempt = Attempt(
                    line["attempt"], line["pid"], line["parent"], line["params"], place, place
                )
                known[attempt.token] = attempt
                found.setdefault(line["trial"], []).append(attempt)
            elif "attempt" in line:
                attempt = known[line["attempt"]]
                attempt.last = place
                if line["event"] == "report":
                    attempt.reported[line["step"]] = line["value"]
                elif line["event"] == "stored":
                    attempt.stored.add(line["step"])
                elif line["event"] == "end":
                    attempt.end = line["value"]
        return found

    def pids(self) -> set[int]:
        return {line["pid"] for line in self.events()}

    def parents(self) -> set[int]:
        """The supervisors of all attempts.

        A worker can begin a trial in the moment between its supervisor's end and its own. Its
        parent is then who adopts orphans here: this process, one above it, or the first of all.
        """
        adopters = {1, os.getpid(), *(process.pid for process in psutil.Process().parents())}
        return {it["parent"] for it in self.events() if it["event"] == "begin"} - adopters

    def at_work(self) -> dict[int, int]:
        """Trials that are in the midst of their eight steps, and the processes they are in."""
        last = {number: attempts[-1] for number, attempts in self.attempts().items()}
        return {
            number: attempt.pid
            for number, attempt in last.items()
            if attempt.end is None and 1 <= len(attempt.stored) <= 6 and is_worker(attempt.pid)
        }

    def await_work(self, workers: int = 1, ended: int = 0) -> None:
        """Wait until so many trials are in the midst of their steps, and so many have ended."""
        wait_until(lambda: len(self.at_work()) >= workers and self.count("end") >= ended, 60)


def is_worker(pid: int) -> bool:
    """Whether a worker process lives under this number."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and any(
            "tuner.engines.child" in word for word in process.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


class Command:
    """A command of ours that runs, and what it wrote so far."""

    def __init__(self, process: "subprocess.Popen[bytes]", out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err
        self._seen: set[psutil.Process] = set()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def text(self) -> str:
        return self._out.read_text() + self.err

    def await_words(self, words: str, seconds: float = 60.0) -> None:
        wait_until(lambda: words in self.text() or self.process.poll() is not None, seconds)
        assert words in self.text(), self.text()

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live now."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children()
            self._seen.update(children)
            return [child for child in children if is_worker(child.pid)]
        return []

    def wait(self, code: int, seconds: float = COMMAND_SECONDS) -> None:
        """Wait for the end, which must have this exit code and show no traceback."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds} s:\n{self.text()}")
        assert self.process.returncode == code, self.text()
        assert "Traceback" not in self.text(), self.text()

    def kill(self) -> None:
        """kill -9 of this process alone."""
        self.workers()
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL

    def end(self) -> None:
        """End it and its workers, whatever state they are in."""
        self.workers()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for worker in self._seen:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


class Commands:
    """Starts commands in a folder; all of them, and their workers, end with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.witness = Witness(folder / "witness.jsonl")
        self._started: list[Command] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for command in self._started:
            command.end()
        for pid in self.witness.pids():  # of supervisors that were killed
            if is_worker(pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()

    def study(self, fault: str = "", name: str = "study") -> Path:
        """Write the study file, with another `fault`."""
        path = self.folder / f"{name}.py"
        path.write_text(STUDY + fault)
        return path

    def run(self, url: str, trials: int, workers: int, *more: str, **options: Any) -> Command:
        """Start ``python -m tuner.run`` for the study; trials are pruned only when asked for."""
        study = options.pop("study", None) or str(self.folder / "study.py")
        arguments = ["--study", study, "--storage", url, "--trials", str(trials), *more]
        if "--pruner" not in more:
            arguments += ["--pruner", "none"]
        return self.start("tuner.run", *arguments, "--workers", str(workers), **options)

    def daemon(self, url: str, workers: int, *more: str, **options: Any) -> Command:
        """Start ``python -m tuner.worker``."""
        arguments = ["--storage", url, "--workers", str(workers), *more]
        return self.start("tuner.worker", *arguments, **options)

    def start(
        self,
        module: str,
        *arguments: str,
        limits: Mapping[str, float] | None = None,
        before: tuple[str, ...] = (),
        cwd: Path | None = None,
        **env: str,
    ) -> Command:
        program = ["-m", module]
        if limits:
            patches = ";".join([module, *(f"{name}={value}" for name, value in limits.items())])
            program = ["-c", PATCHED, patches]
        number = len(self._started)
        out, err = self.folder / f"command{number}.out", self.folder / f"command{number}.err"
        path = os.pathsep.join(filter(None, [env.pop("PYTHONPATH", ""), str(ROOT)]))
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [*before, sys.executable, *program, *arguments],
                cwd=cwd or self.folder,
                env={**ENVIRONMENT, "WITNESS": str(self.witness.path), "PYTHONPATH": path, **env},
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
            )
        self._started.append(Command(process, out, err))
        return self._started[-1]


@contextlib.contextmanager
def opened(url: str, name: str = "study") -> Iterator[tuple[optuna.Study, sqlalchemy.Engine]]:
    """A study as Optuna reads it, and connections to its database."""
    database = open_database(url)
    try:
        yield (
            optuna.load_study(study_name=name, storage=database.storage),
            database.backend.engine,
        )
    finally:
        database.close()


def trials_of(url: str, name: str = "study") -> list[FrozenTrial]:
    with opened(url, name) as (study, _):
        return study.get_trials(deepcopy=False)


def request_of(url: str, name: str = "study") -> dict[str, Any]:
    with opened(url, name) as (study, _):
        return dict(study.user_attrs[REQUEST_ATTR])


def check_nothing_lost(
    url: str,
    n: int,
    witness: Witness,
    *,
    name: str = "study",
    failed: int | None = 0,
    exclusive: bool = True,
) -> list[FrozenTrial]:
    """Compare the database with what the witness saw.

    Args:
        url: the database.
        n: the study's target, which it has reached.
        witness: of all commands that worked on it; it saw no other study.
        name: of the study.
        failed: how many rows are FAIL, or None if there may be any number.
        exclusive: nobody was taken for dead who was not: no two attempts at a trial overlap.
    """
    with opened(url, name) as (study, engine):
        trials = study.get_trials(deepcopy=False)
        seed = study.user_attrs[STUDY_SEED_ATTR]
        with engine.connect() as connection:
            held = connection.execute(sqlalchemy.select(claims)).all()
    states = [trial.state for trial in trials]
    assert sum(state in ENDED for state in states) == n, states
    assert all(state in (*ENDED, TrialState.FAIL) for state in states), states
    assert failed in (None, states.count(TrialState.FAIL)), states
    assert held == []
    assert [trial.number for trial in trials] == list(range(len(trials)))
    attempts = witness.attempts()
    assert attempts.keys() <= set(range(len(trials)))
    for trial in trials:
        assert trial.user_attrs["seed"] == trial_seed(seed, trial.number)
        _check_trial(trial, attempts.get(trial.number, []), exclusive=exclusive)
    wait_until(lambda: not any(is_worker(pid) for pid in witness.pids()), 15)
    return trials


def _check_trial(trial: FrozenTrial, attempts: list[Attempt], *, exclusive: bool) -> None:
    for attempt in attempts:
        assert attempt.params == trial.params, (trial, attempt)
    if exclusive:
        for before, after in itertools.pairwise(attempts):
            assert before.last < after.first, (before, after)
    last_to_store = {
        step: _who_may_have_stored(attempts, step) for step in trial.intermediate_values
    }
    for step, value in trial.intermediate_values.items():
        assert value in last_to_store[step], (trial, step)
    if trial.state not in ENDED:
        return
    accepted = attempts[-1]  # the owner at the end is the last one to have claimed the trial
    assert accepted.end is not None, trial
    assert trial.intermediate_values.keys() == accepted.stored
    # Who ended before was killed, or had lost the trial, between its end and the tell.
    if trial.state is TrialState.COMPLETE:
        assert trial.value == accepted.end, (trial, attempts)
    else:
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)]


def _who_may_have_stored(attempts: list[Attempt], step: int) -> set[float]:
    """The values that a step can have: of the first attempt that saw it stored, or one before it.

    An attempt that was killed between its report and the answer may or may not have stored it; no
    later one can change what is stored.
    """
    values = set()
    for attempt in attempts:
        if step in attempt.reported:
            values.add(attempt.reported[step])
        if step in attempt.stored:
            break
    return values


def kill_workers(
    commands: Commands, run: Command, *, trials: int, kills: int, choose: Callable[[list[int]], int]
) -> list[int]:
    """kill -9 of so many workers, spread over the study; returns their pids."""
    victims: list[int] = []
    for kill in range(1, kills + 1):
        ended = kill * (trials - 4) // (kills + 1)
        commands.witness.await_work(ended=ended)
        lines = len(commands.witness.events()) + choose(list(range(15)))
        wait_until(lambda lines=lines: len(commands.witness.events()) >= lines)  # type: ignore[misc]
        pids = [worker.pid for worker in run.workers() if worker.pid not in victims]
        at_work = [pid for pid in commands.witness.at_work().values() if pid in pids]
        victim = choose(at_work if kill == 1 and at_work else pids)
        os.kill(victim, signal.SIGKILL)
        victims.append(victim)
    return victims


def _binaries() -> Path | None:
    """Where PostgreSQL's server programs are: Debian keeps them out of the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    anywhere = shutil.which("initdb")
    if found:
        return found[-1].parent
    return Path(anywhere).resolve().parent if anywhere else None


class Cluster:
    """A PostgreSQL server of our own, which may be stopped."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # PostgreSQL refuses to run as root.
        self._user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []}
            if os.geteuid() == 0
            else {}
        )
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-cluster-"))
        self._folder.chmod(0o755)
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._port = free_port()
        self._data = self._folder / "data"
        self._call("initdb", "--auth=trust", "--username=tuner", "--no-sync", "--encoding=UTF8")

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._binaries / program), "-D", str(self._data), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=60,
            **self._user,
        )

    def start(self, connections: int = 100) -> None:
        """Start it, to let so many connections in; 100 is PostgreSQL's own default."""
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1"
        options += f" -c max_connections={connections}"
        log = str(self._folder / "log")
        self._call("pg_ctl", "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._call("pg_ctl", "-w", "-m", mode, "stop")

    def url(self, name: str) -> str:
        return f"postgresql://tuner@127.0.0.1:{self._port}/{name}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"tuner_test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def require(self, password: str) -> None:
        """From now on, want the password from all who do not come by the server's own socket."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            literal = psycopg.sql.Literal(password)
            connection.execute(psycopg.sql.SQL("ALTER ROLE tuner PASSWORD {}").format(literal))
            rules = "local all all trust\nhost all all all scram-sha-256\n"
            (self._data / "pg_hba.conf").write_text(rules)
            connection.execute("SELECT pg_reload_conf()")

    @property
    def programs(self) -> Path:
        """The folder of pg_isready, pg_dump and their like."""
        return self._binaries

    @property
    def variables(self) -> dict[str, str]:
        """What lets them find the server by its socket, as within its container."""
        return {"PGHOST": str(self._folder), "PGPORT": str(self._port)}

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):  # it is stopped
            self.stop()
        shutil.rmtree(self._folder)


@contextlib.contextmanager
def own_cluster(connections: int = 100) -> Iterator[Cluster]:
    """A running PostgreSQL server; skips where none can be made, which under CI is a failure."""
    binaries = _binaries()
    try:
        if binaries is None:
            raise FileNotFoundError("initdb is not installed")
        cluster = Cluster(binaries)
    except (OSError, LookupError, subprocess.CalledProcessError) as error:
        message = f"no PostgreSQL server of our own can be made: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    try:
        cluster.start(connections)
        yield cluster
    finally:
        cluster.remove()
