"""Parameters: what each is searched among, in words, and the levels that ``--compare`` deals to."""

from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.design import Design, confirmation
from tuner.errors import UsageError
from tuner.search import COMPARABLE_SAMPLERS, PAIRED_SAMPLERS, values_of
from tuner.study import Snapshot

# With more, each would get a few trials.
MOST_LEVELS = 50


def in_words(distribution: BaseDistribution) -> str:
    """What a parameter is searched among: ``0.0001 to 1, log``."""
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(str, distribution.choices))
    if isinstance(distribution, FloatDistribution | IntDistribution):
        scale = ", log" if distribution.log else ""
        plain = distribution.step is None or (
            isinstance(distribution, IntDistribution) and distribution.step == 1
        )
        step = "" if plain else f", in steps of {distribution.step:g}"
        kind = "whole, " if isinstance(distribution, IntDistribution) else ""
        return f"{kind}{distribution.low:g} to {distribution.high:g}{scale}{step}"
    return str(distribution)


def comparison(factor: str, sampler: str, snapshot: Snapshot) -> Design:
    """The design of ``run --compare``: an arm for each level of a parameter.

    Args:
        factor: the parameter.
        sampler: that draws the others.
        snapshot: of the study.

    Raises:
        UsageError: the parameter has no levels to compare, or the sampler can't be used for it.
    """
    levels = levels_of(factor, snapshot)
    if sampler not in COMPARABLE_SAMPLERS:
        raise UsageError(
            f"--compare cannot be used with the sampler {sampler!r}, which plans the whole study "
            f"at once; choose one of: {', '.join(sorted(COMPARABLE_SAMPLERS))}."
        )
    return Design([{factor: level} for level in levels], paired=sampler in PAIRED_SAMPLERS)


def design_of(
    compare: str | None, configurations: list[dict[str, Any]], sampler: str, snapshot: Snapshot
) -> Design | None:
    """The design of a study by what the database says of it; None where it has no arms.

    Args:
        compare: the parameter whose levels share the budget equally, or None.
        configurations: that a confirmation re-runs.
        sampler: of the run.
        snapshot: of the study.

    Raises:
        UsageError: see `comparison`.
    """
    if configurations:
        return confirmation(configurations)
    return None if compare is None else comparison(compare, sampler, snapshot)


def check_compare(compare: str, sampler: str, pruner: str, snapshot: Snapshot, target: int) -> None:
    """Refuse a comparison that cannot be made.

    Raises:
        UsageError: see `comparison`; or there are fewer trials than levels, several objectives, or
            the pruner would not treat the levels alike.
    """
    if snapshot.more_objectives:
        raise UsageError(
            f"--compare {compare} asks which level is best, and {snapshot.file} has "
            f"{len(snapshot.metrics)} objectives, of which none decides; leave it out."
        )
    if pruner == "hyperband":
        raise UsageError(
            "--compare cannot be used with the pruner 'hyperband', which deals trials to brackets "
            "of its own, so that levels would be trained unequally; choose another pruner."
        )
    levels = len(comparison(compare, sampler, snapshot).arms)
    if target < levels:
        raise UsageError(
            f"--compare {compare} has {levels} levels, and --trials {target} leaves some without a "
            f"trial; ask for at least {levels}, better for ten times as many."
        )


def levels_of(factor: str, snapshot: Snapshot) -> list[Any]:
    """The levels of a parameter, in the order of its declaration.

    Raises:
        UsageError: there is no such parameter, or it has no levels or too many.
    """
    space = snapshot.distributions()
    if space is None:
        raise UsageError(
            f"{snapshot.file} declares no space, so the levels of {factor!r} are not known before "
            "the trials; declare space in the study file."
        )
    with_levels = {}
    for name, distribution in space.items():
        levels = values_of(distribution, at_most=MOST_LEVELS)
        if levels is not None and len(levels) > 1:
            with_levels[name] = levels
    if factor not in with_levels:
        there = f"{factor} = {space[factor]}" if factor in space else repr(factor)
        what = "has no levels to compare" if factor in space else "is not a parameter"
        instead = ", ".join(with_levels) or "there are none"
        raise UsageError(
            f"{there} {what} of {snapshot.file}; with 2 to {MOST_LEVELS} levels: {instead}."
        )
    return with_levels[factor]
