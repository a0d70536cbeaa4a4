"""Print the curves of a few trials as JSON: run by a test in a fresh process."""

import contextlib
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import optuna

from tuner.finetune import Recipe, mnist

CONFIGURATIONS = [
    ("adam", 1e-3, "he_normal", 0),
    ("adagrad", 0.03, "pretrained", 1),
    ("nesterov", 0.03, "orthogonal", 2),
]


def curve(task, study_file, configuration, seed=11, outputs=None):
    """The reported values of one trial; a trial that diverged ends its list with 1.0."""
    optimizer, rate, init, frozen = configuration
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    trial = study.ask()
    trial.set_user_attr("seed", seed)
    trial.outputs = outputs
    with contextlib.suppress(optuna.TrialPruned):
        task.run(
            trial,
            optimizer=study_file.OPTIMIZERS[optimizer](rate),
            init=init,
            frozen_stages=frozen,
            schedule=study_file.schedule,
        )
    return list(study.trials[0].intermediate_values.values())


def load_study_file():
    """``studies/mnist.py`` as a module, as the worker loads it."""
    path = Path(__file__).parents[2] / "studies" / "mnist.py"
    spec = importlib.util.spec_from_file_location("mnist_study", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    study_file = load_study_file()
    task = dataclasses.replace(
        study_file.task,
        images=lambda: mnist().first(2560, 1000),
        epochs=1,
        report_at=(1, 2, 3, 4),
        base_recipe=Recipe(epochs=1),
    )
    sys.stdout.write(json.dumps([curve(task, study_file, c) for c in CONFIGURATIONS]))


if __name__ == "__main__":
    main()
