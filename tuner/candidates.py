"""Which configurations of a search are worth confirming, or trying first in another study."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import UsageError
from tuner.outcomes import DIVERGED, breaks_constraint
from tuner.settings import RunSettings
from tuner.storage import Database, find_study, storage_errors
from tuner.storage.attributes import OUTCOME_ATTR
from tuner.study import Snapshot

TAKEN_OVER = 5
"""Configurations that ``run --from-study`` tries first: few beside a hundred trials."""


@dataclass(frozen=True)
class Candidate:
    """A configuration of a search, by the best of its trials.

    Attributes:
        number: the trial's.
        params: its parameters.
        value: its last one.
        pruned_at: the step after which it was pruned; None: it ran to its end.
    """

    number: int
    params: dict[str, Any]
    value: float
    pruned_at: int | None


def best(trials: Iterable[FrozenTrial], count: int, *, maximize: bool) -> list[Candidate]:
    """The configurations with the best values, best first; equal ones count once.

    Args:
        trials: of the search; those that ran to their end and keep to every constraint count.
        count: how many, at most.
        maximize: whether a greater value is better.
    """
    complete = (
        it for it in trials if it.state == TrialState.COMPLETE and not breaks_constraint(it)
    )
    return _ranked(complete, maximize=maximize)[:count]


def fitting(
    candidates: Iterable[Candidate], space: Mapping[str, BaseDistribution] | None
) -> list[Candidate]:
    """The configurations as another space has them, in the same order; equal ones count once.

    Parameters that the space has not are left out, and those that it has besides are to be sampled.
    A configuration with a value outside of it does not fit, nor one that shares no parameter.

    Args:
        candidates: of a study.
        space: of the other one; None: its objective suggests, so that all may fit.
    """
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        shared = {
            name: value
            for name, value in candidate.params.items()
            if space is None or name in space
        }
        if shared and (space is None or all(_holds(space[it], shared[it]) for it in shared)):
            key = repr(sorted(shared.items()))
            found.setdefault(key, replace(candidate, params=shared))
    return list(found.values())


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a parameter of this distribution may have the value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False


def to_take_over(
    settings: RunSettings, database: Database, snapshot: Snapshot, compare: str | None
) -> list[Candidate]:
    """The configurations that ``--from-study`` asks for, the best first; none without it.

    Raises:
        UsageError: there is no such study, or nothing of it can be tried here.
    """
    name = settings.from_study
    if name is None:
        return []
    if compare is not None:
        raise UsageError(
            f"--from-study {name} would give some levels of {compare} more than the others, which "
            "--compare keeps equal; leave one of the two out."
        )
    if settings.sampler == "grid":
        raise UsageError(
            f"--from-study {name} cannot be used with the sampler 'grid', which has a plan of its "
            "own; leave one of the two out."
        )
    if name == settings.study:
        raise UsageError(f"--from-study {name} names the study itself; name another one.")
    source = find_study(database, name)
    with storage_errors(database.url):
        directions = database.storage.get_study_directions(source)
        trials = database.storage.get_all_trials(source, deepcopy=False)
    if len(directions) > 1:
        raise UsageError(
            f"--from-study {name} has {len(directions)} objectives, and so no best configurations; "
            "name a study with one."
        )
    found = best(trials, len(trials), maximize=directions[0] is StudyDirection.MAXIMIZE)
    chosen = fitting(found, snapshot.distributions())
    if not chosen:
        raise UsageError(
            f"--from-study {name} has no configuration that fits: "
            + (
                f"none of its {len(found)} complete trials has parameters within the space of "
                f"{snapshot.file}."
                if found
                else "none of its trials is complete and keeps to its constraints."
            )
        )
    return chosen[:TAKEN_OVER]


def best_of_levels(
    trials: Sequence[FrozenTrial], factor: str, levels: Sequence[Any], *, maximize: bool
) -> dict[int, Candidate]:
    """The best configuration of each level of a parameter, by the level's place.

    Where no trial of a level ran to its end, it is the one that came furthest, and of equals the
    one with the best value there. A level without a trial, or with diverged ones only, is left out.

    Args:
        trials: of the search.
        factor: the parameter.
        levels: of it.
        maximize: whether a greater value is better.
    """
    ended = [
        trial
        for trial in trials
        if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
        and trial.user_attrs.get(OUTCOME_ATTR) != DIVERGED
        and not breaks_constraint(trial)
    ]
    found = {}
    for place, level in enumerate(levels):
        of_level = (it for it in ended if _is_level(it.params.get(factor), level))
        if ranked := _ranked(of_level, maximize=maximize):
            found[place] = ranked[0]
    return found


def _is_level(value: object, level: object) -> bool:
    """Whether a parameter has a level: True is not 1, and steps of a float are not exact."""
    if isinstance(value, float) and isinstance(level, float):
        return math.isclose(value, level, rel_tol=1e-9, abs_tol=1e-12)
    return type(value) is type(level) and value == level


def _ranked(trials: Iterable[FrozenTrial], *, maximize: bool) -> list[Candidate]:
    def key(candidate: Candidate) -> tuple[bool, int, float, int]:
        value = -candidate.value if maximize else candidate.value
        step = candidate.pruned_at
        return step is not None, -(step or 0), value, candidate.number

    candidates = [
        Candidate(
            trial.number,
            dict(trial.params),
            trial.value,
            None if trial.state == TrialState.COMPLETE else trial.last_step,
        )
        for trial in trials
        if trial.value is not None
    ]
    distinct: dict[str, Candidate] = {}
    for candidate in sorted(candidates, key=key):
        distinct.setdefault(repr(sorted(candidate.params.items())), candidate)
    return list(distinct.values())
