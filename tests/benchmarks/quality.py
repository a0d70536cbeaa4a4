"""Time to quality: how long until a model errs on at most 0.8 % of the validation images?

    python -m tests.benchmarks.quality     # up to four hours; goes on where it was stopped

Our command beside Optuna around ``fit`` (without pruner, and with Hyperband) and KerasTuner's
Hyperband: the same space, model, schedule, epochs and validation images, two cores. Every way gets
the pretrained base; ours begins without stored features, and computes in ``--precision auto``, the
others in float32. Three seeds, at most 20 minutes each.
Each search is kept in ``quality.jsonl`` here.
"""

import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from rich.console import Console
from rich.table import Table

from tests.benchmarks.speed import FLOAT32, prepare
from tests.benchmarks.speed import Way as OfSpeed
from tests.conftest import ROOT

SEEDS = (1, 2, 3)
GOALS = (0.008, 0.007)
LIMIT_SECONDS = 20 * 60
LOOK_SECONDS = 0.5
RESULTS = Path("quality.jsonl")


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to search: a command for a storage, a base and a seed; how it stores a value."""

    name: str
    command: Callable[[str, str, int], list[str]]
    error: Callable[[float], float] = lambda accuracy: 1.0 - accuracy


def _ours(storage: str, _base: str, seed: int) -> list[str]:
    return ["tuner.run", "--study", "mnist", "--trials", "10000", "--seed", str(seed),
            "--storage", storage]  # fmt: skip


def _usual(pruner: str) -> Callable[[str, str, int], list[str]]:
    return lambda storage, base, seed: [
        "tests.benchmarks.usual", "search", storage, base, str(seed), pruner
    ]  # fmt: skip


AUTO = OfSpeed("ours, auto")
WAYS = [
    Way("ours", _ours, error=lambda error: error),
    Way("Optuna and fit, no pruner", _usual("none")),
    Way("Optuna and fit, Hyperband", _usual("hyperband")),
    Way(
        "KerasTuner, Hyperband",
        lambda storage, base, seed: [
            "tests.benchmarks.kerastuner",
            "search",
            storage,
            base,
            str(seed),
        ],
    ),
]


def measure(way: Way, seed: int) -> dict[str, Any]:
    """Search until the lower goal is met or the time is over."""
    bases = [prepare(of_ours) for of_ours in (FLOAT32, AUTO)]
    with tempfile.TemporaryDirectory() as folder:
        cache, database = Path(folder) / "cache", Path(folder) / "search.db"
        cache.mkdir()
        for base in bases:
            shutil.copy(base, cache)
        command = way.command(f"sqlite:///{database}", bases[0], seed)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.DEVNULL,
            env={**os.environ, "TUNER_CACHE_DIR": str(cache), "TMPDIR": folder},
        )  # fmt: skip
        try:
            return {"way": way.name, "seed": seed, **_watch(way, process, database, began)}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _watch(
    way: Way, process: "subprocess.Popen[bytes]", database: Path, began: float
) -> dict[str, Any]:
    """Look at the reported errors until the lower goal is met or the time is over."""
    reached: dict[str, float | None] = dict.fromkeys(map(str, GOALS))
    best, passed = 1.0, 0.0
    while passed < LIMIT_SECONDS and best > min(GOALS):
        if process.poll() is not None:
            sys.exit(f"{way.name} ended with exit code {process.returncode}")
        time.sleep(LOOK_SECONDS)
        best = min([best, *(round(way.error(value), 6) for value in _values(database))])
        passed = time.perf_counter() - began
        for goal in GOALS:
            if best <= goal and reached[str(goal)] is None:
                reached[str(goal)] = passed
    return {"best": best, "reached": reached}


def _values(database: Path) -> list[float]:
    """Every value that was reported."""
    if not database.exists():
        return []
    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    try:
        with engine.connect() as connection:
            query = "SELECT intermediate_value FROM trial_intermediate_values"
            return [value for (value,) in connection.execute(sqlalchemy.text(query)) if value]
    except sqlalchemy.exc.OperationalError:  # being made, or locked for a moment
        return []
    finally:
        engine.dispose()


def show(results: list[dict[str, Any]]) -> Table:
    """A line a way: each seed's minutes, and the median."""
    table = Table(title=f"Minutes until the best validation error, seeds {SEEDS}")
    table.add_column("way")
    for goal in GOALS:
        table.add_column(f"at most {goal:.1%}", justify="right")
        table.add_column("median", justify="right")
    for way in WAYS:
        row = [way.name]
        for goal in GOALS:
            found = [
                result["reached"][str(goal)] for result in results if result["way"] == way.name
            ]
            row.append(", ".join(_minutes(seconds) for seconds in found))
            known = [LIMIT_SECONDS if seconds is None else seconds for seconds in found]
            middle = statistics.median(known) if known else None
            row.append(_minutes(None if middle == LIMIT_SECONDS else middle) if known else "-")
        table.add_row(*row)
    return table


def _minutes(seconds: float | None) -> str:
    return f"> {LIMIT_SECONDS // 60}" if seconds is None else f"{seconds / 60:.1f}"


def main() -> None:
    """Measure what is missing, interleaved, and print."""
    console = Console(width=120)
    results = []
    if RESULTS.exists():
        results = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for seed in SEEDS:
        for way in WAYS:
            if any(result["way"] == way.name and result["seed"] == seed for result in results):
                continue
            results.append(measure(way, seed))
            with RESULTS.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            console.print(results[-1])
    console.print(show(results))


if __name__ == "__main__":
    main()
