"""The pretrained base: the study's own model, trained on some of the classes, once a machine.

It is kept as ``base-<hash of its recipe>.npz`` in ``$TUNER_CACHE_DIR``, so that another recipe
never meets old weights. Workers that start together wait for the one that trains it.
"""

import dataclasses
import hashlib
import inspect
import json
import logging
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tuner import cache, wording
from tuner.errors import UsageError
from tuner.finetune.images import Images
from tuner.finetune.initialise import drawn
from tuner.finetune.stages import weights_of
from tuner.finetune.training import Plan, Trainer
from tuner.finetune.weights import Weights, weights_hash
from tuner.log import one_time_work

logger = logging.getLogger("tuner.finetune")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the base is trained; part of its file's name, so a change makes another base."""

    init: str = "glorot_uniform"
    optimizer: str = "adam"
    """At Keras's own learning rate, which a cosine takes to zero."""
    epochs: int = 2
    batch_size: int = 128
    seed: int = 0


DEFAULT_RECIPE = Recipe()


@dataclasses.dataclass(frozen=True)
class Base:
    """The weights of the base, in the order of ``model.weights``, and their SHA-256."""

    weights: Weights
    hash: str


def load_or_train(
    trainer: Trainer,
    images: Images,
    classes: Sequence[int],
    recipe: Recipe,
    make_trainer: Callable[[], Trainer] | None = None,
) -> Base:
    """The base for this model, these images and classes: from the cache, else trained and kept.

    Args:
        trainer: of the model.
        images: that the base learns from.
        classes: of them, that it learns.
        recipe: how it is trained.
        make_trainer: makes what trains it, where that is not ``trainer``.

    Raises:
        UsageError: the cache folder cannot be written, or there is nothing to train on.
        HandBack: somebody asked this process to stop.
    """
    path = path_of(trainer.model, images, classes, recipe)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with cache.locked(path, "the base"):
            weights = load(path, trainer.template)
            if weights is None:
                by = trainer if make_trainer is None else make_trainer()
                weights = _train(by, images, classes, recipe)
                _save(path, weights)
    except OSError as error:
        raise UsageError(
            f"The pretrained base cannot be kept in {path.parent} ({error.strerror or error}); "
            f"name a folder that you can write with --cache-dir or {cache.CACHE_VARIABLE}."
        ) from error
    return Base(weights, weights_hash(weights))


def as_built(trainer: Trainer, stages: Sequence[str]) -> Base:
    """The model as it was built: who built it has loaded its weights.

    The hash is that of the stages alone: nothing else of a base is used, and each process draws
    the head anew.

    Args:
        trainer: of the model.
        stages: of it.
    """
    ours = {id(variable) for variable in weights_of(trainer.model, stages)}
    pairs = zip(trainer.model.weights, trainer.template, strict=True)
    kept = [value for variable, value in pairs if id(variable) in ours]
    return Base(trainer.template, weights_hash(kept))


def path_of(model: keras.Model, images: Images, classes: Sequence[int], recipe: Recipe) -> Path:
    """The base's file, which need not be there."""
    return cache.folder() / f"base-{recipe_hash(model, images, classes, recipe)}.npz"


def load(path: Path, template: Weights) -> Weights | None:
    """The weights in ``path``; None if there is no such file, or none that fits the model."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            weights = [arrays[f"arr_{index}"] for index in range(len(template))]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s): the base is trained again", path, error)
        return None
    if [value.shape for value in weights] != [value.shape for value in template]:
        logger.warning("%s does not fit the model: the base is trained again", path)
        return None
    return weights


def recipe_hash(model: keras.Model, images: Images, classes: Sequence[int], recipe: Recipe) -> str:
    """A hash of everything that decides the base's weights, 16 hexadecimal digits."""
    config = model.to_json()
    # A Sequential model does not count its input to its layers.
    inputs = [tensor._keras_history.operation for tensor in model.inputs]
    for index, layer in enumerate([model, *model.layers, *inputs]):  # unnamed: counters as names
        config = config.replace(json.dumps(layer.name), f'"{index}"')
    parts = [
        images.content_hash,
        config,
        _own_code(model),
        [int(label) for label in classes],
        dataclasses.asdict(recipe),
        [version.split(".")[:2] for version in (keras.__version__, tf.__version__)],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _own_code(model: keras.Model) -> list[str]:
    """The source of layers and activations that are the user's: Keras stores only their names."""
    parts: list[Any] = []
    for layer in model.layers:
        parts += [type(layer), getattr(layer, "activation", None)]
    ours = ("keras.", "tuner.finetune.")
    own = [part for part in parts if part and not part.__module__.startswith(ours)]
    return [_source(part) for part in own]


def _source(code: Any) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # written in a session, or compiled
        return repr(code)


def _train(trainer: Trainer, images: Images, classes: Sequence[int], recipe: Recipe) -> Weights:
    """Train the base, and log how well it does on the validation images of its classes.

    Raises:
        UsageError: there is nothing to train on.
    """
    _check_something_to_learn(images, classes, recipe)
    label_text = ", ".join(str(label) for label in classes)
    size = sum(value.nbytes for value in trainer.template)
    logger.info(
        "training the base on classes %s, once for this machine: %s ...",
        label_text,
        wording.size(size),
    )
    began = time.perf_counter()
    plan = Plan(
        rows=np.flatnonzero(np.isin(images.train_labels, classes)),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=keras.optimizers.get(recipe.optimizer),
        schedule=lambda done: 0.5 + 0.5 * math.cos(math.pi * done),
        frozen=(),
        seed=recipe.seed,
    )
    with one_time_work(logger, "training the base") as tell:
        run = trainer.start(drawn(trainer.template, recipe.init, recipe.seed), plan)
        run.train_to(len(run.rates), tell)
    accuracy = 1.0 - run.validation_error(np.isin(images.validation_labels, classes))
    weights: Weights = [weight.numpy() for weight in trainer.model.weights]
    logger.info(
        "the base is right on %.2f %% of the validation images of classes %s (%.0f s, hash %s)",
        100 * accuracy,
        label_text,
        time.perf_counter() - began,
        weights_hash(weights)[:12],
    )
    return weights


def _check_something_to_learn(images: Images, classes: Sequence[int], recipe: Recipe) -> None:
    """Refuse a base of no batch, or that none of the validation images could test.

    Raises:
        UsageError: so it would be.
    """
    count = int(np.isin(images.train_labels, classes).sum())
    if count < recipe.batch_size:
        raise UsageError(
            f"The base would learn from {count} images, which fill no batch of "
            f"{recipe.batch_size}: give base_recipe=Recipe(batch_size=...) a smaller one, or more "
            "base_classes."
        )
    if not np.isin(images.validation_labels, classes).any():
        raise UsageError(
            f"No validation image is of base_classes={list(classes)}: the classes are 0 to "
            f"{images.n_classes - 1}."
        )


def _save(path: Path, weights: Weights) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, *weights)

    cache.write(path, fill)
