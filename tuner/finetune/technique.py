"""How one trial trains: everything that a study may sample, in one value."""

import dataclasses
import difflib
import json
import math
import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tuner.errors import UsageError
from tuner.finetune.augment import NONE, augmentation_of
from tuner.finetune.initialise import Init
from tuner.finetune.schedules import SCHEDULES, Schedule

_PLAIN = (str, int, float, bool, type(None))
"""What options of a model may be: they are a key, and part of a checkpoint."""


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Technique:
    """How one trial trains.

    Attributes:
        optimizer: its learning rate is the peak that ``schedule`` scales; its ``weight_decay``, if
            it has one, is decoupled (Loshchilov and Hutter 2019, arXiv:1711.05101).
        init: ``"pretrained"``, the name of a Keras initialiser, or one made; see `initialise`.
        frozen_stages: how many stages keep the base's weights, from the input on.
        schedule: from the fraction of the training that is done, 0 to 1, to the fraction of the
            learning rate; see `schedules`.
        batch_size: training images a batch; None: the task's.
        epochs: how often each training image is seen; None: the task's. Steps are twentieths or so
            of the training, whatever its epochs: reports come at the same shares of it.
        train_images: how many training images to use, each class in its own share, which ones by
            the trial's seed; None: all.
        label_smoothing: share of a label that is spread over all classes, 0 to below 1 (Szegedy et
            al. 2016, arXiv:1512.00567, section 7).
        augmentation: of the training images, see `augment`.
        thaw_epochs: None: all stages but the frozen ones train from the start. Else they are frozen
            too at first, and one more trains after each so many epochs, the last one first (gradual
            unfreezing: Howard and Ruder 2018, arXiv:1801.06146, section 3.3). Needs ``init``
            ``"pretrained"``.
        stage_rate: each stage learns at this fraction of the rate of what is behind it, above 0 to
            1; the head at the whole one (discriminative fine-tuning: ibid., section 3.2, who found
            1/2.6 good).
        model: what the task's ``model`` is called with: names, and texts, numbers or truth values.
    """

    optimizer: keras.optimizers.Optimizer
    init: Init
    frozen_stages: int
    schedule: Schedule
    batch_size: int | None = None
    epochs: int | None = None
    train_images: int | None = None
    label_smoothing: float = 0.0
    augmentation: str = NONE
    thaw_epochs: float | None = None
    stage_rate: float = 1.0
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        augmentation_of(self.augmentation)
        if not _is_number(self.label_smoothing) or not 0.0 <= self.label_smoothing < 1.0:
            raise UsageError(
                f"label_smoothing={self.label_smoothing!r} is no share from 0 to below 1."
            )
        if not _is_number(self.stage_rate) or not 0.0 < self.stage_rate <= 1.0:
            raise UsageError(f"stage_rate={self.stage_rate!r} is no fraction above 0 to 1.")
        thaw = self.thaw_epochs
        if thaw is not None and not (_is_number(thaw) and 0.0 < thaw < math.inf):
            raise UsageError(f"thaw_epochs={thaw!r} is no number of epochs above 0.")
        for name, least in (("batch_size", 1), ("epochs", 1), ("train_images", 1),
                            ("frozen_stages", 0)):  # fmt: skip
            value = getattr(self, name)
            optional = name != "frozen_stages"
            if not (optional and value is None) and not _is_whole(value, least):
                raise UsageError(f"{name}={value!r} is no whole number from {least} up.")
        schedule: object = self.schedule
        if not callable(schedule):
            names = ", ".join(f"SCHEDULES[{name!r}]" for name in SCHEDULES)
            raise UsageError(
                f"schedule={schedule!r} is no function of the fraction done; give one, such "
                f"as {names}."
            )
        self._check_optimizer()
        for name, value in self.model.items():
            if not isinstance(value, _PLAIN):
                raise UsageError(
                    f"The option {name}={value!r} of the model is no text, number or truth value: "
                    "give a name, and let the model's function make of it what it needs."
                )

    def _check_optimizer(self) -> None:
        optimizer = self.optimizer
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise UsageError(
                f"optimizer={optimizer!r} is no Keras optimizer: give one that is made, such as "
                "keras.optimizers.Adam(0.001)."
            )
        if "learning_rate" not in optimizer.get_config():
            raise UsageError(
                f"The optimizer {type(optimizer).__name__} has others within it; give one with a "
                "learning rate of its own."
            )

    @property
    def options(self) -> str:
        """The options of the model as a key."""
        return json.dumps(dict(self.model), sort_keys=True)

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> "Technique":
        """The technique that these names and values describe.

        Raises:
            UsageError: a name is unknown or missing, or a value cannot be used.
        """
        fields = dataclasses.fields(cls)
        names = [field.name for field in fields]
        for name in chosen:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                remedy = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}."
                raise UsageError(f"A technique has no {name!r}; {remedy}")
        needed = [
            field.name
            for field in fields
            if field.default is field.default_factory is dataclasses.MISSING
        ]
        missing = [name for name in needed if name not in chosen]
        if missing:
            raise UsageError(f"The technique lacks {', '.join(missing)}: say it to FineTune.run.")
        return cls(**chosen)
