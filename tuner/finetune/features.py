"""Features of frozen stages: computed once a machine, so that a trial trains only what is behind.

Frozen stages give the same output for an image in every epoch and every trial. From
`LEAST_STAGES` frozen stages on they are computed once for all images and kept as
``features-<hash>.npy`` in the cache; each process maps the file, so that workers share its memory.

Off by itself where the features could differ from what the frozen stages compute in training: a
layer in or before them that is not in `STILL` (dropout, augmentation, a layer of the user's), or a
model that is not one chain of layers.
"""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tuner import interrupt
from tuner.finetune import cache
from tuner.finetune.images import Images
from tuner.finetune.stages import stage_of
from tuner.finetune.weights import weights_hash
from tuner.machine import cpu_model

logger = logging.getLogger("tuner.finetune")

LEAST_STAGES = 2
"""Reading the output of one frozen stage takes longer than computing it: 36 ms a step, not 26."""

BATCH = 250
"""Images a batch when the features are computed."""

STILL = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.BatchNormalization,  # a frozen one uses its moving statistics
    keras.layers.LayerNormalization,
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.ZeroPadding2D,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Dense,
)
"""Layers that, frozen, do the same in training as in inference, to each image by itself."""


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Outputs of the frozen stages for all images of a task.

    Attributes:
        tail: the rest of the model, on the same layers.
        train: (n_train, ...), of the model's type.
        validation: (n_validation, ...).
    """

    tail: keras.Model
    train: Any
    validation: Any


def load_or_compute(model: keras.Model, stages: Sequence[str], images: Images) -> Features | None:
    """The features behind the frozen ``stages``, whose weights ``model`` holds now.

    Returns:
        None where they would not be exact or not pay, or the disk has no room.

    Raises:
        HandBack: somebody asked this process to stop.
    """
    cut = last_still_layer(model, stages)
    if cut is None:
        return None
    head = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[:cut]])
    tail = keras.Sequential([keras.Input(head.output_shape[1:]), *model.layers[cut:]])
    path = cache.folder() / f"features-{_hash(head, images)}.npy"
    try:
        with cache.locked(path, "the features of the frozen stages"):
            mapped = _map(path, head, images)
            if mapped is None and not _compute(path, head, images, stages):
                return None
    except OSError as error:
        logger.warning("features of frozen stages are not kept in %s: %s", path.parent, error)
        return None
    mapped = _map(path, head, images) if mapped is None else mapped
    if mapped is None:
        return None
    path.touch()  # used now: the last to be removed
    train, validation = len(images.train_labels), len(images.validation_labels)
    first = _first_validation_row(images)
    return Features(tail, _tensor(mapped[:train]), _tensor(mapped[first : first + validation]))


def _tensor(mapped: npt.NDArray[Any]) -> Any:
    """A tensor that is the mapped file itself, not a copy."""
    return tf.experimental.dlpack.from_dlpack(mapped.__dlpack__())


def _first_validation_row(images: Images) -> int:
    """Rows of validation images begin at a multiple of 64, so that tensors are aligned."""
    return -(-len(images.train_labels) // 64) * 64


def last_still_layer(model: keras.Model, stages: Sequence[str]) -> int | None:
    """How many of ``model.layers`` can be replaced by features, or None.

    Args:
        model: with these stages frozen.
        stages: the frozen ones, from the input on.
    """
    if len(stages) < LEAST_STAGES or not isinstance(model, keras.Sequential):
        return None
    cut = 1 + max(i for i, layer in enumerate(model.layers) if stage_of(layer.name) in stages)
    for layer in model.layers[:cut]:
        trains = layer.trainable and layer.trainable_variables
        if trains or not isinstance(layer, STILL):
            return None
    return cut


def _hash(head: keras.Model, images: Images) -> str:
    """A hash of everything that decides the features, 16 hexadecimal digits."""
    parts = [
        images.content_hash,
        [type(layer).__name__ for layer in head.layers],
        [{**layer.get_config(), "name": ""} for layer in head.layers],
        weights_hash([weight.numpy() for weight in head.weights]),
        [keras.__version__, tf.__version__, cpu_model()],
    ]
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shape(head: keras.Model, images: Images) -> tuple[int, ...]:
    count = _first_validation_row(images) + len(images.validation_labels)
    return (count, *head.output_shape[1:])


def _map(path: Path, head: keras.Model, images: Images) -> np.memmap[Any, Any] | None:
    """The file as an array that stays on disk, or None if it is not there or damaged."""
    try:
        mapped = np.load(path, mmap_mode="c")  # dlpack takes no read-only array
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("%s is damaged (%s): it is computed again", path, error)
        return None
    if not isinstance(mapped, np.memmap) or mapped.shape != _shape(head, images):
        logger.warning("%s does not fit the model: it is computed again", path)
        return None
    return mapped


def _compute(path: Path, head: keras.Model, images: Images, stages: Sequence[str]) -> bool:
    """Write the features of all images; return False if there is no room for them."""
    shape = _shape(head, images)
    size = 4 * int(np.prod(shape))
    if not cache.make_room("features-*.npy", size):
        logger.info(
            "no room for %.1f GB of features in %s (%s, or the disk): training without them",
            size / 1e9,
            path.parent,
            cache.BOUND_VARIABLE,
        )
        return False
    logger.info(
        "computing features of the frozen stages %s, once for this machine (%.1f GB) ...",
        ", ".join(stages),
        size / 1e9,
    )
    began = time.perf_counter()
    cache.write(path, lambda temporary: _fill(temporary, head, images))
    logger.info("features are computed (%.0f s)", time.perf_counter() - began)
    return True


def _fill(path: Path, head: keras.Model, images: Images) -> None:
    kind = tf.as_dtype(head.outputs[0].dtype).as_numpy_dtype
    out = np.lib.format.open_memmap(path, "w+", kind, _shape(head, images))
    signature = [tf.TensorSpec((None, *head.input_shape[1:]), tf.uint8)]
    compute = tf.function(
        lambda batch: head(batch, training=False), signature, autograph=False, jit_compile=False
    )
    parts = ((0, images.train_images), (_first_validation_row(images), images.validation_images))
    for first, part in parts:
        for start in range(0, len(part), BATCH):
            interrupt.check()
            batch = compute(tf.constant(part[start : start + BATCH]))
            out[first + start : first + start + len(batch)] = batch.numpy()
    out.flush()
