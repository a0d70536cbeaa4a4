"""Twenty configurations, four for each frozen depth, as a study of our command.

`tests.benchmarks.speed` runs it, and the usual way beside it. Environment variables switch parts of
the fast path off, for the ablation.
"""

import dataclasses
import os
import sys
from pathlib import Path

import keras
import numpy as np
import optuna
from optuna import distributions

from tests.finetune.curves import load_study_file
from tuner import cache
from tuner.finetune import pretrained, training
from tuner.finetune.weights import weights_hash

EPOCHS = 1
BATCH = 128
OFF = os.environ.get("TWENTY_WITHOUT", "")
"""What the ablation switches off: ``fused``, ``reuse``, ``graph`` or nothing."""

# optimizer, learning rate, init; each at 0, 1, 2, 3 and 4 frozen stages
SETTINGS = (
    ("adam", 1e-3, "pretrained"),
    ("nesterov", 0.03, "he_normal"),
    ("rmsprop", 1e-3, "glorot_uniform"),
    ("momentum", 0.03, "orthogonal"),
)
CONFIGURATIONS = [(*setting, frozen) for frozen in range(5) for setting in SETTINGS]

study = load_study_file()
if OFF == "fused":
    study.BatchNormalization = keras.layers.BatchNormalization
if OFF == "graph":
    training.PIECE_IMAGES = 1  # back to Python after every batch

metric = "val_error"
direction = "minimize"
max_step = 4 * EPOCHS
space: dict[str, distributions.BaseDistribution] = {
    "configuration": distributions.IntDistribution(0, len(CONFIGURATIONS) - 1)
}
_task = dataclasses.replace(
    study.task, epochs=EPOCHS, report_at=tuple(range(4, max_step + 1, 4)), batch_size=BATCH
)


def prepare() -> None:
    _task.prepare()


def fill_cache() -> None:
    """Train the base and compute the features of every frozen depth, where they are not there.

    Prints the base's file.
    """
    prepare()
    for frozen in range(1, len(study.STAGES) + 1):
        plan = training.Plan(
            np.arange(BATCH), 1, BATCH, keras.optimizers.SGD(0.1), study.schedule,
            study.STAGES[:frozen], seed=0,
        )  # fmt: skip
        _task._trainer.start(_task._base.weights, plan)
    (base,) = (path for path in cache.folder().glob("base-*.npz") if _holds(path, _task._base))
    sys.stdout.write(f"{base}\n")


def _holds(path: Path, base: pretrained.Base) -> bool:
    with np.load(path) as arrays:
        return weights_hash([arrays[f"arr_{index}"] for index in range(len(arrays))]) == base.hash


def objective(trial: optuna.Trial) -> float:
    if OFF == "reuse":
        _task._trainer._loops.clear()
        _task._trainer._take_statistics.clear()
    optimizer, rate, init, frozen = CONFIGURATIONS[trial.params["configuration"]]
    return _task.run(
        trial,
        optimizer=study.OPTIMIZERS[optimizer](rate),
        init=init,
        frozen_stages=frozen,
        schedule=study.schedule,
    )
