"""Precision: the type that the layers of a model compute in.

============  =====================================================================================
``auto``      bfloat16 where the processor or the GPU has instructions for it, else float32; but a
              policy other than float32 that the study file set by
              ``keras.config.set_dtype_policy`` is kept
``float32``   as Keras's default
``bfloat16``  layers compute in bfloat16 and keep their weights in float32 (Keras's policy
              ``mixed_bfloat16``); the layer that makes the logits computes in float32
============  =====================================================================================
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import keras

from tuner.errors import UsageError
from tuner.finetune import device
from tuner.log import ONCE
from tuner.machine import AUTO, PRECISION_VARIABLE, PRECISIONS, has_bfloat16

logger = logging.getLogger("tuner.finetune")

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def chosen() -> str | None:
    """The precision that ``TUNER_PRECISION`` asks for; None: the study file's own policy.

    Raises:
        UsageError: the variable names no precision.
    """
    asked = os.environ.get(PRECISION_VARIABLE) or AUTO
    if asked not in PRECISIONS:
        raise UsageError(
            f"{PRECISION_VARIABLE}={asked!r} is no precision: set it to {', '.join(PRECISIONS)}, "
            f"or unset it for {AUTO}."
        )
    if asked != AUTO:
        return asked
    if keras.config.dtype_policy().name != "float32":
        return None
    return "bfloat16" if _has_bfloat16() else "float32"


def _has_bfloat16() -> bool:
    """Whether the device that trains has instructions for bfloat16."""
    return device.gpu_has_bfloat16() if device.kind() == "GPU" else has_bfloat16()


@contextlib.contextmanager
def scope() -> Iterator[None]:
    """Layers that are made within compute in the chosen precision, unless they name another."""
    before, name = keras.config.dtype_policy(), chosen()
    if name is not None:
        keras.config.set_dtype_policy(_POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def keep_logits_exact(model: keras.Model) -> None:
    """Let the last layer compute in float32: two logits that are equal in bfloat16 are no tie.

    A model in the last layer's place is left as it is.
    """
    last: Any = model.layers[-1]
    if not hasattr(last, "layers") and last.compute_dtype != last.variable_dtype:
        last.dtype_policy = keras.DTypePolicy(last.variable_dtype)


def of_model(model: keras.Model) -> str:
    """What the model's first layer with weights computes in, such as ``"bfloat16"``."""
    first = next((layer for layer in model.layers if layer.weights), model)
    return str(first.compute_dtype)


def tell(model: keras.Model) -> None:
    """Log the model's precision, and where it is slower than it need be."""
    name = of_model(model)
    logger.info("training in %s", name, extra=ONCE)
    if name == "bfloat16" and not _has_bfloat16():
        logger.warning(
            "this %s has no instructions for bfloat16, so that float32 is likely faster",
            "GPU" if device.kind() == "GPU" else "processor",
            extra=ONCE,
        )
