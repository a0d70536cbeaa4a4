"""Which pruner and which sampler: replays of the recorded curves (`tests.benchmarks.curves`).

    python -m tests.benchmarks.replay pruners
    python -m tests.benchmarks.replay samplers

A replay is a search by two workers in simulated time: Optuna's own pruners and samplers decide,
errors and seconds come from the records. It is repeated with 100 seeds.

*Pruners* are replayed on the recorded configurations themselves, in random orders. *Samplers* ask
for configurations that were never run, so those are replayed on a surrogate: for each step a
Gaussian process on log10(error), and the luck of 10,000 validation images. It is smoother than
training; its rank correlation on configurations that it has not seen is printed with the result.
"""

import concurrent.futures
import dataclasses
import functools
import heapq
import itertools
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna import pruners, samplers
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict

from tests.benchmarks.curves import Curves, load
from tests.finetune.curves import load_study_file
from tuner.search import DEFAULT_PRUNER, PRUNERS
from tuner.study import Snapshot

SEEDS = 100
TRIALS = 100
WORKERS = 2
GOALS = (0.008, 0.007)  # validation errors whose time is measured
MINUTES = (5, 10)  # after which the best error is looked at
VALIDATION_IMAGES = 10_000
GUESSING = 0.88  # an error from which on a trial diverged
WIDTH = 170  # characters of the tables
SNAPSHOT = Snapshot(None, "val_error", "minimize", 20, "studies/mnist.py", "")

Errors = npt.NDArray[np.float64]
"""Of one configuration at each step, (n_steps,); NaN after a divergence."""
Draw = Callable[[optuna.Trial], tuple[Errors, Errors, float]]
"""From a trial to errors and seconds of its configuration at each step, and its true error."""


@dataclasses.dataclass
class Ended:
    """A trial of a simulated search.

    Attributes:
        true: its true error at its end, as far as known; NaN where it diverges.
        after: seconds from the start of the search until it ended.
        error: if it ran to its end, what was found there; else NaN.
        pruned: whether the pruner stopped it.
    """

    true: float
    after: float = 0.0
    error: float = np.nan
    pruned: bool = False


@dataclasses.dataclass(frozen=True)
class Search:
    """One simulated search: columns over its trials in the order of their numbers, see `Ended`."""

    true: Errors
    after: Errors
    error: Errors
    pruned: npt.NDArray[np.bool_]

    def best(self, *, trials: int | None = None, seconds: float = np.inf) -> float:
        """The lowest error among the first ``trials`` that ended within so many seconds."""
        errors = np.where(self.after <= seconds, self.error, np.nan)[:trials]
        return float(np.nanmin(errors, initial=1.0))

    def seconds_to(self, error: float) -> float:
        """When a trial first ended at or below an error; infinite where none did."""
        return float(np.min(self.after[self.error <= error], initial=np.inf))


def search(study: optuna.Study, draw: Draw, steps: npt.NDArray[np.int64]) -> Search:
    """Run `TRIALS` trials, and for so long as results are looked at, in simulated time."""
    trials: list[Ended] = []
    due: list[tuple[float, int, Iterator[float]]] = []

    def start(now: float) -> None:
        if len(trials) < TRIALS or now < 60 * max(MINUTES):
            life = _life(study, draw, steps, now, trials)
            heapq.heappush(due, (next(life), len(trials), life))

    for _ in range(WORKERS):
        start(0.0)
    while due:
        now, number, life = heapq.heappop(due)
        later = next(life, None)
        if later is None:
            start(now)
        else:
            heapq.heappush(due, (later, number, life))
    columns = zip(*(dataclasses.astuple(trial) for trial in trials), strict=True)
    return Search(*map(np.array, columns))


def _life(
    study: optuna.Study,
    draw: Draw,
    steps: npt.NDArray[np.int64],
    began: float,
    trials: list[Ended],
) -> Iterator[float]:
    """One trial: yields the time of each report before it is made."""
    trial = study.ask()
    errors, seconds, true = draw(trial)
    ended = Ended(true)
    trials.append(ended)
    for step, error, after in zip(steps, errors, seconds, strict=True):
        ended.after = began + after
        yield ended.after
        trial.report(error, int(step))
        if error >= 1.0:  # diverged
            study.tell(trial, state=TrialState.PRUNED)
            return
        if step == steps[-1]:
            study.tell(trial, error)
            ended.error = error
        elif trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            ended.pruned = True
            return


def _repeat(once: Callable[[int], Search], name: str) -> list[Search]:
    """Run a search with every seed, two at a time."""
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(WORKERS, context) as pool:
        found = pool.map(once, range(SEEDS))
        return list(track(found, description=name, total=SEEDS, transient=True))


# --- pruners ------------------------------------------------------------------------------------


def _percentile(kept: float, warm_up: int, startup: int = 5) -> Callable[[], pruners.BasePruner]:
    return lambda: pruners.PercentilePruner(kept, startup, warm_up)


def _asha(factor: int, least: int = 1) -> Callable[[], pruners.BasePruner]:
    return lambda: pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=factor)


def _ours(name: str) -> Callable[[], pruners.BasePruner]:
    return lambda: PRUNERS[name](SNAPSHOT)


class AnyOf(pruners.BasePruner):
    """Prunes where one of several would."""

    def __init__(self, *those: pruners.BasePruner) -> None:
        self._those = those

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return any(one.prune(study, trial) for one in self._those)


def _graded(*kept_from: tuple[float, int]) -> Callable[[], pruners.BasePruner]:
    """Percentiles that grow stricter: (kept, from step) each."""
    return lambda: AnyOf(*(pruners.PercentilePruner(k, 5, step) for k, step in kept_from))


CANDIDATE_PRUNERS: dict[str, Callable[[], pruners.BasePruner]] = {
    "none": pruners.NopPruner,
    **{f"our {name}": _ours(name) for name in PRUNERS if name != "none"},
    "percentile 50 from step 1": _percentile(50, 0),
    "percentile 50 from step 4": _percentile(50, 4),
    "percentile 25 from step 1": _percentile(25, 0),
    "percentile 25 from step 2": _percentile(25, 2),
    "percentile 25 from step 4": _percentile(25, 4),
    "percentile 10 from step 2": _percentile(10, 2),
    "asha 2 from step 1": _asha(2),
    "asha 2 from step 2": _asha(2, 2),
    "asha 3 from step 2": _asha(3, 2),
    "asha 4 from step 1": _asha(4),
    "asha 4 from step 2": _asha(4, 2),
    "graded 75 / 50 / 25": _graded((75, 2), (50, 4), (25, 8)),
    "graded 75 / 50 / 25 late": _graded((75, 2), (50, 8), (25, 12)),
    "graded 90 / 75 / 50 / 25": _graded((90, 2), (75, 4), (50, 8), (25, 12)),
}


def replay_pruners(curves: Curves) -> None:
    """Every pruner on the same random orders of the recorded configurations."""
    table = _table("pruner", f"Recorded configurations, {SEEDS} random orders")
    for name in CANDIDATE_PRUNERS:
        table.add_row(*_row(name, _repeat(functools.partial(_in_order, curves, name), name)))
    Console(width=WIDTH).print(table)


def _in_order(curves: Curves, pruner: str, seed: int) -> Search:
    """The recorded configurations in a random order, and in another when they are used up."""
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(curves.errors)) for _ in itertools.count())
    rows = itertools.chain.from_iterable(orders)

    def draw(_: optuna.Trial) -> tuple[Errors, Errors, float]:
        row = next(rows)
        return curves.errors[row], curves.seconds[row], float(curves.errors[row, -1])

    study = optuna.create_study(pruner=CANDIDATE_PRUNERS[pruner](), study_name=f"replay-{seed}")
    return search(study, draw, curves.steps)


# --- samplers -----------------------------------------------------------------------------------


def _tpe(**options: Any) -> Callable[[int], samplers.BaseSampler]:
    return lambda seed: samplers.TPESampler(seed=seed, **options)


CANDIDATE_SAMPLERS: dict[str, Callable[[int], samplers.BaseSampler]] = {
    "tpe": _tpe(),
    "random": lambda seed: samplers.RandomSampler(seed=seed),
    "tpe, 20 random first": _tpe(n_startup_trials=20),
    "tpe, 5 random first": _tpe(n_startup_trials=5),
    "tpe, univariate": _tpe(multivariate=False),
    "tpe, 64 candidates": _tpe(n_ei_candidates=64),
}
"""By what they are called here -> from a seed to the sampler; the first is Optuna's default."""
OTHER_PRUNERS = ("none", "our median", "our percentile", "our hyperband")


@dataclasses.dataclass(frozen=True)
class Surrogate:
    """Predicts a curve for any configuration, from the recorded ones.

    Attributes:
        means: of log10(error), a model for each step.
        seconds: for each frozen depth, medians until each report.
        correlation: Spearman's, of final errors that were left out in a ten-fold check.
    """

    means: list[Any]
    seconds: dict[int, Errors]
    correlation: float

    def true(self, params: dict[str, Any]) -> Errors:
        """The errors of a configuration at each step."""
        features = _features(params)[np.newaxis]
        logs = np.array([model.predict(features)[0] for model in self.means])
        return np.minimum(10**logs, 1.0)

    def observe(self, true: Errors, generator: np.random.Generator) -> Errors:
        """What a validation finds; 1 where the trial diverges, NaN after it."""
        errors = generator.binomial(VALIDATION_IMAGES, true) / VALIDATION_IMAGES
        diverged = np.flatnonzero(errors[1:] >= GUESSING) + 1  # at the second report or later
        if len(diverged):
            errors[diverged[0]] = 1.0
            errors[diverged[0] + 1 :] = np.nan
        return errors


@functools.cache
def _space() -> dict[str, optuna.distributions.BaseDistribution]:
    space: dict[str, optuna.distributions.BaseDistribution] = load_study_file().space
    return space


def _features(params: dict[str, Any]) -> Errors:
    """A configuration as numbers, (17,): log rate, depth, and one number a level, 0 or 1."""
    levels = [
        params[name] == level for name in ("optimizer", "init") for level in _space()[name].choices
    ]
    return np.array([np.log10(params["learning_rate"]) / 2, params["frozen_layers"] / 4, *levels])


def fit_surrogate(curves: Curves) -> Surrogate:
    """Fit a Gaussian process on log10(error) for each step."""
    features = np.array([_features(params) for params in curves.params.to_dict("records")])
    logs = np.log10(np.maximum(np.nan_to_num(curves.errors, nan=1.0), 1e-4))
    kernel = ConstantKernel() * RBF(np.ones(features.shape[1]), (0.1, 30)) + WhiteKernel(0.05)

    def new() -> Any:
        return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)

    means = [new().fit(features, logs[:, step]) for step in range(logs.shape[1])]
    unseen = cross_val_predict(
        new(), features, logs[:, -1], cv=KFold(10, shuffle=True, random_state=0)
    )
    depths = curves.params["frozen_layers"].to_numpy()
    seconds = {
        int(depth): np.nanmedian(curves.seconds[depths == depth], axis=0)
        for depth in np.unique(depths)
    }
    correlation = float(spearmanr(unseen, logs[:, -1]).statistic)
    return Surrogate(means, seconds, correlation)


def replay_samplers(curves: Curves) -> None:
    """On the surrogate: every sampler with our default pruner, and Optuna's with other pruners."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound: the parameter matters little
        surrogate = fit_surrogate(curves)
    table = _table(
        "sampler; pruner",
        f"A surrogate (rank correlation {surrogate.correlation:.2f} on unseen configurations), "
        f"{SEEDS} seeds",
    )
    pairs = [(sampler, f"our {DEFAULT_PRUNER}") for sampler in CANDIDATE_SAMPLERS]
    pairs += [("tpe", pruner) for pruner in OTHER_PRUNERS]
    for sampler, pruner in pairs:
        once = functools.partial(_on_surrogate, surrogate, curves.steps, sampler, pruner)
        table.add_row(*_row(f"{sampler}; {pruner}", _repeat(once, f"{sampler}; {pruner}")))
    Console(width=WIDTH).print(table)


def _on_surrogate(
    surrogate: Surrogate, steps: npt.NDArray[np.int64], sampler: str, pruner: str, seed: int
) -> Search:
    """A search of the whole space."""
    generator = np.random.default_rng(seed)

    def draw(trial: optuna.Trial) -> tuple[Errors, Errors, float]:
        params = {name: trial._suggest(name, kind) for name, kind in _space().items()}
        true = surrogate.true(params)
        errors = surrogate.observe(true, generator)
        diverges = np.isnan(errors[-1]) or errors[-1] >= 1.0
        seconds = surrogate.seconds[params["frozen_layers"]]
        return errors, seconds, np.nan if diverges else float(true[-1])

    study = optuna.create_study(
        sampler=CANDIDATE_SAMPLERS[sampler](seed),
        pruner=CANDIDATE_PRUNERS[pruner](),
        study_name=f"replay-{seed}",
    )
    return search(study, draw, steps)


# --- what is printed ----------------------------------------------------------------------------


def _table(kind: str, title: str) -> Table:
    table = Table(title=title)
    table.add_column(kind)
    for column in (
        f"min for {TRIALS}", "best error", "its true error", "complete", "best pruned",
        "of top 10 % pruned", *(f"best in {minutes} min" for minutes in MINUTES),
        *(f"min to {goal:.1%}" for goal in GOALS),
    ):  # fmt: skip
        table.add_column(column, justify="right")
    return table


def _row(name: str, results: list[Search]) -> list[str]:
    """One line: means over the seeds, but the median of the minutes until an error is reached."""
    minutes = np.mean([found.after[:TRIALS].max() for found in results]) / 60
    best = np.array([found.best(trials=TRIALS) for found in results])
    true = np.mean([found.true[np.nanargmin(found.error[:TRIALS])] for found in results])
    completed = np.mean([np.isfinite(found.error[:TRIALS]).mean() for found in results])
    lost = np.mean(
        [
            np.nanmin(found.true[:TRIALS][found.pruned[:TRIALS]], initial=1.0) < error
            for found, error in zip(results, best, strict=True)
        ]
    )
    tenth = np.concatenate([_pruned_of_best_tenth(found) for found in results])
    within = [np.mean([found.best(seconds=60 * m) for found in results]) for m in MINUTES]
    reached = [np.median([found.seconds_to(goal) for found in results]) / 60 for goal in GOALS]
    return [
        name, f"{minutes:.1f}", f"{best.mean():.3%}", f"{true:.3%}",
        f"{completed:.0%}", f"{lost:.0%}", f"{tenth.mean():.0%}",
        *(f"{error:.3%}" for error in within),
        *(f"{value:.1f}" if np.isfinite(value) else "never" for value in reached),
    ]  # fmt: skip


def _pruned_of_best_tenth(found: Search) -> npt.NDArray[np.bool_]:
    """For each of the best tenth of the first configurations: whether it was pruned."""
    best = np.argsort(found.true[:TRIALS])[: TRIALS // 10]  # NaN is last
    return found.pruned[best]


def main() -> None:
    """Replay what the command line names."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    replays = {"pruners": replay_pruners, "samplers": replay_samplers}
    for name in sys.argv[1:] or list(replays):
        replays[name](load())


if __name__ == "__main__":
    main()
