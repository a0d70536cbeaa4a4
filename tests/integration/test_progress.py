"""The progress reader counts what the study holds, whatever happens in between."""

import math
import random
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from tuner.seeds import trial_seed
from tuner.storage import (
    Claim,
    Claims,
    ProgressReader,
    count_diverged,
    find_best,
    open_database,
    register,
    this_process,
)
from tuner.study import Snapshot


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
        assert sorted(number for number, _, _ in progress.running) == sorted(
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
    assert best.last_step == 3
    again = ProgressReader(database, study_id).read(describe=False)
    assert (again.counts, again.new) == (progress.counts, [])
    assert count_diverged(database, study_id) == 0
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
    assert running == [(0, 4, 0.25), (1, 2, math.inf), (2, None, None)]
    database.close()


def test_diverged_trials_are_counted(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    study = optuna.load_study(study_name="study", storage=database.storage)
    for outcome in ("diverged", "pruned", "diverged"):
        trial = study.ask()
        trial.set_user_attr("outcome", outcome)
        study.tell(trial, state=TrialState.PRUNED)
    assert count_diverged(database, study_id) == 2
    database.close()


def test_a_study_without_complete_trials_has_no_best(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/tuner.db")
    snapshot = Snapshot(None, "value", "minimize", None, "s.py", "h")
    study_id = register(database, "study", snapshot, seed=1, search={}).study_id
    assert find_best(database, study_id) is None
    assert ProgressReader(database, study_id).read().counts == {}
    database.close()
