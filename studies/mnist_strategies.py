"""Training strategies on MNIST: which schedule, batch, decay, augmentation, net, and how much data?

The space of `mnist` and, beside it, nearly all that a training can vary. It is wide: compare one
factor at a time, the others being sampled alike for each of its levels,

    python -m tuner.run --study mnist_strategies --trials 100 --compare schedule

or narrow `space` to what you ask. Two inits are there to fail: ``zeros`` (all units of a layer stay
alike) and ``wide_normal`` (activations explode).
"""

from pathlib import Path
from typing import Any

import keras
import optuna
from keras import layers
from optuna import distributions

from tuner.finetune import (
    AUGMENTATIONS,
    SCHEDULES,
    BatchNormalization,
    FineTune,
    error_of,
    mnist,
    mnist_test,
)

STAGES = ("conv1", "conv2", "conv3", "dense")  # from the input on; frozen_layers counts them
OPTIMIZERS = {
    "momentum": lambda rate, decay: keras.optimizers.SGD(rate, 0.9, weight_decay=decay),
    "rmsprop": lambda rate, decay: keras.optimizers.RMSprop(rate, weight_decay=decay),
    "adam": lambda rate, decay: keras.optimizers.Adam(rate, weight_decay=decay),
}
INITS = {
    "pretrained": "pretrained",
    "he_normal": "he_normal",
    "glorot_uniform": "glorot_uniform",
    "orthogonal": "orthogonal",
    "zeros": "zeros",
    "wide_normal": keras.initializers.RandomNormal(stddev=5.0),
}
EPOCHS = {500: 60, 5_000: 15, 50_000: 5}  # fewer images are seen more often

metric = "val_error"  # share of 10,000 validation digits that is wrong
max_step = 20  # steps are twentieths of a training, quarter epochs where it has 5
data = "MNIST, handwritten digits, by Y. LeCun and C. Cortes; CC BY-SA 3.0"
test_images = 10_000
space: dict[str, distributions.BaseDistribution] = {
    "learning_rate": distributions.FloatDistribution(1e-4, 0.1, log=True),
    "schedule": distributions.CategoricalDistribution(tuple(SCHEDULES)),
    "optimizer": distributions.CategoricalDistribution(tuple(OPTIMIZERS)),
    "weight_decay": distributions.FloatDistribution(1e-4, 1.0, log=True),
    "batch_size": distributions.CategoricalDistribution((32, 64, 128, 256)),
    "label_smoothing": distributions.FloatDistribution(0.0, 0.2),
    "augmentation": distributions.CategoricalDistribution(tuple(AUGMENTATIONS)),
    "train_images": distributions.CategoricalDistribution(tuple(EPOCHS)),
    "init": distributions.CategoricalDistribution(tuple(INITS)),
}


def normalisation(kind: str, name: str) -> list[keras.layers.Layer]:
    if kind == "batch":
        return [BatchNormalization(name=name)]
    if kind == "layer":
        return [layers.LayerNormalization(name=name)]
    if kind == "group":
        return [layers.GroupNormalization(8, name=name)]
    return []


def downsampling(kind: str, filters: int, name: str) -> keras.layers.Layer:
    if kind == "max":
        return layers.MaxPooling2D(name=name)
    if kind == "average":
        return layers.AveragePooling2D(2, name=name)
    return layers.Conv2D(filters, 3, 2, padding="same", name=name)


def build_model(norm: str = "batch", pooling: str = "max", width: float = 1.0) -> keras.Model:
    """Without options the net of `mnist`."""
    net = [keras.Input((28, 28, 1), name="digit"), layers.Rescaling(1 / 255, name="scale")]
    for stage, full in (("conv1", 32), ("conv2", 64), ("conv3", 64)):
        filters = int(full * width)
        net += [
            layers.Conv2D(filters, 3, padding="same", use_bias=norm == "none", name=stage),
            *normalisation(norm, f"{stage}_norm"),
            layers.ReLU(name=f"{stage}_relu"),
        ]
        if stage != "conv3":
            net += [downsampling(pooling, filters, f"{stage}_pool")]
    net += [
        layers.Flatten(name="flatten"),
        layers.Dense(int(128 * width), activation="relu", name="dense"),
        layers.Dropout(0.3, name="dropout"),
        layers.Dense(10, name="logits"),
    ]
    return keras.Sequential(net)


task = FineTune(images=mnist, model=build_model, stages=STAGES, base_classes=range(5), epochs=5,
                batch_size=128, report_at=(1, 2, 4, 8, 12, 16, max_step))  # fmt: skip
prepare = task.prepare
footprint = task.footprint


def suggest_the_rest(trial: optuna.Trial) -> None:
    """What only some trials have: a base has one architecture, and only its stages thaw."""
    if trial.params["init"] == "pretrained":
        trial.suggest_int("frozen_layers", 0, len(STAGES))
        trial.suggest_categorical("thawing", ("at once", "one by one"))
        trial.suggest_float("stage_rate", 0.2, 1.0)
    else:
        trial.suggest_categorical("norm", ("batch", "layer", "group", "none"))
        trial.suggest_categorical("pooling", ("max", "average", "strided"))
        trial.suggest_categorical("width", (0.5, 1.0, 2.0))


def configuration(chosen: dict[str, Any]) -> dict[str, Any]:
    """What the task is told of a trial's parameters."""
    epochs = EPOCHS[chosen["train_images"]]
    optimizer = OPTIMIZERS[chosen["optimizer"]]
    thawing = chosen.get("thawing") == "one by one"
    return {
        "optimizer": optimizer(chosen["learning_rate"], chosen["weight_decay"]),
        "schedule": SCHEDULES[chosen["schedule"]],
        "batch_size": chosen["batch_size"],
        "label_smoothing": chosen["label_smoothing"],
        "augmentation": chosen["augmentation"],
        "train_images": chosen["train_images"],
        "epochs": epochs,
        "init": INITS[chosen["init"]],
        "frozen_stages": chosen.get("frozen_layers", 0),
        "thaw_epochs": epochs / 10 if thawing else None,  # four stages thaw in 40 % of the training
        "stage_rate": chosen.get("stage_rate", 1.0),
        "model": {name: chosen[name] for name in ("norm", "pooling", "width") if name in chosen},
    }


def objective(trial: optuna.Trial) -> float:
    suggest_the_rest(trial)
    return task.run(trial, **configuration(trial.params))


def final(trial: optuna.Trial) -> None:
    suggest_the_rest(trial)
    task.run_final(trial, **configuration(trial.params))


def validate(model_file: Path) -> dict[str, float]:
    digits = mnist()
    images, labels = digits.validation_images, digits.validation_labels
    return {"validation_error": error_of(model_file, images, labels)}


def test(model_file: Path) -> dict[str, float]:
    """Only a confirmation asks for it."""
    return {"test_error": error_of(model_file, *mnist_test())}
