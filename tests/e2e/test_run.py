"""`python -m tuner.run` as its user meets it: real processes, real kills, every exit code."""

import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.trial import FrozenTrial, TrialState

from tests.conftest import ROOT, free_port, run, wait_until
from tests.e2e.engines import Engine, both, ray_cluster, ray_node
from tuner.storage import open_database
from tuner.storage.attributes import DEFINITION_ATTR

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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Engine]:
    with ray_cluster() as (engine, _):
        yield engine


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return Engine()
    found: Engine = request.getfixturevalue("cluster")
    return found


@pytest.fixture
def slow(write_study: Callable[..., Path]) -> str:
    return str(write_study(SLOW, "slow"))


@pytest.fixture
def sqlite(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "tuner.db"
    return f"sqlite:///{path}", path


def exact_budget(engine: Engine, url: str) -> None:
    """12 trials by 4 workers, again 12, then 15; the first ten configurations differ."""
    for asked, workers, says in (
        (12, 4, "12 trials in"),
        (12, 4, "nothing to do"),
        (15, 2, "3 trials in"),
    ):
        done = engine.run(PARABOLOID, asked, workers, url)
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
@both
def test_exactly_so_many_trials(engine: Engine, database_url: str) -> None:
    exact_budget(engine, database_url)


@pytest.mark.soak
@pytest.mark.parametrize("repetition", range(20))
def test_exactly_so_many_trials_twenty_times(repetition: int, sqlite: tuple[str, Path]) -> None:
    exact_budget(Engine(), sqlite[0])


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


@both
def test_a_killed_worker_is_replaced_and_its_trial_goes_on(
    engine: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    process = engine.start(slow, 10, 3, url)
    wait_until(has_running(path, 3))
    before = {t.number: (t.params, t.intermediate_values) for t in trials_of(url, "slow")}
    victim = engine.family_of(process)[0]
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


@both
def test_a_killed_supervisor_loses_nothing(
    engine: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    arguments = (slow, 8, 3, url)
    process = engine.start(*arguments)
    wait_until(has_running(path, 3))
    workers = engine.family_of(process)
    process.kill()
    process.communicate()
    again = engine.run(*arguments)
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


@both
def test_what_an_orphan_has_started_ends_with_it(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    study = str(write_study(STARTING_OTHERS))
    process = engine.start(study, 2, 1, url)
    wait_until(has_running(path))
    family = engine.family_of(process)
    assert [member.name() for member in family].count("sleep") == 1
    process.kill()
    process.communicate()
    wait_until(lambda: not any(member.is_running() for member in family), seconds=10)
    # Ray kills a worker at once with its command: the next one takes the trial over.
    state = TrialState.RUNNING if engine.cluster else TrialState.WAITING
    assert +state_counts(url, "study") == {state: 1}


@both
def test_ctrl_c_hands_back_and_the_same_command_goes_on(
    engine: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    arguments = (slow, 8, 3, url)
    process = engine.start(*arguments)
    wait_until(has_running(path, 3))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=15)
    assert process.returncode == 130
    assert err.startswith("error: Interrupted with ")
    assert "Traceback" not in out + err
    counts = state_counts(url, "slow")
    assert counts[TrialState.RUNNING] == 0
    assert counts[TrialState.WAITING] >= 2
    assert engine.run(*arguments).returncode == 0
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 8}


HANGING = """
import time

def objective(trial):
    trial.report(1.0, 1), trial.report(1.0, 2)
    while True:
        time.sleep(100)
"""


@both
def test_a_second_ctrl_c_ends_an_objective_that_does_not_listen(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    study = str(write_study(HANGING, "hanging"))
    process = engine.start(study, 8, 2, url)
    wait_until(has_running(path, 2))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert time.monotonic() - began < 5  # without the second one it would take DRAIN_SECONDS
    assert process.returncode == 130
    assert state_counts(url, "hanging") == {TrialState.WAITING: 2}


@both
def test_a_time_out_drains_and_exits_5(engine: Engine, slow: str, sqlite: tuple[str, Path]) -> None:
    url, _ = sqlite
    done = engine.run(slow, 50, 2, url, "--timeout", "12")
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


@both
def test_failures_are_replaced_until_there_are_too_many(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, _ = sqlite
    study = str(write_study(FAILING, "failing"))
    done = engine.run(study, 4, 1, url)
    assert done.returncode == 0, done.stderr
    assert state_counts(url, "failing") == {TrialState.COMPLETE: 4, TrialState.FAIL: 3}
    assert trials_of(url, "failing")[1].user_attrs["reason"] == "ValueError: odd"
    done = engine.run(study, 9, 1, url, "--max-failures", "1")
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


@both
def test_a_trial_that_kills_its_workers_fails_with_the_reason(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    url, _ = sqlite
    study = str(write_study(CRASHING, "crashing"))
    done = engine.run(study, 3, 1, url)
    assert done.returncode == 0, done.stderr
    trials = trials_of(url, "crashing")
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["reason"] == "killed (signal 11)"


@both
def test_workers_that_die_at_once_end_the_command_with_their_last_words(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study(
        "import os\ndef objective(trial): return 1.0\n"
        "def prepare():\n    print('no luck today', flush=True)\n    os._exit(7)\n"
    ))  # fmt: skip
    done = engine.run(study, 3, 1, sqlite[0])
    assert done.returncode == 4
    assert "exited with code 7" in done.stderr
    assert "no luck today" in done.stderr


@pytest.mark.parametrize("worker_count", [1, 2])
@both
def test_workers_that_die_while_loading_end_the_command(
    engine: Engine, worker_count: int, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study("import os\nprint('bye', flush=True)\nos._exit(7)\n"))
    done = engine.run(study, 3, worker_count, sqlite[0])
    assert done.returncode == 4
    assert "Every worker ended while it loaded the study file (exited with code 7)" in done.stderr
    assert "bye" in done.stderr


@pytest.mark.soak
@both
def test_an_objective_that_exits_quietly_fails_its_trial(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(
        write_study(CRASHING.replace("os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(0)"))
    )
    done = engine.run(study, 3, 1, sqlite[0])
    assert done.returncode == 0, done.stderr
    trials = trials_of(sqlite[0], "study")
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].user_attrs["reason"] == "exited with code 0"


@pytest.mark.soak
@both
def test_a_worker_that_somebody_stops_is_replaced(
    engine: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    process = engine.start(slow, 6, 2, url)
    wait_until(has_running(path, 2))
    engine.family_of(process)[0].terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 6}


@both
def test_the_time_out_bounds_a_study_that_hangs_while_it_is_loaded(
    engine: Engine, write_study: Callable[..., Path], sqlite: tuple[str, Path]
) -> None:
    study = str(write_study("import time\ntime.sleep(1000)\n"))
    done = engine.run(study, 3, 2, sqlite[0], "--timeout", "15" if engine.cluster else "2")
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
@both
def test_a_worker_that_grows_is_replaced_between_trials(
    engine: Engine, write_study: Callable[..., Path], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    study = str(write_study(LEAKING, "leaking"))
    done = engine.run(study, 9, 1, url)
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


def test_a_killed_ray_actor_is_replaced_and_its_trial_goes_on(
    cluster: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    process = cluster.start(slow, 8, 2, url)
    wait_until(has_running(path, 2))
    worker = cluster.family_of(process)[0]
    actor = worker.parent()
    assert actor is not None
    assert "ray::" in actor.name() or "ray::" in " ".join(actor.cmdline())
    actor.kill()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"worker {worker.pid} lost with its Ray actor or node; trial " in out
    assert state_counts(url, "slow") == {TrialState.COMPLETE: 8}
    wait_until(lambda: not worker.is_running(), seconds=10)


def test_a_lost_ray_node_is_replaced_and_its_trial_goes_on(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    with (
        ray_cluster(cpus=1) as (head, address),
        ray_node(f"--address={address}", "--num-cpus=1") as node,
    ):
        process = head.start(slow, 8, 2, url, "--cpus-per-worker", "1")
        wait_until(has_running(path, 2))
        worker = replace(head, cluster=node).family_of(process)[0]
        (raylet,) = (it for it in node.children() if it.name() == "raylet")
        raylet.kill()
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert f"worker {worker.pid} lost with its Ray actor or node; trial " in out
        assert state_counts(url, "slow") == {TrialState.COMPLETE: 8}
        wait_until(lambda: not worker.is_running(), seconds=10)


@pytest.mark.soak
def test_a_ray_cluster_whose_head_is_gone_ends_the_command(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    url, path = sqlite
    with ray_cluster() as (head, _):
        process = head.start(slow, 200, 2, url)
        wait_until(has_running(path, 2))
        assert head.cluster is not None
        for one in head.cluster.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.startswith("error: The head of the Ray cluster, "), err
    assert " has not answered for 3" in err
    assert state_counts(url, "slow")[TrialState.RUNNING] == 0
    assert Engine().run(slow, state_counts(url, "slow").total(), 2, url).returncode == 0
    assert set(state_counts(url, "slow")) == {TrialState.COMPLETE}


WHICH_GPU = """
import os
import time
from pathlib import Path

THERE = Path({there!r})

def objective(trial):
    (THERE / str(os.getpid())).touch()
    while len(list(THERE.iterdir())) < 2:  # until both workers are at it
        time.sleep(0.1)
        trial.report(1.0, 1)
    trial.set_user_attr("gpus", os.environ.get("CUDA_VISIBLE_DEVICES"))
    return 1.0
"""


def test_workers_share_a_gpu_as_ray_places_them(
    cluster: Engine, write_study: Callable[..., Path], tmp_path: Path, sqlite: tuple[str, Path]
) -> None:
    (there := tmp_path / "there").mkdir()
    study = str(write_study(WHICH_GPU.format(there=str(there))))
    done = cluster.run(study, 4, 2, sqlite[0], "--gpus-per-worker", "0.5", "--timeout", "120")
    assert done.returncode == 0, done.stderr
    trials = trials_of(sqlite[0], "study")
    assert {trial.user_attrs["gpus"] for trial in trials} == {"0"}
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2


def test_what_lies_beside_the_study_file_travels_with_it(
    cluster: Engine, tmp_path: Path, sqlite: tuple[str, Path]
) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "beside.py").write_text("from pathlib import Path\nPLACE = Path(__file__).parent\n")
    (folder / "far.txt").write_text("0.25")
    (folder / "travels.py").write_text(
        "from pathlib import Path\nimport tuner\nfrom studies.beside import PLACE\n"
        "def objective(trial):\n"
        "    trial.set_user_attr('place', str(PLACE))\n"
        "    trial.set_user_attr('package', tuner.__file__)\n"
        "    return float(Path(__file__).with_name('far.txt').read_text())\n"
    )
    done = run("--study", "travels", "--trials", "2", "--workers", "1", "--storage", sqlite[0],
               *cluster.flags, cwd=tmp_path, PYTHONPATH=str(ROOT), **cluster.env)  # fmt: skip
    assert done.returncode == 0, done.stderr
    for trial in trials_of(sqlite[0], "travels"):
        assert trial.value == 0.25
        assert not Path(trial.user_attrs["place"]).is_relative_to(tmp_path)
        assert not Path(trial.user_attrs["package"]).is_relative_to(ROOT)
    with contextlib.closing(open_database(sqlite[0])) as database:
        study = optuna.load_study(study_name="travels", storage=database.storage)
        assert study.user_attrs[DEFINITION_ATTR]["file"] == "studies/travels.py"


def test_workers_that_find_no_place_on_ray_are_told_of(
    cluster: Engine, slow: str, sqlite: tuple[str, Path]
) -> None:
    process = cluster.start(slow, 8, 2, sqlite[0], "--cpus-per-worker", "3", "--timeout", "20")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "2 workers have not started after 10 s: each needs 3 CPU, and 2 of 2 CPUs of" in out


def test_without_a_ray_cluster_a_sentence_says_how_to_start_one(
    slow: str, sqlite: tuple[str, Path]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    done = Engine(("--engine", "ray", "--ray-address", address)).run(slow, 2, 1, sqlite[0])
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: There is no Ray cluster at --ray-address {address}: ")
    assert "`ray start --head`" in done.stderr


def test_ctrl_c_is_heard_while_ray_is_connected_to(slow: str, sqlite: tuple[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # where somebody listens, and not Ray
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        engine = Engine(("--engine", "ray", "--ray-address", address))
        process = engine.start(slow, 2, 1, sqlite[0])
        deaf.settimeout(30)
        deaf.accept()[0].close()  # it has knocked
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err.strip().endswith("Interrupted before the first trial; nothing was changed.")
    assert not sqlite[1].exists()
