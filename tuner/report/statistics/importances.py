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
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
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
LEAST_TRIALS = 10

# Above that many trials fANOVA is too slow (5 s for one answer from 500 trials and its 64 trees).
_FANOVA_MOST = 500


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

    fANOVA is left away without scikit-learn and above 500 trials, where it is slow.

    Args:
        trials: of one study; those that aren't COMPLETE or have no finite value don't count. Of
            several objectives the first counts.
        direction: "minimize" or "maximize".
        generator: which trials are resampled, and fANOVA's trees.

    Raises:
        ValueError: fewer than 10 trials count, or all have the same value.
    """
    counted = [trial for trial in trials if _counts(trial)]
    if len(counted) < LEAST_TRIALS:
        raise ValueError(
            f"Importances need {LEAST_TRIALS} complete trials or more; there are {len(counted)}."
        )
    if len({trial.values[0] for trial in counted}) == 1:
        raise ValueError("All complete trials have the same value: no parameter made a difference.")
    space, left_out = _judged(counted)
    bare = [_bare(trial, space) for trial in counted]
    methods = [_PED_ANOVA]
    if len(bare) <= _FANOVA_MOST and importlib.util.find_spec("sklearn"):
        methods.append(_FANOVA)
    found = [
        importance
        for method in methods
        if space
        for importance in _resampled(bare, direction, method, generator)
    ]
    return Importances(tuple(found), left_out, len(counted))


def _counts(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and bool(np.isfinite(trial.values[0]))


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
        else:
            space[name] = everywhere[name]
    return space, left_out


def _bare(trial: FrozenTrial, space: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial without anything else, since a study copies all of each trial.

    What is searched on a log scale becomes its logarithm: Optuna's fANOVA weighs a parameter's
    values as they are, so that nine tenths of a learning rate would be its last power of ten.
    """
    params, distributions = {}, {}
    for name, distribution in space.items():
        params[name], distributions[name] = trial.params[name], distribution
        if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
            low, high = math.log10(distribution.low), math.log10(distribution.high)
            params[name] = min(max(math.log10(trial.params[name]), low), high)
            distributions[name] = FloatDistribution(low, high)
    return create_trial(value=trial.values[0], params=params, distributions=distributions)


@dataclass(frozen=True)
class _Method:
    """How importances are found, and from how many resamples of at most how many trials."""

    name: str
    resamples: int
    most_trials: int
    evaluator: Callable[[int], BaseImportanceEvaluator]  # of a seed


# Each takes 2 to 3 s at most with 6 parameters on one core (an answer takes 0.04 s from 600 trials
# and 0.2 s from 120 trials and 16 trees). Of more trials than that each resample takes so many,
# which makes the intervals wider than they would be, not narrower.
_PED_ANOVA = _Method(PED_ANOVA, 40, 600, lambda _: PedAnovaImportanceEvaluator())
_FANOVA = _Method(FANOVA, 12, 120, lambda seed: FanovaImportanceEvaluator(n_trees=16, seed=seed))


def _resampled(
    trials: list[FrozenTrial], direction: Direction, method: _Method, generator: np.random.Generator
) -> list[Importance]:
    """The shares by one method over resamples of the trials, drawn with replacement."""
    size = min(len(trials), method.most_trials)
    names = list(trials[0].params)
    drawn = []
    with _quiet():
        for _ in range(method.resamples):
            chosen = [trials[i] for i in generator.integers(len(trials), size=size)]
            evaluator = method.evaluator(int(generator.integers(2**31)))
            shares = _shares(chosen, direction, evaluator, names)
            if shares is not None:
                drawn.append(shares)
    if not drawn:
        return []
    low, median, high = np.quantile(drawn, (0.05, 0.5, 0.95), axis=0)
    return [
        Importance(names[i], method.name, float(median[i]), float(low[i]), float(high[i]), size)
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
