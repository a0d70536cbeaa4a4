"""Which parameters matter, by two methods of Optuna, with an interval over trials.

PED-ANOVA (Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter
Importance in Arbitrary Subspaces", IJCAI 2023) asks what the best tenth of the trials has in
common. fANOVA (Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter
Importance", ICML 2014) asks which parameter explains the variance of the values, so the worst
trials weigh most. Both look at COMPLETE trials only, and a search that learns draws those where
values are good: a parameter it settled early looks less important than it is.
"""

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import (
    BaseImportanceEvaluator,
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState, create_trial

Direction = Literal["minimize", "maximize"]

PED_ANOVA, FANOVA = "PED-ANOVA", "fANOVA"
LEAST_TRIALS, LEAST_PARAMETERS = 10, 2

# Beyond that the squares of values, or the width of a range, are no numbers any more.
_TOO_LARGE = 1e150


@dataclass(frozen=True)
class Importance:
    """A parameter's share of all importance by one method; a method's shares add up to about 1.

    Attributes:
        parameter: its name.
        method: `PED_ANOVA` or `FANOVA`.
        median: over resamples, from 0 to 1.
        low, high: the 5 % and 95 % quantiles over resamples.
        trials: how many trials each resample has.
    """

    parameter: str
    method: str
    median: float
    low: float
    high: float
    trials: int


@dataclass(frozen=True)
class Importances:
    """The importances of a study's parameters.

    Attributes:
        found: one for each method and parameter, the greatest median first within a method.
        left_out: parameters that can't be judged, with the reason in words.
        trials: how many COMPLETE trials with a finite value there are.
    """

    found: tuple[Importance, ...]
    left_out: dict[str, str]
    trials: int


def importances(
    trials: Sequence[FrozenTrial], direction: Direction, generator: np.random.Generator
) -> Importances:
    """Importances with 90 % bootstrap intervals, of parameters that every COMPLETE trial has.

    fANOVA is left away without scikit-learn, and where it would take too long: from about ten
    levels of one parameter on.

    Args:
        trials: of one study; those that aren't COMPLETE or have no finite value don't count. Of
            several objectives the first counts.
        direction: "minimize" or "maximize".
        generator: which trials are resampled, and fANOVA's trees.

    Raises:
        ValueError: fewer than 10 trials count, all have the same value, values are too large to
            compare, or fewer than two parameters can be judged. It says so for people.
    """
    counted = [trial for trial in trials if _counts(trial)]
    if len(counted) < LEAST_TRIALS:
        raise ValueError(
            f"Importances need {LEAST_TRIALS} complete trials or more; there are {len(counted)}."
        )
    _check([trial.values[0] for trial in counted])
    space, left_out = _judged(counted)
    if len(space) < LEAST_PARAMETERS:
        raise ValueError(
            "Fewer than two parameters vary and are in every complete trial; a single one has all "
            "the importance."
        )
    chosen = np.arange(len(counted))
    if len(counted) > _MOST_DRAWN_FROM:
        chosen = np.sort(generator.choice(chosen, _MOST_DRAWN_FROM, replace=False))
    bare = [_bare(counted[i], space) for i in chosen]
    methods = [_ped_anova(space, len(bare)), _fanova(space, len(bare))]
    found = [
        importance
        for method in methods
        if method
        for importance in _resampled(bare, direction, method, generator)
    ]
    return Importances(tuple(found), left_out, len(counted))


def _counts(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and bool(np.isfinite(trial.values[0]))


def _check(values: list[float]) -> None:
    if max(map(abs, values)) > _TOO_LARGE:
        raise ValueError(f"Some values are beyond {_TOO_LARGE:g}, too large to be compared.")
    if len(set(values)) == 1:
        raise ValueError("All complete trials have the same value: no parameter made a difference.")


def _judged(trials: list[FrozenTrial]) -> tuple[dict[str, BaseDistribution], dict[str, str]]:
    """The parameters that can be judged with their ranges, and why the others can't."""
    everywhere = intersection_search_space(trials)
    space, left_out = {}, {}
    for name in dict.fromkeys(name for trial in trials for name in trial.distributions):
        if not all(name in trial.distributions for trial in trials):
            left_out[name] = "not in every trial"
        elif name not in everywhere:
            left_out[name] = "its range changed between trials"
        elif everywhere[name].single():
            left_out[name] = "it has one value only"
        elif _width(everywhere[name]) > _TOO_LARGE:
            left_out[name] = "its range is too wide"
        else:
            space[name] = everywhere[name]
    return space, left_out


def _width(distribution: BaseDistribution) -> float:
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return float(distribution.high - distribution.low)
    return 0.0


def _bare(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial without anything else, since a study copies all of each trial.

    What is searched on a log scale becomes its logarithm: Optuna's fANOVA weighs a parameter's
    values as they are, so that nine tenths of a learning rate would be its last power of ten. And
    real numbers become parts of their range: fANOVA multiplies the ranges, as single precision.
    """
    params, distributions = {}, {}
    for name, distribution in space.items():
        params[name], distributions[name] = trial.params[name], distribution
        if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            low, high = math.log10(distribution.low), math.log10(distribution.high)
            params[name] = _part(math.log10(trial.params[name]), low, high)
            distributions[name] = FloatDistribution(0, 1)
        elif isinstance(distribution, FloatDistribution):
            params[name] = _part(trial.params[name], distribution.low, distribution.high)
            distributions[name] = FloatDistribution(0, 1)
    return create_trial(value=trial.values[0], params=params, distributions=distributions)


def _part(value: float, low: float, high: float) -> float:
    """Where it stands in a range, from 0 to 1."""
    return min(max((value - low) / (high - low), 0.0), 1.0)


@dataclass(frozen=True)
class _Method:
    """How importances are found, and from how many resamples of how many trials."""

    name: str
    resamples: int
    size: int
    evaluator: Callable[[int], BaseImportanceEvaluator]  # of a seed


# What both methods may do in all, in units of 7 and of 50 microseconds of one core: 1 and 1.5 s.
# It is counted, not timed, so that a study's answer is the same everywhere.
_PED_ANOVA_WORK, _FANOVA_WORK = 120_000, 30_000
_MOST_TRIALS, _FEWER_TRIALS = 600, 50
_MOST_RESAMPLES, _LEAST_RESAMPLES = 40, 5
_FANOVA_TRIALS, _FANOVA_RESAMPLES = 120, 10
_MOST_DRAWN_FROM = 2_000
_MOST_TREES, _LEAST_TREES = 16, 3


def _ped_anova(space: dict[str, BaseDistribution], trials: int) -> _Method:
    """An answer takes time for each parameter and trial, and for each 15 levels as for another.

    With many parameters a resample has fewer trials, which makes the intervals wider than they
    would be, not narrower.
    """
    wide = len(space) + sum(_levels(space)) / 15
    affordable = int(_PED_ANOVA_WORK / _MOST_RESAMPLES / wide) - 100
    size = min(trials, _MOST_TRIALS, max(_FEWER_TRIALS, affordable))
    resamples = int(_PED_ANOVA_WORK / (wide * (100 + size)))
    resamples = min(_MOST_RESAMPLES, max(_LEAST_RESAMPLES, resamples))
    return _Method(PED_ANOVA, resamples, size, lambda _: PedAnovaImportanceEvaluator())


def _fanova(space: dict[str, BaseDistribution], trials: int) -> _Method | None:
    """As many trees as there is time for, or None where those are too few.

    Optuna has a column for each level, which is 0 or 1, and walks through a tree for every
    combination of a parameter's columns: 2 to the power of its levels. All else takes time for
    each trial, and a little for each parameter.
    """
    size = min(trials, _FANOVA_TRIALS)
    walks = sum(2.0 ** min(it, 64) for it in _levels(space))
    work = walks + size * (2 + len(space) / 8)
    trees = min(_MOST_TREES, int(_FANOVA_WORK / _FANOVA_RESAMPLES / work))
    if trees < _LEAST_TREES or not importlib.util.find_spec("sklearn"):
        return None
    return _Method(
        FANOVA,
        _FANOVA_RESAMPLES,
        size,
        lambda seed: FanovaImportanceEvaluator(n_trees=trees, seed=seed),
    )


def _levels(space: dict[str, BaseDistribution]) -> list[int]:
    """How many levels each categorical parameter has."""
    return [len(it.choices) for it in space.values() if isinstance(it, CategoricalDistribution)]


def _resampled(
    trials: list[FrozenTrial], direction: Direction, method: _Method, generator: np.random.Generator
) -> list[Importance]:
    """The shares by one method over resamples of the trials, drawn with replacement."""
    names = list(trials[0].params)
    drawn = []
    with _quiet():
        for _ in range(method.resamples):
            chosen = [trials[i] for i in generator.integers(len(trials), size=method.size)]
            evaluator = method.evaluator(int(generator.integers(2**31)))
            shares = _shares(chosen, direction, evaluator, names)
            if shares is not None:
                drawn.append(shares)
    if not drawn:
        return []
    low, median, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
    return [
        Importance(
            names[i], method.name, float(median[i]), float(low[i]), float(high[i]), method.size
        )
        for i in np.argsort(-median, kind="stable")
    ]


def _shares(
    trials: list[FrozenTrial],
    direction: Direction,
    evaluator: BaseImportanceEvaluator,
    names: list[str],
) -> list[float] | None:
    """The importances, normalised to sum 1; None where there is no difference to explain."""
    if len({trial.value for trial in trials}) == 1:
        return None
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    try:
        found = get_param_importances(study, evaluator=evaluator, params=names)
    except RuntimeError as error:
        if "zero total variance" in str(error):
            return None
        raise
    return [float(found[name]) for name in names]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines of studies in memory, and warnings of resamples that are alike."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Target and region quantiles select the same")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
