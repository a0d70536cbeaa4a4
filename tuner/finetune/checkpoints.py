"""Checkpoints: a trial that was interrupted goes on where it was, and its curve is the same.

The file holds all that changes while a trial trains: the model's weights, the optimizer's
variables, how many batches are done, what was reported. The order of the images, dropout and the
learning rates follow from the seed and the batch. It says as well which trial it is of, so that no
other goes on from it. Where it lies is the business of who made the trial.
"""

import dataclasses
import hashlib
import json
import logging
import time
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import optuna
import tensorflow as tf

from tuner import wording
from tuner.finetune import precision
from tuner.finetune.initialise import Init
from tuner.finetune.training import Run, settings_of
from tuner.finetune.weights import Weights
from tuner.stores import Checkpoint, FileCheckpoint, Forgiving

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 30.0
"""From one writing to the next: what a kill may cost, besides the time since the last report.

Measured for MNIST's model with adam on one core, 5.5 MB: writing takes 0.02 s, reading 0.04 s.
"""

FORMAT = 2
"""Of the file; raised when its content changes, so that older files are not read."""

_UNUSABLE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
             MemoryError, zlib.error, zipfile.BadZipFile)  # fmt: skip
"""What reading a damaged or foreign file raises; with bytes flipped all over, most was seen."""


@dataclasses.dataclass(eq=False)
class Progress:
    """How far one trial has come, in this attempt and those before it.

    Attributes:
        run: its training.
        identity: see `_identity`.
        checkpoint: where it is kept; None: none is written.
        judged: the last step that was reported and after which the trial was not pruned, or 0.
        reached: the last step that was validated, or 0.
        error: the validation error then, 0 to 1; NaN if the loss was not finite.
    """

    run: Run
    identity: dict[str, Any]
    checkpoint: Checkpoint | None
    judged: int = 0
    reached: int = 0
    error: float = 0.0
    _since: float = dataclasses.field(default_factory=time.monotonic)

    def reach(self, step: int, error: float) -> None:
        """Note what the validation after ``step`` gave, so that it need not be done again."""
        self.reached, self.error = step, error
        self.run.settled = True

    def judge(self, step: int) -> None:
        """Note that the trial goes on after ``step``; write a checkpoint if it is time."""
        self.judged = step
        if time.monotonic() - self._since >= CHECKPOINT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write a checkpoint of this moment, if there is something to lose.

        Nothing is written in the middle of a batch or a validation: a second Ctrl-C may leave the
        training there, and an earlier checkpoint stays good.
        """
        if self.checkpoint is None or not self.run.settled or not self.run.batch:
            return
        self._since = time.monotonic()
        self.checkpoint.save(self._fill)

    def _fill(self, temporary: Path) -> None:
        """Write the file, see `_read`."""
        header = {name: getattr(self, name) for name in ("identity", "judged", "reached", "error")}
        header["batch"] = self.run.batch
        header["clock"] = [self.run.clock.phases, self.run.clock.reports]
        with temporary.open("wb") as file:
            np.savez(file, *_values(self.run), header=np.array(json.dumps(header)))

    def put_back(self, header: dict[str, Any], values: Weights) -> None:
        """Be where the attempt was that wrote these, see `_read`.

        Raises:
            ValueError: the values are not those of the model and the optimizer; nothing is changed.
        """
        self.run.be_after(header["batch"])
        try:
            values = _fitting(values, _values(self.run))
        except ValueError:
            self.run.be_after(0)
            raise
        for variable, value in zip(_variables(self.run), values, strict=True):
            variable.assign(value)
        self.judged, self.reached = header["judged"], header["reached"]
        self.error = header["error"]
        self.run.clock.add(*header["clock"])


def take_up(
    trial: optuna.Trial, run: Run, init: Init, base_hash: str, report_at: Sequence[int]
) -> Progress:
    """Go on from the trial's checkpoint; where there is none, or none that fits, from the start.

    Args:
        trial: may have the attributes ``checkpoint``, where it is kept or the path of its file,
            ``stored_steps``, the steps whose values the database holds, and ``stores_steps``,
            whether it holds any.
        run: at its start.
        init: how its weights were drawn.
        base_hash: of the pretrained base.
        report_at: the steps that are reported, rising.
    """
    kept: Checkpoint | Path | None = getattr(trial, "checkpoint", None)
    checkpoint = Forgiving(FileCheckpoint(kept)) if isinstance(kept, Path) else kept
    identity = _identity(run, init, base_hash, report_at)
    progress = Progress(run, identity, checkpoint)
    if checkpoint is None:
        return progress
    try:
        path = checkpoint.load()
    except FileNotFoundError:
        return progress
    try:
        header, values = _read(path, identity)
        judged = {step for step in report_at if step <= header["judged"]}
        lost = judged - getattr(trial, "stored_steps", frozenset())
        if lost and getattr(trial, "stores_steps", True):
            raise ValueError(f"the database lacks the value of step {min(lost)}")
        progress.put_back(header, values)
    except _UNUSABLE as error:
        logger.warning(
            "the checkpoint %s is of no use (%s): the trial starts over", checkpoint, error
        )
        checkpoint.discard()
        return progress
    end = report_at[-1]
    done = max(progress.judged, int(run.batch * end / len(run.rates)))
    whole, odd = divmod(end, run.plan.epochs)  # steps an epoch, if a step is a part of one
    place = wording.progress_of(done, end, None if odd else whole)
    logger.info("goes on from its checkpoint at %s", place)
    return progress


def _identity(run: Run, init: Init, base_hash: str, report_at: Sequence[int]) -> dict[str, Any]:
    """What decides a trial's curve, as JSON: a checkpoint with other values is another trial's."""
    plan = run.plan
    identity = {
        "format": FORMAT,
        "seed": plan.seed,
        "optimizer": settings_of(plan.optimizer),
        "init": init if isinstance(init, str) else [type(init).__name__, init.get_config()],
        "frozen stages": plan.frozen,
        "thawing": plan.thawing,
        "label smoothing": plan.label_smoothing,
        "augmentation": plan.augmentation,
        "rates of stages": plan.paces,
        "base": base_hash,
        "precision": precision.of_model(run.trainer.model),
        "epochs": plan.epochs,
        "batch size": plan.batch_size,
        "model options": plan.options,
        "report steps": report_at,
        "number of images": len(plan.rows),
        "learning rates": hashlib.sha256(run.rates.tobytes()).hexdigest(),
        "Keras version": keras.__version__,
        "TensorFlow version": tf.__version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=repr))
    return plain


def _variables(run: Run) -> list[Any]:
    """All that training changes: the model's weights, and the optimizer's variables."""
    return [*run.trainer.model.weights, *run.loop.optimizer.variables]


def _values(run: Run) -> Weights:
    return [variable.numpy() for variable in _variables(run)]


def _read(path: Path, identity: dict[str, Any]) -> tuple[dict[str, Any], Weights]:
    """The header in a checkpoint, and the values in the order of `_variables`.

    Args:
        path: of the file.
        identity: that it must have.

    Raises:
        ValueError: it is another trial's. A damaged file may raise any of `_UNUSABLE`.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        header = json.loads(str(arrays["header"]))
        theirs = header["identity"]
        others = [name for name in identity if theirs.get(name) != identity[name]]
        if others:
            raise ValueError(f"it differs in {', '.join(others)}")
        values = [arrays[f"arr_{index}"] for index in range(len(arrays.files) - 1)]
    return header, values


def _fitting(values: Weights, now: Weights) -> Weights:
    """The values, if they have the shapes and types of those now.

    Raises:
        ValueError: they have not.
    """
    if len(values) != len(now):
        raise ValueError(f"it has {len(values)} arrays, and the model and optimizer {len(now)}")
    fitting = []
    for index, (value, like) in enumerate(zip(values, now, strict=True)):
        # NumPy stores a bfloat16 as two bytes without a type.
        typed = value.view(like.dtype) if value.dtype.kind == "V" else value
        if (typed.shape, typed.dtype) != (like.shape, like.dtype):
            raise ValueError(f"array {index} does not fit the model")
        fitting.append(typed)
    return fitting
