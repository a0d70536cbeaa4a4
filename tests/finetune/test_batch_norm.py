"""The fused layer has the mathematics of Keras's own, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tuner.finetune import BatchNormalization

SHAPE = (16, 7, 5, 6)


def _pair(**arguments):
    """The fused layer and Keras's, with the same random gamma and beta."""
    layers = (
        BatchNormalization(**arguments),
        keras.layers.BatchNormalization(**arguments),
    )
    for layer in layers:
        layer.build((None, *SHAPE[1:]))
        generator = np.random.default_rng(1)
        for variable in (layer.gamma, layer.beta):
            if variable is not None:
                variable.assign(generator.normal(1.0, 0.5, SHAPE[-1:]))
    return layers


def _step(layer, x, weights):
    """Outputs and gradients of a weighted sum of squares: (x, gamma, beta)."""
    x = tf.constant(x)
    variables = [v.value for v in (layer.gamma, layer.beta) if v is not None]
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        loss = tf.reduce_sum(weights * outputs**2)
    return [outputs, *tape.gradient(loss, [x, *variables])]


@pytest.mark.parametrize("arguments", [{}, {"momentum": 0.9, "epsilon": 1e-5}, {"scale": False}])
def test_equal_to_keras_in_outputs_gradients_and_statistics_at_every_step(arguments):
    fused, keras_own = _pair(**arguments)
    generator = np.random.default_rng(2)
    for step in range(6):
        x = generator.normal(step, 1.0 + step, SHAPE).astype(np.float32)
        weights = generator.normal(size=SHAPE).astype(np.float32)
        for ours, theirs in zip(
            _step(fused, x, weights), _step(keras_own, x, weights), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-3)
        np.testing.assert_allclose(fused.moving_mean, keras_own.moving_mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fused.moving_variance, keras_own.moving_variance, rtol=1e-5)
        np.testing.assert_allclose(
            fused(x, training=False), keras_own(x, training=False), rtol=1e-4, atol=1e-5
        )
        for variable in (fused.gamma, keras_own.gamma, fused.beta, keras_own.beta):
            if variable is not None:
                variable.assign_sub(tf.fill(SHAPE[-1:], 0.1))


def test_bessels_correction_is_undone():
    # With 2 values a channel the variance over n - 1 would be twice the one over n.
    layer = BatchNormalization(momentum=0.0)
    x = np.array([1.0, 3.0], dtype=np.float32).reshape(2, 1, 1, 1)
    layer(x, training=True)
    assert float(layer.moving_mean[0]) == 2.0
    assert float(layer.moving_variance[0]) == pytest.approx(1.0)


def test_frozen_layer_uses_and_keeps_its_moving_statistics():
    fused, keras_own = _pair()
    x = np.random.default_rng(3).normal(3.0, 2.0, SHAPE).astype(np.float32)
    for layer in (fused, keras_own):
        layer(x, training=True)
        layer.trainable = False
    before = [variable.numpy() for variable in fused.variables]
    np.testing.assert_allclose(
        fused(x, training=True), keras_own(x, training=True), rtol=1e-4, atol=1e-5
    )
    for old, variable in zip(before, fused.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_other_ranks_are_left_to_keras():
    layer = BatchNormalization(momentum=0.0)
    x = np.random.default_rng(4).normal(3.0, 2.0, (64, 6)).astype(np.float32)
    outputs = layer(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(outputs.numpy().mean(0), 0.0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras, numpy 2
def test_a_saved_model_comes_back_with_it(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 2)), BatchNormalization(momentum=0.7)])
    x = np.random.default_rng(5).normal(3.0, 2.0, (8, 4, 4, 2)).astype(np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is BatchNormalization
    assert loaded.layers[-1].momentum == 0.7
    np.testing.assert_array_equal(model(x), loaded(x))
