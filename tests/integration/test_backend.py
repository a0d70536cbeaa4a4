"""Trials read as rows are what Optuna itself reads, on all databases."""

import copy
import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from tests import samples
from tuner.storage import Database, backend


def filled(database: Database) -> list[int]:
    """Three studies: with trials of every state, with two objectives, with nothing; their ids."""
    first = optuna.create_study(storage=database.storage, study_name="first")
    two = optuna.create_study(
        storage=database.storage, study_name="two", directions=["minimize", "maximize"]
    )
    first.add_trials(samples.mnist_like(8))
    two.tell(two.ask(), (math.inf, -math.inf))
    two.tell(two.ask({"x": FloatDistribution(0, 1)}), (0.25, 3.0))
    for step, value in enumerate((0.1, math.nan, math.inf, -math.inf), start=1):
        trial = first.ask(
            {
                "kind": CategoricalDistribution((None, True, 2, "three")),
                "layers": IntDistribution(1, 9, log=True),
                "rate": FloatDistribution(1e-5, 1.0, log=True),
            }
        )
        trial.report(0.5, 0)
        trial.report(value, step)
        trial.set_user_attr("zeta", {"step": step})
        trial.set_user_attr("alpha", ["a", None])
        trial.set_constraint("size", step - 2.0)
        if step < 3:
            first.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[step - 1])
    first.tell(first.ask({"widths": CategoricalDistribution([[64, 64], [128]])}), math.inf)
    first.enqueue_trial({"rate": 0.5}, user_attrs={"why": "asked for"})
    empty = optuna.create_study(storage=database.storage, study_name="empty")
    return [study._study_id for study in (first, two, empty)]


def all_of(trial: FrozenTrial) -> dict[str, Any]:
    """What a trial holds: parameters in their order, and NaN equal to itself."""
    return {
        **vars(trial),
        "_params": list(trial.params.items()),
        "_distributions": list(trial.distributions.items()),
        "intermediate_values": repr(sorted(trial.intermediate_values.items())),
    }


def both(database: Database, *asked: Any) -> tuple[list[Any], list[Any]]:
    """Ours and Optuna's."""
    found = database.backend._get_trials(*asked), RDBStorage._get_trials(database.backend, *asked)
    ours, theirs = ([all_of(trial) for trial in trials] for trials in found)
    return ours, theirs


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_each_trial_is_the_one_that_optuna_reads(database: Database) -> None:
    for study_id, count in zip(filled(database), (15, 2, 0), strict=True):
        ours, theirs = both(database, study_id, None, set(), -1)
        assert len(ours) == count
        assert ours == theirs
        if count == 15:
            assert {it["state"] for it in ours} == set(TrialState)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_states_unfinished_ones_and_later_ones_are_picked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id, *_ = filled(database)
    ids = [trial._trial_id for trial in database.backend._get_trials(study_id, None, set(), -1)]
    monkeypatch.setattr(backend, "IDS_A_QUERY", 3)
    for states in (None, (TrialState.COMPLETE,), (TrialState.WAITING, TrialState.RUNNING)):
        for included in (set(), {ids[2]}, set(ids[:8]), {ids[-1]}):
            for greater in (-1, ids[0], ids[8], ids[-1]):
                ours, theirs = both(database, study_id, states, included, greater)
                assert ours == theirs
    assert len(both(database, study_id, None, set(ids[:8]), ids[8])[0]) == 8 + 6


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_a_study_that_is_gone_is_an_error(database: Database) -> None:
    study_id, *_ = filled(database)
    first, *_ = database.backend._get_trials(study_id, None, set(), -1)
    database.storage.delete_study(study_id)
    with pytest.raises(KeyError):
        database.backend._get_trials(study_id, None, {first._trial_id}, first._trial_id)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_what_is_done_to_a_trial_is_done_to_no_other(database: Database) -> None:
    study_id, *_ = filled(database)
    trials, again = (database.backend._get_trials(study_id, None, set(), -1) for _ in range(2))
    before = copy.deepcopy([all_of(trial) for trial in again])
    for trial in trials:
        for value in (*trial.params.values(), *trial.user_attrs.values()):
            if isinstance(value, list | dict):
                value.clear()
        for held in (trial.params, trial.user_attrs, trial.system_attrs, trial.distributions):
            held.clear()
        trial.intermediate_values.clear()
    assert [all_of(trial) for trial in again] == before
    later = database.backend._get_trials(study_id, None, set(), -1)
    assert [all_of(trial) for trial in later] == before
