"""The first seconds of a run: what comes in between, and what is left then."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import ENVIRONMENT, ROOT, run, start, wait_until
from tests.e2e.test_run import SLOW, has_running, state_counts, trials_of
from tuner.storage import find_study, open_database, read_overviews

PARABOLOID = str(ROOT / "studies" / "paraboloid.py")
# Loading and preparing take long, and say when they begin.
SLOW_START = """
import pathlib, time
from tuner import interrupt

def pause(name):
    pathlib.Path(name).touch()
    time.sleep(2)
    interrupt.check()

{loading}

def prepare():
    pause("preparing")

def objective(trial):
    return trial.suggest_float("x", 0, 1)
"""
HERE = {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def slow(write_study: Callable[..., Path]) -> str:
    return str(write_study(SLOW, "slow"))


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("moment", ["loading", "preparing"])
def test_ctrl_c_before_the_first_trial(moment: str, workers: str, tmp_path: Path) -> None:
    loading = 'pathlib.Path("loading").touch()\ntime.sleep(2)' if moment == "loading" else ""
    (tmp_path / "slow.py").write_text(SLOW_START.format(loading=loading))
    process = start("--study", "slow.py", "--trials", "3", "--workers", workers, cwd=tmp_path,
                    **HERE)  # fmt: skip
    wait_until((tmp_path / moment).exists)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.count("\n") == 1
    assert "Traceback" not in err
    if moment == "loading" or workers == "0":
        assert "nothing was changed" in err
        assert not (tmp_path / "tuner.db").exists()
    else:
        assert state_counts(f"sqlite:///{tmp_path}/tuner.db", "slow")[TrialState.RUNNING] == 0
    assert moment == "preparing" or not (tmp_path / "preparing").exists()


def test_a_time_out_while_loading_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW_START.format(loading="time.sleep(2)"))
    for workers in ("0", "1"):
        done = run("--study", "slow.py", "--trials", "3", "--workers", workers, "--timeout", "1",
                   cwd=tmp_path, **HERE)  # fmt: skip
        assert done.returncode == 5
        assert "passed before the study file was loaded" in done.stderr
        assert not (tmp_path / "tuner.db").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_study_that_changes_the_directory_has_one_database(workers: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "s.py").write_text(
        "import os\nos.chdir('other')\n"
        "def objective(trial):\n    return trial.suggest_float('x', 0, 1)\n"
    )
    url = f"sqlite:///{tmp_path}/tuner.db"
    assert run("--study", PARABOLOID, "--trials", "2", "--storage", url).returncode == 0
    done = run("--study", "s.py", "--trials", "3", "--workers", workers, cwd=tmp_path, **HERE)
    assert done.returncode == 0, done.stderr
    assert "sqlite:///tuner.db" in done.stdout
    assert not list((tmp_path / "other").iterdir())
    assert (len(trials_of(url, "paraboloid")), len(trials_of(url, "s"))) == (2, 3)


def state_of(url: str, name: str) -> str:
    database = open_database(url)
    (study,) = read_overviews(database, find_study(database, name))
    database.close()
    assert study.request is not None
    return str(study.request.state)


def test_a_reader_that_has_read_enough_ends_the_run_and_its_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    command = f"{sys.executable} -m tuner.run --study {PARABOLOID} --trials 400 --storage {url}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -1"], cwd=ROOT, env=ENVIRONMENT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert state_of(url, "paraboloid") == "closed"
    assert state_counts(url, "paraboloid")[TrialState.RUNNING] == 0


def test_ctrl_c_when_nobody_listens_any_more(slow: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    process = start("--study", slow, "--trials", "20", "--workers", "2", "--storage", url)
    wait_until(has_running(tmp_path / "tuner.db", 2))
    assert process.stdout is not None
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    with process:
        assert process.wait(30) == 130
    counts = state_counts(url, "slow")
    assert counts[TrialState.RUNNING] == 0
    assert counts[TrialState.WAITING] == 2
    assert state_of(url, "slow") == "closed"


def test_a_full_output_is_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tuner.run", "--study", PARABOLOID, "--trials", "3",
             "--storage", url],
            cwd=ROOT, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no room to write to")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_standard_streams_may_be_closed(closed: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    command = f"{sys.executable} -m tuner.run --study {PARABOLOID} --storage {url}"
    for words, code in (("--trials 2 --workers 1", 0), ("--trials no", 2)):
        done = subprocess.run(
            ["bash", "-c", f"exec {command} {words} {closed}"], cwd=ROOT, env=ENVIRONMENT,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code
    assert state_counts(url, "paraboloid").total() == 2


def test_an_encoding_without_a_letter_is_no_error(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = write_study(
        "metric = 'Fehlergröße'\ndef objective(trial):\n"
        "    return trial.suggest_categorical('Größe', [1.0, 2.0])\n"
    )
    done = run("--study", str(study), "--trials", "2", "--storage", f"sqlite:///{tmp_path}/t.db",
               PYTHONIOENCODING="ascii")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Fehlergr??e" in done.stdout


def test_what_cannot_be_drawn_ends_no_run(write_study: Callable[..., Path], tmp_path: Path) -> None:
    """In a terminal of its own, with values whose difference is more than a float holds."""
    study = write_study(
        "def objective(trial):\n    return [1e308, -1e308, 0.0][trial.number % 3]\n"
    )
    url = f"sqlite:///{tmp_path}/tuner.db"
    leader, follower = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner.run", "--study", str(study), "--trials", "6",
         "--workers", "1", "--storage", url],
        cwd=ROOT, env={**ENVIRONMENT, "TERM": "xterm"}, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            shown += os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
    os.close(leader)
    assert process.wait(30) == 0, shown
    assert b"Traceback" not in shown
    assert b"6 trials in" in shown
    assert len(optuna.load_study(study_name="study", storage=url).trials) == 6
