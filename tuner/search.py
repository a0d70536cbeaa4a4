"""Samplers and pruners by name: one registry of each decides the names everywhere."""

import contextlib
import importlib.util
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna import pruners, samplers
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.search_space import IntersectionSearchSpace

from tuner.errors import UsageError
from tuner.seeds import sampler_seed
from tuner.study import Snapshot

# Optuna's own default for one objective: multivariate, with constant liar for parallel workers.
DEFAULT_SAMPLER = "tpe"
# By replays of recorded MNIST curves (python -m tests.benchmarks.replay): with TPE, 100 trials take
# 9 simulated minutes with asha, 17 with hyperband, 25 with percentile 75; in equal time asha's best
# is the better one, in equal trials percentile's (by 0.05 points of true error).
DEFAULT_PRUNER = "asha"
# The better three quarters of the completed trials' values at a step go on: Optuna's benchmark
# (optuna/optuna#2906) found no better share.
KEPT_PERCENT = 75.0
# No pruning before this many trials completed: nothing to compare with.
STARTUP_TRIALS = 5
# No pruning before this step: where steps count from 1, a trial is judged from its second report.
WARMUP_STEPS = 2
# Hyperband and ASHA: each rung keeps one trial in this many.
REDUCTION_FACTOR = 3
# Patient: reports without an improvement before the percentile is asked.
PATIENCE_REPORTS = 2
# Optuna lists and shuffles the whole grid for each trial.
MOST_GRID_POINTS = 100_000


@dataclass(frozen=True)
class SearchContext:
    """What a sampler is built from, anew for each trial.

    Attributes:
        study_seed: for what all trials share: a grid's order, a quasi-random sequence.
        number: the trial's number, or its block where arms share their draws.
        space: the declared space, or None for a define-by-run study.
        known: what all trials' spaces have in common, as far as earlier samplers of this process
            have looked; from a new one, Optuna would go through all trials for each trial.
        paired: trials of one number, in several arms, share the draw of each parameter.
    """

    study_seed: int
    number: int
    space: dict[str, BaseDistribution] | None
    known: IntersectionSearchSpace | None = None
    paired: bool = False

    @property
    def seed(self) -> int:
        """For what differs between trials, in [0, 2**31)."""
        return sampler_seed(self.study_seed, self.number)


class _NumberedQmcSampler(samplers.QMCSampler):
    """Takes the point of the sequence that has the trial's number.

    Optuna counts in a study attribute, read and written without a lock, so that two workers can
    take the same point.
    """

    def __init__(self, context: SearchContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The numbers of the declared space.

        Optuna infers it from earlier trials, running ones too, whose parameters are perhaps not
        all there yet; it still does for a define-by-run study.
        """
        if self._context.space is None:
            return super().infer_relative_search_space(study, trial)
        return {
            name: distribution
            for name, distribution in self._context.space.items()
            if not isinstance(distribution, CategoricalDistribution) and not distribution.single()
        }

    def _find_sample_id(
        self,
        study: optuna.Study,  # noqa: ARG002 - the method's signature in Optuna
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> int:
        return self._context.number


def _tpe(context: SearchContext) -> samplers.BaseSampler:
    sampler = samplers.TPESampler(seed=context.seed)
    if context.known is not None and context.space is not None:  # the same for all trials
        sampler._search_space = context.known
    return sampler


class _PairedRandomSampler(samplers.RandomSampler):
    """Draws each parameter by its name: the same whatever else an objective suggests before."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See `optuna.samplers.BaseSampler.sample_independent`."""
        seed = sampler_seed(self._seed, zlib.crc32(param_name.encode()))
        drawn = samplers.RandomSampler(seed)
        return drawn.sample_independent(study, trial, param_name, param_distribution)


def _random(context: SearchContext) -> samplers.BaseSampler:
    if context.paired:
        return _PairedRandomSampler(context.seed)
    return samplers.RandomSampler(seed=context.seed)


def _qmc(context: SearchContext) -> samplers.BaseSampler:
    return _NumberedQmcSampler(
        context,
        scramble=True,
        seed=context.study_seed,
        independent_sampler=_random(context),
        warn_independent_sampling=False,
    )


def _gp(context: SearchContext) -> samplers.BaseSampler:
    return samplers.GPSampler(seed=context.seed)


def _cmaes(context: SearchContext) -> samplers.BaseSampler:
    return samplers.CmaEsSampler(
        seed=context.seed, independent_sampler=_random(context), warn_independent_sampling=False
    )


def _grid(context: SearchContext) -> samplers.BaseSampler:
    return samplers.GridSampler(grid_of(context.space), seed=context.study_seed)


def _nsga2(context: SearchContext) -> samplers.BaseSampler:
    return samplers.NSGAIISampler(seed=context.seed)


SAMPLERS: Mapping[str, Callable[[SearchContext], samplers.BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "qmc": _qmc,
    "gp": _gp,
    "cmaes": _cmaes,
    "grid": _grid,
    "nsga2": _nsga2,
}
# Those whose draws depend on no result: arms that are compared share them, see `tuner.design`.
PAIRED_SAMPLERS = frozenset({"random", "qmc"})
# Those that can search each arm by itself: the others keep a state of the whole study.
COMPARABLE_SAMPLERS = PAIRED_SAMPLERS | {"tpe", "gp", "cmaes"}
# Those that cannot serve several objectives.
_ONE_OBJECTIVE = frozenset({"cmaes"})
# Packages a sampler imports when it first samples.
_SAMPLER_PACKAGES = {"gp": ("torch", "scipy"), "cmaes": ("cmaes",), "qmc": ("scipy",)}


def _asha(_snapshot: Snapshot) -> pruners.BasePruner:
    return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION_FACTOR)


def _percentile(_snapshot: Snapshot) -> pruners.BasePruner:
    return pruners.PercentilePruner(
        KEPT_PERCENT, n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_STEPS
    )


def _median(_snapshot: Snapshot) -> pruners.BasePruner:
    return pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_STEPS)


def _patient(snapshot: Snapshot) -> pruners.BasePruner:
    return pruners.PatientPruner(_percentile(snapshot), patience=PATIENCE_REPORTS)


def _hyperband(snapshot: Snapshot) -> pruners.BasePruner:
    if snapshot.max_step is None:
        raise UsageError(
            f"The pruner 'hyperband' must know the greatest step; add max_step = N to "
            f"{snapshot.file}, or choose another pruner."
        )
    return pruners.HyperbandPruner(
        min_resource=1, max_resource=snapshot.max_step, reduction_factor=REDUCTION_FACTOR
    )


def _none(_snapshot: Snapshot) -> pruners.BasePruner:
    return pruners.NopPruner()


PRUNERS: Mapping[str, Callable[[Snapshot], pruners.BasePruner]] = {
    "asha": _asha,
    "percentile": _percentile,
    "median": _median,
    "patient": _patient,
    "hyperband": _hyperband,
    "none": _none,
}


def rungs(name: str, snapshot: Snapshot) -> list[list[int]]:
    """The steps at which a pruner lets the best third of the trials go on.

    A trial that has reported its last step is judged no more, see `tuner.finetune`; an objective
    that asks there, too, can still be pruned.

    Returns:
        For each bracket its rungs in order; asha has one bracket, hyperband several, the others
        none. Without a greatest step, the first three rungs.
    """
    last = snapshot.max_step or REDUCTION_FACTOR**2
    steps: list[int] = []
    while REDUCTION_FACTOR ** len(steps) <= last:
        steps.append(REDUCTION_FACTOR ** len(steps))
    if name == "asha":
        return [steps]
    if name == "hyperband":
        # Optuna's own expression, in floats: at 243 it gives one bracket less than there might be.
        brackets = math.floor(math.log(last, REDUCTION_FACTOR)) + 1
        return [steps[bracket:] for bracket in range(brackets)]
    return []


# What the other pruners do, in words.
PRUNING_IN_WORDS = {
    "percentile": f"from step {WARMUP_STEPS} on and after {STARTUP_TRIALS} complete trials, those "
    f"whose best value so far is among the better {KEPT_PERCENT:g} % go on at each report",
    "median": f"from step {WARMUP_STEPS} on and after {STARTUP_TRIALS} complete trials, those "
    "whose best value so far is among the better half go on at each report",
    "patient": f"as percentile, but a trial that improved within its last {PATIENCE_REPORTS} "
    "reports goes on",
    "none": "every trial runs to its end",
}


def make_sampler(name: str, context: SearchContext) -> samplers.BaseSampler:
    """A sampler for one trial; see `check_search` for the names' errors."""
    with _experiments_allowed():
        return SAMPLERS[name](context)


def make_pruner(name: str, snapshot: Snapshot) -> pruners.BasePruner:
    """A pruner for a study."""
    with _experiments_allowed():
        return PRUNERS[name](snapshot)


@contextlib.contextmanager
def _experiments_allowed() -> Iterator[None]:
    """Optuna warns of what may change in a later version; ours is pinned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def pruner_for(snapshot: Snapshot, asked: str) -> str:
    """The pruner's name that a study gets: none where it has several objectives.

    Optuna's pruners compare one value.
    """
    return "none" if snapshot.more_objectives else asked


def check_search(sampler: str, pruner: str, snapshot: Snapshot, target: int) -> None:
    """Refuse a sampler or pruner that cannot serve this study.

    Raises:
        UsageError: a package is missing, or the study lacks what the sampler or pruner needs.
    """
    for package in _SAMPLER_PACKAGES.get(sampler, ()):
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"The sampler {sampler!r} needs the package {package}, which is not installed; "
                f"run `pip install {package}`, or choose another of: {', '.join(SAMPLERS)}."
            )
    if snapshot.more_objectives and sampler in _ONE_OBJECTIVE:
        others = ", ".join(name for name in SAMPLERS if name not in _ONE_OBJECTIVE)
        raise UsageError(
            f"The sampler {sampler!r} searches for one objective, and {snapshot.file} has "
            f"{len(snapshot.metrics)}; choose one of: {others}."
        )
    if sampler == "grid":
        points = math.prod(len(values) for values in grid_of(snapshot.distributions()).values())
        if points > MOST_GRID_POINTS:
            raise UsageError(
                f"The grid of {snapshot.file} has {points:,} points, more than the "
                f"{MOST_GRID_POINTS:,} that can be listed; use coarser steps, or another sampler."
            )
        if target > points:
            raise UsageError(
                f"The grid of {snapshot.file} has {points} points, fewer than the {target} trials "
                f"asked for; ask for {points}, or choose another sampler."
            )
    make_pruner(pruner, snapshot)


def grid_of(space: dict[str, BaseDistribution] | None) -> dict[str, list[Any]]:
    """Every value of every parameter.

    Raises:
        UsageError: there is no declared space, or a parameter is continuous.
    """
    if space is None:
        raise UsageError(
            "The sampler 'grid' must know the space before the first trial; declare space in the "
            "study file, or choose another sampler."
        )
    return {name: _values(name, distribution) for name, distribution in space.items()}


def _values(name: str, distribution: BaseDistribution) -> list[Any]:
    values = values_of(distribution)
    if values is None:
        raise UsageError(
            f"The sampler 'grid' cannot list the values of {name} = {distribution}; give it a "
            "step, make it categorical, or choose another sampler."
        )
    return values


def values_of(distribution: BaseDistribution, at_most: int | None = None) -> list[Any] | None:
    """Every value of a parameter, in order; None where they cannot be listed, or are too many."""
    if isinstance(distribution, CategoricalDistribution):
        count, values = len(distribution.choices), list(distribution.choices)
        return values if at_most is None or count <= at_most else None
    step = distribution.step if isinstance(distribution, FloatDistribution) else None
    if isinstance(distribution, IntDistribution) and not distribution.log:
        step = distribution.step
    if step is None:
        return None
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    count = round((high - low) / step) + 1
    if at_most is not None and count > at_most:
        return None
    return [min(low + i * step, high) for i in range(count)]  # as Optuna: never above
