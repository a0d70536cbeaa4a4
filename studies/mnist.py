"""Digits after half of them: fine-tune a net that knows 0 to 4 on all ten.

Asked: which learning rate, which optimizer, which initialiser for the layers that train, and how
many of the four stages to freeze? Each trial trains 5 epochs; hopeless ones are pruned earlier.

    python -m tuner.run --study mnist --trials 100
"""

import math
from pathlib import Path
from typing import Any

import keras
import optuna
from keras import layers
from optuna import distributions

from tuner.finetune import BatchNormalization, FineTune, error_of, mnist, mnist_test

STAGES = ("conv1", "conv2", "conv3", "dense")  # from the input on; frozen_layers counts them
OPTIMIZERS = {
    "sgd": keras.optimizers.SGD,
    "momentum": lambda rate: keras.optimizers.SGD(rate, momentum=0.9),
    "nesterov": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "adagrad": keras.optimizers.Adagrad,
}
INITS = ("pretrained", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal",
         "lecun_normal", "orthogonal", "random_normal")  # fmt: skip

metric = "val_error"  # share of 10,000 validation digits that is wrong
direction = "minimize"
max_step = 20  # steps are quarter epochs
steps_per_epoch = 4  # people are shown epochs
data = "MNIST, handwritten digits, by Y. LeCun and C. Cortes; CC BY-SA 3.0"
test_images = 10_000  # other digits, which no search sees
space: dict[str, distributions.BaseDistribution] = {
    "learning_rate": distributions.FloatDistribution(1e-4, 1.0, log=True),
    "optimizer": distributions.CategoricalDistribution(tuple(OPTIMIZERS)),
    "init": distributions.CategoricalDistribution(INITS),
    "frozen_layers": distributions.IntDistribution(0, len(STAGES)),
}


def build_model() -> keras.Model:
    """A layer belongs to the stage that its name begins with; the others are the head."""
    net = [keras.Input((28, 28, 1), name="digit"), layers.Rescaling(1 / 255, name="scale")]
    for stage, filters in (("conv1", 32), ("conv2", 64), ("conv3", 64)):
        net += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name=stage),
            BatchNormalization(name=f"{stage}_norm"),
            layers.ReLU(name=f"{stage}_relu"),
        ]
        if stage != "conv3":
            net += [layers.MaxPooling2D(name=f"{stage}_pool")]
    net += [
        layers.Flatten(name="flatten"),
        layers.Dense(128, activation="relu", name="dense"),
        layers.Dropout(0.3, name="dropout"),
        layers.Dense(10, name="logits"),
    ]
    return keras.Sequential(net)


def schedule(done: float) -> float:
    """Fraction of the learning rate: a short warm-up to 1, then a cosine to 0; done is 0 to 1."""
    warm_up = 0.05
    if done < warm_up:
        return done / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up))


task = FineTune(images=mnist, model=build_model, stages=STAGES, base_classes=range(5), epochs=5,
                batch_size=128, report_at=(1, 2, 4, 8, 12, 16, max_step))  # fmt: skip
prepare = task.prepare  # once a worker: train the base on digits 0 to 4, or load it
footprint = task.footprint  # what it keeps on the disk, for --dry-run


def configuration(chosen: dict[str, Any]) -> dict[str, Any]:
    """What the task is told of a trial's parameters."""
    return {
        "optimizer": OPTIMIZERS[chosen["optimizer"]](chosen["learning_rate"]),
        "init": chosen["init"],
        "frozen_stages": chosen["frozen_layers"],
        "schedule": schedule,
    }


def objective(trial: optuna.Trial) -> float:
    return task.run(trial, **configuration(trial.params))


def final(trial: optuna.Trial) -> None:
    """As the objective, but on training and validation digits: for the model that is kept."""
    task.run_final(trial, **configuration(trial.params))


def validate(model_file: Path) -> dict[str, float]:
    digits = mnist()
    images, labels = digits.validation_images, digits.validation_labels
    return {"validation_error": error_of(model_file, images, labels)}


def test(model_file: Path) -> dict[str, float]:
    """Only a confirmation asks for it."""
    return {"test_error": error_of(model_file, *mnist_test())}
