"""What `tuner run` does: open the database, start the engine, supervise, and sum up.

Other commands that run trials (`confirm`, `replay`, `export`) bring a study of their own to its
target in the same way.
"""

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import optuna
from rich.console import Console

from tuner import interrupt, wording
from tuner.artifacts import Artifacts, open_store
from tuner.candidates import Candidate, to_take_over
from tuner.design import Design
from tuner.display import Display, LiveDisplay, PlainDisplay
from tuner.errors import (
    Interrupted,
    NoDatabase,
    Stopped,
    StorageError,
    TimedOut,
    TooManyFailed,
    TooManyFailures,
    TunerError,
    UsageError,
)
from tuner.levels import check_compare, design_of
from tuner.loading import Loading, loaded
from tuner.scoreboard import Scoreboard
from tuner.search import pruner_for
from tuner.settings import RunSettings
from tuner.storage import (
    Claims,
    Database,
    ProgressReader,
    Request,
    RequestState,
    StudyRecord,
    address_of,
    change_request,
    close_reached,
    open_database,
    open_request,
    read_stored,
    register,
    take_over,
)
from tuner.study import Snapshot
from tuner.summary import summarise, summarise_detached
from tuner.supervise import Limits, Signals, Supervisor, Watch, follow
from tuner.work import Assignment


@dataclass(frozen=True)
class Enrolled:
    """A study that is in the database, and how its trials are run.

    Attributes:
        design: how they are dealt to arms, or None.
        how: the same in words, for the first line: the sampler, the pruner.
        metric: what a trial's value is called, where it isn't the study file's.
    """

    record: StudyRecord
    design: Design | None
    how: str
    metric: str = ""


@dataclass(frozen=True)
class Reached:
    """A study that reached its target, or was left to daemons.

    Attributes:
        board: its figures.
        shown_url: the database without its password.
    """

    board: Scoreboard
    shown_url: str


Enrol = Callable[[Database, Snapshot], Enrolled]
"""Puts a study into the database, once a worker has said what its file declares."""


def run_study(settings: RunSettings, console: Console) -> Reached:
    """Bring a study to its target, and print what came out.

    Raises:
        TunerError: anything that ends the command before that, with its exit code.
    """
    started = time.monotonic()
    reached = bring_to_target(settings, console, functools.partial(_enrol, settings))
    if settings.detach:
        summarise_detached(console, reached.board, settings, reached.shown_url)
    else:
        seconds = time.monotonic() - started
        summarise(console, reached.board, settings, reached.shown_url, seconds)
    return reached


def bring_to_target(
    settings: RunSettings, console: Console, enrol: Enrol, watch: Watch | None = None
) -> Reached:
    """Run trials of a study until it has as many as it shall have.

    Args:
        settings: of the command.
        console: for what is shown meanwhile.
        enrol: registers the study.
        watch: what else is to be said while it runs, see `tuner.supervise.Watch`.

    Raises:
        TunerError: anything that ends the command before that, with its exit code.
    """
    optuna.logging.set_verbosity(
        optuna.logging.INFO if settings.verbose else optuna.logging.WARNING
    )
    if settings.verbose:
        logging.getLogger("tuner").setLevel(logging.DEBUG)
    started = time.monotonic()
    address = address_of(settings.storage)  # the study's code may change the directory
    with contextlib.suppress(NoDatabase):  # one that cannot be used is told before all else
        open_database(address, create=False).close()
    open_store(settings.artifacts).check()
    interrupt.clear()
    with (
        Signals(inline=settings.workers == 0) as signals,
        _display(settings, console) as display,
        loaded(settings, address, signals, display, started) as loading,
        contextlib.closing(open_database(address)) as database,
    ):
        launch = _Launch(settings, database, signals, display, loading, watch)
        return Reached(launch.run(enrol), database.url)


def _display(settings: RunSettings, console: Console) -> Display:
    live = console.is_interactive and not settings.quiet and settings.workers > 0
    return LiveDisplay(console) if live else PlainDisplay(console)


def _enrol(settings: RunSettings, database: Database, snapshot: Snapshot) -> Enrolled:
    """Register the study of `tuner run`."""
    stored = read_stored(database, settings.study)
    if stored.confirms is not None:
        raise UsageError(
            f"{settings.study} is a confirmation, of {stored.confirms}, and takes no trials of a "
            f"search; go on with it by `tuner confirm --study {stored.confirms}`, or choose "
            "another --study-name."
        )
    compare = settings.compare or stored.compare
    if compare is not None:
        check_compare(compare, settings.sampler, settings.pruner, snapshot, settings.trials)
    design = design_of(compare, [], settings.sampler, snapshot)
    taken = to_take_over(settings, database, snapshot, compare)
    pruner = pruner_for(snapshot, settings.pruner)
    record = register(
        database,
        settings.study,
        snapshot,
        seed=settings.seed,
        search={**settings.search, "pruner": pruner},
        compare=compare,
    )
    if settings.from_study is not None:
        record.warnings.append(_take_over(settings, database, record, taken))
    arms = f"comparing {len(design.arms)} levels of {compare}, " if design else ""
    how = f"{arms}sampler {settings.sampler}, pruner {pruner}, seed {record.seed}"
    return Enrolled(record, design, how)


def _take_over(
    settings: RunSettings, database: Database, record: StudyRecord, chosen: list[Candidate]
) -> str:
    """Let the study begin with these configurations of another one; say which."""
    name = settings.from_study or ""
    pairs = [(it.number, it.params) for it in chosen]
    taken = take_over(database, record.study_id, name, pairs, settings.trials)
    if taken is None:
        return f"the best configurations of {name} are in {record.name} already"
    if not taken:
        return f"nothing is taken over of {name}: {record.name} has its {settings.trials} trials"
    numbers = ", ".join(str(number) for number in taken)
    return f"first come {wording.count(len(taken), 'configuration')} of {name}: trial {numbers}"


@dataclass(frozen=True)
class _Launch:
    settings: RunSettings
    database: Database
    signals: Signals
    display: Display
    loading: Loading
    watch: Watch | None

    def run(self, enrol: Enrol) -> Scoreboard:
        enrolled = enrol(self.database, self.loading.snapshot)
        record = enrolled.record
        for warning in record.warnings:
            self.display.note(warning)
        found = self.loading.snapshot
        shown = (
            replace(found, metric=enrolled.metric, more_objectives=()) if enrolled.metric else found
        )
        reader, board, request = self._open(shown, record)
        if request is not None and not self.settings.detach:
            with closing_request(self.database, record.study_id, request):
                self._supervise(enrolled, reader, board)
        return board

    def _open(
        self, snapshot: Snapshot, record: StudyRecord
    ) -> tuple[ProgressReader, Scoreboard, Request | None]:
        """Ask for the trials that are missing, of our own workers and of any daemon."""
        settings = self.settings
        reader, board = follow(
            self.database, record.study_id, record.name, snapshot, settings.trials
        )
        if board.ended >= settings.trials:
            return reader, board, None
        request, before = open_request(
            self.database,
            record.study_id,
            target=settings.trials,
            most_failed=board.failed + settings.max_failures,
            trial_timeout=settings.trial_timeout,
        )
        if before is RequestState.PAUSED:
            self.display.note(f"{record.name} was paused; this run resumes it for everybody")
        return reader, board, request

    def _supervise(self, enrolled: Enrolled, reader: ProgressReader, board: Scoreboard) -> None:
        settings, record, engine = self.settings, enrolled.record, self.loading.engine
        limits = Limits(
            most_failed=board.failed + settings.max_failures,
            allowed_failures=settings.max_failures,
            leave_when=frozenset({RequestState.STOPPED}),
            deadline=self.loading.deadline,
            timeout=settings.timeout,
        )
        if board.ended < settings.trials:
            self.display.note(_headline(settings, enrolled, board))
        engine.assign(
            Assignment(
                study_id=record.study_id,
                study_name=record.name,
                target=settings.trials,
                seed=record.seed,
                uid=record.uid,
                artifacts=settings.artifacts,
                sampler=settings.sampler,
                pruner=pruner_for(self.loading.snapshot, settings.pruner),
                most_failed=limits.most_failed,
                trial_timeout=settings.trial_timeout,
                worker=0,
                design=enrolled.design,
            )
        )
        supervisor = Supervisor(
            engine=engine,
            database=self.database,
            claims=Claims(self.database, record.study_id),
            artifacts=Artifacts(settings.artifacts, record.name, record.uid),
            reader=reader,
            board=board,
            display=self.display,
            limits=limits,
            me=self.loading.me,
            signals=self.signals,
            ended_early=self.loading.ended_early,
            watch=self.watch,
        )
        supervisor.run()


@contextlib.contextmanager
def closing_request(database: Database, study_id: int, request: Request) -> Iterator[None]:
    """Close the study's request at the end of the block: nobody shall go on with it by himself.

    It stays open when the database is lost: a daemon, or the same command again, goes on. So does a
    request that somebody else has opened meanwhile.
    """
    try:
        yield
    except (StorageError, Stopped):
        raise
    except TunerError as error:
        _close(database, study_id, request, CLOSED_BY.get(type(error), "an error"))
        raise
    except BaseException:  # the output is closed, or there is a bug: nobody shall go on by himself
        _close(database, study_id, request, "an error")
        raise
    close_reached(database, study_id)


def _close(database: Database, study_id: int, request: Request, reason: str) -> None:
    with contextlib.suppress(StorageError):
        change_request(
            database, study_id, RequestState.CLOSED, reason=reason, opened=request.opened
        )


CLOSED_BY: dict[type[TunerError], str] = {
    Interrupted: "Ctrl-C",
    TimedOut: "--timeout",
    TooManyFailures: "too many failures",
    TooManyFailed: "too many failures",
}


def _headline(settings: RunSettings, enrolled: Enrolled, board: Scoreboard) -> str:
    workers = wording.count(settings.workers, "worker") if settings.workers else "this process"
    workers += " on Ray" if settings.ray else ""
    there = f", {board.ended} there already" if board.ended else ""
    return (
        f"{enrolled.record.name}: {wording.count(settings.trials, 'trial')}{there}, {workers}, "
        f"{enrolled.how}"
    )
