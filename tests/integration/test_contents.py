"""A study read whole, as rows and as frames: every state and origin, all databases, few queries."""

import contextlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from tests import samples
from tuner.report.results import Results, results_of
from tuner.storage import Database, find_confirmations, find_study, open_database, read_contents


def results(database: Database, name: str = "study") -> Results:
    return results_of(read_contents(database, find_study(database, name)))


def foreign(database: Database, *directions: str, name: str = "study") -> optuna.Study:
    return optuna.create_study(
        storage=database.storage, study_name=name, directions=list(directions or ["minimize"])
    )


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    engine = database.backend.engine
    sqlalchemy.event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)


def test_frames_hold_what_optuna_holds(database: Database) -> None:
    study = foreign(database)
    study.add_trials(samples.mnist_like(40))
    for key, value in samples.OURS.items():
        study.set_user_attr(key, value)
    found = results(database)
    theirs = study.get_trials(deepcopy=False)
    assert list(found.trials.index) == [trial.number for trial in theirs]
    for trial in theirs:
        row = found.trials.loc[trial.number]
        assert found.params.loc[trial.number].dropna().to_dict() == trial.params
        steps = found.steps[found.steps["number"] == trial.number]
        assert dict(zip(steps["step"], steps["value"], strict=True)) == trial.intermediate_values
        attrs = {key: found.attrs.loc[trial.number, key] for key in trial.user_attrs}
        assert attrs == trial.user_attrs
        assert trial.value == row["value"] or (trial.value is None and math.isnan(row["value"]))
        if trial.duration is not None:
            assert row["seconds"] == pytest.approx(trial.duration.total_seconds(), abs=1.01)
    assert found.best == study.best_trial.number
    assert found.stored.seed == 1
    assert found.max_step == 20
    assert found.steps_per_epoch == 4
    assert list(found.params) == list(samples.SPACE)


def test_every_state_has_its_outcome(database: Database) -> None:
    study = foreign(database)
    space = {"x": FloatDistribution(0, 1)}
    for state, value, outcome in [
        (TrialState.COMPLETE, 0.5, None),
        (TrialState.PRUNED, 0.5, "pruned"),
        (TrialState.PRUNED, None, "diverged"),
        (TrialState.FAIL, None, "failed"),
        (TrialState.RUNNING, None, None),
        (TrialState.WAITING, None, None),
        (TrialState.COMPLETE, math.inf, None),
    ]:
        study.add_trial(
            create_trial(
                state=state, value=value, params={"x": 0.1}, distributions=space,
                user_attrs={} if outcome is None else {"outcome": outcome},
            )
        )  # fmt: skip
    found = results(database)
    assert list(found.trials["outcome"]) == [
        "complete", "pruned", "diverged", "failed", "running", "waiting", "diverged",
    ]  # fmt: skip
    assert found.best == 0
    assert found.snapshot is None


def test_special_numbers_ties_and_text(database: Database) -> None:
    study = foreign(database, "maximize")
    level = "</script>; 😀 'x' \"y\" %s"
    space = {
        "kind": CategoricalDistribution((level, None, True, 0.5)),
        "depth": IntDistribution(0, 3),
    }
    for kind, depth, steps in [
        (level, 0, {0: math.nan, 1: math.inf, 2: -math.inf, 3: 0.5}),
        (None, 1, {0: 0.5}), (True, 2, {}), (0.5, 3, {}),
    ]:  # fmt: skip
        study.add_trial(
            create_trial(
                value=0.5, params={"kind": kind, "depth": depth}, distributions=space,
                intermediate_values=steps, user_attrs={"Ключ": level},
            )
        )  # fmt: skip
    found = results(database)
    assert np.array_equal(
        found.steps["value"], [math.nan, math.inf, -math.inf, 0.5, 0.5], equal_nan=True
    )
    assert list(found.params["kind"]) == [level, None, True, 0.5]
    assert list(found.codes["kind"]) == [0, 1, 2, 3]
    assert list(found.codes["depth"]) == [0, 1, 2, 3]
    assert set(found.attrs["Ключ"]) == {level}
    assert found.best == 0  # the first of equals


def test_conditional_and_widened_parameters(database: Database) -> None:
    study = foreign(database)
    for kind, more, high in [("sgd", {"momentum": 0.9}, 1.0), ("adam", {}, 2.0)]:
        distributions = {
            "kind": CategoricalDistribution(("sgd", "adam")),
            "momentum": FloatDistribution(0.0, high),
        }
        params = {"kind": kind, **more}
        study.add_trial(
            create_trial(
                value=1.0, params=params, distributions={it: distributions[it] for it in params}
            )
        )
    study.add_trial(
        create_trial(
            value=1.0, params={"momentum": 1.5}, distributions={"momentum": FloatDistribution(0, 2)}
        )
    )
    found = results(database)
    assert list(found.codes["kind"]) == [0, 1, -1]
    assert found.params["momentum"].isna().tolist() == [False, True, False]
    assert found.distributions["momentum"] == FloatDistribution(0.0, 2.0)


def test_several_objectives_and_none_at_all(database: Database) -> None:
    study = foreign(database, "minimize", "maximize")
    study.add_trial(create_trial(values=[0.1, 5.0]))
    found = results(database)
    assert found.directions == ["minimize", "maximize"]
    assert found.values.loc[0].tolist() == [0.1, 5.0]
    assert found.best is None
    foreign(database, name="empty")
    empty = results(database, "empty")
    assert len(empty.trials) == len(empty.steps) == len(empty.params.columns) == 0
    assert empty.best is None


def test_a_confirmation_is_found_by_its_study(database: Database) -> None:
    foreign(database)
    for name in ("first", "second"):
        foreign(database, name=name).set_user_attr("tuner:confirms", "study")
    foreign(database, name="other").set_user_attr("tuner:confirms", "studY")
    ids = [find_study(database, name) for name in ("second", "first")]
    assert find_confirmations(database, "study") == ids
    assert find_confirmations(database, "first") == []


def test_the_number_of_queries_does_not_depend_on_the_number_of_trials(database: Database) -> None:
    counts = []
    study = foreign(database)
    for _ in range(2):
        study.add_trials(samples.mnist_like(10, states=False))
        study_id = find_study(database, "study")
        with counted(database) as queries:
            read_contents(database, study_id)
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 11


def test_it_is_read_at_one_moment(database: Database) -> None:
    """A trial that ends in the middle of a reading is seen whole or not at all."""
    study = foreign(database)
    study.add_trials(samples.mnist_like(5, states=False))
    engine = database.backend.engine
    written = []

    def end_one(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "trial_values" in statement and "SELECT" in statement and not written:
            written.append(statement)
            with contextlib.closing(open_database(database.address)) as other:
                twin = optuna.load_study(study_name="study", storage=other.storage)
                twin.add_trial(samples.mnist_like(1, states=False)[0])

    sqlalchemy.event.listen(engine, "before_cursor_execute", end_one)
    try:
        contents = read_contents(database, find_study(database, "study"))
    finally:
        sqlalchemy.event.remove(engine, "before_cursor_execute", end_one)
    assert written
    assert {it[0] for it in contents.trials} == set(range(5))
    for rows in (contents.values, contents.steps, contents.params, contents.attrs):
        assert {it[0] for it in rows} == set(range(5))


def test_frames_are_typed(database: Database) -> None:
    foreign(database).add_trials(samples.mnist_like(12))
    found = results(database)
    assert found.trials.dtypes[["value", "seconds", "last_step", "last_value"]].eq(float).all()
    assert isinstance(found.trials["start"].dtype, pd.DatetimeTZDtype)
    assert found.steps.dtypes.tolist() == [
        np.dtype("int64"),
        np.dtype("int64"),
        np.dtype("float64"),
    ]
