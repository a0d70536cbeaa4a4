"""How small may a net for MNIST be? Its validation error against its number of parameters.

Two objectives: no trial is the best, the report draws those that no other beats. A constraint
keeps the search among nets that fit a small device; larger ones are not trained at all.

    python -m tuner.run --study mnist_size --trials 60
"""

from pathlib import Path
from typing import Any

import keras
import optuna
from keras import layers
from optuna import distributions

from tuner.finetune import SCHEDULES, BatchNormalization, FineTune, error_of, mnist

MOST_PARAMETERS = 100_000

metric = ("val_error", "parameters")
direction = ("minimize", "minimize")
max_step = 20  # steps are quarter epochs
steps_per_epoch = 4
data = "MNIST, handwritten digits, by Y. LeCun and C. Cortes; CC BY-SA 3.0"
space: dict[str, distributions.BaseDistribution] = {
    "learning_rate": distributions.FloatDistribution(3e-4, 3e-2, log=True),
    "filters": distributions.CategoricalDistribution((4, 8, 16, 32)),
    "stages": distributions.IntDistribution(2, 3),
    "units": distributions.CategoricalDistribution((0, 32, 64)),
}


def build_model(filters: int = 16, stages: int = 2, units: int = 32) -> keras.Model:
    """Each stage halves the picture and has twice the filters of the one before."""
    net = [keras.Input((28, 28, 1), name="digit"), layers.Rescaling(1 / 255, name="scale")]
    for stage in range(stages):
        name = f"conv{stage + 1}"
        net += [
            layers.Conv2D(filters << stage, 3, padding="same", use_bias=False, name=name),
            BatchNormalization(name=f"{name}_norm"),
            layers.ReLU(name=f"{name}_relu"),
            layers.MaxPooling2D(name=f"{name}_pool"),
        ]
    net += [layers.Flatten(name="flatten")]
    if units:
        net += [layers.Dense(units, activation="relu", name="dense")]
    return keras.Sequential([*net, layers.Dense(10, name="logits")])


# From scratch: there is no base to be trained before, and none of its stages to freeze.
task = FineTune(images=mnist, model=build_model, stages=("conv1",), base_recipe=None, epochs=5,
                batch_size=128, report_at=(4, 8, 12, 16, max_step))  # fmt: skip
prepare = task.prepare
footprint = task.footprint


def configuration(chosen: dict[str, Any]) -> dict[str, Any]:
    """What the task is told of a trial's parameters."""
    return {
        "optimizer": keras.optimizers.Adam(chosen["learning_rate"]),
        "schedule": SCHEDULES["cosine"],
        "init": "glorot_uniform",
        "frozen_stages": 0,
        "model": {name: chosen[name] for name in ("filters", "stages", "units")},
    }


def objective(trial: optuna.Trial) -> tuple[float, float]:
    chosen = configuration(trial.params)
    parameters = task.parameters(**chosen["model"])
    trial.set_constraint(f"parameters <= {MOST_PARAMETERS:,}", parameters - MOST_PARAMETERS)
    if parameters > MOST_PARAMETERS:
        raise optuna.TrialPruned
    return task.run(trial, **chosen), parameters


def final(trial: optuna.Trial) -> None:
    task.run_final(trial, **configuration(trial.params))


def validate(model_file: Path) -> dict[str, float]:
    digits = mnist()
    images, labels = digits.validation_images, digits.validation_labels
    return {"validation_error": error_of(model_file, images, labels)}
