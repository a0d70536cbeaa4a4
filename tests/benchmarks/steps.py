"""What a training step costs: ours beside the usual Keras ``fit``, for each frozen depth.

    python -m tests.benchmarks.steps

CPU milliseconds a step of 128 images on one thread, interleaved, medians. Same model, same images,
same optimizer; ``fit`` runs Keras's own batch normalisation in float32, as a user would write it.
Needs nothing but this repository.
"""

import dataclasses
import os

os.environ["TUNER_THREADS"] = "1"  # before TensorFlow starts

import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from tests.finetune.curves import load_study_file
from tuner.finetune import features
from tuner.finetune.stages import freeze
from tuner.finetune.training import Plan

ROUNDS = 3
STEPS = 100
WARM_UP_STEPS = 10
BATCH = 128
IMAGES = 50_000

study = load_study_file()


def cpu_ms_per_step(train: Callable[[int], Any]) -> float:
    """CPU time of this process for a step, after some steps that are not counted."""
    train(WARM_UP_STEPS)
    began = time.process_time()
    train(STEPS)
    return 1000 * (time.process_time() - began) / STEPS


def usual(frozen: int) -> Callable[[int], Any]:
    """Keras's own layers and ``fit``."""
    with mock.patch.object(study, "BatchNormalization", keras.layers.BatchNormalization):
        model = study.build_model()
    freeze(model, study.STAGES[:frozen])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    images = study.task._images

    def train(steps: int) -> None:
        size = steps * BATCH
        model.fit(images.train_images[:size], images.train_labels[:size], BATCH, verbose=0)

    return train


def prepared(precision: str) -> Any:
    """The study's task in a precision, with its base."""
    task = dataclasses.replace(study.task)
    with mock.patch.dict(os.environ, TUNER_PRECISION=precision):
        task.prepare()
    return task


def ours(task: Any, *, stored: bool) -> Callable[[int], Callable[[int], Any]]:
    """The compiled loop on the whole model, or on stored features."""
    trainer, found = task._trainer, features.load_or_compute

    def start(frozen: int) -> Callable[[int], Any]:
        trainer._features.clear()
        with mock.patch.object(features, "load_or_compute", found if stored else lambda *_: None):
            plan = Plan(
                np.arange(IMAGES), 1, BATCH, keras.optimizers.Adam(1e-3), lambda _: 1.0,
                study.STAGES[:frozen], 1,
            )  # fmt: skip
            run = trainer.start(task._base.weights, plan)
        if stored and run.reads is trainer.whole:
            return lambda _: None  # features do not pay here
        return lambda steps: run.train_to(run.batch + steps)

    return start


def main() -> None:
    """Measure and print."""
    float32, bfloat16 = prepared("float32"), prepared("bfloat16")
    ways = {
        "usual fit": usual,
        "float32, whole model": ours(float32, stored=False),
        "float32, stored features": ours(float32, stored=True),
        "bfloat16, whole model": ours(bfloat16, stored=False),
        "bfloat16, stored features": ours(bfloat16, stored=True),
    }
    table = Table(title=f"CPU ms a step of {BATCH} images, one thread, median of {ROUNDS}")
    for column in ("frozen stages", *ways, "fit / float32", "fit / bfloat16"):
        table.add_column(column, justify="right")
    for frozen in range(len(study.STAGES) + 1):
        measured: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                measured[name].append(cpu_ms_per_step(way(frozen)))
        fit, *each = (statistics.median(times) for times in measured.values())
        cells = [f"{ms:.1f}" if ms > 0.05 else "" for ms in (fit, *each)]
        best = [min(ms for ms in pair if ms > 0.05) for pair in (each[:2], each[2:])]
        table.add_row(str(frozen), *cells, *(f"{fit / ms:.1f}" for ms in best))
    Console().print(table)


if __name__ == "__main__":
    main()
