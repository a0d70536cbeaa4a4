"""Which initialisation, and what does a bad one do? All of the net trains, on 5,000 digits.

python -m tuner.run --study tests/benchmarks/strategies/inits.py --trials 24 --compare init
"""

from optuna import distributions

from studies.mnist_strategies import (
    configuration,
    data,
    footprint,
    max_step,
    metric,
    prepare,
    task,
    test,
    test_images,
    validate,
)
from studies.mnist_strategies import space as everything

FIXED = {
    "optimizer": "adam",
    "schedule": "one_cycle",
    "weight_decay": 1e-4,
    "batch_size": 128,
    "label_smoothing": 0.0,
    "augmentation": "none",
    "train_images": 5_000,
}
space = {
    "init": everything["init"],
    "learning_rate": distributions.FloatDistribution(3e-4, 2e-2, log=True),
}


def objective(trial):
    return task.run(trial, **configuration(FIXED | trial.params))
