"""`EpochReporter` with Keras's own fit."""

import keras
import numpy as np
import optuna
import pytest

from tuner import interrupt
from tuner.errors import UsageError
from tuner.finetune import EpochReporter
from tuner.outcomes import Diverged


def _fit(reporter, *, epochs=3, rate=0.1, poison=False):
    """Fit a tiny regression; return how many epochs it began."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    y = x.sum(axis=1) if not poison else np.full(32, np.nan, dtype=np.float32)
    history = model.fit(x, y, epochs=epochs, verbose=0, callbacks=[reporter])
    return len(history.epoch)


class _PruneAt(optuna.pruners.BasePruner):
    def __init__(self, step):
        self.step = step

    def prune(self, study, trial):
        return trial.last_step >= self.step


def test_reports_every_epoch_from_1_and_returns_the_last_value(study):
    def objective(trial):
        reporter = EpochReporter(trial, monitor="mae")
        assert _fit(reporter) == 3
        return reporter.result()

    study.optimize(objective, n_trials=1)
    trial = study.trials[0]
    assert list(trial.intermediate_values) == [1, 2, 3]
    assert trial.value == trial.intermediate_values[3]
    assert trial.intermediate_values[3] < trial.intermediate_values[1]


def test_a_pruned_trial_stops_and_ends_pruned():
    study = optuna.create_study(pruner=_PruneAt(2))

    def objective(trial):
        reporter = EpochReporter(trial, monitor="mae")
        assert _fit(reporter, epochs=9) == 2
        return reporter.result()

    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert list(study.trials[0].intermediate_values) == [1, 2]


def test_a_missing_metric_names_the_closest(study):
    reporter = EpochReporter(study.ask(), monitor="mea")
    assert _fit(reporter) == 1
    with pytest.raises(UsageError, match=r"no metric 'mea', only loss, mae. Did you mean 'mae'\?"):
        reporter.result()


def test_nan_is_diverged(study):
    reporter = EpochReporter(study.ask(), monitor="loss")
    assert _fit(reporter, poison=True) == 1
    with pytest.raises(Diverged, match="epoch 1"):
        reporter.result()


def test_a_request_to_stop_hands_the_trial_back(study):
    trial = study.ask()
    reporter = EpochReporter(trial, monitor="mae")
    interrupt.request()
    assert _fit(reporter, epochs=9) == 1
    with pytest.raises(interrupt.HandBack):
        reporter.result()
    assert study.trials[0].intermediate_values == {}


def test_a_result_without_fit_is_a_sentence(study):
    with pytest.raises(UsageError, match="No epoch has ended"):
        EpochReporter(study.ask(), monitor="mae").result()


@pytest.mark.parametrize("place", ["report", "should_prune"])
def test_a_trial_that_hands_itself_back_lets_fit_tidy_up(place, study, monkeypatch):
    trial, tidied = study.ask(), []

    def hand_back(*_):
        raise interrupt.HandBack

    monkeypatch.setattr(trial, place, hand_back)
    reporter = EpochReporter(trial, monitor="mae")
    reporter.on_train_end = lambda logs=None: tidied.append(True)
    assert _fit(reporter, epochs=9) == 1
    assert tidied
    with pytest.raises(interrupt.HandBack):
        reporter.result()
