"""Every seed comes from (study seed, trial number), so no worker, restart or order changes it."""

import secrets

import numpy as np

SEED_LIMIT = 2**31  # what NumPy's RandomState, TensorFlow and Optuna's samplers all take

# Streams of one trial, so that the sampler's draws and the training's are independent.
_TRIAL, _SAMPLER, _CONFIRMATION = 0, 1, 2


def draw_study_seed() -> int:
    """A fresh seed in [0, 2**31), short enough to be typed again."""
    return secrets.randbelow(1_000_000)


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of all randomness in a trial's training, in [0, 2**31)."""
    return _derive(study_seed, number, _TRIAL)


def sampler_seed(study_seed: int, number: int) -> int:
    """The seed of the sampler for one trial, in [0, 2**31)."""
    return _derive(study_seed, number, _SAMPLER)


def confirmation_seed(study_seed: int, count: int) -> int:
    """The seed of a search's confirmation, in [0, 2**31): its runs share no seed with the search.

    Args:
        study_seed: of the search.
        count: how many confirmations it has already.
    """
    return _derive(study_seed, count, _CONFIRMATION)


def _derive(study_seed: int, number: int, stream: int) -> int:
    state = np.random.SeedSequence([study_seed, number, stream]).generate_state(1)[0]
    return int(state) % SEED_LIMIT
