"""`FineTune`: what a study file declares once, and runs once a trial."""

import dataclasses
import functools
import inspect
import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import optuna

from tuner import cache, interrupt
from tuner.artifacts import MISTAKES_FILE, MODEL_FILE
from tuner.cache import Kept
from tuner.errors import UsageError
from tuner.finetune import (
    device,
    features,
    mistakes,
    model_file,
    precision,
    pretrained,
    randomness,
)
from tuner.finetune.checkpoints import Progress, take_up
from tuner.finetune.clock import Clock
from tuner.finetune.follow import follow
from tuner.finetune.images import Images, stratified
from tuner.finetune.initialise import PRETRAINED, drawn, stages_from_base, with_stages
from tuner.finetune.stages import check_stages, freeze, name_stages
from tuner.finetune.technique import Technique
from tuner.finetune.training import Plan, Run, Trainer
from tuner.finetune.weights import Weights, weights_hash
from tuner.log import one_time_work
from tuner.outcomes import Diverged

logger = logging.getLogger("tuner.finetune")

STEPS_PER_EPOCH = 4
"""Steps are quarter epochs: a trial that blows up is seen long before its first epoch ends."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FineTune:
    """Fine-tuning of one model on one set of images, as a task that trials run.

    Making one costs nothing. The images are loaded, the model is built and the base is trained or
    loaded by `prepare`, or by the first `run`. Later trials of the process reuse the model and the
    compiled training; a trial's result does not depend on those before it.

    Attributes:
        images: loads the images; see `tuner.finetune.mnist`.
        model: builds the model, with the options of a trial's technique if it has any: from images
            as they are, ``(batch, height, width, channels)`` with values 0 to 255, to logits
            ``(batch, n_classes)``. `tuner.finetune.BatchNormalization` trains faster than Keras's
            own.
        stages: names of the stages, from the input on. A layer belongs to the stage whose name its
            own has before the first underscore; the other layers are the head. Or for each stage
            the names of its layers, see `tuner.finetune.stages.name_stages`.
        base_classes: the classes that the pretrained base learns; None: all of its images'.
        epochs: how often a trial sees each training image.
        batch_size: training images a batch; an epoch leaves out a last, smaller batch.
        report_at: the steps, in quarter epochs, after which the model is validated; the last one
            is the end of the training.
        base_recipe: how the base is trained; None: it is not, the base is the model as ``model``
            builds it, with weights that it loads from a file of yours.
        base_images: loads the images that the base learns from, if they are others; of the same
            shape, and of no more classes.
    """

    images: Callable[[], Images]
    model: Callable[..., keras.Model]
    stages: Sequence[str] | Mapping[str, Sequence[str]]
    base_classes: Sequence[int] | None = None
    epochs: int
    batch_size: int
    report_at: Sequence[int]
    base_recipe: pretrained.Recipe | None = pretrained.DEFAULT_RECIPE
    base_images: Callable[[], Images] | None = None
    _one_run: threading.Lock = dataclasses.field(
        default_factory=threading.Lock, init=False, repr=False
    )
    """Runs share the model: threads of one process (Optuna's ``n_jobs``) take turns."""
    _trainers: dict[tuple[str, str], Trainer] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )
    _bases: dict[str, pretrained.Base] = dataclasses.field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        steps, end = list(self.report_at), self.epochs * STEPS_PER_EPOCH
        if steps != sorted(set(steps)) or not steps or steps[0] < 1 or steps[-1] != end:
            raise UsageError(
                f"report_at={tuple(steps)} must be rising steps from 1 up that end with {end}: a "
                f"step is a quarter epoch, and there are {self.epochs} epochs."
            )

    @functools.cached_property
    def _stages(self) -> Sequence[str]:
        """The names of the stages, from the input on."""
        return list(self.stages)

    @functools.cached_property
    def _images(self) -> Images:
        """The images, loaded when they are first asked for."""
        return self.images()

    @functools.cached_property
    def _everything(self) -> Images:
        """The images of `run_final`: all of them to train on."""
        return self._images.joined()

    @property
    def _trainer(self) -> Trainer:
        """What trains the model as it is, without options."""
        return self._trainer_of({}, self._images)

    @property
    def _base(self) -> pretrained.Base:
        """The base of the model as it is."""
        return self._base_of({})

    def _trainer_of(self, options: Mapping[str, Any], images: Images) -> Trainer:
        """Model, tensors and compiled functions of this process, for these options of the model."""
        key = (json.dumps(dict(options), sort_keys=True), images.content_hash)
        if key not in self._trainers:
            _check_batch_size(self.batch_size, len(images.train_labels))
            trainer = self._make_trainer(options, images)
            self._trainers[key] = trainer
        return self._trainers[key]

    def _base_of(self, options: Mapping[str, Any]) -> pretrained.Base:
        """The pretrained base of these options, from the cache or trained now."""
        key = json.dumps(dict(options), sort_keys=True)
        if key not in self._bases:
            trainer = self._trainer_of(options, self._images)
            self._bases[key] = (
                pretrained.as_built(trainer, self._stages)
                if self.base_recipe is None
                else pretrained.load_or_train(
                    trainer,
                    self._source,
                    self._base_classes,
                    self.base_recipe,
                    lambda: self._trainer_of_base(options),
                )
            )
        return self._bases[key]

    @functools.cached_property
    def _source(self) -> Images:
        """What the base learns from."""
        return self._images if self.base_images is None else self.base_images()

    @property
    def _base_classes(self) -> Sequence[int]:
        """The classes that the base learns of them."""
        return range(self._source.n_classes) if self.base_classes is None else self.base_classes

    def _trainer_of_base(self, options: Mapping[str, Any]) -> Trainer:
        """What trains the base: the trials' own, or for other images one that is not kept."""
        if self.base_images is None:
            return self._trainer_of(options, self._images)
        return self._make_trainer(options, self._source)

    def _make_trainer(self, options: Mapping[str, Any], images: Images) -> Trainer:
        """What trains the model with these options.

        Raises:
            UsageError: see `_build`; or the model is not for the images or has not these stages.
        """
        trainer = Trainer(functools.partial(self._build, options), images)
        name_stages(trainer.model, self.stages)
        check_stages(trainer.model, self._stages)
        return trainer

    def _build(self, options: Mapping[str, Any]) -> keras.Model:
        """Build the model with these options.

        Raises:
            UsageError: the model's function does not take them.
        """
        try:
            inspect.signature(self.model).bind(**options)
        except TypeError as error:
            raise UsageError(
                f"The model's function does not take {', '.join(options) or 'no options'} "
                f"({error}): give it parameters of these names, with defaults."
            ) from None
        return self.model(**options)

    def prepare(self) -> None:
        """Load the images, build the model, and train the base or load it.

        Raises:
            UsageError: the images, the stages or the cache folder are not usable.
            HandBack: somebody asked this process to stop.
        """
        cache.bound_bytes()
        precision.tell(self._trainer.model)
        _ = self._base

    def parameters(self, **options: Any) -> int:
        """How many parameters the model has with these options, the frozen ones among them.

        The model is built, not trained: an objective may leave one that is too large at once.

        Raises:
            UsageError: as in `run`.
        """
        with self._one_run:
            return int(self._build(options).count_params())

    def footprint(self) -> list[Kept]:
        """What this task keeps on the disk; looked at only, nothing is trained or written.

        Raises:
            UsageError: the images or the stages are not usable.
        """
        trainer = self._trainer
        size = sum(value.nbytes for value in trainer.template)
        base: Weights | None = trainer.template
        kept = []
        if self.base_recipe is not None:
            classes = self._base_classes
            path = pretrained.path_of(trainer.model, self._source, classes, self.base_recipe)
            base = pretrained.load(path, trainer.template)
            kept.append(Kept("the pretrained base", size, there=base is not None))
        for variable, value in zip(trainer.model.weights, base or (), strict=False):
            variable.assign(value)
        for count in range(1, len(self._stages) + 1):
            freeze(trainer.model, self._stages[:count])
            found = features.footprint(trainer.model, self._stages[:count], self._images)
            if found is not None:
                what = f"features behind {self._stages[count - 1]}"
                there = base is not None and found[0].exists()
                kept.append(Kept(what, found[1], there=there, bounded=True))
        freeze(trainer.model, ())
        # Weights, and two slots of each as adam has them.
        return [*kept, Kept("checkpoints", 3 * size, each_worker=True)]

    def run(self, trial: optuna.Trial, **technique: Any) -> float:
        """Train one configuration, reporting its validation error as it goes.

        The trial's user attributes then say where and how long it trained: ``seconds`` (by phase),
        ``report_seconds`` (until each report), ``device``, ``threads``, ``precision``,
        ``base_hash``, ``weights_hash`` (of its own weights at its end) and ``cached_features``
        (whether it trained on stored outputs of its frozen stages).

        A trial with a path as its attribute ``checkpoint`` leaves one there as it goes, and goes on
        from the one that it finds, see `tuner.finetune.checkpoints`. A trial with a folder as its
        attribute ``outputs`` leaves its model there at its last step, see
        `tuner.finetune.model_file`, and what that gets wrong, see `tuner.finetune.mistakes`.

        Args:
            trial: reported to and asked whether to prune. Its user attribute ``seed``, or else its
                number, decides all randomness.
            technique: how to train, by the names of `tuner.finetune.Technique`: ``optimizer``,
                ``init``, ``frozen_stages``, ``schedule``, and what else a study varies.

        Returns:
            The validation error after the last step: 1 - accuracy, 0 to 1.

        Raises:
            TrialPruned: the study's pruner gave the trial up.
            Diverged: the loss is not finite, or from the second report on the model is no better
                than guessing.
            UsageError: the technique cannot be used.
            HandBack: somebody asked this process to stop.
        """
        chosen, clock = Technique.of(technique), Clock()
        with self._one_run:
            with clock.phase("setup"):
                training, base_hash = self._start(trial, chosen, self._images, clock)
                progress = take_up(trial, training, chosen.init, base_hash, self.report_at)
            try:
                curve = self._curve(training, progress, clock)
                error = follow(trial, progress, curve, self.report_at, self._images)
                _leave_model(trial, training)
                _leave_mistakes(trial, training, self._images)
            except interrupt.HandBack:
                progress.write()
                raise
            except optuna.TrialPruned:
                _record(trial, training, base_hash)
                raise
            _record(trial, training, base_hash)
            return error

    def run_final(self, trial: optuna.Trial, **technique: Any) -> None:
        """Train one configuration on the training and the validation images, for its model.

        Nothing is left to validate with, so nothing is reported and nothing pruned. The base is
        that of `run`, which saw training images only. The model and the user attributes are left
        as by `run`.

        Args:
            trial: as in `run`.
            technique: as in `run`; ``train_images`` are so many of the training images alone, and
                validation images join them in proportion.

        Raises:
            Diverged: the loss is not finite.
            UsageError: as in `run`.
            HandBack: somebody asked this process to stop.
        """
        chosen, clock = Technique.of(technique), Clock()
        with self._one_run:
            if chosen.train_images is not None:
                _rows(self._images, chosen.train_images, seed=0)  # too many are refused as in `run`
                share = len(self._everything.train_labels) / len(self._images.train_labels)
                chosen = dataclasses.replace(
                    chosen, train_images=round(chosen.train_images * share)
                )
            with clock.phase("setup"):
                training, base_hash = self._start(trial, chosen, self._everything, clock)
            what = f"training on all {len(training.plan.rows):,} images"
            with clock.phase("train"), one_time_work(logger, what) as tell:
                if not training.train_to(len(training.rates), tell):
                    epoch = math.ceil(training.batch / training.plan.batches_per_epoch)
                    raise Diverged(f"Diverged in epoch {epoch}: the loss is not finite.")
                training.take_statistics()
            _leave_model(trial, training)
            _record(trial, training, base_hash)

    def _start(
        self, trial: optuna.Trial, chosen: Technique, images: Images, clock: Clock
    ) -> tuple[Run, str]:
        """Begin with the weights that the technique asks for: drawn, or taken from the base.

        Returns:
            The training, and the hash of the base; empty if nothing is taken of it.
        """
        plan = self._plan(trial, chosen, images)
        trainer = self._trainer_of(chosen.model, images)
        weights, base_hash = drawn(trainer.template, chosen.init, plan.seed), ""
        from_base = stages_from_base(chosen.init, self._stages, plan.frozen)
        if from_base or not chosen.model:  # the model as it is has its base from `prepare`
            base = self._base_of(chosen.model)
            base_hash = base.hash
            weights = with_stages(trainer.model, weights, base.weights, from_base)
        return trainer.start(weights, plan, clock), base_hash

    def _plan(self, trial: optuna.Trial, chosen: Technique, images: Images) -> Plan:
        """How a trial trains on these images."""
        seed = randomness.seed_of(trial)
        plan = Plan(
            rows=_rows(images, chosen.train_images, seed),
            epochs=chosen.epochs or self.epochs,
            batch_size=chosen.batch_size or self.batch_size,
            optimizer=chosen.optimizer,
            schedule=chosen.schedule,
            frozen=self._first_stages(chosen.frozen_stages),
            seed=seed,
            label_smoothing=chosen.label_smoothing,
            augmentation=chosen.augmentation,
            paces=self._paces(chosen.stage_rate),
            options=chosen.options,
        )
        _check_batch_size(plan.batch_size, len(plan.rows))
        return dataclasses.replace(plan, thawing=self._thawing(chosen, plan.batches_per_epoch))

    def _paces(self, stage_rate: float) -> dict[str, float]:
        """The fraction of the rate at which each stage learns; none where all learn alike."""
        if stage_rate == 1.0:
            return {}
        behind = range(len(self._stages), 0, -1)
        return {stage: stage_rate**count for stage, count in zip(self._stages, behind, strict=True)}

    def _thawing(self, chosen: Technique, batches_per_epoch: int) -> list[tuple[int, str]]:
        """Before which batch each of the stages that are frozen at first begins to train."""
        if chosen.thaw_epochs is None:
            return []
        if chosen.init != PRETRAINED:
            raise UsageError(
                f"thaw_epochs={chosen.thaw_epochs} with init={chosen.init!r} would keep stages of "
                f"random weights frozen at first: stages thaw with init={PRETRAINED!r} only."
            )
        later = reversed(self._stages[chosen.frozen_stages :])
        each = chosen.thaw_epochs * batches_per_epoch
        return [(max(1, round(count * each)), stage) for count, stage in enumerate(later, start=1)]

    def _first_stages(self, count: int) -> Sequence[str]:
        """The names of the first ``count`` stages, which are to be frozen."""
        if not 0 <= count <= len(self._stages):
            raise UsageError(
                f"frozen_stages={count} is not from 0 to {len(self._stages)}, the number of stages "
                f"({', '.join(self._stages)})."
            )
        return self._stages[:count]

    def _curve(
        self, training: Run, progress: Progress, clock: Clock
    ) -> Iterator[tuple[int, float]]:
        """Train, and yield (step, validation error); NaN once the loss is not finite."""
        batches_per_step = len(training.rates) / self.report_at[-1]
        for step in self.report_at:
            if step <= progress.judged:
                continue
            if step > progress.reached:
                with clock.phase("train"):
                    finite = training.train_to(math.ceil(step * batches_per_step))
                with clock.phase("validate"):
                    error = training.validation_error() if finite else math.nan
                clock.report(step)
                progress.reach(step, error)
            yield step, progress.error


def _rows(images: Images, count: int | None, seed: int) -> npt.NDArray[np.int64]:
    """The rows of the training images to use: all, or so many, each class in its own share."""
    there = len(images.train_labels)
    if count is None:
        return np.arange(there)
    if count > there:
        raise UsageError(f"train_images={count} is more than the {there} training images.")
    generator = np.random.default_rng(randomness.derive(seed, randomness.TRAIN_IMAGES, 0))
    return np.flatnonzero(stratified(images.train_labels, count, generator))


def _check_batch_size(batch_size: int, images: int) -> None:
    if batch_size > images:
        raise UsageError(
            f"batch_size={batch_size} is more than the {images} training images, so that no batch "
            "can be filled: take a smaller one."
        )


def _record(trial: optuna.Trial, training: Run, base_hash: str) -> None:
    """Write into the trial where and how long it trained, and what came out."""
    clock, model = training.clock, training.trainer.model
    weights: Weights = [weight.numpy() for weight in model.weights]
    facts = {
        "seconds": {phase: round(value, 2) for phase, value in clock.phases.items()},
        "report_seconds": {step: round(value, 2) for step, value in clock.reports.items()},
        "device": device.kind(),
        "threads": device.threads(),
        "precision": precision.of_model(model),
        "base_hash": base_hash,
        "weights_hash": weights_hash(weights),
        "cached_features": training.reads is not training.trainer.whole,
    }
    for name, value in facts.items():
        trial.set_user_attr(name, value)


def _leave_model(trial: optuna.Trial, training: Run) -> None:
    """Save the model where the trial asks for files, if it does."""
    outputs = getattr(trial, "outputs", None)
    if outputs is not None:
        with training.clock.phase("save"):
            model_file.save(training.trainer.model, outputs / MODEL_FILE)


def _leave_mistakes(trial: optuna.Trial, training: Run, images: Images) -> None:
    """Save beside the model what it gets wrong on the validation images."""
    outputs = getattr(trial, "outputs", None)
    if outputs is not None:
        with training.clock.phase("save"):
            mistakes.save(training.reads, images, outputs / MISTAKES_FILE)
