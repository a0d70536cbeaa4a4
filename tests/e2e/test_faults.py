"""Processes that die, stop, hang or fail, on each database: exactly N trials, nothing lost."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import TrialState

from tests.conftest import wait_until
from tests.e2e.faults import (
    KEEPING,
    SHORT_AGE_SECONDS,
    SHORT_LIMITS,
    Commands,
    check_nothing_lost,
    kill_workers,
    opened,
    trials_of,
)
from tests.integration.test_databases import CREATE
from tuner.daemon import LOOK_SECONDS
from tuner.storage.claims import BEAT_AGE_LIMIT_SECONDS

# Where the kind of database makes no difference that another test would not see.
ONE_DATABASE = pytest.mark.parametrize(
    "database_url",
    [
        pytest.param("sqlite", marks=pytest.mark.soak),
        "postgresql",
        pytest.param("mysql", marks=pytest.mark.soak),
    ],
    indirect=True,
)
TAKEN_OVER = "taken over from a dead supervisor"


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    with Commands(tmp_path) as commands:
        commands.study()
        yield commands


def workers_are_killed(
    url: str, commands: Commands, *, trials: int, kills: int, pruner: str = "none"
) -> None:
    seed = random.randrange(2**32)
    sys.stdout.write(f"victims are chosen by random.Random({seed})\n")
    run = commands.run(url, trials, 4, "--max-failures", "20", "--pruner", pruner)
    victims = kill_workers(
        commands, run, trials=trials, kills=kills, choose=random.Random(seed).choice
    )
    run.wait(0, 300)
    for victim in victims:
        assert f"worker {victim} killed (signal 9)" in run.text()
    found = check_nothing_lost(url, trials, commands.witness, failed=None)
    failed = [trial for trial in found if trial.state == TrialState.FAIL]
    assert all(trial.user_attrs["reason"] == "killed (signal 9)" for trial in failed)
    again = [number for number, tried in commands.witness.attempts().items() if len(tried) > 1]
    assert again
    sys.stdout.write(f"tried more than once: {again}; failed: {len(failed)}\n")


@ONE_DATABASE
def test_killed_workers_lose_nothing(database_url: str, commands: Commands) -> None:
    workers_are_killed(database_url, commands, trials=16, kills=3)


@pytest.mark.soak
def test_twenty_killed_workers_lose_nothing(database_url: str, commands: Commands) -> None:
    workers_are_killed(database_url, commands, trials=60, kills=20, pruner="percentile")


@ONE_DATABASE
def test_a_killed_supervisor_loses_nothing_and_the_same_command_goes_on(
    database_url: str, commands: Commands
) -> None:
    first = commands.run(database_url, 8, 3)
    commands.witness.await_work(workers=2, ended=1)
    first.kill()
    commands.run(database_url, 8, 3).wait(0)
    check_nothing_lost(database_url, 8, commands.witness)
    assert len(commands.witness.parents()) == 2
    assert any(len(tried) > 1 for tried in commands.witness.attempts().values())


@ONE_DATABASE
def test_a_daemon_finishes_what_a_killed_supervisor_left(
    database_url: str, commands: Commands
) -> None:
    first = commands.run(database_url, 8, 2)
    commands.witness.await_work(workers=2, ended=1)
    first.kill()
    daemon = commands.daemon(database_url, 2)
    daemon.await_words("study: all 8 trials are done", 90)
    check_nothing_lost(database_url, 8, commands.witness)
    assert commands.witness.parents() == {first.process.pid, daemon.process.pid}
    daemon.process.terminate()
    daemon.wait(0, 10)


@ONE_DATABASE
def test_sigterm_of_everything_at_once_hands_back_and_the_same_command_goes_on(
    database_url: str, commands: Commands
) -> None:
    first = commands.run(database_url, 8, 3)
    commands.witness.await_work(workers=2)
    for pid in [*(worker.pid for worker in first.workers()), first.process.pid]:
        os.kill(pid, signal.SIGTERM)
    first.wait(130, 15)
    states = [trial.state for trial in trials_of(database_url)]
    assert TrialState.RUNNING not in states
    assert TrialState.WAITING in states
    commands.run(database_url, 8, 3).wait(0)
    check_nothing_lost(database_url, 8, commands.witness)
    assert any(len(tried) > 1 for tried in commands.witness.attempts().values())


def test_eight_workers_share_one_sqlite_file(tmp_path: Path, commands: Commands) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    run = commands.run(url, 24, 8, STEP_SECONDS="0.15")
    commands.witness.await_work(workers=4)  # so many at once, at least
    run.wait(0)
    check_nothing_lost(url, 24, commands.witness)
    assert all(len(tried) == 1 for tried in commands.witness.attempts().values())
    assert len(commands.witness.pids()) >= 6


@pytest.mark.soak
@pytest.mark.parametrize("repetition", range(20))
def test_four_processes_create_the_same_study_twenty_times(
    repetition: int, database_url: str
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, database_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert len({out for out, _ in outputs}) == 1


# Holds the GIL for so long in one trial; a thread that cannot tick meanwhile is the proof.
HOLDING = """
import ctypes
import threading

def fault(trial, step):
    if step != 3 or not first_time("held"):
        return
    ticks, over = [], threading.Event()
    def tick():
        while not over.wait(0.05):
            ticks.append(time.monotonic())
    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.3)
    ctypes.PyDLL(None).sleep(int(os.environ["HOLD_SECONDS"]))
    time.sleep(0.3)
    over.set()
    thread.join()
    gap = max(after - before for before, after in zip(ticks, ticks[1:]))
    note(trial, "held", gap=gap)
"""


def the_gil_is_held(
    url: str, commands: Commands, seconds: int, limits: dict[str, float] | None
) -> None:
    commands.study(HOLDING)
    first = commands.run(url, 6, 1, limits=limits, HOLD_SECONDS=str(seconds))
    wait_until(lambda: Path(f"{commands.witness.path}.held").exists(), 60)
    second = commands.run(url, 6, 1, limits=limits, HOLD_SECONDS=str(seconds))
    wait_until(lambda: commands.witness.count("held") == 1, seconds + 60)
    assert second.process.poll() is None  # it looked for dead supervisors all the time
    for run in (first, second):
        run.wait(0)
        assert TAKEN_OVER not in run.text()
    held = next(line for line in commands.witness.events() if line["event"] == "held")
    assert held["gap"] >= seconds - 0.1
    assert len(commands.witness.parents()) == 2
    check_nothing_lost(url, 6, commands.witness)
    assert all(len(tried) == 1 for tried in commands.witness.attempts().values())


@pytest.mark.soak
@ONE_DATABASE
def test_an_objective_that_holds_the_gil_past_the_age_limit_keeps_its_trial(
    database_url: str, commands: Commands
) -> None:
    the_gil_is_held(database_url, commands, int(SHORT_AGE_SECONDS) + 3, SHORT_LIMITS)


@pytest.mark.soak
def test_an_objective_that_holds_the_gil_past_the_real_age_limit_keeps_its_trial(
    database_url: str, commands: Commands
) -> None:
    the_gil_is_held(database_url, commands, BEAT_AGE_LIMIT_SECONDS + 40, None)


# Once, a trial waits after its last report, until another supervisor has ended it.
LINGERING = """
def fault(trial, step):
    if "LINGER" in os.environ and step > STEPS and first_time("lingers"):
        note(trial, "lingers")
        while not os.path.exists(f"{WITNESS}.go"):
            time.sleep(0.05)
"""


@ONE_DATABASE
def test_a_stopped_supervisor_is_taken_over_and_tells_nothing_twice(
    database_url: str, commands: Commands
) -> None:
    commands.study(LINGERING)
    first = commands.run(database_url, 8, 1, limits=SHORT_LIMITS, LINGER="yes")
    wait_until(lambda: commands.witness.count("lingers") == 1, 60)
    number = next(e for e in commands.witness.events() if e["event"] == "lingers")["trial"]
    first.process.send_signal(signal.SIGSTOP)
    second = commands.run(database_url, 8, 1, limits=SHORT_LIMITS)
    second.await_words(f"{TAKEN_OVER}: trial {number} is handed back")
    wait_until(lambda: trials_of(database_url)[number].state == TrialState.COMPLETE)
    Path(f"{commands.witness.path}.go").touch()
    wait_until(lambda: commands.witness.attempts()[number][0].end is not None)
    assert first.process.poll() is None
    first.process.send_signal(signal.SIGCONT)
    for run in (first, second):
        run.wait(0)
    assert "the trial was given to another worker; this result is dropped" in first.text()
    check_nothing_lost(database_url, 8, commands.witness, exclusive=False)
    late, accepted = commands.witness.attempts()[number]
    assert late.end not in (None, accepted.end)
    assert (late.parent, accepted.parent) == (first.process.pid, second.process.pid)


# What fails, by the trial's number; `note` tells how often it was tried.
FAILING = """
import resource

def fault(trial, step):
    if step != 3:
        return
    if trial.number == 1:
        raise ValueError("no luck")
    if trial.number == 2:
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        with open("/proc/self/statm") as memory:
            used = int(memory.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, hard))
        try:
            note(trial, "starves")
            bytearray(1_000_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if trial.number == 3:
        note(trial, "hangs")
        time.sleep(1000)
    if trial.number == 4 and first_time("hangs once"):
        note(trial, "hangs once")
        time.sleep(1000)

trained = objective

def objective(trial):
    value = trained(trial)
    return float("nan") if trial.number == 0 else value
"""


@ONE_DATABASE
def test_failures_of_every_kind_are_named_and_replaced(
    database_url: str, commands: Commands
) -> None:
    commands.study(FAILING)
    run = commands.run(
        database_url, 8, 2, "--trial-timeout", "2", "--max-failures", "10", STEP_SECONDS="0.03"
    )
    run.wait(0)
    trials = check_nothing_lost(database_url, 8, commands.witness, failed=4)
    reasons = {t.number: t.user_attrs["reason"] for t in trials if t.state == TrialState.FAIL}
    assert reasons == {
        0: "the objective returned nan",
        1: "ValueError: no luck",
        2: "out of memory",
        3: "timed out",
    }
    tried = {number: len(attempts) for number, attempts in commands.witness.attempts().items()}
    assert tried == {number: {2: 3, 3: 3, 4: 2}.get(number, 1) for number in range(12)}
    assert commands.witness.count("starves") == 3
    assert commands.witness.count("hangs") == 3
    assert run.text().count("timed out; trial 3") == 3  # by a kill of its worker
    assert run.text().count("timed out; trial 4 is handed back") == 1
    first, last = commands.witness.attempts()[4]
    assert first.pid != last.pid
    assert first.stored == {1, 2}
    kept = {step: trials[4].intermediate_values[step] for step in first.stored}
    assert kept == {step: first.reported[step] for step in first.stored}


# With DYING, some trials take their worker with them: within a rung, and between two.
DYING = """
import signal

def fault(trial, step):
    if "DYING" in os.environ and (trial.number, step) in {(1, 3), (3, 2), (6, 5), (8, 4)}:
        if first_time(f"died-{trial.number}"):
            note(trial, "dies")
            os.kill(os.getpid(), signal.SIGKILL)
"""
# With DYING, the worker dies when the pruner has decided, and the trial has not ended.
DYING_PRUNED = """
import signal

def before_pruning(trial):
    if "DYING" in os.environ and first_time("died"):
        note(trial, "dies")
        os.kill(os.getpid(), signal.SIGKILL)
"""
RUNGS = "completed_rung_"
Results = list[
    tuple[TrialState, dict[str, object], float | None, dict[int, float], dict[str, float]]
]


def results_of(url: str) -> Results:
    """All of a study's results, with what the pruner keeps of each rung."""
    with opened(url) as (study, engine):
        trials = study.get_trials(deepcopy=False)
        with engine.connect() as connection:
            attr = models.TrialSystemAttributeModel
            rows = connection.scalars(
                sqlalchemy.select(attr.key).where(attr.key.startswith(RUNGS))
            ).all()
    found = [
        (
            trial.state,
            trial.params,
            trial.value,
            trial.intermediate_values,
            {key: value for key, value in trial.system_attrs.items() if key.startswith(RUNGS)},
        )
        for trial in trials
    ]
    assert len(rows) == sum(len(rungs) for *_, rungs in found)  # no attribute has two rows
    return found


def uninterrupted_and_dying(
    url: str, commands: Commands, tmp_path: Path
) -> tuple[Results, Results]:
    """The same study twice, by one worker: without faults, and with workers that die."""
    options = ("--pruner", "asha", "--seed", "5")
    quick = {"NOISE": "0", "STEP_SECONDS": "0.02"}
    reference = f"sqlite:///{tmp_path}/reference.db"
    witness = str(tmp_path / "reference.jsonl")
    runs = [
        commands.run(reference, 14, 1, *options, WITNESS=witness, **quick),
        commands.run(url, 14, 1, *options, DYING="yes", **quick),
    ]
    for run in runs:
        run.wait(0)
    check_nothing_lost(url, 14, commands.witness)
    return results_of(reference), results_of(url)


@ONE_DATABASE
def test_a_handed_back_trial_is_counted_once_in_each_rung(
    database_url: str, commands: Commands, tmp_path: Path
) -> None:
    commands.study(DYING)
    expected, found = uninterrupted_and_dying(database_url, commands, tmp_path)
    assert commands.witness.count("dies") >= 2
    assert found == expected
    reached = {0: 1, 1: 3}  # each rung's step
    for rung, step in reached.items():
        competitors = [t for t in found if f"{RUNGS}{rung}" in t[4]]
        assert len(competitors) == sum(max(t[3]) >= step for t in found)
        assert all(t[4][f"{RUNGS}{rung}"] == t[3][step] for t in competitors)
    assert {t[0] for t in found} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_a_trial_whose_worker_dies_when_it_is_pruned_is_pruned_at_the_same_step(
    commands: Commands, tmp_path: Path
) -> None:
    commands.study(DYING_PRUNED)
    url = f"sqlite:///{tmp_path}/tuner.db"
    expected, found = uninterrupted_and_dying(url, commands, tmp_path)
    assert commands.witness.count("dies") == 1
    assert found == expected


# Two of those that keep checkpoints die, one of them again and again.
DYING_KEEPING = (
    KEEPING
    + """
import signal


def fault(trial, step):
    if step == 4 and (trial.number == 2 or (trial.number == 1 and first_time("died"))):
        os.kill(os.getpid(), signal.SIGKILL)
"""
)


@pytest.mark.soak
@ONE_DATABASE
def test_a_checkpoint_is_kept_as_long_as_its_trial_is_not_ended(
    database_url: str, commands: Commands, tmp_path: Path
) -> None:
    commands.study(DYING_KEEPING)
    store = tmp_path / "tuner-artifacts" / "checkpoints"
    first = commands.run(database_url, 8, 2, STEP_SECONDS="0.2")
    commands.witness.await_work(workers=2, ended=4)
    working = commands.witness.at_work()
    workers = first.workers()
    first.kill()
    for worker in workers:
        worker.kill()
    kept = {int(path.stem) for path in store.glob("*/*.npz")}
    assert working.keys() <= kept
    assert trials_of(database_url)[2].state == TrialState.FAIL
    begun = len(commands.witness.events())
    commands.run(database_url, 8, 2).wait(0)
    check_nothing_lost(database_url, 8, commands.witness, failed=1)
    assert not list(store.glob("*/*"))  # also of the trial that failed by its workers' deaths
    starts = [e for e in commands.witness.events() if e["event"] == "from"]
    assert [e["step"] for e in starts if e["trial"] == 1] == [0, 4]
    assert [e["step"] for e in starts if e["trial"] == 2] == [0, 4, 4]
    again = [e for e in commands.witness.events()[begun:] if e["event"] == "from"]
    assert all(e["step"] >= 1 for e in again if e["trial"] in working)
    assert all(Path(e["path"]).is_relative_to(store) for e in starts)


@pytest.mark.soak
@ONE_DATABASE
def test_an_interrupted_study_is_left_by_an_idle_daemon(
    database_url: str, commands: Commands
) -> None:
    daemon = commands.daemon(database_url, 1)
    daemon.await_words("waiting for trials of every study")
    run = commands.run(database_url, 40, 1)
    daemon.await_words("study: ")
    wait_until(lambda: commands.witness.parents() == {run.process.pid, daemon.process.pid}, 60)
    commands.witness.await_work(workers=2)
    run.process.send_signal(signal.SIGINT)
    run.wait(130, 15)
    daemon.await_words("The study study is closed with")
    wait_until(lambda: not daemon.workers())
    before = commands.witness.events()
    with pytest.raises(AssertionError, match="waited in vain"):
        wait_until(lambda: len(commands.witness.events()) > len(before), 3 * LOOK_SECONDS)
    assert daemon.process.poll() is None
    done = len({e["trial"] for e in before if e["event"] == "end"})
    target = done + 4
    commands.run(database_url, target, 1).wait(0)
    check_nothing_lost(database_url, target, commands.witness)
