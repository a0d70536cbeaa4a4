"""Time to quality: how long until a model errs on at most 0.8 % of the validation images?

    python -m tests.benchmarks.quality                 # up to four hours; goes on where it stopped
    python -m tests.benchmarks.quality --until 0.008   # each search only to this error; about half
    python -m tests.benchmarks.quality --limit 10      # each search at most so many minutes

Our command beside Optuna around ``fit`` (without pruner, and with Hyperband) and KerasTuner's
Hyperband: the same space, model, schedule, epochs and validation images, two cores. Every way gets
the pretrained base; ours begins without stored features, and computes in ``--precision auto``, the
others in float32. Three seeds, at most 20 minutes each. Each search is kept in ``--results``
(``quality.jsonl`` here), and not repeated on a machine with the same processor; those of the README
are ``tests/benchmarks/recorded/quality.jsonl``.
"""

import argparse
import dataclasses
import json
import math
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

from tests.benchmarks.speed import FLOAT32, prepare, this_machine
from tests.benchmarks.speed import Way as OfSpeed
from tests.conftest import ROOT

SEEDS = (1, 2, 3)
GOALS = (0.008, 0.007)
LOOK_SECONDS = 0.5
RESULTS = "quality.jsonl"


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


def measure(way: Way, seed: int, until: float, limit: float) -> dict[str, Any]:
    """Search until an error is found or the time, in seconds, is over."""
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
            found = _watch(way, process, database, began, until, limit)
            asked = {"way": way.name, "seed": seed, "until": until, "limit": limit}
            return {**asked, **found, **this_machine()}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _watch(
    way: Way,
    process: "subprocess.Popen[bytes]",
    database: Path,
    began: float,
    until: float,
    limit: float,
) -> dict[str, Any]:
    """Look at the reported errors until one is low enough or the time is over."""
    reached: dict[str, float | None] = dict.fromkeys(map(str, GOALS))
    best, passed = 1.0, 0.0
    while passed < limit and best > until:
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


def show(results: list[dict[str, Any]], limit: float) -> Table:
    """A line a way: each seed's minutes, their median, and what that is to ours.

    A search that was stopped at a higher error says nothing of the lower one.
    """
    table = Table(title=f"Minutes until the best validation error, seeds {SEEDS}")
    table.add_column("way")
    for goal in GOALS:
        for column in (f"at most {goal:.1%}", "median", "this / ours"):
            table.add_column(column, justify="right")
    for way in WAYS:
        row = [way.name]
        for goal in GOALS:
            each = _seconds_to(results, way, goal)
            row.append(", ".join(_minutes(seconds, limit) for seconds in each))
            row.append(_minutes(statistics.median(each), limit) if each else "")
            ours = _seconds_to(results, WAYS[0], goal)
            row.append(_ratio(each, ours, limit) if each and ours else "")
        table.add_row(*row)
    return table


def _seconds_to(results: list[dict[str, Any]], way: Way, goal: float) -> list[float]:
    """Of each search that looked for this error; infinite where it was not found in time."""
    looked = {
        result["seed"]: result["reached"][str(goal)]
        for result in sorted(results, key=lambda result: -float(result["until"]))
        if result["way"] == way.name and result["until"] <= goal
    }
    return [math.inf if seconds is None else seconds for seconds in looked.values()]


def _minutes(seconds: float, limit: float) -> str:
    return f"{seconds / 60:.1f}" if seconds < math.inf else f"> {limit / 60:.0f}"


def _ratio(each: list[float], ours: list[float], limit: float) -> str:
    """Of the medians; at least so much where this way's is over the limit."""
    this, own = statistics.median(each), statistics.median(ours)
    if own == math.inf:
        return ""
    return f"{this / own:.1f}" if this < math.inf else f"> {limit / own:.1f}"


def comparable(result: dict[str, Any], limit: float) -> bool:
    """Whether an earlier search says what this one would: on such a processor, for as long."""
    here = this_machine()
    return result["limit"] == limit and all(result[name] == here[name] for name in here)


def main() -> None:
    """Measure what is missing, interleaved, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--until", type=float, choices=GOALS, default=min(GOALS))
    parser.add_argument("--limit", type=float, default=20, metavar="MINUTES")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    limit = 60 * options.limit
    console = Console(width=150)
    results = []
    if options.results.exists():
        lines = options.results.read_text().splitlines()
        results = [it for it in map(json.loads, lines) if comparable(it, limit)]
    for seed in SEEDS:
        for way in WAYS:
            if any(
                (result["way"], result["seed"]) == (way.name, seed)
                and result["until"] <= options.until
                for result in results
            ):
                continue
            results.append(measure(way, seed, options.until, limit))
            with options.results.open("a") as file:
                file.write(json.dumps(results[-1]) + "\n")
            console.print(results[-1])
    console.print(show(results, limit))


if __name__ == "__main__":
    main()
