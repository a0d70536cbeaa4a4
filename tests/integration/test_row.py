"""What a worker may write into its trial, and when it must let go."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tuner import interrupt
from tuner.storage import (
    Claim,
    Claims,
    Database,
    HeldRow,
    NoTrial,
    Owner,
    RequestState,
    change_request,
    close_reached,
    open_request,
    read_requests,
    register,
    this_process,
)
from tuner.study import Snapshot
from tuner.trial import ClaimedTrial

SNAPSHOT = Snapshot(None, "value", "minimize", None, "study.py", "hash")
SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "kind": CategoricalDistribution(("a", "b", None)),
    "depth": IntDistribution(0, 4),
}


@pytest.fixture
def study_id(database: Database) -> int:
    found = register(database, "study", SNAPSHOT, seed=1, search={}).study_id
    open_request(database, found, target=5, most_failed=0, trial_timeout=None)
    return found


@pytest.fixture
def claims(database: Database, study_id: int) -> Claims:
    return Claims(database, study_id)


@pytest.fixture
def worker() -> Owner:
    return this_process().worker(1)


def take(claims: Claims, who: Owner) -> Claim | NoTrial:
    return claims.claim(who, lambda number: number, target=5, most_failed=0)


def trial_of(database: Database, claim: Claim | NoTrial, who: Owner) -> ClaimedTrial:
    assert isinstance(claim, Claim)
    study = optuna.load_study(study_name="study", storage=database.storage)
    study.get_trials(deepcopy=False)
    return ClaimedTrial(study, claim.trial_id, row=HeldRow(database, claim, who))


def test_what_is_sampled_and_reported_is_stored(
    database: Database, claims: Claims, worker: Owner
) -> None:
    claim = take(claims, worker)
    trial = trial_of(database, claim, worker)
    trial.sample(SPACE)
    trial.suggest_float("more", 0, 1)  # as define-by-run objectives do
    for step, value in ((1, 0.5), (2, float("nan")), (3, float("inf")), (4, -0.25)):
        trial.report(value, step)
    assert isinstance(claim, Claim)
    stored = database.backend.get_trial(claim.trial_id)
    assert stored.params == trial.params
    assert list(stored.params) == ["rate", "kind", "depth", "more"]
    assert stored.distributions == {**SPACE, "more": FloatDistribution(0, 1)}
    assert repr(stored.intermediate_values) == repr(
        {1: 0.5, 2: float("nan"), 3: float("inf"), 4: -0.25}
    )


def test_a_trial_that_goes_on_samples_only_what_is_missing(
    database: Database, claims: Claims, worker: Owner
) -> None:
    first = trial_of(database, take(claims, worker), worker)
    first.sample({"rate": SPACE["rate"]})
    claims.hand_back(worker)
    other = this_process().worker(2)
    again = trial_of(database, take(claims, other), other)
    again.sample(SPACE)
    assert again.params["rate"] == first.params["rate"]
    assert set(again.params) == set(SPACE)


def test_who_lost_a_trial_writes_nothing(database: Database, claims: Claims, worker: Owner) -> None:
    claim = take(claims, worker)
    lost = trial_of(database, claim, worker)
    lost.report(0.5, 1)
    claims.hand_back(worker, death="its supervisor died")
    other = this_process().worker(2)
    taken = trial_of(database, take(claims, other), other)
    with pytest.raises(interrupt.HandBack):
        lost.sample(SPACE)
    with pytest.raises(interrupt.HandBack):
        lost.report(0.4, 2)
    taken.sample(SPACE)
    taken.report(0.5, 1)
    taken.report(0.3, 2)
    assert isinstance(claim, Claim)
    stored = database.backend.get_trial(claim.trial_id)
    assert stored.params == taken.params
    assert stored.intermediate_values == {1: 0.5, 2: 0.3}


def test_writing_twice_does_no_harm(database: Database, claims: Claims, worker: Owner) -> None:
    claim = take(claims, worker)
    assert isinstance(claim, Claim)
    row = HeldRow(database, claim, worker)
    distribution = SPACE["rate"]
    for _ in range(2):  # as after an answer that was lost
        assert row.store_value(1, 0.5)
        assert row.store_params({"rate": (0.01, distribution)})
    stored = database.backend.get_trial(claim.trial_id)
    assert (stored.params, stored.intermediate_values) == ({"rate": 0.01}, {1: 0.5})


@pytest.mark.parametrize(
    ("wish", "answer"),
    [(RequestState.PAUSED, NoTrial.PAUSED), (RequestState.STOPPED, NoTrial.STOPPED)],
)
def test_a_paused_or_stopped_study_lets_nobody_go_on(
    database: Database,
    study_id: int,
    claims: Claims,
    worker: Owner,
    wish: RequestState,
    answer: NoTrial,
) -> None:
    trial = trial_of(database, take(claims, worker), worker)
    trial.report(0.5, 1)
    before = change_request(database, study_id, wish)
    assert before is not None
    assert before.state is RequestState.OPEN
    with pytest.raises(interrupt.HandBack):
        trial.report(0.4, 2)
    claims.hand_back(worker)
    assert take(claims, worker) is answer
    assert read_requests(database) == []
    if wish is RequestState.STOPPED:  # only another run begins again
        change_request(database, study_id, RequestState.OPEN)
        assert take(claims, worker) is answer
        open_request(database, study_id, target=5, most_failed=0, trial_timeout=None)
    else:
        change_request(database, study_id, RequestState.OPEN)
    assert isinstance(take(claims, worker), Claim)


def test_a_closed_request_ends_only_the_help_of_daemons(
    database: Database, study_id: int, claims: Claims, worker: Owner
) -> None:
    trial = trial_of(database, take(claims, worker), worker)
    change_request(database, study_id, RequestState.CLOSED, reason="Ctrl-C")
    trial.report(0.5, 1)
    assert read_requests(database) == []


def test_requests_are_served_oldest_first_and_close_at_their_target(
    database: Database, study_id: int, claims: Claims, worker: Owner
) -> None:
    other = register(database, "other", SNAPSHOT, seed=2, search={"sampler": "tpe"})
    open_request(database, other.study_id, target=1, most_failed=3, trial_timeout=2.5)
    first, second = read_requests(database)
    assert [first.name, second.name] == ["study", "other"]
    assert (second.seed, second.uid, second.search) == (2, other.uid, {"sampler": "tpe"})
    assert (second.request.target, second.request.trial_timeout) == (1, 2.5)
    assert second.snapshot == SNAPSHOT
    close_reached(database, other.study_id)  # it is not
    assert len(read_requests(database)) == 2
    mine = Claims(database, other.study_id)
    claim = take(mine, worker)
    assert isinstance(claim, Claim)
    mine.finish(claim, worker, TrialState.COMPLETE, [1.0], {})
    assert [one.name for one in read_requests(database)] == ["study"]
    close_reached(database, other.study_id)
    before = change_request(database, other.study_id, RequestState.PAUSED)
    assert before is not None
    assert (before.state, before.reason) == (RequestState.CLOSED, "its target is reached")


def test_a_smaller_target_does_not_shrink_what_is_being_worked_on(
    database: Database, study_id: int
) -> None:
    open_request(database, study_id, target=3, most_failed=0, trial_timeout=None)
    assert read_requests(database)[0].request.target == 5
    change_request(database, study_id, RequestState.CLOSED, reason="Ctrl-C")
    open_request(database, study_id, target=3, most_failed=0, trial_timeout=None)
    assert read_requests(database)[0].request.target == 3
