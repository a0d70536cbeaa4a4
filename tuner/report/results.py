"""A study's results as pandas frames, from the database: a few queries, no study code."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)

from tuner import outcomes
from tuner.report.factors import Factor, Knob, factors_of, knobs_of
from tuner.report.scale import Scale, scale_of
from tuner.storage import StoredAttributes, StudyContents
from tuner.storage.attributes import FROM_STUDY_ATTR
from tuner.study import Snapshot

# What became of a trial, in the order in which figures show it.
COMPLETE, PRUNED, DIVERGED, INFEASIBLE, FAILED, RUNNING, WAITING = (
    "complete", "pruned", "diverged", "infeasible", "failed", "running", "waiting",
)  # fmt: skip
OUTCOMES = (COMPLETE, PRUNED, DIVERGED, INFEASIBLE, FAILED, RUNNING, WAITING)
ENDED = (COMPLETE, PRUNED, DIVERGED, INFEASIBLE, FAILED)
# A final value within so much of the last intermediate value, relatively, is that value; in so many
# of the complete trials.
_ALIKE, _NEARLY_ALL = 1e-9, 0.95
_BY_STATE = {
    "COMPLETE": COMPLETE,
    "PRUNED": PRUNED,
    "FAIL": FAILED,
    "RUNNING": RUNNING,
    "WAITING": WAITING,
}


@dataclass(frozen=True, eq=False)
class Results:
    """A study at one moment.

    Attributes:
        study: its name in the database.
        directions: ``minimize`` or ``maximize`` of each objective.
        trials: one row a trial, by ``number``: ``outcome`` (of `OUTCOMES`), ``value`` (of the first
            objective), ``start`` and ``end`` (UTC), ``seconds``, ``last_step``, ``last_value``.
        values: one column for each objective, by ``number``.
        steps: the intermediate values: ``number``, ``step``, ``value``.
        params: one column for each parameter, by ``number``; NaN where a trial has none.
        attrs: one column for each user attribute, by ``number``; NaN where a trial has none.
        distributions: of the parameters, in the order of the study file; numbers as wide as any
            trial's.
        stored: what `tuner run` keeps of a study; empty for a study of another program.
    """

    study: str
    directions: list[str]
    trials: pd.DataFrame
    values: pd.DataFrame
    steps: pd.DataFrame
    params: pd.DataFrame
    attrs: pd.DataFrame
    distributions: dict[str, BaseDistribution]
    stored: StoredAttributes = field(default_factory=StoredAttributes)

    @property
    def snapshot(self) -> Snapshot | None:
        """What the study file declared, or None for a study of another program."""
        return self.stored.snapshot

    @property
    def metric(self) -> str:
        """The value's name as the study says it."""
        return self.snapshot.metric if self.snapshot else "value"

    @property
    def metrics(self) -> list[str]:
        """The name of each objective's value."""
        known = self.snapshot.metrics if self.snapshot else []
        if len(known) == len(self.directions):
            return known
        return [f"objective {place}" for place in range(1, len(self.directions) + 1)]

    @property
    def max_step(self) -> int | None:
        """The greatest step: as declared, else the greatest that was reported, if any."""
        if self.snapshot and self.snapshot.max_step:
            return self.snapshot.max_step
        return int(self.steps["step"].max()) if len(self.steps) else None

    @property
    def steps_per_epoch(self) -> int | None:
        """How many steps are an epoch, if that is declared."""
        return self.snapshot.steps_per_epoch if self.snapshot else None

    @cached_property
    def factors(self) -> list[Factor]:
        """The parameters that are compared level by level."""
        return factors_of(self.distributions)

    @cached_property
    def knobs(self) -> list[Knob]:
        """The parameters with many values."""
        return knobs_of(self.distributions)

    @cached_property
    def codes(self) -> pd.DataFrame:
        """For each factor, the place of each trial's level; -1 where a trial has none."""
        columns = {it.name: it.places(self.params[it.name]) for it in self.factors}
        return pd.DataFrame(columns, index=self.params.index)

    @cached_property
    def scale(self) -> Scale:
        """How values are shown."""
        values = self.trials["value"].to_numpy(float)
        if self.steps_are_values:
            values = np.concatenate([values, self.steps["value"]])
        return scale_of(self.metric, self.directions[0], values)

    @cached_property
    def steps_are_values(self) -> bool:
        """Whether intermediate values are the same quantity as the final value.

        They are where the last one is the final value of nearly all complete trials; without a
        complete trial that is assumed.
        """
        complete = self.trials[self.trials["outcome"] == COMPLETE].dropna(
            subset=["value", "last_value"]
        )
        if complete.empty:
            return True
        apart = (complete["value"] - complete["last_value"]).abs()
        return bool((apart <= _ALIKE * complete["value"].abs()).mean() >= _NEARLY_ALL)

    @cached_property
    def best(self) -> int | None:
        """The number of the best COMPLETE trial of a study with one objective, or None."""
        complete = self.trials[self.trials["outcome"] == COMPLETE]
        shown = pd.Series(self.scale.shown(complete["value"]), complete.index).dropna()
        return None if shown.empty or len(self.directions) > 1 else int(shown.idxmin())

    @cached_property
    def taken_over(self) -> "pd.Series[Any]":
        """Of trials whose configuration is another study's: that study and trial, in words."""
        if FROM_STUDY_ATTR not in self.attrs:
            return pd.Series(dtype=object)
        found = self.attrs[FROM_STUDY_ATTR].dropna()
        return found.map(lambda it: f"{it[0]}, trial {it[1]}")

    def count(self, *which: str) -> int:
        """How many trials had one of these outcomes."""
        return int(self.trials["outcome"].isin(which).sum())

    def factor(self, name: str) -> Factor:
        """The factor of this name.

        Raises:
            KeyError: the study has no such factor.
        """
        for it in self.factors:
            if it.name == name:
                return it
        raise KeyError(name)


def results_of(contents: StudyContents) -> Results:
    """The frames of what a database holds of a study."""
    trials = _trials(contents)
    numbers = trials.index
    stored = StoredAttributes.of(contents.user_attrs)
    distributions, params = _params(contents, numbers)
    attrs = _attrs(contents, numbers)
    steps = pd.DataFrame(contents.steps, columns=["number", "step", "value"]).astype(
        {"number": np.int64, "step": np.int64, "value": float}
    )
    values = pd.DataFrame(contents.values, columns=["number", "objective", "value"]).pivot(
        index="number", columns="objective", values="value"
    )
    values = values.reindex(index=numbers, columns=range(len(contents.directions))).astype(float)
    trials["value"] = values[0]
    last = steps.groupby("number").tail(1).set_index("number")  # of a NaN, too
    trials["last_step"] = last["step"].reindex(numbers).astype(float)
    trials["last_value"] = last["value"].reindex(numbers).astype(float)
    _tell_diverged(trials, attrs)
    broken = trials.index.isin(contents.infeasible) & trials["outcome"].isin((COMPLETE, PRUNED))
    trials.loc[broken, "outcome"] = INFEASIBLE
    return Results(
        study=contents.name,
        directions=contents.directions,
        trials=trials,
        values=values,
        steps=steps,
        params=params[_in_order(params.columns, stored.snapshot)],
        attrs=attrs,
        distributions={
            name: distributions[name] for name in _in_order(distributions, stored.snapshot)
        },
        stored=stored,
    )


def _trials(contents: StudyContents) -> pd.DataFrame:
    frame = pd.DataFrame(contents.trials, columns=["number", "outcome", "start", "end"])
    frame["outcome"] = frame["outcome"].map(_BY_STATE).astype(object)
    for column in ("start", "end"):
        frame[column] = pd.to_datetime(frame[column], utc=True)
    frame["seconds"] = (frame["end"] - frame["start"]).dt.total_seconds()
    return frame.astype({"number": np.int64}).set_index("number")


def _tell_diverged(trials: pd.DataFrame, attrs: pd.DataFrame) -> None:
    """Diverged is an outcome of its own; an infinite value of another program is one, too."""
    if "outcome" in attrs:
        said = attrs["outcome"] == outcomes.DIVERGED
        trials.loc[said & (trials["outcome"] == PRUNED), "outcome"] = DIVERGED
    infinite = np.isinf(trials["value"].to_numpy(float)) & (trials["outcome"] == COMPLETE)
    trials.loc[infinite, "outcome"] = DIVERGED


def _params(
    contents: StudyContents, numbers: pd.Index
) -> tuple[dict[str, BaseDistribution], pd.DataFrame]:
    """The parameters' distributions, and their values as the objective saw them."""
    rows = pd.DataFrame(contents.params, columns=["number", "name", "value", "distribution"])
    distributions: dict[str, BaseDistribution] = {}
    columns: dict[str, pd.Series] = {}
    for name, of_name in rows.groupby("name", sort=False):
        parts = []
        for text, same in of_name.groupby("distribution", sort=False):
            distribution = json_to_distribution(str(text))
            known = distributions.get(str(name))
            distributions[str(name)] = _widest(known, distribution) if known else distribution
            parts.append(_external(distribution, same.set_index("number")["value"]))
        columns[str(name)] = pd.concat(parts).reindex(numbers)
    return distributions, pd.DataFrame(columns, index=numbers)


def _external(distribution: BaseDistribution, internal: "pd.Series[float]") -> pd.Series:
    if isinstance(distribution, CategoricalDistribution):
        choices = np.empty(len(distribution.choices), dtype=object)
        choices[:] = distribution.choices
        return pd.Series(choices[internal.to_numpy(int)], internal.index, dtype=object)
    return internal.astype(float)


def _widest(one: BaseDistribution, other: BaseDistribution) -> BaseDistribution:
    """A distribution that holds the values of both; a study may change a number's range."""
    if isinstance(one, IntDistribution) and isinstance(other, IntDistribution):
        step = one.step if one.step == other.step else 1
        low, high = min(one.low, other.low), max(one.high, other.high)
        return IntDistribution(low, high, log=one.log and other.log, step=step)
    if isinstance(one, FloatDistribution) and isinstance(other, FloatDistribution):
        width = one.step if one.step == other.step else None
        low_float, high_float = min(one.low, other.low), max(one.high, other.high)
        return FloatDistribution(low_float, high_float, log=one.log and other.log, step=width)
    return other


def _attrs(contents: StudyContents, numbers: pd.Index) -> pd.DataFrame:
    decoded: dict[str, Any] = {}

    def decode(text: str) -> Any:
        if text not in decoded:
            decoded[text] = json.loads(text)
        return decoded[text]

    columns: dict[str, dict[int, Any]] = {}
    for number, key, text in contents.attrs:
        columns.setdefault(key, {})[number] = decode(text)
    series = {key: pd.Series(column, dtype=object) for key, column in columns.items()}
    return pd.DataFrame(series, index=numbers)


def _in_order(names: Iterable[str], snapshot: Snapshot | None) -> list[str]:
    """As the study file declares them, the others behind."""
    declared: Mapping[str, object] = (snapshot and snapshot.space) or {}
    order = {name: place for place, name in enumerate(declared)}
    return sorted(names, key=lambda name: order.get(name, math.inf))
