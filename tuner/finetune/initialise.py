"""The weights a trial starts from: the base's, or drawn anew by a named scheme.

===============  ==================  ===================  ====================
init             frozen stages       unfrozen stages      head
===============  ==================  ===================  ====================
``pretrained``   base                base                 ``glorot_uniform``
a Keras name     base                drawn by that name   drawn by that name
===============  ==================  ===================  ====================

In a name's place may stand an initialiser that was made, such as
``keras.initializers.RandomNormal(stddev=5.0)``; each trial gives it a seed of its own.

Drawing concerns the kernels (weights of two and more dimensions). Vectors start as their layers
make them: biases 0, gamma 1, beta 0, moving mean 0, moving variance 1.
"""

import difflib
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt

from tuner.errors import UsageError
from tuner.finetune import randomness
from tuner.finetune.stages import weights_of
from tuner.finetune.weights import Weights

PRETRAINED = "pretrained"
HEAD_OF_PRETRAINED = "glorot_uniform"
"""Draws the head when all stages come from the base: Keras's default for dense layers."""


Init: TypeAlias = str | keras.initializers.Initializer
"""``"pretrained"``, the name of a Keras initialiser, or one made."""


def stages_from_base(init: Init, stages: Sequence[str], frozen: Sequence[str]) -> Sequence[str]:
    """The stages that start with the base's weights: the ``frozen`` ones, or all if pretrained."""
    return stages if init == PRETRAINED else frozen


def drawn(template: Weights, init: Init, seed: int) -> Weights:
    """Draw every kernel anew.

    Args:
        template: weights of the model as it was built, for shapes and for the vectors' values.
        init: ``"pretrained"``, a name of `keras.initializers`, or an initialiser.
        seed: the trial's; each kernel draws by (seed, its index), so that a kernel's values do not
            depend on which others are drawn.

    Returns:
        New weights in the template's order.

    Raises:
        UsageError: Keras has no initialiser of this name.
    """
    scheme = HEAD_OF_PRETRAINED if init == PRETRAINED else init
    return [
        _kernel(scheme, randomness.derive(seed, randomness.KERNEL, index), value.shape)
        if value.ndim > 1
        else value
        for index, value in enumerate(template)
    ]


def with_stages(
    model: keras.Model, weights: Weights, base: Weights, stages: Sequence[str]
) -> Weights:
    """The ``weights``, with those of ``stages`` taken from ``base``; the model is not changed."""
    replaced = {id(variable) for variable in weights_of(model, stages)}
    return [
        from_base if id(variable) in replaced else new
        for variable, new, from_base in zip(model.weights, weights, base, strict=True)
    ]


def _kernel(init: Init, seed: int, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Draw one kernel."""
    try:
        made = keras.initializers.get(init)
        config = made.get_config()
        if "seed" in config:  # "zeros" has none
            config["seed"] = seed
        initialiser = type(made).from_config(config)
        values = initialiser(shape)
    except (ValueError, TypeError, AttributeError):
        raise UsageError(_unknown(init)) from None
    return np.asarray(keras.ops.convert_to_numpy(values))


def _unknown(init: Init) -> str:
    """The sentence for an ``init`` that Keras cannot draw by."""
    if not isinstance(init, str):
        return f"init={init!r} cannot draw a kernel: give one of keras.initializers."
    known = [name for name in dir(keras.initializers) if name.islower() and name[0] != "_"]
    close = difflib.get_close_matches(init, [PRETRAINED, *known], n=1)
    remedy = f"Did you mean {close[0]!r}?" if close else "Keras lists them in keras.initializers."
    return f"init={init!r} is neither {PRETRAINED!r} nor a Keras initialiser. {remedy}"
