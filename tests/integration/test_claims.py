"""The claim on real databases: exact budgets, hand-backs, owners, ages."""

import subprocess
import sys
import threading
import time
from datetime import timedelta

import optuna
import psutil
import pytest
import sqlalchemy
from optuna.trial import TrialState

from tests.conftest import wait_until
from tuner.seeds import trial_seed
from tuner.storage import (
    Claim,
    Claims,
    Database,
    GivenBack,
    NoTrial,
    owner,
    register,
)
from tuner.storage import claims as claims_module
from tuner.storage.claims import BEAT_AGE_LIMIT_SECONDS, MAX_DEATHS
from tuner.storage.database import locked_study
from tuner.storage.owner import Owner, this_process
from tuner.storage.tables import claims as claims_table
from tuner.storage.tables import utc_now
from tuner.study import Snapshot
from tuner.trial import LONGEST_ATTR
from tuner.work import LONGEST_REASON

SNAPSHOT = Snapshot(None, "value", "minimize", None, "study.py", "hash")
SEED = 7


@pytest.fixture
def study_id(database: Database) -> int:
    return register(database, "study", SNAPSHOT, seed=SEED, search={}).study_id


@pytest.fixture
def claims(database: Database, study_id: int) -> Claims:
    return Claims(database, study_id)


@pytest.fixture
def me() -> Owner:
    return this_process()


def take(claims: Claims, who: Owner, target: int = 10, most_failed: int = 99) -> Claim | NoTrial:
    return claims.claim(
        who, lambda number: trial_seed(SEED, number), target=target, most_failed=most_failed
    )


def must_take(claims: Claims, who: Owner, target: int = 10) -> Claim:
    got = take(claims, who, target)
    assert isinstance(got, Claim)
    return got


def states(database: Database, study_id: int) -> list[TrialState]:
    return [trial.state for trial in database.backend.get_all_trials(study_id)]


def test_a_claim_counts_every_row_that_is_not_failed(claims: Claims, me: Owner) -> None:
    first, second = must_take(claims, me, 3), must_take(claims, me, 3)
    claims.finish(first, me, TrialState.FAIL, None, {})
    claims.finish(second, me, TrialState.COMPLETE, [1.0], {})
    third, fourth = must_take(claims, me, 3), must_take(claims, me, 3)
    assert [third.number, fourth.number] == [2, 3]
    assert take(claims, me, 3) is NoTrial.ALL_TAKEN
    claims.finish(third, me, TrialState.PRUNED, [2.0], {})
    claims.finish(fourth, me, TrialState.COMPLETE, [3.0], {})
    assert take(claims, me, 3) is NoTrial.DONE
    assert take(claims, me, 2) is NoTrial.DONE


def test_threads_that_claim_at_once_share_exactly_the_target(
    database: Database, study_id: int, me: Owner
) -> None:
    target, taken, lock = 20, [], threading.Lock()

    def grab() -> None:
        mine = Claims(database, study_id)
        while isinstance(got := take(mine, me.worker(1), target), Claim):
            with lock:
                taken.append((got.number, got.trial_id))

    # As many connections as the pool of one process has.
    threads = [threading.Thread(target=grab) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in taken) == list(range(target))
    assert len({trial_id for _, trial_id in taken}) == target


@pytest.mark.parametrize("database_url", ["postgresql", "mysql"], indirect=True)
def test_one_studys_claims_do_not_wait_for_anothers(
    database: Database, claims: Claims, me: Owner
) -> None:
    other = register(database, "other", SNAPSHOT, seed=SEED, search={}).study_id
    done = {study_id: threading.Event() for study_id in (claims.study_id, other)}

    def claim(study_id: int) -> None:
        must_take(Claims(database, study_id), me)
        done[study_id].set()

    threads = [threading.Thread(target=claim, args=(it,)) for it in done]
    with locked_study(database, claims.study_id):  # as by a claim
        for thread in threads:
            thread.start()
        assert done[other].wait(10)
        assert not done[claims.study_id].wait(0.5)
    assert done[claims.study_id].wait(10)
    for thread in threads:
        thread.join()


def test_too_many_failures_stop_the_claims(claims: Claims, me: Owner) -> None:
    for _ in range(2):
        claims.finish(must_take(claims, me), me, TrialState.FAIL, None, {})
    assert isinstance(take(claims, me, most_failed=2), Claim)
    assert take(claims, me, most_failed=1) is NoTrial.TOO_MANY_FAILURES


def test_a_handed_back_trial_keeps_row_number_parameters_values_and_seed(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    first, second = me.worker(1), me.worker(2)
    before = must_take(claims, first)
    distribution = optuna.distributions.FloatDistribution(0, 1)
    database.backend.set_trial_param(before.trial_id, "x", 0.25, distribution)
    database.backend.set_trial_intermediate_value(before.trial_id, 1, 0.5)
    assert claims.hand_back(first) == GivenBack([0], [])
    assert states(database, study_id) == [TrialState.WAITING]
    after = must_take(claims, second)
    assert (after.trial_id, after.number, after.seed) == (before.trial_id, 0, before.seed)
    trial = database.backend.get_trial(after.trial_id)
    assert trial.params == {"x": 0.25}
    assert trial.intermediate_values == {1: 0.5}
    assert trial.user_attrs == {"seed": trial_seed(SEED, 0)}


def test_only_the_owner_may_end_a_trial_and_only_once(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    lost, finder = me.worker(1), me.worker(2)
    claim = must_take(claims, lost)
    claims.hand_back(lost, death="killed (signal 9)")
    assert not claims.finish(claim, lost, TrialState.COMPLETE, [1.0], {"mine": 1})
    again = must_take(claims, finder)
    assert not claims.finish(claim, lost, TrialState.COMPLETE, [1.0], {"mine": 1})
    assert claims.finish(again, finder, TrialState.COMPLETE, [2.0], {"mine": 2})
    assert not claims.finish(claim, lost, TrialState.COMPLETE, [1.0], {"mine": 1})
    assert not claims.finish(again, finder, TrialState.COMPLETE, [3.0], {"mine": 3})
    trial = database.backend.get_trial(claim.trial_id)
    assert (trial.value, trial.user_attrs["mine"]) == (2.0, 2)
    assert trial.datetime_complete is not None


def test_a_trial_fails_when_its_workers_die_too_often(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    for death in range(MAX_DEATHS + 1):
        worker = me.worker(death)
        assert must_take(claims, worker).number == 0
        claims.hand_back(worker)  # asked to stop: not the trial's fault
        worker = me.worker(death)
        assert must_take(claims, worker).number == 0
        given = claims.hand_back(worker, death="killed (signal 11)")
    trial = database.backend.get_all_trials(study_id)[0]
    assert given == GivenBack([], [0])
    assert given.in_words() == "trial 0 failed"
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"] == "killed (signal 11)"
    assert trial.user_attrs["outcome"] == "failed"
    assert must_take(claims, me).number == 1


def age(database: Database, seconds: float) -> None:
    """Let every claim's last beat be so long ago, by the database's own clock."""
    with database.backend.engine.begin() as connection:
        now = connection.scalar(sqlalchemy.select(utc_now()))
        assert now is not None
        connection.execute(
            sqlalchemy.update(claims_table).values(beat=now - timedelta(seconds=seconds))
        )


@pytest.fixture
def _at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims are judged at the first look."""
    monkeypatch.setattr(claims_module, "WATCH_SECONDS", 0)


def elsewhere(pid: int = 1) -> Owner:
    return Owner("b" * 32, "other+host/1/1.00", "other", pid)


@pytest.mark.usefixtures("_at_a_glance")
def test_silent_supervisors_are_reaped_by_age(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    must_take(claims, elsewhere())
    assert not claims.reap(me.supervisor)
    age(database, BEAT_AGE_LIMIT_SECONDS - 10)
    assert not claims.reap(me.supervisor)
    age(database, BEAT_AGE_LIMIT_SECONDS + 10)
    assert not claims.reap(elsewhere().supervisor)  # nobody reaps its own
    assert claims.reap(me.supervisor) == GivenBack([0], [])
    assert states(database, study_id) == [TrialState.WAITING]


def test_a_claim_is_given_away_only_by_who_has_watched_it(
    database: Database, claims: Claims, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims_module, "WATCH_SECONDS", 0.3)
    must_take(claims, elsewhere())
    age(database, BEAT_AGE_LIMIT_SECONDS + 10)
    assert not claims.reap(me.supervisor)  # the first look
    time.sleep(0.4)
    database.patience.last_trouble = time.monotonic()  # an outage: nobody could beat
    assert not claims.reap(me.supervisor)
    time.sleep(0.4)
    age(database, BEAT_AGE_LIMIT_SECONDS + 20)  # another beat, as old by a clock that jumped
    assert not claims.reap(me.supervisor)
    time.sleep(0.4)
    claims._looked -= BEAT_AGE_LIMIT_SECONDS  # the database stood still, and so did the beats
    assert not claims.reap(me.supervisor)
    time.sleep(0.4)
    assert claims.reap(me.supervisor) == GivenBack([0], [])


@pytest.mark.usefixtures("_at_a_glance")
def test_a_beat_keeps_a_claim(database: Database, claims: Claims, me: Owner) -> None:
    must_take(claims, elsewhere())
    age(database, BEAT_AGE_LIMIT_SECONDS + 10)
    claims.beat(elsewhere().supervisor)
    assert not claims.reap(me.supervisor)


def test_processes_of_this_machine_that_are_gone_are_reaped_at_once(
    claims: Claims, me: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = me.supervisor.rsplit("/", 2)[0]
    free_pid = 2**22 + 1  # above Linux's largest
    dead = Owner("c" * 32, f"{machine}/{free_pid}/1.00", "here", free_pid)
    must_take(claims, dead)
    other = this_process()
    orphan = Owner("d" * 32, f"{machine}/{free_pid}/1.00", "here", other.pid)  # its worker lives
    must_take(claims, orphan)
    assert claims.reap("somebody/else/1.0") == GivenBack([0], [])
    assert owner.is_known_dead(dead.supervisor, free_pid)
    assert not owner.is_known_dead(me.supervisor, free_pid)
    reused = f"{machine}/{me.pid}/1.00"  # our pid, but another start
    assert owner.is_known_dead(reused, free_pid)
    assert not owner.is_known_dead("other+host/1/1.00", free_pid)


def test_a_study_with_claims_can_be_deleted_by_optuna(
    database: Database, study_id: int, me: Owner
) -> None:
    must_take(Claims(database, study_id), me)
    optuna.delete_study(study_name="study", storage=database.storage)
    again = register(database, "study", SNAPSHOT, seed=SEED, search={})
    claim = must_take(Claims(database, again.study_id), me)
    assert claim.number == 0


def test_trials_that_a_user_enqueued_are_taken_first(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    study = optuna.load_study(study_name="study", storage=database.storage)
    study.enqueue_trial({"x": 0.5})
    claim = must_take(claims, me)
    assert (claim.number, claim.seed) == (0, trial_seed(SEED, 0))


def test_running_trials_without_a_claim_are_known_as_foreign(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    must_take(claims, me)
    optuna.load_study(study_name="study", storage=database.storage).ask()
    assert claims.foreign_running() == [1]


def test_a_supervisors_end_gives_back_what_all_its_workers_hold(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    must_take(claims, me.worker(1))
    must_take(claims, elsewhere())
    must_take(claims, me.worker(2))
    assert claims.hand_back_all(me.supervisor) == GivenBack([0, 2], [])
    waiting, running = TrialState.WAITING, TrialState.RUNNING
    assert states(database, study_id) == [waiting, running, waiting]


@pytest.mark.usefixtures("_at_a_glance")
def test_a_handed_back_trial_that_another_program_takes_is_left_to_it(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    must_take(claims, elsewhere())
    claims.hand_back(elsewhere())
    study = optuna.load_study(study_name="study", storage=database.storage)
    assert study.ask().number == 0
    age(database, BEAT_AGE_LIMIT_SECONDS + 10)
    assert not claims.reap(me.supervisor)
    assert not claims.hand_back_all(elsewhere().supervisor)
    assert states(database, study_id) == [TrialState.RUNNING]
    assert claims.foreign_running() == [0]


def test_a_long_reason_fits_every_database(
    database: Database, study_id: int, claims: Claims, me: Owner
) -> None:
    claim = must_take(claims, me)
    attrs = {"reason": "x" * LONGEST_REASON, "big": "y" * (LONGEST_ATTR - 2)}
    assert claims.finish(claim, me, TrialState.FAIL, None, attrs)
    assert len(database.backend.get_trial(claim.trial_id).user_attrs["big"]) == LONGEST_ATTR - 2


def test_a_zombie_is_dead(me: Owner) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
    machine = me.supervisor.rsplit("/", 2)[0]
    start = psutil.Process(child.pid).create_time()
    assert owner.is_known_dead(f"{machine}/{child.pid}/{start:.2f}", child.pid)
    child.wait()
