"""Which design names the right optimizer? Simulated searches and confirmations at equal budgets.

    python -m tests.benchmarks.designs            # 100 replicates a line, 45 minutes
    python -m tests.benchmarks.designs 10         # so many

A budget is a number of epochs of training, whatever they are spent on: a trial that was pruned
costs the epochs that it ran. With it, a design searches the MNIST study's space, and names an
optimizer:

- *adaptive*, *random*: one search with successive halving; the optimizer of the best trial seen;
- *compare, adaptive*: as ``run --compare optimizer``: a search for each level, dealt in turn;
- *compare, random*: likewise, and the levels share all other draws and their seeds;
- *..., then confirm*: a part of the budget for the search; with the rest the best configuration of
  each level, or the five best, run to the end on as many shared fresh seeds as can be paid; the
  configuration with the lowest mean.

Truths are those of `tests.benchmarks.coverage`: drawn anew by formula for each replicate, or
learned from the recorded MNIST curves. A run has the luck of its own seed and of the seed that it
shares with others (5 % of its error each), and of 10,000 images.

Printed: how often the named optimizer is the one with the lowest possible error (with a Wilson
interval), or one within 0.1 point of that; by how much the true error of the configuration that was
picked is above the lowest possible one; how often a confirmation's winner was *clear* (see
`tuner.report.verdicts`), and how often it then was not the best of those confirmed.
"""

import concurrent.futures
import dataclasses
import functools
import itertools
import math
import multiprocessing
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Table
from statsmodels.stats.proportion import proportion_confint

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
from tuner.candidates import Candidate, best, best_of_levels
from tuner.design import Design
from tuner.report.plots.confirmed import LEAST_SEEDS
from tuner.report.statistics.paired import compare
from tuner.report.verdicts import CLEAR_FROM
from tuner.search import DEFAULT_PRUNER, PAIRED_SAMPLERS, SearchContext, make_pruner, make_sampler

REPLICATES = 100
BUDGETS = (420,)  # epochs: of a search of about 100 trials, and of 7 x 10 re-runs
EPOCHS = samples.STEPS[-1] / 4  # of a whole training
TOP = 5
NEAR = 0.001  # 0.1 point
LEVELS: tuple[Any, ...] = samples.SPACE["optimizer"].choices  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to spend a budget.

    Attributes:
        sampler: of the search.
        arms: each optimizer is searched by itself.
        search: the part of the budget that the search gets.
        confirms: what is confirmed with the rest: "levels", "top" or nothing.
    """

    sampler: str
    arms: bool = False
    search: float = 1.0
    confirms: str = ""


WAYS = {
    "adaptive": Way("tpe"),
    "random": Way("random"),
    "compare, adaptive": Way("tpe", arms=True),
    "compare, random": Way("random", arms=True),
    "adaptive 25 %, then confirm the 5 best": Way("tpe", search=0.25, confirms="top"),
    "adaptive 60 %, then confirm the 5 best": Way("tpe", search=0.6, confirms="top"),
    "compare, adaptive 25 %, then confirm": Way("tpe", arms=True, search=0.25, confirms="levels"),
    "compare, adaptive 60 %, then confirm": Way("tpe", arms=True, search=0.6, confirms="levels"),
    "compare, random 25 %, then confirm": Way("random", arms=True, search=0.25, confirms="levels"),
}


@dataclasses.dataclass
class Spent:
    """Counts epochs."""

    epochs: float = 0.0
    trials: int = 0


@dataclasses.dataclass(frozen=True)
class Found:
    """What a design came to, once.

    Attributes:
        right: it named the optimizer with the lowest possible error.
        near: or one whose lowest possible error is within 0.1 point of that.
        regret: of the configuration that was picked, in points of error.
        clear: a confirmation called its winner clear; None without one.
        wrong: and it was not the best of those confirmed.
        trials, epochs: that were spent.
    """

    right: bool
    near: bool
    regret: float
    clear: bool | None
    wrong: bool
    trials: int
    epochs: float


def replicate(way: str, budget: int, source: str, seed: int) -> Found:
    """Search, perhaps confirm, and name an optimizer."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    chosen = WAYS[way]
    truth = draw_truth(seed) if source == "formula" else recorded_truth()
    generator = np.random.default_rng((seed, 3))
    spent = Spent()
    trials = _search(chosen, truth, seed, generator, spent, budget * chosen.search)
    clear, wrong = None, False
    if chosen.confirms:
        picked, clear, wrong = _confirm(chosen, truth, trials, generator, spent, budget)
    else:
        picked = best(trials, 1, maximize=False)[0].params
    optima = truth.grid.min(axis=(0, 2, 3))
    level = LEVELS.index(picked["optimizer"])
    behind = 10 ** optima[level] - 10 ** optima.min()
    regret = 10 ** float(truth.log_error(*places_of(picked), 20)) - 10 ** truth.grid.min()
    return Found(
        right=bool(behind == 0.0),
        near=bool(behind <= NEAR),
        regret=100 * float(regret),
        clear=clear,
        wrong=wrong,
        trials=spent.trials,
        epochs=spent.epochs,
    )


def _search(
    way: Way,
    truth: Truth,
    seed: int,
    generator: np.random.Generator,
    spent: Spent,
    epochs: float,
) -> list[FrozenTrial]:
    """Trials of one search, as `tuner run` deals and samples them, until the epochs are spent."""
    arms = [{"optimizer": level} for level in LEVELS] if way.arms else [{}]
    design = Design(arms, paired=way.arms and way.sampler in PAIRED_SAMPLERS)
    pruner = make_pruner(DEFAULT_PRUNER, samples.SNAPSHOT)
    studies = [optuna.create_study(pruner=pruner, study_name=f"{arm}") for arm in range(len(arms))]
    known = [IntersectionSearchSpace(include_pruned=True) for _ in arms]
    luck: dict[int, float] = {}  # of a block's seed
    for number in itertools.count():
        if spent.epochs >= epochs and number >= len(arms):
            break
        arm = design.next_arm({at: len(it.trials) for at, it in enumerate(studies)})
        study, block = studies[arm], len(studies[arm].trials)
        context = SearchContext(seed, block if design.paired else number, samples.SPACE, known[arm])
        study.sampler = make_sampler(way.sampler, context)
        if arms[arm]:
            study.enqueue_trial(arms[arm])
        shared = luck.setdefault(block if way.arms else number, float(generator.normal(0, LUCK)))
        _run(study, truth, shared + float(generator.normal(0, LUCK)), generator, spent)
    return [trial for study in studies for trial in study.get_trials(deepcopy=False)]


def _run(
    study: optuna.Study,
    truth: Truth,
    luck: float,
    generator: np.random.Generator,
    spent: Spent,
) -> None:
    """One trial of a search."""
    trial = study.ask(fixed_distributions=samples.SPACE)
    spent.trials += 1
    before = 0
    for step in samples.STEPS:
        spent.epochs += (step - before) / 4
        before = step
        error = _observed(truth, trial.params, step, luck, generator)
        if error >= GUESSING and step > samples.STEPS[0]:
            trial.report(1.0, step)
            trial.set_user_attr("outcome", "diverged")
            study.tell(trial, state=TrialState.PRUNED)
            return
        trial.report(error, step)
        if step < samples.STEPS[-1] and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, error)


def _observed(
    truth: Truth, params: dict[str, Any], step: int, luck: float, generator: np.random.Generator
) -> float:
    expected = 10 ** (float(truth.log_error(*places_of(params), step)) + luck)
    return float(generator.binomial(IMAGES, min(expected, 1.0))) / IMAGES


def _confirm(
    way: Way,
    truth: Truth,
    trials: list[FrozenTrial],
    generator: np.random.Generator,
    spent: Spent,
    budget: float,
) -> tuple[dict[str, Any], bool, bool]:
    """Re-run configurations on shared seeds; the winner's, whether it is clear, and wrong then."""
    candidates: list[Candidate]
    if way.confirms == "top":
        candidates = best(trials, TOP, maximize=False)
    else:
        found = best_of_levels(trials, "optimizer", LEVELS, maximize=False)
        candidates = [found[place] for place in sorted(found)]
    seeds = max(2, math.floor((budget - spent.epochs) / EPOCHS / len(candidates)))
    spent.epochs += seeds * len(candidates) * EPOCHS
    errors = np.array([
        [
            _observed(truth, it.params, 20, shared + float(generator.normal(0, LUCK)), generator)
            for it in candidates
        ]
        for shared in generator.normal(0, LUCK, seeds)
    ])  # fmt: skip
    if len(candidates) < 2:
        return candidates[0].params, False, False
    compared = compare(errors)
    clear = compared.p_best[compared.winner] >= CLEAR_FROM and seeds >= LEAST_SEEDS
    true = [float(truth.log_error(*places_of(it.params), 20)) for it in candidates]
    wrong = clear and compared.winner != int(np.argmin(true))
    return candidates[compared.winner].params, clear, wrong


def measure(way: str, budget: int, source: str, replicates: int) -> list[Found]:
    """Replicate a design so often, two at a time."""
    context = multiprocessing.get_context("fork")
    if source == "recorded":
        recorded_truth()  # once, before the fork
    once = functools.partial(replicate, way, budget, source)
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        each = pool.map(once, range(replicates))
        return list(track(each, description=f"{way}, {source}", total=replicates, transient=True))


def row(way: str, found: list[Found]) -> list[str]:
    """A line of the table."""
    right, count = sum(it.right for it in found), len(found)
    low, high = proportion_confint(right, count, method="wilson")
    regrets = np.array([it.regret for it in found])
    clear = [it for it in found if it.clear]
    return [
        way,
        f"{np.mean([it.trials for it in found]):.0f}",
        f"{np.mean([it.epochs for it in found]):.0f}",
        f"{right / count:.0%} ({low:.0%} to {high:.0%})",
        f"{np.mean([it.near for it in found]):.0%}",
        f"{np.median(regrets):.3f}",
        f"{regrets.mean():.3f}",
        "" if found[0].clear is None else f"{len(clear)}, {sum(it.wrong for it in clear)}",
    ]


def tables(replicates: int) -> Iterator[Table]:
    """A table for each truth and budget, as soon as it is whole."""
    for budget, source in itertools.product(BUDGETS, ("formula", "recorded")):
        table = Table(title=f"truth {source}, {budget} epochs, {replicates} replicates")
        for column in (
            "design", "trials", "epochs", "right optimizer (95 %)", "within 0.1 point",
            "regret, points: median", "mean", "clear, of these wrong",
        ):  # fmt: skip
            table.add_column(column)
        for way in WAYS:
            table.add_row(*row(way, measure(way, budget, source, replicates)))
        yield table


def main() -> None:
    """Print the tables."""
    replicates = int(sys.argv[1]) if len(sys.argv) > 1 else REPLICATES
    for table in tables(replicates):
        Console(width=150).print(table)


if __name__ == "__main__":
    main()
