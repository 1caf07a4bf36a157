"""Our batch normalisation against Keras'."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rfkeras.layers import BatchNormalization


def pair_of_layers(shape, **options):
    rng = np.random.default_rng(0)
    ours = BatchNormalization(**options)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
    for layer in (ours, theirs):
        layer.build(shape)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        value = rng.uniform(0.5, 1.5, mine.shape).astype("float32")
        mine.assign(value)
        other.assign(value)
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 9, 5, 6), (1, 3, 1, 2), (8, 6)])
def test_outputs_and_statistics_equal_keras(shape, training):
    ours, theirs = pair_of_layers(shape)
    x = np.random.default_rng(1).normal(3.0, 2.0, shape).astype("float32")
    np.testing.assert_allclose(
        ours(x, training=training), theirs(x, training=training), atol=2e-5
    )
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=2e-5)


def test_gradients_equal_keras():
    ours, theirs = pair_of_layers((4, 7, 5, 3))
    x = tf.constant(np.random.default_rng(1).normal(size=(4, 7, 5, 3)), tf.float32)
    upstream = tf.constant(np.random.default_rng(2).normal(size=x.shape), tf.float32)
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.reduce_sum(layer(x, training=True) * upstream)
        sources = [x, *(v.value for v in layer.trainable_variables)]
        gradients.append(tape.gradient(value, sources))
    for mine, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-4)


def test_graph_uses_the_fused_kernel():
    layer = BatchNormalization()
    layer.build((None, 4, 4, 3))
    graph = tf.function(lambda x: layer(x, training=True)).get_concrete_function(
        tf.TensorSpec((None, 4, 4, 3))
    )
    assert "FusedBatchNormV3" in {op.type for op in graph.graph.get_operations()}


def test_names_and_weights_are_those_of_keras():
    ours, theirs = pair_of_layers((2, 3, 3, 4))
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    restored = BatchNormalization.from_config(ours.get_config())
    restored.build((2, 3, 3, 4))
    restored.set_weights(theirs.get_weights())
    x = np.random.default_rng(1).normal(size=(2, 3, 3, 4)).astype("float32")
    np.testing.assert_allclose(restored(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_float32_statistics(policy):
    layer = BatchNormalization(dtype=policy)
    x = np.random.default_rng(1).normal(100.0, 3.0, (8, 16, 16, 2)).astype("float32")
    outputs = layer(x, training=True)
    assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
    assert layer.moving_mean.dtype == "float32"
    # Of the input rounded to 16 bits, whose rounding error averages out.
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * x.mean((0, 1, 2)), rtol=2e-3)


def test_frozen_layer_keeps_its_statistics():
    layer = BatchNormalization(trainable=False)
    x = np.ones((2, 3, 3, 1), "float32") * 5
    np.testing.assert_allclose(layer(x, training=True), x, rtol=1e-4)
    assert layer.moving_mean.numpy()[0] == 0.0
