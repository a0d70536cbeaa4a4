"""How fast a trial is: our command beside the usual way, on the same twenty configurations.

    python -m tests.benchmarks.speed             # the ways, interleaved; about an hour
    python -m tests.benchmarks.speed ablation    # (e) with one part off at a time; (d): bfloat16

Four configurations for each frozen depth (`tests.benchmarks.twenty`), one epoch of 50,000 images,
batch 128, one validation with 10,000. Every way is started as a user starts it, so its time has the
imports in it; the pretrained base and the features of frozen stages are there already (their cost,
paid once a machine, is printed). Each measurement is kept in ``speed.jsonl`` here, with the machine
that made it, and those that are there are not repeated: remove the file after a change. KerasTuner
takes part where it is installed (``pip install -e '.[benchmarks]'``).
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
from rich.console import Console
from rich.table import Table

from tests.conftest import ROOT
from tuner.machine import cpu_model, has_bfloat16

ROUNDS = 3
RESULTS = Path("speed.jsonl")
CACHE = Path("speed-cache").absolute()
IMAGES = 50_000
TRAINING_MFLOP = 35.8  # of one image, nothing frozen: forward, and backward twice that
LOOK_SECONDS = 1.0
WORKERS = 2

OURS = [sys.executable, "-m", "tuner.run", "--study", "tests/benchmarks/twenty.py",
        "--trials", "20", "--sampler", "grid", "--pruner", "none", "--seed", "0"]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train the twenty configurations.

    Attributes:
        name: as printed.
        shares: processes of the usual way, each with its share; 0 for our command.
        module: of the usual way.
        precision: of our command.
        workers: of our command.
        variables: environment variables, besides.
        features: whether trials of frozen stages are to have trained on stored features.
    """

    name: str
    shares: int = 0
    module: str = "usual"
    precision: str = "auto"
    workers: int = WORKERS
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    features: bool = True

    def environment(self) -> dict[str, str]:
        """Environment variables for this way."""
        cache = {"TUNER_CACHE_DIR": str(CACHE), "TUNER_CACHE_GB": "50"}
        return {**os.environ, **cache, **self.variables}

    def commands(self, storage: str, base: str) -> list[list[str]]:
        """What to start, all at once."""
        if not self.shares:
            return [
                [*OURS, "--storage", storage, "--precision", self.precision,
                 "--workers", str(self.workers)]
            ]  # fmt: skip
        start = [sys.executable, "-m", f"tests.benchmarks.{self.module}", "twenty", storage, base]
        if self.module == "kerastuner":
            return [start]
        return [[*start, str(share), str(self.shares)] for share in range(self.shares)]


ONE_THREAD = {"TUNER_THREADS": "1", "OMP_NUM_THREADS": "1"}
FLOAT32 = Way("(d) ours, float32", precision="float32")
AUTO = Way("(e) ours, auto")
WAYS = [
    Way("(a) fit, one process", shares=1),
    Way("(b) fit, two processes of one thread", shares=2, variables=ONE_THREAD),
    Way("(c) KerasTuner", shares=1, module="kerastuner"),
    FLOAT32,
    AUTO,
]
ABLATION = [
    AUTO,
    FLOAT32,  # without bfloat16
    Way("without stored features", variables={"TUNER_CACHE_GB": "0"}, features=False),
    Way("without the fused batch norm", variables={"TWENTY_WITHOUT": "fused"}),
    Way("without reused graphs", variables={"TWENTY_WITHOUT": "reuse"}),
    Way("without the loop in the graph", variables={"TWENTY_WITHOUT": "graph"}),
    Way("one worker of two threads", workers=1),
]


def measure(way: Way) -> dict[str, Any]:
    """Run a way once; return its seconds, memory and trials."""
    base = prepare(way) if not way.shares else prepare(FLOAT32)
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{folder}/twenty.db"
        if way.shares:
            optuna.create_study(study_name="twenty", storage=storage)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        processes = [
            psutil.Popen(command, cwd=ROOT, env=way.environment(), stdout=subprocess.DEVNULL)
            for command in way.commands(storage, base)
        ]
        peak = 0.0
        while any(process.poll() is None for process in processes):
            time.sleep(LOOK_SECONDS)
            peak = max(peak, sum(map(_tree_megabytes, processes)))
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if any(process.returncode for process in processes):
            sys.exit(f"{way.name} failed: {processes}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        trials = optuna.load_study(study_name="twenty", storage=storage).trials
    facts = [_trial_facts(trial, way) for trial in trials]
    measured = {"way": way.name, "wall": wall, "cpu": cpu, "peak_mb": peak, "trials": facts}
    return {**measured, **this_machine()}


def this_machine() -> dict[str, Any]:
    """What a measurement depends on besides the code: the processor and its instructions."""
    return {"processor": cpu_model(), "bfloat16": has_bfloat16()}


def _trial_facts(trial: optuna.trial.FrozenTrial, way: Way) -> dict[str, float]:
    attrs, frozen, error = trial.user_attrs, trial.params["configuration"] // 4, trial.value
    assert error is not None, trial
    if way.shares:
        seconds, at_once = attrs["trial_seconds"], way.shares
    else:
        seconds, at_once = sum(attrs["seconds"].values()), way.workers
        least = 1 if attrs["precision"] == "bfloat16" else 2
        assert attrs["cached_features"] == (way.features and frozen >= least), trial
    return {
        "frozen": frozen,
        "seconds": seconds / at_once,
        "stall": attrs.get("stall_seconds", 0.0) / at_once,
        "error": error,
    }


def _tree_megabytes(process: psutil.Popen) -> float:
    """Memory of a process and those below it, shared pages divided among their users."""
    total = 0.0
    with contextlib.suppress(psutil.Error):  # it has just ended
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss / 1e6
    return total


def prepare(way: Way) -> str:
    """Fill the cache as this way of ours needs it, where that is not done; return the base's file.

    Features belong to a number of threads, a precision, and the layers.
    """
    began = time.perf_counter()
    threads = max(1, WORKERS // way.workers)
    done = subprocess.run(
        [sys.executable, "-c", "from tests.benchmarks import twenty; twenty.fill_cache()"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
        env={**way.environment(), "TUNER_PRECISION": way.precision, "TUNER_THREADS": str(threads)},
    )  # fmt: skip
    Console().print(f"cache for {way.name}: {time.perf_counter() - began:.0f} s", highlight=False)
    return done.stdout.split()[-1]


def peak_gflops() -> dict[str, float]:
    """Billions of operations a second of a large matrix product, two threads."""
    kinds = ("float32", "bfloat16") if has_bfloat16() else ("float32",)
    code = f"""
import time, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
for kind in {kinds}:
    a = tf.cast(tf.random.normal((4096, 4096)), kind)
    product = tf.function(lambda a: tf.matmul(a, a), autograph=False)
    product(a)
    times = []
    for _ in range(5):
        began = time.perf_counter(); product(a); times.append(time.perf_counter() - began)
    print(kind, 2 * 4096 ** 3 / min(times) / 1e9)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return {kind: float(value) for kind, value in map(str.split, done.stdout.splitlines())}


def distinct(ways: list[Way]) -> list[Way]:
    """Without those that do here what an earlier one does: auto is float32 without bfloat16."""
    chosen: list[Way] = []
    done: list[Way] = []
    for way in ways:
        precision = way.precision if has_bfloat16() else "float32"
        does = dataclasses.replace(way, name="", precision=precision)
        if does not in done:
            chosen.append(way)
            done.append(does)
    return chosen


def run_all(ways: list[Way], console: Console) -> list[dict[str, Any]]:
    """Measure what is missing, interleaved; return all results of these ways."""
    for number in range(ROUNDS):
        for way in ways:
            found = [result for result in _results() if result["way"] == way.name]
            if len(found) <= number:
                result = measure(way)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                console.print(f"round {number + 1}: {way.name}: {result['wall']:.0f} s")
    names = [way.name for way in ways]
    return [result for result in _results() if result["way"] in names]


def _results() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def _median(results: list[dict[str, Any]], way: Way, of: Any) -> float:
    return statistics.median(of(result) for result in results if result["way"] == way.name)


def show_totals(results: list[dict[str, Any]], ways: list[Way], console: Console) -> None:
    """One line a way."""
    table = Table(title=f"20 trials of one epoch, {IMAGES:,} images, medians of {ROUNDS}")
    for column in ("", "wall s", "of it stalls", "CPU s", "images/s", "peak MB", "val. error",
                   f"{ways[0].name[:3]} / this"):  # fmt: skip
        table.add_column(column, justify="right" if column else "left")
    first = _median(results, ways[0], lambda result: result["wall"])
    for way in ways:
        wall = _median(results, way, lambda result: result["wall"])
        stalls = _median(results, way, lambda r: sum(trial["stall"] for trial in r["trials"]))
        errors = _median(
            results, way, lambda r: statistics.mean(trial["error"] for trial in r["trials"])
        )
        table.add_row(
            way.name, f"{wall:.0f}", f"{stalls:.0f}" if way.shares else "",
            f"{_median(results, way, lambda result: result['cpu']):.0f}",
            f"{20 * IMAGES / wall:,.0f}",
            f"{_median(results, way, lambda result: result['peak_mb']):,.0f}",
            f"{errors:.2%}", f"{first / wall:.2f}",
        )  # fmt: skip
    console.print(table)


def show_depths(results: list[dict[str, Any]], ways: list[Way], console: Console) -> None:
    """Seconds a trial for each frozen depth, with two workers or processes half of its own."""
    table = Table(
        title="Seconds a trial by frozen stages, stalls left out; two at a time count half"
    )
    ours = [way.name for way in ways if not way.shares]
    for column in ("frozen stages", *(way.name for way in ways), *(f"(a) / {n[:3]}" for n in ours)):
        table.add_column(column, justify="right")
    for frozen in range(5):

        def seconds(result: dict[str, Any], frozen: int = frozen) -> float:
            of_depth = [trial for trial in result["trials"] if trial["frozen"] == frozen]
            return statistics.mean(trial["seconds"] - trial["stall"] for trial in of_depth)

        each = {way.name: _median(results, way, seconds) for way in ways}
        ratios = [each[ways[0].name] / each[name] for name in ours]
        cells = [f"{value:.2f}" for value in each.values()] + [f"{ratio:.1f}" for ratio in ratios]
        table.add_row(str(frozen), *cells)
        if frozen == 0:
            busy = each
    console.print(table)
    peaks = peak_gflops()
    for way in ways:
        auto = not way.shares and way.precision == "auto"
        kind = "bfloat16" if auto and has_bfloat16() else "float32"
        share = IMAGES * TRAINING_MFLOP / 1e3 / busy[way.name] / peaks[kind]
        console.print(
            f"{way.name}, nothing frozen, whole trial: {share:.0%} of a {kind} matrix product "
            f"(4096 x 4096, two threads: {peaks[kind]:.0f} GFLOP/s)"
        )


def main() -> None:
    """Measure and print."""
    console = Console(width=150)
    ablation = sys.argv[1:] == ["ablation"]
    ways = ABLATION if ablation else WAYS
    if importlib.util.find_spec("keras_tuner") is None:
        ways = [way for way in ways if way.module != "kerastuner"]
    ways = distinct(ways)
    results = run_all(ways, console)
    show_totals(results, ways, console)
    if not ablation:
        show_depths(results, ways, console)


if __name__ == "__main__":
    main()
