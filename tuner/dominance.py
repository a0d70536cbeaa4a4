"""Several objectives: which trials no other one beats."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def not_beaten(points: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points no other is at least as good as in everything and better in something.

    Args:
        points: (n, objectives), lower is better; without NaN.
    """
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    kept = np.zeros(len(unique), dtype=bool)
    # In this order no point is beaten by a later one.
    left = np.arange(len(unique))
    while len(left):
        first, left = left[0], left[1:]
        kept[first] = True
        left = left[(unique[left] < unique[first]).any(axis=1)]
    return kept[inverse.ravel()]


def front(values: Mapping[int, Sequence[float]], directions: Sequence[str]) -> set[int]:
    """The trials that no other one beats.

    Args:
        values: of each trial, by its number.
        directions: ``minimize`` or ``maximize`` of each objective.
    """
    signs = [1.0 if it == "minimize" else -1.0 for it in directions]
    points = np.array([*values.values()], float).reshape(-1, len(signs)) * signs
    return {number for number, kept in zip(values, not_beaten(points), strict=True) if kept}
