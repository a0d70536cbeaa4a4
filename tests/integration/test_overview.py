"""What a database holds, in a handful of queries: every state, every origin, all databases."""

import io
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import TrialState, create_trial
from rich.console import Console

from tests.integration.test_claims import elsewhere
from tuner.columns import STUDY_COLUMNS, WORKER_COLUMNS, as_json, as_tables
from tuner.errors import UsageError
from tuner.storage import (
    ANOTHER_PROGRAM,
    REACHED,
    BestTrial,
    Claim,
    Claims,
    Database,
    ProgressReader,
    RequestState,
    StudyOverview,
    change_request,
    close_reached,
    count_outcomes,
    find_best,
    find_study,
    open_database,
    open_request,
    read_complete_values,
    read_contents,
    read_overviews,
    register,
    this_process,
)
from tuner.storage import overview as overview_module
from tuner.storage.tables import claims as claims_table
from tuner.storage.tables import utc_now
from tuner.study import Snapshot

INF = math.inf
HOLDER = elsewhere()  # of every claim here


def make(database: Database, name: str = "study", direction: str = "minimize") -> int:
    snapshot = Snapshot(None, "loss", direction, None, "studies/study.py", "hash")
    return register(database, name, snapshot, seed=1, search={}).study_id


def foreign(database: Database, name: str, *directions: str) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=database.storage, directions=directions or None
    )


def overview(database: Database, name: str = "study") -> StudyOverview:
    (found,) = read_overviews(database, find_study(database, name))
    return found


def take(database: Database, study_id: int) -> Claim:
    got = Claims(database, study_id).claim(HOLDER, lambda _: 7, target=99, most_failed=9)
    assert isinstance(got, Claim)
    return got


def now_of(database: Database) -> datetime:
    with database.backend.engine.connect() as connection:
        return connection.execute(sqlalchemy.select(utc_now())).scalar_one()


def set_times(
    database: Database, number: int, started: datetime, ended: datetime | None = None
) -> None:
    trial = models.TrialModel
    with database.backend.engine.begin() as connection:
        connection.execute(
            sqlalchemy.update(trial)
            .where(trial.number == number)
            .values(_datetime_start_utc=started, _datetime_complete_utc=ended)
        )


def test_a_database_without_studies(database: Database) -> None:
    assert read_overviews(database) == []
    with pytest.raises(UsageError, match="holds no study yet"):
        find_study(database, "mnist")


def test_an_empty_study_of_ours_and_one_of_another_program(database: Database) -> None:
    make(database)
    foreign(database, "theirs", "maximize")
    ours, theirs = read_overviews(database)
    assert ours == StudyOverview(
        name="study", directions=["minimize"], metric="loss", file="studies/study.py",
        counts={}, request=None, best=None, trials_per_hour=None, running=[],
    )  # fmt: skip
    assert (theirs.name, theirs.directions) == ("theirs", ["maximize"])
    assert (theirs.metric, theirs.file, theirs.request) == ("value", "", None)


def test_the_name_must_be_exact(database: Database) -> None:
    make(database, "mnist")
    make(database, "paraboloid")
    assert overview(database, "paraboloid").name == "paraboloid"
    with pytest.raises(UsageError, match="did you mean 'mnist'"):
        find_study(database, "mnsit")
    with pytest.raises(UsageError, match="choose one of: mnist, paraboloid"):
        find_study(database, "MNIST")


def test_every_state_is_counted_and_only_complete_trials_can_be_best(database: Database) -> None:
    study_id = make(database)
    study = optuna.load_study(study_name="study", storage=database.storage)
    for value in (0.5, INF, 0.25, 0.25, -0.0):
        study.add_trial(create_trial(value=value))
    study.add_trial(create_trial(value=-9.0, state=TrialState.PRUNED))
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={1: math.nan}))
    study.add_trial(create_trial(state=TrialState.FAIL))
    take(database, study_id)
    Claims(database, study_id).hand_back(HOLDER)
    study.enqueue_trial({})
    claim = take(database, study_id)
    found = overview(database)
    assert found.counts == {
        TrialState.COMPLETE: 5, TrialState.PRUNED: 2, TrialState.FAIL: 1,
        TrialState.WAITING: 1, TrialState.RUNNING: 1,
    }  # fmt: skip
    assert found.ended == 7
    assert found.best == BestTrial(4, 0.0)
    assert [worker.number for worker in found.running] == [claim.number]


@pytest.mark.parametrize(
    ("direction", "values", "best"),
    [
        ("minimize", [2.0, 1.0, 1.0], BestTrial(1, 1.0)),
        ("maximize", [1.0, 2.0, 2.0], BestTrial(1, 2.0)),
        ("minimize", [INF, 5.0], BestTrial(1, 5.0)),
        ("maximize", [-INF, -5.0], BestTrial(1, -5.0)),
        ("minimize", [-5.0, -INF, -INF], BestTrial(1, -INF)),
        ("maximize", [5.0, INF, INF], BestTrial(1, INF)),
        ("minimize", [INF, INF], BestTrial(0, INF)),
        ("maximize", [], None),
    ],
)
def test_the_best_is_by_direction_and_the_first_of_equals(
    database: Database, direction: str, values: list[float], best: BestTrial | None
) -> None:
    make(database, "study", direction)
    make(database, "neighbour")
    optuna.load_study(study_name="neighbour", storage=database.storage).add_trial(
        create_trial(value=-100.0 if direction == "minimize" else 100.0)
    )
    study = optuna.load_study(study_name="study", storage=database.storage)
    for value in values:
        study.add_trial(create_trial(value=value))
    assert overview(database).best == best
    if best is not None:
        assert study.best_value == best.value


def test_a_trial_that_ends_while_we_read_is_running_everywhere(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    study_id = make(database)
    claim = take(database, study_id)
    other = open_database(database_url)
    read_running = overview_module.read_running

    def end_it_first(*arguments: Any, **named: Any) -> Any:
        ends = Claims(other, study_id).finish(claim, HOLDER, TrialState.COMPLETE, [1.0], {})
        assert ends
        return read_running(*arguments, **named)

    monkeypatch.setattr(overview_module, "read_running", end_it_first)
    (found,) = read_overviews(database)
    monkeypatch.undo()
    other.close()
    assert found.counts == {TrialState.RUNNING: 1}
    assert [worker.number for worker in found.running] == [claim.number]
    assert overview(database).counts == {TrialState.COMPLETE: 1}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_best_keeps_to_every_constraint(database: Database, direction: str) -> None:
    study = foreign(database, "fits", direction)
    values = [3.0, 1.0, 2.0, 5.0, 9.0, 0.5, 7.0, 8.0]
    told: list[dict[str, float]] = [
        {"size": 0.0}, {"size": 1e-12}, {"size": -1.0}, {}, {"size": -1.0, "time": INF},
        {"time": 100.0}, {"size": -1e-9, "time": -INF}, {"time": 1.0},
    ]  # fmt: skip
    for value, constraints in zip(values, told, strict=True):
        study.add_trial(create_trial(value=value, constraints=constraints))
    found = overview(database, "fits").best
    number = 2 if direction == "minimize" else 6
    assert found == BestTrial(number, values[number])
    study_id = find_study(database, "fits")
    best = find_best(database, study_id)
    assert best is not None
    assert best.number == number == study.best_trial.number
    assert [it for it, _ in read_complete_values(database, study_id)] == [0, 2, 3, 6]
    assert read_contents(database, study_id).infeasible == {1, 4, 5, 7}


def test_constraints_of_a_samplers_function_are_heeded(database: Database) -> None:
    """They are a list, as Optuna kept them before `set_constraint`."""
    study = foreign(database, "listed", "minimize")
    for value, listed in ((1.0, [-1.0, 0.5]), (3.0, [0.0, -2.0]), (2.0, [1e-9]), (4.0, [])):
        study.add_trial(create_trial(value=value, system_attrs={"constraints": listed}))
    assert overview(database, "listed").best == BestTrial(1, 3.0)
    study_id = find_study(database, "listed")
    assert read_contents(database, study_id).infeasible == {0, 2}
    progress = ProgressReader(database, study_id).read()
    assert [it.outcome for it in progress.new] == ["infeasible", "", "infeasible", ""]
    assert count_outcomes(database, study_id)["infeasible"] == 2


def test_a_refused_run_leaves_the_names_of_objectives(database: Database) -> None:
    def named(*metrics: str) -> Snapshot:
        more = tuple((it, "minimize") for it in metrics[1:])
        return Snapshot(None, metrics[0], "minimize", None, "s.py", "h", more_objectives=more)

    register(database, "both", named("error", "size"), seed=1, search={})
    with pytest.raises(UsageError, match="metric is 'time' and 'memory' and was 'error' and 'size"):
        register(database, "both", named("time", "memory"), seed=1, search={})
    study = optuna.load_study(study_name="both", storage=database.storage)
    assert study.metric_names == ["error", "size"]
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["my error", "my size"])
    register(database, "both", named("error", "size"), seed=1, search={})
    study = optuna.load_study(study_name="both", storage=database.storage)
    assert study.metric_names == ["my error", "my size"]


def test_several_objectives_have_no_best(database: Database) -> None:
    study = foreign(database, "both", "minimize", "maximize")
    study.add_trial(create_trial(values=[1.0, 2.0]))
    found = overview(database, "both")
    assert (found.best, found.directions) == (None, ["minimize", "maximize"])
    assert found.count(TrialState.COMPLETE) == 1


def test_the_request_and_why_it_is_no_longer_open(database: Database) -> None:
    study_id = make(database)
    open_request(database, study_id, target=2, most_failed=3, trial_timeout=None)
    change_request(database, study_id, RequestState.PAUSED)
    request = overview(database).request
    assert request is not None
    assert (request.state, request.target, request.reason) == (RequestState.PAUSED, 2, "")
    study = optuna.load_study(study_name="study", storage=database.storage)
    for _ in range(2):
        study.add_trial(create_trial(value=1.0))
    close_reached(database, study_id)
    request = overview(database).request
    assert request is not None
    assert (request.state, request.reason) == (RequestState.CLOSED, REACHED)


def test_a_worker_shows_its_trial_its_age_and_its_last_report(database: Database) -> None:
    study_id = make(database)
    claim = take(database, study_id)
    now = now_of(database)
    set_times(database, claim.number, now - timedelta(seconds=100))
    with database.backend.engine.begin() as connection:
        connection.execute(
            sqlalchemy.update(claims_table).values(beat=now - timedelta(seconds=500))
        )
    (worker,) = overview(database).running
    assert (worker.host, worker.pid, worker.number) == ("other", 1, 0)
    assert (worker.step, worker.value) == (None, None)
    assert worker.started is not None
    assert worker.started.tzinfo is UTC
    assert worker.seconds is not None
    assert 99 <= worker.seconds <= 160
    assert worker.silent_seconds is not None
    assert 499 <= worker.silent_seconds <= 560
    for step, value in ((1, 0.5), (4, math.nan), (2, 0.25)):
        database.backend.set_trial_intermediate_value(claim.trial_id, step, value)
    (worker,) = overview(database).running
    assert worker.step == 4
    assert worker.value is not None
    assert math.isnan(worker.value)


def test_an_age_is_never_negative(database: Database) -> None:
    claim = take(database, make(database))
    set_times(database, claim.number, now_of(database) + timedelta(hours=2))
    assert overview(database).running[0].seconds == 0.0


def test_the_age_is_that_of_the_present_attempt(database: Database) -> None:
    study_id = make(database)
    claim = take(database, study_id)
    set_times(database, claim.number, now_of(database) - timedelta(hours=2))
    Claims(database, study_id).hand_back(HOLDER)
    assert overview(database).running == []
    assert take(database, study_id).number == claim.number
    (worker,) = overview(database).running
    assert worker.seconds is not None
    assert worker.seconds < 60


def test_a_trial_that_nobody_of_ours_holds_is_another_programs(database: Database) -> None:
    study_id = make(database)
    take(database, study_id)
    Claims(database, study_id).hand_back(HOLDER)
    study = optuna.load_study(study_name="study", storage=database.storage)
    taken, new = study.ask(), study.ask()  # the one that was handed back, and their own
    new.report(INF, 3)
    assert (taken.number, new.number) == (0, 1)
    mine = take(database, study_id)
    assert [
        (worker.host, worker.pid, worker.number, worker.silent_seconds is None, worker.value)
        for worker in overview(database).running
    ] == [
        (ANOTHER_PROGRAM, None, 0, True, None),
        (ANOTHER_PROGRAM, None, 1, True, INF),
        ("other", 1, mine.number, False, None),
    ]


def test_a_claim_of_a_deleted_trial_gives_its_host_to_no_other_study(database: Database) -> None:
    make(database, "kept")
    study_id = make(database)
    claim = take(database, study_id)
    optuna.delete_study(study_name="study", storage=database.storage)
    foreign(database, "in its place")  # SQLite gives it the deleted study's id
    theirs = foreign(database, "theirs")
    theirs.ask()  # and this the deleted trial's
    if database.backend.engine.name == "sqlite":
        assert theirs.trials[0]._trial_id == claim.trial_id
    assert [worker.host for worker in overview(database, "theirs").running] == [ANOTHER_PROGRAM]


@pytest.mark.parametrize(
    ("minutes", "per_hour"),
    [
        # (started, ended) minutes ago
        ([], None),
        ([(180, 90)], None),  # nothing ended in the last hour
        ([(30, 20), (10, 5)], 4.0),  # since the first of them was started
        ([(90, 50), (10, 5)], 2.0),  # the first was started before the last hour
        ([(180, 90), (20, 15)], 3.0),  # what ended before does not count at all
    ],
)
def test_trials_an_hour(
    database: Database, minutes: list[tuple[int, int]], per_hour: float | None
) -> None:
    make(database)
    study = optuna.load_study(study_name="study", storage=database.storage)
    study.add_trial(create_trial(state=TrialState.FAIL))  # failures are no progress
    now = now_of(database)
    for number, (started, ended) in enumerate(minutes, start=1):
        state = TrialState.COMPLETE if number % 2 else TrialState.PRUNED
        study.add_trial(create_trial(value=1.0, state=state))
        set_times(
            database, number, now - timedelta(minutes=started), now - timedelta(minutes=ended)
        )
    found = overview(database).trials_per_hour
    assert found == (None if per_hour is None else pytest.approx(per_hour, rel=0.1))


def test_clocks_that_are_ahead_give_a_finite_rate(database: Database) -> None:
    make(database)
    study = optuna.load_study(study_name="study", storage=database.storage)
    study.add_trial(create_trial(value=1.0))
    later = now_of(database) + timedelta(minutes=30)
    set_times(database, 0, later, later)
    assert overview(database).trials_per_hour == 3600.0


def test_all_studies_cost_as_many_queries_as_one(database: Database) -> None:
    def count() -> int:
        statements: list[str] = []
        engine = database.backend.engine

        def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            statements.append(statement)

        sqlalchemy.event.listen(engine, "before_cursor_execute", note)
        read_overviews(database)
        sqlalchemy.event.remove(engine, "before_cursor_execute", note)
        return len(statements)

    take(database, make(database, "first"))
    few = count()
    for name in ("second", "third"):
        take(database, make(database, name))
        study = foreign(database, f"foreign {name}")
        for _ in range(3):
            study.add_trial(create_trial(value=1.0))
        study.ask()
    assert count() == few <= 11


def test_the_tables_fit_80_columns_and_the_json_is_strict(database: Database) -> None:
    name = "[red]a study[/red] with a long name, and brackets that are not markup"
    study_id = make(database, name)
    open_request(database, study_id, target=5000, most_failed=3, trial_timeout=None)
    study = optuna.load_study(study_name=name, storage=database.storage)
    study.add_trial(create_trial(value=-INF))
    study.add_trial(create_trial(state=TrialState.FAIL))
    claim = take(database, study_id)
    database.backend.set_trial_intermediate_value(claim.trial_id, 3, math.nan)
    change_request(database, study_id, RequestState.CLOSED, reason="too many failures")
    foreign(database, "both", "minimize", "maximize").ask()
    studies = read_overviews(database)
    text = io.StringIO()
    Console(file=text, width=80).print(as_tables(studies))
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    for title in {**STUDY_COLUMNS, **WORKER_COLUMNS}:
        assert title in text.getvalue()
    for said in ("[red]a", "1/5000", "1 complete", "1 running", "1 failed", "2 objectives", "nan",
                 ANOTHER_PROGRAM):  # fmt: skip
        assert said in text.getvalue()
    first, second = json.loads(json.dumps(as_json(studies), allow_nan=False))
    assert first["study"] == name
    assert (first["state"], first["reason"]) == ("closed", "too many failures")
    assert datetime.fromisoformat(first["opened"]).tzinfo is not None
    assert first["trials"] == {"complete": 1, "pruned": 0, "failed": 1, "running": 1, "waiting": 0}
    assert first["best"] == {"value": "-inf", "trial": 0}
    assert float(first["best"]["value"]) == -INF
    (worker,) = first["workers"]
    assert (worker["step"], worker["value"], worker["trial"]) == (3, "nan", claim.number)
    assert datetime.fromisoformat(worker["started"]).utcoffset() == timedelta(0)
    assert (second["state"], second["target"], second["best"]) == ("", None, None)
    assert second["workers"][0]["host"] == ANOTHER_PROGRAM


def test_a_worker_whose_supervisor_is_silent_is_said_to_be(database: Database) -> None:
    take(database, make(database))
    with database.backend.engine.begin() as connection:
        connection.execute(
            sqlalchemy.update(claims_table).values(beat=now_of(database) - timedelta(minutes=5))
        )
    text = io.StringIO()
    Console(file=text, width=80).print(as_tables(read_overviews(database)))
    assert "silent for 5 min" in text.getvalue()
    assert this_process().host not in text.getvalue()
