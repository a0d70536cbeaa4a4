"""A trained model as a file that plain Keras opens, and how much a model in a file gets wrong.

The file holds Keras's own layers in float32, whatever the training computed in, so that who loads
it needs no `tuner`. Only a model with layers or functions of the user's own is saved as it is.
"""

import logging
import os
import warnings
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tuner.errors import UsageError
from tuner.finetune.compiled import VALIDATION_BATCH

logger = logging.getLogger("tuner.finetune")

_FLOAT32 = "float32"
_ROUNDING = ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
"""Policies and types that compute in fewer bits than float32."""

_OURS = "tuner>BatchNormalization"
"""The name by which Keras stores `tuner.finetune.BatchNormalization`."""

_twins: weakref.WeakKeyDictionary[keras.Model, keras.Model] = weakref.WeakKeyDictionary()
"""What is saved in a model's place, built once: Keras never gives all of a model's memory back."""

_unsaved: weakref.WeakSet[keras.Model] = weakref.WeakSet()
"""Models of which was said that they cannot be saved."""


def save(model: keras.Model, path: Path) -> None:
    """Write ``model`` with its present weights, if Keras can; if not, say so once.

    The layers are Keras's own in float32, with the names, the configuration and the weights of
    ``model``'s, and all of them can be trained. A model with layers or functions that are not
    Keras's or ours is written as it is, in its own precision: who loads it needs them.

    MNIST's model takes 1.9 MB and roughly 0.02 s, the first time 0.1 s (2 cores, others at work).

    Args:
        model: Sequential or functional.
        path: of the file, which ends in ``.keras`` as Keras demands.
    """
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.keras")
    try:
        saved = _twin_of(model)
        if saved is not model:
            for variable, value in zip(saved.weights, model.weights, strict=True):
                variable.assign(value)
        with warnings.catch_warnings():
            # Keras reads its own tensors in a way that NumPy 2 advises against.
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            saved.save(temporary)
        temporary.replace(path)
    except Exception as error:  # noqa: BLE001 - the user's layers are asked; the trial has ended well
        if model not in _unsaved:
            logger.warning(
                "the trained model cannot be saved as %s (%s): the trial has its values, but "
                "leaves no model",
                path.name,
                _in_words(error),
            )
        _unsaved.add(model)
    finally:
        temporary.unlink(missing_ok=True)


def error_of(
    model_file: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer[Any]]
) -> float:
    """The share of images that the model in a file gets wrong, 0 to 1.

    Args:
        model_file: as `save` writes it, or any that Keras saved.
        images: as they are, uint8 (n, height, width, channels).
        labels: the class of each, (n,).

    Raises:
        UsageError: Keras cannot load the file, or its model does not take these images.
    """
    if not model_file.is_file():
        raise UsageError(f"There is no model file {model_file}; check the path.")
    wrong = 0
    try:
        model = keras.saving.load_model(model_file, compile=False)
        for start in range(0, len(labels), VALIDATION_BATCH):
            batch = slice(start, start + VALIDATION_BATCH)
            # Called directly, nothing is compiled: a compiled function's memory never comes back.
            outputs = model(tf.constant(images[batch]), training=False)
            wrong += int(np.count_nonzero(np.argmax(outputs, axis=1) != labels[batch]))
    except Exception as error:  # a damaged file may hold anything; layers may be the user's
        raise UsageError(
            f"The model file {model_file} cannot be used ({_in_words(error)}): name one that a "
            "trial of this study left."
        ) from error
    return wrong / len(labels)


def _in_words(error: Exception) -> str:
    """An exception in one line: Keras's messages have several."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _twin_of(model: keras.Model) -> keras.Model:
    """The same model of Keras's own layers in float32; the model itself if it has others."""
    if model not in _twins:
        config = _as_stock(keras.saving.serialize_keras_object(model))
        if not _is_stock(config):
            return model
        _twins[model] = keras.saving.deserialize_keras_object(config)
    return _twins[model]


def _as_stock(config: Any) -> Any:
    """A serialised model, or a part of it, without our own layer and lower precision."""
    if isinstance(config, list | tuple):
        return [_as_stock(part) for part in config]
    if not isinstance(config, dict):
        return config
    stock = {name: _as_stock(part) for name, part in config.items()}
    if stock.get("registered_name") == _OURS:
        stock |= {"module": "keras.layers", "registered_name": None}
    if stock.get("class_name") == "DTypePolicy" and stock["config"]["name"] in _ROUNDING:
        stock["config"] = {"name": _FLOAT32}
    if stock.get("dtype") in _ROUNDING:
        stock["dtype"] = _FLOAT32
    if stock.get("trainable") is False:  # the stages that the trial froze
        stock["trainable"] = True
    return stock


def _is_stock(config: Any) -> bool:
    """Whether a serialised model has nothing but what comes with Keras."""
    if isinstance(config, list):
        return all(_is_stock(part) for part in config)
    if not isinstance(config, dict):
        return True
    named = "class_name" in config and "module" in config
    foreign = named and str(config["module"]).partition(".")[0] != "keras"
    own_code = config.get("class_name") == "__lambda__"
    return not (foreign or own_code) and all(_is_stock(part) for part in config.values())
