"""How a study's values are shown and modelled: as errors on a log axis wherever that is right.

Accuracy near 1 is squashed on a linear axis, and its noise grows with the error; so a share is
shown as an error in per cent, and everything positive on a log axis.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# An accuracy by its name: then 1 - value is the error.
_ACCURACIES = ("acc", "auc", "f1", "precision", "recall", "score", "dice", "iou")
_ERRORS = ("err",)
# Positive values that differ by less than this factor are as well seen on a linear axis.
_LOG_FROM_RATIO = 2.0
# What a log axis shows of a zero, as a part of the smallest positive value.
_ZERO_AS = 0.5


@dataclass(frozen=True)
class Scale:
    """One way to show values; lower is always better in what is shown.

    Attributes:
        metric: the metric's name as the study says it.
        label: of what is shown, for people: "validation error".
        share: it is a share of wrong answers, shown in per cent.
        log: the axis, and the model, is logarithmic.
        sign, offset: shown = offset + sign * value.
        floor: what is shown of values at or below it on a log axis.
    """

    metric: str
    label: str
    share: bool
    log: bool
    sign: float
    offset: float
    floor: float

    def shown(self, values: npt.ArrayLike) -> Array:
        """The values as they are drawn: lower is better; NaN stays."""
        shown = self.offset + self.sign * np.asarray(values, dtype=float)
        return np.maximum(shown, self.floor) if self.log else shown

    def to_model(self, shown: npt.ArrayLike) -> Array:
        """What is drawn, as the model takes it: log10 on a log axis."""
        array = np.asarray(shown, dtype=float)
        return np.log10(np.maximum(array, self.floor)) if self.log else array

    def from_model(self, modelled: npt.ArrayLike) -> Array:
        """The inverse of `to_model`."""
        array = np.asarray(modelled, dtype=float)
        return 10.0**array if self.log else array

    def text(self, shown: float) -> str:
        """A value as people read it: ``0.58 %``, ``0.0123``."""
        if not math.isfinite(shown):
            return "–"
        if self.share:
            percent = 100 * shown
            digits = 0 if percent >= 20 else 1 if percent >= 2 else 2
            return f"{percent:.{digits}f} %"
        return f"{shown:.4g}"

    def ratio(self, worse: float, better: float) -> str:
        """How much worse: ``×1.18`` on a log axis, else the difference ``+0.3``."""
        if not math.isfinite(worse) or not math.isfinite(better):
            return "–"
        return f"×{worse / better:.2f}" if self.log else f"+{worse - better:.3g}"


def scale_of(metric: str, direction: str, values: npt.ArrayLike) -> Scale:
    """Choose the scale of a study.

    Args:
        metric: its name as the study says it.
        direction: ``minimize`` or ``maximize``.
        values: all finite values, final and intermediate.
    """
    array = np.asarray(values, dtype=float)
    array = array[np.isfinite(array)]
    name = metric.lower()
    unit = bool(len(array)) and array.min() >= 0 and array.max() <= 1
    if direction == "maximize":
        if unit and any(it in name for it in _ACCURACIES):
            return _log(metric, _words(metric) + " error (1 − value)", 1 - array, -1.0, 1.0)
        return Scale(metric, f"−{_words(metric)}", False, False, -1.0, 0.0, -math.inf)  # noqa: FBT003
    if unit and any(it in name for it in _ERRORS):
        return _log(metric, _words(metric), array, 1.0, 0.0)
    positive = bool(len(array)) and array.min() > 0 and array.max() > _LOG_FROM_RATIO * array.min()
    floor = array.min() * _ZERO_AS if positive else -math.inf
    return Scale(metric, _words(metric), False, positive, 1.0, 0.0, floor)  # noqa: FBT003


def _log(metric: str, label: str, errors: Array, sign: float, offset: float) -> Scale:
    positive = errors[errors > 0]
    floor = _ZERO_AS * float(positive.min()) if len(positive) else 1e-6
    return Scale(metric, label, True, True, sign, offset, floor)  # noqa: FBT003


def _words(metric: str) -> str:
    """``val_error`` as ``validation error``."""
    words = metric.replace("_", " ").replace(".", " ").strip()
    return " ".join("validation" if word == "val" else word for word in words.split(" ")) or "value"
