"""Clothes after digits: does a net that has learnt MNIST learn Fashion-MNIST better than a new one?

Asked: whether to start from the digits' weights or from scratch, how many stages to freeze, and at
which learning rate. Half of the trials of a balanced run start from scratch, the control:

    python -m tuner.run --study fashion_mnist --trials 40 --compare start

The images are not in this package. Put the four files of https://github.com/zalandoresearch/fashion-mnist
(or of Debian's package ``dataset-fashion-mnist``) into the folder ``fashion-mnist`` here, or name
another in the environment variable ``FASHION_MNIST``.
"""

import os
from pathlib import Path
from typing import Any

import keras
import optuna
from keras import layers
from optuna import distributions

from tuner.finetune import BatchNormalization, FineTune, Images, error_of, mnist, read_idx

FOLDER = Path(os.environ.get("FASHION_MNIST") or Path(__file__).parent / "fashion-mnist")
STAGES = ("conv1", "conv2", "dense")
SCRATCH = "he_normal"

metric = "val_error"
max_step = 20  # steps are quarter epochs
steps_per_epoch = 4
data = "Fashion-MNIST, by Zalando Research; MIT License"
test_images = 10_000
space: dict[str, distributions.BaseDistribution] = {
    "learning_rate": distributions.FloatDistribution(1e-4, 1e-2, log=True),
    "start": distributions.CategoricalDistribution(("digits", "scratch")),
}


def clothes() -> Images:
    return Images.from_idx(FOLDER, validation=1 / 6)


def build_model() -> keras.Model:
    net = [keras.Input((28, 28, 1), name="image"), layers.Rescaling(1 / 255, name="scale")]
    for stage, filters in (("conv1", 32), ("conv2", 64)):
        net += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name=stage),
            BatchNormalization(name=f"{stage}_norm"),
            layers.ReLU(name=f"{stage}_relu"),
            layers.MaxPooling2D(name=f"{stage}_pool"),
        ]
    net += [
        layers.Flatten(name="flatten"),
        layers.Dense(128, activation="relu", name="dense"),
        layers.Dropout(0.3, name="dropout"),
        layers.Dense(10, name="logits"),
    ]
    return keras.Sequential(net)


# The base learns all ten digits; of it only the stages are taken, never the logits.
task = FineTune(images=clothes, base_images=mnist, model=build_model, stages=STAGES, epochs=5,
                batch_size=128, report_at=(1, 2, 4, 8, 12, 16, max_step))  # fmt: skip
prepare = task.prepare
footprint = task.footprint


def configuration(chosen: dict[str, Any]) -> dict[str, Any]:
    return {
        "optimizer": keras.optimizers.Adam(chosen["learning_rate"]),
        "init": "pretrained" if chosen["start"] == "digits" else SCRATCH,
        "frozen_stages": chosen.get("frozen_layers", 0),
        "schedule": lambda done: 1 - done,
    }


def objective(trial: optuna.Trial) -> float:
    if trial.params["start"] == "digits":  # from scratch there is nothing to freeze
        trial.suggest_int("frozen_layers", 0, len(STAGES))
    return task.run(trial, **configuration(trial.params))


def final(trial: optuna.Trial) -> None:
    task.run_final(trial, **configuration(trial.params))


def validate(model_file: Path) -> dict[str, float]:
    kept = clothes()
    return {
        "validation_error": error_of(model_file, kept.validation_images, kept.validation_labels)
    }


def test(model_file: Path) -> dict[str, float]:
    return {"test_error": error_of(model_file, *read_idx(FOLDER, "test"))}
