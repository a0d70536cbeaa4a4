"""The trial that an objective gets, and what a worker makes of what the objective does."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tuner import interrupt
from tuner.errors import StorageError
from tuner.outcomes import Diverged
from tuner.study import Definition, Snapshot
from tuner.trial import LONGEST_ATTR, LONGEST_KEY, ClaimedTrial
from tuner.work import LONGEST_REASON, ServedStudy, evaluate

SNAPSHOT = Snapshot(None, "value", "minimize", None, "s.py", "h")


class PruneAlways(optuna.pruners.BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    interrupt.clear()
    yield
    interrupt.clear()


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(pruner=PruneAlways())


def claimed(study: optuna.Study) -> ClaimedTrial:
    return ClaimedTrial(study, study.ask()._trial_id)


def judge(study: optuna.Study, objective: Callable[[Any], Any], **definition: Any) -> Any:
    space = definition.get("space")
    return evaluate(Definition(objective, space, lambda: None, list, SNAPSHOT), claimed(study))


@pytest.mark.filterwarnings("error")
def test_a_trial_that_goes_on_catches_up_without_reporting_or_pruning(study: optuna.Study) -> None:
    first = claimed(study)
    for step in (1, 2):
        first.report(0.1 * step, step)
    again = ClaimedTrial(study, first._trial_id)
    again.report(0.1, 1)
    assert not again.should_prune()  # behind what is stored: decided before
    again.report(0.2, 2)
    assert again.should_prune()  # the last stored step was perhaps not yet judged
    again.report(0.3, 3)
    assert again.should_prune()
    stored = study.trials[0].intermediate_values
    assert stored == {1: 0.1, 2: 0.2, 3: pytest.approx(0.3)}


def test_reporting_a_step_twice_still_warns(study: optuna.Study) -> None:
    trial = claimed(study)
    trial.report(0.1, 1)
    with pytest.warns(UserWarning, match="already reported"):
        trial.report(0.1, 1)


def test_attributes_are_readable_at_once_and_not_yet_stored(study: optuna.Study) -> None:
    trial = claimed(study)
    trial.set_user_attr("a", 1)
    assert trial.user_attrs == {"a": 1}
    assert trial.unwritten_attrs == {"a": 1}
    assert study.trials[0].user_attrs == {}


def test_constraints_are_written_with_the_end_and_the_first_of_a_name_stays(
    study: optuna.Study,
) -> None:
    trial = claimed(study)
    trial.set_constraint("size", 3)
    trial.set_constraint("size", -1)
    trial.set_constraint("time", np.float32(-2.0))
    assert trial.constraints == {"size": 3.0, "time": -2.0}
    assert trial.unwritten_constraints == {"constraints:size": 3.0, "constraints:time": -2.0}
    assert study.trials[0].constraints == {}
    with pytest.raises(TypeError, match="supposed to be a float"):
        trial.set_constraint("size", "large")
    with pytest.raises(ValueError, match="NaN is not allowed"):
        trial.set_constraint("size", math.nan)
    with pytest.raises(ValueError, match="has 401 characters, more than 400; shorten it"):
        trial.set_constraint("s" * (LONGEST_KEY + 1), 1.0)
    stored = optuna.create_study()
    asked = stored.ask()
    asked.set_constraint("size", 1.0)  # by another program
    again = ClaimedTrial(stored, asked._trial_id)
    again.set_constraint("size", -1.0)
    assert (again.constraints, again.unwritten_constraints) == ({"size": 1.0}, {})


@pytest.mark.parametrize(("broken", "outcome"), [(0.0, "completed"), (1e-9, "infeasible")])
def test_a_trial_that_breaks_a_constraint_is_told_apart(
    study: optuna.Study, broken: float, outcome: str
) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("size", broken)
        return 1.0

    def left(trial: optuna.Trial) -> float:
        trial.set_constraint("size", broken)
        raise optuna.TrialPruned

    assert judge(study, objective).outcome == outcome
    ending = judge(study, left)
    assert ending.state == TrialState.PRUNED
    assert ending.outcome == ("pruned" if broken == 0 else "infeasible")


def test_with_several_objectives_nothing_is_reported_or_pruned() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"], pruner=PruneAlways())
    trial = claimed(study)
    trial.report(0.5, 1)
    assert not trial.should_prune()
    assert study.trials[0].intermediate_values == {}
    interrupt.request()
    with pytest.raises(interrupt.HandBack):
        trial.report(0.5, 2)


def test_a_request_to_stop_leaves_the_objective_even_past_broad_excepts(
    study: optuna.Study,
) -> None:
    def objective(trial: optuna.Trial) -> float:
        interrupt.request()
        try:
            trial.report(1.0, 1)
        except Exception:  # noqa: BLE001 - what users write
            return 1.0
        return 2.0

    with pytest.raises(interrupt.HandBack):
        judge(study, objective)
    assert study.trials[0].intermediate_values == {}


@pytest.mark.parametrize("value", [1, 0.5, np.float32(0.5), np.array(0.5), True, math.inf])
def test_numbers_complete(study: optuna.Study, value: Any) -> None:
    ending = judge(study, lambda _: value)
    assert (ending.state, ending.values, ending.outcome) == (
        TrialState.COMPLETE,
        [float(value)],
        "completed",
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the objective returned None; it must return a number"),
        ("0.5", "the objective returned '0.5'; it must return a number"),
        ([0.1, 0.2], r"the objective returned [0.1, 0.2]; it must return a number"),
        (math.nan, "the objective returned nan"),
    ],
)
def test_other_values_fail_with_a_reason(study: optuna.Study, value: Any, reason: str) -> None:
    ending = judge(study, lambda _: value)
    assert (ending.state, ending.values, ending.reason) == (TrialState.FAIL, None, reason)


def raiser(error: BaseException) -> Callable[[Any], float]:
    def objective(trial: optuna.Trial) -> float:
        trial.report(0.75, 2)
        raise error

    return objective


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


def test_exceptions_are_endings(study: optuna.Study) -> None:
    pruned = judge(study, raiser(optuna.TrialPruned()))
    assert (pruned.state, pruned.values, pruned.outcome) == (TrialState.PRUNED, [0.75], "pruned")
    diverged = judge(study, raiser(Diverged("the loss is nan")))
    assert (diverged.state, diverged.values, diverged.outcome, diverged.reason) == (
        TrialState.PRUNED,
        [0.75],
        "diverged",
        "the loss is nan",
    )
    failed = judge(study, raiser(ValueError("two\nlines")))
    assert (failed.state, failed.outcome, failed.reason) == (
        TrialState.FAIL,
        "failed",
        "ValueError: two lines",
    )
    assert judge(study, raiser(SystemExit(1))).reason == "SystemExit: 1"
    for error in (MemoryError(), ResourceExhaustedError()):
        with pytest.raises(MemoryError):
            judge(study, raiser(error))


def test_a_long_message_is_cut(study: optuna.Study) -> None:
    reason = judge(study, raiser(ValueError("x" * 10_000))).reason
    assert len(reason) == LONGEST_REASON
    assert reason.endswith("...")


def test_attributes_that_no_database_takes_fail_in_the_objective(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial, value: Any) -> float:
        trial.set_user_attr("accuracy", value)
        return 1.0

    ending = judge(study, lambda trial: objective(trial, np.float32(0.5)))
    assert ending.reason.startswith("TypeError")
    ending = judge(study, lambda trial: objective(trial, "x" * LONGEST_ATTR))
    assert "'accuracy' has 60,002 characters" in ending.reason
    kept: list[int] = [1]
    trial = claimed(study)
    trial.set_user_attr("list", kept)
    kept.append(2)
    assert trial.user_attrs == {"list": [1]}


def test_stopping_the_study_is_ignored_aloud(
    study: optuna.Study, caplog: pytest.LogCaptureFixture
) -> None:
    served = ServedStudy(study.study_name, study._storage)
    served.stop()  # Optuna's grid sampler, after a trial
    assert caplog.records == []
    with interrupt.objective():
        served.stop()
    assert "is ignored" in caplog.text


@pytest.mark.parametrize("kind", [optuna.exceptions.StorageInternalError, StorageError])
def test_a_lost_database_is_not_the_objectives_fault(
    study: optuna.Study, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        judge(study, raiser(kind("gone")))


def test_the_declared_space_is_sampled_before_the_objective(study: optuna.Study) -> None:
    space = {"x": FloatDistribution(0, 1)}
    ending = judge(study, lambda trial: trial.params["x"], space=space)
    assert 0 <= ending.values[0] <= 1
    assert study.trials[0].params == {"x": ending.values[0]}
