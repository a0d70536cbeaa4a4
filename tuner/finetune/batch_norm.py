"""Batch normalisation by TensorFlow's fused kernel, with the mathematics of Keras's own layer."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tuner")
class BatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """`keras.layers.BatchNormalization`, faster to train on a CPU (tests.benchmarks.steps).

    Keras 3 composes the layer from elementary operations. This one calls ``FusedBatchNormV3`` for
    images ``(batch, height, width, channels)`` and is Keras's own layer for anything else. As
    there, a layer that is not trainable normalises with its moving statistics and keeps them.
    """

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Normalise ``inputs``, by the batch's statistics in training, else by the moving ones."""
        channels_last = len(inputs.shape) == 4 and self.axis in (3, -1)
        if not channels_last or mask is not None or self.renorm or self.synchronized:
            return super().call(inputs, training=training, mask=mask)
        learning = bool(training and self.trainable)
        scale = self.gamma if self.scale else tf.ones_like(self.moving_mean)
        offset = self.beta if self.center else tf.zeros_like(self.moving_mean)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=[] if learning else self.moving_mean,
            variance=[] if learning else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            self._keep(mean, variance, values=tf.size(inputs) // tf.shape(inputs)[-1])
        return outputs

    def _keep(self, mean: Any, variance: Any, values: Any) -> None:
        """Move the moving statistics towards those of a batch with ``values`` values a channel."""
        # The kernel returns the variance over n - 1, Keras keeps the variance over n.
        count = tf.cast(values, variance.dtype)
        variance *= (count - 1.0) / count
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1.0 - self.momentum))
