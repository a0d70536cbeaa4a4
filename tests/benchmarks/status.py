"""How long `tuner status` takes on 10,000 finished trials: its queries, and the whole command.

    python -m tests.benchmarks.status

The trials have 7 steps and 10 attributes each and ended just now; once they are one study, once
they are spread over 20. Eight more are running. Medians of seven; the queries run in one process on
an open database, and the command in a fresh process each time. PostgreSQL is the one that the tests
use; it is skipped if it is absent.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import optuna
import sqlalchemy
from optuna.storages._rdb import models
from optuna.trial import TrialState
from rich.console import Console

from tests.benchmarks.service import STEPS, fill, fresh_database
from tests.conftest import admin
from tuner.seeds import trial_seed
from tuner.storage import (
    Claim,
    Claims,
    Database,
    find_study,
    open_database,
    read_overviews,
    this_process,
)
from tuner.storage.tables import utc_now

REPETITIONS = 7
TRIALS = 10_000
RUNNING = 8


def build(url: str, studies: int) -> Database:
    """A database with so many studies, and the running trials in the first of them."""
    for number in range(studies):
        fill(url, f"study{number}", TRIALS // studies)
    database = open_database(url)
    trial = models.TrialModel
    with database.backend.engine.begin() as connection:
        ended = sqlalchemy.update(trial).where(trial.state == TrialState.COMPLETE)
        connection.execute(
            ended.values(_datetime_start_utc=utc_now(), _datetime_complete_utc=utc_now())
        )
    claims, me = Claims(database, find_study(database, "study0")), this_process()
    for number in range(RUNNING):
        claim = claims.claim(
            me.worker(number), lambda which: trial_seed(1, which), target=10**6, most_failed=0
        )
        assert isinstance(claim, Claim)
        for step in STEPS:
            database.backend.set_trial_intermediate_value(claim.trial_id, step, 0.5)
    return database


def median_seconds(action: Callable[[], object]) -> float:
    """The median of some calls, after one that does not count."""
    action()
    times = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure(kind: str, studies: int) -> str:
    """One row of the result."""
    with fresh_database(kind) as url:
        database = build(url, studies)
        study_id = find_study(database, "study0")
        every = median_seconds(lambda: read_overviews(database))
        one = median_seconds(lambda: read_overviews(database, study_id))
        database.close()
        words = [sys.executable, "-m", "tuner.status", "--storage", url]
        whole = median_seconds(lambda: subprocess.run(words, check=True, capture_output=True))
    return f"| {kind} | {studies} | {every:.3f} | {one:.3f} | {whole:.2f} |"


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console(width=120)
    console.print("| database | studies | queries of all, s | of one, s | the whole command, s |")
    console.print("|---|---|---|---|---|")
    for kind in ("sqlite", "postgresql"):
        if kind != "sqlite":
            try:
                admin(kind).connect().close()
            except sqlalchemy.exc.SQLAlchemyError as error:
                console.print(f"{kind} is absent: {error}", markup=False)
                continue
        for studies in (1, 20):
            console.print(measure(kind, studies))


if __name__ == "__main__":
    main()
