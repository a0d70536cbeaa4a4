"""From a study's results to the model that its comparisons rest on."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tuner.report.factors import Factor, Knob
from tuner.report.results import COMPLETE, DIVERGED, PRUNED, Results
from tuner.report.statistics.levels import CANDIDATES, WIDENING, TunedLevels, tuned_levels
from tuner.report.statistics.surrogate import (
    NONE,
    REPORTS_PER_TRIAL,
    Axis,
    Rows,
    Surrogate,
    choose_rows,
    fit,
)

Array = npt.NDArray[np.float64]

# Of the random choices in a report: the same study gives the same page.
SEED = 0
# Fewer ended trials than this are shown, but not modelled.
LEAST_TRIALS = 8
# A value that is not the trial's last intermediate value is another quantity.
_SAME = 1e-9


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
    """

    surrogate: Surrogate
    columns: list[Factor | Knob]
    pool: Array
    reports: int
    modelled: npt.NDArray[np.int64]

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
        """Of a re-run of a trial's configuration: the expected value, and its deviation."""
        trials = results.trials.index.get_indexer([number])
        settings = settings_of(results, self.columns)[trials]
        mean, covariance = self.surrogate.joint(settings)
        return float(mean[0]), WIDENING * math.sqrt(covariance[0, 0])


def model_of(results: Results) -> StudyModel:
    """Fit a study's model.

    Raises:
        NoModel: too few trials, or nothing to compare.
    """
    known: dict[str, Factor | Knob] = {it.name: it for it in results.factors}
    known |= {it.name: it for it in results.knobs}
    columns = [known[name] for name in results.distributions if name in known]
    if not columns:
        raise NoModel("No parameter of this study has two values.")
    reports = reports_of(results)
    trials = reports["number"].unique()
    if len(trials) < LEAST_TRIALS:
        raise NoModel(
            f"{len(trials)} of its trials have a value so far; a model needs {LEAST_TRIALS}."
        )
    settings = pd.DataFrame(settings_of(results, columns), index=results.trials.index)
    rows = Rows(
        settings=settings.loc[reports["number"]].to_numpy(),
        step=_log_steps(results, reports["step"].to_numpy(float)),
        trial=reports["number"].to_numpy(np.int64),
        value=reports["modelled"].to_numpy(float),
    )
    generator = np.random.default_rng(SEED)
    last = reports.groupby("number")["step"].transform("max").to_numpy(np.int64)
    taken = choose_rows(rows, last, generator)
    chosen = Rows(rows.settings[taken], rows.step[taken], rows.trial[taken], rows.value[taken])
    try:
        surrogate = fit(chosen, tuple(_axis(it) for it in columns))
    except ValueError as error:
        raise NoModel(f"There is nothing to model: {error}.") from error
    pool = _pool(columns, settings.loc[trials].to_numpy(), generator)
    return StudyModel(surrogate, columns, pool, len(reports), trials)


def reports_of(results: Results) -> pd.DataFrame:
    """What the ended trials reported: ``number``, ``step``, ``modelled``, at most a few a trial.

    Where a trial's value is not its last intermediate value, that is another quantity: then the
    values of the complete trials are all there is.
    """
    ended = results.trials[results.trials["outcome"].isin([COMPLETE, PRUNED, DIVERGED])]
    complete = ended[ended["outcome"] == COMPLETE]
    both = complete.dropna(subset=["value", "last_value"])
    same = (both["value"] - both["last_value"]).abs() <= _SAME * both["value"].abs()
    finals = pd.DataFrame({"number": complete.index, "value": complete["value"].to_numpy()})
    finals["step"] = results.max_step or 1
    if len(both) and same.mean() < 0.5:
        found = finals
    else:
        steps = results.steps[results.steps["number"].isin(ended.index)]
        found = pd.concat([steps, finals[~finals["number"].isin(steps["number"])]])
    found = found.assign(modelled=results.scale.to_model(results.scale.shown(found["value"])))
    found = found[np.isfinite(found["modelled"])].sort_values(["number", "step"])
    return _few_a_trial(found).reset_index(drop=True)


def _few_a_trial(reports: pd.DataFrame) -> pd.DataFrame:
    """The first, the last, and some between them."""
    place = reports.groupby("number").cumcount()
    count = reports.groupby("number")["step"].transform("size")
    # Of n reports, those where the place times (k - 1) / (n - 1) passes a whole number.
    share = place * (REPORTS_PER_TRIAL - 1) / (count - 1).clip(lower=1)
    before = (place - 1) * (REPORTS_PER_TRIAL - 1) / (count - 1).clip(lower=1)
    return reports[(count <= REPORTS_PER_TRIAL) | (np.floor(share) > np.floor(before))]


def _log_steps(results: Results, steps: Array) -> Array:
    """In [0, 1]: training moves fast at first."""
    from_zero = 1.0 if len(steps) and steps.min() < 1 else 0.0
    greatest = math.log(max((results.max_step or 1) + from_zero, 2.0))
    return np.log(np.maximum(steps + from_zero, 1.0)) / greatest


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
    ordered = all(type(level) in {int, float} for level in parameter.levels)
    return Axis("steps" if ordered else "levels", len(parameter.levels))


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
