"""Where the time of the main job goes: the whole command, from an empty cache.

    python -m tests.benchmarks.hundred [--keep FOLDER]

Runs ``python -m tuner.run --study mnist --trials 100`` with two workers, a fresh database and an
empty cache, and divides the time of both workers: every second between the command's start and its
end is in one line. What the slower worker takes to start is in the line of the base, and starts of
workers that were replaced are between trials.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from tests.conftest import ROOT

TRIALS = 100
WORKERS = 2
SEED = 1
PHASES = {
    "setup": "setting weights",
    "features": "features of frozen stages: computing, waiting, mapping",
    "tracing": "compiling",
    "train": "training",
    "validate": "validation",
}


def run(folder: Path, console: Console) -> tuple[datetime, dict[str, datetime], datetime]:
    """Run the command; return when it began, when what was said first, and when it ended."""
    began = _now()
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner.run", "--study", str(ROOT / "studies" / "mnist.py"),
         "--trials", str(TRIALS), "--workers", str(WORKERS), "--seed", str(SEED),
         "--storage", "sqlite:///tuner.db"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TUNER_CACHE_DIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    said: dict[str, datetime] = {}
    for line in process.stdout:
        console.print(line.rstrip("\n"), highlight=False, markup=False)
        for words in ("training in ", "the base is right on"):
            if words in line:
                said.setdefault(words, _now())
    if process.wait():
        sys.exit(process.returncode)
    return began, said, _now()


def _now() -> datetime:
    return datetime.now()  # noqa: DTZ005 - Optuna stores local time


def divide(
    began: datetime, said: dict[str, datetime], ended: datetime, trials: list[FrozenTrial]
) -> Iterator[tuple[str, float]]:
    """What both workers did, in worker-seconds that add up to workers times wall seconds."""
    ready, base = said["training in "], said["the base is right on"]
    yield "starting: imports, images, model", WORKERS * _seconds(began, ready)
    yield "base: one trains it, the other waits", WORKERS * _seconds(ready, base)
    first, between, last = 0.0, 0.0, 0.0
    for worker in range(1, WORKERS + 1):
        own = sorted(
            (trial for trial in trials if trial.user_attrs["worker"] == worker),
            key=lambda trial: trial.number,
        )
        starts = [trial.datetime_start for trial in own if trial.datetime_start]
        ends = [trial.datetime_complete for trial in own if trial.datetime_complete]
        first += _seconds(base, min(starts))
        between += sum(_seconds(end, start) for end, start in zip(ends, starts[1:], strict=False))
        last += _seconds(max(ends), ended)
    yield "until the first claim", first
    phases = {
        phase: sum(trial.user_attrs["seconds"][phase] for trial in trials) for phase in PHASES
    }
    for phase, words in PHASES.items():
        yield words, phases[phase]
    spans = sum(
        _seconds(trial.datetime_start, trial.datetime_complete)
        for trial in trials
        if trial.datetime_start and trial.datetime_complete
    )
    yield "database within trials: parameters, reports, pruning", spans - sum(phases.values())
    yield "database between trials: telling, claiming", between
    yield "waiting for the other worker's last trial, and ending", last


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


def show(parts: list[tuple[str, float]], wall: float, trials: list[FrozenTrial]) -> Table:
    """The division, and what the trials came to."""
    table = Table(title=f"{TRIALS} trials, {WORKERS} workers: {wall:.0f} s ({wall / 60:.1f} min)")
    table.add_column("what")
    for column in ("worker-seconds", "share"):
        table.add_column(column, justify="right")
    for name, seconds in parts:
        table.add_row(name, f"{seconds:.1f}", f"{seconds / WORKERS / wall:.1%}")
    total = sum(seconds for _, seconds in parts)
    table.add_row(
        f"sum ({WORKERS} x {wall:.1f} s)", f"{total:.1f}", f"{total / WORKERS / wall:.1%}"
    )
    states = [trial.state for trial in trials]
    best = min(trial.value for trial in trials if trial.state is TrialState.COMPLETE)
    memory = [trial.user_attrs["memory_mb"] for trial in trials]
    third = len(memory) // 3
    table.caption = (
        f"{states.count(TrialState.COMPLETE)} complete, {states.count(TrialState.PRUNED)} pruned; "
        f"best val_error {best:.4f}; a worker's own memory: at most {max(memory[:third])} MB in "
        f"the first third of the trials, {max(memory[third:-third])} in the second, "
        f"{max(memory[-third:])} in the last"
    )
    return table


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="a folder for the database and the cache")
    keep = parser.parse_args().keep
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        if list(folder.iterdir()):
            sys.exit(f"{folder} is not empty")
        began, said, ended = run(folder, console)
        study = optuna.load_study(study_name="mnist", storage=f"sqlite:///{folder}/tuner.db")
        trials = [trial for trial in study.trials if trial.state is not TrialState.FAIL]
    parts = list(divide(began, said, ended, trials))
    console.print(show(parts, _seconds(began, ended), trials))


if __name__ == "__main__":
    main()
