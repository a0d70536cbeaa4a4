"""Whether a trial that was run again gave the same, and why it may not have."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from optuna.trial import FrozenTrial

# Values that differ by less than this part of themselves differ by the order of additions: with
# float32's seven digits that is all that it can do to a loss. An error of 10,000 images is a whole
# number of them, so there it means the same number.
ROUNDING = 1e-3


class Sameness(StrEnum):
    """How alike two runs of a trial are, in words."""

    BIT_FOR_BIT = "bit for bit the same"
    VALUES = "the same in every value that was reported; no hash of its weights was recorded"
    ROUNDING = "the same within rounding"
    DIFFERENT = "different"


@dataclass(frozen=True)
class Pair:
    """A value as it was recorded and as it is now.

    Attributes:
        step: at which it was reported; None for a final value.
        recorded: NaN or None where there was none.
        now: likewise.
    """

    step: int | None
    recorded: float | None
    now: float | None

    @property
    def gap(self) -> float:
        """The difference as a part of the recorded value: 0 for equal ones, infinite for others."""
        if self.recorded is None or self.now is None:
            return 0.0 if self.recorded is self.now else math.inf
        if self.recorded == self.now or (math.isnan(self.recorded) and math.isnan(self.now)):
            return 0.0
        gap = abs(self.now - self.recorded) / max(abs(self.recorded), abs(self.now))
        return gap if math.isfinite(gap) else math.inf


@dataclass(frozen=True)
class Compared:
    """Two runs of a trial.

    Attributes:
        pairs: its values in the order of their steps, the final one last.
    """

    sameness: Sameness
    pairs: list[Pair]


def compare(recorded: FrozenTrial, now: FrozenTrial) -> Compared:
    """Compare all that a trial reported, and the weights that it ended with.

    Args:
        recorded: the trial.
        now: the same one, run again.
    """
    before, after = recorded.intermediate_values, now.intermediate_values
    pairs = [Pair(step, before.get(step), after.get(step)) for step in sorted({*before, *after})]
    ends = itertools.zip_longest(recorded.values or [None], now.values or [None])
    pairs += [Pair(None, *end) for end in ends]
    return Compared(
        _judge(pairs, *(it.user_attrs.get("weights_hash") for it in (recorded, now))), pairs
    )


def _judge(pairs: list[Pair], hash_before: object, hash_now: object) -> Sameness:
    largest = max(pair.gap for pair in pairs)
    if largest > ROUNDING:
        return Sameness.DIFFERENT
    if largest > 0:
        return Sameness.ROUNDING
    if hash_before is None or hash_now is None:
        return Sameness.VALUES
    return Sameness.BIT_FOR_BIT if hash_before == hash_now else Sameness.ROUNDING


def excerpt(pairs: list[Pair], most: int) -> list[Pair]:
    """Pairs for a table that can be read: spread evenly, with the first that differs and the last.

    Args:
        pairs: of `Compared`.
        most: that many at most, from 3.
    """
    if len(pairs) <= most:
        return pairs
    differs = next((place for place, it in enumerate(pairs) if it.gap > 0), 0)
    spread = {round(it * (len(pairs) - 1) / (most - 2)) for it in range(most - 1)}
    return [pairs[place] for place in sorted({differs, *spread})]


# What decides a trial's bits, besides its parameters and its seed: in an environment, and in a
# trial's user attributes.
_IN_ENVIRONMENT = {
    "cpu": "the processor",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "numpy": "NumPy",
    "python": "Python",
    "optuna": "Optuna",
    "tuner": "tuner",
    "commit": "the commit",
    "system": "the system",
}
_IN_TRIAL = {
    "source": "the study file",
    "base_hash": "the pretrained base",
    "threads": "the number of threads",
    "precision": "the precision",
    "device": "the device",
    "cached_features": "whether features of frozen stages were stored",
}
_LONGEST_HASH = 12


def reasons(
    recorded: tuple[Mapping[str, Any], Mapping[str, Any]],
    now: tuple[Mapping[str, Any], Mapping[str, Any]],
) -> list[str]:
    """What is not as it was: each a clause such as ``Keras was 3.14.0 and is 3.15.0``.

    Args:
        recorded: user attributes of the trial, and its environment.
        now: the same of the run again.
    """
    found = []
    for place, names in enumerate((_IN_TRIAL, _IN_ENVIRONMENT)):
        for key, words in names.items():
            before, after = recorded[place].get(key), now[place].get(key)
            if before is not None and before != after:
                found.append(f"{words} was {_short(before)} and is {_short(after)}")
    return found


def _short(value: object) -> str:
    text = str(value)
    is_hash = len(text) == 64 and text.isalnum()
    return text[:_LONGEST_HASH] if is_hash else text
