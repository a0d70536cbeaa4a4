"""KerasTuner on the same model, data and schedule as `tests.benchmarks.usual`.

    python -m tests.benchmarks.kerastuner twenty STORAGE BASE
    python -m tests.benchmarks.kerastuner search STORAGE BASE SEED

Its trials are written into an Optuna study, too, so that the benchmarks read all ways alike.
Needs ``pip install -e '.[benchmarks]'``.
"""

import sys
import tempfile
import time
from typing import Any

import keras
import keras_tuner
import optuna

from tests.benchmarks.twenty import BATCH, CONFIGURATIONS, study
from tests.benchmarks.twenty import EPOCHS as TWENTY_EPOCHS
from tests.benchmarks.usual import SEARCH_EPOCHS, StallClock, build, data, images, read_base

FOR_EVER = 1000  # iterations of Hyperband


class _Report(keras.callbacks.Callback):  # type: ignore[misc]
    """Copies the validation accuracy into an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        super().__init__()
        self._trial = trial

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._trial.report(logs["val_accuracy"], epoch + 1)


class _Twenty(keras_tuner.HyperModel):  # type: ignore[misc]
    """The twenty configurations, each by its number."""

    def __init__(self, base_file: str, log: optuna.Study) -> None:
        super().__init__()
        self._base = read_base(base_file)
        self._log = log
        self._began = 0.0

    def build(self, hp: Any) -> keras.Model:
        self._began = time.perf_counter()
        number = hp.Choice("configuration", list(range(len(CONFIGURATIONS))))
        return build(CONFIGURATIONS[number], self._base, number, TWENTY_EPOCHS)

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any, **options: Any) -> Any:
        stalls = StallClock()
        history = model.fit(*args, callbacks=[*callbacks, stalls], **options)
        stalls.look()
        self._log.add_trial(
            optuna.create_trial(
                params={"configuration": hp.get("configuration")},
                distributions={"configuration": optuna.distributions.IntDistribution(0, 19)},
                value=1.0 - history.history["val_accuracy"][-1],
                user_attrs={
                    "trial_seconds": time.perf_counter() - self._began,
                    "stall_seconds": stalls.seconds,
                },
            )
        )
        return history


class _Search(keras_tuner.HyperModel):  # type: ignore[misc]
    """The space of the MNIST study."""

    def __init__(self, base_file: str, log: optuna.Study, seed: int) -> None:
        super().__init__()
        self._base = read_base(base_file)
        self._log = log
        self._seed = seed

    def build(self, hp: Any) -> keras.Model:
        rate = study.space["learning_rate"]
        return build(
            (
                hp.Choice("optimizer", list(study.OPTIMIZERS)),
                hp.Float("learning_rate", rate.low, rate.high, sampling="log"),
                hp.Choice("init", list(study.INITS)),
                hp.Int("frozen_layers", 0, len(study.STAGES)),
            ),
            self._base,
            1000 * self._seed + len(self._log.trials),
            SEARCH_EPOCHS,
        )

    def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: Any, **options: Any) -> Any:
        # A promoted trial goes on from a checkpoint without the optimizer: let the schedule go on.
        done = options.get("initial_epoch", 0) * -(-len(images.train_labels) // BATCH)
        model.optimizer.iterations.assign(done)
        trial = self._log.ask()
        history = model.fit(*args, callbacks=[*callbacks, _Report(trial)], **options)
        self._log.tell(trial, history.history["val_accuracy"][-1])
        return history


def run_twenty(storage: str, base_file: str) -> None:
    """Train the twenty configurations."""
    log = optuna.load_study(study_name="twenty", storage=storage)
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.GridSearch(
            _Twenty(base_file, log), "val_accuracy", max_trials=20, directory=folder
        )
        tuner.search(**data(), epochs=TWENTY_EPOCHS)


def run_search(storage: str, base_file: str, seed: str) -> None:
    """Search by Hyperband until it is stopped."""
    log = optuna.create_study(study_name="search", storage=storage, direction="maximize")
    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.Hyperband(
            _Search(base_file, log, int(seed)), "val_accuracy", max_epochs=SEARCH_EPOCHS, factor=3,
            hyperband_iterations=FOR_EVER, seed=int(seed), directory=folder,
        )  # fmt: skip
        tuner.search(**data())


if __name__ == "__main__":
    {"twenty": run_twenty, "search": run_search}[sys.argv[1]](*sys.argv[2:])
