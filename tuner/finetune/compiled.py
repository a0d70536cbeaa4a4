"""What is compiled: training, batch statistics and validation, each as one TensorFlow graph.

XLA stays off: an earlier measurement on a CPU found it slower for convolutions this small.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tuner.errors import UsageError
from tuner.finetune.augment import NONE, augmentation_of
from tuner.finetune.weights import Weights

VALIDATION_BATCH = 250
"""Images a batch in validation: 100 to 1,000 take the same time, and more take more memory."""


@dataclasses.dataclass(frozen=True)
class Traits:
    """What a compiled training has in it; what a trial does not use costs it nothing.

    Attributes:
        smoothed: labels are spread by a share that is told to each call.
        paced: variables learn at fractions of the rate that are told to each call.
        augmentation: by name.
    """

    smoothed: bool = False
    paced: bool = False
    augmentation: str = NONE


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """The compiled training for one optimizer and one set of frozen stages.

    Attributes:
        optimizer: built on the variables that train.
        weights: these variables.
        train: ``((images, labels), batches, rates, (seeds, first_batch), (label_smoothing,
            weight_decay, paces)) -> sum of losses``. Seeds are one for each random layer, and two
            for the augmentation; paces are the fractions of the rate, one for each of ``weights``.
        fresh: values of ``optimizer.variables`` before the first batch.
    """

    optimizer: keras.optimizers.Optimizer
    weights: list[Any]
    train: Callable[..., Any]
    fresh: Weights


def random_states(model: keras.Model) -> list[Any]:
    """The states of the model's seed generators: the variables that are no weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def compile_training(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, images: Any, traits: Traits
) -> Loop:
    """Compile the training of the weights that are trainable now.

    Args:
        model: from images, or from features of them, to logits.
        optimizer: a new one; it is built on these weights.
        images: all training images or features: the shape and type of each count.
        traits: what the training has in it.
    """
    weights = model.trainable_variables
    optimizer.build(weights)
    fresh = [variable.numpy() for variable in optimizer.variables]
    states = random_states(model)
    augment = augmentation_of(traits.augmentation)

    def train_one(images: Any, labels: Any, rate: Any, randomness: Any, smoothing: Any) -> Any:
        seeds, batch = randomness
        for index, state in enumerate(states):
            state.assign(tf.stack([seeds[index], batch]))
        if augment is not None:
            images = augment(tf.cast(images, tf.float32), _at_batch(seeds[len(states) :], batch))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            logits = model(images, training=True)
            loss = _loss(labels, logits, smoothing if traits.smoothed else None)
            for of_regulariser in model.losses:  # in the precision of its layer
                loss += tf.cast(of_regulariser, loss.dtype)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, weights)
        return loss

    def train(data: Any, batches: Any, rates: Any, randomness: Any, told: Any) -> Any:
        (images, labels), (seeds, first) = data, randomness
        smoothing, decay, paces = told

        def body(index: Any, total: Any) -> tuple[Any, Any]:
            chosen = batches[index]
            loss = train_one(
                tf.gather(images, chosen),
                tf.gather(labels, chosen),
                rates[index],
                (seeds, first + tf.cast(index, tf.int64)),
                smoothing,
            )
            return index + 1, total + loss

        count = tf.shape(batches)[0]
        with _told(optimizer, weights, decay, paces if traits.paced else None):
            _, total = tf.while_loop(lambda index, _: index < count, body, (0, 0.0))
        return total

    signature = [
        (tf.TensorSpec((None, *images.shape[1:]), images.dtype), tf.TensorSpec((None,), tf.int32)),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None,), tf.float32),
        (tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)),
        (
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((len(weights),), tf.float32),
        ),
    ]
    function = tf.function(train, signature, autograph=False, jit_compile=False)
    return Loop(optimizer, weights, function.get_concrete_function(), fresh)


def _loss(labels: Any, logits: Any, smoothing: Any | None) -> Any:
    """The mean cross-entropy of a batch, with smoothed labels if ``smoothing`` is a tensor."""
    if smoothing is None:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    n_classes = logits.shape[-1]
    shares = tf.one_hot(labels, n_classes) * (1.0 - smoothing) + smoothing / n_classes
    return keras.losses.CategoricalCrossentropy(from_logits=True)(shares, logits)


def _at_batch(seeds: Any, batch: Any) -> Any:
    """Two whole numbers for stateless operations: other ones in every batch of every trial."""
    return tf.cast(tf.stack([seeds[0], seeds[1] + batch]), tf.int32)


def _decays_as_usual(optimizer: keras.optimizers.Optimizer) -> bool:
    own, usual = type(optimizer)._apply_weight_decay, keras.optimizers.SGD._apply_weight_decay
    return own is usual


@contextlib.contextmanager
def _told(
    optimizer: keras.optimizers.Optimizer, weights: list[Any], decay: Any, paces: Any | None
) -> Iterator[None]:
    """While tracing: the optimizer's weight decay, and each weight's pace, are told to each call.

    So one compiled training serves trials that differ in them. A weight that learns at half the
    rate decays at half of it, too.
    """
    own_decay, update = optimizer.weight_decay, optimizer.update_step
    if paces is not None and not _decays_as_usual(optimizer):
        raise UsageError(
            f"stage_rate cannot be used with {type(optimizer).__name__}, which has a weight decay "
            "of its own kind; take another optimizer, or leave stage_rate out."
        )
    if own_decay is not None:
        object.__setattr__(optimizer, "weight_decay", decay)
    if paces is not None:
        pace_of = {id(weight.value): paces[index] for index, weight in enumerate(weights)}

        def paced_update(gradient: Any, variable: Any, rate: Any) -> Any:
            return update(gradient, variable, rate * pace_of[id(variable)])

        def paced_decay(variables: Any) -> None:
            for variable in variables if own_decay is not None else ():
                if optimizer._use_weight_decay(variable.value):  # asked as Keras asks
                    rate = optimizer.learning_rate * pace_of[id(variable.value)]
                    variable.assign_sub(variable * decay * rate)

        object.__setattr__(optimizer, "update_step", paced_update)
        object.__setattr__(optimizer, "_apply_weight_decay", paced_decay)
    try:
        yield
    finally:
        object.__setattr__(optimizer, "weight_decay", own_decay)
        if paces is not None:
            for name in ("update_step", "_apply_weight_decay"):
                object.__delattr__(optimizer, name)


def compile_statistics(model: keras.Model, kind: Any) -> Callable[..., Any]:
    """Compile ``images -> None`` for the layers that are trainable now."""
    norms = [
        layer
        for layer in _flat_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]

    def take_statistics(images: Any) -> None:
        momenta = [layer.momentum for layer in norms]
        try:
            for layer in norms:
                layer.momentum = 0.0  # while tracing: the moving statistics become the batch's
            if norms:
                model(images, training=True)
        finally:
            for layer, momentum in zip(norms, momenta, strict=True):
                layer.momentum = momentum

    signature = [tf.TensorSpec((None, *model.input_shape[1:]), kind)]
    function = tf.function(take_statistics, signature, autograph=False, jit_compile=False)
    compiled: Callable[..., Any] = function.get_concrete_function()
    return compiled


def _flat_layers(model: Any) -> Iterator[Any]:
    """The layers of ``model`` and of the models within it."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _flat_layers(layer)
        else:
            yield layer


def compile_validation(model: keras.Model, images: Any) -> Callable[..., Any]:
    """Compile ``(images, labels) -> how many labels the model gets right``.

    Args:
        model: from images, or from features of them, to logits.
        images: all validation images or features: their shape and type count.
    """
    size = len(images)

    def count_correct(images: Any, labels: Any) -> Any:
        def body(start: Any, correct: Any) -> tuple[Any, Any]:
            logits = model(images[start : start + VALIDATION_BATCH], training=False)
            hits = tf.argmax(logits, 1, tf.int32) == labels[start : start + VALIDATION_BATCH]
            return start + VALIDATION_BATCH, correct + tf.reduce_sum(tf.cast(hits, tf.int32))

        return tf.while_loop(lambda start, _: start < size, body, (0, 0))[1]

    signature = [
        tf.TensorSpec(images.shape, images.dtype),
        tf.TensorSpec((size,), tf.int32),
    ]
    function = tf.function(count_correct, signature, autograph=False, jit_compile=False)
    compiled: Callable[..., Any] = function.get_concrete_function()
    return compiled
