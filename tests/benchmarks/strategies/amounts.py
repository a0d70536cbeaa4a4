r"""Where do pretraining and freezing pay: with 500, 5,000 or 50,000 training images?

python -m tuner.run --study tests/benchmarks/strategies/amounts.py --trials 27 \
    --compare train_images
"""

from optuna import distributions

from studies.mnist_strategies import (
    STAGES,
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
    "batch_size": 64,
    "label_smoothing": 0.0,
    "augmentation": "none",
}
space = {
    "train_images": everything["train_images"],
    "init": distributions.CategoricalDistribution(("pretrained", "he_normal")),
    "frozen_layers": distributions.IntDistribution(0, len(STAGES)),
    "learning_rate": distributions.FloatDistribution(3e-4, 2e-2, log=True),
}


def objective(trial):
    return task.run(trial, **configuration(FIXED | trial.params))
