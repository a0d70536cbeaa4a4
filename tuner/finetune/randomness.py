"""All randomness of a trial, derived from its seed: nothing depends on what ran before it."""

from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

SEED_ATTRIBUTE = "seed"
"""The user attribute in which a worker hands a trial its seed."""

KERNEL = 0
DROPOUT = 1
AUGMENTATION = 2
TRAIN_IMAGES = 3


def seed_of(trial: optuna.Trial) -> int:
    """The seed that the worker gave the trial, else the trial's number."""
    return int(trial.user_attrs.get(SEED_ATTRIBUTE, trial.number))


def derive(seed: int, purpose: int, index: int) -> int:
    """A seed from 0 to 2**31 - 1 for one use of randomness within a trial.

    Args:
        seed: the trial's, from 0 up.
        purpose: `KERNEL`, `DROPOUT`, `AUGMENTATION` or `TRAIN_IMAGES`.
        index: which kernel, which layer with dropout, or which of two numbers.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, index))
    return int(sequence.generate_state(1)[0]) >> 1


def epoch_batches(
    rows: npt.NDArray[Any], batch_size: int, seed: int, epoch: int
) -> npt.NDArray[np.int32]:
    """Shuffle ``rows`` by (seed, epoch) and cut them into whole batches; the remainder is left out.

    Args:
        rows: indices of the images to train on, (n,).
        batch_size: images a batch.
        seed: the trial's.
        epoch: from 0.

    Returns:
        Indices (n // batch_size, batch_size).
    """
    count = len(rows) // batch_size
    order = np.random.default_rng([seed, epoch]).permutation(rows)[: count * batch_size]
    return order.reshape(count, batch_size).astype(np.int32)
