"""Which parameters are choices to be compared (factors), and which are turned like a knob."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

# An integer or stepped number with at most so many values is compared value by value.
MOST_LEVELS = 10


@dataclass(frozen=True)
class Factor:
    """A parameter with a few levels.

    Attributes:
        name: the parameter's.
        label: for people: "Frozen layers".
        levels: in the order of the study file, as they stand in the trials' parameters.
        texts: for people, one for each level.
    """

    name: str
    label: str
    levels: tuple[object, ...]
    texts: tuple[str, ...]

    def places(self, values: "pd.Series[Any]") -> npt.NDArray[np.int64]:
        """Each value's place in `levels`; -1 where a trial has none. True is not 1."""
        numbers = all(
            isinstance(it, int | float) and not isinstance(it, bool) for it in self.levels
        )
        if numbers and pd.api.types.is_numeric_dtype(values):
            levels = np.array(self.levels, dtype=float)
            array = values.to_numpy(float)
            near = np.abs(array[:, np.newaxis] - levels).argmin(axis=1)
            return np.where(np.isnan(array), -1, near)
        known = {(type(level), level): place for place, level in enumerate(self.levels)}
        return np.array([known.get((type(value), value), -1) for value in values], dtype=np.int64)


@dataclass(frozen=True)
class Knob:
    """A number with many possible values.

    Attributes:
        low, high: its range over all trials.
        log: it is sampled on a log scale.
    """

    name: str
    label: str
    low: float
    high: float
    log: bool


def factors_of(distributions: Mapping[str, BaseDistribution]) -> list[Factor]:
    """The parameters that are compared level by level, with two levels or more."""
    found = []
    for name, distribution in distributions.items():
        levels = _levels(distribution)
        if len(levels) > 1:
            texts = level_texts(levels)
            found.append(Factor(name, label_of(name), levels, texts))
    return found


def knobs_of(distributions: Mapping[str, BaseDistribution]) -> list[Knob]:
    """The numbers that are no factors, unless they have a single value."""
    return [
        Knob(name, label_of(name), float(it.low), float(it.high), it.log)
        for name, it in distributions.items()
        if isinstance(it, FloatDistribution | IntDistribution)
        and not _levels(it)
        and it.low < it.high
    ]


def _levels(distribution: BaseDistribution) -> tuple[object, ...]:
    """The values of a factor; none for a knob."""
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        values = range(distribution.low, distribution.high + 1, distribution.step)
        return tuple(values) if len(values) <= MOST_LEVELS else ()
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        if count <= MOST_LEVELS:
            return tuple(distribution.low + i * distribution.step for i in range(count))
    return ()


def label_of(name: str) -> str:
    """A parameter's name for people: ``frozen_layers`` as "Frozen layers"."""
    words = " ".join(name.replace("_", " ").split()) or repr(name)
    return words[:1].upper() + words[1:]


def level_texts(levels: Sequence[object]) -> tuple[str, ...]:
    """Levels for people: quoted where two would read alike, or one would not be seen."""
    texts = [level_text(level) for level in levels]
    return tuple(
        repr(level) if texts.count(text) > 1 or not text.strip() else text
        for level, text in zip(levels, texts, strict=True)
    )


def level_text(level: object) -> str:
    """A level for people: as the study file writes it, without line breaks."""
    return f"{level:g}" if isinstance(level, float) else " ".join(str(level).split())
