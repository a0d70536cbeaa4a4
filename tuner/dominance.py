"""Several objectives: which trials no other one beats."""

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
