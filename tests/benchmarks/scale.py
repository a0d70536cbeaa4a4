"""How far one database goes: many workers whose trials only wait, by ours and by bare Optuna.

    python -m tests.benchmarks.scale [--workers 1 4 16 64] [--finished 0 10000]

*bare* is ``study.optimize`` on the database, *proxy* the same through Optuna's gRPC proxy, one
process that alone talks to the database. On a PostgreSQL server of its own, as initdb makes it but
for the connections that it lets in, 300. A trial takes 2 s, all of it sleep: four parameters, seven
reports with a prune check each, ten attributes, sampler random, pruner asha; values get better and
better, so that the check hardly ever says yes, and it is not heeded. Workers are light processes
without TensorFlow, forked from one that has imported all they need. When each of them has ended a
trial, a clock runs for 20 s. Printed for that time, medians of three rounds that take turns:

- *efficiency*: trials that were done, of those that would have been without any cost beside 2 s;
- *beside its sleep, ms a trial*: what a trial took besides, waiting for a core included;
- *database, ms a trial*: the part of it in which a worker waited for statements and commits, or for
  answers of the proxy;
- *CPU, ms a trial*: of the workers, and of all else on the machine: the server, and the proxy;
- *connections* to the database, at most;
- *start, s*: until each worker had ended its first trial, its 2 s and all imports left out.

The server shares the machine's cores with all workers, so that this is the most careful case: on a
server of its own there is room for more. What a supervisor asks (a beat every 10 s, the progress
twice a second) is not in it.
"""

import argparse
import contextlib
import functools
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import sqlalchemy
from rich.console import Console
from rich.table import Table
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import make_url

from tests.benchmarks.service import ATTRIBUTES, SEED, SNAPSHOT, SPACE, STEPS, fill
from tests.conftest import DRIVERS, free_port
from tests.e2e.faults import own_cluster
from tuner.search import SearchContext, make_pruner, make_sampler
from tuner.storage import open_database, register, this_process
from tuner.storage.urls import resolve
from tuner.study import Definition
from tuner.work import Assignment, Worker

TRIAL_SECONDS = 2.0
WINDOW_SECONDS = 20.0
LOOK_SECONDS = 0.5
START_SECONDS = 900.0
ROUNDS = 3
MOST_CONNECTIONS = 300
OURS, BARE, PROXY = "ours", "bare", "proxy"
WAYS = (OURS, BARE, PROXY)

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__spec__.name])


def wait_and_report(trial: optuna.Trial, ready: Path) -> float:
    """The objective; a file has what `_ended` and `_waited` were when the last trial ended."""
    for name, distribution in SPACE.items():
        trial._suggest(name, distribution)
    value = -time.time()
    for step in STEPS:
        time.sleep(TRIAL_SECONDS / len(STEPS))
        trial.report(value - step / 100, step)
        trial.should_prune()  # asked, and not heeded: workers at one step overtake each other
    for number in range(ATTRIBUTES):
        trial.set_user_attr(f"attribute{number}", number / 3)
    _ended[0] += 1
    (new := ready.with_suffix(".new")).write_text(f"{_ended[0]} {_waited[0]}")
    new.replace(ready)
    return value


_waited = [0.0]
"""How long this process has waited for the database, or the proxy, in seconds."""
_ended = [0]
"""How many trials it has ended."""


def _timed(call: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and its time counts."""

    @functools.wraps(call)
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **named)
        finally:
            _waited[0] += time.perf_counter() - began

    return timed


def _time_the_database() -> None:
    """Let every call that waits for the server count."""
    for name in ("do_execute", "do_execute_no_params", "do_executemany", "do_commit",
                 "do_rollback", "do_ping"):  # fmt: skip
        setattr(PGDialect_psycopg, name, _timed(getattr(PGDialect_psycopg, name)))


def work(way: str, url: str, ready: Path) -> None:
    """Take trials until this process is killed."""
    try:
        _work(way, url, ready)
    except Exception as error:  # noqa: BLE001 - of 64 workers the first line of each is enough
        sys.exit(f"{way}: {error.__cause__ or error}".splitlines()[0])


def _work(way: str, url: str, ready: Path) -> None:
    _time_the_database()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objective = functools.partial(wait_and_report, ready=ready)
    if way != OURS:
        optuna.load_study(
            study_name=way,
            storage=_proxy_at(int(url)) if way == PROXY else _plain(url),
            sampler=make_sampler("random", SearchContext(SEED, 0, SPACE)),
            pruner=make_pruner("asha", SNAPSHOT),
        ).optimize(objective)
    database = open_database(url)
    record = register(database, way, SNAPSHOT, seed=SEED, search={})
    assignment = Assignment(
        study_id=record.study_id, study_name=way, target=10**6, seed=SEED, uid=record.uid,
        artifacts=tempfile.gettempdir(), sampler="random", pruner="asha", most_failed=0,
        trial_timeout=None, worker=1,
    )  # fmt: skip
    definition = Definition(objective, SPACE, lambda: None, list, SNAPSHOT)
    for _ in Worker(definition, assignment, database, this_process()).work():
        pass


def _plain(url: str) -> str:
    return resolve(url).render_as_string(hide_password=False)


def _proxy_at(port: int) -> optuna.storages.GrpcStorageProxy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        storage = optuna.storages.GrpcStorageProxy(host="127.0.0.1", port=port)
    for name, call in vars(storage._stub).items():
        setattr(storage._stub, name, _timed(call))
    return storage


def serve(url: str, port: int) -> None:
    """Be the proxy until this process is killed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental
        storage = optuna.storages.get_storage(_plain(url))
        optuna.storages.run_grpc_proxy_server(storage, host="127.0.0.1", port=port)


class WorkerEndedError(Exception):
    """A worker could not go on: the server refuses more connections, for example."""


@dataclass(frozen=True)
class Measured:
    """One round; see the module's text."""

    efficiency: float
    beside_ms: float
    database_ms: float
    workers_cpu_ms: float
    server_cpu_ms: float
    connections: int
    start_seconds: float


def measure(way: str, url: str, workers: int, engine: sqlalchemy.Engine) -> Measured:
    """Let so many workers take trials of one study for a while."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _address(way, url) as address,
        _processes(way, address, workers, folder) as (processes, started),
    ):
        while len(_told(folder)) < workers:
            _check(processes)
            assert time.perf_counter() - started < START_SECONDS, "the workers did not start"
            time.sleep(LOOK_SECONDS)
        start = time.perf_counter() - started - TRIAL_SECONDS
        first, clients, machine = _done(engine, way), _cpu(processes), _machine_cpu()
        trials, waited = _ended_in(folder)
        began, connections = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < WINDOW_SECONDS:
            connections = max(connections, _connections(engine))
            time.sleep(min(LOOK_SECONDS, WINDOW_SECONDS - passed))
        passed = time.perf_counter() - began
        done = _done(engine, way) - first
        all_trials, all_waited = _ended_in(folder)
        _check(processes)
        clients, machine = _cpu(processes) - clients, _machine_cpu() - machine
    return Measured(
        efficiency=done * TRIAL_SECONDS / (workers * passed),
        beside_ms=1000 * (workers * passed / done - TRIAL_SECONDS),
        database_ms=1000 * (all_waited - waited) / (all_trials - trials),
        workers_cpu_ms=1000 * clients / done,
        server_cpu_ms=1000 * (machine - clients) / done,
        connections=connections,
        start_seconds=start,
    )


@contextlib.contextmanager
def _address(way: str, url: str) -> Iterator[str]:
    """What the workers are told: the database's URL, or the port of a proxy that serves it."""
    if way != PROXY:
        yield url
        return
    port = free_port()
    with _forked(serve, url, port), contextlib.closing(_proxy_at(port)) as proxy:
        proxy.wait_server_ready(timeout=60)
        yield str(port)


@contextlib.contextmanager
def _processes(
    way: str, address: str, workers: int, folder: str
) -> Iterator[tuple[list[psutil.Process], float]]:
    """The workers, and when they began, by time.perf_counter."""
    with contextlib.ExitStack() as stack:
        began = time.perf_counter()
        processes = [
            stack.enter_context(_forked(work, way, address, Path(folder, str(number))))
            for number in range(workers)
        ]
        yield processes, began


@contextlib.contextmanager
def _forked(target: Callable[..., None], *arguments: Any) -> Iterator[psutil.Process]:
    """A process that is killed at the end of the block."""
    fork = _FORKS.Process(target=target, args=arguments, daemon=True)
    fork.start()
    try:
        yield psutil.Process(fork.pid)
    finally:
        fork.kill()
        fork.join()


def _ended_in(folder: str) -> tuple[float, float]:
    """Trials that all workers have ended, and for how long they had waited by then, in seconds."""
    told = np.array([file.read_text().split() for file in _told(folder)], float)
    trials, waited = told.sum(axis=0)
    return float(trials), float(waited)


def _told(folder: str) -> list[Path]:
    """The files of the workers that have ended a trial."""
    return [file for file in Path(folder).iterdir() if not file.suffix]


def _check(processes: list[psutil.Process]) -> None:
    if not all(process.is_running() for process in processes):
        raise WorkerEndedError


def _cpu(processes: list[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return float(sum(it.user + it.system for it in times))


def _machine_cpu() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _count(engine: sqlalchemy.Engine, query: str, **values: Any) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sqlalchemy.text(query), values) or 0)


# What a trial has in the database, beside its row in `trials`.
_TABLES = ("tuner_claims", "trial_params", "trial_values", "trial_intermediate_values",
           "trial_user_attributes", "trial_system_attributes")  # fmt: skip


def _done(engine: sqlalchemy.Engine, way: str) -> float:
    """Trials that were worked through, as far as their reports say: parts of one count, too."""
    reports = _count(
        engine,
        "SELECT count(*) FROM trial_intermediate_values JOIN trials USING (trial_id) "
        "JOIN studies USING (study_id) WHERE study_name = :way",
        way=way,
    )
    return reports / len(STEPS)


def _connections(engine: sqlalchemy.Engine) -> int:
    """Beside our own."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    return _count(engine, query) - 1


def sampler_ms(url: str, name: str, sampler: str) -> float:
    """CPU of one draw of all parameters by a worker that has seen the study, in milliseconds."""
    database = open_database(url)
    study = optuna.load_study(study_name=name, storage=database.storage)
    trials = study.get_trials(deepcopy=False)
    copy = optuna.create_study(direction="minimize")
    copy.add_trials(trials)
    times = []
    for number in range(7):
        copy.sampler = make_sampler(sampler, SearchContext(SEED, number, SPACE))
        began = time.process_time()
        copy.ask(SPACE)
        times.append(time.process_time() - began)
    database.close()
    return 1000 * statistics.median(times)


def rows(finished: int, workers: list[int], console: Console) -> Iterator[list[str]]:
    """One line a way and number of workers."""
    with own_cluster(MOST_CONNECTIONS) as server:
        url = server.new_database()
        for way in WAYS:
            fill(url, way, finished)
        for sampler in ("random", "tpe") if finished else ():
            ms = sampler_ms(url, "ours", sampler)
            console.print(f"{sampler} at {finished:,} finished trials: {ms:.0f} ms of CPU a draw")
        engine = sqlalchemy.create_engine(make_url(url).set(drivername=DRIVERS["postgresql"]))
        for number in workers:
            found: dict[str, list[Measured]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way in list(found):
                    try:
                        found[way].append(measure(way, url, number, engine))
                    except WorkerEndedError:
                        del found[way]
                    _forget(engine, finished)
            for way in WAYS:
                cells = _cells(found[way]) if way in found else ["workers ended"]
                yield [f"{finished:,}", str(number), way, *cells]
        engine.dispose()


def _forget(engine: sqlalchemy.Engine, finished: int) -> None:
    """Remove the trials of a round, so that the next one finds as many as this one did."""
    new = "(SELECT trial_id FROM trials WHERE number >= :finished)"
    with engine.begin() as connection:
        for table in (*_TABLES, "trials"):
            query = f"DELETE FROM {table} WHERE trial_id IN {new}"
            connection.execute(sqlalchemy.text(query), {"finished": finished})


def _cells(found: list[Measured]) -> list[str]:
    def median(name: str) -> float:
        return statistics.median(getattr(one, name) for one in found)

    return [
        f"{median('efficiency'):.0%}", f"{median('beside_ms'):.0f}", f"{median('database_ms'):.0f}",
        f"{median('workers_cpu_ms'):.0f}", f"{median('server_cpu_ms'):.0f}",
        f"{median('connections'):.0f}", f"{median('start_seconds'):.1f}",
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--finished", type=int, nargs="+", default=[0, 10_000])
    chosen = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ["PYTHONWARNINGS"] = "ignore"  # in the workers
    warm = _FORKS.Process(target=int)  # what they are forked from starts now
    warm.start()
    warm.join()
    console = Console(width=150)
    table = Table(title=f"Trials of {TRIAL_SECONDS:g} s, {psutil.cpu_count()} cores in all")
    for column in ("finished", "workers", "way", "efficiency", "beside its sleep, ms",
                   "database, ms", "workers' CPU, ms", "server's CPU, ms", "connections",
                   "start, s"):  # fmt: skip
        table.add_column(column, justify="right")
    for finished in chosen.finished:
        for row in rows(finished, chosen.workers, console):
            table.add_row(*row)
            console.print("  ".join(row))
    console.print(table)


if __name__ == "__main__":
    main()
