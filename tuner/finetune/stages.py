"""Stages of a model: which layers a stage owns, and freezing the first of them.

The rule: a layer belongs to the stage whose name its own name has before the first underscore, so
``conv1``, ``conv1_norm`` and ``conv1_pool`` make up the stage ``conv1``. The other layers with
weights are the head.
"""

from collections.abc import Sequence
from typing import Any

import keras

from tuner.errors import UsageError


def stage_of(layer_name: str) -> str:
    """The name of the stage that a layer of this name belongs to."""
    return layer_name.split("_", 1)[0]


def layers_of(model: keras.Model, stages: Sequence[str]) -> list[Any]:
    """The layers of ``model`` that belong to one of ``stages``, from the input on."""
    return [layer for layer in model.layers if stage_of(layer.name) in stages]


def weights_of(model: keras.Model, stages: Sequence[str]) -> list[Any]:
    """The variables of ``stages``: kernels, biases and batch statistics."""
    return [weight for layer in layers_of(model, stages) for weight in layer.weights]


def stages_by_weight(model: keras.Model) -> dict[int, str]:
    """The id of each variable -> the name of its stage, or of its layer in the head."""
    return {id(weight): stage_of(layer.name) for layer in model.layers for weight in layer.weights}


def freeze(model: keras.Model, stages: Sequence[str]) -> None:
    """Freeze exactly ``stages``: they keep weights and batch statistics, all others train."""
    frozen = {id(layer) for layer in layers_of(model, stages)}
    for layer in model.layers:
        layer.trainable = id(layer) not in frozen


def check_stages(model: keras.Model, stages: Sequence[str]) -> None:
    """Refuse stages that the model does not have.

    Raises:
        UsageError: a stage owns no layer with weights, or none is left for the head.
    """
    for stage in stages:
        if not weights_of(model, [stage]):
            names = ", ".join(layer.name for layer in model.layers if layer.weights)
            raise UsageError(
                f"No layer of the model belongs to the stage {stage!r}: a layer's name must be the "
                f"stage's, or begin with it and an underscore. Layers with weights: {names}."
            )
    if len(weights_of(model, stages)) == len(model.weights):
        raise UsageError(
            f"The stages {', '.join(stages)} take every layer with weights, so that no head is "
            "left to train: leave the last layer out of the stages."
        )
