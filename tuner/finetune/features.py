"""Features of frozen stages: computed once a machine, so that a trial trains only what is behind.

Frozen stages give the same output for an image in every epoch and every trial. From some frozen
stages on (`LEAST_STAGES`) they are computed once for all images and kept as
``features-<hash>.npy`` in the cache; each process maps the file, so that workers share its memory.

Off by itself where the features could differ from what the frozen stages compute in training: a
layer in or before them that is not in `STILL` (dropout, augmentation, a layer of the user's), or a
model that is not one chain of layers.

How a convolution rounds may depend on an image's place in its batch: on an AMD Zen 3 (AVX2, without
AVX-512) float32 features from the second stage on differed in their last bits between two orders of
a batch, on a Zen 4 never. So on the former, training on features is training behind the frozen
stages but for rounding; a trial run again is the same bit for bit on both.
"""

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tuner import cache, interrupt
from tuner.finetune import device, precision
from tuner.finetune.batch_norm import BatchNormalization
from tuner.finetune.compiled import VALIDATION_BATCH
from tuner.finetune.images import Images
from tuner.finetune.stages import stage_of
from tuner.finetune.weights import weights_hash
from tuner.log import one_time_work
from tuner.machine import cpu_model, memory_bytes

logger = logging.getLogger("tuner.finetune")

MEMORY_SHARE = 0.25
"""Features that take more of the memory would be read from the disk again and again."""

LEAST_STAGES = {"float32": 2, "bfloat16": 1}
"""Frozen stages from which on features pay, for each precision. In float32, reading the output of
one stage takes longer than computing it: 36 ms a step, not 26; in bfloat16 24 ms, not 27."""

STORED_AS = {"float32": "float32", "bfloat16": "uint16"}
"""What a layer computes in -> what the file holds: NumPy knows no bfloat16, so its bits."""

STILL = (
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.BatchNormalization,  # a frozen one uses its moving statistics
    BatchNormalization,
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
        train: (n_train, ...), as the file holds them, see `STORED_AS`.
        validation: (n_validation, ...).
    """

    tail: keras.Model
    train: Any
    validation: Any


def load_or_compute(model: keras.Model, stages: Sequence[str], images: Images) -> Features | None:
    """The features behind the frozen ``stages``, whose weights ``model`` holds now.

    Returns:
        None where they would not be exact or not pay, or there is no room.

    Raises:
        HandBack: somebody asked this process to stop.
    """
    head = _head(model, stages)
    if head is None:
        return None
    tail = _tail(head, model.layers[len(head.layers) :])
    path = _path(head, images)
    try:
        # One lock for all features: whoever computes counts what the others take.
        with cache.locked(cache.folder() / "features", "the features of the frozen stages"):
            mapped = _map(path, head, images)
            if mapped is None and _compute(path, head, images, stages):
                mapped = _map(path, head, images)
            if mapped is None:
                return None
            path.touch()  # used now: the last to be removed
    except OSError as error:
        logger.warning("features of frozen stages are not kept in %s: %s", path.parent, error)
        return None
    train, validation = len(images.train_labels), len(images.validation_labels)
    first = _first_validation_row(images)
    return Features(tail, _tensor(mapped[:train]), _tensor(mapped[first : first + validation]))


def footprint(model: keras.Model, stages: Sequence[str], images: Images) -> tuple[Path, int] | None:
    """The file of the features behind the frozen ``stages``, and its size in bytes.

    Returns:
        None where there would be none. ``model`` holds the base's weights, or the name is another.
    """
    head = _head(model, stages)
    return None if head is None else (_path(head, images), _size(head, images))


def _head(model: keras.Model, stages: Sequence[str]) -> keras.Model | None:
    """The frozen part of the model, if its output can be stored exactly and that pays."""
    count = count_still_layers(model, stages)
    if count is None or device.kind() != "CPU" or not cache.bound_bytes():
        return None
    head = keras.Sequential([keras.Input(model.input_shape[1:]), *model.layers[:count]])
    can_be_stored = None not in head.output_shape[1:] and head.outputs[0].dtype in STORED_AS
    return head if can_be_stored else None


def _path(head: keras.Model, images: Images) -> Path:
    return cache.folder() / f"features-{_hash(head, images)}.npy"


def _size(head: keras.Model, images: Images) -> int:
    return int(_stored_kind(head).itemsize * math.prod(_shape(head, images)))


@keras.saving.register_keras_serializable(package="tuner")
class FromBits(keras.layers.Layer):  # type: ignore[misc]
    """Takes 16-bit integers for the bfloat16 numbers that have the same bits."""

    def call(self, inputs: Any) -> Any:
        """Numbers (batch, ...) of the same shape."""
        return tf.bitcast(inputs, tf.bfloat16)

    def compute_output_spec(self, inputs: Any) -> Any:
        """A symbol of the same shape."""
        return keras.KerasTensor(inputs.shape, "bfloat16")


def _tail(head: keras.Model, layers: Sequence[Any]) -> keras.Model:
    """The model from what the file holds to the logits, on ``layers`` themselves."""
    source = keras.Input(head.output_shape[1:], dtype=_stored_kind(head).name)
    opening = [FromBits()] if head.outputs[0].dtype == "bfloat16" else []
    return keras.Sequential([source, *opening, *layers])


def _stored_kind(head: keras.Model) -> np.dtype[Any]:
    """What the file holds."""
    return np.dtype(STORED_AS[head.outputs[0].dtype])


def _tensor(mapped: npt.NDArray[Any]) -> Any:
    """A tensor that is the mapped file itself, not a copy."""
    return tf.experimental.dlpack.from_dlpack(mapped.__dlpack__())


def _first_validation_row(images: Images) -> int:
    """Rows of validation images begin at a multiple of 64, so that tensors are aligned."""
    return -(-len(images.train_labels) // 64) * 64


def count_still_layers(model: keras.Model, stages: Sequence[str]) -> int | None:
    """How many of ``model.layers`` can be replaced by features, or None.

    Args:
        model: with these stages frozen.
        stages: the frozen ones, from the input on.
    """
    least = LEAST_STAGES.get(precision.of_model(model))
    if least is None or len(stages) < least or not isinstance(model, keras.Sequential):
        return None
    count = 1 + max(i for i, layer in enumerate(model.layers) if stage_of(layer) in stages)
    return count if all(_is_still(layer) for layer in model.layers[:count]) else None


def _is_still(layer: Any) -> bool:
    """Whether a layer is frozen and one whose behaviour we know: no subclass, no own activation."""
    trains = layer.trainable and layer.trainable_variables
    activation = getattr(layer, "activation", None)
    own_activation = activation and not activation.__module__.startswith("keras.")
    adds_loss = getattr(layer, "activity_regularizer", None)
    return type(layer) in STILL and not (trains or own_activation or adds_loss)


def _hash(head: keras.Model, images: Images) -> str:
    """A hash of everything that decides the features, 16 hexadecimal digits."""
    parts = [
        images.content_hash,
        [type(layer).__name__ for layer in head.layers],
        [{**layer.get_config(), "name": ""} for layer in head.layers],
        weights_hash([weight.numpy() for weight in head.weights]),
        [keras.__version__, tf.__version__, cpu_model(), device.threads()],
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
    expected = (_stored_kind(head), _shape(head, images))
    if not isinstance(mapped, np.memmap) or (mapped.dtype, mapped.shape) != expected:
        logger.warning("%s does not fit the model: it is computed again", path)
        return None
    return mapped


def _compute(path: Path, head: keras.Model, images: Images, stages: Sequence[str]) -> bool:
    """Write the features of all images; return False if there is no room for them."""
    size = _size(head, images)
    if size > memory_bytes() * MEMORY_SHARE or not cache.make_room("features-*.npy", size):
        logger.info(
            "no room for %.0f MB of features (%s in %s, the disk, or the memory): training without",
            size / 1e6,
            cache.BOUND_VARIABLE,
            path.parent,
        )
        return False
    logger.info(
        "computing features of the frozen stages %s, once for this machine (%.0f MB) ...",
        ", ".join(stages),
        size / 1e6,
    )
    began = time.perf_counter()
    with one_time_work(logger, f"computing features behind {stages[-1]}") as tell:
        cache.write(path, lambda temporary: _fill(temporary, head, images, tell))
    logger.info("features are computed (%.0f s)", time.perf_counter() - began)
    return True


def _fill(path: Path, head: keras.Model, images: Images, tell: Callable[[float], None]) -> None:
    """Write a ``.npy`` file by ordinary writes: a full disk is an error, not a bus error."""
    signature = [tf.TensorSpec((None, *head.input_shape[1:]), tf.uint8)]
    compute = tf.function(
        lambda batch: head(batch, training=False), signature, autograph=False, jit_compile=False
    )
    shape = _shape(head, images)
    header = {"descr": _stored_kind(head).str, "fortran_order": False, "shape": shape}
    unused = _first_validation_row(images) - len(images.train_labels)
    done, total = 0, len(images.train_images) + len(images.validation_images)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in (images.train_images, images.validation_images):
            for start in range(0, len(part), VALIDATION_BATCH):
                interrupt.check()
                batch = compute(tf.constant(part[start : start + VALIDATION_BATCH]))
                file.write(batch.numpy().tobytes())
                done += len(batch)
                tell(done / total)
            if part is images.train_images:
                file.write(np.zeros((unused, *shape[1:]), _stored_kind(head)).tobytes())
