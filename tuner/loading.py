"""The beginning of a run: workers are started, and one of them says what the study file declares.

The database is not touched meanwhile: a study file that is wrong leaves nothing behind.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from tuner import interrupt
from tuner.display import Display
from tuner.engines.inline import InlineEngine, quiet_tensorflow
from tuner.engines.interface import Engine, Gone, Loaded, LogLine, Refused
from tuner.engines.local import LocalEngine
from tuner.errors import Interrupted, TimedOut, TooManyFailures, UsageError
from tuner.flags import Source
from tuner.levels import check_compare
from tuner.search import check_search, pruner_for
from tuner.settings import RunSettings
from tuner.storage import Address, Owner, this_process
from tuner.study import Snapshot, load
from tuner.supervise import Signals

# How often to look for a signal while the workers load the study file, in seconds.
LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Loading:
    """An engine whose workers have the study.

    Attributes:
        deadline: when ``--timeout`` is over, by time.monotonic, or None.
        ended_early: workers that ended before the study was known.
    """

    engine: Engine
    snapshot: Snapshot
    me: Owner
    deadline: float | None
    ended_early: list[Gone] = field(default_factory=list)


@contextlib.contextmanager
def loaded(
    settings: RunSettings, address: Address, signals: Signals, display: Display, started: float
) -> Iterator[Loading]:
    """Start the workers and wait for what the study file declares; end them after the block.

    Args:
        settings: of the command.
        address: of the database, for the workers.
        signals: that came.
        display: for what workers have to say.
        started: when the command began, by time.monotonic.

    Raises:
        UsageError: the study file is wrong, or sampler or pruner cannot serve it.
        TooManyFailures: every worker ended.
        TimedOut: ``--timeout`` passed.
        Interrupted: a signal came.
    """
    me = this_process()
    deadline = None if settings.timeout is None else started + settings.timeout
    ended_early: list[Gone] = []
    engine, snapshot = _make_engine(settings, address, me)
    if snapshot is not None:
        _go_on(settings, signals, deadline)
        check(settings, snapshot)  # before it prepares
    try:
        engine.start()
        if snapshot is None:
            snapshot = _await_snapshot(engine, settings, signals, display, deadline, ended_early)
            check(settings, snapshot)
        _go_on(settings, signals, deadline)
        yield Loading(engine, snapshot, me, deadline, ended_early)
    except interrupt.HandBack:
        raise Interrupted(_BEFORE_THE_FIRST) from None
    finally:
        engine.kill()  # what has not ended


_BEFORE_THE_FIRST = "Interrupted before the first trial; nothing was changed."


def check(settings: RunSettings, snapshot: Snapshot) -> None:
    """Refuse what this study cannot be run with.

    Raises:
        UsageError: sampler, pruner or comparison cannot serve it.
    """
    pruner = pruner_for(snapshot, settings.pruner)
    asked = settings.given.sources.get("pruner") is Source.FLAG
    if asked and pruner != settings.pruner:
        raise UsageError(
            f"{snapshot.file} has {len(snapshot.metrics)} objectives, of which Optuna prunes "
            f"nothing: its pruners compare one value; leave --pruner {settings.pruner} out."
        )
    check_search(settings.sampler, pruner, snapshot, settings.trials)
    if settings.compare is not None:
        check_compare(
            settings.compare, settings.sampler, settings.pruner, snapshot, settings.trials
        )


def _go_on(settings: RunSettings, signals: Signals, deadline: float | None) -> None:
    """Leave when a signal came, or the time is over."""
    if signals.received:
        raise Interrupted(_BEFORE_THE_FIRST)
    if deadline is not None and time.monotonic() >= deadline:
        raise TimedOut(
            f"--timeout {settings.timeout:g} s passed before the study file was loaded and "
            "prepared; give it more."
        )


def _make_engine(
    settings: RunSettings, address: Address, me: Owner
) -> tuple[Engine, Snapshot | None]:
    """The engine, and what the study declares if it is loaded in this process."""
    if settings.workers == 0 and not settings.detach:
        os.environ.update(settings.variables())
        with quiet_tensorflow(verbose=settings.verbose):
            definition = load(settings.study_file)
        return InlineEngine(definition, address.secret, me), definition.snapshot
    workers = 1 if settings.detach else settings.workers
    variables = settings.worker_variables()
    if settings.ray is None:
        local = LocalEngine(
            settings.study_file, address.secret, me, workers=workers, variables=variables
        )
        return local, None
    from tuner.engines.ray import RayEngine  # noqa: PLC0415 - an extra, which takes a while

    on_ray = RayEngine(
        settings.study_file,
        address.secret,
        me,
        place=settings.ray,
        workers=workers,
        variables=variables,
        artifacts=settings.artifacts,
    )
    return on_ray, None


def _await_snapshot(  # noqa: PLR0913, PLR0917 - what `loaded` knows
    engine: Engine,
    settings: RunSettings,
    signals: Signals,
    display: Display,
    deadline: float | None,
    ended_early: list[Gone],
) -> Snapshot:
    """Wait until a worker has loaded the study file; who ended meanwhile is kept for later."""
    while True:
        _go_on(settings, signals, deadline)
        snapshot = None
        for event in engine.poll(LOOK_SECONDS):
            if isinstance(event, Loaded):
                snapshot = snapshot or event.snapshot
            elif isinstance(event, Refused):
                raise event.error
            elif isinstance(event, LogLine):
                display.note(event.text)
            else:
                ended_early.append(event)
        display.start(engine.workers)
        if snapshot is not None:
            return snapshot
        if not engine.alive:
            _give_up(ended_early[-1])


def _give_up(last: Gone) -> NoReturn:
    raise TooManyFailures(
        "Every worker ended while it loaded the study file "
        f"({last.death or 'exited with code 0'}); the last one wrote: {last.last_words()}. "
        "Mend the file, or give the workers more memory."
    )
