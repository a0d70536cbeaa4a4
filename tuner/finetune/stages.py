"""Stages of a model: which layers a stage owns, and freezing the first of them.

The rule: a layer belongs to the stage whose name its own name has before the first underscore, so
``conv1``, ``conv1_norm`` and ``conv1_pool`` make up the stage ``conv1``. The other layers with
weights are the head. A study may name the layers of each stage itself instead, see `name_stages`.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from weakref import WeakKeyDictionary

import keras

from tuner.errors import UsageError

# Of layers whose stage the study names: that stage, or "" in the head.
_NAMED: WeakKeyDictionary[keras.Layer, str] = WeakKeyDictionary()


def stage_of(layer: keras.Layer) -> str:
    """The name of the stage that a layer belongs to; of one in the head, no stage's name."""
    by_rule: str = layer.name.split("_", 1)[0]
    return _NAMED.get(layer, by_rule)


def name_stages(model: keras.Model, stages: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
    """Take the layers of each stage as the study names them, if it does.

    Args:
        model: whose layers.
        stages: names of stages, which leaves it to the rule; or for each stage the names of its
            layers, with ``*`` for any characters: ``{"stem": ["conv1*"], "block1": ["conv_dw_1_*",
            "conv_pw_1_*"]}``.

    Raises:
        UsageError: a name is no layer's, or a layer is in two stages.
    """
    if not isinstance(stages, Mapping):
        return
    for layer in model.layers:
        _NAMED[layer] = ""
    for stage, patterns in stages.items():
        for pattern in patterns:
            found = [layer for layer in model.layers if fnmatchcase(layer.name, pattern)]
            if not found:
                names = ", ".join(layer.name for layer in model.layers if layer.weights)
                raise UsageError(
                    f"No layer of the model is named {pattern!r}, which stages={stage!r} asks for; "
                    f"layers with weights: {names}."
                )
            for layer in found:
                if _NAMED[layer] not in {"", stage}:
                    raise UsageError(
                        f"The layer {layer.name} is in two stages, {_NAMED[layer]} and {stage}; "
                        "name it in one of them."
                    )
                _NAMED[layer] = stage


def layers_of(model: keras.Model, stages: Sequence[str]) -> list[Any]:
    """The layers of ``model`` that belong to one of ``stages``, from the input on."""
    return [layer for layer in model.layers if stage_of(layer) in stages]


def weights_of(model: keras.Model, stages: Sequence[str]) -> list[Any]:
    """The variables of ``stages``: kernels, biases and batch statistics."""
    return [weight for layer in layers_of(model, stages) for weight in layer.weights]


def stages_by_weight(model: keras.Model) -> dict[int, str]:
    """The id of each variable -> the name of its stage; in the head no stage's name."""
    return {id(weight): stage_of(layer) for layer in model.layers for weight in layer.weights}


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
                "stage's, or begin with it and an underscore; or the study names the layers of "
                f"each stage. Layers with weights: {names}."
            )
    if len(weights_of(model, stages)) == len(model.weights):
        raise UsageError(
            f"The stages {', '.join(stages)} take every layer with weights, so that no head is "
            "left to train: leave the last layer out of the stages."
        )
