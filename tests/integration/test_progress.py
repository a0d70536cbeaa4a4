"""The progress reader counts what the study holds, whatever happens in between."""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import wait_until
from tests.integration.test_claims import elsewhere
from tuner.engines.interface import LogLine, WorkerState
from tuner.engines.local import LocalEngine
from tuner.panel import Size, draw
from tuner.scoreboard import Scoreboard
from tuner.seeds import trial_seed
from tuner.storage import (
    ANOTHER_PROGRAM,
    Claim,
    Claims,
    ProgressReader,
    count_outcomes,
    find_best,
    open_database,
    read_complete_values,
    register,
    this_process,
)
from tuner.study import Snapshot
from tuner.work import Assignment


def test_readings_agree_with_a_full_read_through_a_random_life(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    claims, reader, me = (
        Claims(database, study_id),
        ProgressReader(database, study_id),
        this_process(),
    )
    dice, held, announced = random.Random(0), [], []
    for _ in range(150):
        move = dice.random()
        if move < 0.5 and len(held) < 4:
            worker = me.worker(1)
            got = claims.claim(worker, lambda n: trial_seed(1, n), target=60, most_failed=99)
            if isinstance(got, Claim):
                held.append((worker, got))
        elif held:
            worker, claim = held.pop(dice.randrange(len(held)))
            if move < 0.7:
                claims.hand_back(worker)
            else:
                state = dice.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
                values = None if state == TrialState.FAIL else [dice.random()]
                database.backend.set_trial_intermediate_value(claim.trial_id, 3, 0.5)
                claims.finish(claim, worker, state, values, {"outcome": "x"})
        progress = reader.read()
        trials = database.backend.get_all_trials(study_id)
        assert progress.counts == Counter(trial.state for trial in trials)
        assert [trial.number for trial in progress.running] == sorted(
            claim.number for _, claim in held
        )
        announced += [trial.number for trial in progress.new]
    finished = [trial.number for trial in trials if trial.state.is_finished()]
    assert sorted(announced) == finished
    assert len(finished) > 30
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = find_best(database, study_id)
    assert best is not None
    assert best.value == min(trial.value for trial in complete)
    assert read_complete_values(database, study_id) == [(t.number, t.values) for t in complete]
    assert best.last_step == 3
    again = ProgressReader(database, study_id).read(describe=False)
    assert (again.counts, again.new) == (progress.counts, [])
    told = Counter(
        str(trial.user_attrs["outcome"]) for trial in trials if trial.state.is_finished()
    )
    assert count_outcomes(database, study_id) == told
    database.close()


def test_running_trials_show_their_last_value_even_if_it_is_no_number(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    study = optuna.load_study(study_name="study", storage=database.storage)
    trials = [study.ask() for _ in range(3)]
    trials[0].report(0.5, 1)
    trials[0].report(0.25, 4)
    trials[1].report(math.inf, 2)
    running = ProgressReader(database, study_id).read().running
    assert [(trial.number, trial.step, trial.value) for trial in running] == [
        (0, 4, 0.25), (1, 2, math.inf), (2, None, None),
    ]  # fmt: skip
    assert {(trial.host, trial.pid) for trial in running} == {(ANOTHER_PROGRAM, None)}
    database.close()


def test_a_trial_of_another_host_is_shown_beside_our_own(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "loss", "minimize", 20, "s.py", "h", 4)
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    me = this_process()
    for owner in (me.worker(4711), elsewhere()):
        claim = Claims(database, study_id).claim(owner, lambda _: 7, target=9, most_failed=9)
        assert isinstance(claim, Claim)
        database.backend.set_trial_intermediate_value(claim.trial_id, 5, 0.25)
    board = Scoreboard("study", snapshot, 9)
    board.update(ProgressReader(database, study_id).read())
    board.workers = [WorkerState(1, 4711, "trial 0", None, time.monotonic(), at_trial=True)]
    lines = [line.plain for line in draw(board, Size(80, 24))]
    assert lines[3].startswith("  worker 1  trial 0  epoch 1¼/5  loss 0.25")
    assert lines[4].startswith("  other 1   trial 1  epoch 1¼/5  loss 0.25")
    database.close()


# Says how far it is when the test lets it go on.
TELLING = """
import logging, pathlib, time
from tuner import log

here = pathlib.Path(__file__).parent
logger = logging.getLogger("tuner")

def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.01)

wait_for("load")

def prepare():
    with log.one_time_work(logger, "baking the base") as tell:
        tell(0.25)
        wait_for("bake")
    print("\\x1b[1mbaked\\x1b[0m", flush=True)

def objective(trial):
    with log.one_time_work(logger, "computing features") as tell:
        wait_for("compute")
    wait_for("train")
    return 1.0
"""


@pytest.mark.parametrize("verbose", [False, True])
def test_a_worker_says_what_it_does_and_how_far_it_is(
    verbose: bool, write_study: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_study(TELLING)
    if verbose:
        caplog.set_level(logging.DEBUG, logger="tuner")
    address = f"sqlite:///{path.parent}/tuner.db"
    database = open_database(address)
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    engine = LocalEngine(path, address, this_process(), workers=1, variables={})
    said: list[str] = []

    def does(words: str) -> WorkerState:
        def look() -> bool:
            said.extend(e.text for e in engine.poll(0.05) if isinstance(e, LogLine))
            return [worker.doing for worker in engine.workers] == [words]

        wait_until(look)
        (worker,) = engine.workers
        return worker

    def let(name: str) -> None:
        (path.parent / name).touch()

    try:
        engine.start()
        assert does(f"loading {path}").done is None
        let("load")
        does("preparing")
        engine.assign(
            Assignment(
                study_id, "study", 2, 1, "uid", str(path.parent), "random", "none", 9, None, 0
            )
        )
        does("baking the base")
        wait_until(lambda: not engine.poll(0.05) and engine.workers[0].done == 0.25)
        let("bake")
        does("computing features")
        assert not engine.workers[0].at_trial
        let("compute")
        assert does("trial 0").at_trial
        let("train")
        while engine.alive:
            said.extend(e.text for e in engine.poll(0.05) if isinstance(e, LogLine))
    finally:
        engine.kill()
        database.close()
    assert ("worker 1 wrote: \x1b[1mbaked\x1b[0m" in said) == verbose
    assert not any("baking" in line for line in said)


def test_diverged_trials_are_counted(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    study = optuna.load_study(study_name="study", storage=database.storage)
    for outcome in ("diverged", "pruned", "diverged"):
        trial = study.ask()
        trial.set_user_attr("outcome", outcome)
        study.tell(trial, state=TrialState.PRUNED)
    assert count_outcomes(database, study_id) == {"diverged": 2, "pruned": 1}
    database.close()


def test_a_study_without_complete_trials_has_no_best(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    assert find_best(database, study_id) is None
    assert ProgressReader(database, study_id).read().counts == {}
    database.close()
