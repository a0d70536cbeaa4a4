r"""Where does pretraining pay: with 500, 5,000 or 50,000 training images?

python -m tuner.run --study tests/benchmarks/strategies/amounts.py --trials 36 \
    --compare start --pruner none
"""

from optuna import distributions

from studies.mnist_strategies import (
    EPOCHS,
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

FIXED = {
    "optimizer": "adam",
    "schedule": "cosine",
    "weight_decay": 1e-4,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "augmentation": "none",
}
STARTS = {
    f"{init}, {images:,} images": {"init": init, "train_images": images}
    for images in EPOCHS
    for init in ("pretrained", "he_normal")
}
space = {
    "start": distributions.CategoricalDistribution(tuple(STARTS)),
    "learning_rate": distributions.FloatDistribution(3e-4, 1e-2, log=True),
}


def objective(trial):
    start = STARTS[trial.params["start"]]
    if start["init"] == "pretrained":  # from scratch there is nothing to freeze
        trial.suggest_int("frozen_layers", 0, len(STAGES))
    return task.run(trial, **configuration(FIXED | start | trial.params))
