"""The usual way: Optuna around Keras's ``fit``, as the documentation of both shows it.

    python -m tests.benchmarks.usual twenty STORAGE BASE SHARE SHARES
    python -m tests.benchmarks.usual search STORAGE BASE SEED none|hyperband

``twenty`` trains those configurations of `tests.benchmarks.twenty` whose number is SHARE modulo
SHARES. ``search`` searches the space of the MNIST study until it is stopped. Both use Keras's own
batch normalisation; BASE is a file with the pretrained weights. The other benchmarks start them.
"""

import math
import sys
import time
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import optuna

from tests.benchmarks.twenty import BATCH, CONFIGURATIONS, study
from tests.benchmarks.twenty import EPOCHS as TWENTY_EPOCHS
from tuner.finetune import EpochReporter, mnist
from tuner.finetune.initialise import drawn, stages_from_base, with_stages
from tuner.finetune.stages import stage_of

SEARCH_EPOCHS = 5  # as the MNIST study's
STALL_SECONDS = 0.3
"""The shortest idle time that counts as a stall."""

Configuration = tuple[str, float, str, int]
"""Optimizer, learning rate, init, frozen stages."""

study.BatchNormalization = keras.layers.BatchNormalization
images = mnist()


class StallClock(keras.callbacks.Callback):  # type: ignore[misc]
    """Sums the times in which ``fit`` waits without computing; look once more when it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self._since = (0.0, 0.0)

    def look(self) -> None:
        """Count the time since the last look, if hardly any of it was spent computing."""
        wall, cpu = time.perf_counter(), time.process_time()
        idle = wall - self._since[0] - (cpu - self._since[1])
        self.seconds += idle if idle > STALL_SECONDS else 0.0
        self._since = (wall, cpu)

    def on_train_begin(self, logs: Any = None) -> None:
        self._since = (time.perf_counter(), time.process_time())

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.look()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.look()

    def on_test_begin(self, logs: Any = None) -> None:
        self.look()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.look()


def read_base(path: str) -> list[npt.NDArray[Any]]:
    """The pretrained weights."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays))]


def schedule(peak: float, epochs: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """The study's schedule in Keras's own words: a short warm-up, then a cosine to zero."""
    batches = epochs * math.ceil(len(images.train_labels) / BATCH)
    warm_up = round(0.05 * batches)
    return keras.optimizers.schedules.CosineDecay(
        0.0, batches - warm_up, warmup_target=peak, warmup_steps=warm_up
    )


def build(
    configuration: Configuration, base: list[npt.NDArray[Any]], seed: int, epochs: int
) -> keras.Model:
    """The compiled model of a configuration, with its starting weights."""
    optimizer, rate, init, frozen = configuration
    keras.utils.set_random_seed(seed)
    model = study.build_model()
    names = study.STAGES[:frozen]
    new = drawn([weight.numpy() for weight in model.weights], init, seed)
    model.set_weights(with_stages(model, new, base, stages_from_base(init, study.STAGES, names)))
    for layer in model.layers:
        layer.trainable = stage_of(layer) not in names
    model.compile(
        study.OPTIMIZERS[optimizer](schedule(rate, epochs)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def data() -> dict[str, Any]:
    """The arguments of ``fit`` that say what to train on."""
    return {
        "x": images.train_images,
        "y": images.train_labels,
        "batch_size": BATCH,
        "validation_data": (images.validation_images, images.validation_labels),
        "verbose": 0,
    }


def run_twenty(storage: str, base_file: str, share: str, shares: str) -> None:
    """Train this share of the twenty configurations, and store what each cost."""
    base = read_base(base_file)

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_int("configuration", 0, len(CONFIGURATIONS) - 1)
        began = time.perf_counter()
        keras.backend.clear_session()
        model = build(CONFIGURATIONS[number], base, number, TWENTY_EPOCHS)
        stalls, reporter = StallClock(), EpochReporter(trial, monitor="val_accuracy")
        model.fit(**data(), epochs=TWENTY_EPOCHS, callbacks=[reporter, stalls])
        stalls.look()
        trial.set_user_attr("trial_seconds", time.perf_counter() - began)
        trial.set_user_attr("stall_seconds", stalls.seconds)
        return 1.0 - reporter.result()

    chosen = optuna.load_study(
        study_name="twenty", storage=storage, pruner=optuna.pruners.NopPruner()
    )
    for number in range(int(share), len(CONFIGURATIONS), int(shares)):
        chosen.sampler = optuna.samplers.PartialFixedSampler(
            {"configuration": number}, optuna.samplers.RandomSampler(seed=0)
        )
        chosen.optimize(objective, n_trials=1)


def run_search(storage: str, base_file: str, seed: str, pruner: str) -> None:
    """Search for ever with Optuna's own sampler."""
    base = read_base(base_file)
    pruners = {
        "none": optuna.pruners.NopPruner(),
        "hyperband": optuna.pruners.HyperbandPruner(1, SEARCH_EPOCHS, 3),
    }

    def objective(trial: optuna.Trial) -> float:
        keras.backend.clear_session()
        chosen = [trial._suggest(name, kind) for name, kind in study.space.items()]
        rate, optimizer, init, frozen = chosen
        drawn_by = 1000 * int(seed) + trial.number
        model = build((optimizer, rate, init, frozen), base, drawn_by, SEARCH_EPOCHS)
        reporter = EpochReporter(trial, monitor="val_accuracy")
        model.fit(**data(), epochs=SEARCH_EPOCHS, callbacks=[reporter])
        return reporter.result()

    optuna.create_study(
        study_name="search",
        storage=storage,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=int(seed)),
        pruner=pruners[pruner],
    ).optimize(objective)


if __name__ == "__main__":
    {"twenty": run_twenty, "search": run_search}[sys.argv[1]](*sys.argv[2:])
