"""`python -m tuner.run` as its user meets it: real processes, real kills, every exit code."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import ROOT, run, start, wait_until
from tuner.storage import open_database

PARABOLOID = str(ROOT / "studies" / "paraboloid.py")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

# A define-by-run objective, with conditional parameters, that takes about a second.
SLOW = """
import time

def objective(trial):
    kind = trial.suggest_categorical("kind", ["line", "bowl"])
    x = trial.suggest_float("x", -5, 5)
    y = trial.suggest_float("y", -5, 5) if kind == "bowl" else 0.0
    for step in range(1, 11):
        time.sleep(0.1)
        trial.report(x * x + y * y + 1 / step, step)
    return x * x + y * y
"""


def trials_of(url: str, name: str) -> list[FrozenTrial]:
    database = open_database(url)
    try:
        study = optuna.load_study(study_name=name, storage=database.storage)
        return study.get_trials(deepcopy=False)
    finally:
        database.close()


def state_counts(url: str, name: str) -> Counter[TrialState]:
    return Counter(trial.state for trial in trials_of(url, name))


def workers_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def has_running(path: Path, at_least: int = 1) -> Callable[[], bool]:
    """Whether so many trials of a SQLite database are RUNNING and have reported twice."""

    def look() -> bool:
        if not path.exists():
            return False
        with sqlite3.connect(path) as connection:
            try:
                found = connection.execute(
                    "SELECT count(*) FROM (SELECT t.trial_id FROM trials t "
                    "JOIN trial_intermediate_values v ON v.trial_id = t.trial_id "
                    "WHERE t.state = 'RUNNING' GROUP BY t.trial_id HAVING count(*) >= 2)"
                ).fetchone()[0]
            except sqlite3.OperationalError:
                found = 0
        connection.close()
        return bool(found >= at_least)

    return look


@pytest.fixture
def slow(write_study: Callable[..., Path]) -> str:
    return str(write_study(SLOW, "slow"))


@pytest.fixture
def sqlite(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "tuner.db"
    return f"sqlite:///{path}", path


def exact_budget(url: str) -> None:
    """12 trials by 4 workers, again 12, then 15; the first ten configurations differ."""
    for asked, workers, says in (
        (12, 4, "12 trials in"),
        (12, 4, "nothing to do"),
        (15, 2, "3 trials in"),
    ):
        done = run(
            "--study",
            PARABOLOID,
            "--trials",
            str(asked),
            "--workers",
            str(workers),
            "--storage",
            url,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout
        trials = trials_of(url, "paraboloid")
        assert len(trials) == asked
        assert all(trial.state in ENDED for trial in trials)
    assert [trial.number for trial in trials] == list(range(15))
    assert len({tuple(sorted(trial.params.items())) for trial in trials[:10]}) == 10
    for trial in trials:
        assert trial.user_attrs["outcome"] in {"completed", "pruned"}
        assert {"seed", "worker", "host", "environment"} <= trial.user_attrs.keys()


@pytest.mark.parametrize(
    "database_url",
    ["sqlite", *(pytest.param(it, marks=pytest.mark.soak) for it in ("postgresql", "mysql"))],
    indirect=True,
)
def test_exactly_so_many_trials(database_url: str) -> None:
    exact_budget(database_url)


@pytest.mark.soak
@pytest.mark.parametrize("repetition", range(20))
def test_exactly_so_many_trials_twenty_times(repetition: int, sqlite: tuple[str, Path]) -> None:
    exact_budget(sqlite[0])


def test_the_same_seed_gives_the_same_trials_with_any_number_of_workers(tmp_path: Path) -> None:
    found = []
    for name, workers in (("a", "1"), ("b", "1"), ("c", "0")):
        url = f"sqlite:///{tmp_path}/{name}.db"
        done = run("--study", PARABOLOID, "--trials", "12", "--workers", workers,
                   "--storage", url, "--seed", "11")  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(
            [
                (t.params, t.value, t.state, t.user_attrs["seed"])
                for t in trials_of(url, "paraboloid")
            ]
        )
    assert found[0] == found[1] == found[2]


def test_a_killed_worker_is_replaced_and_its_trial_goes_on(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    process = start("--study", slow, "--trials", "10", "--workers", "3", "--storage", url)
    wait_until(has_running(path, 3))
    before = {t.number: (t.params, t.intermediate_values) for t in trials_of(url, "slow")}
    victim = workers_of(process)[0]
    victim.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"worker {victim.pid} killed (signal 9); trial " in out
    handed_back = int(out.split("killed (signal 9); trial ")[1].split()[0])
    after = trials_of(url, "slow")
    assert [t.number for t in after] == list(range(10))
    assert all(t.state == TrialState.COMPLETE for t in after)
    params, values = before[handed_back]
    assert after[handed_back].params == params
    assert values.items() <= after[handed_back].intermediate_values.items()


def test_a_killed_supervisor_loses_nothing(slow: str, sqlite: tuple[str, Path]) -> None:
    url, path = sqlite
    arguments = ("--study", slow, "--trials", "8", "--workers", "3", "--storage", url)
    process = start(*arguments)
    wait_until(has_running(path, 3))
    workers = workers_of(process)
    process.kill()
    process.communicate()
    again = run(*arguments)
    assert again.returncode == 0, again.stderr
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 8}
    wait_until(lambda: not any(worker.is_running() for worker in workers), seconds=10)


STARTING_OTHERS = """
import subprocess
import time

def objective(trial):
    other = subprocess.Popen(["sleep", "1000"])
    trial.set_user_attr("other", other.pid)
    for step in range(1, 100):
        time.sleep(0.1)
        trial.report(1.0, step)
    return 1.0
"""


def test_what_an_orphan_has_started_ends_with_it(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    study = str(write_study(STARTING_OTHERS))
    process = start("--study", study, "--trials", "2", "--workers", "1", "--storage", url)
    wait_until(has_running(path))
    family = workers_of(process)
    assert [member.name() for member in family].count("sleep") == 1
    process.kill()
    process.communicate()
    wait_until(lambda: not any(member.is_running() for member in family), seconds=10)
    assert state_counts(url, "study") == {TrialState.WAITING: 1}


def test_ctrl_c_hands_back_and_the_same_command_goes_on(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    arguments = ("--study", slow, "--trials", "8", "--workers", "3", "--storage", url)
    process = start(*arguments)
    wait_until(has_running(path, 3))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert err.startswith("error: Interrupted with ")
    assert "Traceback" not in out + err
    counts = state_counts(url, "slow")
    assert counts[TrialState.RUNNING] == 0
    assert counts[TrialState.WAITING] >= 2
    assert run(*arguments).returncode == 0
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 8}


HANGING = """
import time

def objective(trial):
    trial.report(1.0, 1), trial.report(1.0, 2)
    while True:
        time.sleep(100)
"""


def test_a_second_ctrl_c_ends_an_objective_that_does_not_listen(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    study = str(write_study(HANGING, "hanging"))
    process = start("--study", study, "--trials", "8", "--workers", "2", "--storage", url)
    wait_until(has_running(path, 2))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert time.monotonic() - began < 5  # without the second one it would take DRAIN_SECONDS
    assert process.returncode == 130
    assert state_counts(url, "hanging") == {TrialState.WAITING: 2}


def test_a_time_out_drains_and_exits_5(slow: str, sqlite: tuple[str, Path]) -> None:
    url, _ = sqlite
    done = run(
        "--study", slow, "--trials", "50", "--workers", "2", "--storage", url, "--timeout", "12"
    )
    assert done.returncode == 5
    assert "--timeout 12 s passed with" in done.stderr
    counts = state_counts(url, "slow")
    assert counts[TrialState.RUNNING] == 0
    assert 0 < counts[TrialState.COMPLETE] < 50


FAILING = """
def objective(trial):
    if trial.number % 2:
        raise ValueError("odd")
    return 1.0
"""


def test_failures_are_replaced_until_there_are_too_many(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, _ = sqlite
    study = str(write_study(FAILING, "failing"))
    done = run("--study", study, "--trials", "4", "--workers", "1", "--storage", url)
    assert done.returncode == 0, done.stderr
    assert state_counts(url, "failing") == {TrialState.COMPLETE: 4, TrialState.FAIL: 3}
    assert trials_of(url, "failing")[1].user_attrs["reason"] == "ValueError: odd"
    done = run(
        "--study", study, "--trials", "9", "--workers", "1", "--storage", url, "--max-failures", "1"
    )
    assert done.returncode == 4
    assert "More than 1 trial failed since this command started (--max-failures 1)" in done.stderr
    counts = state_counts(url, "failing")
    assert counts[TrialState.FAIL] == 5  # two more than before
    assert counts[TrialState.RUNNING] == 0


CRASHING = """
import os, signal

def objective(trial):
    if trial.number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    return 1.0
"""


def test_a_trial_that_kills_its_workers_fails_with_the_reason(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, _ = sqlite
    study = str(write_study(CRASHING, "crashing"))
    done = run("--study", study, "--trials", "3", "--workers", "1", "--storage", url)
    assert done.returncode == 0, done.stderr
    trials = trials_of(url, "crashing")
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["reason"] == "killed (signal 11)"


def test_workers_that_die_at_once_end_the_command_with_their_last_words(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study(
        "import os\ndef objective(trial): return 1.0\n"
        "def prepare():\n    print('no luck today', flush=True)\n    os._exit(7)\n"
    ))  # fmt: skip
    done = run("--study", study, "--trials", "3", "--workers", "1", "--storage", sqlite[0])
    assert done.returncode == 4
    assert "exited with code 7" in done.stderr
    assert "no luck today" in done.stderr


@pytest.mark.parametrize("worker_count", ["1", "2"])
def test_workers_that_die_while_loading_end_the_command(
    worker_count: str, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study("import os\nprint('bye', flush=True)\nos._exit(7)\n"))
    done = run("--study", study, "--trials", "3", "--workers", worker_count, "--storage", sqlite[0])
    assert done.returncode == 4
    assert "Every worker ended while it loaded the study file (exited with code 7)" in done.stderr
    assert "bye" in done.stderr


@pytest.mark.soak
def test_an_objective_that_exits_quietly_fails_its_trial(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(
        write_study(CRASHING.replace("os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(0)"))
    )
    done = run("--study", study, "--trials", "3", "--workers", "1", "--storage", sqlite[0])
    assert done.returncode == 0, done.stderr
    trials = trials_of(sqlite[0], "study")
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["reason"] == "exited with code 0"


@pytest.mark.soak
def test_a_worker_that_somebody_stops_is_replaced(slow: str, sqlite: tuple[str, Path]) -> None:
    url, path = sqlite
    process = start("--study", slow, "--trials", "6", "--workers", "2", "--storage", url)
    wait_until(has_running(path, 2))
    workers_of(process)[0].terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 6}


def test_the_time_out_bounds_a_study_that_hangs_while_it_is_loaded(
    write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study("import time\ntime.sleep(1000)\n"))
    done = run("--study", study, "--trials", "3", "--storage", sqlite[0], "--timeout", "2")
    assert done.returncode == 5
    assert "passed before the study file was loaded" in done.stderr


def test_a_study_without_keras_imports_no_tensorflow(
    tmp_path: Path, sqlite: tuple[str, Path]
) -> None:
    for package in ("tensorflow", "keras"):
        (tmp_path / f"{package}.py").write_text("raise SystemExit('imported')\n")
    done = run("--study", PARABOLOID, "--trials", "3", "--workers", "1", "--storage", sqlite[0],
               PYTHONPATH=str(tmp_path))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert state_counts(sqlite[0], "paraboloid").total() == 3
    check = subprocess.run(
        [sys.executable, "-c", "import tensorflow"], env={"PYTHONPATH": str(tmp_path)}, check=False
    )
    assert check.returncode == 1  # the trap works


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    best = min(_timed_help() for _ in range(5))
    assert best < 0.5
    code = (
        "import sys, tuner.run\n"
        "from click.testing import CliRunner\n"
        "result = CliRunner().invoke(tuner.run.run, ['--help'])\n"
        "assert '--trials' in result.output, result.output\n"
        "print(*{'optuna', 'sqlalchemy', 'tensorflow', 'keras', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def _timed_help() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "tuner.run", "--help"], check=True, capture_output=True)
    return time.monotonic() - began


def test_optunas_own_command_reads_the_result(sqlite: tuple[str, Path]) -> None:
    assert run("--study", PARABOLOID, "--trials", "5", "--storage", sqlite[0]).returncode == 0
    listed = subprocess.run(
        [str(Path(sys.executable).parent / "optuna"), "trials", "--storage", sqlite[0],
         "--study-name", "paraboloid", "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout.count('"number"') == 5


# Keeps 400 MB of each trial, as an objective may that builds a model for each.
LEAKING = """
import os

kept = []

def objective(trial):
    kept.append(b"x" * 400_000_000)
    trial.set_user_attr("pid", os.getpid())
    return trial.suggest_float("x", 0, 1)
"""


@pytest.mark.soak
def test_a_worker_that_grows_is_replaced_between_trials(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    study = str(write_study(LEAKING, "leaking"))
    done = run("--study", study, "--trials", "9", "--workers", "1", "--storage", url)
    assert done.returncode == 0, done.stderr
    trials = trials_of(url, "leaking")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 9
    # About 450, 850 and 1,250 MB: more than 600 above the first, and more than twice as much.
    pids = Counter(trial.user_attrs["pid"] for trial in trials)
    assert sorted(pids.values()) == [3, 3, 3]
    assert max(trial.user_attrs["memory_mb"] for trial in trials) < 1500
    assert "died" not in done.stdout
    assert "exited" not in done.stdout


ARMS = """
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

max_step = 4
space = {"kind": CategoricalDistribution(["a", "b", "c"]), "x": FloatDistribution(-5, 5),
         "n": IntDistribution(0, 3)}
fails = {"left": 1}

def objective(trial):
    p = trial.params
    if p["kind"] == "b" and fails["left"]:
        fails["left"] = 0
        raise RuntimeError("once")
    value = (p["x"] - 1) ** 2 + {"a": 0, "b": 1, "c": 2}[p["kind"]] + p["n"]
    for step in (1, 2, 3, 4):
        trial.report(value + 1 / 2**step, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    (trial.outputs / "model.keras").write_text(str(value))
    return value
"""


def arms_of(url: str, name: str) -> Counter[object]:
    ended = [it for it in trials_of(url, name) if it.state in ENDED]
    return Counter(it.params["kind"] for it in ended)


def test_compare_gives_each_level_the_same_number_of_trials(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = str(write_study(ARMS, "arms"))
    url = f"sqlite:///{tmp_path}/tuner.db"
    here = ("--study", study, "--storage", url, "--artifacts", str(tmp_path / "kept"))
    compare = ("--compare", "kind", "--workers", "2")
    done = run(*here, "--trials", "10", *compare, "--sampler", "random", "--pruner", "none")
    assert done.returncode == 0, done.stderr
    assert "comparing 3 levels of kind, sampler random" in done.stdout
    assert sorted(arms_of(url, "arms").values()) == [3, 3, 4]
    # Of a block, all but the level is the same: the draws, and the seed of the training.
    blocks: dict[int, set[object]] = {}
    for trial in trials_of(url, "arms"):
        same = (trial.params["x"], trial.params["n"], trial.user_attrs["seed"])
        blocks.setdefault(trial.system_attrs["tuner:block"], set()).add(same)
    assert all(len(same) == 1 for same in blocks.values())
    assert len(blocks) >= 4
    # What a completed trial left is an Optuna artifact, as many as there are such trials.
    stored = list((tmp_path / "kept" / "files").iterdir())
    assert len(stored) == 10
    best = min(trials_of(url, "arms"), key=lambda it: it.value if it.value is not None else 99)
    meta = optuna.artifacts.get_all_artifact_meta(best, storage=open_database(url).storage)
    assert [it.filename for it in meta] == ["model.keras"]
    assert (tmp_path / "kept" / "files" / meta[0].artifact_id).read_text() == str(best.value)
    # It goes on without being told again, and exactly.
    more = run(*here, "--trials", "14", "--workers", "2", "--pruner", "none")
    assert "comparing 3 levels of kind, sampler tpe" in more.stdout
    assert sorted(arms_of(url, "arms").values()) == [4, 5, 5]
    wrong = run(*here, "--trials", "14", "--compare", "n")
    assert wrong.returncode == 2
    assert "was begun with --compare kind" in wrong.stderr


def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_written(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    study = str(write_study(ARMS, "arms"))
    url = f"sqlite:///{tmp_path}/tuner.db"
    for flags, words in (
        (("--compare", "x"), "has no levels to compare"),
        (("--compare", "kinds"), "with 2 to 50 levels: kind, n."),
        (("--compare", "kind", "--sampler", "nsga2"), "choose one of: cmaes, gp, qmc, random, tpe"),
        (("--compare", "kind", "--trials", "2"), "has 3 levels, and --trials 2 leaves some"),
    ):
        asked = ("--trials", "9", *flags) if "--trials" not in flags else flags
        done = run("--study", study, "--storage", url, *asked)
        assert done.returncode == 2
        assert words in done.stderr
    assert not (tmp_path / "tuner.db").exists()
