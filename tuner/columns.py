"""What `tuner status` shows: the columns of its tables, and the keys of its JSON."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import TrialState
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner import wording
from tuner.storage import REACHED, RunningTrial, StudyOverview

# How trials in a state are called, here and in the JSON.
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_LINES = (
    (TrialState.COMPLETE, TrialState.PRUNED),
    (TrialState.RUNNING, TrialState.WAITING),
    (TrialState.FAIL,),
)
# A supervisor beats every 10 seconds; after so many seconds without a beat it is worth a word.
SILENT_SECONDS = 30


def _state(study: StudyOverview) -> str:
    if study.request is None:
        return ""
    state, reason = study.request.state, study.request.reason
    # A target that is reached can be seen from the column beside this one.
    return f"{state}\n{reason}" if reason and reason != REACHED else str(state)


def _done(study: StudyOverview) -> str:
    return f"{study.ended}/{study.request.target}" if study.request else str(study.ended)


def _trials(study: StudyOverview) -> str:
    """In lines that fit beside the other columns, without the zeros."""
    lines = (
        ", ".join(f"{study.count(state)} {STATES[state]}" for state in line if study.count(state))
        for line in _LINES
    )
    return "\n".join(filter(None, lines)) or "none"


def _rate(study: StudyOverview) -> str:
    return "" if study.trials_per_hour is None else f"{study.trials_per_hour:,.0f}"


def _best(study: StudyOverview) -> str:
    if len(study.directions) > 1:
        return f"{len(study.directions)} objectives"
    if study.best is None:
        return ""
    return f"{study.metric} {wording.number(study.best.value)}\ntrial {study.best.number}"


def _host(worker: RunningTrial) -> str:
    silent = worker.silent_seconds or 0.0
    if silent < SILENT_SECONDS:
        return worker.host
    return f"{worker.host}\nsilent for {wording.duration(silent)}"


def _optional(value: object) -> str:
    return "" if value is None else wording.number(value)


# Title -> what it says of a study, from left to right; and the same for a study and its worker.
STUDY_COLUMNS: Mapping[str, Callable[[StudyOverview], str]] = {
    "study": lambda study: study.name,
    "state": _state,
    "done": _done,
    "trials": _trials,
    "/hour": _rate,
    "best": _best,
}
WORKER_COLUMNS: Mapping[str, Callable[[StudyOverview, RunningTrial], str]] = {
    "study": lambda study, _: study.name,
    "host": lambda _, worker: _host(worker),
    "pid": lambda _, worker: _optional(worker.pid),
    "trial": lambda _, worker: str(worker.number),
    "for": lambda _, worker: "" if worker.seconds is None else wording.duration(worker.seconds),
    "step": lambda _, worker: _optional(worker.step),
    "value": lambda _, worker: _optional(worker.value),
}
_NUMBERS = {"done", "/hour", "pid", "trial", "for", "step", "value"}  # flush right
_WHOLE = {*_NUMBERS, "trials"}  # other columns give way on a narrow terminal


def as_tables(studies: list[StudyOverview]) -> RenderableType:
    """A table of studies, and one of workers if there are any."""
    table = _table(STUDY_COLUMNS)
    for study in studies:
        table.add_row(*(Text(cell(study)) for cell in STUDY_COLUMNS.values()))
    if not any(study.running for study in studies):
        return table
    workers = _table(WORKER_COLUMNS)
    for study in studies:
        for worker in study.running:
            workers.add_row(*(Text(cell(study, worker)) for cell in WORKER_COLUMNS.values()))
    return Group(table, "", workers)


def _table(titles: Mapping[str, object]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for title in titles:
        table.add_column(
            title,
            justify="right" if title in _NUMBERS else "left",
            no_wrap=title in _WHOLE,
            overflow="fold",
        )
    return table


def as_json(studies: list[StudyOverview]) -> list[dict[str, Any]]:
    """The same for programs: their keys stay, though more may come."""
    return [_study_as_json(study) for study in studies]


def _study_as_json(study: StudyOverview) -> dict[str, Any]:
    request = study.request
    return {
        "study": study.name,
        "state": request.state if request else "",
        "reason": request.reason if request else "",
        "opened": request.opened if request else None,
        "target": request.target if request else None,
        "trials": {word: study.count(state) for state, word in STATES.items()},
        "trials_per_hour": study.trials_per_hour,
        "metric": study.metric,
        "directions": study.directions,
        "best": study.best
        and {"value": _json_number(study.best.value), "trial": study.best.number},
        "workers": [_worker_as_json(worker) for worker in study.running],
    }


def _worker_as_json(worker: RunningTrial) -> dict[str, Any]:
    return {
        "host": worker.host,
        "pid": worker.pid,
        "trial": worker.number,
        "started": worker.started and worker.started.isoformat(timespec="seconds"),
        "seconds": worker.seconds,
        "silent_seconds": worker.silent_seconds,
        "step": worker.step,
        "value": _json_number(worker.value),
    }


def _json_number(value: float | None) -> float | str | None:
    """JSON has no NaN and no infinities: "nan", "inf" or "-inf", which Python's float() reads."""
    return value if value is None or math.isfinite(value) else str(value)
