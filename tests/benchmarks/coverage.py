"""Are the report's intervals and verdicts to be believed? Simulated studies with a known truth.

    python -m tests.benchmarks.coverage            # 200 studies a design, about half an hour
    python -m tests.benchmarks.coverage 20         # so many studies a design

Each study has another truth, drawn at random: which optimizer is best and by how much, each one's
best learning rate, what init and frozen depth do and how they interact, where training diverges.
Trials have the luck of a run and of 10,000 validation images. Designs:

- *balanced*: every optimizer gets the same random settings, nothing is pruned;
- *balanced, final values only*: the same, without intermediate values, as many studies have;
- *balanced, pruned*: the same, pruned by successive halving as in the MNIST study;
- *adaptive*: Optuna's TPE with successive halving, the MNIST study's default.

And on a truth that was learned from the recorded MNIST curves (`tests.benchmarks.replay`) instead.

Printed for each factor: how many 95 % intervals of tuned levels hold the true error of a new run
there; how often the leader is the truly best level; how often a verdict's word is right; and the
regret of the pick: how much worse than the best of all configurations it is, beside the one with
the best observed value.
"""

import bisect
import concurrent.futures
import dataclasses
import functools
import itertools
import math
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests import samples
from tuner.report.factors import Knob
from tuner.report.model import knob_values, model_of

Array = npt.NDArray[np.float64]

STUDIES = 200
TRIALS = 105  # 15 for each of the seven optimizers
IMAGES = 10_000
LUCK = 0.02  # log10: 5 % of the error
DIVERGES_AFTER = 1.5  # log10 above the best learning rate, about
GUESSING = 0.88
RATES = np.linspace(-4, 0, 41)  # log10, where the best configuration is looked for
OPTIMIZERS, INITS, DEPTHS = 7, 8, 5


@dataclasses.dataclass(frozen=True)
class Truth:
    """Errors of all configurations, as functions of learning rate and places of levels."""

    log_error: Callable[
        [Array, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], int], Array
    ]
    """log10 of the expected error: (log10 rate, optimizer, init, depth, step); 0 if it diverges."""

    @functools.cached_property
    def grid(self) -> Array:
        """At the last step, `(rates, optimizers, inits, depths)`."""
        axes = np.meshgrid(
            RATES, np.arange(OPTIMIZERS), np.arange(INITS), np.arange(DEPTHS), indexing="ij"
        )
        return self.log_error(*axes, 20)


def draw_truth(seed: int, crossing: float = 0.0) -> Truth:
    """A truth by formula: effects in log10(error), a bowl over log10(rate) for each optimizer.

    Args:
        seed: another truth for each.
        crossing: how differently levels learn, as the standard deviation of the log of how far
            their errors fall; what they end at is the same. With 0 who is ahead at the first report
            is mostly ahead at the last.
    """
    g = np.random.default_rng((seed, 1))
    best = g.uniform(-3.2, -0.8, OPTIMIZERS)
    width = g.uniform(0.12, 0.35, OPTIMIZERS)
    optimizer = np.abs(g.normal(0, 0.08, OPTIMIZERS))
    init = np.abs(g.normal(0, 0.03, INITS)) + (g.random(INITS) < 0.15) * 0.1
    depth = np.cumsum(np.abs(g.normal(0.02, 0.06, DEPTHS)))[:: g.choice([1, 1, 1, -1])]
    both = g.normal(0, 0.015, (OPTIMIZERS, INITS))
    shift = g.normal(0, 0.15, DEPTHS)
    floor, fall, power = g.uniform(-2.3, -2.0), g.uniform(0.6, 1.1), g.uniform(0.4, 0.8)
    other = np.random.default_rng((seed, 6))
    falls = [np.exp(other.normal(0, crossing, n)) for n in (OPTIMIZERS, INITS, DEPTHS)]

    def log_error(
        rate: Array,
        o: npt.NDArray[np.int64],
        i: npt.NDArray[np.int64],
        d: npt.NDArray[np.int64],
        step: int,
    ) -> Array:
        off = rate - best[o] - shift[d]
        final = floor + optimizer[o] + init[i] + depth[d] + both[o, i]
        final = final + np.where(off < 0, 1.0, 1.6) * width[o] * off**2
        late = fall * falls[0][o] * falls[1][i] * falls[2][d] * (1 - 0.15 * np.tanh(off))
        late = late * (step**-power - 20**-power)
        diverges = off > DIVERGES_AFTER
        return np.where(diverges, 0.0, np.minimum(final + late, math.log10(0.85)))

    return Truth(log_error)


@functools.cache
def recorded_truth() -> Truth:
    """A truth learned from the recorded MNIST curves."""
    from tests.benchmarks.curves import load
    from tests.benchmarks.replay import fit_surrogate

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        surrogate = fit_surrogate(load())

    def log_error(
        rate: Array,
        o: npt.NDArray[np.int64],
        i: npt.NDArray[np.int64],
        d: npt.NDArray[np.int64],
        step: int,
    ) -> Array:
        shape = np.shape(rate)
        levels = np.concatenate(
            [np.eye(OPTIMIZERS)[np.ravel(o)], np.eye(INITS)[np.ravel(i)]], axis=1
        )
        features = np.column_stack([np.ravel(rate) / 2, np.ravel(d) / 4, levels])
        after = bisect.bisect_left(samples.STEPS, step)
        logs = surrogate.means[after].predict(features)
        if step < samples.STEPS[after]:  # between two that were recorded
            first, last = np.log(samples.STEPS[after - 1 : after + 1])
            share = (math.log(step) - first) / (last - first)
            before = surrogate.means[after - 1].predict(features)
            logs = share * logs + (1 - share) * before
        return np.minimum(logs, 0.0).reshape(shape)

    return Truth(log_error)


# --- designs ------------------------------------------------------------------------------------


def _search(
    truth: Truth, seed: int, *, adaptive: bool, pruned: bool, curves: bool = True
) -> list[optuna.trial.FrozenTrial]:
    """The trials of one study."""
    sampler = (
        optuna.samplers.TPESampler(seed=seed)
        if adaptive
        else optuna.samplers.RandomSampler(seed=seed)
    )
    pruner = (
        optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        if pruned
        else optuna.pruners.NopPruner()
    )
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    g = np.random.default_rng((seed, 2))
    shared: dict[str, Any] = {}
    for number in range(TRIALS):
        if not adaptive:  # the levels of the first factor share their draws of all else
            place = number % OPTIMIZERS
            if place == 0:
                shared = {
                    "learning_rate": float(10 ** g.uniform(-4, 0)),
                    "init": _choices("init")[g.integers(INITS)],
                    "frozen_layers": int(g.integers(DEPTHS)),
                }
            study.enqueue_trial({**shared, "optimizer": _choices("optimizer")[place]})
        _run(study, truth, g, curves=curves)
    return study.get_trials(deepcopy=False)


def _run(study: optuna.Study, truth: Truth, g: np.random.Generator, *, curves: bool) -> None:
    trial = study.ask(fixed_distributions=samples.SPACE)
    luck = g.normal(0, LUCK)
    where = places_of(trial.params)
    for place, step in enumerate(samples.STEPS):
        expected = 10 ** (float(truth.log_error(*where, step)) + luck)
        error = g.binomial(IMAGES, min(expected, 1.0)) / IMAGES
        if error >= GUESSING and place > 0:
            if curves:
                trial.report(1.0, step)
            trial.set_user_attr("outcome", "diverged")
            study.tell(trial, state=TrialState.PRUNED)
            return
        if curves:
            trial.report(error, step)
        if step < samples.STEPS[-1] and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, error)


def _choices(name: str) -> tuple[Any, ...]:
    return samples.SPACE[name].choices  # type: ignore[attr-defined, no-any-return]


def places_of(params: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """A configuration as `Truth.log_error` takes it."""
    return (
        np.array(math.log10(params["learning_rate"])),
        np.array(_choices("optimizer").index(params["optimizer"])),
        np.array(_choices("init").index(params["init"])),
        np.array(params["frozen_layers"]),
    )


DESIGNS = {
    "balanced": {"adaptive": False, "pruned": False},
    "balanced, final values only": {"adaptive": False, "pruned": False, "curves": False},
    "balanced, pruned": {"adaptive": False, "pruned": True},
    "adaptive": {"adaptive": True, "pruned": True},
}
FACTORS = ("optimizer", "init", "frozen_layers")


@dataclasses.dataclass
class Found:
    """What one study's report said of one factor, beside the truth.

    Attributes:
        inside: `(levels,)`, whether the interval of a tuned level holds its true value.
        off: `(levels,)`, (estimate - truth) over the interval's half width.
        p_leader: the leader's probability to be the best.
        right: the leader is the level with the lowest possible error.
        points: by how much its lowest possible error is above that, in points of error.
        regret: of the leader's settings against the best configuration, as a ratio less one.
        regret_observed: of the trial with the best value.
    """

    inside: npt.NDArray[np.bool_]
    off: Array
    p_leader: float
    right: bool
    points: float
    regret: float
    regret_observed: float


def examine(design: str, source: str, seed: int) -> list[Found]:
    """Simulate a study, report on it, and compare with its truth."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    truth = draw_truth(seed) if source == "formula" else recorded_truth()
    results = samples.in_memory(_search(truth, seed, **DESIGNS[design]), attrs=samples.OURS)
    model = model_of(results)
    knob = next(it for it in model.columns if isinstance(it, Knob))
    lowest = truth.grid.min()
    observed = float("nan")
    if results.best is not None:
        params = results.params.loc[results.best].to_dict()
        params["frozen_layers"] = int(params["frozen_layers"])
        observed = 10 ** (float(truth.log_error(*places_of(params), 20)) - lowest) - 1
    found = []
    for axis, name in enumerate(FACTORS, start=1):
        factor = results.factor(name)
        tuned = model.tuned(factor)
        by_name = {it.name: tuned.settings[:, i] for i, it in enumerate(model.columns)}
        true = truth.log_error(
            np.log10(knob_values(knob, by_name[knob.name])),
            *(by_name[it].astype(np.int64) for it in FACTORS),
            20,
        )
        optimum = truth.grid.min(axis=tuple(i for i in range(4) if i != axis))
        leader = tuned.leader
        half = (tuned.high - tuned.low) / 2
        found.append(
            Found(
                inside=(tuned.low <= true) & (true <= tuned.high),
                off=(tuned.mean - true) / half,
                p_leader=float(tuned.p_best[leader]),
                right=bool(optimum[leader] == optimum.min()),
                points=float(100 * (10 ** optimum[leader] - 10 ** optimum.min())),
                regret=float(10 ** (true[leader] - lowest) - 1),
                regret_observed=observed,
            )
        )
    return found


def measure(design: str, source: str, studies: int) -> list[list[Found]]:
    """Examine so many studies, two at a time."""
    context = multiprocessing.get_context("fork")
    if source == "recorded":
        recorded_truth()  # once, before the fork
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        each = pool.map(functools.partial(examine, design, source), range(studies))
        return list(track(each, description=f"{design}, {source}", total=studies, transient=True))


def rows(design: str, source: str, found: list[list[Found]]) -> list[list[str]]:
    """A line for each factor."""
    lines = []
    for place, factor in enumerate(FACTORS):
        those = [it[place] for it in found]
        inside = np.concatenate([it.inside for it in those])
        likely = [it for it in those if it.p_leader >= 0.8]
        clear = [it for it in those if it.p_leader >= 0.95]
        lines.append(
            [
                design,
                source,
                factor,
                f"{inside.mean():.1%}",
                f"{np.mean([it.right for it in those]):.0%}",
                f"{np.mean([it.p_leader for it in those]):.0%}",
                _words(likely),
                _words(clear),
                f"{np.median([it.regret for it in those]):.1%}",
                f"{np.nanmedian([it.regret_observed for it in those]):.1%}",
            ]
        )
    return lines


def _words(those: list[Found]) -> str:
    """How many verdicts there are, how many name the best level, or one within 0.1 point of it."""
    if not those:
        return "none"
    right = np.mean([it.right for it in those])
    near = np.mean([it.points <= 0.1 for it in those])
    return f"{len(those)}: {right:.0%}, {near:.0%}"


def main() -> None:
    """Print the table."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else STUDIES
    table = Table(title=f"{studies} simulated studies of {TRIALS} trials for each design and truth")
    for column in (
        "design", "truth", "factor", "95 % intervals hold", "leader is best", "P(best) says",
        "likely: n, best, within 0.1", "clear: n, best, within 0.1", "regret of pick",
        "of best seen",
    ):  # fmt: skip
        table.add_column(column)
    for source, design in itertools.product(("formula", "recorded"), DESIGNS):
        for line in rows(design, source, measure(design, source, studies)):
            table.add_row(*line)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
