"""The training loop: one compiled graph that trains many batches a call, reused by later trials.

A `Trainer` holds what a process needs once: the model, the images as tensors, the compiled
functions. A `Run` is one training by a `Plan`: it starts from given weights and a fresh optimizer,
and its state (batches done, variables) stands open, so that it can be stored and taken up again.
Where stages thaw as it goes, the run changes from one compiled loop to the next.
"""

import dataclasses
import json
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tuner import interrupt
from tuner.errors import UsageError
from tuner.finetune import features, precision, randomness
from tuner.finetune.augment import NONE
from tuner.finetune.clock import Clock
from tuner.finetune.compiled import (
    Loop,
    Traits,
    compile_statistics,
    compile_training,
    compile_validation,
    random_states,
)
from tuner.finetune.images import Images
from tuner.finetune.schedules import Schedule
from tuner.finetune.stages import freeze, stages_by_weight, weights_of
from tuner.finetune.weights import Weights, weights_hash

PIECE_IMAGES = 4096
"""Images a call of the compiled loop: about 2 s on one core, the longest that Ctrl-C waits."""

STATISTICS_IMAGES = 640
"""Training images whose statistics batch normalisation takes over before each validation.

Moving averages lag behind the weights, most of all at high rates, so that pruning on them would be
biased. Errors against those with the statistics of 12,800 and more images, over 11 configurations
after half an epoch (195 batches), as (largest ratio, rank correlation tau): moving averages with
Keras's momentum 0.99 (12, 0.42), with 0.9 (1.6, 0.85); the statistics of 640 images (1.02, 1.00).
With another seed and 7 configurations: 0.99 (28, -0.62), 0.9 (1.8, 0.81), 0.5 (1.6, 0.81); there
nesterov at 0.05, which ends at an error of 0.0070, falls from rank 2 to rank 4 with 0.9.
They cost 0.1 s of CPU, a fourteenth of a validation.
"""


_tensors: weakref.WeakKeyDictionary[Images, tuple[Any, Any, Any]] = weakref.WeakKeyDictionary()
"""See `_tensors_of`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """How one training goes.

    Attributes:
        rows: indices of the training images to use, (n,).
        epochs: how often each of them is shown.
        batch_size: images a batch; an epoch leaves out a last, smaller one.
        optimizer: its learning rate is the peak that ``schedule`` scales.
        schedule: the learning rate over the training.
        frozen: names of the stages that keep their weights and statistics.
        seed: of the order of the images, of dropout and of the augmentation.
        thawing: stages that are frozen at first, besides, as (batch before which it thaws, name),
            the first to thaw, which is the last of the model, first; none before batch 1.
        label_smoothing: share of a label that is spread over all classes, 0 to below 1.
        augmentation: by name, see `augment`.
        paces: stage -> the fraction of the rate at which it learns; others learn at the whole one.
        options: of the model, as text.
    """

    rows: npt.NDArray[Any]
    epochs: int
    batch_size: int
    optimizer: keras.optimizers.Optimizer
    schedule: Schedule
    frozen: Sequence[str]
    seed: int
    thawing: Sequence[tuple[int, str]] = ()
    label_smoothing: float = 0.0
    augmentation: str = NONE
    paces: Mapping[str, float] = dataclasses.field(default_factory=dict)
    options: str = ""

    @property
    def traits(self) -> Traits:
        """What its compiled loops have in them."""
        return Traits(bool(self.label_smoothing), bool(self.paces), self.augmentation)

    def frozen_at(self, batch: int) -> list[str]:
        """Names of the stages that are frozen while this batch is trained."""
        later = [stage for bound, stage in self.thawing if batch < bound]
        return [*self.frozen, *reversed(later)]  # from the input on

    def next_thaw(self, batch: int) -> float:
        """The next batch after this one before which a stage thaws; infinite if none does."""
        return min((bound for bound, _ in self.thawing if bound > batch), default=math.inf)

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches that an epoch has."""
        return len(self.rows) // self.batch_size


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """What a training reads, and the part of the model that reads it.

    Attributes:
        name: tells it from others within a process.
        model: the whole model, or what is behind the frozen stages.
        train_images: uint8 images or features, (n_train, ...).
        validation_images: likewise, (n_validation, ...).
        validation_labels: (n_validation,).
        count_correct: the compiled validation.
    """

    name: str
    model: keras.Model
    train_images: Any
    validation_images: Any
    validation_labels: npt.NDArray[Any]
    count_correct: Callable[..., Any]

    def validation_error(self, among: npt.NDArray[np.bool_] | None = None) -> float:
        """The share of validation images that the model gets wrong, 0 to 1.

        Args:
            among: a mask (n_validation,): count these images only.
        """
        labels, count = self.validation_labels, len(self.validation_labels)
        if among is not None:
            labels, count = np.where(among, labels, -1), int(among.sum())  # no model says -1
        correct = int(self.count_correct(self.validation_images, tf.constant(labels)))
        return 1.0 - correct / count


@dataclasses.dataclass(eq=False)
class Run:
    """One training from its first batch on.

    Attributes:
        trainer: whose model is trained; it serves one run at a time.
        reads: what the training reads now: the images, or features of the frozen stages.
        loop: the compiled training that goes on now.
        plan: how it goes.
        rates: learning rate of every batch, (n_batches,).
        clock: told of compiling.
        batch: how many batches are done.
        settled: whether all variables are those after ``batch`` batches. Not so while it trains,
            where a second Ctrl-C may leave it, nor once a validation has begun.
    """

    trainer: "Trainer"
    reads: Inputs
    loop: Loop
    plan: Plan
    rates: npt.NDArray[np.float32]
    clock: Clock
    batch: int = 0
    settled: bool = True
    _shuffled: tuple[int, npt.NDArray[np.int32]] | None = None  # the present epoch's batches

    def train_to(self, batch: int, tell: Callable[[float], None] | None = None) -> bool:
        """Train until ``batch`` batches are done; return whether the loss stayed finite.

        Args:
            batch: counted from the first of the training.
            tell: called after each piece with the fraction of the training that is done, 0 to 1.

        Raises:
            HandBack: somebody asked this process to stop; asked for between pieces.
        """
        per_epoch, piece = self.plan.batches_per_epoch, max(1, PIECE_IMAGES // self.plan.batch_size)
        while self.batch < batch:
            interrupt.check()
            self.settled = False
            self._thaw()
            epoch, offset = divmod(self.batch, per_epoch)
            until_thaw = self.plan.next_thaw(self.batch) - self.batch
            count = int(min(piece, batch - self.batch, per_epoch - offset, until_thaw))
            loss = self.loop.train(
                (self.reads.train_images, self.trainer.train_labels),
                tf.constant(self._order(epoch)[offset : offset + count]),
                tf.constant(self.rates[self.batch : self.batch + count]),
                (tf.constant(self._seeds()), tf.constant(self.batch, tf.int64)),
                self._told(),
            )
            self.batch += count
            if not math.isfinite(float(loss)):
                return False
            self.settled = True
            if tell is not None:
                tell(self.batch / len(self.rates))
        return True

    def validation_error(self, among: npt.NDArray[np.bool_] | None = None) -> float:
        """The share of validation images that the model gets wrong now, 0 to 1.

        Args:
            among: a mask (n_validation,): count these images only.
        """
        self.take_statistics()
        return self.reads.validation_error(among)

    def take_statistics(self) -> None:
        """Let batch normalisation take over the statistics that the present weights give it.

        Where it is frozen it keeps the base's.
        """
        self.settled = False
        rows = self.plan.rows
        spread = np.linspace(0, len(rows) - 1, min(STATISTICS_IMAGES, len(rows))).astype(np.int32)
        images = tf.gather(self.reads.train_images, rows[spread])
        self.trainer.take_statistics(self.reads, self.clock)(images)

    def _order(self, epoch: int) -> npt.NDArray[np.int32]:
        """The batches of an epoch, shuffled once."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            plan = self.plan
            batches = randomness.epoch_batches(plan.rows, plan.batch_size, plan.seed, epoch)
            self._shuffled = (epoch, batches)
        return self._shuffled[1]

    def be_after(self, batch: int) -> None:
        """Have so many batches done: with the last one's loop, fresh; the weights stay."""
        self.batch = batch
        self.reads, self.loop = self.trainer.enter(self.plan, max(0, batch - 1), self.clock)

    def _thaw(self) -> None:
        """If stages thaw before the next batch, train them as well, with the optimizer begun anew.

        Kept, its step count would take the bias correction from what begins to train: adam's first
        steps there would be several times too large.
        """
        if self.batch in {bound for bound, _ in self.plan.thawing}:
            self.reads, self.loop = self.trainer.enter(self.plan, self.batch, self.clock)

    def _seeds(self) -> npt.NDArray[np.int64]:
        """One seed for each random layer of the model, and two of the augmentation."""
        uses = [(randomness.DROPOUT, it) for it in range(len(random_states(self.reads.model)))]
        uses += [(randomness.AUGMENTATION, index) for index in range(2)]
        return np.array([randomness.derive(self.plan.seed, *use) for use in uses], dtype=np.int64)

    def _told(self) -> tuple[Any, ...]:
        """What a call of the loop is told besides; see `Loop`."""
        stages = stages_by_weight(self.trainer.model)
        paces = [self.plan.paces.get(stages[id(it)], 1.0) for it in self.loop.weights]
        numbers = (self.plan.label_smoothing, self.plan.optimizer.weight_decay or 0.0, paces)
        return tuple(tf.constant(number, tf.float32) for number in numbers)


class Trainer:
    """What one process holds for one study: model, images and compiled functions.

    Args:
        build_model: makes the model, with named layers and logits as output.
        images: what to train on and validate with.

    Raises:
        UsageError: the model takes images of another shape, or tells fewer classes apart.
    """

    compiled: ClassVar[int] = 0

    def __init__(self, build_model: Callable[[], keras.Model], images: Images) -> None:
        with precision.scope():
            self.model = build_model()
        _check_fit(self.model, images)
        precision.keep_logits_exact(self.model)
        self.template: Weights = [weight.numpy() for weight in self.model.weights]
        self._images = images
        train, self.train_labels, validation = _tensors_of(images)
        self.whole = self._inputs_of("images", self.model, train, validation)
        self._features: dict[str, Inputs] = {}
        self._loops: dict[str, Loop] = {}
        self._take_statistics: dict[str, Callable[..., Any]] = {}

    def start(self, weights: Weights, plan: Plan, clock: Clock | None = None) -> Run:
        """Begin a training: everything that a former one left behind is set anew.

        Args:
            weights: to start from, in the order of ``model.weights``.
            plan: how the training goes.
            clock: told of features and compiling.
        """
        clock = clock or Clock()
        for variable, value in zip(self.model.weights, weights, strict=True):
            variable.assign(value)
        reads, loop = self.enter(plan, 0, clock)
        total = plan.epochs * plan.batches_per_epoch
        peak = _peak_rate(plan.optimizer)
        rates = [peak * plan.schedule((batch + 0.5) / total) for batch in range(total)]
        return Run(self, reads, loop, plan, np.array(rates, dtype=np.float32), clock)

    def enter(self, plan: Plan, batch: int, clock: Clock) -> tuple[Inputs, Loop]:
        """Freeze what the plan has frozen at this batch; return what to read, and a fresh loop."""
        frozen = plan.frozen_at(batch)
        freeze(self.model, frozen)
        with clock.phase("features"):
            # What is augmented differs in every epoch, so nothing can be stored of it.
            reads = self._inputs(frozen, clock) if plan.augmentation == NONE else self.whole
        with clock.phase("tracing"):
            loop = self._loop(plan, reads)
        for variable, value in zip(loop.optimizer.variables, loop.fresh, strict=True):
            variable.assign(value)
        return reads, loop

    def take_statistics(self, reads: Inputs, clock: Clock) -> Callable[..., Any]:
        """``images -> None``: sets the batch statistics of the stages that are not frozen now."""
        key = f"{reads.name} {self._frozen()}"
        if key not in self._take_statistics:
            kind = reads.train_images.dtype
            with clock.phase("tracing"):
                self._take_statistics[key] = compile_statistics(reads.model, kind)
        return self._take_statistics[key]

    def _inputs(self, frozen: Sequence[str], clock: Clock) -> Inputs:
        """What to read when these stages are frozen, with the weights that they have now."""
        held = weights_hash([weight.numpy() for weight in weights_of(self.model, frozen)])
        name = f"features {self._frozen()} {held}"
        if name not in self._features:
            found = features.load_or_compute(self.model, frozen, self._images)
            with clock.phase("tracing"):
                self._features[name] = (
                    self._inputs_of(name, found.tail, found.train, found.validation)
                    if found
                    else self.whole
                )
        return self._features[name]

    def _inputs_of(self, name: str, model: keras.Model, train: Any, validation: Any) -> Inputs:
        labels = self._images.validation_labels
        count_correct = compile_validation(model, validation)
        return Inputs(name, model, train, validation, labels, count_correct)

    def _frozen(self) -> str:
        """Names of the layers that do not train now."""
        return " ".join(layer.name for layer in self.model.layers if not layer.trainable)

    def _loop(self, plan: Plan, reads: Inputs) -> Loop:
        """The compiled training for this plan and the layers frozen now, made once."""
        settings = settings_of(plan.optimizer)
        del settings["learning_rate"]  # a variable in the graph
        settings["weight_decay"] = settings.get("weight_decay") is not None  # told to each call
        traits = dataclasses.astuple(plan.traits)
        key = json.dumps([settings, reads.name, self._frozen(), traits], default=repr)
        if key not in self._loops:
            Trainer.compiled += 1
            optimizer = _copy_of(plan.optimizer)
            self._loops[key] = compile_training(
                reads.model, optimizer, reads.train_images, plan.traits
            )
        return self._loops[key]


def _tensors_of(images: Images) -> tuple[Any, Any, Any]:
    """Training images, their labels and the validation images: held once, whatever the model."""
    if images not in _tensors:
        arrays = (images.train_images, images.train_labels, images.validation_images)
        _tensors[images] = tuple(map(tf.constant, arrays))
    return _tensors[images]


def _copy_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """A copy that a loop may build and drive: the user's own keeps its rate."""
    copy = type(optimizer).from_config(optimizer.get_config())
    for name, value in _told_of_decay(optimizer).items():
        setattr(copy, name, value)
    return copy


def compiled_loops() -> int:
    """How many loops this process has compiled.

    There is one for each optimizer, its settings other than rate and weight decay, set of frozen
    stages, options of the model, augmentation, and whether labels are smoothed or stages paced.
    Each takes about 9 MB. Dropping one would not end the growth (4 MB were lost each time), so all
    are kept; a worker that grows too far, as when a study samples an optimizer's settings, is
    replaced between two trials.
    """
    return Trainer.compiled


def settings_of(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """The optimizer's class and all that it was told."""
    settings = {"class": repr(type(optimizer)), **optimizer.get_config()}
    del settings["name"]  # a running number
    told = _told_of_decay(optimizer)
    # Names come as a pattern ``a|b`` that Keras joins from a set, in any order.
    names = {
        name: sorted(getattr(value, "pattern", repr(value)).split("|"))
        for name, value in told.items()
    }
    return settings | names


def _check_fit(model: keras.Model, images: Images) -> None:
    """Refuse a model that is not for these images.

    Raises:
        UsageError: it takes images of another shape, or tells fewer classes apart, or has several
            inputs or outputs.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise UsageError(
            f"The model goes from {model.input_shape} to {model.output_shape}: it must have one "
            "input, the images, and one output (batch, n_classes), the logits; a Flatten or "
            "GlobalAveragePooling2D before the last Dense may be missing."
        )
    takes, tells = model.input_shape[1:], model.output_shape[-1]
    fits = len(takes) == len(images.shape) and all(
        side in {None, given} for side, given in zip(takes, images.shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"The model takes images of the shape {takes}, and the images have {images.shape}: "
            "build it for theirs, or scale them to its."
        )
    if tells < images.n_classes:
        raise UsageError(
            f"The model tells {tells} classes apart (its output has so many values), and the "
            f"images have {images.n_classes}: give it an output for each."
        )


def _told_of_decay(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """What `exclude_from_weight_decay` was told, which is no part of the configuration."""
    names = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
    return {name: vars(optimizer)[name] for name in names if name in vars(optimizer)}


def _peak_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate that the optimizer was made with."""
    rate = optimizer.get_config()["learning_rate"]
    if not isinstance(rate, float):
        raise UsageError(
            f"The optimizer {optimizer.name} was given a schedule as its learning rate: give it a "
            "number, and the schedule to FineTune.run."
        )
    return rate
