r"""What the best strategy that was found gives: shifted digits, cosine, 20 epochs, nothing frozen.

python -m tuner.run --study tests/benchmarks/strategies/strong.py --trials 4 \
    --pruner none
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

FIXED = {
    "optimizer": "adam",
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "batch_size": 128,
    "label_smoothing": 0.0,
    "augmentation": "shift",
    "train_images": 50_000,
    "init": "pretrained",
}
space = {"learning_rate": distributions.FloatDistribution(1e-3, 4e-3, log=True)}


def objective(trial):
    return task.run(trial, **configuration(FIXED | trial.params) | {"epochs": 20})
