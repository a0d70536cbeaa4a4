"""`FineTune`: what a study file declares once, and runs once a trial."""

import dataclasses
import functools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
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
from tuner.finetune.images import Images
from tuner.finetune.initialise import drawn, stages_from_base, with_stages
from tuner.finetune.stages import check_stages, freeze
from tuner.finetune.training import Plan, Run, Schedule, Trainer
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
        model: builds the model: from images as they are, ``(batch, height, width, channels)`` with
            values 0 to 255, to logits ``(batch, n_classes)``. `tuner.finetune.BatchNormalization`
            trains faster than Keras's own.
        stages: names of the stages, from the input on. A layer belongs to the stage whose name its
            own has before the first underscore; the other layers are the head.
        base_classes: the classes that the pretrained base learns.
        epochs: how often a trial sees each training image.
        batch_size: training images a batch; an epoch leaves out a last, smaller batch.
        report_at: the steps, in quarter epochs, after which the model is validated; the last one
            is the end of the training.
        base_recipe: how the base is trained.
    """

    images: Callable[[], Images]
    model: Callable[[], keras.Model]
    stages: Sequence[str]
    base_classes: Sequence[int]
    epochs: int
    batch_size: int
    report_at: Sequence[int]
    base_recipe: pretrained.Recipe = pretrained.DEFAULT_RECIPE
    _one_run: threading.Lock = dataclasses.field(
        default_factory=threading.Lock, init=False, repr=False
    )
    """Runs share the model: threads of one process (Optuna's ``n_jobs``) take turns."""

    def __post_init__(self) -> None:
        steps, end = list(self.report_at), self.epochs * STEPS_PER_EPOCH
        if steps != sorted(set(steps)) or not steps or steps[0] < 1 or steps[-1] != end:
            raise UsageError(
                f"report_at={tuple(steps)} must be rising steps from 1 up that end with {end}: a "
                f"step is a quarter epoch, and there are {self.epochs} epochs."
            )

    @functools.cached_property
    def _images(self) -> Images:
        """The images, loaded when they are first asked for."""
        return self.images()

    @functools.cached_property
    def _trainer(self) -> Trainer:
        """Model, tensors and compiled functions of this process."""
        if self.batch_size > len(self._images.train_labels):
            raise UsageError(
                f"batch_size={self.batch_size} is more than the {len(self._images.train_labels)} "
                "training images, so that no batch can be filled: take a smaller one."
            )
        trainer = Trainer(self.model, self._images)
        check_stages(trainer.model, self.stages)
        return trainer

    @functools.cached_property
    def _final_trainer(self) -> Trainer:
        """The same for `run_final`: another model, and all images to train it on."""
        return Trainer(self.model, self._images.joined())

    @functools.cached_property
    def _base(self) -> pretrained.Base:
        """The pretrained base, from the cache or trained now."""
        return pretrained.load_or_train(
            self._trainer, self._images, self.base_classes, self.base_recipe
        )

    def prepare(self) -> None:
        """Load the images, build the model, and train the base or load it.

        Raises:
            UsageError: the images, the stages or the cache folder are not usable.
            HandBack: somebody asked this process to stop.
        """
        cache.bound_bytes()
        precision.tell(self._trainer.model)
        _ = self._base

    def footprint(self) -> list[Kept]:
        """What this task keeps on the disk; looked at only, nothing is trained or written.

        Raises:
            UsageError: the images or the stages are not usable.
        """
        trainer = self._trainer
        path = pretrained.path_of(trainer.model, self._images, self.base_classes, self.base_recipe)
        size = sum(value.nbytes for value in trainer.template)
        base = pretrained.load(path, trainer.template)
        kept = [Kept("the pretrained base", size, there=base is not None)]
        for variable, value in zip(trainer.model.weights, base or (), strict=False):
            variable.assign(value)
        for count in range(1, len(self.stages) + 1):
            freeze(trainer.model, self.stages[:count])
            found = features.footprint(trainer.model, self.stages[:count], self._images)
            if found is not None:
                what = f"features behind {self.stages[count - 1]}"
                there = base is not None and found[0].exists()
                kept.append(Kept(what, found[1], there=there, bounded=True))
        freeze(trainer.model, ())
        # Weights, and two slots of each as adam has them.
        return [*kept, Kept("checkpoints", 3 * size, each_worker=True)]

    def run(
        self,
        trial: optuna.Trial,
        *,
        optimizer: keras.optimizers.Optimizer,
        init: str,
        frozen_stages: int,
        schedule: Schedule,
    ) -> float:
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
            optimizer: its learning rate is the peak that ``schedule`` scales.
            init: ``"pretrained"`` or the name of a Keras initialiser; see `initialise`.
            frozen_stages: how many stages keep the base's weights, 0 to ``len(stages)``.
            schedule: from the fraction of the training that is done, 0 to 1, to the fraction of the
                learning rate.

        Returns:
            The validation error after the last step: 1 - accuracy, 0 to 1.

        Raises:
            TrialPruned: the study's pruner gave the trial up.
            Diverged: the loss is not finite, or from the second report on the model is no better
                than guessing.
            UsageError: ``init``, ``frozen_stages`` or the optimizer cannot be used.
            HandBack: somebody asked this process to stop.
        """
        clock = Clock()
        with self._one_run:
            with clock.phase("setup"):
                plan = self._plan(trial, optimizer, frozen_stages, schedule)
                training = self._start(self._trainer, plan, init, clock)
                progress = take_up(trial, training, init, self._base.hash, self.report_at)
            try:
                curve = self._curve(training, progress, clock)
                error = follow(trial, progress, curve, self.report_at, self._images)
                _leave_model(trial, training)
                _leave_mistakes(trial, training, self._images)
            except interrupt.HandBack:
                progress.write()
                raise
            except optuna.TrialPruned:
                self._record(trial, training)
                raise
            self._record(trial, training)
            return error

    def run_final(
        self,
        trial: optuna.Trial,
        *,
        optimizer: keras.optimizers.Optimizer,
        init: str,
        frozen_stages: int,
        schedule: Schedule,
    ) -> None:
        """Train one configuration on the training and the validation images, for its model.

        Nothing is left to validate with, so nothing is reported and nothing pruned. The base is
        that of `run`, which saw training images only. The model and the user attributes are left
        as by `run`.

        Args:
            trial: as in `run`.
            optimizer: as in `run`.
            init: as in `run`.
            frozen_stages: as in `run`.
            schedule: as in `run`.

        Raises:
            Diverged: the loss is not finite.
            UsageError: as in `run`.
            HandBack: somebody asked this process to stop.
        """
        clock = Clock()
        with self._one_run:
            with clock.phase("setup"):
                plan = self._plan(trial, optimizer, frozen_stages, schedule)
                everything = np.arange(len(self._final_trainer.train_labels))
                plan = dataclasses.replace(plan, rows=everything)
                training = self._start(self._final_trainer, plan, init, clock)
            what = f"training on all {len(everything):,} images"
            with clock.phase("train"), one_time_work(logger, what) as tell:
                if not training.train_to(len(training.rates), tell):
                    epoch = math.ceil(training.batch / plan.batches_per_epoch)
                    raise Diverged(f"Diverged in epoch {epoch}: the loss is not finite.")
                training.take_statistics()
            _leave_model(trial, training)
            self._record(trial, training)

    def _plan(
        self,
        trial: optuna.Trial,
        optimizer: keras.optimizers.Optimizer,
        frozen_stages: int,
        schedule: Schedule,
    ) -> Plan:
        """How a trial trains on the training images."""
        return Plan(
            rows=np.arange(len(self._images.train_labels)),
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=optimizer,
            schedule=schedule,
            frozen=self._first_stages(frozen_stages),
            seed=randomness.seed_of(trial),
        )

    def _start(self, trainer: Trainer, plan: Plan, init: str, clock: Clock) -> Run:
        """Begin with the weights that ``init`` asks for: drawn, or taken from the base."""
        new = drawn(trainer.template, init, plan.seed)
        from_base = stages_from_base(init, self.stages, plan.frozen)
        weights = with_stages(trainer.model, new, self._base.weights, from_base)
        return trainer.start(weights, plan, clock)

    def _first_stages(self, count: int) -> Sequence[str]:
        """The names of the first ``count`` stages, which are to be frozen."""
        if not 0 <= count <= len(self.stages):
            raise UsageError(
                f"frozen_stages={count} is not from 0 to {len(self.stages)}, the number of stages "
                f"({', '.join(self.stages)})."
            )
        return self.stages[:count]

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

    def _record(self, trial: optuna.Trial, training: Run) -> None:
        """Write into the trial where and how long it trained, and what came out."""
        clock, model = training.clock, training.trainer.model
        weights: Weights = [weight.numpy() for weight in model.weights]
        facts = {
            "seconds": {phase: round(value, 2) for phase, value in clock.phases.items()},
            "report_seconds": {step: round(value, 2) for step, value in clock.reports.items()},
            "device": device.kind(),
            "threads": device.threads(),
            "precision": precision.of_model(model),
            "base_hash": self._base.hash,
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
