"""From a study's results to the model that its comparisons rest on."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner import wording
from tuner.report.factors import Factor, Knob
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results
from tuner.report.statistics.levels import CANDIDATES, WIDENING, TunedLevels, tuned_levels
from tuner.report.statistics.surrogate import (
    MOST_ROWS,
    NONE,
    REPORTS_PER_TRIAL,
    Axis,
    Rows,
    Surrogate,
    choose_trials,
    fit,
)

Array = npt.NDArray[np.float64]

# Of the random choices in a report: the same study gives the same page.
SEED = 0
# Fewer ended trials than this are shown, but not modelled.
LEAST_TRIALS = 8
# More parameters than this are not modelled, as a fit would take minutes: those that tell most are.
MOST_PARAMETERS = 20
# Ordered levels up to so many may have steps of different widths between them.
MOST_STEPS = 6
# Values so far above the median are told apart no further: in log10, or in spreads (of the middle
# half) where values are not modelled by their logarithm.
CEILING, CEILING_SPREADS = 0.7, 3.0
_GREATEST = 1e100


class NoModel(Exception):  # noqa: N818 - it is an answer, not an error
    """There is too little to model; the message is a sentence that says what is missing."""


@dataclass(frozen=True)
class StudyModel:
    """A study's surrogate and what its columns mean.

    Attributes:
        columns: the parameters of the settings, factors and knobs, in the study's order.
        pool: `(n, n_parameters)`, settings for `tuned_levels` to choose from.
        reports: how many reports there are, of which the model took `surrogate.rows`.
        modelled: numbers of the trials that have a report.
        ceiling: values above it were taken as it, see `ceiling_of`.
        log: values are modelled by their logarithm.
        left_out: how many parameters are not modelled.
    """

    surrogate: Surrogate
    columns: list[Factor | Knob]
    pool: Array
    reports: int
    modelled: npt.NDArray[np.int64]
    ceiling: float
    log: bool
    left_out: int

    @property
    def factors(self) -> list[Factor]:
        """The factors among the columns."""
        return [it for it in self.columns if isinstance(it, Factor)]

    @property
    def ceiling_text(self) -> str:
        """Which values are told apart no further, in words."""
        return (
            f"values beyond {10**CEILING:.0f} times the median are not told apart"
            if self.log
            else f"values more than {CEILING_SPREADS:g} spreads (of the middle half) beyond the "
            "median are not told apart"
        )

    def column(self, name: str) -> int:
        """A parameter's column in the settings."""
        return next(i for i, it in enumerate(self.columns) if it.name == name)

    def tuned(self, factor: Factor) -> TunedLevels:
        """The factor's levels, each with all other settings tuned for it."""
        generator = np.random.default_rng(SEED)
        return tuned_levels(
            self.surrogate, self.column(factor.name), len(factor.levels), self.pool, generator
        )

    def again(self, results: Results, number: int) -> tuple[float, float]:
        """Of one re-run of a trial's configuration: the expected value, and its deviation."""
        trials = results.trials.index.get_indexer([number])
        settings = settings_of(results, self.columns)[trials]
        mean, covariance = self.surrogate.joint(settings)
        return float(mean[0]), math.hypot(
            WIDENING * math.sqrt(covariance[0, 0]), self.surrogate.luck
        )


def model_of(results: Results) -> StudyModel:
    """Fit a study's model.

    Raises:
        NoModel: too few trials, or nothing to compare.
    """
    columns, left_out = _columns(results)
    if not columns:
        raise NoModel("No parameter of this study has two values.")
    reports = reports_of(results)
    trials = reports["number"].unique()
    if len(trials) < LEAST_TRIALS:
        have = wording.count(len(trials), "trial")
        raise NoModel(f"A model needs {LEAST_TRIALS} trials with a value, and {have} had one.")
    finite = reports.loc[np.isfinite(reports["modelled"]), "modelled"]
    if finite.empty:
        raise NoModel("No trial has a finite value.")
    if finite.abs().max() > _GREATEST:
        raise NoModel(f"Some of its values are beyond {_GREATEST:g}; no model can hold them.")
    ceiling = ceiling_of(results, reports["modelled"])
    capped = reports["modelled"].where(~reports["diverged"], np.inf).clip(upper=ceiling)
    settings = pd.DataFrame(settings_of(results, columns), index=results.trials.index)
    rows = Rows(
        settings=settings.loc[reports["number"]].to_numpy(),
        step=_log_steps(results, reports["step"].to_numpy(float)),
        trial=reports["number"].to_numpy(np.int64),
        value=capped.to_numpy(float),
    )
    generator = np.random.default_rng(SEED)
    taken = choose_trials(rows, MOST_ROWS, generator)
    chosen = Rows(rows.settings[taken], rows.step[taken], rows.trial[taken], rows.value[taken])
    try:
        surrogate = fit(chosen, tuple(_axis(it) for it in columns), generator)
    except ValueError as error:
        raise NoModel(f"There is nothing to model: {error}.") from error
    pool = _pool(columns, settings.loc[trials].to_numpy(), generator)
    return StudyModel(
        surrogate, columns, pool, len(reports), trials, ceiling, results.scale.log, left_out
    )


def _columns(results: Results) -> tuple[list[Factor | Knob], int]:
    """The parameters that are modelled, and how many are not: those that tell least."""
    known: dict[str, Factor | Knob] = {it.name: it for it in results.factors}
    known |= {it.name: it for it in results.knobs}
    columns = [known[name] for name in results.distributions if name in known]
    if len(columns) <= MOST_PARAMETERS:
        return columns, 0
    last = results.trials["value"].fillna(results.trials["last_value"])
    told = {it.name: _told(results, it, last) for it in columns}
    kept = sorted(told, key=lambda name: -told[name])[:MOST_PARAMETERS]
    return [it for it in columns if it.name in kept], len(columns) - MOST_PARAMETERS


def _told(results: Results, parameter: Factor | Knob, values: "pd.Series[float]") -> float:
    """How much of the values' ranks a parameter explains by itself, 0 to 1."""
    ranks = values.rank()
    if isinstance(parameter, Knob):
        return float(ranks.corr(results.params[parameter.name].rank()) ** 2 or 0.0)
    means = ranks.groupby(results.codes[parameter.name]).transform("mean")
    return float(means.var() / ranks.var()) if ranks.var() > 0 else 0.0


def reports_of(results: Results) -> pd.DataFrame:
    """What the ended trials reported: ``number``, ``step``, ``modelled``, ``diverged``.

    At most a few a trial; ``diverged`` is true of a diverged trial's last one, whose value says
    nothing. Where intermediate values are another quantity than the final one, the final values
    are all there is.
    """
    ended = results.trials[results.trials["outcome"].isin([COMPLETE, PRUNED, DIVERGED])]
    with_end = ended[ended["outcome"] != PRUNED]
    finals = pd.DataFrame({"number": with_end.index, "value": with_end["value"].to_numpy(float)})
    finals["step"] = results.max_step or 1
    found = finals
    if results.steps_are_values:
        steps = results.steps[results.steps["number"].isin(ended.index)]
        found = pd.concat([steps, finals[~finals["number"].isin(steps["number"])]])
    found = found.sort_values(["number", "step"], kind="stable")
    diverged = found["number"].isin(ended.index[ended["outcome"] == DIVERGED])
    last = ~found.duplicated("number", keep="last")
    modelled = results.scale.to_model(results.scale.shown(found["value"].to_numpy(float)))
    found = found.assign(modelled=modelled, diverged=diverged & last)
    found = found[np.isfinite(found["modelled"]) | found["diverged"]]
    return _few_a_trial(found).reset_index(drop=True)


def ceiling_of(results: Results, modelled: "pd.Series[float]") -> float:
    """Where values are so bad that they are told apart no further, in the model's units.

    The model need not know how bad a bad configuration is, and a cliff would make it doubt its
    neighbours.
    """
    finite = modelled[np.isfinite(modelled)]
    low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
    if results.scale.log:
        return float(middle + CEILING)
    return float(middle + CEILING_SPREADS * (high - low)) if high > low else float(finite.max())


def _few_a_trial(reports: pd.DataFrame) -> pd.DataFrame:
    """The first, the last, and some between them."""
    place = reports.groupby("number").cumcount()
    count = reports.groupby("number")["step"].transform("size")
    # Of n reports, those where the place times (k - 1) / (n - 1) passes a whole number.
    share = place * (REPORTS_PER_TRIAL - 1) / (count - 1).clip(lower=1)
    before = (place - 1) * (REPORTS_PER_TRIAL - 1) / (count - 1).clip(lower=1)
    return reports[(count <= REPORTS_PER_TRIAL) | (np.floor(share) > np.floor(before))]


def _log_steps(results: Results, steps: Array) -> Array:
    """In [0, 1], the last one at 1: training moves fast at first."""
    shift = max(1.0 - steps.min(initial=1.0), 0.0)  # so that the first is 1 or more
    greatest = (results.max_step or 1) + shift
    if greatest <= 1:
        return np.ones(len(steps))
    scaled: Array = np.log(np.maximum(steps + shift, 1.0)) / math.log(greatest)
    return np.minimum(scaled, 1.0)


def settings_of(results: Results, columns: list[Factor | Knob]) -> Array:
    """`(n_trials, n_parameters)` as the model takes them, see `Rows`."""
    found = np.full((len(results.trials), len(columns)), NONE)
    for i, it in enumerate(columns):
        if isinstance(it, Factor):
            found[:, i] = results.codes[it.name].to_numpy(float)
        else:
            scaled = knob_settings(it, results.params[it.name].to_numpy(float))
            found[:, i] = np.where(np.isnan(scaled), NONE, scaled)
    return found


def knob_settings(knob: Knob, values: Array) -> Array:
    """A knob's values within its range, in [0, 1]; NaN stays."""
    if knob.log:
        scaled: Array = np.log(values / knob.low) / math.log(knob.high / knob.low)
        return scaled
    return (values - knob.low) / (knob.high - knob.low)


def knob_values(knob: Knob, settings: Array) -> Array:
    """The inverse of `knob_settings`."""
    if knob.log:
        values: Array = knob.low * (knob.high / knob.low) ** settings
        return values
    return knob.low + settings * (knob.high - knob.low)


def _axis(parameter: Factor | Knob) -> Axis:
    if isinstance(parameter, Knob):
        return Axis("knob")
    levels = len(parameter.levels)
    if not all(type(level) in {int, float} for level in parameter.levels):
        return Axis("levels", levels)
    return Axis("steps" if levels <= MOST_STEPS else "knob", levels)


def random_settings(
    columns: list[Factor | Knob], like: Array, count: int, generator: np.random.Generator
) -> Array:
    """Settings drawn at random.

    Args:
        columns: of the settings.
        like: `(n, n_parameters)`, which parameters a setting has: those of one of these.
        count: how many.
        generator: of the draws.
    """
    found: Array = like[generator.integers(len(like), size=count)].copy()
    for i, it in enumerate(columns):
        drawn = (
            generator.integers(len(it.levels), size=count).astype(float)
            if isinstance(it, Factor)
            else generator.random(count)
        )
        found[:, i] = np.where(found[:, i] == NONE, NONE, drawn)
    return found


def _pool(columns: list[Factor | Knob], tried: Array, generator: np.random.Generator) -> Array:
    """Settings that were tried, and random ones of the same parameters."""
    some = tried[generator.permutation(len(tried))[:CANDIDATES]]
    return np.vstack([some, random_settings(columns, tried, CANDIDATES, generator)])
