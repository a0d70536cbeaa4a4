"""`python -m tuner.status` and `control` beside a real run: real processes, one database."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import ENVIRONMENT, ROOT, run, start, wait_until
from tests.e2e.engines import workers_of
from tests.e2e.test_run import (
    PARABOLOID,
    SLOW,
    has_running,
    state_counts,
    trials_of,
)

# An objective of SLOW reports every 0.1 seconds, so that two reports are over by then.
TWO_REPORTS_SECONDS = 5.0


def command(name: str, *arguments: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Run ``python -m tuner.NAME`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"tuner.{name}", *arguments],
        cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def read(url: str) -> dict[str, Any]:
    """What status says of the study ``slow``."""
    done = command("status", "--study", "slow", "--storage", url, "--format", "json")
    assert done.returncode == 0, done.stderr
    (study,) = json.loads(done.stdout)
    return dict(study)


def control(wish: str, url: str) -> str:
    """What control says when all is well."""
    done = command("control", wish, "--study", "slow", "--storage", url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return done.stdout


def count_running(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        count = connection.execute("SELECT count(*) FROM trials WHERE state = 'RUNNING'")
        found = count.fetchone()[0]
    connection.close()
    return int(found)


@pytest.fixture
def slow(write_study: Callable[..., Path]) -> str:
    return str(write_study(SLOW, "slow"))


@pytest.fixture
def sqlite(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "tuner.db"
    return f"sqlite:///{path}", path


def test_status_shows_the_workers_of_a_run_and_its_end(
    write_study: Callable[..., Path], sqlite: tuple[str, Path], tmp_path: Path
) -> None:
    url, path = sqlite
    looked = tmp_path / "looked"  # until then no trial ends, however slow the machine is
    waiting = (
        f"    import os\n    while not os.path.exists({str(looked)!r}):\n        time.sleep(0.1)\n"
    )
    text = SLOW.replace("    return x * x", f"{waiting}    return x * x")
    study_file = str(write_study(text, "slow"))
    process = start("--study", study_file, "--trials", "6", "--workers", "2", "--storage", url)
    wait_until(has_running(path, 2))
    pids = {worker.pid for worker in workers_of(process)}
    study = read(url)
    assert (study["state"], study["target"], study["metric"]) == ("open", 6, "value")
    assert study["trials"]["running"] == len(study["workers"])
    assert study["workers"]
    for worker in study["workers"]:
        assert worker["host"] == socket.gethostname()
        assert worker["pid"] in pids
        assert 0 <= worker["seconds"] < 60
        assert worker["silent_seconds"] < 60
    table = command("status", "--storage", url)
    assert "slow" in table.stdout
    assert any(str(pid) in table.stdout for pid in pids)
    assert max(len(line) for line in table.stdout.splitlines()) <= 80
    looked.touch()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    study = read(url)
    assert (study["state"], study["reason"]) == ("closed", "its target is reached")
    assert study["trials"] == {"complete": 6, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert study["workers"] == []
    assert study["trials_per_hour"] > 0
    best = min(trials_of(url, "slow"), key=lambda trial: trial.values)
    assert study["best"] == {"value": best.value, "trial": best.number}


@pytest.mark.soak
def test_pause_resume_stop_and_a_rerun_to_exactly_so_many(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    arguments = ("--study", slow, "--trials", "12", "--workers", "2", "--storage", url)
    process = start(*arguments)
    wait_until(has_running(path, 2))
    before = {trial.number: trial.params for trial in trials_of(url, "slow")}

    assert "slow is paused: its workers hand their trials back" in control("pause", url)
    wait_until(lambda: count_running(path) == 0, seconds=TWO_REPORTS_SECONDS)
    paused = read(url)
    assert (paused["state"], paused["workers"]) == ("paused", [])
    assert paused["trials"]["waiting"] > 0
    time.sleep(1.5)  # longer than a worker waits before it asks again
    assert read(url)["trials"] == paused["trials"]
    assert process.poll() is None
    again = control("pause", url)
    assert "slow is paused already" in again
    assert f"tuner.control resume --study slow --storage {url}" in again

    assert "slow is open again" in control("resume", url)
    wait_until(has_running(path, 1))
    assert "slow is open already" in control("resume", url)

    stopped = control("stop", url)
    assert "slow is stopped: " in stopped
    assert f"python -m tuner.run --study {slow} --storage {url} --trials 12" in stopped
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.startswith("error: The study slow is stopped with ")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    assert state_counts(url, "slow")[TrialState.RUNNING] == 0
    assert "slow is stopped already" in control("stop", url)
    for wish in ("pause", "resume"):
        done = command("control", wish, "--study", "slow", "--storage", url)
        assert done.returncode == 2
        assert "is stopped, so there is nothing to " + wish in done.stderr
        assert "python -m tuner.run --study" in done.stderr

    assert run(*arguments).returncode == 0
    after = trials_of(url, "slow")
    assert Counter(trial.state for trial in after) == {TrialState.COMPLETE: 12}
    assert [trial.number for trial in after] == list(range(12))
    for number, params in before.items():  # those that were handed back kept their configuration
        assert params.items() <= after[number].params.items()


@pytest.mark.soak
def test_a_study_that_is_done_can_only_be_run_further(sqlite: tuple[str, Path]) -> None:
    url, _ = sqlite
    assert run("--study", PARABOLOID, "--trials", "3", "--storage", url,
               "--study-name", "bowl").returncode == 0  # fmt: skip
    for wish in ("pause", "resume", "stop"):
        done = command("control", wish, "--study", "bowl", "--storage", url)
        assert done.returncode == 2
        assert f"is closed (its target is reached), so there is nothing to {wish}" in done.stderr
        assert f"--study {PARABOLOID} --study-name bowl --storage {url} --trials 6" in done.stderr
        assert done.stderr.count("\n") == 1


def test_studies_of_another_program_are_shown_and_left_alone(sqlite: tuple[str, Path]) -> None:
    url, _ = sqlite
    study = optuna.create_study(study_name="theirs", storage=url)
    study.tell(study.ask(), 1.0)
    study.ask()
    shown = command("status", "--storage", url)
    assert "another program" in shown.stdout
    done = command("control", "stop", "--study", "theirs", "--storage", url)
    assert done.returncode == 2
    assert "No run of ours ever asked for trials of the study 'theirs'" in done.stderr


@pytest.mark.parametrize("name", ["status", "control"])
def test_bad_input_is_one_sentence_and_an_exit_code(name: str, sqlite: tuple[str, Path]) -> None:
    url, path = sqlite
    words = ["stop"] if name == "control" else []
    absent = command(name, *words, "--study", "mnist", "--storage", url)
    assert absent.returncode == 3
    assert "There is no database" in absent.stderr
    assert not path.exists()
    optuna.create_study(study_name="mnist", storage=url)
    for study, code, says in (("mnsit", 2, "did you mean 'mnist'?"), ("x", 2, "one of: mnist")):
        done = command(name, *words, "--study", study, "--storage", url)
        assert done.returncode == code
        assert says in done.stderr
        assert done.stderr.startswith("error: ")
        assert (done.stdout, done.stderr.count("\n")) == ("", 1)


def test_the_default_database_is_not_made_and_not_repeated(tmp_path: Path) -> None:
    assert command("status", cwd=tmp_path).returncode == 3
    assert list(tmp_path.iterdir()) == []
    url = f"sqlite:///{tmp_path}/tuner.db"
    assert run("--study", PARABOLOID, "--trials", "1", "--storage", url).returncode == 0
    done = command("control", "stop", "--study", "paraboloid", cwd=tmp_path)
    assert done.returncode == 2
    assert "--storage" not in done.stderr


def test_a_database_without_studies_says_how_to_begin(sqlite: tuple[str, Path]) -> None:
    url, _ = sqlite
    optuna.create_study(study_name="gone", storage=url)
    optuna.delete_study(study_name="gone", storage=url)
    done = command("status", "--storage", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "holds no study yet; begin one with: python -m tuner.run" in done.stdout
    assert json.loads(command("status", "--storage", url, "--format", "json").stdout) == []


@pytest.mark.parametrize("name", ["status", "control"])
def test_help_is_there_at_once_and_imports_nothing_heavy(name: str) -> None:
    def timed() -> float:
        began = time.monotonic()
        assert command(name, "--help").returncode == 0
        return time.monotonic() - began

    assert min(timed() for _ in range(5)) < 0.5
    code = (
        f"import sys, tuner.{name} as module\n"
        "from click.testing import CliRunner\n"
        f"result = CliRunner().invoke(module.{name}, ['--help'])\n"
        "assert '--study' in result.output, result.output\n"
        "print(*{'optuna', 'sqlalchemy', 'tensorflow', 'keras', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
