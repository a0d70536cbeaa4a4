"""For objectives that call Keras's own ``fit``: report each epoch, prune, stop on Ctrl-C.

::

    reporter = EpochReporter(trial, monitor="val_accuracy")
    model.fit(..., callbacks=[reporter])
    return reporter.result()
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import keras
import optuna

from tuner import interrupt
from tuner.errors import UsageError
from tuner.outcomes import Diverged


class EpochReporter(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports a metric after each epoch, counted from 1, and ends the training when told to.

    ``fit`` always returns, so that it can tidy up; `result` then says how the trial ends.

    Args:
        trial: reported to and asked whether to prune.
        monitor: name of the metric, as in ``fit``'s history.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        super().__init__()
        self._trial = trial
        self._monitor = monitor
        self._value: float | None = None
        self._leave: BaseException | None = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stop the training if this process was asked to stop."""
        del batch, logs
        if interrupt.requested():
            self._stop(interrupt.HandBack())

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report the metric, and stop the training if it is missing, NaN or to be pruned."""
        logs = logs or {}
        if self._leave is not None:
            return  # stopped within the epoch: its metric covers a part only
        if self._monitor not in logs:
            self._stop(UsageError(_missing(self._monitor, list(logs))))
            return
        step, value = epoch + 1, float(logs[self._monitor])
        if not math.isfinite(value):
            self._stop(Diverged(f"Diverged in epoch {step}: {self._monitor} is {value}."))
            return
        self._value = value
        try:
            self._trial.report(value, step)
            if self._trial.should_prune():
                self._stop(optuna.TrialPruned(f"Pruned after epoch {step} at {value:.4f}."))
        except interrupt.HandBack as leave:  # fit would not tidy up
            self._stop(leave)

    def result(self) -> float:
        """The metric after the last epoch.

        Raises:
            TrialPruned: the study's pruner gave the trial up.
            Diverged: the metric was not finite.
            UsageError: ``fit`` did not compute the metric, or did not end an epoch.
            HandBack: somebody asked this process to stop.
        """
        if self._leave is not None:
            raise self._leave
        if self._value is None:
            raise UsageError(
                f"No epoch has ended, so there is no {self._monitor!r}: pass the EpochReporter to "
                "fit in callbacks, and ask for its result afterwards."
            )
        return self._value

    def _stop(self, leave: BaseException) -> None:
        """End the training after this batch; `result` will raise ``leave``."""
        self._leave = leave
        self.model.stop_training = True


def _missing(monitor: str, available: list[str]) -> str:
    """The sentence for a metric that ``fit`` does not compute."""
    close = difflib.get_close_matches(monitor, available, n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else "Compile the model with that metric."
    return f"fit reports no metric {monitor!r}, only {', '.join(sorted(available))}. {remedy}"
