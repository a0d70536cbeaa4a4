"""The README's section "How to", run as it stands: its files are written, its commands executed.

What depends on the reader's place is set by the environment alone: the home directory, where the
host ``db.example`` is (`PGHOSTADDR`, `PGPORT`), and the number of workers (`TUNER_WORKERS`).
"""

import configparser
import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
import yaml
from optuna.trial import TrialState
from plotly import graph_objects as go
from sqlalchemy.engine import make_url

from tests.conftest import ENVIRONMENT, ROOT, wait_until
from tests.e2e.faults import Commands, check_nothing_lost, opened, own_cluster
from tests.e2e.test_faults_database import as_host
from tests.e2e.test_run import ENDED, trials_of
from tuner.flags import PASSWORD_FILE_VARIABLE, SETTINGS
from tuner.supervise import DRAIN_SECONDS

HOW_TO = (ROOT / "README.md").read_text().split("\n## How to\n")[1].split("\n## ")[0]
TITLES = re.findall(r"^### (.+)$", HOW_TO, re.MULTILINE)
# Words of each title, by which a test finds its how-to.
IMAGES, MODEL, OBJECTIVE = "own images", "own model", "own objective"
POSTGRESQL, HOSTS, GPU, NOTEBOOK = "PostgreSQL", "several hosts", "GPU", "notebook"
RAY, JOBS = "Ray cluster", "Slurm"
# Theirs are files of studies/, which tests/finetune/test_studies.py runs on few images.
OF_STUDIES = {
    "other images": "fashion_mnist", "training itself": "mnist_strategies",
    "error against size": "mnist_size",
}  # fmt: skip
TESTED = (IMAGES, MODEL, OBJECTIVE, POSTGRESQL, HOSTS, GPU, RAY, JOBS, NOTEBOOK)
A_DAEMON = "python -m tuner.worker"

# Several command lines in one process, which starts TensorFlow once: each as `python -m` runs it.
ONE_PROCESS = """
import runpy, shlex, sys
for line in sys.stdin.read().splitlines():
    print("$", line, flush=True)
    _, _, module, *arguments = shlex.split(line)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise
"""


@dataclass(frozen=True)
class Part:
    """A fenced block, or a command within a sentence (``sh``)."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block says it is, in its first line."""
        found = re.match(r"# (\S+\.(?:py|toml|service))\n", self.text)
        return found[1] if found else None


def parts_of(words: str) -> list[Part]:
    """What the how-to of this title has the reader do, in its order."""
    (title,) = (title for title in TITLES if words in title)
    text = HOW_TO.split(f"\n### {title}\n")[1].split("\n### ")[0]
    pattern = r"^```(\w+)\n(.*?)^```$|`(python -m tuner\.[^`\n]+)`"
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [Part(language or "sh", block or inline) for language, block, inline in found]


def normal(text: str) -> str:
    """A text whose numbers are all the same, and its spaces."""
    return re.sub(r" +", " ", re.sub(r"\d+(?:[.,]\d+)*", "0", text))


@pytest.mark.parametrize("words", [IMAGES, MODEL, OBJECTIVE])
def test_the_study_files_are_there_as_they_stand_here(words: str) -> None:
    files = {part.file: part.text for part in parts_of(words) if part.file}
    studies = {name: text for name, text in files.items() if name.startswith("studies/")}
    assert len(studies) == 1
    for name, text in studies.items():
        assert (ROOT / name).read_text() == text


@dataclass(frozen=True)
class Project:
    """A directory with `studies`, and a home directory beside it."""

    folder: Path
    env: dict[str, str]

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/tuner.db"

    def write_files(self, parts: list[Part]) -> None:
        for part in parts:
            if part.file and not part.file.startswith("/"):
                (self.folder / part.file).write_text(part.text)

    def sh(self, script: str, **env: str) -> str:
        """Run a script to its end, which must be a good one; return what it wrote."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script], cwd=self.folder, env={**self.env, **env},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, script + done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr

    def in_one_process(self, lines: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-c", ONE_PROCESS], cwd=self.folder, env=self.env, text=True,
            input="\n".join(lines), capture_output=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def daemon(self, line: str, host: tuple[str, ...] = ()) -> Iterator[Path]:
        """A daemon within the block, and the file that it writes to; it ends by SIGTERM with 0."""
        log = self.folder / f"daemon{len(list(self.folder.glob('daemon*')))}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*host, "bash", "-c", line.removesuffix("&")], cwd=self.folder, env=self.env,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        try:
            wait_until(lambda: "waiting for trials" in log.read_text(), 120)
            yield log
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(DRAIN_SECONDS + 10)
            assert "ended by a signal" in log.read_text(), log.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def assert_shown(parts: list[Part], output: str) -> None:
    """The lines of the how-to's ``text`` are in the output, but for their numbers."""
    lines = [line for part in parts if part.language == "text" for line in part.text.splitlines()]
    assert lines
    for line in lines:
        if line != "...":
            assert normal(line).strip() in normal(output), f"{line!r} is not in:\n{output}"


def scripts_of(parts: list[Part]) -> list[str]:
    return [part.text for part in parts if part.language == "sh"]


def lines_of(parts: list[Part]) -> list[str]:
    return [line for script in scripts_of(parts) for line in script.splitlines()]


@pytest.fixture(scope="module")
def make_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    def make() -> Project:
        folder = tmp_path_factory.mktemp("project")
        home = tmp_path_factory.mktemp("home")
        shutil.copytree(ROOT / "studies", folder / "studies")
        path = os.pathsep.join([str(Path(sys.executable).parent), ENVIRONMENT["PATH"]])
        kept = {name: value for name, value in ENVIRONMENT.items()
                if not name.startswith(("PG", "OPTUNA", "XDG", "CUDA"))}  # fmt: skip
        # One worker each, where no flag says another number: it is faster, and no line depends on
        # who was first.
        own = {"HOME": str(home), "TUNER_WORKERS": "1", "PYTHONPATH": str(ROOT)}
        env = {**kept, **own, "PATH": path}
        return Project(folder, env)

    return make


@pytest.fixture(scope="module")
def with_images(make_project: Callable[[], Project]) -> tuple[Project, str]:
    """A project after the first two how-tos, and what these wrote."""
    project = make_project()
    parts = parts_of(IMAGES) + parts_of(MODEL)
    project.write_files(parts)
    first, *others = lines_of(parts)
    project.sh(first)
    return project, project.in_one_process(others)


@pytest.fixture(scope="module")
def with_digits(make_project: Callable[[], Project]) -> tuple[Project, str]:
    """A project after the how-to for any framework, and what it wrote."""
    project, parts = make_project(), parts_of(OBJECTIVE)
    project.write_files(parts)
    return project, "".join(project.sh(script) for script in scripts_of(parts))


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server that asks for passwords.

    Attributes:
        port: on 127.0.0.1.
        sockets: the folder through which its administrator ``postgres`` needs none.
    """

    port: int
    sockets: str

    @property
    def admin(self) -> dict[str, str]:
        """What makes `psql` an administrator's, on the server itself."""
        return {"PGHOST": self.sockets, "PGPORT": str(self.port), "PGUSER": "postgres"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_cluster() as cluster:
        url = make_url(cluster.url("postgres"))
        with psycopg.connect(url.render_as_string(), autocommit=True) as connection:
            connection.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        as_postgres = url.set(username="postgres").render_as_string()
        with psycopg.connect(as_postgres, autocommit=True) as connection:
            # Who made the cluster has the how-to's name.
            connection.execute("ALTER ROLE tuner RENAME TO founder")
            (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
            (sockets,) = connection.execute("SHOW unix_socket_directories").fetchone() or ("",)
            access = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            (Path(data) / "pg_hba.conf").write_text(access)
            connection.execute("SELECT pg_reload_conf()")
        assert url.port is not None
        yield Server(url.port, sockets)


@pytest.fixture(scope="module")
def with_postgresql(
    with_digits: tuple[Project, str], make_project: Callable[[], Project], server: Server
) -> tuple[Project, str]:
    """The project with the digits after the how-to for PostgreSQL, and what that wrote."""
    made = make_project()
    shutil.copytree(with_digits[0].folder, made.folder, dirs_exist_ok=True)
    there = {"PGHOSTADDR": "127.0.0.1", "PGPORT": str(server.port)}
    project = Project(made.folder, {**made.env, **there})
    parts = parts_of(POSTGRESQL)
    project.write_files(parts)
    create, *others = scripts_of(parts)
    made.sh(create, **server.admin)
    refused = subprocess.run(
        [sys.executable, "-m", "tuner.status"], cwd=project.folder, env=project.env, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 3, refused.stderr  # without a password
    return project, "".join(project.sh(script) for script in others)


def test_every_part_is_of_a_kind_that_is_tested() -> None:
    kinds = {part.language for words in TESTED for part in parts_of(words)}
    assert kinds == {"python", "sh", "text", "toml", "ini", "yaml"}
    assert len(TITLES) == len(TESTED) + len(OF_STUDIES)
    for words, name in OF_STUDIES.items():
        (title,) = (title for title in TITLES if words in title)
        text = HOW_TO.split(f"\n### {title}\n")[1].split("\n### ")[0]
        assert re.findall(r"studies/(\w+)\.py", text)[0] == name
        assert {part.language for part in parts_of(title)} == {"text"}  # shown, not run
    notebook = parts_of(NOTEBOOK)
    files = [part for words in TESTED for part in parts_of(words) if part.language == "python"]
    assert all(part.file or part in notebook for part in files)
    # The commands that are not run: one would fetch gigabytes, the other is part of the tests' own.
    installs = ("pip install 'tensorflow[and-cuda]'", "pip install -e '.[ray]'")
    assert [HOW_TO.count(it) for it in ("pip install", *installs)] == [2, 1, 1]
    extras = importlib.metadata.metadata("tensorflow").get_all("Provides-Extra") or []
    assert "and-cuda" in extras


def test_own_images_and_an_own_model(with_images: tuple[Project, str]) -> None:
    project, output = with_images
    assert_shown(parts_of(IMAGES), output)
    assert_shown(parts_of(MODEL), output)
    for name in ("my_images", "my_net"):
        trials = trials_of(project.url, name)
        assert len(trials) == 2
        assert all(trial.state in ENDED for trial in trials)
    runs = trials_of(project.url, "my_images-confirm")
    errors = [run.user_attrs["test_error"] for run in runs]
    assert len(errors) == 2
    assert all(0 <= error < 0.5 and round(error * 297, 6) % 1 == 0 for error in errors)


def test_a_gpu_by_its_number(with_images: tuple[Project, str]) -> None:
    project, _ = with_images
    script = scripts_of(parts_of(GPU))[0]
    before = len(trials_of(project.url, "my_images"))
    project.sh(script)
    new = trials_of(project.url, "my_images")[before:]
    assert len(new) == 2
    device = "GPU" if Path("/dev/nvidia0").exists() else "CPU"
    assert [trial.user_attrs["device"] for trial in new] == [device] * 2


@pytest.mark.soak
def test_a_daemon_divides_its_gpus(make_project: Callable[[], Project]) -> None:
    project = make_project()
    (project.folder / "studies" / "where.py").write_text(
        "import os, time\n\ndef objective(trial):\n    time.sleep(0.3)\n"
        "    trial.set_user_attr('gpu', os.environ['CUDA_VISIBLE_DEVICES'])\n"
        "    return trial.suggest_float('x', 0, 1)\n"
    )
    (line,) = scripts_of(parts_of(GPU))[1].splitlines()
    assert A_DAEMON in line
    assert line.endswith("&")
    with project.daemon(line) as log:
        project.sh("python -m tuner.run --study where --trials 16 --detach")
        wait_until(lambda: "where: all 16 trials are done" in log.read_text(), 120)
    trials = trials_of(project.url, "where")
    assert {trial.user_attrs["gpu"] for trial in trials} == {"0", "1"}


def test_an_own_objective(with_digits: tuple[Project, str]) -> None:
    project, output = with_digits
    assert_shown(parts_of(OBJECTIVE), output)
    trials = trials_of(project.url, "digits")
    states = [trial.state for trial in trials]
    assert len(states) == 20
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    values = {t.number: t.value for t in trials if t.state is TrialState.COMPLETE}
    best = trials[min(values, key=lambda number: (values[number], number))]
    assert best.value is not None
    assert best.value < 0.1
    assert f"trial {best.number}: model.pickle, {best.params['loss']}\n" in output


def test_a_ray_cluster(
    with_digits: tuple[Project, str], make_project: Callable[[], Project]
) -> None:
    project, parts = make_project(), parts_of(RAY)
    shutil.copytree(with_digits[0].folder, project.folder, dirs_exist_ok=True)
    (script,) = scripts_of(parts)
    assert_shown(parts, project.sh(script))
    trials = trials_of(project.url, "digits")
    assert len(trials) == 30
    assert all(trial.state in ENDED for trial in trials)


def slurm_script() -> str:
    """The file that is given to `sbatch`; its options are ones of Slurm's."""
    (script,) = scripts_of(parts_of(JOBS))[-1:]
    comments = [line for line in script.splitlines() if line.startswith("#SBATCH ")]
    asked = [word for it in comments for word in it.split()[1:]]
    assert {word.partition("=")[0] for word in asked} == {
        "--job-name", "--output", "--open-mode", "--array", "--cpus-per-task", "--mem", "--time",
        "--requeue", "--signal",
    }  # fmt: skip
    return script


def slurm_command() -> list[str]:
    """What each task of the job runs, without `srun`."""
    (line,) = (line for line in slurm_script().splitlines() if line.startswith("srun "))
    srun, option, python, *command = shlex.split(line)
    assert (srun, option) == ("srun", "--cpus-per-task=$SLURM_CPUS_PER_TASK")
    assert python == ".venv/bin/python"
    return command


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (2, False), (130, True)])
def test_a_slurm_job_comes_back_if_it_was_ended_before_its_time(
    code: int, requeued: bool, tmp_path: Path
) -> None:
    for name, does in (("srun", f"exit {code}"), ("scontrol", 'echo "$@" > asked')):
        (stand_in := tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", slurm_script()], cwd=tmp_path, check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "18", "SLURM_CPUS_PER_TASK": "4",
             "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"},
    )  # fmt: skip
    assert done.returncode == (0 if requeued else code)
    asked = tmp_path / "asked"
    assert asked.exists() == requeued
    if requeued:
        assert asked.read_text() == "requeue 17_3\n"


def kubernetes_command() -> list[str]:
    """What each pod runs."""
    (part,) = (part for part in parts_of(JOBS) if part.language == "yaml")
    job = yaml.safe_load(part.text)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    names = {variable["name"] for variable in container["env"]}
    assert names <= {*(setting.environment for setting in SETTINGS.values()),
                     PASSWORD_FILE_VARIABLE}  # fmt: skip
    python, *command = container["command"]
    assert python == "python"
    return list(command)


@pytest.mark.parametrize("scheduled", [slurm_command, kubernetes_command])
def test_a_daemon_of_a_cluster_ends_by_sigterm_and_when_it_is_idle(
    scheduled: Callable[[], list[str]], tmp_path: Path
) -> None:
    *command, idle = scheduled()
    assert command == ["-m", "tuner.worker", "--workers", "1", "--idle"]
    assert int(idle) > 60
    with Commands(tmp_path) as commands:
        study, url = str(commands.study()), f"sqlite:///{tmp_path}/tuner.db"
        commands.start("tuner.run", "--study", study, "--trials", "8", "--pruner", "none",
                       "--detach", OPTUNA_STORAGE=url).wait(0)  # fmt: skip
        evicted = commands.start(*command[1:], idle, OPTUNA_STORAGE=url)
        commands.witness.await_work(workers=1, ended=1)
        evicted.process.send_signal(signal.SIGTERM)
        evicted.wait(130, DRAIN_SECONDS + 5)
        assert "Ended by a signal; what was running is handed back" in evicted.text()
        again = commands.start(*command[1:], "2", OPTUNA_STORAGE=url)
        again.wait(0, 60)
        assert "study: all 8 trials are done" in again.text()
        assert "ended: nothing was asked for in 2 s" in again.text()
        check_nothing_lost(url, 8, commands.witness)


@pytest.mark.soak
def test_postgresql(with_postgresql: tuple[Project, str], with_digits: tuple[Project, str]) -> None:
    project, output = with_postgresql
    assert_shown(parts_of(POSTGRESQL), output)
    password = (Path(project.env["HOME"]) / ".tuner-password").read_text().strip()
    assert password not in output
    for name in (".tuner-password", ".pgpass"):
        assert (Path(project.env["HOME"]) / name).stat().st_mode & 0o077 == 0
    url = postgresql_url(project, password)
    old, new = trials_of(with_digits[0].url, "digits"), trials_of(url, "digits")
    assert len(new) == 25
    for before, after in zip(old, new, strict=False):
        for name in ("number", "state", "params", "values", "intermediate_values", "user_attrs",
                     "system_attrs", "datetime_start", "datetime_complete"):  # fmt: skip
            assert getattr(after, name) == getattr(before, name), name
    assert {trial.state for trial in new} <= set(ENDED)
    attrs = []
    for where in (with_digits[0].url, url):
        with opened(where, "digits") as (study, _):
            attrs.append(study.user_attrs)
    for ours in ("tuner:seed", "tuner:definition"):
        assert attrs[0][ours] == attrs[1][ours]
    assert attrs[0]["tuner:id"] != attrs[1]["tuner:id"]


def postgresql_url(project: Project, password: str) -> str:
    return f"postgresql://tuner:{password}@127.0.0.1:{project.env['PGPORT']}/tuner"


@pytest.mark.soak
def test_several_hosts(with_postgresql: tuple[Project, str]) -> None:
    project, _ = with_postgresql
    parts = parts_of(HOSTS)
    project.write_files(parts)
    password = (Path(project.env["HOME"]) / ".tuner-password").read_text().strip()
    url = postgresql_url(project, password)
    daemon, *others = lines_of(parts)
    assert daemon.startswith(A_DAEMON)
    hosts = {"alpha": as_host("alpha"), "beta": as_host("beta")}

    count = "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name = 'digits'"
    with psycopg.connect(url, autocommit=True) as connection, contextlib.ExitStack() as stack:

        def ended() -> int:
            states = " AND state IN ('COMPLETE', 'PRUNED')"
            (number,) = connection.execute(count + states).fetchone() or (0,)
            return int(number)

        logs = [stack.enter_context(project.daemon(daemon, host)) for host in hosts.values()]
        output = ""
        for line in others:
            output += project.sh(line)
            if "--detach" in line:
                wait_until(lambda: ended() > 25, 60)
        for log in logs:
            wait_until(lambda log=log: "digits: all 150 trials are done" in log.read_text(), 120)  # type: ignore[misc]
        assert ended() == 150
    assert_shown(parts, output)
    new = trials_of(url, "digits")[25:]
    if all(hosts.values()):
        assert {trial.user_attrs["host"] for trial in new} == hosts.keys()
    files = Path(project.env["HOME"]) / "tuner-artifacts" / "files"
    complete = [trial for trial in new if trial.state is TrialState.COMPLETE]
    assert len(list(files.iterdir())) == len(complete) > 0


def the_unit() -> tuple[str, str]:
    (part,) = (part for part in parts_of(HOSTS) if part.language == "ini")
    assert part.file is not None
    return Path(part.file).name, part.text


def test_the_unit_starts_a_daemon_and_waits_for_its_end() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(the_unit()[1])
    service = unit["Service"]
    python, *arguments = shlex.split(service["ExecStart"])
    assert python == f"{service['WorkingDirectory']}/.venv/bin/python"
    assert " ".join(["python", *arguments]) == A_DAEMON
    assert float(service["TimeoutStopSec"]) > DRAIN_SECONDS
    name, _, path = service["Environment"].partition("=")
    assert name == "TUNER_STORAGE_PASSWORD_FILE"
    assert Path(path).parent == Path(service["WorkingDirectory"])
    assert unit["Install"]["WantedBy"] == "multi-user.target"


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    name, text = the_unit()
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)], env=ENVIRONMENT, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    faults = [line for line in done.stderr.splitlines() if name in line]
    assert all("/srv/tuner/.venv/bin/python is not executable" in line for line in faults), faults
    spoilt = text.replace("TimeoutStopSec=30", "TimeoutStopSec=soon")
    (tmp_path / name).write_text(spoilt)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / name)], env=ENVIRONMENT, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Failed to parse time value" in done.stderr  # it does read the file


def test_a_notebook(with_digits: tuple[Project, str], monkeypatch: pytest.MonkeyPatch) -> None:
    project, _ = with_digits
    monkeypatch.chdir(project.folder)
    names: dict[str, Any] = {}
    shown = []
    for cell in (part.text for part in parts_of(NOTEBOOK) if part.language == "python"):
        *statements, last = cell.strip().splitlines()
        exec("\n".join(statements), names)  # as a notebook runs a cell
        shown.append(eval(last, names))  # and shows its last line
    table, curves, forest = shown
    assert isinstance(table, pd.DataFrame)
    assert table["count"].sum() == 20
    assert set(names["steps"].index) <= set(range(1, 9))
    assert isinstance(curves, go.Figure)
    assert isinstance(forest, go.Figure)
    assert "loss" in forest.layout.title.text
    assert not scripts_of(parts_of(NOTEBOOK))
