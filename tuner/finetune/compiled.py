"""What is compiled: training, batch statistics and validation, each as one TensorFlow graph.

XLA stays off: an earlier measurement on a CPU found it slower for convolutions this small.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tuner.finetune.weights import Weights

VALIDATION_BATCH = 250
"""Images a batch in validation: 100 to 1,000 take the same time, and more take more memory."""


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """The compiled training for one optimizer and one set of frozen stages.

    Attributes:
        optimizer: built on the variables that train.
        train: ``((images, labels), batches, rates, dropout_seeds, first_batch) -> sum of losses``.
        fresh: values of ``optimizer.variables`` before the first batch.
    """

    optimizer: keras.optimizers.Optimizer
    train: Callable[..., Any]
    fresh: Weights


def random_states(model: keras.Model) -> list[Any]:
    """The states of the model's seed generators: the variables that are no weights."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def compile_training(model: keras.Model, optimizer: keras.optimizers.Optimizer, kind: Any) -> Loop:
    """Compile the training of the weights that are trainable now.

    Args:
        model: from images, or from features of them, to logits.
        optimizer: a new one; it is built on these weights.
        kind: the type of the images or features.
    """
    weights = model.trainable_variables
    optimizer.build(weights)
    fresh = [variable.numpy() for variable in optimizer.variables]
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    states = random_states(model)

    def train_one(images: Any, labels: Any, rate: Any, dropout_seeds: Any, batch: Any) -> Any:
        for index, state in enumerate(states):
            state.assign(tf.stack([dropout_seeds[index], batch]))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([weight.value for weight in weights])
            loss = loss_of(labels, model(images, training=True))
            for of_regulariser in model.losses:  # in the precision of its layer
                loss += tf.cast(of_regulariser, loss.dtype)
        gradients = tape.gradient(loss, [weight.value for weight in weights])
        optimizer.learning_rate.assign(rate)
        optimizer.apply(gradients, weights)
        return loss

    def train(data: Any, batches: Any, rates: Any, dropout_seeds: Any, first: Any) -> Any:
        images, labels = data

        def body(index: Any, total: Any) -> tuple[Any, Any]:
            chosen = batches[index]
            loss = train_one(
                tf.gather(images, chosen),
                tf.gather(labels, chosen),
                rates[index],
                dropout_seeds,
                first + tf.cast(index, tf.int64),
            )
            return index + 1, total + loss

        count = tf.shape(batches)[0]
        _, total = tf.while_loop(lambda index, _: index < count, body, (0, 0.0))
        return total

    signature = [
        (tf.TensorSpec((None, *model.input_shape[1:]), kind), tf.TensorSpec((None,), tf.int32)),
        tf.TensorSpec((None, None), tf.int32),
        tf.TensorSpec((None,), tf.float32),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((), tf.int64),
    ]
    function = tf.function(train, signature, autograph=False, jit_compile=False)
    return Loop(optimizer, function.get_concrete_function(), fresh)


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
