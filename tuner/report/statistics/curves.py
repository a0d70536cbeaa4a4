"""Small helpers for figures that draw many trials."""

from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def thin(
    numbers: npt.ArrayLike, limit: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """As many of the trials as a figure can draw: each with the same chance, in their order.

    Args:
        numbers: `(n_trials,)`, the trials' numbers.
        limit: the most that are kept, at least 0.
        generator: which of them; the same seed keeps the same ones.

    Returns:
        `(min(n_trials, limit),)`.

    Raises:
        ValueError: the limit is below 0.
    """
    if limit < 0:
        raise ValueError(f"The limit is {limit}; it is at least 0.")
    array = np.asarray(numbers, dtype=np.int64)
    if len(array) <= limit:
        return array
    kept = generator.choice(len(array), size=limit, replace=False, shuffle=False)
    return array[np.sort(kept)]


def best_so_far(values: npt.ArrayLike, better: Literal["minimize", "maximize"]) -> Array:
    """The best value up to and with each trial.

    Args:
        values: `(n_trials,)`, in the order in which they were found; NaN changes nothing.
        better: "minimize" where lower is better, "maximize" where higher is.

    Returns:
        `(n_trials,)`; NaN up to the first value.

    Raises:
        ValueError: ``better`` is another word.
    """
    if better not in {"minimize", "maximize"}:
        raise ValueError(f"Better is minimize or maximize, not {better!r}.")
    keep = np.fmin if better == "minimize" else np.fmax
    return np.asarray(keep.accumulate(np.asarray(values, dtype=float)))
