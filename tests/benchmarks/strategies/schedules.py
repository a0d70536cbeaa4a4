"""Which learning-rate schedule? Fine-tuned are the last two stages of a net that knows 0 to 4.

python -m tuner.run --study tests/benchmarks/strategies/schedules.py --trials 25 --compare schedule
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
    "weight_decay": 1e-4,
    "batch_size": 128,
    "label_smoothing": 0.0,
    "augmentation": "none",
    "train_images": 50_000,
    "init": "pretrained",
    "frozen_layers": 2,
}
space = {
    "schedule": everything["schedule"],
    "learning_rate": distributions.FloatDistribution(3e-4, 2e-2, log=True),
}


def objective(trial):
    return task.run(trial, **configuration(FIXED | trial.params))
