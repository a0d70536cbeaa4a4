"""Weights outside of a model: a list of arrays, and the hash that names them."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

Weights = list[npt.NDArray[Any]]
"""Values in the order of ``model.weights``."""


def weights_hash(weights: Weights) -> str:
    """The SHA-256 of weights: of each its type, shape and bytes, in order."""
    digest = hashlib.sha256()
    for value in weights:
        digest.update(f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
